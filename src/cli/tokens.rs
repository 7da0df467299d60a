//! `adda token`: creates, lists and revokes the tokens of bots.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{ListFormat, print, remark, say, second};
use super::propose::{Absent, propose};
use super::users::{find, has_database, in_words, new_account, taken};
use super::values::{expiry, label, session_key, username};
use crate::auth::guest_token::GuestKey;
use crate::auth::secret::{Secret, random_id};
use crate::logging::push_harmless;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{Timestamp, Username};
use crate::store::accounts::{Session, SessionId, SessionKind};
use crate::store::change::{Change, Done, NewSession};
use crate::store::{Offline, TokenHash};

#[derive(Debug, Clone, Args)]
pub struct Token {
    #[command(flatten)]
    database: DatabaseFlag,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum TokenCommand {
    /// Create a token for a program and print it once
    ///
    /// If there is no account of this name, one without a password is created. Standard output gets the token alone.
    Create {
        /// Name of the account
        #[arg(value_parser = username)]
        name: Username,
        /// Note for the list of tokens
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = label)]
        label: String,
        /// Lifetime, such as 90d [default: unlimited]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<Duration>,
    },
    /// List the tokens by id, without their secrets
    List {
        /// List only the tokens of this account
        #[arg(value_parser = username)]
        name: Option<Username>,
        /// Print columns (text) or one JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Invalidate the tokens of all guests; they come back as new guests
    RotateGuests,
    /// Revoke a token
    Revoke {
        /// Id of the token in the list
        #[arg(value_name = "ID", value_parser = session_key)]
        id: SessionId,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// [`Error`].
pub fn run(flags: &Token) -> Result<ExitCode, Error> {
    let data = flags.database.file()?;
    match &flags.command {
        TokenCommand::Create { name, label, expires } => create(data, name, label, *expires)?,
        TokenCommand::List { name, format } => list(data, name.as_ref(), *format)?,
        TokenCommand::RotateGuests => rotate_guest_key(data)?,
        TokenCommand::Revoke { id } => revoke(data, *id)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates a token for a bot, and an account without a password if there is none of that name. Standard output gets the
/// token and nothing else.
fn create(data: &Path, name: &Username, label: &str, expires: Option<Duration>) -> Result<(), Error> {
    if has_database(data)
        && let Some(account) = Offline::open_even_empty(data)?.account(name)?
        && account.name != *name
    {
        return Err(taken(name));
    }
    let token = Secret::random();
    let session = NewSession {
        id: SessionId(random_id()),
        kind: SessionKind::Bot,
        token_hash: Some(TokenHash::of(token.expose())),
        label: label.into(),
        span_ms: expires.map(|expires| u64::try_from(expires.as_millis()).unwrap_or(u64::MAX / 4)),
    };
    let key = session.id;
    let change = Change::CreateToken { account: new_account(name, Role::User, None), session };
    let done = propose(data, Absent::Make, change).map_err(|error| in_words(error, name))?;
    let Done::Session { expires_ms, is_new_account, .. } = done else {
        return Err(Error::Refused(format!("unexpected answer of the server: {done:?}")));
    };
    if let Err(error) = print(&format!("{}\n", token.expose())) {
        // The token could not be printed, so it is revoked.
        propose(data, Absent::Refuse, Change::EndSession { session: key })?;
        return Err(error);
    }
    let account = if is_new_account { " (new account without a password)" } else { "" };
    let until = expires_ms.map_or("without expiry".to_owned(), |ms| format!("valid until {}", second(ms)));
    remark(&format!("token created: {} for {name}{account}, {until}; it is not shown again", key.0));
    Ok(())
}

/// Invalidates all signed guest tokens, with a new key.
fn rotate_guest_key(data: &Path) -> Result<(), Error> {
    propose(data, Absent::Refuse, Change::RotateGuestKey { key: GuestKey::random() })?;
    say("guest key changed: all guest tokens are invalid now");
    Ok(())
}

/// Lists the bot tokens of one account or of all.
fn list(data: &Path, name: Option<&Username>, format: ListFormat) -> Result<(), Error> {
    let database = Offline::open(data)?;
    if let Some(name) = name {
        find(&database, name)?;
    }
    let accounts =
        database.accounts()?.into_iter().filter(|(account, _)| name.is_none_or(|name| account.name == *name));
    let mut tokens: Vec<(Username, Session)> = accounts
        .flat_map(|(account, sessions)| sessions.into_iter().map(move |session| (account.name.clone(), session)))
        .filter(|(_, session)| session.kind == SessionKind::Bot)
        .collect();
    tokens.sort_by_key(|(_, session)| (session.created_ms, session.key));
    let mut text = String::new();
    if format == ListFormat::Text && !tokens.is_empty() {
        text.push_str(
            "              id  created               used                  until                 name: label\n",
        );
    }
    for (name, Session { key, label, created_ms, seen_ms, expires_ms, .. }) in &tokens {
        let used_ms = (seen_ms != created_ms).then_some(*seen_ms);
        match format {
            ListFormat::Json => {
                let moment = |ms: Option<u64>| ms.map(|ms| Timestamp::at(ms).to_string());
                let line = json!({
                    "id": key.0, "name": name.as_str(), "label": label, "created": moment(Some(*created_ms)),
                    "used": moment(used_ms), "expires": moment(*expires_ms),
                });
                let _ = writeln!(text, "{line}");
            }
            ListFormat::Text => {
                let moment = |ms: Option<u64>| ms.map_or("-".to_owned(), second);
                let (created, used, until) = (second(*created_ms), moment(used_ms), moment(*expires_ms));
                let _ = write!(text, "{:>16}  {created}  {used:<20}  {until:<20}  ", key.0);
                push_harmless(&mut text, name.as_str());
                text.push_str(if label.is_empty() { "" } else { ": " });
                push_harmless(&mut text, label);
                text.push('\n');
            }
        }
    }
    print(&text)
}

/// Revokes a bot token.
fn revoke(data: &Path, key: SessionId) -> Result<(), Error> {
    let unknown = || Error::Refused(format!("no such token: {}; see `adda token list`", key.0));
    let has = |session: &Session| session.key == key && session.kind == SessionKind::Bot;
    let accounts = Offline::open(data)?.accounts()?;
    let Some((account, _)) = accounts.iter().find(|(_, sessions)| sessions.iter().any(has)) else {
        return Err(unknown());
    };
    propose(data, Absent::Refuse, Change::EndSession { session: key }).map_err(|error| match error.reason() {
        Some(Reason::NotFound) => unknown(),
        _ => error,
    })?;
    say(&format!("token revoked: {} of {}", key.0, account.name));
    Ok(())
}
