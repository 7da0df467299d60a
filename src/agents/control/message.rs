//! Requests and responses of the control socket, one JSON object per line. Pure.
//!
//! ```text
//! {"version":1,"request":…}
//! {"version":1,"answer":…}   or   {"version":1,"error":{"reason":"…","sentence":"…"}}
//! ```
//!
//! Of a line with another version only `version` is read, because its other fields may have changed.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{CONTROL_ANSWER_BYTES_MAX, CONTROL_REQUEST_BYTES_MAX};
use crate::model::reason::{Reason, Rejection};

/// The version of this protocol.
const VERSION: u32 = 1;
/// Maximum characters of the cause in the answer to a malformed request.
const CAUSE_CHARS_MAX: usize = 200;

/// The field that lines of all versions have.
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
    #[serde(flatten)]
    result: AnswerResult<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AnswerResult<T> {
    Answer(T),
    Error(Rejection),
}

/// An error whose reason this program does not know.
#[derive(Deserialize)]
struct OtherError {
    error: Sentence,
}

#[derive(Deserialize)]
struct Sentence {
    sentence: String,
}

/// The line of a request, with its end.
///
/// # Errors
/// If the request is too long, or can't be JSON.
pub fn encode_request<T: Serialize>(request: &T) -> serde_json::Result<Vec<u8>> {
    encode(&RequestLine { version: VERSION, request }, CONTROL_REQUEST_BYTES_MAX)
}

/// Reads the line of a request.
///
/// # Errors
/// The rejection to send.
pub(super) fn decode_request<T: DeserializeOwned>(line: &[u8]) -> Result<T, Rejection> {
    let malformed = |error: serde_json::Error| {
        // The error may quote a text of any length.
        let cause: String = error.to_string().chars().take(CAUSE_CHARS_MAX).collect();
        Reason::MalformedRequest.because(format!("malformed request: {cause}"))
    };
    let VersionLine { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(Reason::MalformedRequest.because(other_version(version, VERSION)));
    }
    let RequestLine { request, .. } = serde_json::from_slice(line).map_err(malformed)?;
    Ok(request)
}

/// The line of a response, with its end.
pub(super) fn encode_answer<T: Serialize>(result: Result<T, Rejection>) -> Vec<u8> {
    let result = result.map_or_else(AnswerResult::Error, AnswerResult::Answer);
    let error = match encode(&AnswerLine { version: VERSION, result }, CONTROL_ANSWER_BYTES_MAX) {
        Ok(line) => return line,
        Err(error) => error,
    };
    let sentence = format!("the request succeeded, but its answer could not be sent: {error}");
    let result = AnswerResult::<T>::Error(Reason::Internal.because(sentence));
    // This one is short and consists only of text.
    encode(&AnswerLine { version: VERSION, result }, CONTROL_ANSWER_BYTES_MAX).unwrap_or_default()
}

/// Why a line has no usable answer.
#[derive(Debug)]
pub enum AnswerError {
    /// The server refused the request.
    Refused(Rejection),
    /// The server uses another version; the sentence says which.
    Version(String),
    /// It is not a response of this protocol.
    Malformed,
}

/// Reads the line of a response.
///
/// # Errors
/// [`AnswerError`].
pub fn decode_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, AnswerError> {
    let VersionLine { version } = serde_json::from_slice(line).map_err(|_| AnswerError::Malformed)?;
    if version != VERSION {
        return Err(AnswerError::Version(other_version(VERSION, version)));
    }
    match serde_json::from_slice::<AnswerLine<T>>(line) {
        Ok(AnswerLine { result: AnswerResult::Answer(answer), .. }) => Ok(answer),
        Ok(AnswerLine { result: AnswerResult::Error(rejection), .. }) => Err(AnswerError::Refused(rejection)),
        Err(_) => match serde_json::from_slice::<OtherError>(line) {
            Ok(OtherError { error }) => Err(AnswerError::Refused(Reason::Internal.because(error.sentence))),
            Err(_) => Err(AnswerError::Malformed),
        },
    }
}

fn other_version(client: u32, server: u32) -> String {
    format!(
        "control protocol mismatch: this command uses version {client}, the server version {server}; \
         use the `adda` that the server runs"
    )
}

fn encode(line: &impl Serialize, bytes_max: usize) -> serde_json::Result<Vec<u8>> {
    // The limit includes the end of the line.
    let mut bounded = Bounded { bytes: Vec::new(), bytes_max: bytes_max - 1 };
    serde_json::to_writer(&mut bounded, line)?;
    bounded.bytes.push(b'\n');
    Ok(bounded.bytes)
}

