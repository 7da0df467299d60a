//! Counts of results: by kind of entry, and by reason for refused entries.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::super::super::change::Change;
use super::super::super::entry::{Entry, Outcome};
use crate::model::reason::Reason;
use crate::protocol::Body;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Text,
    Announcement,
    Delete,
    Join,
    Leave,
    CreateAccount,
    Register,
    LogIn,
    NameGuest,
    CreateToken,
    EndSession,
    SetPassword,
    SetRole,
    RemoveAccount,
    Restrict,
    BanAddress,
    UnbanAddress,
    SetRoom,
    DeleteRoom,
    Kick,
    Invite,
    Revoke,
    UseInvitation,
    Seen,
    Forget,
    EraseMessages,
    ForgetRooms,
    ForgetSessions,
    ForgetAuditEntries,
    SetPolicy,
    RotateGuestKey,
    OfferSetup,
}

impl Kind {
    pub fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Message(message) => match message.body {
                Body::Text { .. } => Self::Text,
                Body::Announcement { .. } => Self::Announcement,
                Body::Delete { .. } => Self::Delete,
                Body::Rename { .. } => panic!("no client sends it"),
            },
            Entry::Announcement { .. } => Self::Announcement,
            Entry::Join(_) => Self::Join,
            Entry::Leave { .. } => Self::Leave,
            Entry::Change { change, .. } => match **change {
                Change::CreateAccount(_) => Self::CreateAccount,
                Change::Register { .. } => Self::Register,
                Change::LogIn(_) => Self::LogIn,
                Change::NameGuest { .. } => Self::NameGuest,
                Change::CreateToken { .. } => Self::CreateToken,
                Change::EndSession { .. } => Self::EndSession,
                Change::SetPassword { .. } => Self::SetPassword,
                Change::SetRole(_) => Self::SetRole,
                Change::RemoveAccount { .. } => Self::RemoveAccount,
                Change::Restrict(_) => Self::Restrict,
                Change::BanAddress { .. } => Self::BanAddress,
                Change::UnbanAddress { .. } => Self::UnbanAddress,
                Change::SetRoom { .. } => Self::SetRoom,
                Change::DeleteRoom { .. } => Self::DeleteRoom,
                Change::Kick { .. } => Self::Kick,
                Change::Invite(_) => Self::Invite,
                Change::Revoke { .. } => Self::Revoke,
                Change::UseInvitation { .. } => Self::UseInvitation,
                Change::Seen { .. } => Self::Seen,
                Change::Forget { .. } => Self::Forget,
                Change::EraseMessages { .. } => Self::EraseMessages,
                Change::ForgetRooms { .. } => Self::ForgetRooms,
                Change::ForgetSessions { .. } => Self::ForgetSessions,
                Change::ForgetAuditEntries { .. } => Self::ForgetAuditEntries,
                Change::SetPolicy(_) => Self::SetPolicy,
                Change::RotateGuestKey { .. } => Self::RotateGuestKey,
                Change::OfferSetup { .. } => Self::OfferSetup,
            },
        }
    }
}

