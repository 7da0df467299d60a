//! The values of flags and arguments, as text. Pure, but for the clock and the resolver.
//!
//! Each error continues the sentence `invalid value "x" for --flag: …`, and says what is expected.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use chrono::DateTime;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use log::LevelFilter;

use crate::config::{Cidr, CidrError, Config, Origin};
use crate::limits::{DATA_BYTES_MIN, HISTORY_MAX, LABEL_CHARS_MAX, LEASE_MAX, MESSAGE_BYTES_MAX, OUTBOXES_BYTES_MAX};
use crate::model::role::Role;
use crate::model::{RoomId, Timestamp, Username};
use crate::store::accounts::SessionId;

/// The longest retention and the longest life of a token: a hundred years.
const DAYS_MAX: u64 = 36_500;
/// The largest `--max-data`: 64 TiB.
const DATA_BYTES_MAX: u64 = 1 << 46;

/// An address with a port, a port, or a colon and a port. A port alone stands for the default address.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
        return Ok(on_port(port));
    }
    let expected = || "expected an address such as 0.0.0.0:3000, or a port".to_owned();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("expected a port, too, such as {}", SocketAddr::new(ip, Config::default().listen.port())));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    if port.parse::<u64>().is_ok_and(|port| port > u64::from(u16::MAX)) {
        return Err("expected a port from 0 to 65535".to_owned());
    }
    // An IPv6 address needs brackets: without them, its end could be a port.
    if port.parse::<u16>().is_err() || (host.contains(':') && !host.starts_with('[')) {
        return Err(expected());
    }
    // Of a host that is an address, nothing is resolved.
    let mut found = text.to_socket_addrs().map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => expected(),
        _ => format!("no such host: {host}"),
    })?;
    found.next().ok_or_else(expected)
}

/// The URL of a server, without a path.
pub fn server_url(text: &str) -> Result<String, String> {
    let url = text.trim().trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '#') => Ok(url.to_owned()),
        _ => Err("expected a URL such as https://chat.example".to_owned()),
    }
}

/// The default address with another port.
pub fn on_port(port: u16) -> SocketAddr {
    SocketAddr::new(Config::default().listen.ip(), port)
}

pub fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "expected a port from 0 to 65535".to_owned())
}

/// The values of a flag that takes several: separated by commas or spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr> List<T> {
    fn parse(text: &str, expected: impl Fn(T::Err) -> String) -> Result<Self, String> {
        let items: Vec<&str> =
            text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty()).collect();
        let parse = |item: &&str| {
            item.parse().map_err(|error| {
                let expected = expected(error);
                if items.len() == 1 { expected } else { format!("\"{item}\": {expected}") }
            })
        };
        let parsed = items.iter().map(parse).collect::<Result<Vec<T>, String>>()?;
        if parsed.is_empty() { Err("expected at least one".to_owned()) } else { Ok(Self(parsed)) }
    }
}

pub fn origins(text: &str) -> Result<List<Origin>, String> {
    List::parse(text, |_| "expected an origin such as https://chat.example or http://192.168.1.5:3000".to_owned())
}

pub fn proxies(text: &str) -> Result<List<Cidr>, String> {
    List::parse(text, |error| match error {
        CidrError::Malformed => "expected an address or a range, such as 127.0.0.1, 10.0.0.0/8 or fd00::/8".to_owned(),
        CidrError::Bits(range) => format!("the address has bits beyond the prefix length; did you mean {range}?"),
    })
}

/// A number with a unit, in the smallest of these units. An empty unit stands for a bare number.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Bytes: `1G`, `1GB` and `1GiB` are the same, in powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];
    let upper = text.trim().to_ascii_uppercase();
    let short = upper.strip_suffix('B').unwrap_or(&upper);
    // `1I` has no prefix before the letter of the binary units.
    let short = short.strip_suffix('I').filter(|rest| rest.ends_with(['K', 'M', 'G', 'T'])).unwrap_or(short);
    scaled(short, &UNITS)
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

/// A time from a second to [`DAYS_MAX`].
fn long_time(text: &str) -> Option<Duration> {
    time(text).filter(|time| (1..=DAYS_MAX * 86_400).contains(&time.as_secs()))
}

pub fn retention(text: &str) -> Result<Duration, String> {
    let fits = if text.trim() == "0" { Some(Duration::ZERO) } else { long_time(text) };
    fits.ok_or_else(|| format!("expected a time from 1s to {DAYS_MAX}d, such as 90d, 12h or 30m, or 0 to keep all"))
}

pub fn data_bytes(text: &str) -> Result<u64, String> {
    let fits = bytes(text).filter(|count| *count == 0 || (DATA_BYTES_MIN..=DATA_BYTES_MAX).contains(count));
    let (least, most) = (DATA_BYTES_MIN >> 20, DATA_BYTES_MAX >> 30);
    fits.ok_or_else(|| format!("expected a size from {least}M to {most}G, such as 1G, or 0 for no limit"))
}

pub fn room(text: &str) -> Result<RoomId, String> {
    RoomId::parse_to_read(text).map_err(|error| error.to_string())
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
        // There are no messages from before 1970.
        Some(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
    };
    let expected = || "expected a time such as 2026-01-31, 2026-01-31T18:00:00Z or 7d".to_owned();
    moment().or_else(ago).map(Timestamp::at).ok_or_else(expected)
}

