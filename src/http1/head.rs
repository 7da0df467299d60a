//! The head of an HTTP request: a strict parser of the request line and the header fields, and the reader that feeds
//! it.
//!
//! Runs on the connection's own thread. Parsing is pure. Reading has one deadline for the whole head, however small the
//! pieces are in which it arrives. A head that two recipients could read differently is refused: lengths, line ends,
//! white space, folding. So no request can be smuggled past it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::time::Instant;

use crate::config::split_host;
use crate::http1::response::{self, Problem, read_by};
use crate::limits::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use crate::metrics::{Metrics, Refusal};
use crate::model::reason::Reason;

/// The first size of the read buffer; an idle connection holds no more.
const BUFFER_BYTES_MIN: usize = 2048;

// Positions in a head are stored as `u16`.
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);

/// Why a request gets no response from a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request breaks a rule, which is named.
    #[error("{0}")]
    Malformed(&'static str),
    /// The head exceeds [`HEAD_BYTES_MAX`] or [`HEADERS_MAX`].
    #[error(
        "request head too large: at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} fields, with all cookies of this host"
    )]
    HeadTooLarge,
    #[error("request body too large: at most {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("request timeout: the head did not arrive in time")]
    HeadTooSlow,
    #[error("request timeout: the body did not arrive in time")]
    BodyTooSlow,
    #[error("the only supported expectation is 100-continue")]
    Expectation,
    #[error("the server is busy; try again")]
    Busy,
    /// Its body was the slowest when there were too many.
    #[error("too many requests at once, and this one was the slowest; try again")]
    CutOff,
    #[error("no answer from the web server")]
    Unanswered,
    /// The connection has ended or is broken, or a part of a response has been sent already: no response is possible.
    #[error("the client has disconnected")]
    Gone,
}

impl RequestError {
    /// Counts the refusal and sends the error response. `head_only` is for the method HEAD.
    pub fn answer(self, stream: &TcpStream, client: impl fmt::Display, head_only: bool, metrics: &Metrics) {
        log::debug!("no answer for {client}: {self}");
        let (reason, counted) = match self {
            Self::Malformed(_) => (Reason::MalformedRequest, Refusal::BadHead),
            Self::HeadTooLarge => (Reason::HeadTooLarge, Refusal::LargeHead),
            Self::BodyTooLarge => (Reason::BodyTooLarge, Refusal::LargeBody),
            Self::HeadTooSlow | Self::BodyTooSlow => (Reason::TooSlow, Refusal::Slow),
            Self::Expectation => (Reason::UnknownExpectation, Refusal::BadHead),
            Self::Busy | Self::CutOff => (Reason::Busy, Refusal::Busy),
            Self::Unanswered => (Reason::Unavailable, Refusal::Busy),
            Self::Gone => return,
        };
        metrics.refused(counted);
        let headers: &[_] = if reason.status() == 503 { &[("Retry-After", "1")] } else { &[] };
        let sentence = self.to_string();
        response::refuse(stream, &Problem { headers, head_only, ..Problem::new(reason, &sentence) });
    }
}

/// The HTTP versions that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the body behind a head is delimited (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// A body of this number of bytes.
    Length(u64),
    Chunked,
}

/// A valid request head.
#[derive(Debug, Clone)]
pub struct Head {
    /// As the client wrote it.
    pub method: Box<str>,
    /// The path with its query, in visible ASCII, or `*` for OPTIONS.
    pub target: Box<str>,
    pub version: Version,
    /// The host of the request: from the target if that has one, else from the Host field. Empty in HTTP/1.0 without
    /// either.
    pub host: Box<str>,
    pub framing: Framing,
    /// The bytes of the head. At least [`BUFFER_BYTES_MIN`] are allocated for them.
    bytes: Vec<u8>,
    /// The positions in `bytes` of each header field's name and value.
    fields: Box<[(Range<u16>, Range<u16>)]>,
}

impl Head {
    /// The path of the target, still escaped.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// The query behind the `?`, still escaped.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The value of the first field of a name, compared without case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The values of all fields of a name, compared without case.
    pub fn headers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields in order. A name is a token; a value is trimmed and may have bytes beyond ASCII.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let part = |range: &Range<u16>| &self.bytes[range.start.into()..range.end.into()];
        self.fields.iter().map(move |(name, value)| (text(part(name)), part(value)))
    }
}

