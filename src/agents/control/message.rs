//! Requests and answers: one JSON object a line.
//!
//! ```text
//! {"version":1,"request":…}
//! {"version":1,"answer":…}   or   {"version":1,"error":{"code":"…","reason":"…","sentence":"…"}}
//! ```
//!
//! Only `version` is read of a line whose version is another: what else stands in it may have changed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_REQUEST_BYTES_MAX};

/// The version of the protocol that is spoken here.
pub const VERSION: u32 = 1;
/// Characters of the cause that is told of a malformed request.
const CAUSE_CHARS_MAX: usize = 200;

/// Why a request was not carried out. Programs go by `code` and `reason`, people read `sentence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// The kind of error, in one word.
    pub code: Cow<'static, str>,
    /// What exactly, in one word.
    pub reason: Cow<'static, str>,
    /// The same for people.
    pub sentence: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with words that are known when this is compiled.
    pub fn new(code: &'static str, reason: &'static str, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), reason: reason.into(), sentence: sentence.into() }
    }
}

/// The beginning of a line, of any version.
#[derive(Deserialize)]
struct VersionLine {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct RequestLine<T> {
    version: u32,
    request: T,
}

#[derive(Serialize, Deserialize)]
struct AnswerLine<T> {
    version: u32,
    answer: T,
}

#[derive(Serialize, Deserialize)]
struct ErrorLine<T> {
    version: u32,
    error: T,
}

/// A line is longer than it may be, or can't be JSON.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EncodeError(#[from] serde_json::Error);

impl EncodeError {
    /// Whether it is the length.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.0.is_io()
    }
}

/// Why an answer is none.
#[derive(Debug)]
pub enum AnswerError {
    /// The server has refused the request.
    Refused(Refusal),
    /// The server speaks this version.
    Version(u32),
    /// It is no answer of this protocol.
    Malformed,
}

/// The line of a request, with its end.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_request<T: Serialize>(request: &T) -> Result<Vec<u8>, EncodeError> {
    encode(&RequestLine { version: VERSION, request }, CONTROL_REQUEST_BYTES_MAX)
}

/// Reads the line of a request.
///
/// # Errors
/// What to answer instead.
pub(super) fn decode_request<T: DeserializeOwned>(line: &[u8]) -> Result<T, Refusal> {
    let malformed = |error: serde_json::Error| {
        // It may repeat a text of any length.
        let cause: String = error.to_string().chars().take(CAUSE_CHARS_MAX).collect();
        Refusal::new("bad_request", "malformed", format!("malformed request: {cause}"))
    };
    let VersionLine { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(Refusal::new(
            "bad_request",
            "unknown_version",
            VersionMismatch { client: version, server: VERSION }.to_string(),
        ));
    }
    let RequestLine { request, .. } = serde_json::from_slice(line).map_err(malformed)?;
    Ok(request)
}

/// The line of an answer, with its end.
pub(super) fn encode_answer<T: Serialize>(result: Result<T, Refusal>) -> Vec<u8> {
    let encoded = match result {
        Ok(answer) => encode(&AnswerLine { version: VERSION, answer }, CONTROL_ANSWER_BYTES_MAX),
        Err(error) => encode(&ErrorLine { version: VERSION, error }, CONTROL_ANSWER_BYTES_MAX),
    };
    let error = match encoded {
        Ok(line) => return line,
        Err(error) if error.is_too_long() => Refusal::new(
            "too_large",
            "answer_too_large",
            format!("the request was carried out, but its answer is longer than {CONTROL_ANSWER_BYTES_MAX} bytes"),
        ),
        Err(error) => {
            log::error!("failed to encode an answer of the control socket: {error}");
            Refusal::new("internal", "internal", "the request was carried out, but its answer can't be sent")
        }
    };
    // Short, and made of text alone.
    encode(&ErrorLine { version: VERSION, error }, CONTROL_ANSWER_BYTES_MAX).unwrap_or_default()
}

/// Reads the line of an answer.
///
/// # Errors
/// [`AnswerError`].
pub fn decode_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, AnswerError> {
    let VersionLine { version } = serde_json::from_slice(line).map_err(|_| AnswerError::Malformed)?;
    if version != VERSION {
        return Err(AnswerError::Version(version));
    }
    if let Ok(ErrorLine { error, .. }) = serde_json::from_slice(line) {
        return Err(AnswerError::Refused(error));
    }
    let AnswerLine { answer, .. } = serde_json::from_slice(line).map_err(|_| AnswerError::Malformed)?;
    Ok(answer)
}

/// Two versions of the protocol, as a sentence.
#[derive(Debug, Clone, Copy)]
pub struct VersionMismatch {
    /// What the command speaks.
    pub client: u32,
    /// What the server speaks.
    pub server: u32,
}

impl fmt::Display for VersionMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server } = self;
        write!(
            f,
            "this command speaks version {client} of the control protocol and the server version {server}; \
             use the `adda` that the server runs"
        )
    }
}

fn encode(line: &impl Serialize, bytes_max: usize) -> Result<Vec<u8>, EncodeError> {
    // The end of the line counts, too.
    let mut bounded = Bounded { bytes: Vec::new(), bytes_max: bytes_max - 1 };
    serde_json::to_writer(&mut bounded, line)?;
    let mut line = bounded.bytes;
    // Between tokens, where a value brings its own text (`RawValue`); within a string JSON has none.
    line.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    line.push(b'\n');
    Ok(line)
}

