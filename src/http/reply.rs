//! The reply of a handler. Handlers make it, and `tiny_http` sends it.

use std::borrow::Cow;
use std::io::Cursor;

use serde::Serialize;

use super::server::Context;
use super::slow_lane::{Lane, Payer};
use crate::model::reason::{Reason, Rejection};

/// The second step of a request in a slow lane.
pub(super) type Rest = Box<dyn FnOnce(&Context) -> Reply + Send>;

/// The reply of a handler: a complete response in memory. The relay adds default header fields to every response: not
/// to store it, not to frame it, and not to treat it as a page. A handler can override them.
pub(crate) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) body: Cow<'static, [u8]>,
    /// The reason, if it is a refusal.
    pub(super) reason: Option<Reason>,
    /// If set, this reply has only the header fields of the reply that the second step returns in its lane.
    pub(super) later: Option<(Lane, Payer, Rest)>,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        let mut reply = Self::empty(status).with("Content-Type", content_type);
        reply.body = body.into();
        reply
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::with_capacity(12), body: Cow::Borrowed(&[]), reason: None, later: None }
    }

    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(200, "application/json", body),
            Err(_) => Self::from(Reason::Internal),
        }
    }

    /// A value under the key `data`.
    pub(super) fn data(status: u16, data: impl Serialize) -> Self {
        #[derive(Serialize)]
        struct Data<T> {
            data: T,
        }
        Self { status, ..Self::json(&Data { data }) }
    }

    /// Adds a header field. The value must come from this program and never from a request: `tiny_http` would write a
    /// line end in it as it is.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        debug_assert!(value.bytes().all(|b| matches!(b, b' '..=b'~')), "{name}");
        self.headers.push((name, value));
        self
    }

    /// Sets the session's cookie, if there is one.
    pub(super) fn with_cookie(self, cookie: Option<String>) -> Self {
        match cookie {
            Some(cookie) => self.with("Set-Cookie", cookie),
            None => self,
        }
    }

    /// A reply that takes long and is made on another thread.
    pub(super) fn later(
        lane: Lane,
        payer: Payer,
        rest: impl FnOnce(&Context) -> Result<Self, Rejection> + Send + 'static,
    ) -> Self {
        let rest = |context: &Context| rest(context).unwrap_or_else(Self::from);
        Self { later: Some((lane, payer, Box::new(rest))), ..Self::empty(202) }
    }

    /// This reply with the header fields that were set before it was made.
    pub(super) fn under(mut self, head: Self) -> Self {
        self.headers.extend(head.headers);
        self
    }

    pub(super) fn into_response(self) -> tiny_http::Response<Cursor<Cow<'static, [u8]>>> {
        let headers = self.headers.iter().filter_map(|(name, value)| {
            // The same check as in `with`, for builds without assertions.
            let is_clean = value.bytes().all(|b| matches!(b, b' '..=b'~'));
            tiny_http::Header::from_bytes(*name, value.as_bytes()).ok().filter(|_| is_clean)
        });
        let length = self.body.len();
        let headers = headers.collect();
        let body = Cursor::new(self.body);
        tiny_http::Response::new(tiny_http::StatusCode(self.status), headers, body, Some(length), None)
            .with_chunked_threshold(usize::MAX)
    }
}
