//! The audit log: who changed what, and when. It has no secret and no text of a message.

use std::fmt;
use std::net::IpAddr;

use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize, Serializer};

use super::super::super::log::clock::Moment;
use super::super::row::{all, execute, signed, unsigned, value};
use crate::limits::{AUDIT_ENTRIES_MAX, AUDIT_REGISTRATIONS_KEPT};
use crate::model::{Author, RoomId, Timestamp, UserId, Username};

/// Names an entry. A later entry has a higher id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditId(pub i64);

/// Defines the actions: the word of each, its verb in a sentence, and the preposition before its room.
macro_rules! actions {
    ($($action:ident $word:literal $verb:literal $preposition:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AuditAction {
            $($action),*
        }

        impl AuditAction {
            pub const ALL: &'static [Self] = &[$(Self::$action),*];

            /// The word in JSON and in the database.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$action => $word),*
                }
            }

            fn verb(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$action => ($verb, $preposition)),*
                }
            }
        }
    };
}
actions! {
    CreateAccount "create_account" "created the account" "";
    Register "register" "registered" "";
    SetRole "set_role" "changed the account" "";
    SetPassword "set_password" "set the password of" "";
    RemoveAccount "remove_account" "removed the account" "";
    CreateToken "create_token" "created a token of" "";
    RevokeToken "revoke_token" "revoked a token of" "";
    RotateGuestKey "rotate_guest_key" "rotated the key of guest tokens" "";
    CreateSetupLink "create_setup_link" "made a setup link" "";
    SetPolicy "set_policy" "changed the policy" "";
    Mute "mute" "muted" "";
    Unmute "unmute" "unmuted" "";
    Ban "ban" "banned" "";
    Unban "unban" "unbanned" "";
    Kick "kick" "kicked" " from";
    DeleteMessage "delete_message" "deleted a message of" " in";
    Announce "announce" "sent an announcement" "";
    SetRoom "set_room" "changed the settings" " of";
    DeleteRoom "delete_room" "deleted" "";
    CreateInvitation "create_invitation" "created an invitation" " to";
    RevokeInvitation "revoke_invitation" "revoked an invitation" " to";
    JoinPrivateRoom "join_private_room" "joined the private room" "";
    UseInvitation "use_invitation" "used an invitation" " to";
}

impl Serialize for AuditAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// A change as the audit log records it.
#[derive(Debug, Serialize)]
pub struct AuditedChange {
    action: AuditAction,
    user: Option<AuditedUser>,
    pub room_id: Option<RoomId>,
    address: Option<IpAddr>,
    detail: String,
}

/// A user with the name of that time, if it is known.
#[derive(Debug, Serialize)]
struct AuditedUser {
    id: UserId,
    username: Option<Username>,
}

/// An entry. Its text is the line of the server's log, too.
#[derive(Debug, Serialize)]
pub struct AuditEntry {
    pub id: AuditId,
    /// The wall time.
    pub at: Timestamp,
    /// `None` for the operator, whose changes come from the command line and from the flags of the server.
    by: Option<AuditedUser>,
    #[serde(flatten)]
    pub change: AuditedChange,
}

impl AuditAction {
    /// A change about nothing in particular.
    #[must_use]
    pub fn audited(self) -> AuditedChange {
        AuditedChange { action: self, user: None, room_id: None, address: None, detail: String::new() }
    }
}

impl AuditedChange {
    #[must_use]
    pub fn user(self, id: UserId, username: impl Into<Option<Username>>) -> Self {
        Self { user: Some(AuditedUser { id, username: username.into() }), ..self }
    }

    #[must_use]
    pub fn room(self, room: Option<&RoomId>) -> Self {
        Self { room_id: room.cloned(), ..self }
    }

    #[must_use]
    pub fn address(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    #[must_use]
    pub fn detail(self, detail: impl fmt::Display) -> Self {
        Self { detail: detail.to_string(), ..self }
    }
}

impl fmt::Display for AuditEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, change: AuditedChange { action, user, room_id, address, detail }, .. } = self;
        let (verb, preposition) = action.verb();
        match by {
            Some(by) => write!(f, "{by} has {verb}")?,
            None => write!(f, "the operator has {verb}")?,
        }
        if let Some(user) = user {
            write!(f, " {user}")?;
        }
        if let Some(address) = address {
            write!(f, "{} address {address}", if user.is_some() { " and" } else { "" })?;
        }
        if let Some(room) = room_id {
            write!(f, "{preposition} {room}")?;
        }
        if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
    }
}

