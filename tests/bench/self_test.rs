//! A test of the checker: a scripted server plays each fault to a small crowd over real sockets. The verdict must name
//! exactly this fault.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::connect::open_and_close;
use crate::crowd::{Crowd, Layout};
use crate::frame::{CLOSE, Stamp, TEXT};
use crate::histogram::Histogram;
use crate::member::{ACCEPT, Member, Pace};

const LAYOUT: Layout = Layout { rooms: 1, members_per_room: 7, senders_per_room: 2 };
/// A watched member that does not send, and a member that only counts.
const WATCHED: usize = 3;
const COUNTED: usize = 6;
/// Messages that each sender sends: its window, once.
const WINDOW: u32 = 4;
const COMMAND_BYTES: usize = 98;
const SEQ_OF_MARKER: u64 = 100;
const PATIENCE: Duration = Duration::from_millis(200);

/// A message as the scripted server delivers it.
#[derive(Clone)]
struct Message {
    seq: u64,
    stamp: Stamp,
}

/// A name, a member, the change of its stream, and the gaps, duplicates and losses that must be found.
type Fault = (&'static str, usize, fn(&mut Vec<Message>), [u64; 3]);

const FAULTS: [Fault; 9] = [
    ("no fault", WATCHED, |_| {}, [0, 0, 0]),
    ("a message left out", WATCHED, leave_out, [1, 0, 1]),
    ("one left out, hidden by the seq", WATCHED, renumber, [1, 0, 1]),
    ("a seq left out", WATCHED, |messages| skip_seq(messages), [1, 0, 0]),
    ("a message twice", WATCHED, repeat, [0, 1, 0]),
    ("two exchanged", WATCHED, |messages| messages.swap(3, 4), [1, 1, 1]),
    ("the last one lost", WATCHED, lose_last, [0, 0, 1]),
    ("the last one lost, counted", COUNTED, lose_last, [0, 0, 1]),
    ("a message twice, counted", COUNTED, repeat, [0, 1, 0]),
];

fn leave_out(messages: &mut Vec<Message>) {
    messages.remove(3);
}

fn renumber(messages: &mut Vec<Message>) {
    messages.remove(3);
    messages.iter_mut().skip(3).for_each(|message| message.seq -= 1);
}

fn skip_seq(messages: &mut [Message]) {
    messages.iter_mut().skip(3).for_each(|message| message.seq += 1);
}

fn repeat(messages: &mut Vec<Message>) {
    messages.insert(3, messages[3].clone());
}

fn lose_last(messages: &mut Vec<Message>) {
    messages.pop();
}

/// Plays all faults.
///
/// # Errors
/// The first fault that is not found, or that is found although it was not played.
pub fn run() -> io::Result<()> {
    for (name, faulty, plant, planted) in FAULTS {
        let mut stage = Stage::set()?;
        let messages = stage.hear_senders()?;
        for member in 0..LAYOUT.members() {
            let mut messages = messages.clone();
            if member == faulty {
                plant(&mut messages);
            }
            stage.play(member, &messages.iter().flat_map(Message::frame).collect::<Vec<u8>>())?;
        }
        let verdict = stage.crowd.settle(PATIENCE)?;
        expect(name, [verdict.gaps, verdict.duplicates, verdict.losses], planted)?;
        expect(name, verdict.is_clean(), planted == [0, 0, 0])?;
    }
    errors_and_ends_are_found()?;
    quantiles_are_right()?;
    connections_are_counted_if_they_were_welcomed()?;
    println!("self-test: {} streams, each judged rightly", FAULTS.len() + 1);
    Ok(())
}

fn errors_and_ends_are_found() -> io::Result<()> {
    let mut stage = Stage::set()?;
    let messages = stage.hear_senders()?;
    for member in 0..LAYOUT.members() {
        stage.play(member, &messages.iter().flat_map(Message::frame).collect::<Vec<u8>>())?;
    }
    stage.play(WATCHED, &text(r#"{"content":"slow down","type":"error","code":"rate_limited"}"#))?;
    stage.play(0, &[CLOSE, 2, 0x03, 0xf5])?;
    stage.far_ends[COUNTED].shutdown(std::net::Shutdown::Both)?;
    let verdict = stage.crowd.settle(PATIENCE)?;
    expect("an error and two ends", [verdict.refusals, verdict.gone, verdict.losses], [1, 2, 0])?;
    expect("a stamped latency", stage.crowd.sightings.latency.quantile(1.0).is_some(), true)
}

fn quantiles_are_right() -> io::Result<()> {
    let mut histogram = Histogram::new();
    expect("no quantile of nothing", histogram.quantile(0.5), None)?;
    (1..=100_000).for_each(|us| histogram.record(us * 1000));
    for (share, ns) in [(0.5, 50_000_000_f64), (0.99, 99_000_000.0), (0.999, 99_900_000.0), (1.0, 100_000_000.0)] {
        let found = histogram.quantile(share).unwrap_or_default().as_nanos() as f64;
        expect("a quantile", (ns..=ns * (1.0 + 1.0 / 64.0)).contains(&found), true)?;
    }
    Ok(())
}

/// Plays handshakes, and checks which of them count as a connection.
fn connections_are_counted_if_they_were_welcomed() -> io::Result<()> {
    let taken = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n").into_bytes();
    let foreign = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: AAAA\r\n\r\n".to_vec();
    let full = b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec();
    let welcome = text(r#"{"content":"welcome","type":"welcome","seq":7}"#);
    let error = text(r#"{"content":"not now","type":"error","code":"busy"}"#);
    for (what, answer, counts) in [
        ("a connection that is welcomed", [&taken[..], &welcome].concat(), true),
        ("one that is refused", full, false),
        ("one of another protocol", [&foreign[..], &welcome].concat(), false),
        ("one that ends before its welcome", taken.clone(), false),
        ("one that is told an error first", [&taken[..], &error].concat(), false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = std::thread::spawn(move || -> io::Result<()> {
            let (mut far_end, _) = listener.accept()?;
            let mut head = [0; 4096];
            let _ = far_end.read(&mut head)?;
            far_end.write_all(&answer)?;
            // Waits for the close frame, if one comes; then the server closes the connection first.
            far_end.set_read_timeout(Some(PATIENCE))?;
            let _ = far_end.read(&mut head);
            Ok(())
        });
        expect(what, open_and_close(address, "room").is_ok(), counts)?;
        server.join().map_err(|_| io::Error::other("the scripted server panicked"))??;
    }
    Ok(())
}

/// A crowd with a settled room, and the other ends of its connections.
struct Stage {
    crowd: Crowd,
    far_ends: Vec<TcpStream>,
}

impl Stage {
    fn set() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut stage = Self { crowd: Crowd::new(LAYOUT)?, far_ends: Vec::new() };
        let marker = Message { seq: SEQ_OF_MARKER, stamp: Stamp { sent_ns: 0, counter: 0, sender: 0 } };
        for member in 0..LAYOUT.members() {
            stage.crowd.add(Member::over(TcpStream::connect(listener.local_addr()?)?, Vec::new())?)?;
            let (far_end, _) = listener.accept()?;
            far_end.set_nodelay(true)?;
            stage.far_ends.push(far_end);
            stage.play(member, &text(r#"{"content":"welcome","type":"welcome","seq":7}"#))?;
            stage.play(member, &marker.frame())?;
        }
        let all = LAYOUT.members();
        expect("settled", stage.crowd.turn_until(PATIENCE, |crowd| crowd.sightings.settled == all)?, true)?;
        stage.crowd.count_unwatched();
        stage.crowd.sightings.timed_since_ns = 0;
        Ok(stage)
    }

    /// Lets the senders fill their windows, and numbers their messages in turn.
    fn hear_senders(&mut self) -> io::Result<Vec<Message>> {
        self.crowd.speak(Pace::Window(WINDOW));
        self.crowd.hush();
        let mut messages = Vec::new();
        for round in 0..WINDOW {
            for sender in 0..LAYOUT.senders_per_room {
                let mut command = [0; COMMAND_BYTES];
                self.far_ends[sender].read_exact(&mut command)?;
                let stamp = stamp_of(command)?;
                expect("a command", (stamp.counter, usize::from(stamp.sender)), (round + 1, sender))?;
                messages.push(Message { seq: SEQ_OF_MARKER + 1 + messages.len() as u64, stamp });
            }
        }
        Ok(messages)
    }

    /// Writes to a member in pieces that end anywhere in a frame.
    fn play(&mut self, member: usize, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(97) {
            self.far_ends[member].write_all(piece)?;
            self.crowd.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }
}

impl Message {
    fn frame(&self) -> Vec<u8> {
        let content = String::from_utf8_lossy(&self.stamp.content()).into_owned();
        text(&format!(r#"{{"id":"{:036}","content":"{content}","type":"text","seq":{},"nonce":"x"}}"#, 0, self.seq))
    }
}

/// A text frame of a server.
fn text(json: &str) -> Vec<u8> {
    let mut frame = vec![TEXT];
    match json.len() {
        short @ 0..126 => frame.push(short as u8),
        long => frame.extend([&[126][..], &(long as u16).to_be_bytes()].concat()),
    }
    frame.extend(json.as_bytes());
    frame
}

/// Unmasks a command as a server would, and reads it.
fn stamp_of(command: [u8; COMMAND_BYTES]) -> io::Result<Stamp> {
    let [head, length, mask @ ..] = &command[..6] else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    expect("a text frame's head", (*head, usize::from(*length)), (TEXT, 0x80 | (COMMAND_BYTES - 6)))?;
    let json: Vec<u8> = command[6..].iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let value: serde_json::Value = serde_json::from_slice(&json)?;
    let content = value["content"].as_str().unwrap_or_default();
    let stamp = Stamp::read(content.as_bytes()).ok_or(io::ErrorKind::InvalidData)?;
    let nonce = format!("{:04x}.{:08x}", stamp.sender, stamp.counter);
    expect("its type and nonce", (&value["type"], &value["nonce"]), (&"text".into(), &nonce.into()))?;
    Ok(stamp)
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> io::Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("self-test, {what}: {found:?} instead of {expected:?}")))
}
