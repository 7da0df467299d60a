//! `adda user`: creates, changes, lists and removes accounts.
//!
//! A password is read before anything is changed, and no lock is held meanwhile.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::args::DatabaseFlag;
use super::output::{ListFormat, count, print, say, second, warn};
use super::propose::{Absent, propose};
use super::values::{role, username};
use super::{Error, prompt};
use crate::auth::name::Skeletons;
use crate::auth::password::{self, PasswordHash};
use crate::logging::push_harmless;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{Timestamp, UserId, Username};
use crate::store::Offline;
use crate::store::accounts::{Account, SessionKind};
use crate::store::change::{AccountRef, Change, Done, NewAccount, NewRole};

#[derive(Debug, Clone, Args)]
pub struct User {
    #[command(flatten)]
    database: DatabaseFlag,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum UserCommand {
    /// Create an account; the password is read from the terminal or standard input
    ///
    /// On a terminal the password is asked for twice and not shown. Otherwise it is one line of standard input. The
    /// database is created if it does not exist.
    Add {
        /// Name of the account
        #[arg(value_parser = username)]
        name: Username,
        /// Role: user or admin
        #[arg(long, value_name = "ROLE", default_value = "user", value_parser = role())]
        role: Role,
    },
    /// Change a password and end the logins with the old one
    ///
    /// The password is read as by `adda user add`. Tokens stay valid.
    Passwd {
        /// Name of the account
        #[arg(value_parser = username)]
        name: Username,
    },
    /// Change the role of an account
    Role {
        /// Name of the account
        #[arg(value_parser = username)]
        name: Username,
        /// New role: user or admin
        #[arg(value_parser = role())]
        role: Role,
    },
    /// List the accounts
    List {
        /// Print columns (text) or one JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Remove an account with its sessions and tokens; its messages stay
    Remove {
        /// Name of the account
        #[arg(value_parser = username)]
        name: Username,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// [`Error`].
pub fn run(flags: &User) -> Result<ExitCode, Error> {
    let data = flags.database.file()?;
    match &flags.command {
        UserCommand::Add { name, role } => add(data, name, *role)?,
        UserCommand::Passwd { name } => set_password(data, name)?,
        UserCommand::Role { name, role } => set_role(data, name, *role)?,
        UserCommand::List { format } => list(data, *format)?,
        UserCommand::Remove { name, yes } => remove(data, name, *yes)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates an account, and asks for its password.
fn add(data: &Path, name: &Username, role: Role) -> Result<(), Error> {
    // This check comes before the password is asked for.
    if has_database(data) && Offline::open_even_empty(data)?.account(name)?.is_some() {
        return Err(taken(name));
    }
    let account = new_account(name, role, Some(ask_and_hash(name)?));
    propose(data, Absent::Make, Change::CreateAccount(account)).map_err(|error| in_words(error, name))?;
    say(&format!("account created: {name} ({role})"));
    Ok(())
}

pub fn new_account(name: &Username, role: Role, password: Option<PasswordHash>) -> NewAccount {
    NewAccount { id: UserId(Uuid::new_v4()), name: name.clone(), skeletons: Skeletons::of(name), role, password }
}

/// Changes the account of exactly this name. Returns how many sessions this ended, and whether there is an admin left.
fn change_account(data: &Path, name: &Username, change: Change) -> Result<(usize, bool), Error> {
    match propose(data, Absent::Refuse, change).map_err(|error| in_words(error, name))? {
        Done::Account { sessions_ended, has_admin } => Ok((sessions_ended, has_admin)),
        done => Err(Error::Refused(format!("unexpected answer of the server: {done:?}"))),
    }
}

/// Sets a new password, which it asks for. All logins with the old one end.
fn set_password(data: &Path, name: &Username) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    let password = ask_and_hash(name)?;
    let account = AccountRef::Name(name.clone());
    let (ended, _) = change_account(data, name, Change::SetPassword { account, password, old: None, keep: None })?;
    say(&format!("password changed: {name}; {} ended", count(ended, "login")));
    Ok(())
}

/// Sets the role of an account.
fn set_role(data: &Path, name: &Username, role: Role) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    let (_, has_admin) =
        change_account(data, name, Change::SetRole(NewRole { account: AccountRef::Name(name.clone()), role }))?;
    say(&format!("role changed: {name} ({role})"));
    warn_without_admin(has_admin);
    Ok(())
}

/// Removes an account with its sessions and tokens, after the operator has confirmed it.
fn remove(data: &Path, name: &Username, is_sure: bool) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    if !is_sure && !prompt::is_sure(&format!("Remove account {name} with its sessions and tokens?"))? {
        return Err(Error::Refused("cancelled, nothing was changed".to_owned()));
    }
    let account = AccountRef::Name(name.clone());
    let (ended, has_admin) = change_account(data, name, Change::RemoveAccount { account })?;
    say(&format!("account removed: {name}; {} ended, messages kept", count(ended, "session")));
    warn_without_admin(has_admin);
    Ok(())
}

/// Lists the accounts.
fn list(data: &Path, format: ListFormat) -> Result<(), Error> {
    let accounts = Offline::open(data)?.accounts()?;
    let mut text = String::new();
    if format == ListFormat::Text && !accounts.is_empty() {
        // The name comes last, because terminals differ in the width of letters.
        text.push_str("role   created               logins  tokens  password  name\n");
    }
    for (account, sessions) in &accounts {
        let Account { id, name, role, password, created_ms } = account;
        let count = |kind| sessions.iter().filter(|session| session.kind == kind).count();
        let (logins, tokens) = (count(SessionKind::Login), count(SessionKind::Bot));
        match format {
            ListFormat::Json => {
                let line = json!({
                    "id": id.to_string(), "name": name.as_str(), "role": role.as_str(), "has_password": password.is_some(),
                    "created": Timestamp::at(*created_ms).to_string(), "logins": logins, "tokens": tokens,
                });
                let _ = writeln!(text, "{line}");
            }
            ListFormat::Text => {
                let has = if password.is_some() { "yes" } else { "no" };
                let _ =
                    write!(text, "{:<5}  {}  {logins:>6}  {tokens:>6}  {has:<8}  ", role.as_str(), second(*created_ms));
                push_harmless(&mut text, name.as_str());
                text.push('\n');
            }
        }
    }
    print(&text)
}

pub fn has_database(data: &Path) -> bool {
    data.metadata().map_or(true, |file| file.len() > 0) && data.symlink_metadata().is_ok()
}

/// The account of exactly this name, so that a typing mistake does not affect another account.
pub fn find(database: &Offline, name: &Username) -> Result<Account, Error> {
    match database.account(name)? {
        Some(account) if account.name == *name => Ok(account),
        Some(other) => Err(Error::Refused(format!("no such account: {name}; did you mean {}?", other.name))),
        None => Err(unknown(name)),
    }
}

fn ask_and_hash(name: &Username) -> Result<PasswordHash, Error> {
    password::hash(&prompt::new_password(name)?).map_err(|error| Error::Refused(error.to_string()))
}

pub fn in_words(error: Error, name: &Username) -> Error {
    match error.reason() {
        Some(Reason::NameTaken) => taken(name),
        Some(Reason::NotFound) => unknown(name),
        _ => error,
    }
}

pub fn taken(name: &Username) -> Error {
    Error::Refused(format!("name taken: {name} is an account, or too similar to one"))
}

fn unknown(name: &Username) -> Error {
    Error::Refused(format!("no such account: {name}; see `adda user list`"))
}

fn warn_without_admin(has_admin: bool) {
    if !has_admin {
        warn("no admin left; make one with `adda user role NAME admin`");
    }
}
