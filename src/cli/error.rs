//! Why a command failed.

use std::io;
use std::path::PathBuf;

use super::control_client::ControlError;
use crate::model::reason::{Reason, Rejection};
use crate::store::{StartError, ToolError};

/// Why a tool failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the database.
    #[error(transparent)]
    Database(#[from] ToolError),
    /// An error of the database if the command itself opens it.
    #[error(transparent)]
    Store(#[from] StartError),
    /// An error of the server that has the database open.
    #[error(transparent)]
    Server(#[from] ControlError),
    /// The change was refused.
    #[error("{0}")]
    Rejected(Rejection),
    /// A name, a password or a token is refused; the text is for the operator.
    #[error("{0}")]
    Refused(String),
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// The output can't be written.
    #[error("failed to write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Error {
    /// The reason, if the change was refused.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected(rejection) | Self::Server(ControlError::Refused(rejection)) => Some(rejection.reason),
            _ => None,
        }
    }
}
