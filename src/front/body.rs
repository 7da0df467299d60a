//! Request bodies: read whole from the connection, of a known length or in chunks.
//!
//! Runs on the connection's own thread. A body that two recipients could read differently is refused, as are heads.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Instant;

use super::relay::send;
use super::shares::Share;
use crate::http1::head::{Framing, Head, RequestError, Version, field_line};
use crate::http1::response;
use crate::limits::{BODY_BYTES_MAX, Limits};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 8 * 1024;
/// Maximum bytes of a line between chunks: a size with extensions, which are hardly ever used, or a trailer.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Maximum bytes of a chunked body with its framing: even bytes sent in chunks of one take six times their size.
const CHUNKED_BYTES_MAX: u64 = 8 * BODY_BYTES_MAX as u64;

/// A body, and the bytes behind it that have been read already.
pub(super) type BodyAndRest = (Vec<u8>, Vec<u8>);

/// Reads the whole body, of a known length or in chunks. `early` are the bytes behind the head that have been read
/// already. `share` is the body's share of the memory for bodies.
pub(super) fn read_body(
    stream: &TcpStream,
    head: &Head,
    early: &[u8],
    share: Option<&Share>,
    limits: &Limits,
) -> Result<BodyAndRest, RequestError> {
    let mut waits = false;
    // HTTP/1.0 has no expectations (RFC 9110, section 10.1.1).
    if head.version == Version::Http11 {
        for expectation in head.headers_named("Expect") {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err(RequestError::Expectation);
            }
            waits = true;
        }
    }
    let length = match head.framing {
        Framing::None | Framing::Length(0) => return Ok((Vec::new(), early.to_vec())),
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    if length.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(RequestError::BodyTooLarge);
    }
    if waits && early.is_empty() {
        send(stream, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let source = Source { early, stream, share, deadline: Instant::now() + limits.body_deadline };
    let mut reader = BodyReader(BufReader::with_capacity(PIECE_BYTES, source.take(CHUNKED_BYTES_MAX)));
    let body = match length {
        Some(length) => {
            let mut body = Vec::new();
            reader.append(length as usize, &mut body)?;
            body
        }
        None => dechunk(&mut reader)?,
    };
    Ok((body, reader.rest()))
}

/// The input behind a head: the bytes that were read with it, then those of the stream until the deadline.
struct Source<'a> {
    early: &'a [u8],
    stream: &'a TcpStream,
    share: Option<&'a Share>,
    deadline: Instant,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() {
            let count = response::read_by(self.stream, buffer, self.deadline)?;
            if let Some(share) = self.share {
                share.moved(count);
            }
            Ok(count)
        } else {
            self.early.read(buffer)
        }
    }
}

struct BodyReader<'a>(BufReader<io::Take<Source<'a>>>);

impl BodyReader<'_> {
    /// Moves the next `count` bytes to the end of `body`.
    fn append(&mut self, count: usize, body: &mut Vec<u8>) -> Result<(), RequestError> {
        // The buffer grows with what comes: a length alone costs no memory.
        let read = self.0.by_ref().take(count as u64).read_to_end(body).map_err(|error| self.failed(error.kind()))?;
        if read < count { Err(self.failed(io::ErrorKind::UnexpectedEof)) } else { Ok(()) }
    }

    /// The next line without its CRLF.
    fn line(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut line = Vec::new();
        let read = self.0.by_ref().take(CHUNK_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        read.map_err(|error| self.failed(error.kind()))?;
        match &*line {
            [.., b'\r', b'\n'] => {
                line.truncate(line.len() - 2);
                Ok(line)
            }
            [.., b'\n'] => Err(RequestError::Malformed("a chunk line does not end in CRLF")),
            _ if line.len() < CHUNK_LINE_BYTES_MAX => Err(self.failed(io::ErrorKind::UnexpectedEof)),
            _ => Err(RequestError::Malformed("a chunk line is too long")),
        }
    }

    /// The bytes that were read and belong to no body.
    fn rest(&self) -> Vec<u8> {
        [self.0.buffer(), self.0.get_ref().get_ref().early].concat()
    }

    fn failed(&self, kind: io::ErrorKind) -> RequestError {
        match kind {
            io::ErrorKind::TimedOut => RequestError::BodyTooSlow,
            io::ErrorKind::UnexpectedEof if self.0.get_ref().limit() == 0 => RequestError::BodyTooLarge,
            io::ErrorKind::UnexpectedEof => RequestError::Malformed("the request body ended early"),
            _ => RequestError::Gone,
        }
    }
}

