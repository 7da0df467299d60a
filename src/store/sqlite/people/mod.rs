//! Accounts, sessions, invitations, restrictions, settings and members of rooms, and the audit log.
//!
//! These are plain functions on a connection; the caller chooses the thread. Some change several rows. The ledger gives
//! each change a savepoint, so a change that fails halfway leaves nothing. Functions that document no other error fail
//! as SQLite does. Tokens and codes are stored as hashes, passwords as argon2id hashes that are made elsewhere. The key
//! that signs guest tokens is stored as it is.
//!
//! `:memory:` has the same tables, in an SQLite database in memory ([`in_memory`]). So there is one implementation.
//! Most messages do not use it.

mod audit;
mod invitations;
mod restrictions;
mod rooms;
mod sessions;
mod setup;
mod state;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use crate::auth::name::{self, Skeletons};
use crate::auth::password::PasswordHash;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{USERNAME_DEFAULT, UserId, Username};

use super::super::ledger::Stop;
use super::row::{all, execute, first, signed, unsigned};
use super::schema;

pub use crate::model::role::SessionKind;
pub use audit::{
    AuditAction, AuditEntry, AuditId, AuditedChange, audit, audit_entries, forget_audit_entry,
    forgettable_audit_entries,
};
pub use invitations::{Invitation, InvitationId, invitation, invitation_by_code, invitations, invite, revoke, spend};
pub use restrictions::{Ban, Banned, ban, bans, mute, unban};
pub use rooms::{RoomSettings, add_member, remove_member, rooms_of, set_room};
pub use sessions::{
    Session, SessionId, StoredGuest, begin_session, end_oldest_logins, end_other_sessions, end_session, forget_session,
    forgettable_sessions, name_guest, note_use, oldest_guests_beyond, rename_guest, session, session_of_key, sessions,
    store_guest, stored_guest, was_session_of,
};
pub use setup::{offer_setup, registration_code};
pub use state::{last_message_ms, note_message, policy, set_guest_key, set_policy};
#[cfg(test)]
pub use testing::{dump, integrity};

/// A database in memory with the tables of a file, for `--data :memory:`.
pub fn in_memory() -> rusqlite::Result<Connection> {
    let connection = Connection::open_in_memory()?;
    schema::migrate(&connection)?;
    Ok(connection)
}

/// An account, with what a login needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: UserId,
    pub name: Username,
    /// User or admin.
    pub role: Role,
    /// `None` if there is no login by password, as for a bot.
    pub password: Option<PasswordHash>,
    /// When it was created, in wall time.
    pub created_ms: u64,
}

/// Creates an account. A new admin ends the setup link.
///
/// # Errors
/// [`Reason::NameTaken`], if the name looks like another account's name, or like the default name of clients without a
/// name. An account with the default name would keep all those clients out.
pub fn create(connection: &Connection, account: &Account, skeletons: &Skeletons) -> Result<(), Stop> {
    let is_default = Username::parse(USERNAME_DEFAULT).is_ok_and(|name| Skeletons::of(&name).resemble(skeletons));
    if is_default || resembling(connection, skeletons)?.is_some() {
        return Err(Reason::NameTaken.into());
    }
    let sql = "INSERT INTO accounts (id, name, role, password_hash, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT DO NOTHING";
    let Account { id, name, role, password, created_ms } = account;
    if execute(connection, sql, (id, name, role, password, signed(*created_ms)))? == 0 {
        return Err(Reason::NameTaken.into());
    }
    let key = connection.last_insert_rowid();
    for skeleton in skeletons.iter() {
        if insert_skeleton(connection, skeleton, key)? == 0 {
            return Err(Reason::NameTaken.into());
        }
    }
    if *role == Role::Admin {
        setup::spend_setup(connection)?;
    }
    Ok(())
}

fn insert_skeleton(connection: &Connection, skeleton: &str, account: i64) -> rusqlite::Result<usize> {
    execute(
        connection,
        "INSERT INTO skeletons (skeleton, account) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        (skeleton, account),
    )
}

