//! No acked message is lost, duplicated or reordered, however often the server is killed and the network fails.
//!
//! `ADDA_CRASH_CYCLES` sets how often the server is killed, `ADDA_SEED` the random choices:
//! `ADDA_CRASH_CYCLES=1000 cargo test --test it crash -- --nocapture`.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;

use crate::history::{Fault, History, Message, Room, check};
use crate::http_clients::HttpClient;
use crate::proxy::{Lines, Proxy};
use crate::random::Random;
use crate::support::{DEADLINE, Server, clean};
use crate::ws_clients::{Stage, WsClient, read_log};

const SENDERS: usize = 8;
const READERS: usize = 16;
const POSTERS: usize = 2;
const ROOMS: [Room; 2] = [Room(0), Room(1)];
/// The number of kills without `ADDA_CRASH_CYCLES`.
const CYCLES: u64 = 5;
/// Maximum acks until the next kill.
const ACKS_PER_CYCLE_MAX: u64 = 400;
/// Maximum faults in the failure message.
const FAULTS_SHOWN: usize = 20;

/// A server command with its own file and address.
pub fn command(address: SocketAddr, data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    command.args(["--listen", &address.to_string(), "--rate", "0", "--data"]).arg(data);
    command
}

/// An address that stays free while no server has it. Its port is outside the range for clients: otherwise a client
/// that connects could get the port itself, and be connected to itself.
pub fn steady_address(random: &mut Random) -> SocketAddr {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given = range.split_whitespace().next().and_then(|port| port.parse().ok()).unwrap_or(32_768);
    loop {
        let port = u16::try_from(random.within(1_024..first_given.max(1_025))).expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The clients: senders in each of the rooms, and readers in one or two.
pub fn start_clients(senders: usize, readers: usize, rooms: &[Room], random: &mut Random) -> Vec<WsClient> {
    let room = |number: usize| rooms[number % rooms.len()];
    let mut cast: Vec<WsClient> =
        (0..senders).map(|number| WsClient::sender(number, room(number), random.fork())).collect();
    cast.extend((0..readers).map(|number| {
        let rooms = match number % 4 {
            0 => vec![room(number + 1), room(number)],
            _ => vec![room(number)],
        };
        WsClient::reader(senders + number, rooms, random.fork())
    }));
    cast
}

pub fn whole_log(server: &Server, rooms: &[Room]) -> Vec<Message> {
    rooms.iter().flat_map(|room| read_log(server.addr(), *room)).collect()
}

#[track_caller]
pub fn assert_kept(faults: &[Fault]) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for fault in faults {
        let shown = format!("{fault:?}");
        *kinds.entry(shown.split([' ', '(']).next().unwrap_or_default().to_string()).or_default() += 1;
    }
    let shown: Vec<String> = faults.iter().take(FAULTS_SHOWN).map(|fault| format!("  {fault:?}\n")).collect();
    assert!(faults.is_empty(), "{kinds:?}; the first:\n{}", shown.concat());
}

/// Checks the database with `adda doctor`, and its number of messages.
#[track_caller]
pub fn assert_sound(data: &Path, log: &[Message]) {
    let connection = Connection::open_with_flags(data, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the file opens");
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a verdict");
    assert_eq!(verdict, "ok");
    let count: i64 = connection.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).expect("a count");
    assert_eq!(usize::try_from(count), Ok(log.len()), "messages in the file, and in what the server told");
}

/// Starts a server that is killed before, during or just after its start.
fn start_and_kill(address: SocketAddr, data: &Path, random: &mut Random) {
    let mut command = command(address, data);
    let streams = clean(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = streams.spawn().expect("the server starts");
    // This waits for no event: the time of the kill must be random.
    thread::sleep(random.up_to(Duration::from_millis(40)));
    child.kill().expect("our own child");
    child.wait().expect("our own child");
}

#[test]
fn no_acked_message_is_lost_however_often_the_server_is_killed() {
    let cycles = match std::env::var("ADDA_CRASH_CYCLES") {
        Ok(text) => text.parse().expect("ADDA_CRASH_CYCLES is a number"),
        Err(_) => CYCLES,
    };
    let mut random = Random::from_env();
    let began = Instant::now();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let address = steady_address(&mut random);
    let mut server = Server::spawn(command(address, &data));
    let stage = Stage::new(address, DEADLINE);
    let cast = start_clients(SENDERS, READERS, &ROOMS, &mut random);
    let mut before_listening = 0;
    let history = thread::scope(|scope| {
        let _alarm = stage.alarm();
        let mut threads: Vec<_> = cast.into_iter().map(|talker| scope.spawn(|| talker.run(&stage))).collect();
        threads.extend((0..POSTERS).map(|number| {
            let poster = HttpClient::new(SENDERS + READERS + number, ROOMS[number % ROOMS.len()]);
            scope.spawn(|| poster.run(&stage))
        }));
        for cycle in 1..=cycles {
            stage.wait_for_acks(random.within(0..ACKS_PER_CYCLE_MAX));
            // At a random time between two commits.
            thread::sleep(random.up_to(Duration::from_millis(5)));
            server.signal(Signal::KILL);
            stage.went_down();
            server.wait_exit(DEADLINE);
            if random.once_in(4) {
                start_and_kill(address, &data, &mut random);
                before_listening += 1;
            }
            server = Server::spawn(command(address, &data));
            stage.came_up();
            if cycle % 50 == 0 {
                println!("{cycle} kills, {} s: {}", began.elapsed().as_secs(), stage.summary());
            }
        }
        let log = stage.finish(SENDERS + READERS + POSTERS, || whole_log(&server, &ROOMS));
        let clients = threads.into_iter().map(joined).collect();
        History { clients, log }
    });
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    assert_sound(&data, &history.log);
    let server = Server::spawn(command(address, &data));
    assert!(whole_log(&server, &ROOMS) == history.log, "the log reads otherwise after one more kill");
    println!(
        "{cycles} kills and {before_listening} before it listened, {} messages stored, {} events, {} s: {}",
        history.log.len(),
        history.clients.iter().map(|client| client.events.len()).sum::<usize>(),
        began.elapsed().as_secs(),
        stage.summary()
    );
    assert_kept(&check(&history));
}

/// What browser pages do when the server restarts, with the number of clients of a small server.
#[test]
fn two_hundred_clients_reconnect_after_every_restart_and_miss_nothing() {
    const SENDERS: usize = 40;
    const READERS: usize = 160;
    const ROOMS: [Room; 5] = [Room(0), Room(1), Room(2), Room(3), Room(4)];
    let mut random = Random::from_env();
    let began = Instant::now();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let address = steady_address(&mut random);
    let mut server = Server::spawn(command(address, &data));
    let stage = Stage::new(address, DEADLINE);
    let cast = start_clients(SENDERS, READERS, &ROOMS, &mut random);
    let history = thread::scope(|scope| {
        let _alarm = stage.alarm();
        let faithful = cast.into_iter().map(WsClient::faithful);
        let threads: Vec<_> = faithful.map(|talker| scope.spawn(|| talker.run(&stage))).collect();
        for signal in [Signal::TERM, Signal::KILL].repeat(3) {
            server.wait_for_metric_over("connections", (SENDERS + READERS) as u64);
            stage.wait_for_acks(random.within(0..ACKS_PER_CYCLE_MAX));
            server.signal(signal);
            stage.went_down();
            let status = server.wait_exit(DEADLINE);
            assert_eq!(status.success(), signal == Signal::TERM, "{status}");
            server = Server::spawn(command(address, &data));
            stage.came_up();
        }
        let log = stage.finish(SENDERS + READERS, || whole_log(&server, &ROOMS));
        let clients = threads.into_iter().map(joined).collect();
        History { clients, log }
    });
    println!("{} messages stored, {} ms: {}", history.log.len(), began.elapsed().as_millis(), stage.summary());
    assert_kept(&check(&history));
}

#[test]
fn no_message_is_lost_or_duplicated_on_a_faulty_network() {
    const SENDERS: usize = 6;
    const READERS: usize = 6;
    const CUTS_MIN: u64 = 250;
    let mut random = Random::from_env();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let server = Server::spawn(command(SocketAddr::from(([127, 0, 0, 1], 0)), &data));
    let mut dice = random.fork();
    let proxy = Proxy::start(server.addr(), move || Lines::rolled(&mut dice));
    let stage = Stage::new(proxy.addr(), Duration::from_secs(1));
    let cast = start_clients(SENDERS, READERS, &ROOMS, &mut random);
    let history = thread::scope(|scope| {
        let _alarm = stage.alarm();
        let threads: Vec<_> = cast.into_iter().map(|talker| scope.spawn(|| talker.run(&stage))).collect();
        while proxy.counts().1 < CUTS_MIN {
            stage.wait_for_acks(100);
        }
        proxy.calm_down();
        let log = stage.finish(SENDERS + READERS, || whole_log(&server, &ROOMS));
        let clients = threads.into_iter().map(joined).collect();
        History { clients, log }
    });
    let (accepted, cut) = proxy.counts();
    println!("{accepted} connections, {cut} cut by the line: {}", stage.summary());
    assert_kept(&check(&history));
}

/// The result of a thread; its panic fails this test.
pub fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