/// Each kind with every reason for which the ledger refuses it. [`RateLimited`](Reason::RateLimited) and
/// [`NotInRoom`](Reason::NotInRoom) stand for the reasons that only the proposer knows.
pub const KINDS: &[(Kind, &[Reason])] = {
    use Reason::*;
    &[
        (
            Kind::Text,
            &[
                RateLimited,
                NotInRoom,
                SessionEnded,
                Banned,
                LoginRequired,
                NoSuchRoom,
                NotMember,
                Muted,
                ReadOnly,
                Kicked,
                SlowMode,
                NoSuchReply,
                NonceUsed,
            ],
        ),
        (Kind::Announcement, &[RateLimited, SessionEnded, Banned, LoginRequired, Muted, NotAdmin, NonceUsed]),
        (
            Kind::Delete,
            &[
                RateLimited,
                NotInRoom,
                SessionEnded,
                Banned,
                LoginRequired,
                NoSuchRoom,
                NotMember,
                Kicked,
                NoSuchMessage,
                NotYours,
                NonceUsed,
            ],
        ),
        (Kind::Join, &[SessionEnded, Banned, LoginRequired, NoSuchRoom, NameReserved]),
        (Kind::Leave, &[]),
        (Kind::CreateAccount, &[NotAdmin, NameTaken]),
        (
            Kind::Register,
            &[NoSession, SessionEnded, Banned, AlreadyRegistered, RegistrationClosed, NoSuchInvitation, NameTaken],
        ),
        (Kind::LogIn, &[NoSession, Banned, WrongLogin]),
        (
            Kind::NameGuest,
            &[NoSession, LoggedIn, SessionEnded, Banned, LoginRequired, NameReserved, RenamedRecently, Muted, NotFound],
        ),
        (Kind::CreateToken, &[NotAdmin, NameTaken]),
        (Kind::EndSession, &[NotAdmin, SessionEnded, Banned, LoginRequired, NotFound]),
        (Kind::SetPassword, &[NotFound, NotYours, SessionEnded, Banned, WrongPassword]),
        (Kind::SetRole, &[NotAdmin, NotFound]),
        (Kind::RemoveAccount, &[NotAdmin, NotFound]),
        (
            Kind::Restrict,
            &[
                SessionEnded,
                Banned,
                LoginRequired,
                NotAdmin,
                NoSuchUser,
                TargetIsSelf,
                TargetIsAdmin,
                AddressUnknown,
                AddressShared,
                TargetIsNoGuest,
            ],
        ),
        (Kind::BanAddress, &[SessionEnded, Banned, LoginRequired, NotAdmin, AddressShared]),
        (Kind::UnbanAddress, &[SessionEnded, Banned, LoginRequired, NotAdmin, NotFound]),
        (Kind::SetRoom, &[NoSession, SessionEnded, Banned, LoginRequired, NotAdmin, NotMember, DefaultRoom]),
        (Kind::DeleteRoom, &[SessionEnded, Banned, LoginRequired, NotAdmin, NotMember, NoSuchRoom]),
        (
            Kind::Kick,
            &[SessionEnded, Banned, LoginRequired, NotAdmin, NotMember, NoSuchUser, TargetIsSelf, TargetIsAdmin],
        ),
        (Kind::Invite, &[SessionEnded, Banned, LoginRequired, NotAdmin, NotMember, RoomIsPublic, RegistrationOff]),
        (Kind::Revoke, &[SessionEnded, Banned, LoginRequired, NotAdmin, NotMember, NotFound]),
        (Kind::UseInvitation, &[NoSession, SessionEnded, Banned, LoginRequired, NoSuchRoom]),
        (Kind::Seen, &[]),
        (Kind::Forget, &[NotAdmin]),
        (Kind::EraseMessages, &[NotAdmin]),
        (Kind::ForgetRooms, &[NotAdmin]),
        (Kind::ForgetSessions, &[NotAdmin]),
        (Kind::ForgetAuditEntries, &[NotAdmin]),
        (Kind::SetPolicy, &[NotAdmin]),
        (Kind::RotateGuestKey, &[NotAdmin]),
        (Kind::OfferSetup, &[NotAdmin, HasAdmin]),
    ]
};

/// Reasons that the ledger or the function `may` can return, but that this test does not produce, each with the cause.
const NOT_PRODUCED: &[(Reason, &str)] = &[
    (Reason::NotStored, "only where a nonce is used that can't be found"),
    (Reason::Busy, "only where a whole batch can't be stored"),
    (Reason::AccountRequired, "a guest's id is no account's, so `not_yours` comes first"),
];

/// How often each kind must be accepted.
const ACCEPTED_MIN: u32 = 100;
/// How often each kind must be refused for each of its reasons, and each kind of message be recognised as a retry.
const REFUSED_MIN: u32 = 10;

/// The result of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accepted,
    Duplicate,
    Refused(Reason),
}

