//! The refusal of a page of a foreign origin: what the client and the operator are told.
//!
//! A proxy that changes `Host` makes the server's own page a foreign one. So both values are named, and the setting. The
//! log has one line for each pair of values, and only a few pairs an hour: any page on the web can cause such lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::reason::{Reason, Rejection};

/// Pairs of values that are logged within [`LOG_SPAN`].
const PAIRS_LOGGED_MAX: usize = 20;
const LOG_SPAN: Duration = Duration::from_secs(3_600);
/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 100;

/// The pairs that were logged. The log belongs to the process, and so do they.
static LOGGED: Mutex<Logged> = Mutex::new(Logged { pairs: Vec::new(), since: None });

struct Logged {
    /// Origin and Host, as they are shown.
    pairs: Vec<(String, String)>,
    since: Option<Instant>,
}

impl Logged {
    /// Whether a line about these values is to be written.
    fn is_new(&mut self, origin: &str, host: &str, now: Instant) -> bool {
        if self.since.is_none_or(|since| since + LOG_SPAN <= now) {
            *self = Self { pairs: Vec::new(), since: Some(now) };
        }
        let is_new = !self.pairs.iter().any(|(one, other)| one == origin && other == host);
        if is_new && self.pairs.len() < PAIRS_LOGGED_MAX {
            self.pairs.push((origin.to_owned(), host.to_owned()));
            return true;
        }
        false
    }
}

/// Refuses a request by the values of its Origin and Host fields. Writes a line to the log, if there is none about them.
#[must_use]
pub fn foreign_origin(origin: Option<&str>, host: Option<&str>) -> Rejection {
    let (origin, host) = (shown(origin), shown(host));
    let sentence = format!(
        "requests from this origin are not allowed: Origin is \"{origin}\", Host is \"{host}\"; a proxy must pass on \
         Host with its port, and pages of other origins need --origin"
    );
    if LOGGED.lock().unwrap_or_else(PoisonError::into_inner).is_new(&origin, &host, Instant::now()) {
        log::warn!(
            "refused a page of another origin: Origin is \"{origin}\", Host is \"{host}\"; if this is your own page \
             behind a proxy, let the proxy pass on Host with its port, or start with --origin {origin}"
        );
    }
    Reason::ForeignOrigin.because(sentence)
}

/// A value as it is shown in a sentence and in the log.
fn shown(value: Option<&str>) -> String {
    value.unwrap_or_default().chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_both_values_and_the_setting() {
        let rejection = foreign_origin(Some("http://chat.example:8080"), Some("chat.example"));
        assert_eq!(rejection.reason, Reason::ForeignOrigin);
        for part in ["\"http://chat.example:8080\"", "\"chat.example\"", "--origin", "port"] {
            assert!(rejection.sentence.contains(part), "{}", rejection.sentence);
        }
        let hostile = foreign_origin(Some(&format!("\"\n\u{1b}[31m{}", "x".repeat(10_000))), None);
        assert!(hostile.sentence.len() < 1_000 && !hostile.sentence.contains(['\n', '\u{1b}']));
    }

    #[test]
    fn the_log_has_a_line_for_each_pair_and_a_bounded_number_of_them() {
        let (mut logged, now) = (Logged { pairs: Vec::new(), since: None }, Instant::now());
        assert!(logged.is_new("a", "b", now) && logged.is_new("a", "c", now));
        assert!(!logged.is_new("a", "b", now) && !logged.is_new("a", "c", now));
        let lines = (0..1_000).filter(|number| logged.is_new(&number.to_string(), "b", now)).count();
        assert_eq!(lines, PAIRS_LOGGED_MAX - 2);
        assert!(logged.is_new("a", "b", now + LOG_SPAN), "again after an hour");
    }
}