fn number<T: FromStr + PartialOrd>(text: &str, range: &RangeInclusive<T>) -> Option<T> {
    text.trim().parse().ok().filter(|number| range.contains(number))
}

pub fn history(text: &str) -> Result<usize, String> {
    number(text, &(0..=HISTORY_MAX)).ok_or_else(|| format!("expected a number from 0 to {HISTORY_MAX}"))
}

pub fn connections(text: &str) -> Result<u64, String> {
    number(text, &(1..=u64::MAX)).ok_or_else(|| "expected a number from 1 on".to_owned())
}

/// A number, or 0 for no limit.
pub fn limit(text: &str) -> Result<u32, String> {
    number(text, &(0..=u32::MAX)).ok_or_else(|| "expected a number, or 0 for no limit".to_owned())
}

pub fn rate(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.trim().parse().map_err(|_| "expected a rate such as 10/s, or 0 for no limit".to_owned())
}

pub fn content_bytes(text: &str) -> Result<usize, String> {
    // Room for the JSON around it, and for escapes.
    let most = MESSAGE_BYTES_MAX / 2;
    let fits = size(text).filter(|count| (1..=most).contains(count));
    fits.ok_or_else(|| format!("expected a size from 1 to {most} bytes, such as 8192 or 8K"))
}

pub fn outbox_bytes(text: &str) -> Result<usize, String> {
    let fits = size(text).filter(|count| (MESSAGE_BYTES_MAX..=OUTBOXES_BYTES_MAX).contains(count));
    fits.ok_or_else(|| "expected a size from 64K to 256M, such as 1M".to_owned())
}

pub fn ping_interval(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| (100..=3_600_000).contains(&time.as_millis()));
    fits.ok_or_else(|| "expected a time from 100ms to 60m, such as 25s".to_owned())
}

pub fn lease(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| *time <= LEASE_MAX);
    fits.ok_or_else(|| "expected a time of at most 5m, such as 10s, or 0 for none".to_owned())
}

pub fn expiry(text: &str) -> Result<Duration, String> {
    long_time(text).ok_or_else(|| format!("expected a time from 1s to {DAYS_MAX}d, such as 90d, 12h or 30m"))
}

pub fn username(text: &str) -> Result<Username, String> {
    Username::parse(text).map_err(|error| error.to_string())
}

/// The role of an account.
pub fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["user", "admin"]).try_map(|text| text.parse::<Role>())
}

/// A level of the log, with the words of the `log` crate.
pub fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    let words = ["off", "error", "warn", "info", "debug"].map(PossibleValue::new);
    // The release build has no trace lines.
    let hidden = PossibleValue::new("trace").hide(true);
    PossibleValuesParser::new(words.into_iter().chain([hidden])).try_map(|text| text.parse::<LevelFilter>())
}

pub fn label(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control);
    let expected = || format!("expected at most {LABEL_CHARS_MAX} characters, without control characters");
    fits.then(|| text.trim().to_owned()).ok_or_else(expected)
}

pub fn session_key(text: &str) -> Result<SessionId, String> {
    text.trim().parse().map(SessionId).map_err(|_| "expected an id from `adda token list`".to_owned())
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

    #[test]
    fn an_address_may_be_a_port_alone() {
        for (text, parsed) in [
            ("3000", "0.0.0.0:3000"),
            (":3000", "0.0.0.0:3000"),
            (" 80 ", "0.0.0.0:80"),
            ("0", "0.0.0.0:0"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), parsed, "{text}");
        }
        let address_or_port = "expected an address such as 0.0.0.0:3000, or a port";
        for (text, error) in [
            ("", address_or_port),
            (":", address_or_port),
            ("nowhere", address_or_port),
            ("[::1]", address_or_port),
            ("99999", address_or_port),
            ("-1", address_or_port),
            ("127.0.0.1:x", address_or_port),
            ("1.2.3.4", "expected a port, too, such as 1.2.3.4:3000"),
            ("::1", "expected a port, too, such as [::1]:3000"),
            ("127.0.0.1:99999", "expected a port from 0 to 65535"),
        ] {
            assert_eq!(address(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn sizes_have_units_in_powers_of_1024() {
        for (text, count) in [
            ("0", 0),
            ("77", 77),
            ("77b", 77),
            ("1K", 1 << 10),
            ("2kb", 2 << 10),
            ("2KiB", 2 << 10),
            ("1g", 1 << 30),
            ("1GB", 1 << 30),
            ("1 GiB", 1 << 30),
            (" 3 m ", 3 << 20),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Some(count), "{text}");
        }
        for text in ["", "G", "-1G", "1.5G", "1X", "1iB", "1I", "1BB", "1GG", "1 2", "18446744073709551615G"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn lists_are_separated_by_commas_and_spaces() {
        for text in ["http://a,https://b:1", "http://a https://b:1", " http://a ,\thttps://b:1,"] {
            assert_eq!(origins(text).unwrap().0.len(), 2, "{text}");
        }
        for text in ["", " , "] {
            assert_eq!(origins(text).unwrap_err(), "expected at least one");
        }
        assert!(origins("http://a,ftp://b").unwrap_err().starts_with("\"ftp://b\": expected an origin"));
        assert!(proxies("10.0.0.1/8").unwrap_err().ends_with("did you mean 10.0.0.0/8?"));
    }
}