/// Reads a head that begins with the bytes `early`, which have been read already. Returns it with the bytes behind it
/// that have been read. Leaves a read time-out on the stream.
///
/// # Errors
/// [`RequestError`], as soon as the head can't become valid.
pub fn read(stream: &TcpStream, early: &[u8], deadline: Instant) -> Result<(Head, Vec<u8>), RequestError> {
    if let Some((head, length)) = parse(early)? {
        return Ok((head, early[length..].to_vec()));
    }
    let mut filled = early.len();
    let mut buffer = vec![0; BUFFER_BYTES_MIN.max(filled)];
    buffer[..filled].copy_from_slice(early);
    loop {
        if filled == buffer.len() {
            buffer.resize(HEAD_BYTES_MAX.min(filled * 2), 0);
        }
        let count = match read_by(stream, &mut buffer[filled..], deadline) {
            Ok(0) if filled > 0 => return Err(RequestError::Malformed("the request head ended early")),
            Ok(0) => return Err(RequestError::Gone),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(RequestError::HeadTooSlow),
            Err(_) => return Err(RequestError::Gone),
        };
        let before = filled;
        filled += count;
        // Only the end of a line can complete anything, so a head in small pieces costs one parse per line. For the
        // bytes between, it is enough to check that a line may contain them.
        if buffer[before..filled].contains(&b'\n') || filled == HEAD_BYTES_MAX {
            if let Some((head, length)) = parse(&buffer[..filled])? {
                return Ok((head, buffer[length..filled].to_vec()));
            }
        } else {
            // Nothing but a line feed may follow a carriage return that ended the previous read.
            let from = before - usize::from(buffer[..before].ends_with(b"\r"));
            unfinished_line(&buffer[from..filled])?;
        }
    }
}

/// Parses a head at the beginning of `input`, and returns its length with it; `None` if it is incomplete.
///
/// # Errors
/// [`RequestError::Malformed`] and [`RequestError::HeadTooLarge`], also for an incomplete head.
pub fn parse(input: &[u8]) -> Result<Option<(Head, usize)>, RequestError> {
    // One empty line before the request line is ignored (RFC 9112, section 2.2).
    let mut lines = Lines { input, at: if input.starts_with(b"\r\n") { 2 } else { 0 } };
    let Some(line) = lines.next()? else { return Ok(None) };
    let (method, target, version) = request_line(&input[line])?;
    let mut fields = Vec::new();
    loop {
        let Some(line) = lines.next()? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        if fields.len() == HEADERS_MAX {
            return Err(RequestError::HeadTooLarge);
        }
        let (name, value) = field_line(&input[line.clone()])?;
        // No line ends beyond `HEAD_BYTES_MAX`, so the positions fit.
        let place = |part: Range<usize>| (line.start + part.start) as u16..(line.start + part.end) as u16;
        fields.push((place(name), place(value)));
    }
    // glibc caches small blocks that a thread frees, up to seven of each size, for that thread alone. So small blocks
    // of a head would lie unused while the connection lives. A large block can be reused by every thread.
    let mut bytes = Vec::with_capacity(lines.at.max(BUFFER_BYTES_MIN));
    bytes.extend_from_slice(&input[..lines.at]);
    let mut head = Head {
        method: method.into(),
        target: target.into(),
        version,
        host: Box::default(),
        framing: Framing::None,
        bytes,
        fields: fields.into(),
    };
    head.framing = framing(&head)?;
    head.host = host(&head)?;
    if let Some((authority, path)) = absolute_form(target)? {
        // The Host field is ignored if the target has a host (RFC 9112, section 3.2.2).
        head.host = authority.into();
        head.target = match path {
            "" if method == "OPTIONS" => "*".into(),
            path if path.starts_with('/') => path.into(),
            query => format!("/{query}").into(),
        };
    }
    Ok(Some((head, lines.at)))
}

/// The lines of a head, each ended by CRLF.
struct Lines<'a> {
    input: &'a [u8],
    at: usize,
}

