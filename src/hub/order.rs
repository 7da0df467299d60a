//! Orders: what is changed of people and rooms, and must be so at once for those who are here.
//!
//! Whoever gives one has stored it already; the hub makes it true of open connections.

use std::net::IpAddr;

use crate::model::{Person, RoomId, UserId};
use crate::role::Role;
use crate::store::accounts::{RoomSettings, SessionKey};

/// A change that is stored already.
#[derive(Debug, Clone)]
pub enum Order {
    /// These sessions are over: their connections are closed.
    EndSessions(Vec<SessionKey>),
    /// Somebody is banned, or has no account any more: all their connections are closed.
    EndUser(UserId),
    /// An account has another role: their connections do, too.
    SetRole {
        /// Whose.
        user: UserId,
        /// What they are from now on.
        role: Role,
    },
    /// The guests of an address (or an IPv6 network, as addresses are counted) are banned.
    EndGuests(IpAddr),
    /// Somebody is put out of a room.
    Kick {
        /// Of which.
        room: RoomId,
        /// Whom.
        user: UserId,
    },
    /// Somebody may say nothing until then (milliseconds since 1970); a time that is past ends it.
    Mute {
        /// Whom.
        user: UserId,
        /// Until when.
        until_ms: u64,
    },
    /// What is set of a room. Where it became private, who is in it and no member is put out.
    SetRoom {
        /// Which.
        room: RoomId,
        /// All of it.
        settings: RoomSettings,
        /// Who has set it.
        by: Person,
    },
    /// Somebody is a member of a private room, or is one no longer and is put out.
    SetMember {
        /// Which.
        room: RoomId,
        /// Whom.
        user: UserId,
        /// Whether they are one.
        is_member: bool,
    },
}

impl Order {
    /// Whether it is one by which connections are closed.
    #[must_use]
    pub fn ends_anybody(&self) -> bool {
        matches!(self, Self::EndSessions(_) | Self::EndUser(_) | Self::EndGuests(_))
    }

    /// Whether somebody's connections are closed by it.
    #[must_use]
    pub fn ends(&self, who: &Standpoint) -> bool {
        match self {
            Self::EndSessions(sessions) => who.session.is_some_and(|session| sessions.contains(&session)),
            Self::EndUser(user) => who.user == *user,
            Self::EndGuests(network) => who.role == Role::Guest && who.network == *network,
            _ => false,
        }
    }
}

/// By what somebody can be ended who is here, or is on the way in.
#[derive(Debug, Clone, Copy)]
pub struct Standpoint {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// By which session they are known.
    pub session: Option<SessionKey>,
    /// Where they come from, as addresses are counted.
    pub network: IpAddr,
}
