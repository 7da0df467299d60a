//! Tests of the end of connections: each violation of RFC 6455 has its close code, and silent clients time out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{DEADLINE, Event, Server, Ws, masked_frame, read_response, upgrade_request};

const TEXT: u8 = 0x81;
const TEXT_BEGIN: u8 = 0x01;
const CONTINUED: u8 = 0x00;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
/// The read deadline of `--ping-interval 1s`, plus time for a busy machine.
const IDLE_WAIT: Duration = Duration::from_millis(2_400 + 3_000);

/// Sends `bytes` on a new connection, and checks that it is closed with `code` while another member stays.
#[track_caller]
fn closes_with(server: &Server, what: &str, bytes: &[u8], code: u16) {
    let mut ws = Ws::join(server, "/ws/tea/Ana");
    ws.send_raw(bytes);
    let event = ws.event();
    assert_eq!(event, Event::Close(Some(code)), "{what}");
    ws.end();
}

#[test]
fn a_protocol_violation_is_1002() {
    let server = Server::start();
    let mut stays = Ws::join(&server, "/ws/elsewhere/Ben");
    let broken_in_two = [masked_frame(TEXT_BEGIN, b"a"), masked_frame(TEXT, b"b")].concat();
    for (what, bytes) in [
        ("a reserved bit", masked_frame(TEXT | 0x40, b"x")),
        ("another reserved bit", masked_frame(TEXT | 0x10, b"x")),
        ("an unknown data opcode", masked_frame(0x83, b"x")),
        ("an unknown control opcode", masked_frame(0x8b, b"x")),
        ("a frame without a mask", vec![TEXT, 1, b'x']),
        ("a ping in fragments", masked_frame(0x09, b"x")),
        ("a ping over 125 bytes", masked_frame(PING, &[0; 126])),
        ("a continuation of nothing", masked_frame(0x80, b"x")),
        ("a new message within another", broken_in_two),
        ("a close with half a code", masked_frame(CLOSE, &[3])),
        ("a close with a code that is never sent", masked_frame(CLOSE, &1005_u16.to_be_bytes())),
        ("a close with no code of the protocol's", masked_frame(CLOSE, &999_u16.to_be_bytes())),
    ] {
        closes_with(&server, what, &bytes, 1002);
    }
    stays.expect_nothing_else();
}

#[test]
fn text_that_is_not_utf8_is_1007() {
    let server = Server::start();
    let mut close = 1000_u16.to_be_bytes().to_vec();
    close.extend([0xff, 0xfe]);
    // A fragment may end within an emoji; an emoji that never becomes complete is an error.
    let cut = [masked_frame(TEXT_BEGIN, &[0xf0, 0x9f]), masked_frame(0x80, &[0x99])].concat();
    for (what, bytes) in [
        ("a stray byte", masked_frame(TEXT, &[b'a', 0xff])),
        ("an overlong slash", masked_frame(TEXT, &[0xc0, 0xaf])),
        ("a surrogate", masked_frame(TEXT, &[0xed, 0xa0, 0x80])),
        ("half a character", cut),
        ("a reason for closing", masked_frame(CLOSE, &close)),
    ] {
        closes_with(&server, what, &bytes, 1007);
    }
}

#[test]
fn a_message_over_64_kib_is_1009_in_any_number_of_fragments() {
    let server = Server::unhurried();
    let mut huge = vec![TEXT, 0x80 | 127];
    huge.extend((1_u64 << 62).to_be_bytes());
    huge.extend([1, 2, 3, 4]);
    let mut fragments = masked_frame(TEXT_BEGIN, &[b'x'; 30_000]);
    fragments.extend(masked_frame(CONTINUED, &[b'x'; 30_000]));
    fragments.extend(masked_frame(CONTINUED, &[b'x'; 30_000]));
    for (what, bytes) in [
        ("one frame", masked_frame(TEXT, &[b'x'; 65_537])),
        ("a frame of 4 EiB, as far as its head says", huge),
        ("fragments", fragments),
    ] {
        closes_with(&server, what, &bytes, 1009);
    }
    let mut ws = Ws::join(&server, "/ws/tea/Ana");
    ws.send_raw(&masked_frame(TEXT, &[b'x'; 65_536]));
    assert_eq!(ws.expect("error")["code"], "too_long", "64 KiB are a message, if not one for a room");
    ws.expect_nothing_else();
}

#[test]
fn a_close_is_echoed_and_the_other_members_see_a_leave() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    for code in [1000, 1001, 3000, 4999] {
        let ana = Ws::join(&server, "/ws/tea/Ana");
        ben.expect("join");
        ana.close(code);
        ben.expect("leave");
    }
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.send_raw(&masked_frame(CLOSE, b""));
    assert!(matches!(ana.event(), Event::Close(None | Some(1000))), "a close without a code");
    ana.end();
}

#[test]
fn a_message_sent_before_a_close_is_delivered() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    let mut bytes = masked_frame(TEXT, b"last words");
    bytes.extend(masked_frame(CLOSE, &1000_u16.to_be_bytes()));
    ana.send_raw(&bytes);
    ben.expect("join");
    ben.expect_text("last words");
    ben.expect("leave");
    assert_eq!(ana.close_code(), 1000);
}

