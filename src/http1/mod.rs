//! Parsing and writing of HTTP/1 messages, as far as it happens in front of `tiny_http`.

pub mod forwarded;
pub mod head;
pub mod origin;
pub mod response;