impl Verdict {
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Refused { rejection, .. } | Outcome::JoinRefused { rejection, .. } => {
                Self::Refused(rejection.reason)
            }
            Outcome::Duplicate(_) => Self::Duplicate,
            Outcome::Stored { .. } | Outcome::Joined { .. } | Outcome::Left { .. } | Outcome::Changed { .. } => {
                Self::Accepted
            }
        }
    }

    fn least(self) -> u32 {
        if self == Self::Accepted { ACCEPTED_MIN } else { REFUSED_MIN }
    }
}

/// The count of each result.
pub struct Table(BTreeMap<(Kind, Verdict), u32>);

impl Table {
    /// A table with a count of zero for each result that must occur.
    pub fn new() -> Self {
        let mut cells = BTreeMap::new();
        for (kind, reasons) in KINDS {
            let is_message = matches!(kind, Kind::Text | Kind::Announcement | Kind::Delete);
            let verdicts = [Verdict::Accepted].into_iter().chain(is_message.then_some(Verdict::Duplicate));
            let verdicts = verdicts.chain(reasons.iter().map(|reason| Verdict::Refused(*reason)));
            cells.extend(verdicts.map(|verdict| ((*kind, verdict), 0)));
        }
        Self(cells)
    }

    /// Counts a result. Returns false if the table has no such row.
    pub fn count(&mut self, kind: Kind, verdict: Verdict) -> bool {
        let cell = self.0.get_mut(&(kind, verdict));
        cell.map(|count| *count += 1).is_some()
    }

    /// The results that have not occurred often enough.
    pub fn missing(&self) -> Vec<(Kind, Verdict)> {
        let few = self.0.iter().filter(|((_, verdict), count)| **count < verdict.least());
        few.map(|(cell, _)| *cell).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = (Kind, Verdict)> {
        self.0.keys().copied()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, _) in KINDS {
            write!(f, "{:<15}", format!("{kind:?}"))?;
            for ((_, verdict), count) in
                self.0.range((*kind, Verdict::Accepted)..).take_while(|((of, _), _)| of == kind)
            {
                match verdict {
                    Verdict::Accepted => write!(f, " accepted {count}")?,
                    Verdict::Duplicate => write!(f, ", duplicate {count}")?,
                    Verdict::Refused(reason) => write!(f, ", {} {count}", reason.word())?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Every reason that the ledger's code names has a row in the table, or is explained in [`NOT_PRODUCED`].
#[test]
fn each_reason_that_apply_names_has_a_row() {
    let sources = [
        include_str!("../../ledger.rs"),
        include_str!("../accounts.rs"),
        include_str!("../changes.rs"),
        include_str!("../names.rs"),
        include_str!("../rooms.rs"),
        include_str!("../../policy.rs"),
        include_str!("../../sqlite/people/mod.rs"),
        include_str!("../../sqlite/people/invitations.rs"),
        include_str!("../../sqlite/people/sessions.rs"),
        include_str!("../../../auth/permission.rs"),
    ];
    let mut named = BTreeSet::new();
    for source in sources {
        let code = source.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for (at, _) in code.match_indices("Reason::") {
            let word: String = code[at + "Reason::".len()..].chars().take_while(|c| c.is_alphanumeric()).collect();
            named.extend(Reason::ALL.iter().find(|reason| format!("{reason:?}") == word));
        }
    }
    let rows: BTreeSet<_> = KINDS.iter().flat_map(|(_, reasons)| *reasons).copied().collect();
    let otherwise: BTreeSet<_> = NOT_PRODUCED.iter().map(|(reason, _)| *reason).collect();
    let without: Vec<_> = named.iter().filter(|reason| !rows.contains(reason) && !otherwise.contains(reason)).collect();
    assert!(without.is_empty(), "no row for {without:?}");
    let unnamed: Vec<_> = otherwise.iter().filter(|reason| rows.contains(reason)).collect();
    assert!(unnamed.is_empty(), "both with a row and without: {unnamed:?}");
    assert!(named.len() > 30, "{named:?}");
}
