//! The settings of the server, as values. The flags are parsed in `cli`; nothing else knows them. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::Limits;
use crate::model::role::{Accounts, Registration};

/// All parameters of [`start`](crate::start).
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 picks a free one (`--listen`).
    pub listen: SocketAddr,
    /// Where the data is stored (`--data`).
    pub data: Data,
    /// What a power cut may cost (`--durability`).
    pub durability: Durability,
    /// How much is kept (`--retention`, `--max-data`).
    pub keep: Keep,
    /// Pages besides our own that may open a WebSocket here (`--origin`).
    pub origins: Vec<Origin>,
    /// Proxies whose headers about the client's address are trusted (`--trusted-proxy`).
    pub proxies: Vec<Cidr>,
    /// Maximum number of connections, if the operator wants fewer than the system allows (`--max-connections`).
    pub connections_max: Option<u64>,
    /// Maximum number of connections of one address, IPv6 by /64; 0 for no limit (`--max-per-ip`).
    pub connections_per_address_max: u32,
    /// Whether an account is required (`--accounts`).
    pub accounts: Accounts,
    /// How an account is created (`--registration`).
    pub registration: Registration,
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
            proxies: Vec::new(),
            connections_max: None,
            connections_per_address_max: 0,
            accounts: Accounts::default(),
            registration: Registration::default(),
            limits: Limits::default(),
        }
    }
}

/// Where the data is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In a file, which is created if it does not exist.
    File(PathBuf),
    /// In memory, until the process ends.
    Memory,
}

/// What a power cut may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// Nothing that was acked: every commit is synced (`synchronous=FULL`).
    Full,
    /// The last moments; a crash of the process alone costs nothing (`synchronous=NORMAL`).
    Normal,
}

/// How much is kept; the oldest messages are deleted first. Without limits, all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Maximum age of a message.
    pub retention: Option<Duration>,
    /// Approximate maximum bytes of the database.
    pub bytes_max: Option<u64>,
}

impl Keep {
    /// The time before which a message is too old, in milliseconds since 1970; 0 without a maximum age.
    #[must_use]
    pub fn since_ms(self, now_ms: u64) -> u64 {
        let ms = |retention: Duration| u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        self.retention.map_or(0, |retention| now_ms.saturating_sub(ms(retention)))
    }
}

/// A range of addresses (CIDR, RFC 4632). A range of IPv4-mapped addresses becomes a range of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(IpNet);

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// It is neither an address nor an address with a prefix length.
    #[error("expected a range of addresses like 10.0.0.0/8, fd00::/8 or 127.0.0.1")]
    Malformed,
    /// The address has bits beyond the prefix length, so either of them may be wrong.
    #[error("the address has bits beyond the prefix length; did you mean {0}?")]
    Bits(IpNet),
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let text = text.trim();
        // The standard library refuses octets with leading zeros, which other programs read as octal.
        let address: IpAddr = text.split('/').next().unwrap_or(text).parse().map_err(|_| CidrError::Malformed)?;
        let given: IpNet = match text.contains('/') {
            true => text.parse().map_err(|_| CidrError::Malformed)?,
            false => address.into(),
        };
        let canonical = match given.addr().to_canonical() {
            IpAddr::V4(address) => {
                given.prefix_len().checked_sub(given.max_prefix_len() - 32).map(|length| (address, length))
            }
            IpAddr::V6(_) => None,
        };
        let range = canonical.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(given);
        if range.addr() == range.network() { Ok(Self(range)) } else { Err(CidrError::Bits(range.trunc())) }
    }
}

impl Cidr {
    /// Whether the range contains an address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// The origin of a page: scheme, host and port (RFC 6454, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an origin like https://chat.example or http://192.168.1.5:3000")]
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

impl fmt::Display for Origin {
    /// As browsers serialise it (RFC 6454, section 6.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port == self.port_default() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Origin {
    /// Whether the Origin field of a request allows it to act. Programs send no Origin. The origin of a page must be
    /// the host of the request, or an origin that the operator has named. If the request came by TLS, a page that was
    /// loaded without TLS is foreign: an attacker on the path could have written it.
    #[must_use]
    pub fn is_allowed(given: Option<&str>, host: Option<&str>, is_secure: bool, named: &[Self]) -> bool {
        let Some(given) = given else { return true };
        given.parse::<Self>().is_ok_and(|origin| {
            let is_own = || (!is_secure || origin.is_secure()) && host.is_some_and(|host| origin.is_served_by(host));
            named.contains(&origin) || is_own()
        })
    }

    /// Whether a page of this origin was served by the host of a request (its Host header). A Host without a port means
    /// the default port of the page's scheme, which a proxy may have removed.
    #[must_use]
    pub fn is_served_by(&self, host_header: &str) -> bool {
        split_host(host_header)
            .is_some_and(|(host, port)| host == self.host && port.unwrap_or(self.port_default()) == self.port)
    }

    fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    fn port_default(&self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }
}

/// `host[:port]` in lower case (RFC 3986, section 3.2). The host is a DNS name or an address; `None` for anything else.
/// A colon without a port counts as no port.
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
    fn a_page_may_act_on_the_host_that_served_it() {
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
    fn over_tls_a_page_loaded_without_tls_is_foreign() {
        for (origin, is_secure, welcome) in [
            ("https://chat.example", true, true),
            ("http://chat.example", true, false),
            ("http://chat.example", false, true),
            ("https://chat.example", false, true),
            ("http://friend.example", true, true),
            ("https://chat.example:8443", true, false),
        ] {
            let named = ["http://friend.example".parse().unwrap()];
            assert_eq!(Origin::is_allowed(Some(origin), Some("chat.example"), is_secure, &named), welcome, "{origin}");
        }
    }

    #[test]
    fn an_origin_is_serialised_as_in_a_browser() {
        for (given, said) in [
            ("HTTPS://Chat.example:443/", "https://chat.example"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://a:443", "http://a:443"),
        ] {
            assert_eq!(given.parse::<Origin>().unwrap().to_string(), said);
        }
    }

    #[test]
    fn a_range_contains_the_addresses_with_its_prefix() {
        for (range, address, has) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1/128", "::1", true),
        ] {
            assert_eq!(range.parse::<Cidr>().unwrap().has(address.parse().unwrap()), has, "{address} in {range}");
        }
        for text in [
            "",
            "10",
            "010.0.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "::/129",
            "/8",
            "a/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrError::Malformed), "{text}");
        }
        assert!("10.1.2.3/8".parse::<Cidr>().unwrap_err().to_string().ends_with("10.0.0.0/8?"));
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused() {
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
