//! The input of a handler: a request whose head and body `tiny_http` has read.

use std::net::{IpAddr, Ipv4Addr};

use super::operation::parameter;
use super::server::{CLIENT_HEADER, Context, SECURE_HEADER};
use crate::config::Origin;
use crate::http1::head::{BadEscape, query_value};

/// The input of a handler.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The path of its route, with `{name}` for each parameter. Empty before the request is routed.
    pub(super) template: &'static str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a [tiny_http::Header],
    pub(super) body: &'a [u8],
    pub(super) context: &'a Context,
}

impl Request<'_> {
    /// The client's address. The relay always passes it; tests omit it.
    pub(super) fn address(&self) -> IpAddr {
        let given = self.header(CLIENT_HEADER).and_then(|address| address.parse().ok());
        given.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Whether the client uses TLS, as far as the server knows.
    pub(super) fn is_secure(&self) -> bool {
        self.header(SECURE_HEADER).is_some()
    }

    /// Whether the request may write. A page may write only if its origin is allowed.
    pub(super) fn may_write(&self) -> bool {
        let mut given = self.headers_named("Origin");
        let origin = given.next();
        given.next().is_none()
            && Origin::is_allowed(origin, self.header("Host"), self.is_secure(), &self.context.settings.origins)
    }

    /// The page's origin, if the operator allowed it.
    pub(super) fn named_origin(&self) -> Option<&Origin> {
        let given: Origin = self.header("Origin")?.parse().ok()?;
        self.context.settings.origins.iter().find(|named| **named == given)
    }

    /// The media type of the body without its parameters, in lower case.
    pub(super) fn media_type(&self) -> String {
        let given = self.header("Content-Type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    pub(super) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers_named(name).next()
    }

    pub(super) fn headers_named(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
    }

    pub(super) fn query_value(&self, name: &str) -> Option<Result<String, BadEscape>> {
        query_value(self.query?, name)
    }

    /// A parameter of the path, still percent-encoded. Empty if the route has no such parameter.
    pub(super) fn parameter(&self, name: &str) -> &str {
        let mut parts = self.template.split('/').zip(self.path.split('/'));
        parts.find(|(part, _)| parameter(part) == Some(name)).map_or("", |(_, value)| value)
    }
}