#[test]
fn a_ping_between_fragments_gets_its_pong() {
    let server = Server::start();
    let mut ws = Ws::join(&server, "/ws/tea/Ana");
    let mut bytes = masked_frame(TEXT_BEGIN, "আড্".as_bytes());
    bytes.extend(masked_frame(PING, b"are you there?"));
    bytes.extend(masked_frame(0x80, "ডা".as_bytes()));
    ws.send_raw(&bytes);
    // This reads below the client's protocol, which would hide the pong.
    let mut pong = [0; 2 + 14];
    ws.stream().set_read_timeout(Some(DEADLINE)).expect("a timeout");
    ws.stream().read_exact(&mut pong).expect("a pong");
    assert_eq!(pong[..2], [0x8a, 14]);
    assert_eq!(&pong[2..], b"are you there?");
    ws.expect_text("আড্ডা");
}

/// All bytes that a connection receives until it ends, without an answer to any of them.
#[track_caller]
fn listened_to_in_silence(server: &Server, target: &str) -> (Vec<u8>, Duration) {
    let mut stream = TcpStream::connect(server.addr()).expect("a connection");
    stream.write_all(upgrade_request(target, &[]).as_bytes()).expect("a request");
    let mut bytes = read_response(&mut stream, DEADLINE).expect("an upgrade").body;
    let start = Instant::now();
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).expect("pings or an end") {
            0 => return (bytes, start.elapsed()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
        assert!(start.elapsed() < DEADLINE, "still connected after {DEADLINE:?}");
    }
}

#[test]
fn a_client_that_answers_no_ping_times_out_and_others_stay() {
    let server = Server::with(&["--ping-interval", "1s"]);
    let mut honest = Ws::join(&server, "/ws/tea/Honest");
    let honest = thread::spawn(move || {
        honest.expect("join");
        honest.expect("leave");
        honest
    });
    let (bytes, took) = listened_to_in_silence(&server, "/ws/tea/Silent");
    let pings = bytes.windows(2).filter(|two| two[0] == PING).count();
    assert!(pings >= 1, "no ping in {bytes:02x?}");
    let close = bytes.windows(4).rposition(|four| four[0] == CLOSE && four[2..] == 1008_u16.to_be_bytes());
    assert!(close.is_some(), "no close frame with 1008 in {bytes:02x?}");
    assert!((Duration::from_secs(2)..IDLE_WAIT).contains(&took), "gone after {took:?}");
    let mut honest = honest.join().expect("the honest member");
    honest.expect_nothing_else();
    server.wait_for_metric("drops_total{reason=\"idle\"}", 1);
}

/// Sends pieces until the server closes the connection; returns the close code and the time it took.
#[track_caller]
fn ended_while_sending(ws: &mut Ws, rate_limiter: Duration, mut piece: impl FnMut() -> Vec<u8>) -> (Event, Duration) {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        let sent = ws.stream().write_all(&piece());
        match ws.event_within(rate_limiter) {
            Some(Event::Frame(frame)) => panic!("{frame}"),
            Some(event) => return (event, start.elapsed()),
            None if sent.is_err() => return (Event::End, start.elapsed()),
            None => {}
        }
    }
    panic!("still connected after {DEADLINE:?}");
}

#[test]
fn a_frame_that_arrives_byte_by_byte_times_out() {
    let server = Server::with(&["--ping-interval", "1s"]);
    let mut ws = Ws::join(&server, "/ws/tea/Ana");
    let frame = masked_frame(TEXT, &[b'x'; 4_000]);
    let mut bytes = frame.into_iter();
    let (event, took) = ended_while_sending(&mut ws, Duration::from_millis(50), || bytes.next().into_iter().collect());
    assert_eq!(event, Event::Close(Some(1008)));
    assert!(took < IDLE_WAIT, "gone after {took:?}");
}

#[test]
fn endless_empty_fragments_time_out() {
    let server = Server::with(&["--ping-interval", "1s"]);
    let mut ws = Ws::join(&server, "/ws/tea/Ana");
    ws.send_raw(&masked_frame(TEXT_BEGIN, b""));
    let before = server.rss_kib();
    let empty = masked_frame(CONTINUED, b"").repeat(1_000);
    let (event, took) = ended_while_sending(&mut ws, Duration::from_millis(1), || empty.clone());
    // Bytes in flight may turn the end into a reset.
    assert!(matches!(event, Event::Close(Some(1008 | 1009)) | Event::End), "{event:?}");
    assert!(took < IDLE_WAIT, "gone after {took:?}");
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB for nothing");
}

#[test]
fn a_lost_connection_is_a_leave() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    for _ in 0..3 {
        let ana = Ws::join(&server, "/ws/tea/Ana");
        ben.expect("join");
        drop(ana);
        ben.expect("leave");
    }
    server.wait_for_metric("members", 1);
}
