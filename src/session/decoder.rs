//! Decodes messages of a client into commands for the hub, and applies the rate limits.

use std::time::Instant;

use crate::hub::Inbound;
use crate::limits::Limits;
use crate::model::reason::Reason;
use crate::protocol::{self, Rejected};
use crate::rate::{RateLimiter, TokenBucket};
use crate::wire::CloseReason;

/// Turns messages into commands for the hub.
pub trait Decoder {
    /// Decodes a text message.
    fn text(&mut self, text: &str) -> Inbound;
    /// Decodes a binary message.
    fn binary(&mut self, bytes: &[u8]) -> Inbound;
    /// Checks a ping or a pong. `tungstenite` answers it; the decoder may close the connection.
    fn control(&mut self) -> Option<Inbound>;
}

/// The decoder of the chat protocol.
#[must_use]
pub fn chat(limits: &Limits, rate_limiter: RateLimiter) -> Box<dyn Decoder + '_> {
    Box::new(Chat {
        limits,
        rate_limiter,
        controls: TokenBucket::new(limits.rate_per_s, limits.rate_burst, Instant::now()),
    })
}

/// Decodes JSON or plain text, and applies the rate limit.
struct Chat<'a> {
    limits: &'a Limits,
    /// Shared with the user's other connections.
    rate_limiter: RateLimiter,
    /// The rate limit of pings and pongs, which is this connection's own.
    controls: TokenBucket,
}

impl Chat<'_> {
    fn refuse(&mut self, rejected: Rejected) -> Inbound {
        if self.rate_limiter.is_abuse(Instant::now()) {
            Inbound::Close(CloseReason::Abuse)
        } else {
            Inbound::Rejected(rejected)
        }
    }

    fn checked(&mut self, decoded: Result<protocol::ClientFrame, Rejected>) -> Inbound {
        if !self.rate_limiter.is_unlimited()
            && let Err(wait) = self.rate_limiter.take(Instant::now())
        {
            let retry_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
            let rate_per_s = self.limits.rate_per_s;
            let sentence =
                format!("rate limit exceeded: at most {rate_per_s} messages per second, retry in {retry_ms} ms");
            let limited = Reason::RateLimited.because(sentence).retry_after(retry_ms);
            let nonce = match decoded {
                // A retry of a stored message is not refused here. Otherwise its author would think that the message is
                // not stored.
                Ok(frame) if frame.may_be_a_retry() && !self.rate_limiter.is_abuse(Instant::now()) => {
                    return Inbound::Limited(frame, Box::new(limited));
                }
                Ok(frame) => frame.nonce,
                Err(rejected) => rejected.nonce,
            };
            return self.refuse(Rejected::new(limited, nonce));
        }
        match decoded {
            Ok(frame) => Inbound::Frame(frame),
            Err(rejected) => self.refuse(rejected),
        }
    }
}

impl Decoder for Chat<'_> {
    fn text(&mut self, text: &str) -> Inbound {
        let decoded = protocol::decode(text, self.limits);
        self.checked(decoded)
    }

    fn binary(&mut self, _: &[u8]) -> Inbound {
        self.checked(Err(Rejected::new(Reason::BinaryFrame, None)))
    }

    fn control(&mut self) -> Option<Inbound> {
        let now = Instant::now();
        let over = self.controls.take(now).is_err() && self.rate_limiter.is_abuse(now);
        over.then_some(Inbound::Close(CloseReason::Abuse))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use uuid::Uuid;

    use super::*;
    use crate::limits::STRIKES_MAX;
    use crate::model::UserId;
    use crate::rate::RateLimiters;

    #[test]
    fn many_refused_messages_are_abuse() {
        let limits = Limits { rate_per_s: 1, rate_burst: 2, ..Limits::default() };
        let rate_limiter =
            RateLimiters::new(&limits).of_user(UserId(Uuid::nil()), IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now());
        let mut chat = chat(&limits, rate_limiter);
        assert!(matches!(chat.text("one"), Inbound::Frame(_)));
        assert!(matches!(chat.text("{"), Inbound::Rejected(_)));
        let Inbound::Rejected(limited) = chat.text(r#"{"type":"typing","nonce":"n"}"#) else { panic!("not limited") };
        assert_eq!((limited.rejection.reason, limited.nonce.is_some()), (Reason::RateLimited, true));
        assert!(limited.rejection.retry_ms.is_some_and(|ms| ms > 0 && ms <= 1_001));
        // The message may already be stored, so only the store can answer it.
        let Inbound::Limited(_, limited) = chat.text(r#"{"content":"x","nonce":"n"}"#) else { panic!("not limited") };
        assert_eq!(limited.reason, Reason::RateLimited);
        let ends = (0..2 * STRIKES_MAX).position(|_| matches!(chat.text("more"), Inbound::Close(CloseReason::Abuse)));
        // One strike is forgiven for each second that the test takes.
        let expected = STRIKES_MAX as usize - 3..STRIKES_MAX as usize + 20;
        assert!(ends.is_some_and(|ends| expected.contains(&ends)), "{ends:?}");
    }
}
