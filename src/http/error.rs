//! Why a request has no other answer, and how that is told.

use std::time::Duration;

use super::reply::Reply;
use crate::auth::password::{HashError, PasswordError};
use crate::head::BadEscape;
use crate::model::NameError;
use crate::model::reason::{Reason, Rejection};
use crate::store::ReadError;

/// A rejection that becomes a response.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct ApiError(pub(super) Rejection);

impl ApiError {
    /// A name that can't be one; `what` is the field.
    pub(super) fn name(what: &str, error: NameError) -> Self {
        let reason = Reason::of_name(error, Reason::BadName);
        Self(reason.because(format!("the {what} can't be taken: {error}")))
    }

    /// A number out of its range.
    pub(super) fn limit(most: usize) -> Self {
        Self(Reason::BadQuery.because(format!("limit is a number from 1 to {most}")))
    }

    pub(super) fn cursor() -> Self {
        Self(Reason::BadQuery.because("before and after are ids of messages, and only one of them can be said"))
    }

    /// Too many requests; the next one may come after a time.
    pub(super) fn rate(wait: Duration) -> Self {
        Self(Rejection::from(Reason::RateLimited).retry_after(ms(wait)))
    }

    /// Too many attempts, of which the next may come after minutes.
    pub(super) fn attempts(wait: Duration) -> Self {
        let minutes = wait.as_secs() / 60 + 1;
        let sentence = format!("too many tries; the next one can be made in {minutes} min");
        Self(Reason::TooManyAttempts.because(sentence).retry_after(ms(wait)))
    }

    pub(super) fn reason(&self) -> Reason {
        self.0.reason
    }
}

fn ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self(rejection)
    }
}

impl From<Reason> for ApiError {
    fn from(reason: Reason) -> Self {
        Self(reason.into())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Reason::from(error).into()
    }
}

impl From<BadEscape> for ApiError {
    fn from(error: BadEscape) -> Self {
        Self(Reason::BadEscape.because(format!("the query can't be read: {error}")))
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self(Reason::BadQuery.because(format!("the room behind which to begin can't be one: {error}")))
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        let reason = if error.is_data() { Reason::MalformedField } else { Reason::BadJson };
        Self(reason.because(format!("the body can't be taken: {error}")))
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        Self(Reason::BadPassword.because(format!("that password can't be taken: {error}")))
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        log::error!("{error}");
        Reason::Internal.into()
    }
}

impl From<ApiError> for Reply {
    fn from(ApiError(rejection): ApiError) -> Self {
        let status = rejection.reason.status();
        let reply = Self::rejected(&rejection);
        match (status, rejection.retry_ms) {
            (401, _) => reply.with("WWW-Authenticate", "Bearer"),
            (503, _) => reply.with("Retry-After", "1"),
            (429, Some(retry_ms)) => reply.with("Retry-After", (retry_ms / 1_000 + 1).to_string()),
            _ => reply,
        }
    }
}
