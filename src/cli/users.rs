//! The commands `adda user` and `adda token`. They run in a process of their own.
//!
//! Results go to standard output, remarks to standard error, so that the output of `adda token create` can be
//! redirected into a file. A password is read before anything is changed, and no lock is held meanwhile.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::propose::{Absent, propose};
use super::{Error, prompt};
use crate::auth::guest_token::GuestKey;
use crate::auth::name::Skeletons;
use crate::auth::password::{self, PasswordHash};
use crate::auth::secret::{Secret, random_id};
use crate::logging::push_harmless;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{Timestamp, UserId, Username};
use crate::store::accounts::{Account, Session, SessionId, SessionKind};
use crate::store::change::{AccountRef, Change, Done, NewAccount, NewRole, NewSession};
use crate::store::{Offline, TokenHash};

/// How a running server applies the changes.
const HEEDED: &str = "a running server heeds it within a second, on open connections too";

/// The format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// In columns, for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Creates an account, and asks for its password.
///
/// # Errors
/// [`Error`].
pub fn add(data: &Path, name: &Username, role: Role) -> Result<(), Error> {
    // This check comes before the password is asked for.
    if has_database(data) && Offline::open_even_empty(data)?.account(name)?.is_some() {
        return Err(taken(name));
    }
    let account = new_account(name, role, Some(ask_and_hash(name)?));
    propose(data, Absent::Make, Change::CreateAccount(account)).map_err(|error| in_words(error, name))?;
    say(&format!("made “{name}”, {}; they log in with this name and password", a(role)))
}

fn new_account(name: &Username, role: Role, password: Option<PasswordHash>) -> NewAccount {
    NewAccount { id: UserId(Uuid::new_v4()), name: name.clone(), skeletons: Skeletons::of(name), role, password }
}

/// Changes the account of exactly this name. Returns how many sessions this ended, and whether there is an admin left.
fn change_account(data: &Path, name: &Username, change: Change) -> Result<(usize, bool), Error> {
    match propose(data, Absent::Refuse, change).map_err(|error| in_words(error, name))? {
        Done::Account { sessions_ended, has_admin } => Ok((sessions_ended, has_admin)),
        done => Err(Error::Refused(format!("the server has answered {done:?}"))),
    }
}

/// Sets a new password, which it asks for. All logins with the old one end.
///
/// # Errors
/// [`Error`].
pub fn set_password(data: &Path, name: &Username) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    let password = ask_and_hash(name)?;
    let account = AccountRef::Name(name.clone());
    let (ended, _) = change_account(data, name, Change::SetPassword { account, password, old: None, keep: None })?;
    say(&format!("“{name}” has a new password, and {ended} logins ended: {HEEDED}"))
}

/// Sets the role of an account.
///
/// # Errors
/// [`Error`].
pub fn set_role(data: &Path, name: &Username, role: Role) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    let (_, has_admin) =
        change_account(data, name, Change::SetRole(NewRole { account: AccountRef::Name(name.clone()), role }))?;
    say(&format!("“{name}” is {}: {HEEDED}", a(role)))?;
    warn_without_admin(has_admin);
    Ok(())
}

/// Removes an account with its sessions and tokens, after the operator has confirmed it.
///
/// # Errors
/// [`Error`].
pub fn remove(data: &Path, name: &Username, is_sure: bool) -> Result<(), Error> {
    find(&Offline::open(data)?, name)?;
    if !is_sure && !prompt::is_sure(&format!("Remove “{name}”, with all its sessions and tokens?"))? {
        return Err(Error::Refused("nothing was changed".to_owned()));
    }
    let account = AccountRef::Name(name.clone());
    let (ended, has_admin) = change_account(data, name, Change::RemoveAccount { account })?;
    say(&format!("removed “{name}”, and {ended} sessions ended; the messages stay: {HEEDED}"))?;
    warn_without_admin(has_admin);
    Ok(())
}

/// Lists the accounts.
///
/// # Errors
/// [`Error`].
pub fn list(data: &Path, format: ListFormat) -> Result<(), Error> {
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

/// Creates a token for a bot, and an account without a password if there is none of that name. Standard output gets the
/// token and nothing else.
///
/// # Errors
/// [`Error`].
pub fn create_token(data: &Path, name: &Username, label: &str, expires: Option<Duration>) -> Result<(), Error> {
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
        return Err(Error::Refused(format!("the server has answered {done:?}")));
    };
    if let Err(error) = print(&format!("{}\n", token.expose())) {
        // The token could not be printed, so it is revoked.
        propose(data, Absent::Refuse, Change::EndSession { session: key })?;
        return Err(error);
    }
    let made = if is_new_account { " of a new account without a password" } else { "" };
    let until = expires_ms.map_or("for good".to_owned(), |ms| format!("until {}", second(ms)));
    tell(&format!("token {} for “{name}”{made}, {until}; it is shown this once", key.0));
    Ok(())
}