/// A writer that fails beyond `bytes_max`, so that the memory is bounded, too.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.bytes_max {
            return Err(io::Error::other(format!("longer than {} bytes", self.bytes_max + 1)));
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
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Request {
        Kick { user: String },
        List,
    }

    fn refusal(line: &str) -> Rejection {
        decode_request::<Request>(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn requests_and_answers_survive_a_round_trip() {
        let kick = Request::Kick { user: "রহিম\n\"".into() };
        let line = encode_request(&kick).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(decode_request::<Request>(&line).unwrap(), kick);
        assert_eq!(encode_request(&Request::List).unwrap(), b"{\"version\":1,\"request\":\"list\"}\n");
        // An answer without a value is valid.
        assert_eq!(encode_answer(Ok(())), b"{\"version\":1,\"answer\":null}\n");
        decode_answer::<()>(b"{\"version\":1,\"answer\":null}").unwrap();
        assert_eq!(decode_answer::<Option<u8>>(&encode_answer(Ok(Some(5)))).unwrap(), Some(5));
        let no = Reason::NameTaken.because("that name is taken");
        let line = encode_answer::<()>(Err(no.clone()));
        let text = r#"{"version":1,"error":{"reason":"name_taken","sentence":"that name is taken"}}"#;
        assert_eq!(line, format!("{text}\n").as_bytes());
        assert!(matches!(decode_answer::<()>(&line), Err(AnswerError::Refused(refusal)) if refusal == no));
    }

    #[test]
    fn the_error_for_another_version_names_both_versions() {
        let refusal = refusal(r#"{"version":7,"ask":[1]}"#);
        assert_eq!(refusal.reason, Reason::MalformedRequest);
        assert!(refusal.sentence.contains("version 7") && refusal.sentence.contains("version 1"), "{refusal}");
        assert!(
            matches!(decode_answer::<()>(br#"{"version":7,"error":"?"}"#), Err(AnswerError::Version(sentence)) if sentence.contains("the server version 7"))
        );
    }

    #[test]
    fn a_malformed_request_is_refused_with_the_cause() {
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
            assert_eq!(refusal.reason, Reason::MalformedRequest, "{line}");
        }
        let deep = format!(r#"{{"version":1,"request":{}"#, "[".repeat(100_000));
        assert_eq!(refusal(&deep).reason, Reason::MalformedRequest);
        let long = refusal(&format!(r#"{{"version":1,"request":"{}"}}"#, "\\u0001".repeat(40_000)));
        assert!(long.reason == Reason::MalformedRequest && long.sentence.chars().count() < 250, "{long}");
        assert_eq!(decode_request::<Request>(b"\xff\xfe").unwrap_err().reason, Reason::MalformedRequest);
        assert!(refusal(r#"{"version":1,"request":"lost"}"#).sentence.contains("unknown variant `lost`"));
    }

    #[test]
    fn a_refusal_for_a_reason_of_another_adda_is_a_refusal() {
        let line = br#"{"version":1,"error":{"reason":"too_late","sentence":"it is too late"}}"#;
        let refused = decode_answer::<()>(line);
        assert!(matches!(refused, Err(AnswerError::Refused(rejection)) if rejection.sentence == "it is too late"));
    }

    #[test]
    fn a_malformed_answer_is_an_error() {
        for line in
            ["", "hello", "{}", r#"{"version":1}"#, r#"{"version":1,"answer":"x"}"#, r#"{"version":1,"error":5}"#]
        {
            assert!(matches!(decode_answer::<u8>(line.as_bytes()), Err(AnswerError::Malformed)), "{line}");
        }
    }

    #[test]
    fn the_limits_apply_to_whole_lines() {
        let around = encode_request(&"").unwrap().len();
        let most = "x".repeat(CONTROL_REQUEST_BYTES_MAX - around);
        assert_eq!(encode_request(&most).unwrap().len(), CONTROL_REQUEST_BYTES_MAX);
        let error = encode_request(&format!("{most}x")).unwrap_err();
        assert_eq!(error.to_string(), format!("longer than {CONTROL_REQUEST_BYTES_MAX} bytes"));
        let around = encode_answer(Ok("")).len();
        let most = "x".repeat(CONTROL_ANSWER_BYTES_MAX - around);
        assert_eq!(encode_answer(Ok(&most)).len(), CONTROL_ANSWER_BYTES_MAX);
        let refused = decode_answer::<String>(&encode_answer(Ok(format!("{most}x"))));
        let Err(AnswerError::Refused(Rejection { reason, sentence, .. })) = refused else { panic!("{refused:?}") };
        let bound = format!("longer than {CONTROL_ANSWER_BYTES_MAX} bytes");
        assert!(reason == Reason::Internal && sentence.ends_with(&bound), "{sentence}");
    }

    #[test]
    fn an_answer_that_is_not_valid_json_is_an_error() {
        let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
        let refused = decode_answer::<u8>(&encode_answer(Ok(odd)));
        assert!(matches!(refused, Err(AnswerError::Refused(rejection)) if rejection.reason == Reason::Internal));
    }
}
