//! Refusals over HTTP, and how they become replies. Pure functions on the threads of handlers; it logs only internal
//! errors.

use std::time::Duration;

use super::reply::Reply;
use crate::auth::password::{HashError, PasswordError};
use crate::http1::head::BadEscape;
use crate::model::reason::{Reason, Rejection};
use crate::protocol::http_error;
use crate::store::change::Done;

/// A `limit` out of its range.
pub(super) fn bad_limit(most: usize) -> Rejection {
    Reason::BadQuery.because(format!("limit must be a number from 1 to {most}"))
}

pub(super) fn bad_cursor() -> Rejection {
    Reason::BadQuery.because("before, after and around must be message ids, and only one of them can be given")
}

/// The rate limit is exceeded; the next request may come after `wait`.
pub(super) fn rate_limited(wait: Duration) -> Rejection {
    Reason::RateLimited.because(format!("rate limit exceeded, retry in {} s", wait.as_secs() + 1)).retry_in(wait)
}

/// Too many attempts. The wait may be minutes long.
pub(super) fn too_many_attempts(wait: Duration) -> Rejection {
    let minutes = wait.as_secs() / 60 + 1;
    let sentence = format!("too many attempts, retry in {minutes} min");
    Reason::TooManyAttempts.because(sentence).retry_in(wait)
}

impl From<BadEscape> for Rejection {
    fn from(error: BadEscape) -> Self {
        Reason::BadEscape.because(format!("invalid query: {error}"))
    }
}

impl From<PasswordError> for Rejection {
    fn from(error: PasswordError) -> Self {
        Reason::BadPassword.because(error.to_string())
    }
}

impl From<HashError> for Rejection {
    fn from(error: HashError) -> Self {
        log::error!("{error}");
        Reason::Internal.into()
    }
}

/// A change was applied, but its result is of another kind than the request's. It is a fault of the server.
pub(super) fn unexpected(done: &Done) -> Rejection {
    log::error!("unexpected result of a change: {done:?}");
    Reason::Internal.into()
}

impl<T: Into<Rejection>> From<T> for Reply {
    fn from(rejection: T) -> Self {
        let Rejection { reason, sentence, retry_ms } = rejection.into();
        let reply = Self::new(reason.status(), "application/json", http_error(reason, &sentence));
        let reply = Self { reason: Some(reason), ..reply };
        match (reason.status(), retry_ms) {
            (401, _) => reply.with("WWW-Authenticate", "Bearer"),
            (503, _) => reply.with("Retry-After", "1"),
            (429, Some(retry_ms)) => reply.with("Retry-After", (retry_ms / 1_000 + 1).to_string()),
            _ => reply,
        }
    }
}