/// The account whose name has one of these skeletons. A guest may not have such a name.
pub fn resembling(connection: &Connection, skeletons: &Skeletons) -> rusqlite::Result<Option<Account>> {
    let sql = account_where("key = (SELECT account FROM skeletons WHERE skeleton = ?1)");
    for skeleton in skeletons.iter() {
        if let Some(account) = first(connection, &sql, [skeleton], account)? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// The account with a name, in any spelling. If two names look alike by a newer Unicode version, the exact name
/// decides.
pub fn by_name(connection: &Connection, name: &Username) -> rusqlite::Result<Option<Account>> {
    match first(connection, &account_where("name = ?1"), [name], account)? {
        Some(account) => Ok(Some(account)),
        None => resembling(connection, &Skeletons::of(name)),
    }
}

/// The account of a user id.
pub fn by_id(connection: &Connection, id: UserId) -> rusqlite::Result<Option<Account>> {
    first(connection, &account_where("id = ?1"), [id], account)
}

/// The role and the name of a user: by an account, or by a guest's session that is not forgotten yet.
pub fn find_user(connection: &Connection, id: UserId) -> rusqlite::Result<Option<(Role, Option<Username>)>> {
    if let Some(account) = by_id(connection, id)? {
        return Ok(Some((account.role, Some(account.name))));
    }
    let sql = "SELECT username FROM sessions WHERE user_id = ?1 AND kind = 'guest' ORDER BY seen_ms DESC, key LIMIT 1";
    first(connection, sql, [id], |row| Ok((Role::Guest, row.get(0)?)))
}

/// All accounts, ordered by name.
pub fn accounts(connection: &Connection) -> rusqlite::Result<Vec<Account>> {
    all(connection, &account_where("TRUE ORDER BY name"), [], account)
}

/// Whether there is an admin.
pub fn has_admin(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM accounts WHERE role = 'admin'")?.exists([])
}

/// Sets a password, and ends all sessions of the account except `keep`. Returns the ended sessions, so that their
/// connections can be closed. Bots' tokens stay, as they are no logins.
///
/// # Errors
/// [`Reason::NotFound`].
pub fn set_password(
    connection: &Connection,
    id: UserId,
    password: &PasswordHash,
    keep: Option<SessionId>,
    now_ms: u64,
) -> Result<Vec<SessionId>, Stop> {
    found(execute(connection, "UPDATE accounts SET password_hash = ?2 WHERE id = ?1", (id, password))?)?;
    Ok(end_other_sessions(connection, id, keep, now_ms)?)
}

/// Replaces a hash with one of the same password at today's cost, unless the password has changed meanwhile.
pub fn renew_hash(
    connection: &Connection,
    id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE accounts SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2";
    Ok(execute(connection, sql, (id, old, new))? > 0)
}

/// Sets the role of an account. A new admin's mute and ban end, as no other user could end them. The setup link ends,
/// too.
///
/// # Errors
/// [`Reason::NotFound`], also for the guest role, which no account has.
pub fn set_role(connection: &Connection, id: UserId, role: Role) -> Result<(), Stop> {
    if role == Role::Guest {
        return Err(Reason::NotFound.into());
    }
    found(execute(connection, "UPDATE accounts SET role = ?2 WHERE id = ?1", (id, role))?)?;
    if role == Role::Admin {
        restrictions::unmute(connection, id)?;
        unban(connection, Banned::User(id))?;
        setup::spend_setup(connection)?;
    }
    Ok(())
}

/// Removes an account with all its sessions, bots' tokens included. Its name is free again, and its messages stay.
/// Returns the sessions that ended.
///
/// # Errors
/// [`Reason::NotFound`].
pub fn remove(connection: &Connection, id: UserId) -> Result<Vec<SessionId>, Stop> {
    let live = "SELECT key FROM sessions WHERE user_id = ?1 AND ended_ms IS NULL ORDER BY key";
    let ended = all(connection, live, [id], |row| row.get(0))?;
    execute(connection, "DELETE FROM skeletons WHERE account = (SELECT key FROM accounts WHERE id = ?1)", [id])?;
    found(execute(connection, "DELETE FROM accounts WHERE id = ?1", [id])?)?;
    execute(connection, "DELETE FROM sessions WHERE user_id = ?1", [id])?;
    execute(connection, "DELETE FROM room_members WHERE user_id = ?1", [id])?;
    Ok(ended)
}

/// Renews the skeletons of all accounts, as a newer Unicode version finds more names alike. It must run when a database
/// is opened. If nothing is newer, it reads one row. If two accounts have one skeleton, it belongs to the older account.
pub fn renew_skeletons(connection: &Connection) -> rusqlite::Result<()> {
    let skeleton_version = name::skeleton_version();
    let made = state::value::<String>(connection, "skeletons")?;
    if made.as_deref() == Some(&*skeleton_version) {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    let names = all(connection, "SELECT key, name FROM accounts ORDER BY key DESC", [], |row| row.try_into())?;
    let mut wanted = BTreeMap::new();
    for (key, name) in names {
        wanted.extend(Skeletons::of(&name).iter().map(|skeleton| (skeleton.to_owned(), key)));
    }
    execute(connection, "DELETE FROM skeletons", [])?;
    for (skeleton, key) in wanted {
        insert_skeleton(connection, &skeleton, key)?;
    }
    state::set_value(connection, "skeletons", skeleton_version)?;
    transaction.commit()
}

/// Removes invitations, mutes and bans that are over, and times of slow mode that no longer count. None of them counted
/// even before that.
pub fn forget_what_is_over(connection: &Connection, now_ms: u64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM invitations WHERE uses_left = 0 OR expires_ms <= ?1",
        "DELETE FROM mutes WHERE until_ms <= ?1",
        "DELETE FROM bans WHERE until_ms <= ?1",
        "DELETE FROM last_posts WHERE clock_ms <= ?1 - 3600000",
    ] {
        execute(connection, sql, [signed(now_ms)])?;
    }
    Ok(())
}

fn account_where(condition: &str) -> String {
    format!("SELECT id, name, role, password_hash, created_ms FROM accounts WHERE {condition}")
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        password: row.get(3)?,
        created_ms: unsigned(row.get(4)?),
    })
}

/// [`Reason::NotFound`], if a statement has changed no row.
fn found(rows: usize) -> Result<(), Stop> {
    if rows == 0 { Err(Reason::NotFound.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
