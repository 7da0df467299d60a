//! Tests of the server's side over real sockets, with clients that break the protocol.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use crossbeam_channel::Receiver;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::thread::set_thread_res_uid;
use serde::Deserialize;
use tempfile::TempDir;

use super::address::Addresses;
use super::*;
use crate::limits::CONTROL_ANSWER_BYTES_MAX;

const DEADLINE: Duration = Duration::from_secs(20);
/// How long a test waits to see that nothing happens.
const SHORT: Duration = Duration::from_millis(100);
/// The server's time-out for a stalled client. A busy machine needs some of it.
const IO_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Echo(String),
    /// Answered with a text of this many characters.
    Long(usize),
    Refuse,
    Panic,
    /// Answered when the test allows it.
    Wait,
}

/// A running control socket for an empty file, in its own directory.
struct Served {
    control: Option<Control>,
    database: PathBuf,
    /// Receives a message when a `Wait` request waits.
    waiting: Receiver<()>,
    /// Lets one waiting request continue.
    go: Sender<()>,
    _directory: TempDir,
}

impl Served {
    fn start() -> Self {
        Self::with(DEADLINE, "adda.db")
    }

    fn with(io_wait: Duration, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join(name);
        fs::create_dir_all(database.parent().unwrap()).unwrap();
        fs::write(&database, "").unwrap();
        let mut served = Self {
            control: None,
            database,
            waiting: crossbeam_channel::never(),
            go: bounded(0).0,
            _directory: directory,
        };
        served.serve(io_wait);
        served
    }

    fn serve(&mut self, io_wait: Duration) {
        let ((tell, waiting), (go, going)) = (bounded(16), bounded(16));
        (self.waiting, self.go) = (waiting, go);
        let handler = move |request: Request| match request {
            Request::Echo(text) => Ok(text),
            Request::Long(chars) => Ok("x".repeat(chars)),
            Request::Refuse => Err(Reason::NameTaken.because("that name is taken")),
            Request::Panic => panic!("this test panics on purpose"),
            Request::Wait => {
                tell.send(()).unwrap();
                going.recv_timeout(DEADLINE).map_err(|_| Reason::Busy.because("no answer in time"))?;
                Ok("waited".to_owned())
            }
        };
        self.control = Some(Control::start_within(&self.database, io_wait, handler).unwrap());
    }

    fn file(&self) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push(".control");
        path.into()
    }

    fn connect(&self) -> UnixStream {
        let addresses = Addresses::of(&self.database).unwrap();
        let at_file = || Some(UnixStream::connect(&addresses.file.as_ref()?.0).unwrap());
        let stream = at_file().unwrap_or_else(|| connect_to(&addresses.abstract_socket).unwrap());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

fn connect_to(address: &SocketAddrUnix) -> rustix::io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, address)?;
    Ok(socket.into())
}

fn answer_of(stream: &UnixStream) -> String {
    let mut lines = Lines::new(stream, CONTROL_ANSWER_BYTES_MAX);
    let line = lines.next(DEADLINE).expect("an answer in time").expect("an answer before the end");
    String::from_utf8(line.to_vec()).unwrap()
}

fn ask(mut stream: &UnixStream, request: &str) -> String {
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    answer_of(stream)
}

fn echo(stream: &UnixStream) -> String {
    ask(stream, r#"{"version":1,"request":{"echo":"hello"}}"#)
}

const ECHOED: &str = r#"{"version":1,"answer":"hello"}"#;

/// Waits for the server to close the connection.
#[track_caller]
fn assert_closed(mut stream: &UnixStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection is open: {other:?}"),
    }
}

