//! Connections that are kept for further requests.
//!
//! A connection is kept after a response that is no error, if the client speaks HTTP/1.1 and does not ask to close it.
//! While it waits for a request it is idle. Few idle connections are kept, and a further one ends the oldest of the
//! address with the most.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::shares::{Bounds, Claim, Pool};
use crate::http1::head::{Head, Version};
use crate::limits::{IDLE_PART, IDLE_PER_ADDRESS_MAX};

/// The pool of idle connections.
pub(super) fn idle_pool(connections_max: u64) -> Arc<Pool> {
    let total = usize::try_from(connections_max / IDLE_PART).unwrap_or(usize::MAX).max(1);
    Pool::new(Bounds { total, of_owner: IDLE_PER_ADDRESS_MAX, spared: Duration::ZERO, cut: Shutdown::Both })
}

/// Whether a client can send a further request behind this one (RFC 9112, section 9.3).
pub(super) fn is_wanted(head: &Head) -> bool {
    let mut options = head.headers_named("Connection").flat_map(|list| list.split(|b| *b == b','));
    head.version == Version::Http11 && !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Waits for the first byte of a further request. Returns whether it has come.
pub(super) fn wait(stream: &Arc<TcpStream>, owner: IpAddr, idle: &Arc<Pool>, wait: Duration) -> bool {
    let claim = Claim { owner, amount: 1, socket: Some(Arc::clone(stream)) };
    let Some(share) = idle.take(claim) else { return false };
    let has_come = stream.set_read_timeout(Some(wait)).is_ok() && stream.peek(&mut [0]).is_ok_and(|count| count > 0);
    share.keep();
    has_come && !share.is_taken_back()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::http1::head;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn a_client_may_ask_to_close() {
        for (version, fields, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: TE, Close\r\n", false),
            ("1.1", "Connection: TE\r\nConnection: close \r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
            let (head, _) = head::parse(text.as_bytes()).unwrap().unwrap();
            assert_eq!(is_wanted(&head), expected, "{version} {fields}");
        }
    }

    #[test]
    fn an_idle_connection_ends_by_time_by_its_client_or_by_a_newer_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, Arc::new(listener.accept().unwrap().0))
        };
        let (idle, owner) = (idle_pool(10_000), IpAddr::from([192, 0, 2, 1]));
        let (mut client, stream) = connect();
        assert!(!wait(&stream, owner, &idle, Duration::from_millis(20)), "the time is over");
        client.write_all(b"G").unwrap();
        assert!(wait(&stream, owner, &idle, DEADLINE));
        drop(client);
        assert!(wait(&stream, owner, &idle, DEADLINE), "the byte is still there");
        let (client, stream) = connect();
        drop(client);
        assert!(!wait(&stream, owner, &idle, DEADLINE), "the client has gone");
        let connections: Vec<_> = (0..=IDLE_PER_ADDRESS_MAX).map(|_| connect()).collect();
        thread::scope(|scope| {
            let mut waiting = Vec::new();
            for (_, stream) in &connections {
                waiting.push(scope.spawn(|| wait(stream, owner, &idle, DEADLINE)));
                // So that the order is certain.
                thread::sleep(Duration::from_millis(5));
            }
            assert!(!waiting.remove(0).join().unwrap(), "the oldest makes room");
            for (client, _) in &connections[1..] {
                let mut client = client;
                client.write_all(b"G").unwrap();
            }
            assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap()));
        });
    }
}
