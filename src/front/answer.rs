//! Responses of `tiny_http`, in the form that the client gets.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;

use crate::http1::response;

/// A response body up to this size is read whole, so that its permit is released before a slow client has read it.
const ANSWER_BYTES_KEPT: u64 = 256 * 1024;
/// Maximum bytes of a response's head.
const ANSWER_HEAD_BYTES_MAX: u64 = 16 * 1024;
/// The header fields of a response that are replaced, or that concern only the hop behind the relay.
const REPLACED: [&str; 5] = ["Connection", "Content-Length", "Keep-Alive", "Server", "Transfer-Encoding"];

/// the body.
pub(super) fn read_answer(answer: &mut BufReader<UnixStream>, method: &str) -> io::Result<(Vec<u8>, u64)> {
    let (head, length) = rewritten_head(answer, method)?;
    let mut bytes = head.into_bytes();
    if length > ANSWER_BYTES_KEPT {
        return Ok((bytes, length));
    }
    let before = bytes.len();
    bytes.resize(before + length as usize, 0);
    answer.read_exact(&mut bytes[before..])?;
    Ok((bytes, 0))
}

/// The head of `tiny_http`'s response in the form that the client gets, and the length of the body that follows.
fn rewritten_head(answer: &mut impl BufRead, method: &str) -> io::Result<(String, u64)> {
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
    head.push_str("Connection: close\r\n\r\n");
    Ok((head, length.filter(|_| !has_none && method != "HEAD").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;

    #[test]
    fn a_long_response_is_relayed_in_pieces() {
        let body: Vec<u8> = (0..700_000u32).map(|number| number as u8).collect();
        for length in [0, 1, 100_000, 256 * 1024, 700_000] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut ours = BufReader::new(ours);
            let body = &body[..length];
            let bytes =
                [format!("HTTP/1.0 200 OK\r\nServer: x\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body]
                    .concat();
            thread::spawn(move || theirs.write_all(&bytes));
            let (mut bytes, left) = read_answer(&mut ours, "GET").unwrap();
            assert_eq!(left > 0, length as u64 > ANSWER_BYTES_KEPT);
            ours.take(left).read_to_end(&mut bytes).unwrap();
            let mut expected = "HTTP/1.1 200 OK\r\nA: b\r\nX-Frame-Options: SAMEORIGIN\r\n".to_owned();
            response::complete(&mut expected, |name| name == "X-Frame-Options");
            expected += &format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
            assert!(bytes.starts_with(expected.as_bytes()));
            assert_eq!(&bytes[expected.len()..], body);
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nbod").unwrap();
        drop(theirs);
        assert!(read_answer(&mut BufReader::new(ours), "GET").is_err());
    }
}
