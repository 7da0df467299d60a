//! Responses of `tiny_http`, in the form that the client gets, and how they are sent to it.
//!
//! Runs on the connection's own thread. A response is whole in memory before any of it is sent, so `tiny_http` never
//! waits for a client.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::shares::Share;
use crate::http1::response;
use crate::limits::{MAPS_RESERVED, RESPONSE_BYTES_PER_S_MIN, RESPONSES_BYTES_MAX};

/// Maximum bytes of a response's head.
const ANSWER_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Maximum bytes that one call writes. The time that a reader has is counted after each call.
const SENT_BYTES_MAX: usize = 32 * 1024;
/// From this length on, a response has a memory map of its own. It is the length from which glibc's allocator makes one.
/// The bound on the bytes of all responses keeps their number below [`MAPS_RESERVED`].
const MAPPED_BYTES_MIN: usize = 128 * 1024;
const _: () = assert!((RESPONSES_BYTES_MAX / MAPPED_BYTES_MIN) as u64 <= MAPS_RESERVED / 4);
/// The header fields of a response that are replaced, or that concern only the hop behind the relay.
const REPLACED: [&str; 5] = ["Connection", "Content-Length", "Keep-Alive", "Server", "Transfer-Encoding"];

/// Why a response did not reach its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undelivered {
    Gone,
    /// The reader is too slow and is cut off.
    TooSlow,
}

/// The beginning of a response.
pub(super) struct Answer {
    /// The head in the form that the client gets.
    head: String,
    /// The length of the body.
    length: usize,
    /// Whether the head says that the connection is kept.
    is_kept: bool,
    source: BufReader<UnixStream>,
}

impl Answer {
    /// Reads the head. `may_keep` is whether the connection may be kept; it is closed after an error in any case.
    pub(super) fn begin(mut source: BufReader<UnixStream>, method: &str, may_keep: bool) -> io::Result<Self> {
        let (head, length, is_kept) = rewritten_head(&mut source, method, may_keep)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        Ok(Self { head, length, is_kept, source })
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The length of the response.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.length
    }

    /// Reads the body. Returns the whole response.
    pub(super) fn read(mut self) -> io::Result<WholeResponse> {
        let (length, before) = (self.len(), self.head.len());
        let mut response = WholeResponse::new(length)?;
        response[..before].copy_from_slice(self.head.as_bytes());
        self.source.read_exact(&mut response[before..])?;
        Ok(response)
    }
}

/// The bytes of a response. A long one has a memory map of its own, which the system gets back when it is dropped. glibc
/// would keep the memory: with each large block that is freed, it raises the size from which it returns blocks.
pub(super) enum WholeResponse {
    Short(Vec<u8>),
    Long(MmapMut),
}

impl WholeResponse {
    /// A response of this length, all zeros.
    fn new(length: usize) -> io::Result<Self> {
        if length < MAPPED_BYTES_MIN {
            return Ok(Self::Short(vec![0; length]));
        }
        MmapMut::map_anon(length).map(Self::Long)
    }
}

impl Deref for WholeResponse {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

impl DerefMut for WholeResponse {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// Sends a response as its reader takes it. The reader must take [`RESPONSE_BYTES_PER_S_MIN`] on average,
/// and may pause for `stall`.
pub(super) fn send_to_reader(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    share: &Share,
    stall: Duration,
) -> Result<(), Undelivered> {
    let mut deadline = Instant::now() + stall;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Undelivered::TooSlow);
        }
        stream.set_write_timeout(Some(left)).map_err(|_| Undelivered::Gone)?;
        match stream.write(&bytes[..bytes.len().min(SENT_BYTES_MAX)]) {
            Ok(count) => {
                share.moved(count);
                bytes = &bytes[count..];
                let earned = Duration::from_secs(count as u64) / RESPONSE_BYTES_PER_S_MIN;
                deadline = (deadline + earned).min(Instant::now() + stall);
            }
            // `WouldBlock` is the error of a write time-out.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => return Err(Undelivered::Gone),
        }
    }
    Ok(())
}

