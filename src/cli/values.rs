//! The values of flags, as text. Pure, but for the clock and the resolver.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use chrono::DateTime;

use crate::limits::{DATA_BYTES_MIN, LABEL_CHARS_MAX, LEASE_MAX, MESSAGE_BYTES_MAX, OUTBOXES_BYTES_MAX};
use crate::model::role::Role;
use crate::model::{RoomId, Timestamp, Username};
use crate::store::accounts::SessionId;

pub fn address(text: &str) -> Result<SocketAddr, String> {
    let sentence = || "an address looks like 0.0.0.0:3000, [::]:3000 or localhost:3000".to_owned();
    text.to_socket_addrs().map_err(|_| sentence())?.next().ok_or_else(sentence)
}

/// A number with a unit, in the smallest of these units. An empty unit stands for a bare number.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, scale)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*scale))
}

/// Bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    scaled(&text.to_ascii_uppercase(), &[("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)])
}

/// Bytes of something in memory.
fn size(text: &str) -> Option<usize> {
    bytes(text).and_then(|count| usize::try_from(count).ok())
}

/// A time of seconds, minutes, hours or days.
fn time(text: &str) -> Option<Duration> {
    scaled(text, &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]).map(Duration::from_secs)
}

/// A time of milliseconds, seconds or minutes; a bare number is seconds.
fn short_time(text: &str) -> Option<Duration> {
    scaled(text, &[("ms", 1), ("", 1_000), ("s", 1_000), ("m", 60_000)]).map(Duration::from_millis)
}

pub fn retention(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let fits = time(text).filter(|time| (1..=36_500 * 86_400).contains(&time.as_secs()));
    fits.ok_or_else(|| "a retention is from 1s to 36500d, such as 90d, 12h or 30m, or 0 for no end".to_owned())
}

pub fn data_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let fits = bytes(text).filter(|count| (DATA_BYTES_MIN..=1 << 46).contains(count));
    fits.ok_or_else(|| {
        format!("a database has from {}M to 65536G, such as 1G, or 0 for no bound", DATA_BYTES_MIN >> 20)
    })
}

pub fn room(text: &str) -> Result<RoomId, String> {
    RoomId::parse(text).map_err(|error| error.to_string())
}

/// A date or a moment (RFC 3339), or a time before now.
pub fn since(text: &str) -> Result<Timestamp, String> {
    let ago = || {
        let ms = u64::try_from(time(text)?.as_millis()).ok()?;
        Some(Timestamp::now().unix_ms.saturating_sub(ms))
    };
    let moment = || {
        let midnight = format!("{text}T00:00:00Z");
        let moment = [text, &midnight].into_iter().find_map(|text| DateTime::parse_from_rfc3339(text).ok())?;
        // Before 1970 nothing was said here.
        Some(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
    };
    let sentence = || "a time looks like 2026-01-31, 2026-01-31T18:00:00Z or 7d".to_owned();
    moment().or_else(ago).map(Timestamp::at).ok_or_else(sentence)
}

pub fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "a rate looks like 10/s; 0 is no limit".to_owned())
}

pub fn content_bytes(text: &str) -> Result<usize, String> {
    // Room for the JSON around it, and for escapes.
    let most = MESSAGE_BYTES_MAX / 2;
    let fits = size(text).filter(|count| (1..=most).contains(count));
    fits.ok_or_else(|| format!("a message's text has from 1 to {most} bytes, such as 8192 or 8K"))
}

pub fn outbox_bytes(text: &str) -> Result<usize, String> {
    let range = MESSAGE_BYTES_MAX..=OUTBOXES_BYTES_MAX;
    let fits = size(text).filter(|count| range.contains(count));
    fits.ok_or_else(|| "an outbox has from 64K to 256M, such as 1M".to_owned())
}

pub fn ping_interval(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| (100..=3_600_000).contains(&time.as_millis()));
    fits.ok_or_else(|| "a ping interval is from 100ms to 60m, such as 25s".to_owned())
}

pub fn lease(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| *time <= LEASE_MAX);
    fits.ok_or_else(|| "a lease is 5m at most, such as 10s, or 0 for none".to_owned())
}

pub fn expiry(text: &str) -> Result<Duration, String> {
    let fits = time(text).filter(|time| (1..=36_500 * 86_400).contains(&time.as_secs()));
    fits.ok_or_else(|| "a token is good for 1s to 36500d, such as 90d, 12h or 30m".to_owned())
}

pub fn username(text: &str) -> Result<Username, String> {
    Username::parse(text).map_err(|error| error.to_string())
}

pub fn role(text: &str) -> Result<Role, String> {
    let role = text.parse().ok().filter(|role| *role != Role::Guest);
    role.ok_or_else(|| "a role is user or admin".to_owned())
}

pub fn label(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control);
    let sentence = || format!("a label has {LABEL_CHARS_MAX} characters at most, and no controls");
    fits.then(|| text.trim().to_owned()).ok_or_else(sentence)
}

pub fn session_key(text: &str) -> Result<SessionId, String> {
    text.parse().map(SessionId).map_err(|_| "a token is named by its number in `adda token list`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_moment_or_so_long_ago() {
        for (text, ms) in [
            ("1970-01-02", 86_400_000),
            ("1970-01-01T00:00:01.5Z", 1_500),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-01-01", 0),
        ] {
            assert_eq!(since(text).unwrap().unix_ms, ms, "{text}");
        }
        let ago = Timestamp::now().unix_ms - since("2h").unwrap().unix_ms;
        assert!((7_199_000..7_201_000).contains(&ago), "{ago}");
        for text in ["", "yesterday", "2026-13-01", "2026-01-31T25:00:00Z", "7", "-7d"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
