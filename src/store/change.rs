//! Changes: what may be done to accounts, sessions, rooms, invitations and restrictions, as entries of the log.
//!
//! A change bears everything that only its proposer knows. Whether it is allowed and what it does is decided by the
//! [`ledger`](super::ledger).

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

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
    Register {
        account: NewAccount,
        invitation: Option<TokenHash>,
        session: NewSession,
        replaces: Option<SessionId>,
    },
    /// Logs in, if the password's hash is still this one; `renewed` takes its place.
    LogIn {
        user: UserId,
        password: PasswordHash,
        renewed: Option<PasswordHash>,
        session: NewSession,
        replaces: Option<SessionId>,
    },
    /// Stores a guest's session, or gives the guest another name.
    NameGuest {
        user: UserId,
        username: Username,
        looks: Looks,
        session: NewSession,
    },
    /// Creates a token for a program, and the account where there is none of that name.
    CreateToken {
        account: NewAccount,
        session: NewSession,
    },
    /// Ends one of the client's own sessions; the operator ends any.
    EndSession {
        session: SessionId,
    },
    SetPassword {
        account: AccountRef,
        password: PasswordHash,
        old: Option<PasswordHash>,
        keep: Option<SessionId>,
    },
    SetRole {
        account: AccountRef,
        #[serde(deserialize_with = "account_role")]
        role: Role,
    },
    RemoveAccount {
        account: AccountRef,
    },
    /// Mutes or bans a user, or ends that.
    Restrict(Restrict),
    UnbanAddress {
        network: IpAddr,
    },
    SetRoom {
        room: RoomId,
        patch: RoomPatch,
    },
    Kick {
        room: RoomId,
        user: UserId,
        target: Option<Arc<Principal>>,
    },
    Invite(NewInvitation),
    Uninvite {
        invitation: InvitationId,
    },
    /// Makes the client a member of a private room.
    UseInvitation {
        room: RoomId,
        code_hash: TokenHash,
    },
    /// Notes that sessions were used, which lets them last longer.
    Seen {
        sessions: Vec<Use>,
    },
    /// Forgets a room's order up to a place.
    Forget {
        room: RoomId,
        up_to: Seq,
    },
    /// Forgets rooms without messages and members.
    ForgetRooms {
        rooms: Vec<RoomId>,
    },
    /// Forgets sessions that are over, or guests that were not seen for long.
    ForgetSessions {
        sessions: Vec<SessionId>,
    },
    SetPolicy(Policy),
    /// Makes all signed tokens of guests invalid.
    RotateGuestKey {
        key: GuestKeyBytes,
    },
}

/// A key as it travels and is stored.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestKeyBytes(pub [u8; 32]);

impl std::fmt::Debug for GuestKeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestKeyBytes(…)")
    }
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
    Session(SessionId),
    /// Of a signed token: its session is stored.
    SignedGuest {
        user: UserId,
        issued_ms: u64,
    },
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
    Nothing,
    /// A session has begun. It expires at this wall time, where it expires.
    Session {
        user: UserId,
        username: Username,
        role: Role,
        expires_ms: Option<u64>,
        /// Whether an account was made for it.
        is_new_account: bool,
    },
    /// So many sessions have ended, and whether there is an admin left.
    Account {
        sessions_ended: usize,
        has_admin: bool,
    },
    Restricted {
        username: Option<Username>,
        muted_until_ms: Option<u64>,
        is_banned: bool,
    },
    Kicked {
        username: Option<Username>,
    },
    Room(RoomSettings),
    /// The invitation expires at this wall time.
    Invited {
        expires_ms: u64,
    },
}