/// The head of `tiny_http`'s response in the form that the client gets, the length of the body that follows, and whether
/// the connection is kept.
fn rewritten_head(answer: &mut impl BufRead, method: &str, may_keep: bool) -> io::Result<(String, u64, bool)> {
    let mut lines = answer.take(ANSWER_HEAD_BYTES_MAX).lines();
    let mut next_line = || lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
    let status_line = next_line()?;
    let status_line = status_line.strip_prefix("HTTP/1.0 ").ok_or(io::ErrorKind::InvalidData)?;
    let status =
        status_line.get(..3).and_then(|status| status.parse::<u16>().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let mut head = format!("HTTP/1.1 {status_line}\r\n");
    let mut said = Vec::with_capacity(16);
    let mut length = None;
    loop {
        let line = next_line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").ok_or(io::ErrorKind::InvalidData)?;
        said.push(name.to_owned());
        if name.eq_ignore_ascii_case("Content-Length") {
            length = value.parse::<u64>().ok();
        }
        if !REPLACED.iter().any(|replaced| replaced.eq_ignore_ascii_case(name)) {
            head.push_str(&line);
            head.push_str("\r\n");
        }
    }
    response::complete(&mut head, |name| said.iter().any(|said| said.eq_ignore_ascii_case(name)));
    // These statuses have no body, so a Content-Length of `tiny_http` would be wrong for them (RFC 9110, section 8.6).
    let has_none = status < 200 || status == 204 || status == 304;
    if !has_none {
        head.push_str(&format!("Content-Length: {}\r\n", length.ok_or(io::ErrorKind::InvalidData)?));
    }
    let is_kept = may_keep && status < 400;
    head.push_str(if is_kept { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
    Ok((head, length.filter(|_| !has_none && method != "HEAD").unwrap_or(0), is_kept))
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};
    use std::sync::Arc;
    use std::thread;

    use super::super::shares::{Bounds, Claim, Pool};
    use super::*;

    #[test]
    fn a_response_is_read_whole_and_its_head_is_rewritten() {
        let body: Vec<u8> = (0..700_000u32).map(|number| number as u8).collect();
        for length in [0, 1, 100_000, 700_000] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let body = &body[..length];
            let bytes =
                [format!("HTTP/1.0 200 OK\r\nServer: x\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body]
                    .concat();
            thread::spawn(move || theirs.write_all(&bytes));
            let answer = Answer::begin(BufReader::new(ours), "GET", false).unwrap();
            let expected_length = answer.len();
            let bytes = answer.read().unwrap();
            assert_eq!(bytes.len(), expected_length);
            let mut expected = "HTTP/1.1 200 OK\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\n".to_owned();
            response::complete(&mut expected, |name| name == "X-Frame-Options");
            expected += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
            assert!(bytes.starts_with(expected.as_bytes()));
            assert_eq!(&bytes[expected.len()..], body);
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nbod").unwrap();
        drop(theirs);
        assert!(Answer::begin(BufReader::new(ours), "GET", false).unwrap().read().is_err());
    }

    #[test]
    fn a_reader_that_takes_nothing_or_loses_its_share_is_cut_off() {
        let pool = Pool::new(Bounds { total: 1, of_owner: 1, spared: Duration::ZERO, cut: Shutdown::Both });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, Arc::new(listener.accept().unwrap().0))
        };
        let take = |from: u8, socket| pool.take(Claim { owner: [192, 0, 2, from].into(), amount: 1, socket }).unwrap();
        let long = vec![0; 32 << 20];
        let (_client, stream) = connect();
        let share = take(1, Some(Arc::clone(&stream)));
        assert_eq!(send_to_reader(&stream, &long, &share, Duration::from_millis(50)), Err(Undelivered::TooSlow));
        drop(share);
        let (_client, stream) = connect();
        let share = take(1, Some(Arc::clone(&stream)));
        thread::scope(|scope| {
            let sending = scope.spawn(|| send_to_reader(&stream, &long, &share, Duration::from_secs(20)));
            let _other = take(2, None);
            assert!(sending.join().unwrap().is_err() && share.is_taken_back());
        });
    }
}
