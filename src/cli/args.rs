//! The commands and their flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::Error;
use super::export::{Export, Format};
use super::output::ListFormat;
use super::serve::Serve;
use super::values::{expiry, label, role, room, session_key, since, username};
use crate::model::role::Role;
use crate::model::{RoomId, Timestamp, Username};
use crate::store::accounts::SessionId;

/// A chat server in one binary: browser chat, rooms, and room listings for curl.
#[derive(Debug, Parser)]
#[command(name = "adda", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; nothing is `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub serve: Serve,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also without this word)
    Serve(Serve),
    /// Write the messages of a database, oldest first; the server may be running
    Export(ExportFlags),
    /// Copy a database to a new file; the server may be running
    Backup(BackupFlags),
    /// Look whether a database is sound, and change nothing; exit code 1 where it is not
    Doctor(DatabaseFlag),
    /// Make, change, list and remove accounts; the server may be running
    User(UserFlags),
    /// Make, list and end tokens, by which programs come in; the server may be running
    Token(TokenFlags),
}

/// Which database a tool works on.
#[derive(Debug, Clone, Args)]
pub struct DatabaseFlag {
    /// The database
    #[arg(long, global = true, env = "ADDA_DATA", value_name = "FILE", default_value = "adda.db")]
    pub data: PathBuf,
}

impl DatabaseFlag {
    /// The database's file.
    ///
    /// # Errors
    /// Where the flag names no file.
    pub fn file(&self) -> Result<&Path, Error> {
        if self.data.as_os_str() == ":memory:" {
            let sentence = "--data is :memory:, which no command can read or change; name a file";
            return Err(Error::Usage(sentence.to_owned()));
        }
        Ok(&self.data)
    }
}

/// The flags of `user`.
#[derive(Debug, Clone, Args)]
pub struct UserFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,
    #[command(subcommand)]
    pub command: UserCommand,
}

/// The flags of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What `adda user` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make an account; its password is asked for, or is a line of standard input
    Add {
        /// What they are called
        #[arg(value_parser = username)]
        name: Username,
        /// What they may do: user or admin
        #[arg(long, value_name = "ROLE", default_value = "user", value_parser = role)]
        role: Role,
    },
    /// Set a password, which is asked for, or is a line of standard input; logins by the old one end
    Passwd {
        /// Whose
        #[arg(value_parser = username)]
        name: Username,
    },
    /// Make somebody an admin, or a user again
    Role {
        /// Whom
        #[arg(value_parser = username)]
        name: Username,
        /// What they may do: user or admin
        #[arg(value_parser = role)]
        role: Role,
    },
    /// List the accounts
    List {
        /// For people (text), or a JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Remove an account with its sessions and tokens; its messages stay
    Remove {
        /// Whose
        #[arg(value_parser = username)]
        name: Username,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// What `adda token` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once; where there is no such account, one without a password is made
    Create {
        /// Who its bearer is
        #[arg(value_parser = username)]
        name: Username,
        /// What it is for, to tell it from others
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = label)]
        label: String,
        /// How long it is good, such as 90d; without this it is for good
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<Duration>,
    },
    /// List the tokens, never what they are
    List {
        /// Only of this account
        #[arg(value_parser = username)]
        name: Option<Username>,
        /// For people (text), or a JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Make the tokens of all guests invalid, by another key; they come in as new guests
    RotateGuests,
    /// End a token
    Revoke {
        /// Its number in the list
        #[arg(value_name = "ID", value_parser = session_key)]
        id: SessionId,
    },
}

/// The flags of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,

    /// Only this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,

    /// The frames as members got them (ndjson), or lines for people (text)
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_enum)]
    pub format: Format,

    /// Only from this time on: 2026-01-31, 2026-01-31T18:00:00Z, or 7d for the last seven days
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,

    /// A new file; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

impl ExportFlags {
    /// The flags as the tool takes them.
    ///
    /// # Errors
    /// Where `--data` names no file.
    pub fn export(&self) -> Result<Export, Error> {
        Ok(Export {
            data: self.database.file()?.to_owned(),
            room: self.room.clone(),
            format: self.format,
            since_ms: self.since.as_ref().map_or(0, |since| since.unix_ms),
            output: (self.output.as_os_str() != "-").then(|| self.output.clone()),
        })
    }
}

/// The flags of `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,

    /// Where the copy goes: a file that is not there yet
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
}