impl Lines<'_> {
    /// The next line without its end; `None` if it has no end yet.
    fn next(&mut self) -> Result<Option<Range<usize>>, RequestError> {
        let rest = &self.input[self.at..];
        let Some(newline) = rest.iter().take(HEAD_BYTES_MAX).position(|b| *b == b'\n') else {
            if self.input.len() >= HEAD_BYTES_MAX {
                return Err(RequestError::HeadTooLarge);
            }
            unfinished_line(rest)?;
            return Ok(None);
        };
        let start = self.at;
        self.at += newline + 1;
        if self.at > HEAD_BYTES_MAX {
            return Err(RequestError::HeadTooLarge);
        }
        let has_return = rest[..newline].ends_with(b"\r");
        require(has_return, "a line of the request head does not end in CRLF")?;
        Ok(Some(start..self.at - 2))
    }
}

/// Checks that the bytes can be part of a line: no control characters but tabs, and a carriage return only at the end.
fn unfinished_line(bytes: &[u8]) -> Result<(), RequestError> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    require(bytes.iter().all(|b| is_in_value(*b)), "the request head contains a control character")
}

fn require(is_kept: bool, broken: &'static str) -> Result<(), RequestError> {
    if is_kept { Ok(()) } else { Err(RequestError::Malformed(broken)) }
}

/// Method, target and version (RFC 9112, section 3).
fn request_line(line: &[u8]) -> Result<(&str, &str, Version), RequestError> {
    let is_visible = line.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    require(is_visible, "the request line contains an invalid character")?;
    let parts: Vec<&str> = text(line).splitn(4, ' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(RequestError::Malformed("malformed request line"));
    };
    require(is_token(method.as_bytes()), "invalid method")?;
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        _ => return Err(RequestError::Malformed("unsupported HTTP version; use HTTP/1.1 or HTTP/1.0")),
    };
    require(method != "CONNECT", "CONNECT is not supported")?;
    require(!target.contains('#'), "the request target must not have a fragment")?;
    let is_known_form = target.starts_with('/') || (target == "*" && method == "OPTIONS") || has_scheme(target);
    require(is_known_form, "the request target must be a path")?;
    Ok((method, target, version))
}

/// The only scheme of an absolute target. TLS ends at a proxy in front of the server, which reports it in a header
/// field.
const SCHEME: &str = "http://";

fn has_scheme(target: &str) -> bool {
    target.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Authority, and path with query, of a target like `http://host/path`; `None` for another form.
fn absolute_form(target: &str) -> Result<Option<(&str, &str)>, RequestError> {
    if !has_scheme(target) {
        return Ok(None);
    }
    let rest = &target[SCHEME.len()..];
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    require(is_host(authority.as_bytes()), "invalid host in the request target")?;
    Ok(Some((authority, path)))
}

/// The ranges of a field line's name and value (RFC 9112, section 5), the value without surrounding white space.
///
/// # Errors
/// [`RequestError::Malformed`].
pub fn field_line(line: &[u8]) -> Result<(Range<usize>, Range<usize>), RequestError> {
    require(!line.starts_with(b" ") && !line.starts_with(b"\t"), "folded header lines are not supported")?;
    let colon = line.iter().position(|b| *b == b':').ok_or(RequestError::Malformed("a header line has no colon"))?;
    require(is_token(&line[..colon]), "invalid header name")?;
    let value = &line[colon + 1..];
    require(value.iter().all(|b| is_in_value(*b)), "a header value contains a control character")?;
    // The only white space that a value may contain is spaces and tabs.
    let start = line.len() - value.trim_ascii_start().len();
    Ok((0..colon, start..start + value.trim_ascii().len()))
}

fn framing(head: &Head) -> Result<Framing, RequestError> {
    let mut lengths = head.headers_named("content-length");
    let mut encodings = head.headers_named("transfer-encoding");
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(RequestError::Malformed("both Content-Length and Transfer-Encoding are given")),
        (Some(length), None) => {
            require(lengths.next().is_none(), "more than one Content-Length")?;
            let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            require(is_number, "Content-Length is not a number")?;
            let length = text(length).parse().map(Framing::Length);
            length.map_err(|_| RequestError::Malformed("Content-Length is too large"))
        }
        (None, Some(encoding)) => {
            let is_chunked = encodings.next().is_none() && encoding.eq_ignore_ascii_case(b"chunked");
            require(is_chunked, "unsupported Transfer-Encoding; use chunked")?;
            require(head.version == Version::Http11, "Transfer-Encoding is not allowed in HTTP/1.0")?;
            Ok(Framing::Chunked)
        }
    }
}

