//! Why a request has no other answer, and how that is told.

use std::time::Duration;

use super::reply::Reply;
use crate::auth::hasher::HasherError;
use crate::auth::password::PasswordError;
use crate::auth::permission::Refusal;
use crate::head::BadEscape;
use crate::hub::{Busy, HistoryError};
use crate::identity::Denied;
use crate::model::NameError;
use crate::moderation::Failure;
use crate::protocol::{ErrorCode, Rejected};
use crate::store::RegistryError;
use crate::store::accounts::AccountError;

/// Why there is no answer to a question.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("Room not found")]
    NoRoom,
    #[error("there is no such thing")]
    NotFound,
    #[error("the query can't be read: {0}")]
    Escape(#[from] BadEscape),
    #[error("the room behind which to begin can't be one: {0}")]
    After(#[from] NameError),
    #[error("limit is a number from 1 to {0}")]
    Limit(usize),
    #[error("before and after are ids of messages, and only one of them can be said")]
    Cursor,
    #[error("send JSON as application/json, or the text of a message as text/plain")]
    ContentType,
    #[error("send JSON as application/json")]
    NotJson,
    #[error("the body is not text in UTF-8")]
    Utf8,
    #[error("the body can't be taken: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Field(&'static str),
    #[error("the {0} can't be taken: {1}")]
    Name(&'static str, NameError),
    #[error("that token is nobody's")]
    Token,
    #[error("nobody is known here by what this request shows; begin a session")]
    NoSession,
    #[error("that name and that password don't belong together")]
    WrongLogin,
    #[error("the old password is another")]
    WrongPassword,
    #[error("that password can't be taken: {0}")]
    Password(#[from] PasswordError),
    #[error("that name is taken, or looks like one that is")]
    Taken,
    #[error("{0}")]
    Conflict(&'static str),
    #[error("not so fast")]
    Rate(Duration),
    #[error("too many tries; the next one can be made in {} min", .0.as_secs() / 60 + 1)]
    Tries(Duration),
    #[error("{}", .0.sentence)]
    Rejected(Rejected),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("no answer in time: it is not known whether the message is stored; send it again with the same key")]
    Unknown,
    #[error("the server is busy; try again")]
    Busy(#[from] Busy),
    #[error("this should not have happened")]
    Internal,
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Unknown => Self::Cursor,
            HistoryError::Busy(busy) => Self::Busy(busy),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.into())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Denied(denied) => Self::Denied(denied),
            Failure::Nobody => Self::NotFound,
            Failure::Field(sentence) => Self::Field(sentence),
            Failure::Line(what, error) => Self::Name(what, error),
            Failure::Busy => Self::Busy(Busy),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Account(AccountError::Taken) => Self::Taken,
            RegistryError::Account(_) => Self::NotFound,
            RegistryError::Busy => Self::Busy(Busy),
        }
    }
}

impl From<HasherError> for ApiError {
    fn from(error: HasherError) -> Self {
        match error {
            HasherError::Busy => Self::Busy(Busy),
            HasherError::Hash(error) => {
                log::error!("{error}");
                Self::Internal
            }
        }
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        let (status, code) = match &error {
            ApiError::NoRoom | ApiError::NotFound => (404, "not_found"),
            ApiError::Escape(_) => (400, "bad_room"),
            ApiError::Limit(_) | ApiError::Cursor | ApiError::After(_) | ApiError::Field(_) => (400, "bad_request"),
            ApiError::ContentType | ApiError::NotJson => (415, "bad_type"),
            ApiError::Utf8 | ApiError::Json(_) => (400, "bad_json"),
            ApiError::Name(_, NameError::TooLong(_)) => (400, "too_long"),
            ApiError::Name(..) => (400, "bad_name"),
            ApiError::Token | ApiError::NoSession | ApiError::WrongLogin => (401, "forbidden"),
            ApiError::WrongPassword => (403, "forbidden"),
            ApiError::Password(_) => (400, "bad_password"),
            ApiError::Taken | ApiError::Conflict(_) => (409, "conflict"),
            ApiError::Rate(_) | ApiError::Tries(_) => (429, "rate_limited"),
            ApiError::Rejected(rejected) => match rejected.code {
                ErrorCode::BadJson => (400, "bad_json"),
                ErrorCode::BadType => (400, "bad_type"),
                ErrorCode::BadRoom => (400, "bad_room"),
                ErrorCode::BadName => (400, "bad_name"),
                ErrorCode::TooLong => (413, "too_long"),
                ErrorCode::RateLimited => (429, "rate_limited"),
                ErrorCode::NotFound => (404, "not_found"),
                ErrorCode::Forbidden => (403, "forbidden"),
                ErrorCode::Conflict => (409, "conflict"),
                ErrorCode::Busy => (503, "busy"),
            },
            ApiError::Denied(Denied::Busy) => (503, "busy"),
            ApiError::Denied(Denied::Name) => (403, "bad_name"),
            ApiError::Denied(Denied::Refused(why)) if why.is_hidden() => (404, "not_found"),
            ApiError::Denied(Denied::Refused(why)) if why.wants_login() => (401, "forbidden"),
            ApiError::Denied(Denied::Refused(_)) => (403, "forbidden"),
            ApiError::Unknown => (504, "busy"),
            ApiError::Busy(_) => (503, "busy"),
            ApiError::Internal => (500, "internal"),
        };
        let sentence = match &error {
            // The same as of a room that is not there.
            ApiError::Denied(Denied::Refused(why)) if why.is_hidden() => ApiError::NoRoom.to_string(),
            error => error.to_string(),
        };
        let reply = Self::problem(status, &sentence, code);
        match error {
            ApiError::Rate(wait) | ApiError::Tries(wait) => reply.with("Retry-After", (wait.as_secs() + 1).to_string()),
            _ if status == 401 => reply.with("WWW-Authenticate", "Bearer"),
            _ if status == 503 => reply.with("Retry-After", "1"),
            _ => reply,
        }
    }
}
