//! What an operator can set, as values: the flags are read in `cli`, and nothing else knows how.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::Limits;

/// Everything that [`start`](crate::start) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 picks a free one (`--listen`).
    pub listen: SocketAddr,
    /// Where messages are kept (`--data`).
    pub data: Data,
    /// What a power cut may cost (`--durability`).
    pub durability: Durability,
    /// How much is kept (`--retention`, `--max-data`).
    pub keep: Keep,
    /// Pages besides our own that may open a WebSocket here (`--origin`).
    pub origins: Vec<Origin>,
    /// Connections at once, where the operator wants fewer than the system allows (`--max-connections`).
    pub connections_max: Option<u64>,
    /// Connections at once from one address, IPv6 by /64; 0 for no limit (`--max-per-ip`).
    pub connections_per_address_max: u32,
    /// The bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 3000)),
            data: Data::File("adda.db".into()),
            durability: Durability::Full,
            keep: Keep { retention: Some(Duration::from_secs(90 * 86_400)), bytes_max: Some(1 << 30) },
            origins: Vec::new(),
            connections_max: None,
            connections_per_address_max: 0,
            limits: Limits::default(),
        }
    }
}

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In a file, which is made where it is not.
    File(PathBuf),
    /// In memory, until the process ends.
    Memory,
}

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was acked: every commit is synced (`synchronous=FULL`).
    Full,
    /// The last moments; a crash of the process alone costs nothing (`synchronous=NORMAL`).
    Normal,
}

/// How much is kept; the oldest messages go first. Without bounds, all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// How old a message may be.
    pub retention: Option<Duration>,
    /// Bytes of the database, about.
    pub bytes_max: Option<u64>,
}

impl Keep {
    /// The moment before which a message is too old, in milliseconds since 1970; 0 where none is.
    #[must_use]
    pub fn since_ms(self, now_ms: u64) -> u64 {
        let ms = |retention: Duration| u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        self.retention.map_or(0, |retention| now_ms.saturating_sub(ms(retention)))
    }
}

/// Where a page came from: scheme, host and port (RFC 6454, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an origin looks like https://chat.example or http://192.168.1.5:3000")]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (scheme, rest) = text.split_once("://").ok_or(OriginError)?;
        let scheme = scheme.to_ascii_lowercase();
        let port_default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(OriginError),
        };
        let (host, port) = split_host(rest.strip_suffix('/').unwrap_or(rest)).ok_or(OriginError)?;
        Ok(Self { scheme, host, port: port.unwrap_or(port_default) })
    }
}

impl Origin {
    /// Whether what a request says of its Origin lets it act here. Programs send none. A page's must be ours, of the host
    /// that the request is for, or one that the operator named.
    #[must_use]
    pub fn is_welcome(given: Option<&str>, host: Option<&str>, named: &[Self]) -> bool {
        let Some(given) = given else { return true };
        given
            .parse::<Self>()
            .is_ok_and(|origin| named.contains(&origin) || host.is_some_and(|host| origin.is_served_by(host)))
    }

    /// Whether a page of this origin was served by the host that a request names (its Host header).
    /// A Host without a port means the default one of the page's scheme, which a proxy may have taken off.
    #[must_use]
    pub fn is_served_by(&self, host_header: &str) -> bool {
        let port_default = if self.scheme == "https" { 443 } else { 80 };
        split_host(host_header)
            .is_some_and(|(host, port)| host == self.host && port.unwrap_or(port_default) == self.port)
    }
}

/// `host[:port]` in lower case (RFC 3986, section 3.2), with a host as the DNS has it or an address; nothing where
/// it is not that. A colon without a port behind it is none.
pub fn split_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text[colon..].contains(']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, ""),
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    fits.then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_talk_to_the_host_that_served_it() {
        for (origin, host, same) in [
            ("http://localhost:3000", "localhost:3000", true),
            ("http://LocalHost:3000", "localhost:3000", true),
            ("https://chat.example", "chat.example", true),
            ("https://chat.example", "chat.example:443", true),
            ("http://chat.example", "chat.example:80", true),
            ("http://[::1]:3000", "[::1]:3000", true),
            ("http://localhost:3001", "localhost:3000", false),
            ("https://chat.example", "chat.example:80", false),
            ("http://evil.example", "chat.example", false),
            ("http://chat.example.evil.example", "chat.example", false),
            ("http://localhost:3000", "", false),
        ] {
            assert_eq!(origin.parse::<Origin>().unwrap().is_served_by(host), same, "{origin} at {host}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "null",
            "",
            "chat.example",
            "file://x",
            "http://",
            "http://a b",
            "http://a:99999",
            "http://a/path",
            "http://[x]",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text}");
        }
    }
}