fn host(head: &Head) -> Result<Box<str>, RequestError> {
    let mut hosts = head.headers_named("host");
    let Some(host) = hosts.next() else {
        // Only HTTP/1.1 requires it (RFC 9112, section 3.2).
        require(head.version == Version::Http10, "missing Host header")?;
        return Ok(Box::default());
    };
    require(hosts.next().is_none(), "more than one Host header")?;
    require(is_host(host), "invalid Host header")?;
    Ok(text(host).into())
}

fn is_host(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).ok().and_then(split_host).is_some()
}

/// Whether the bytes are a token (RFC 9110, section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Whether a field's value may contain the byte (RFC 9110, section 5.5): visible characters, spaces, tabs, and bytes
/// beyond ASCII.
fn is_in_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// The text of bytes that were checked to be ASCII.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A part of a URL is not an escaped text in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed percent-encoding")]
pub struct BadEscape;

/// Undoes the percent escapes of a part of a path.
///
/// # Errors
/// [`BadEscape`] for a `%` without two hex digits, and for bytes that are not UTF-8.
pub fn unescape(part: &str) -> Result<Cow<'_, str>, BadEscape> {
    let is_whole = part.split('%').skip(1).all(|behind| {
        let digits = behind.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if !is_whole {
        return Err(BadEscape);
    }
    percent_encoding::percent_decode_str(part).decode_utf8().map_err(|_| BadEscape)
}

/// The first value of a name in a query, unescaped; a `+` is a space.
#[must_use]
pub fn query_value(query: &str, name: &str) -> Option<Result<String, BadEscape>> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| unescape(&key.replace('+', " ")).as_deref() == Ok(name))
        .map(|(_, value)| unescape(&value.replace('+', " ")).map(Cow::into_owned))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn whole(input: &[u8]) -> Head {
        let (head, length) = parse(input).unwrap().unwrap();
        assert_eq!(length, input.len());
        head
    }

    #[test]
    fn a_parsed_head_has_all_parts_of_the_request() {
        let head = whole(
            b"GET /ws/caf%C3%A9?a=1?b HTTP/1.1\r\nHost: Chat.example:80\r\nX-Name: \t caf\xc3\xa9 \t\r\nx-name:\r\n\r\n",
        );
        assert_eq!((&*head.method, &*head.target), ("GET", "/ws/caf%C3%A9?a=1?b"));
        assert_eq!((head.path(), head.query()), ("/ws/caf%C3%A9", Some("a=1?b")));
        assert_eq!((head.version, head.framing), (Version::Http11, Framing::None));
        assert_eq!(&*head.host, "Chat.example:80");
        assert_eq!(head.header("X-NAME"), Some("café".as_bytes()));
        assert_eq!(head.headers_named("x-name").count(), 2);
        assert_eq!(head.header("none"), None);
    }

    #[test]
    fn a_body_has_one_unambiguous_length() {
        for (version, fields, framing) in [
            ("1.1", "Content-Length: 0", Framing::Length(0)),
            ("1.0", "Content-Length:18446744073709551615", Framing::Length(u64::MAX)),
            ("1.1", "content-length:\t007 ", Framing::Length(7)),
            ("1.1", "Transfer-Encoding: CHUNKED", Framing::Chunked),
        ] {
            let head = whole(format!("POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n\r\n").as_bytes());
            assert_eq!(head.framing, framing, "{fields}");
        }
    }

    #[test]
    fn targets_are_reduced_to_their_path() {
        for (method, target, path, host) in [
            ("GET", "/", "/", "h"),
            ("GET", "//a//b?", "//a//b?", "h"),
            ("GET", "http://Other:81/x?y", "/x?y", "Other:81"),
            ("GET", "HTTP://other", "/", "other"),
            ("GET", "http://[::1]?q", "/?q", "[::1]"),
            ("OPTIONS", "*", "*", "h"),
            ("OPTIONS", "http://other", "*", "other"),
        ] {
            let head = whole(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
            assert_eq!((&*head.target, &*head.host), (path, host), "{target}");
        }
    }

    #[test]
    fn a_head_that_breaks_a_rule_is_refused() {
        for line in [
            "GET / HTTP/2.0",
            "GET / HTTP/1.2",
            "GET / HTTP/0.9",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET / ",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "GET\t/\tHTTP/1.1",
            "/ HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /é HTTP/1.1",
            "GET /\u{1} HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET http:///a HTTP/1.1",
            "GET http://u@h/a HTTP/1.1",
            "GET ftp://h/a HTTP/1.1",
            "CONNECT h:80 HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "",
        ] {
            let result = parse(format!("{line}\r\nHost: h\r\n\r\n").as_bytes());
            assert!(matches!(result, Err(RequestError::Malformed(_))), "{line}: {result:?}");
        }
        for fields in [
            "",
            "Host: h\r\nHost: h\r\n",
            "Host:\r\n",
            "Host: a b\r\n",
            "Host: h:99999\r\n",
            "Host: h:8o\r\n",
            "Host: u@h\r\n",
            "Host: h/p\r\n",
            "Host: [::1\r\n",
            "Host: h,i\r\n",
            "Host: h\r\nA : b\r\n",
            "Host: h\r\n: b\r\n",
            "Host: h\r\nA\r\n",
            "Host: h\r\nA b: c\r\n",
            "Host: h\r\nA\u{e9}: c\r\n",
            "Host: h\r\nA: b\r\n c\r\n",
            " Host: h\r\n",
            "Host: h\r\nA: b\u{0}c\r\n",
            "Host: h\r\nA: b\u{7f}c\r\n",
            "Host: h\r\nA: b\rc\r\n",
            "Host: h\r\nA: b\r\r\n",
            "Host: h\r\nA: b\nB: c\r\n",
            "Host: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            "Host: h\r\nContent-Length: 5, 5\r\n",
            "Host: h\r\nContent-Length: +5\r\n",
            "Host: h\r\nContent-Length: -1\r\n",
            "Host: h\r\nContent-Length: 0x5\r\n",
            "Host: h\r\nContent-Length: 5 5\r\n",
            "Host: h\r\nContent-Length:\r\n",
            "Host: h\r\nContent-Length: 18446744073709551616\r\n",
            "Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Host: h\r\nTransfer-Encoding: chunked, chunked\r\n",
            "Host: h\r\nTransfer-Encoding: gzip, chunked\r\n",
            "Host: h\r\nTransfer-Encoding: identity\r\n",
            "Host: h\r\nTransfer-Encoding:\r\n",
        ] {
            let result = parse(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
            assert!(matches!(result, Err(RequestError::Malformed(_))), "{fields}: {result:?}");
        }
        let old = parse(b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(old, Err(RequestError::Malformed(_))));
    }

    #[test]
    fn one_empty_line_before_the_request_line_is_ignored() {
        assert!(parse(b"\r\nGET / HTTP/1.0\r\nHost: x\r\n\r\n").unwrap().is_some());
        assert!(parse(b"\r\n\r\nGET / HTTP/1.0\r\nHost: x\r\n\r\n").is_err());
        assert!(parse(b"\nGET / HTTP/1.0\r\nHost: x\r\n\r\n").is_err());
    }

    #[test]
    fn the_size_limits_are_exact() {
        let of_size = |size: usize| {
            let frame = "GET / HTTP/1.0\r\nHost: x\r\nA: \r\n\r\n".len();
            format!("GET / HTTP/1.0\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(size - frame))
        };
        assert!(parse(of_size(HEAD_BYTES_MAX).as_bytes()).unwrap().is_some());
        assert_eq!(parse(of_size(HEAD_BYTES_MAX + 1).as_bytes()).unwrap_err(), RequestError::HeadTooLarge);
        assert!(parse(&of_size(HEAD_BYTES_MAX).as_bytes()[..HEAD_BYTES_MAX - 1]).unwrap().is_none());
        assert_eq!(parse(&[b'a'; HEAD_BYTES_MAX]).unwrap_err(), RequestError::HeadTooLarge);
        let of_fields = |count: usize| format!("GET / HTTP/1.0\r\nHost: x\r\n{}\r\n", "a:b\r\n".repeat(count - 1));
        assert!(parse(of_fields(HEADERS_MAX).as_bytes()).unwrap().is_some());
        assert_eq!(parse(of_fields(HEADERS_MAX + 1).as_bytes()).unwrap_err(), RequestError::HeadTooLarge);
    }

    #[test]
    fn escapes_are_undone_or_refused() {
        assert_eq!(unescape("%E0%A6%86+a").unwrap(), "আ+a");
        for text in ["%", "%4", "%zz", "a%", "%ff", "%E0%A6"] {
            assert_eq!(unescape(text), Err(BadEscape), "{text}");
        }
        let query = "room=a+b%2Bc&x&user%6Eame=%E0%A6%86&bad=%f";
        assert_eq!(query_value(query, "room").unwrap().unwrap(), "a b+c");
        assert_eq!(query_value(query, "x").unwrap().unwrap(), "");
        assert_eq!(query_value(query, "username").unwrap().unwrap(), "আ");
        assert_eq!(query_value(query, "bad"), Some(Err(BadEscape)));
        assert_eq!(query_value(query, "none"), None);
    }

    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn reading_returns_the_head_and_the_bytes_behind_it() {
        let (mut client, server) = connected();
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(5000));
        client.write_all(format!("{head}a body\0\n").as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (head, mut behind) = read(&server, &[], soon()).unwrap();
        assert_eq!(head.header("a").unwrap().len(), 5000);
        (&server).read_to_end(&mut behind).unwrap();
        assert_eq!(behind, b"a body\0\n");
    }

    #[test]
    fn a_head_that_arrives_byte_by_byte_is_read() {
        let (mut client, server) = connected();
        client.set_nodelay(true).unwrap();
        let reading = std::thread::spawn(move || read(&server, &[], soon()));
        for byte in b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n" {
            client.write_all(&[*byte]).unwrap();
        }
        assert_eq!(reading.join().unwrap().unwrap().0.target.as_ref(), "/a");
    }

    #[test]
    fn reading_ends_as_soon_as_the_head_is_invalid() {
        for (bytes, ends, expected) in [
            (&b""[..], true, "Gone"),
            (b"GET / HT", true, "Malformed"),
            // The beginning of a TLS handshake: it is refused before the end of a line.
            (b"\x16\x03\x01\x02\x00", false, "Malformed"),
            (b"GET /\rx", false, "Malformed"),
            (b"PRI * HTTP/2.0\r\n", false, "Malformed"),
            (&[b'a'; HEAD_BYTES_MAX], false, "HeadTooLarge"),
        ] {
            let (mut client, server) = connected();
            client.write_all(bytes).unwrap();
            if ends {
                client.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let error = read(&server, &[], soon()).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        }
    }

    #[test]
    fn the_deadline_is_for_the_whole_head() {
        let (mut client, server) = connected();
        let (done, result) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let error = read(&server, &[], Instant::now() + Duration::from_millis(200)).unwrap_err();
            let _ = done.send(error);
        });
        // The client never stops sending, so only a deadline for the whole head ends the read.
        for _ in 0..2_000 {
            match result.recv_timeout(Duration::from_millis(5)) {
                Ok(error) => {
                    assert_eq!(error, RequestError::HeadTooSlow);
                    return;
                }
                Err(_) => drop(client.write_all(b"a")),
            }
        }
        panic!("the deadline has been put off");
    }

    /// A valid head, with anything that the rules allow.
    fn valid_head() -> impl Strategy<Value = Vec<u8>> {
        let name = "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}";
        let value = proptest::collection::vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xffu8], 0..40);
        let fields = proptest::collection::vec((name, value), 0..12);
        let framing = prop_oneof![
            Just(String::new()),
            any::<u64>().prop_map(|length| format!("Content-Length: {length}\r\n")),
            Just("transfer-encoding:chunked\r\n".to_string()),
        ];
        let target = prop_oneof!["/[!-\"$-~]{0,60}", "http://[a-z.]{1,9}(:[1-9][0-9]{0,3})?(/[!-\"$-~]{0,20})?"];
        ("[A-Z]{3,7}", target, fields, framing, any::<bool>()).prop_map(|(method, target, fields, framing, empty)| {
            let method = if method == "CONNECT" { "GET".to_string() } else { method };
            let first = if empty { "\r\n" } else { "" };
            let mut bytes =
                format!("{first}{method} {target} HTTP/1.1\r\nHost: chat.example\r\n{framing}").into_bytes();
            for (name, value) in fields {
                if ["host", "content-length", "transfer-encoding"].contains(&&*name.to_ascii_lowercase()) {
                    continue;
                }
                bytes.extend_from_slice(name.as_bytes());
                bytes.push(b':');
                bytes.extend_from_slice(&value);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"\r\n");
            bytes
        })
    }

    /// A valid head with a few random changes.
    fn broken_head() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop_oneof![
                Just("\r"),
                Just("\n"),
                Just("\r\n"),
                Just("\r\n "),
                Just(" "),
                Just("\t"),
                Just(":"),
                Just("\0"),
                Just("\r\nContent-Length: 5\r\n"),
                Just("\r\nTransfer-Encoding: chunked\r\n"),
                Just("\r\nHost: h\r\n"),
            ]
            .prop_map(|text: &str| text.as_bytes().to_vec()),
        ];
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..3usize, piece), 1..4);
        (valid_head(), edits).prop_map(|(mut bytes, edits)| {
            for (place, removed, piece) in edits {
                let start = place.index(bytes.len());
                let end = (start + removed).min(bytes.len());
                bytes.splice(start..end, piece);
            }
            bytes
        })
    }

    /// The result of httparse: method, target, minor version, fields, length.
    type Reading = (String, String, u8, Vec<(String, Vec<u8>)>, usize);

    fn oracle(input: &[u8]) -> Option<Reading> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            _ => return None,
        };
        let trimmed = |value: &[u8]| {
            let value = value.to_vec();
            let start = value.iter().position(|b| !b" \t".contains(b)).unwrap_or(value.len());
            let end = value.iter().rposition(|b| !b" \t".contains(b)).map_or(start, |last| last + 1);
            value[start..end].to_vec()
        };
        let fields = request.headers.iter().map(|field| (field.name.to_string(), trimmed(field.value)));
        Some((request.method?.to_string(), request.path?.to_string(), request.version?, fields.collect(), length))
    }

    fn agrees(input: &[u8]) -> Result<bool, TestCaseError> {
        let Ok(Some((head, length))) = parse(input) else {
            return Ok(false);
        };
        let Some(theirs) = oracle(input) else {
            return Err(TestCaseError::fail("httparse refuses it"));
        };
        let fields: Vec<_> = head.headers().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
        prop_assert_eq!(&*head.method, theirs.0);
        if theirs.1.starts_with('/') {
            prop_assert_eq!(&*head.target, theirs.1);
        } else {
            prop_assert!(&*head.target == "/" || theirs.1.ends_with(head.target.trim_start_matches('/')));
        }
        prop_assert_eq!(head.version == Version::Http11, theirs.2 == 1);
        prop_assert_eq!(fields, theirs.3);
        prop_assert_eq!(length, theirs.4);
        Ok(true)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_valid_head_is_parsed_and_each_prefix_is_incomplete(input in valid_head(), behind in any::<[u8; 3]>()) {
            for end in 0..input.len() {
                prop_assert!(matches!(parse(&input[..end]), Ok(None)), "{end}");
            }
            prop_assert!(agrees(&input)?);
            let mut longer = input.clone();
            longer.extend(behind);
            prop_assert_eq!(parse(&longer).unwrap().unwrap().1, input.len());
        }

        #[test]
        fn httparse_agrees_on_every_accepted_head(input in broken_head()) {
            agrees(&input)?;
        }

        #[test]
        fn parsing_never_panics(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&input);
        }
    }
}
