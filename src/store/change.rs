//! Changes: what may be done to accounts, sessions, rooms, invitations and restrictions, as entries of the log.
//!
//! A change bears everything that only its proposer knows. Whether it is allowed and what it does is decided by the
//! [`ledger`](super::ledger).

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::guest_token::GuestKey;
use crate::auth::name::Looks;
use crate::auth::password::PasswordHash;
use crate::model::{RoomId, Seq, UserId, Username};
use crate::protocol::{Restrictions, RoomPatch};
use crate::role::{Accounts, Registration, Role};

use super::TokenHash;
use super::accounts::{InvitationId, RoomSettings, SessionId, SessionKind};
use super::entry::Principal;

/// See the head of this file. Times are wall time where a client gave them, spans where the server counts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Creates an account.
    CreateAccount(NewAccount),
    /// Creates an account and logs in, where registration is open or by the invitation.
    Register { account: NewAccount, invitation: Option<TokenHash>, session: NewSession, replaces: Option<SessionId> },
    /// Logs in.
    LogIn(NewLogin),
    /// Stores a guest's session, or gives the guest another name.
    NameGuest { user: UserId, username: Username, looks: Looks, session: NewSession },
    /// Creates a token for a program, and the account where there is none of that name.
    CreateToken { account: NewAccount, session: NewSession },
    /// Ends one of the client's own sessions; the operator ends any.
    EndSession { session: SessionId },
    /// Sets another password, if `old` is still the hash of the present one, and ends all sessions but one.
    SetPassword { account: AccountRef, password: PasswordHash, old: Option<PasswordHash>, keep: Option<SessionId> },
    /// Makes an account a user's or an admin's.
    SetRole(NewRole),
    /// Removes an account with its sessions. Its messages stay.
    RemoveAccount { account: AccountRef },
    /// Mutes or bans a user, or ends that.
    Restrict(Restrict),
    /// Lets the guests of a network in again.
    UnbanAddress { network: IpAddr },
    /// Changes the settings of a room.
    SetRoom { room: RoomId, patch: RoomPatch },
    /// Removes a user from a room; `target` is the user as the proposer knows it, where it is connected.
    Kick { room: RoomId, user: UserId, target: Option<Arc<Principal>> },
    /// Makes an invitation.
    Invite(NewInvitation),
    /// Revokes an invitation.
    Uninvite { invitation: InvitationId },
    /// Makes the client a member of a private room.
    UseInvitation { room: RoomId, code_hash: TokenHash },
    /// Notes that sessions were used, which lets them last longer.
    Seen { sessions: Vec<Use> },
    /// Forgets a room's order up to a place.
    Forget { room: RoomId, up_to: Seq },
    /// Forgets rooms without messages and members.
    ForgetRooms { rooms: Vec<RoomId> },
    /// Forgets sessions that are over, or guests that were not seen for long.
    ForgetSessions { sessions: Vec<SessionId> },
    /// Sets the flags that decide.
    SetPolicy(Policy),
    /// Makes all signed tokens of guests invalid.
    RotateGuestKey { key: GuestKey },
}

/// Flags that decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub accounts: Accounts,
    pub registration: Registration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewAccount {
    pub id: UserId,
    pub name: Username,
    pub looks: Looks,
    #[serde(deserialize_with = "account_role")]
    pub role: Role,
    /// Nothing where nobody logs in by a password, as for a program.
    pub password: Option<PasswordHash>,
}

/// A login, if the password's hash is still this one; `renewed` takes its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewLogin {
    pub user: UserId,
    pub password: PasswordHash,
    pub renewed: Option<PasswordHash>,
    pub session: NewSession,
    pub replaces: Option<SessionId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRole {
    pub account: AccountRef,
    #[serde(deserialize_with = "account_role")]
    pub role: Role,
}

/// Reads the role of an account. The database takes no guest, and would refuse the whole batch with it.
fn account_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    match Role::deserialize(deserializer)? {
        Role::Guest => Err(D::Error::custom("the role of an account is user or admin")),
        role => Ok(role),
    }
}

/// An account by its id, or by exactly its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AccountRef {
    Id(UserId),
    Name(Username),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSession {
    pub id: SessionId,
    pub kind: SessionKind,
    /// Nothing for a guest's signed token.
    pub token_hash: Option<TokenHash>,
    /// What its owner knows it by: a browser, or what a token is for.
    pub label: Box<str>,
    /// How long it lasts from its last use; nothing where it lasts until it is ended.
    pub span_ms: Option<u64>,
}

/// A use of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// By a session that is stored.
    Session(SessionId),
    /// By a signed token; its session is stored then.
    SignedGuest { user: UserId, issued_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restrict {
    pub user: UserId,
    pub restrictions: Restrictions,
    /// The user as the proposer knows them, where they are connected.
    pub target: Option<Arc<Principal>>,
    /// Where the user's connections come from.
    pub networks: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewInvitation {
    pub id: InvitationId,
    pub code_hash: TokenHash,
    /// To a private room; nothing for one to register.
    pub room: Option<RoomId>,
    pub uses: u32,
    pub span_ms: u64,
}

/// What a change that was made has to tell its proposer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Done {
    /// It has nothing to tell.
    Nothing,
    /// A session has begun. It expires at this wall time, where it expires. An account may have been made for it.
    Session { user: UserId, username: Username, role: Role, expires_ms: Option<u64>, is_new_account: bool },
    /// So many sessions have ended, and whether there is an admin left.
    Account { sessions_ended: usize, has_admin: bool },
    /// How a user is restricted now.
    Restricted { username: Option<Username>, muted_until_ms: Option<u64>, is_banned: bool },
    /// A user is kicked.
    Kicked { username: Option<Username> },
    /// The settings of the room as they are now.
    Room(RoomSettings),
    /// The invitation expires at this wall time.
    Invited { expires_ms: u64 },
}
