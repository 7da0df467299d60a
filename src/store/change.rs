//! Changes to accounts, sessions, rooms, invitations and restrictions, as entries of the log.
//!
//! A change contains everything that only its proposer knows. The [`ledger`](super::ledger) decides whether it is
//! allowed, and applies it.

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::guest_token::GuestKey;
use crate::auth::name::Skeletons;
use crate::auth::password::PasswordHash;
use crate::auth::secret::Secret;
use crate::limits::SETUP_SPAN_MS;
use crate::model::role::{Accounts, Registration, Role};
use crate::model::{FrameId, RoomId, Seq, UserId, Username};
use crate::protocol::{AddressBanTerms, Restrictions, RoomPatch};

use super::TokenHash;
use super::accounts::{AuditId, InvitationId, RoomSettings, SessionId, SessionKind};
use super::entry::Principal;

/// A change of stored state. Times that clients give are wall time. Spans are counted by the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Creates an account. Only the operator may do so.
    CreateAccount(NewAccount),
    /// Creates an account and logs in. Registration must be open, or the invitation valid. The code of the setup link
    /// stands for an invitation, and creates an admin.
    Register { account: NewAccount, invitation: Option<TokenHash>, session: NewSession, replaces: Option<SessionId> },
    /// Logs in to an account with its password.
    LogIn(NewLogin),
    /// Stores a guest's session, or renames the guest.
    NameGuest { user: UserId, username: Username, skeletons: Skeletons, session: NewSession },
    /// Creates a token for a bot. If no account has that name, the account is created too.
    CreateToken { account: NewAccount, session: NewSession },
    /// Ends one of the client's own sessions. The operator may end any bot's token.
    EndSession { session: SessionId },
    /// Sets a new password and ends all logins except `keep`. From a client, `old` must be the hash of the current
    /// password.
    SetPassword { account: AccountRef, password: PasswordHash, old: Option<PasswordHash>, keep: Option<SessionId> },
    /// Sets the role of an account to user or admin.
    SetRole(NewRole),
    /// Removes an account with its sessions. Its messages stay.
    RemoveAccount { account: AccountRef },
    /// Mutes or bans a user, or ends a mute or ban.
    Restrict(Restrict),
    /// Bans the guests of a network. `is_shared` says whether most connections come from it, as only the proposer knows.
    BanAddress { network: IpAddr, terms: AddressBanTerms, is_shared: bool },
    /// Unbans the guests of a network.
    UnbanAddress { network: IpAddr },
    /// Changes the settings of a room.
    SetRoom { room: RoomId, patch: RoomPatch },
    /// Deletes a room with all its messages.
    DeleteRoom { room: RoomId },
    /// Kicks a user from a room. `target` is the user as the proposer knows it, if it is connected.
    Kick { room: RoomId, user: UserId, target: Option<Arc<Principal>> },
    /// Creates an invitation to register or to a private room.
    Invite(NewInvitation),
    /// Revokes an invitation.
    Revoke { invitation: InvitationId },
    /// Makes the client a member of a private room.
    UseInvitation { room: RoomId, code_hash: TokenHash },
    /// Notes uses of sessions, which extends the sessions.
    Seen { sessions: Vec<Use> },
    /// Forgets a room's frames up to a seq.
    Forget { room: RoomId, up_to: Seq },
    /// Erases the texts of messages, as a delete does, but without an event.
    EraseMessages { room: RoomId, messages: Vec<FrameId> },
    /// Forgets rooms without messages and connections.
    ForgetRooms { rooms: Vec<RoomId> },
    /// Forgets sessions that are over, and guests that were not seen for a long time.
    ForgetSessions { sessions: Vec<SessionId> },
    /// Forgets entries of the audit log.
    ForgetAuditEntries { entries: Vec<AuditId> },
    /// Sets the policy flags.
    SetPolicy(Policy),
    /// Invalidates all signed guest tokens.
    RotateGuestKey { key: GuestKey },
    /// Makes a setup link, whose code registers the first admin, and ends the link before it. Only the operator may do
    /// so, while there is no admin.
    OfferSetup { code_hash: TokenHash, span_ms: u64 },
}

impl Change {
    /// Makes a setup link with a new code. Returns the change and the code.
    #[must_use]
    pub fn offer_setup() -> (Self, Secret) {
        let code = Secret::random();
        (Self::OfferSetup { code_hash: TokenHash::of(code.expose()), span_ms: SETUP_SPAN_MS }, code)
    }
}

/// Flags of the operator that permission checks use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub accounts: Accounts,
    pub registration: Registration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewAccount {
    pub id: UserId,
    pub name: Username,
    pub skeletons: Skeletons,
    #[serde(deserialize_with = "account_role")]
    pub role: Role,
    /// `None` for an account without a password login, such as a bot's.
    pub password: Option<PasswordHash>,
}

/// A login. It is refused if `password` is no longer the stored hash. `renewed` replaces that hash.
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

/// Reads the role of an account. The database accepts no guest account, and would fail the whole batch.
fn account_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    match Role::deserialize(deserializer)? {
        Role::Guest => Err(D::Error::custom("the role of an account is user or admin")),
        role => Ok(role),
    }
}

/// An account by its id, or by its exact name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AccountRef {
    Id(UserId),
    Name(Username),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSession {
    pub id: SessionId,
    pub kind: SessionKind,
    /// `None` for a guest's signed token.
    pub token_hash: Option<TokenHash>,
    /// How the owner recognises the session: a browser, or the purpose of a token.
    pub label: Box<str>,
    /// How long the session lasts from its creation; `None` for a bot's token without an end. Uses extend logins and
    /// guests.
    pub span_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// A use of a stored session.
    Session(SessionId),
    /// A use of a signed token. It stores the session.
    SignedGuest { user: UserId, issued_ms: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restrict {
    pub user: UserId,
    pub restrictions: Restrictions,
    /// The user as the proposer knows it, if it is connected.
    pub target: Option<Arc<Principal>>,
    /// The networks of the user's connections.
    pub networks: Vec<IpAddr>,
    /// Whether most connections come from one of these networks.
    pub is_shared: bool,
}

impl Restrict {
    /// New restrictions, without what only the hub knows.
    #[must_use]
    pub fn of(user: UserId, restrictions: Restrictions) -> Self {
        Self { user, restrictions, target: None, networks: Vec::new(), is_shared: false }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewInvitation {
    pub id: InvitationId,
    pub code_hash: TokenHash,
    /// The private room; `None` for an invitation to register.
    pub room: Option<RoomId>,
    pub uses: u32,
    pub span_ms: u64,
}

/// What a completed change reports to its proposer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Done {
    /// The change has nothing to report.
    Nothing,
    /// A session has begun. `expires_ms` is wall time; `None` if it does not expire. `is_new_account` says whether the
    /// account was created for it.
    Session { user: UserId, username: Username, role: Role, expires_ms: Option<u64>, is_new_account: bool },
    /// The number of sessions that ended, and whether there still is an admin.
    Account { sessions_ended: usize, has_admin: bool },
    /// The current restrictions of a user.
    Restricted { username: Option<Username>, muted_until_ms: Option<u64>, is_banned: bool },
    /// The user is kicked.
    Kicked { username: Option<Username> },
    /// The current settings of the room.
    Room(RoomSettings),
    /// The invitation or the setup link expires at this wall time.
    Invited { expires_ms: u64 },
}