/// Decodes a chunked body (RFC 9112, section 7.1). Extensions and trailers are checked and dropped.
fn dechunk(source: &mut BodyReader<'_>) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    loop {
        let size = chunk_size(&source.line()?).ok_or(RequestError::Malformed("invalid chunk size"))?;
        if size == 0 {
            break;
        }
        if size > (BODY_BYTES_MAX - body.len()) as u64 {
            return Err(RequestError::BodyTooLarge);
        }
        source.append(size as usize, &mut body)?;
        let mut end = Vec::new();
        source.append(2, &mut end)?;
        if end != b"\r\n" {
            return Err(RequestError::Malformed("a chunk is longer than its size says"));
        }
    }
    loop {
        let line = source.line()?;
        if line.is_empty() {
            return Ok(body);
        }
        field_line(&line)?;
    }
}

/// The size of a chunk: up to 16 hex digits, and optionally extensions behind a semicolon.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let is_extension = |bytes: &[u8]| bytes[0] == b';' && bytes.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    if digits.len() > 16 || !(extension.is_empty() || is_extension(extension)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener};
    use std::thread;

    use super::*;
    use crate::http1::head;

    fn parsed(bytes: &str) -> Head {
        head::parse(bytes.as_bytes()).unwrap().unwrap().0
    }

    /// The body of `read_body` for bytes that come with the head, or in pieces after it.
    fn body_of(fields: &str, bytes: &[u8], at_once: bool, limits: &Limits) -> Result<Vec<u8>, RequestError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let head = parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
        let early = if at_once { bytes.to_vec() } else { Vec::new() };
        let rest = if at_once { Vec::new() } else { bytes.to_vec() };
        thread::scope(|scope| {
            scope.spawn(move || {
                client.set_nodelay(true).unwrap();
                let pieces = if rest.len() < 1000 { 1 } else { 4096 };
                // The server may have closed the connection already.
                let _ = rest.chunks(pieces).try_for_each(|piece| client.write_all(piece));
                let _ = client.shutdown(Shutdown::Write);
                let _ = client.read(&mut [0; 64]);
            });
            let body = read_body(&stream, &head, &early, None, limits);
            drop(stream);
            body.map(|(body, _)| body)
        })
    }

    #[test]
    fn a_body_is_read_whole_or_refused() {
        let full = vec![b'x'; BODY_BYTES_MAX];
        let chunked = |chunk: usize, tail: &str| {
            let mut bytes: Vec<u8> = full
                .chunks(chunk)
                .flat_map(|piece| [format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                .collect();
            bytes.extend_from_slice(tail.as_bytes());
            bytes
        };
        let te = "Transfer-Encoding: chunked";
        for (fields, bytes, expected) in [
            ("A: b", b"rest".to_vec(), Some(&b""[..])),
            ("Content-Length: 0", b"rest".to_vec(), Some(b"")),
            ("Content-Length: 4", b"bodyrest".to_vec(), Some(b"body")),
            ("Content-Length: 65536", full.clone(), Some(&full)),
            (te, b"0\r\n\r\nrest".to_vec(), Some(b"")),
            (te, b"4\r\nbody\r\n0000\r\n\r\n".to_vec(), Some(b"body")),
            (te, b"1;a=\"b\"\r\nx\r\n0A\r\n0123456789\r\n0;x\r\nT: v\r\nU:\r\n\r\n".to_vec(), Some(b"x0123456789")),
            (te, chunked(1, "0\r\n\r\n"), Some(&full)),
            (te, chunked(60_000, "0\r\n\r\n"), Some(&full)),
            (te, chunked(60_000, "1\r\nx\r\n0\r\n\r\n"), None),
            ("Content-Length: 65537", Vec::new(), None),
            ("Content-Length: 5", b"body".to_vec(), None),
            (te, b"".to_vec(), None),
            (te, b"4\r\nbody\r\n".to_vec(), None),
            (te, b"4\r\nbody\r\n0\r\n".to_vec(), None),
        ] {
            for at_once in [true, false] {
                let body = body_of(fields, &bytes, at_once, &Limits::default());
                assert_eq!(
                    body.ok().as_deref(),
                    expected,
                    "{fields} {}",
                    bytes.escape_ascii().to_string().get(..60).unwrap_or_default()
                );
            }
        }
    }

    #[test]
    fn the_bytes_behind_a_body_are_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for (fields, bytes, body) in [
            ("A: b", "", ""),
            ("Content-Length: 0", "", ""),
            ("Content-Length: 4", "body", "body"),
            ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\nT: v\r\n\r\n", "body"),
        ] {
            let head = parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n"));
            let all = format!("{bytes}GET / HTTP/1.1\r\n");
            for early in 0..=all.len() {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().unwrap();
                client.write_all(&all.as_bytes()[early..]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let (read, mut rest) =
                    read_body(&stream, &head, &all.as_bytes()[..early], None, &Limits::default()).unwrap();
                (&stream).read_to_end(&mut rest).unwrap();
                assert_eq!((&*read, &*rest), (body.as_bytes(), &b"GET / HTTP/1.1\r\n"[..]), "{fields} {early}");
            }
        }
    }

    #[test]
    fn a_chunked_body_has_one_interpretation() {
        for bytes in [
            "\r\n",
            "4\nbody\r\n0\r\n\r\n",
            "4\rbody\r\n0\r\n\r\n",
            "4 \r\nbody\r\n0\r\n\r\n",
            " 4\r\nbody\r\n0\r\n\r\n",
            "+4\r\nbody\r\n0\r\n\r\n",
            "-4\r\nbody\r\n0\r\n\r\n",
            "0x4\r\nbody\r\n0\r\n\r\n",
            "4,\r\nbody\r\n0\r\n\r\n",
            "g\r\nbody\r\n0\r\n\r\n",
            "00000000000000004\r\nbody\r\n0\r\n\r\n",
            "4;a\nb\r\nbody\r\n0\r\n\r\n",
            "4;\0\r\nbody\r\n0\r\n\r\n",
            "4\r\nbody!\r\n0\r\n\r\n",
            "4\r\nbod\r\n0\r\n\r\n",
            "4\r\nbody0\r\n\r\n",
            "4\r\nbody\n\n0\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nT : v\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            "0\r\n\n",
        ] {
            for at_once in [true, false] {
                let body = body_of("Transfer-Encoding: chunked", bytes.as_bytes(), at_once, &Limits::default());
                assert!(matches!(body, Err(RequestError::Malformed(_))), "{bytes:?}: {body:?}");
            }
        }
        let extension = format!("4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(2 * CHUNK_LINE_BYTES_MAX));
        assert!(body_of("Transfer-Encoding: chunked", extension.as_bytes(), true, &Limits::default()).is_err());
        let huge = body_of("Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFF\r\n", true, &Limits::default());
        assert_eq!(huge, Err(RequestError::BodyTooLarge));
        let trailers = format!("0\r\n{}\r\n", "T: v\r\n".repeat(CHUNKED_BYTES_MAX as usize / 4));
        let endless = body_of("Transfer-Encoding: chunked", trailers.as_bytes(), false, &Limits::default());
        assert_eq!(endless, Err(RequestError::BodyTooLarge));
    }
}
