//! Why a command failed, and its exit code.

use std::io;
use std::path::PathBuf;

use super::control_client::ControlError;
use crate::model::reason::{Reason, Rejection};
use crate::store::{self, OpenError, ToolError};

/// The exit code for an invalid command line or environment.
const EXIT_USAGE: u8 = 2;
/// The exit code for all other errors.
const EXIT_FAILURE: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the database.
    #[error("{0}{advice}", advice = if let ToolError::Open(error) = .0 { advice(error) } else { "" })]
    Database(#[from] ToolError),
    /// An error of the database if the command itself opens it.
    #[error("{0}{advice}", advice = if let store::StartError::Open(error) = .0 { advice(error) } else { "" })]
    Store(#[from] store::StartError),
    /// An error of the server that has the database open.
    #[error(transparent)]
    Server(#[from] ControlError),
    /// The change was refused.
    #[error("{0}")]
    Rejected(Rejection),
    /// A name, a password or a token is refused; the text is for the operator.
    #[error("{0}")]
    Refused(String),
    /// The command line or the environment is invalid.
    #[error("{0}")]
    Usage(String),
    /// The output can't be written.
    #[error("failed to write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The server can't be started; the text is for the operator.
    #[error("{0}")]
    Start(String),
}

impl Error {
    /// The reason, if the change was refused.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Rejected(rejection) | Self::Server(ControlError::Refused(rejection)) => Some(rejection.reason),
            _ => None,
        }
    }

    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { EXIT_USAGE } else { EXIT_FAILURE }
    }
}

/// What the operator can try if a database can't be opened.
pub(super) fn advice(error: &OpenError) -> &'static str {
    match error {
        OpenError::File { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => "; name the database with --data or ADDA_DATA",
            io::ErrorKind::PermissionDenied => "; run the command as the owner of the file, or as root",
            _ => "",
        },
        OpenError::InUse(_) => "; stop the other process, or use another database with --data",
        _ => "",
    }
}