impl fmt::Display for AuditedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.username.as_ref().map_or("", Username::as_str))
    }
}

/// Records a change by a user, or by the operator.
pub fn audit(
    connection: &Connection,
    by: Option<Author<'_>>,
    change: AuditedChange,
    moment: &Moment,
) -> rusqlite::Result<AuditEntry> {
    let sql = "INSERT INTO audit (clock_ms, wall_ms, by_id, by_name, action, user_id, username, room, address, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING key";
    let AuditedChange { action, user, room_id, address, detail } = &change;
    let (by_id, by_name) = (by.map(|by| by.id), by.map(|by| by.username));
    let (user_id, username) = user.as_ref().map(|user| (user.id, user.username.as_ref())).unzip();
    let address = address.map(|address| address.to_string());
    let (clock_ms, wall_ms) = (signed(moment.clock_ms), signed(moment.wall_ms));
    let values = (clock_ms, wall_ms, by_id, by_name, action, user_id, username.flatten(), room_id, address, detail);
    let id = value(connection, sql, values)?;
    let by = by.map(|by| AuditedUser { id: by.id, username: Some(by.username.clone()) });
    Ok(AuditEntry { id, at: moment.timestamp(), by, change })
}

/// The latest entries before one, or the latest of all, `limit` at most. The newest comes first.
pub fn audit_entries(
    connection: &Connection,
    before: Option<AuditId>,
    limit: usize,
) -> rusqlite::Result<Vec<AuditEntry>> {
    let sql = "SELECT key, wall_ms, by_id, by_name, action, user_id, username, room, address, detail FROM audit
         WHERE key < ?1 ORDER BY key DESC LIMIT ?2";
    all(connection, sql, (before.unwrap_or(AuditId(i64::MAX)), signed(limit as u64)), read)
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let user = |at: usize| -> rusqlite::Result<Option<AuditedUser>> {
        let (id, username) = (row.get::<_, Option<UserId>>(at)?, row.get(at + 1)?);
        Ok(id.map(|id| AuditedUser { id, username }))
    };
    let address = row.get::<_, Option<String>>(8)?.and_then(|address| address.parse().ok());
    let (action, user_of_change, room_id, detail) = (row.get(4)?, user(5)?, row.get(7)?, row.get(9)?);
    Ok(AuditEntry {
        id: row.get(0)?,
        at: Timestamp::at(unsigned(row.get(1)?)),
        by: user(2)?,
        change: AuditedChange { action, user: user_of_change, room_id, address, detail },
    })
}

/// The entries to forget next, `limit` at most: those from before a log time, or else those beyond the bound. Of these,
/// the oldest registrations go first while there are more than [`AUDIT_REGISTRATIONS_KEPT`], and then the oldest entries
/// of the user with the most. So strangers push out little of what admins did, and a busy admin loses its own entries.
pub fn forgettable_audit_entries(
    connection: &Connection,
    before_ms: u64,
    limit: usize,
) -> rusqlite::Result<Vec<AuditId>> {
    // Log time never goes back, so the oldest entries have the lowest keys.
    let sql = "SELECT key FROM (SELECT key, clock_ms FROM audit ORDER BY key LIMIT ?2) WHERE clock_ms < ?1";
    let old = all(connection, sql, (signed(before_ms), signed(limit as u64)), |row| row.get(0))?;
    let count: i64 = value(connection, "SELECT count(*) FROM audit", [])?;
    let excess = unsigned(count).saturating_sub(AUDIT_ENTRIES_MAX as u64);
    if !old.is_empty() || excess == 0 {
        return Ok(old);
    }
    let sql = "SELECT key FROM audit WHERE source IS (
            SELECT source FROM audit GROUP BY source
            ORDER BY source IS 'register' AND count(*) > ?1 DESC, count(*) DESC, min(key) LIMIT 1)
         ORDER BY key LIMIT ?2";
    let values = [AUDIT_REGISTRATIONS_KEPT as u64, excess.min(limit as u64)].map(signed);
    all(connection, sql, values, |row| row.get(0))
}

pub fn forget_audit_entry(connection: &Connection, entry: AuditId) -> rusqlite::Result<()> {
    execute(connection, "DELETE FROM audit WHERE key = ?1", [entry]).map(drop)
}