#[test]
fn many_requests_are_answered_on_one_connection() {
    let served = Served::start();
    let stream = served.connect();
    for _ in 0..100 {
        assert_eq!(echo(&stream), ECHOED);
    }
    let refused = r#"{"version":1,"error":{"reason":"name_taken","sentence":"that name is taken"}}"#;
    assert_eq!(ask(&stream, r#"{"version":1,"request":"refuse"}"#), refused);
    assert_eq!(echo(&stream), ECHOED);
}

#[test]
fn requests_that_arrive_together_or_in_pieces_are_answered_in_order() {
    let served = Served::start();
    let mut stream = served.connect();
    let request = |number: usize| format!("{{\"version\":1,\"request\":{{\"echo\":\"{number}\"}}}}\n");
    let all: String = (0..50).map(request).collect();
    stream.write_all(all.as_bytes()).unwrap();
    let mut lines = Lines::new(&stream, CONTROL_ANSWER_BYTES_MAX);
    for number in 0..50 {
        let line = lines.next(DEADLINE).unwrap().unwrap();
        assert_eq!(line, format!("{{\"version\":1,\"answer\":\"{number}\"}}").as_bytes());
    }
    for byte in request(7).bytes() {
        (&stream).write_all(&[byte]).unwrap();
    }
    assert_eq!(lines.next(DEADLINE).unwrap().unwrap(), b"{\"version\":1,\"answer\":\"7\"}");
}

#[test]
fn only_the_owner_may_use_the_socket_and_a_stop_removes_it() {
    let mut served = Served::start();
    let file = fs::symlink_metadata(served.file()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o777, 0o600);
    let stream = served.connect();
    assert_eq!(echo(&stream), ECHOED);
    served.control.take().unwrap().stop(Instant::now() + DEADLINE);
    assert!(!served.file().exists());
    assert_closed(&stream);
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_kept() {
    let mut served = Served::start();
    // As left by a killed process.
    drop(served.control.take());
    drop(std::os::unix::net::UnixListener::bind(served.file()).unwrap());
    assert!(served.file().exists());
    served.serve(DEADLINE);
    assert_eq!(echo(&served.connect()), ECHOED);
    drop(served.control.take());
    fs::write(served.file(), "mine").unwrap();
    served.serve(DEADLINE);
    let abstract_socket = connect_to(&Addresses::of(&served.database).unwrap().abstract_socket).unwrap();
    assert_eq!(echo(&abstract_socket), ECHOED);
    drop(served.control.take());
    assert_eq!(fs::read_to_string(served.file()).unwrap(), "mine");
}

#[test]
fn a_file_that_replaced_the_socket_is_not_removed() {
    let mut served = Served::start();
    fs::remove_file(served.file()).unwrap();
    fs::write(served.file(), "mine").unwrap();
    drop(served.control.take());
    assert_eq!(fs::read_to_string(served.file()).unwrap(), "mine");
}

#[test]
fn a_database_with_a_long_path_has_a_socket_without_a_file() {
    let long = format!("{}/{}/adda.db", "d".repeat(60), "e".repeat(60));
    let mut served = Served::with(DEADLINE, &long);
    assert!(Addresses::of(&served.database).unwrap().file.is_none());
    assert!(!served.file().exists());
    assert_eq!(echo(&served.connect()), ECHOED);
    let again = Control::start(&served.database, |(): ()| Ok(()));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(served.control.take());
    assert!(connect_to(&Addresses::of(&served.database).unwrap().abstract_socket).is_err());
    served.serve(DEADLINE);
    assert_eq!(echo(&served.connect()), ECHOED);
}

#[test]
fn a_link_to_a_database_leads_to_its_socket() {
    let served = Served::start();
    let link = served.database.with_file_name("link.db");
    std::os::unix::fs::symlink(&served.database, &link).unwrap();
    let addresses = Addresses::of(&link).unwrap();
    assert_eq!(fs::canonicalize(served.file()).unwrap(), addresses.file.unwrap().0);
}

#[test]
fn invalid_requests_are_answered_and_the_connection_stays_open() {
    let served = Served::start();
    let stream = served.connect();
    for (line, reason) in [
        (r#"{"version":2,"ask":"list"}"#, "malformed_request"),
        (r#"{"version":1,"request":"lost"}"#, "malformed_request"),
        ("GET / HTTP/1.1\r", "malformed_request"),
        ("", "malformed_request"),
        ("{\"version\":1,\"request\":[[[[[[", "malformed_request"),
        ("\u{0}\u{1}🙂", "malformed_request"),
    ] {
        let answer = ask(&stream, line);
        assert!(answer.contains(&format!(r#""reason":"{reason}""#)), "{line}: {answer}");
        assert_eq!(echo(&stream), ECHOED);
    }
    (&stream).write_all(b"\xff\xfe\x80\n").unwrap();
    assert!(answer_of(&stream).contains("malformed_request"));
}

#[test]
fn a_request_above_the_limit_is_refused_without_being_buffered() {
    let served = Served::start();
    let within = |length: usize| {
        let around = r#"{"version":1,"request":{"echo":""}}"#.len() + 1;
        format!(r#"{{"version":1,"request":{{"echo":"{}"}}}}"#, "x".repeat(length - around))
    };
    let stream = served.connect();
    let answer = ask(&stream, &within(CONTROL_REQUEST_BYTES_MAX));
    assert!(answer.starts_with(r#"{"version":1,"answer":"xxx"#));
    (&stream).write_all(within(CONTROL_REQUEST_BYTES_MAX + 1).as_bytes()).unwrap();
    assert!(answer_of(&stream).contains("body_too_large"));
    assert_closed(&stream);
    // The same for a line without an end.
    let stream = served.connect();
    let endless = vec![b'x'; 16 * CONTROL_REQUEST_BYTES_MAX];
    let error = (&stream).write_all(&endless).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(answer_of(&stream).contains("body_too_large"));
}

#[test]
fn an_answer_above_the_limit_is_an_error_and_the_next_is_not() {
    let served = Served::start();
    let stream = served.connect();
    let long = |chars: usize| ask(&stream, &format!(r#"{{"version":1,"request":{{"long":{chars}}}}}"#));
    assert!(long(CONTROL_ANSWER_BYTES_MAX).contains("its answer could not be sent"));
    let most = CONTROL_ANSWER_BYTES_MAX - r#"{"version":1,"answer":""}"#.len() - 1;
    assert_eq!(long(most).len(), CONTROL_ANSWER_BYTES_MAX - 1);
}

#[test]
fn a_stalled_client_is_disconnected() {
    let served = Served::with(IO_WAIT, "adda.db");
    // The first client sends nothing, the second half a request, and the third reads no answer.
    let silent = served.connect();
    let half = served.connect();
    // On a busy machine the connection may be closed before.
    let _ = (&half).write_all(b"{\"version\":1,");
    assert_closed(&silent);
    assert_closed(&half);
    let greedy = served.connect();
    let request = format!("{{\"version\":1,\"request\":{{\"long\":{}}}}}\n", CONTROL_ANSWER_BYTES_MAX / 2);
    let error = loop {
        if let Err(error) = (&greedy).write_all(request.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
}

#[test]
fn a_client_that_sends_byte_by_byte_has_the_same_deadline() {
    let served = Served::with(IO_WAIT, "adda.db");
    let stream = served.connect();
    let began = Instant::now();
    let pause = Duration::from_millis(10);
    while (&stream).write_all(b" ").is_ok() {
        assert!(began.elapsed() < DEADLINE, "each byte restarts the time");
        thread::sleep(pause);
    }
}

#[test]
fn a_fifth_client_waits_until_one_of_four_has_ended() {
    let served = Served::start();
    let mut four: Vec<UnixStream> = (0..CONTROL_CLIENTS_MAX).map(|_| served.connect()).collect();
    for stream in &four {
        assert_eq!(echo(stream), ECHOED);
    }
    let fifth = served.connect();
    (&fifth).write_all(b"{\"version\":1,\"request\":{\"echo\":\"hello\"}}\n").unwrap();
    fifth.set_read_timeout(Some(SHORT)).unwrap();
    assert!((&fifth).read(&mut [0; 1]).is_err(), "four are served");
    // The other threads are not blocked by it.
    for stream in &four {
        assert_eq!(echo(stream), ECHOED);
    }
    four.pop();
    assert_eq!(answer_of(&fifth), ECHOED);
}

#[test]
fn a_slow_request_does_not_delay_other_clients() {
    let served = Served::start();
    let slow = served.connect();
    (&slow).write_all(b"{\"version\":1,\"request\":\"wait\"}\n").unwrap();
    served.waiting.recv_timeout(DEADLINE).unwrap();
    assert_eq!(echo(&served.connect()), ECHOED);
    served.go.send(()).unwrap();
    assert_eq!(answer_of(&slow), r#"{"version":1,"answer":"waited"}"#);
}

#[test]
fn a_panic_of_the_handler_ends_one_connection() {
    let served = Served::start();
    for _ in 0..2 * CONTROL_CLIENTS_MAX {
        let stream = served.connect();
        (&stream).write_all(b"{\"version\":1,\"request\":\"panic\"}\n").unwrap();
        assert_closed(&stream);
    }
    assert_eq!(echo(&served.connect()), ECHOED);
}

#[test]
fn a_stop_waits_for_the_answer_to_a_complete_request() {
    let mut served = Served::start();
    let (busy, idle) = (served.connect(), served.connect());
    assert_eq!(echo(&idle), ECHOED);
    (&busy).write_all(b"{\"version\":1,\"request\":\"wait\"}\n").unwrap();
    served.waiting.recv_timeout(DEADLINE).unwrap();
    let control = served.control.take().unwrap();
    let stopping = thread::spawn(move || control.stop(Instant::now() + DEADLINE));
    assert_closed(&idle);
    assert!(!stopping.is_finished());
    served.go.send(()).unwrap();
    assert_eq!(answer_of(&busy), r#"{"version":1,"answer":"waited"}"#);
    stopping.join().unwrap();
    assert_closed(&busy);
}

#[test]
fn a_stop_has_its_deadline() {
    let mut served = Served::start();
    let busy = served.connect();
    (&busy).write_all(b"{\"version\":1,\"request\":\"wait\"}\n").unwrap();
    served.waiting.recv_timeout(DEADLINE).unwrap();
    served.control.take().unwrap().stop(Instant::now() + SHORT);
    assert_closed(&busy);
    // All threads have a client, so none of them waits in `accept`.
    served.go.send(()).unwrap();
    served.serve(DEADLINE);
    let _four: Vec<UnixStream> = (0..CONTROL_CLIENTS_MAX).map(|_| served.connect()).collect();
    served.control.take().unwrap().stop(Instant::now() + DEADLINE);
}

#[test]
fn only_the_servers_user_and_root_are_allowed() {
    let uid = Uid::from_raw;
    for (peer, server, allowed) in
        [(0, 0, true), (0, 1_000, true), (1_000, 1_000, true), (1_000, 0, false), (1_000, 1_001, false)]
    {
        assert_eq!(is_allowed(uid(peer), uid(server)), allowed, "{peer} at {server}");
    }
}

/// User ids can be set per thread, so this thread becomes another user. Without root that is not possible; then only
/// the check of the user id is tested.
#[test]
fn another_user_is_refused_with_an_error_and_blocks_no_thread() {
    let other = Uid::from_raw(100_000 + std::process::id());
    let served = Served::with(DEADLINE, &format!("{}/{}/adda.db", "d".repeat(60), "e".repeat(60)));
    let abstract_socket = Addresses::of(&served.database).unwrap().abstract_socket;
    if !geteuid().is_root() {
        assert!(!is_allowed(geteuid(), other));
        assert_eq!(echo(&served.connect()), ECHOED);
        return;
    }
    let refused = thread::spawn(move || {
        set_thread_res_uid(other, other, other).unwrap();
        for _ in 0..3 * CONTROL_CLIENTS_MAX {
            let stream = connect_to(&abstract_socket).unwrap();
            let answer = answer_of(&stream);
            assert!(answer.contains(r#""reason":"not_yours""#), "{answer}");
            assert!(answer.contains(&format!("user {} is not allowed", other.as_raw())), "{answer}");
            assert_closed(&stream);
        }
    });
    refused.join().unwrap();
    assert_eq!(echo(&served.connect()), ECHOED);
}

#[test]
fn another_user_cannot_connect_to_the_file() {
    if !geteuid().is_root() {
        // Only root can become another user; another test checks the mode of the file.
        return;
    }
    let served = Served::start();
    let other = Uid::from_raw(100_000 + std::process::id());
    fs::set_permissions(served.database.parent().unwrap(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = served.file();
    let refused = thread::spawn(move || {
        set_thread_res_uid(other, other, other).unwrap();
        UnixStream::connect(file).unwrap_err()
    });
    assert_eq!(refused.join().unwrap().kind(), ErrorKind::PermissionDenied);
}