/// Invalidates all signed guest tokens, with a new key.
///
/// # Errors
/// [`Error`].
pub fn rotate_guest_key(data: &Path) -> Result<(), Error> {
    propose(data, Absent::Refuse, Change::RotateGuestKey { key: GuestKey::random() })?;
    say(&format!("guests have to come in anew: {HEEDED}"))
}

/// Lists the bot tokens of one account or of all.
///
/// # Errors
/// [`Error`].
pub fn list_tokens(data: &Path, name: Option<&Username>, format: ListFormat) -> Result<(), Error> {
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
///
/// # Errors
/// [`Error`].
pub fn revoke_token(data: &Path, key: SessionId) -> Result<(), Error> {
    let unknown = || Error::Refused(format!("there is no token {}; `adda token list` has them all", key.0));
    let has = |session: &Session| session.key == key && session.kind == SessionKind::Bot;
    let accounts = Offline::open(data)?.accounts()?;
    let Some((account, _)) = accounts.iter().find(|(_, sessions)| sessions.iter().any(has)) else {
        return Err(unknown());
    };
    propose(data, Absent::Refuse, Change::EndSession { session: key }).map_err(|error| match error.reason() {
        Some(Reason::NotFound) => unknown(),
        _ => error,
    })?;
    say(&format!("token {} of “{}” has ended: {HEEDED}", key.0, account.name))
}

/// The sentence for the operator, if accounts are required and there is no admin.
///
/// # Errors
/// [`Error`].
pub fn first_steps(data: &Path) -> Result<Option<String>, Error> {
    if Offline::open(data)?.has_admin()? {
        return Ok(None);
    }
    let file = shell_word(&data.display().to_string());
    Ok(Some(format!(
        "accounts are required, and nobody is an admin yet; to make one: adda user add NAME --role admin --data {file}"
    )))
}

/// The text as one word of a shell command.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn has_database(data: &Path) -> bool {
    data.metadata().map_or(true, |file| file.len() > 0) && data.symlink_metadata().is_ok()
}

/// The account of exactly this name, so that a typing mistake does not affect another account.
fn find(database: &Offline, name: &Username) -> Result<Account, Error> {
    match database.account(name)? {
        Some(account) if account.name == *name => Ok(account),
        Some(other) => Err(Error::Refused(format!("there is no account “{name}”; “{}” looks like it", other.name))),
        None => Err(Error::Refused(format!("there is no account “{name}”"))),
    }
}

fn ask_and_hash(name: &Username) -> Result<PasswordHash, Error> {
    password::hash(&prompt::new_password(name)?).map_err(|error| Error::Refused(error.to_string()))
}

fn in_words(error: Error, name: &Username) -> Error {
    match error.reason() {
        Some(Reason::NameTaken) => taken(name),
        Some(Reason::NotFound) => Error::Refused(format!("there is no account “{name}”")),
        _ => error,
    }
}

fn taken(name: &Username) -> Error {
    Error::Refused(format!("the name “{name}” is taken, or looks like one that is"))
}

fn a(role: Role) -> &'static str {
    match role {
        Role::Guest => "a guest",
        Role::User => "a user",
        Role::Admin => "an admin",
    }
}

/// A time, to the second.
fn second(ms: u64) -> String {
    Timestamp::at(ms / 1_000 * 1_000).to_string().replace(".000", "")
}

fn warn_without_admin(has_admin: bool) {
    if !has_admin {
        tell("nobody is an admin now");
    }
}

/// Prints a sentence on standard output.
fn say(sentence: &str) -> Result<(), Error> {
    let mut line = String::new();
    push_harmless(&mut line, sentence);
    line.push('\n');
    // A closed standard output does not undo the change.
    let _ = print(&line);
    Ok(())
}

/// Prints a sentence on standard error; it is lost if that is closed.
fn tell(sentence: &str) {
    let mut line = String::from("adda: ");
    push_harmless(&mut line, sentence);
    line.push('\n');
    let _ = io::stderr().write_all(line.as_bytes());
}

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Write { path: "standard output".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_as_one_shell_word() {
        for (path, word) in [
            ("adda.db", "adda.db"),
            ("/srv/chat/adda-1.db", "/srv/chat/adda-1.db"),
            ("my chat.db", "'my chat.db'"),
            ("it's.db", r"'it'\''s.db'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(path), word);
        }
    }

    #[test]
    fn a_time_is_shown_to_the_second() {
        assert_eq!(second(1_700_000_000_999), "2023-11-14T22:13:20Z");
    }
}
