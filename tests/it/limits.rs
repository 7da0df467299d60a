//! Tests of the connection limit: further connections are refused without an abort, and accepted again when others
//! close.

use std::io::Write as _;
use std::net::Ipv4Addr;

use crate::support::{DEADLINE, Event, Response, Server, Ws, binary_for_anybody, eventually, raise_descriptor_limit};
use crate::support::{connect_from, get_from, http};

/// Checks that a response refuses a connection at the limit.
#[track_caller]
fn assert_full(refusal: &Response) {
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    let seconds = refusal.header("Retry-After").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some(), "no Retry-After in {:?}", refusal.headers);
    assert!(refusal.json()["error"].is_string());
}

/// Opens members until the server refuses one, which must happen before `most`; returns the accepted members.
#[track_caller]
fn fill(server: &mut Server, most: usize) -> Vec<Ws> {
    raise_descriptor_limit();
    let mut members = Vec::new();
    loop {
        assert!(members.len() < most, "no refusal up to {most}");
        match Ws::open(server.addr(), "/ws/tea/Ana", &[]) {
            Ok(Ok(mut ws)) => match ws.event() {
                Event::Frame(welcome) => {
                    assert_eq!(welcome["type"], "welcome");
                    members.push(ws);
                }
                Event::Close(code) => {
                    assert_eq!(code, Some(1013));
                    break;
                }
                Event::End => panic!("an end without a reason at {}", members.len()),
            },
            Ok(Err(refusal)) => {
                assert_full(&refusal);
                break;
            }
            Err(error) => {
                server.assert_alive();
                panic!("neither taken nor refused at {}: {error}", members.len());
            }
        }
    }
    members
}

/// Opens many more connections to a full server, then closes some members and checks that new ones are accepted.
#[track_caller]
fn push_and_recover(server: &mut Server, mut members: Vec<Ws>) {
    for _ in 0..100 {
        match Ws::open(server.addr(), "/ws/tea/Late", &[]) {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(refusal)) => assert_full(&refusal),
        }
    }
    server.assert_alive();
    let first = &mut members[0];
    first.say("still here");
    first.until(|frame| frame["content"] == "still here");
    members.truncate(members.len() / 2);
    let mut newcomer = None;
    eventually("a newcomer is taken as others leave", DEADLINE, || {
        newcomer = Ws::open(server.addr(), "/ws/tea/New", &[]).ok().and_then(Result::ok);
        newcomer.is_some()
    });
    let mut newcomer = newcomer.expect("a newcomer");
    newcomer.say("I am in");
    newcomer.until(|frame| frame["content"] == "I am in");
    members[0].until(|frame| frame["content"] == "I am in");
    drop(newcomer);
    drop(members);
    eventually("the metrics answer", DEADLINE, || server.get("/metrics").status == 200);
    server.wait_for_metric("members", 0);
    let refused = server.metric("refusals_total{reason=\"connections\"}");
    let no_thread = server.metric("refusals_total{reason=\"thread\"}");
    assert!(refused + no_thread > 0, "refusals are counted");
    server.assert_alive();
}

#[test]
fn above_the_limit_of_the_flag_it_is_503_until_a_member_leaves() {
    let mut server = Server::with(&["--max-connections", "10"]);
    let members = fill(&mut server, 11);
    assert_eq!(members.len(), 10);
    assert_full(&server.get("/healthz"));
    push_and_recover(&mut server, members);
}

#[test]
fn a_low_limit_on_descriptors_lowers_the_connection_limit() {
    let mut server = Server::under(&["prlimit", "--nofile=256:256"], &[]);
    let members = fill(&mut server, 256);
    assert!(members.len() >= 32, "{} are too few for 256 descriptors", members.len());
    push_and_recover(&mut server, members);
}

#[test]
fn a_low_soft_limit_on_descriptors_is_raised() {
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    assert!(hard.is_none_or(|hard| hard >= 1024), "this test needs a hard limit of 1024 descriptors");
    raise_descriptor_limit();
    let server = Server::under(&["prlimit", "--nofile=64:1024"], &[]);
    let members: Vec<Ws> = (0..200).map(|_| Ws::connect(&server, "/ws/tea/Ana")).collect();
    assert_eq!(members.len(), 200);
}

/// A server that may have `tasks` threads. The limit counts all threads of a user, and root has no limit. So if the
/// tests run as root, the server runs as a user without other processes. Otherwise the threads of the tests' own user
/// are included.
fn with_task_limit(tasks: u64, dir: &std::path::Path) -> Server {
    if rustix::process::geteuid().is_root() {
        // Above the ids of people and services, and another id in each run.
        let user = format!("{}", 100_000 + std::process::id());
        let binary = binary_for_anybody(dir);
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .args(["prlimit", &format!("--nproc={tasks}")])
            .arg(binary)
            .args(["--listen", "127.0.0.1:0"]);
        return Server::spawn(command);
    }
    let own = rustix::process::getuid().as_raw();
    let theirs = |pid: u32| {
        std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == own)
    };
    let processes = std::fs::read_dir("/proc").expect("/proc");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let threads = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) as u64;
    let running: u64 = pids.filter(|pid| theirs(*pid)).map(threads).sum();
    Server::under(&["prlimit", &format!("--nproc={}", running + tasks)], &[])
}

#[test]
fn a_low_limit_on_tasks_lowers_the_connection_limit_without_an_abort() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = with_task_limit(100, dir.path());
    let members = fill(&mut server, 3_000);
    assert!(members.len() >= 20, "{} are too few for 100 tasks", members.len());
    push_and_recover(&mut server, members);
}

#[test]
fn connections_without_a_head_make_room_for_others_at_the_limit() {
    let server = Server::with(&["--max-connections", "20"]);
    let mut member = Ws::join(&server, "/ws/tea/Ana");
    let mut silent: Vec<_> = (0..60)
        .map(|number| {
            let mut stream = connect_from(Ipv4Addr::LOCALHOST, server.addr(), None).expect("a connection");
            // Silent, in the middle of the head, or at its end.
            let beginning = ["", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: x\r\n"][number % 3];
            let _ = stream.write_all(beginning.as_bytes());
            stream
        })
        .collect();
    let mut members = Vec::new();
    for _ in 0..10 {
        let response = get_from(server.addr(), Ipv4Addr::new(127, 0, 0, 2), "/healthz").expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        silent.extend(connect_from(Ipv4Addr::LOCALHOST, server.addr(), None));
    }
    // The address itself must wait until one of its own is not spared any more.
    eventually("others of the same address enter, too", DEADLINE, || {
        members.extend(Ws::open(server.addr(), "/ws/tea/Ben", &[]).ok().and_then(Result::ok));
        members.len() > 3
    });
    member.say("still here");
    member.until(|frame| frame["content"] == "still here");
    assert!(server.metric("drops_total{reason=\"displaced\"}") >= 10);
    drop(silent);
}

#[test]
fn one_address_has_its_own_connection_limit() {
    let server = Server::with(&["--max-per-ip", "3"]);
    let mut members: Vec<Ws> = (0..3).map(|_| Ws::join(&server, "/ws/tea/Ana")).collect();
    let refusal = Ws::refused(&server, "/ws/tea/Ana", &[]);
    assert_full(&refusal);
    assert_eq!(get_from(server.addr(), Ipv4Addr::new(127, 0, 0, 2), "/healthz").expect("an answer").status, 200);
    members.pop();
    eventually("its share is free again", DEADLINE, || {
        http(server.addr(), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    });
}
