//! The client of a request: the peer of the connection, or the client that a trusted proxy names.
//!
//! Runs on the connection's own thread, and is pure. Headers are used only if the peer is a trusted proxy. Only the
//! part that trusted proxies have added counts: from the right, up to the first address that is not a trusted proxy.
//! Any client may have written what stands further to the left.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Cidr;
use crate::http1::head::Head;

/// The client of a request, and whether it came by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address. An IPv4-mapped address is given as IPv4.
    pub address: IpAddr,
    /// Whether a trusted proxy says that the client connected by TLS.
    pub is_secure: bool,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// One element of a list of hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    address: IpAddr,
    is_secure: Option<bool>,
}

/// The client's hop, and how many elements are to the right of it.
type Found = (Hop, usize);

/// Whether a peer is a trusted proxy.
#[must_use]
pub fn is_proxy(address: IpAddr, proxies: &[Cidr]) -> bool {
    proxies.iter().any(|range| range.has(address))
}

/// Whether a head names another client than the peer.
#[must_use]
pub fn is_forwarded(head: &Head) -> bool {
    head.header("Forwarded").or_else(|| head.header("X-Forwarded-For")).is_some()
}

impl Client {
    /// The client of a head that came from `peer`. If a trusted proxy's headers are malformed or contradict each other,
    /// the client is the proxy itself. So no client can pass for another by a header that it sends.
    #[must_use]
    pub fn of(head: &Head, peer: SocketAddr, proxies: &[Cidr]) -> Self {
        let peer = Self { address: peer.ip().to_canonical(), is_secure: false };
        if !is_proxy(peer.address, proxies) {
            return peer;
        }
        let standard = elements(head, "Forwarded");
        let customary = elements(head, "X-Forwarded-For");
        let by_standard = client_hop(&standard, forwarded_element, proxies);
        let by_custom = client_hop(&customary, address_element, proxies);
        let found = match (standard.is_empty(), customary.is_empty()) {
            (false, false) => {
                by_standard.zip(by_custom).filter(|(one, other)| one.0.address == other.0.address).map(|(one, _)| one)
            }
            (false, true) => by_standard,
            (true, _) => by_custom,
        };
        let is_secure = found.and_then(|(hop, _)| hop.is_secure).or_else(|| {
            let depth = by_custom.filter(|_| found.is_some()).map_or(0, |(_, depth)| depth);
            proto_at(&elements(head, "X-Forwarded-Proto"), depth)
        });
        Self { address: found.map_or(peer.address, |(hop, _)| hop.address), is_secure: is_secure.unwrap_or(false) }
    }
}

/// The elements of a list, from all fields of that name. A comma in quotes also separates elements: no accepted value
/// contains a comma. So an unmatched quote that a client sends spoils only the client's own element.
fn elements<'a>(head: &'a Head, name: &'a str) -> Vec<&'a [u8]> {
    let parts = head.headers_named(name).flat_map(|list| list.split(|b| *b == b','));
    // Empty elements are ignored (RFC 9110, section 5.6.1.2).
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).collect()
}

/// The first hop from the right that is not a trusted proxy, or the leftmost if all of them are.
fn client_hop(elements: &[&[u8]], read: fn(&str) -> Option<Hop>, proxies: &[Cidr]) -> Option<Found> {
    let mut found = None;
    for (depth, element) in elements.iter().rev().enumerate() {
        let hop = read(std::str::from_utf8(element).ok()?)?;
        found = Some((hop, depth));
        if !is_proxy(hop.address, proxies) {
            break;
        }
    }
    found
}

/// The scheme at that depth from the right, or the leftmost if the list is shorter.
fn proto_at(elements: &[&[u8]], depth: usize) -> Option<bool> {
    let at = elements.len().checked_sub(1)?.saturating_sub(depth);
    proto(std::str::from_utf8(elements[at]).ok()?)
}

fn proto(text: &str) -> Option<bool> {
    let is = |scheme: &str| text.eq_ignore_ascii_case(scheme);
    if is("https") || is("wss") { Some(true) } else { (is("http") || is("ws")).then_some(false) }
}

/// An element of `X-Forwarded-For`.
fn address_element(text: &str) -> Option<Hop> {
    Some(Hop { address: node(text)?, is_secure: None })
}