/// Takes so many bytes and no more, so that the bound holds for memory, too.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Request {
        Kick { user: String },
        List,
    }

    fn refusal(line: &str) -> Refusal {
        decode_request::<Request>(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn requests_and_answers_come_back_as_they_were() {
        let kick = Request::Kick { user: "রহিম\n\"".into() };
        let line = encode_request(&kick).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(decode_request::<Request>(&line).unwrap(), kick);
        assert_eq!(encode_request(&Request::List).unwrap(), b"{\"version\":1,\"request\":\"list\"}\n");
        // An answer of nothing is an answer.
        assert_eq!(encode_answer(Ok(())), b"{\"version\":1,\"answer\":null}\n");
        decode_answer::<()>(b"{\"version\":1,\"answer\":null}").unwrap();
        assert_eq!(decode_answer::<Option<u8>>(&encode_answer(Ok(Some(5)))).unwrap(), Some(5));
        let no = Refusal::new("conflict", "name_taken", "that name is taken");
        let line = encode_answer::<()>(Err(no.clone()));
        let text = r#"{"version":1,"error":{"code":"conflict","reason":"name_taken","sentence":"that name is taken"}}"#;
        assert_eq!(line, format!("{text}\n").as_bytes());
        assert!(matches!(decode_answer::<()>(&line), Err(AnswerError::Refused(refusal)) if refusal == no));
    }

    #[test]
    fn another_version_is_told_with_both_whatever_else_has_changed() {
        let refusal = refusal(r#"{"version":7,"ask":[1]}"#);
        assert_eq!(refusal.reason, "unknown_version");
        assert!(refusal.sentence.contains("version 7") && refusal.sentence.contains("version 1"), "{refusal}");
        assert!(matches!(decode_answer::<()>(br#"{"version":7,"error":"?"}"#), Err(AnswerError::Version(7))));
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_cause() {
        for line in [
            "",
            "GET / HTTP/1.1",
            "[]",
            "1",
            "null",
            "{}",
            r#"{"version":"1","request":"list"}"#,
            r#"{"version":-1,"request":"list"}"#,
            r#"{"version":1}"#,
            r#"{"version":1,"version":1,"request":"list"}"#,
            r#"{"version":1,"request":"lost"}"#,
            r#"{"version":1,"request":"list"} x"#,
            r#"{"version":1,"request":{"kick":{}}}"#,
        ] {
            let refusal = refusal(line);
            assert_eq!((&*refusal.code, &*refusal.reason), ("bad_request", "malformed"), "{line}");
        }
        let deep = format!(r#"{{"version":1,"request":{}"#, "[".repeat(100_000));
        assert_eq!(refusal(&deep).reason, "malformed");
        let long = refusal(&format!(r#"{{"version":1,"request":"{}"}}"#, "\\u0001".repeat(40_000)));
        assert!(long.reason == "malformed" && long.sentence.chars().count() < 250, "{long}");
        assert_eq!(decode_request::<Request>(b"\xff\xfe").unwrap_err().reason, "malformed");
        assert!(refusal(r#"{"version":1,"request":"lost"}"#).sentence.contains("unknown variant `lost`"));
    }

    #[test]
    fn what_is_no_answer_is_known_for_it() {
        for line in
            ["", "hello", "{}", r#"{"version":1}"#, r#"{"version":1,"answer":"x"}"#, r#"{"version":1,"error":5}"#]
        {
            assert!(matches!(decode_answer::<u8>(line.as_bytes()), Err(AnswerError::Malformed)), "{line}");
        }
    }

    #[test]
    fn the_bounds_are_those_of_whole_lines() {
        let around = encode_request(&"").unwrap().len();
        let most = "x".repeat(CONTROL_REQUEST_BYTES_MAX - around);
        assert_eq!(encode_request(&most).unwrap().len(), CONTROL_REQUEST_BYTES_MAX);
        assert!(encode_request(&format!("{most}x")).unwrap_err().is_too_long());
        let around = encode_answer(Ok("")).len();
        let most = "x".repeat(CONTROL_ANSWER_BYTES_MAX - around);
        assert_eq!(encode_answer(Ok(&most)).len(), CONTROL_ANSWER_BYTES_MAX);
        let refused = decode_answer::<String>(&encode_answer(Ok(format!("{most}x"))));
        assert!(matches!(refused, Err(AnswerError::Refused(refusal)) if refusal.reason == "answer_too_large"));
    }

    #[test]
    fn an_answer_is_one_line_whatever_it_is_made_of() {
        let raw = RawValue::from_string("{\n\"a\":\n \"b\\n\"}".into()).unwrap();
        let line = encode_answer(Ok(raw));
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let value: serde_json::Value = decode_answer(&line).unwrap();
        assert_eq!(value["a"], "b\n");
        // Keys that JSON has not.
        let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(
            matches!(decode_answer::<u8>(&encode_answer(Ok(odd))), Err(AnswerError::Refused(r)) if r.code == "internal")
        );
    }
}