/// An element of `Forwarded` (RFC 7239, section 4).
fn forwarded_element(text: &str) -> Option<Hop> {
    let mut address = None;
    let mut is_secure = None;
    for pair in text.split(';') {
        let (name, value) = pair.trim().split_once('=')?;
        let value = unquoted(value)?;
        if name.eq_ignore_ascii_case("for") {
            // A repeated parameter is an error.
            if address.replace(node(value)?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case("proto") && is_secure.replace(proto(value)).is_some() {
            return None;
        }
    }
    Some(Hop { address: address?, is_secure: is_secure.flatten() })
}

/// A token, or the text between quotes. A text with escapes is not accepted.
fn unquoted(value: &str) -> Option<&str> {
    let inside = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    (!inside.contains(['"', '\\'])).then_some(inside)
}

/// The address of a node, with or without a port (RFC 7239, section 6). `None` for `unknown` and obfuscated names.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_port).map(|address| IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
}

/// A port number, or an obfuscated port.
fn is_port(text: &str) -> bool {
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    text.parse::<u16>().is_ok() || text.strip_prefix('_').is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1";

    /// Checks which client the fields name that came from a trusted peer. `?` stands for the peer itself, and a `+`
    /// behind the address for TLS.
    #[track_caller]
    fn asks(fields: &str, expected: &str) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let (head, _) = crate::http1::head::parse(head.as_bytes()).unwrap().unwrap();
        let proxies: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"].iter().map(|range| range.parse().unwrap()).collect();
        let said = |peer: &str, proxies: &[Cidr]| {
            let client = Client::of(&head, SocketAddr::new(peer.parse().unwrap(), 1), proxies);
            let who = if client.address.to_string() == PEER { "?".into() } else { client.to_string() };
            who + if client.is_secure { "+" } else { "" }
        };
        assert_eq!(said(PEER, &proxies), expected, "{fields}");
        assert_eq!(said("::ffff:10.0.0.1", &proxies), expected, "{fields}");
        assert_eq!(said("192.0.2.9", &proxies), "192.0.2.9", "an untrusted peer sends {fields}");
        assert_eq!(said(PEER, &[]), "?", "no proxy is trusted: {fields}");
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        for (fields, expected) in [
            ("", "?"),
            ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            ("x-forwarded-for: 192.0.2.1:1234\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]:80\r\n", "2001:db8::1"),
            ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1"),
            ("Forwarded: for=192.0.2.1\r\n", "192.0.2.1"),
            ("Forwarded: For=\"192.0.2.1:_x\";proto=https;by=_me\r\n", "192.0.2.1+"),
            ("Forwarded: for=\"[2001:db8::1]:4711\" ; Proto=HTTP\r\n", "2001:db8::1"),
            ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1+"),
            ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: tls\r\n", "192.0.2.1"),
            ("X-Forwarded-Proto: https\r\n", "?+"),
        ] {
            asks(fields, expected);
        }
    }

    #[test]
    fn only_elements_added_by_trusted_proxies_count() {
        for (fields, expected) in [
            ("X-Forwarded-For: 8.8.8.8, 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 8.8.8.8, 192.0.2.1, 10.1.1.1,, fd00::7\r\n", "192.0.2.1"),
            ("X-Forwarded-For: \u{fffd}nonsense, 192.0.2.1, 10.1.1.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 10.2.2.2, 10.1.1.1\r\n", "10.2.2.2"),
            ("Forwarded: for=8.8.8.8;proto=https, for=192.0.2.1;proto=http, for=10.1.1.1;proto=https\r\n", "192.0.2.1"),
            ("Forwarded: for=\", for=192.0.2.1\r\n", "192.0.2.1"),
            // The outermost proxy knows the client's scheme; the proxies behind it speak plain HTTP with each other.
            ("X-Forwarded-For: 192.0.2.1, 10.1.1.1\r\nX-Forwarded-Proto: https, http\r\n", "192.0.2.1+"),
            ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https, http\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 192.0.2.1, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1+"),
        ] {
            asks(fields, expected);
        }
    }

    #[test]
    fn malformed_headers_make_the_proxy_the_client() {
        for value in [
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "192.0.2.1:80:80",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "fe80::1%eth0",
            "192.0.2.1 192.0.2.2",
            "192.0.2.1, nonsense",
            "192.0.2.1, unknown, 10.1.1.1",
        ] {
            asks(&format!("X-Forwarded-For: {value}\r\n"), "?");
            let values: Vec<String> = value.split(", ").map(|value| format!("for=\"{value}\"")).collect();
            asks(&format!("Forwarded: {}\r\n", values.join(", ")), "?");
        }
        for value in [
            "192.0.2.1",
            "for",
            "for=",
            "by=192.0.2.1",
            "for=192.0.2.1;",
            "for=192.0.2.1;for=192.0.2.1",
            "for=192.0.2.1;proto=http;proto=https",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for=\"192.0.2.1\\\"\"",
            // A host with a comma, which a careless proxy puts into quotes: the client wrote what is behind it.
            "for=192.0.2.1;host=\"x,for=8.8.8.8;a=\"",
            "for=192.0.2.1;host=\"x,for=8.8.8.8\"",
        ] {
            asks(&format!("Forwarded: {value}\r\n"), "?");
        }
    }

    #[test]
    fn two_headers_must_agree() {
        let both = |one: &str, other: &str| format!("Forwarded: for={one}\r\nX-Forwarded-For: {other}\r\n");
        asks(&both("192.0.2.1;proto=https", "192.0.2.1"), "192.0.2.1+");
        asks(&both("8.8.8.8", "192.0.2.1"), "?");
        asks(&both("192.0.2.1", "8.8.8.8"), "?");
        asks(&both("nobody", "192.0.2.1"), "?");
    }
}
