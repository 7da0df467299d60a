//! The log: gives each batch of entries its position and its moment.
//!
//! A local log passes a batch straight to the store, on the same thread and without serialising it. The format in which
//! a batch travels to another node is fixed here, so that a second kind of log needs no other change.

pub mod clock;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::{Entry, Proposal};
use clock::{ClockEvent, LogClock, Moment, Reading, Stored};

/// The version of [`Batch`] that this program writes, and the newest version that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The source of positions and moments.
#[derive(Debug)]
pub enum Log {
    /// In this process, for this database alone.
    Local(LogClock),
}

impl Log {
    /// The moment of the next batch.
    pub fn next_moment(&mut self) -> Moment {
        match self {
            Self::Local(clock) => {
                let (moment, event) = clock.moment(Reading::now());
                report(event);
                moment
            }
        }
    }

    /// Reads the clocks while there is no batch. Returns the log time.
    pub fn observe(&mut self) -> u64 {
        match self {
            Self::Local(clock) => {
                report(clock.observe(Reading::now()));
                clock.shared().now().clock_ms
            }
        }
    }

    /// The position to store with the batch of the last moment.
    #[must_use]
    pub fn stored(&self) -> Stored {
        match self {
            Self::Local(clock) => clock.stored(Reading::now()),
        }
    }
}

fn report(event: Option<ClockEvent>) {
    if let Some(event) = event {
        ::log::warn!("{event}");
    }
}

/// A batch of entries as it travels.
///
/// The proposing process numbers its batches from 1. A batch must be applied only if its number is the next of its
/// incarnation, so that a batch that was sent twice counts once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub version: u32,
    /// The run of the process that proposes it.
    pub incarnation: Uuid,
    pub number: u64,
    pub entries: Vec<Entry>,
}

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("the batch has version {found}, and this program reads up to {FORMAT_VERSION}")]
    Newer { found: u32 },
    #[error("the batch can't be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Batch {
    /// Makes a batch of the entries of proposals. The addresses for the results stay here.
    #[must_use]
    pub fn of(incarnation: Uuid, number: u64, proposals: &[Proposal]) -> Self {
        let entries = proposals.iter().map(|proposal| proposal.entry.clone()).collect();
        Self { version: FORMAT_VERSION, incarnation, number, entries }
    }

    /// Encodes the batch as JSON. JSON names its fields, and a field that is added later has a default.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to memory can't fail, and every field has a representation in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a batch of this version or an older one.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        match serde_json::from_slice(bytes)? {
            Versioned { version } if version > FORMAT_VERSION => Err(BatchError::Newer { found: version }),
            Versioned { .. } => Ok(serde_json::from_slice(bytes)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::{AccountRef, Change, Policy, Use};
    use super::super::entry::{By, ReplyTo};
    use super::super::sqlite::people::{AuditId, SessionId};
    use super::super::testing::{
        ban, by, change, join_after, kick, leave, logged_in, message, mute, new_account, new_session, proposals, room,
        set_role, set_room, signed_guest, stranger, user,
    };
    use super::*;
    use crate::auth::guest_token::GuestKey;
    use crate::model::reason::Reason;
    use crate::model::role::Role;
    use crate::model::{FrameId, Seq};
    use crate::protocol::{Body, RoomPatch};
    use crate::store::TokenHash;
    use crate::store::accounts::SessionKind;

    /// Entries of each type that a client, the operator and the server propose.
    fn entries() -> Vec<Entry> {
        let (guest, admin) = (signed_guest(3, 1_000), logged_in(1));
        let frame = FrameId(Uuid::from_u128(5));
        let limited = Some(Box::new(Reason::RateLimited.because("retry in 2 s").retry_after(2_000)));
        let refused = super::super::entry::NewMessage {
            unless_stored: limited, ..message("চা", &guest, "বৃষ্টি \"\\\n")
        };
        let announcement = Body::Announcement { content: "hi".into() };
        let account = || new_account(7, Role::User);
        let login = |token| new_session(70, SessionKind::Login, token);
        vec![
            Entry::Message(message("tea", &stranger(2), "hi").with_nonce("n")),
            Entry::Message(message("tea", &guest, "").with_body(Body::Delete { message_id: frame })),
            Entry::Message(
                message("tea", &admin, "").with_body(Body::Text { content: "x".into(), reply_to: Some(frame) }),
            ),
            Entry::Message(refused),
            Entry::Announcement {
                rooms: vec![room("tea"), room("jam")],
                message: message("tea", &admin, "").with_body(announcement),
            },
            join_after("tea", &guest, frame),
            leave("tea", &guest),
            change(By::Operator, Change::CreateAccount(account())),
            change(
                by(&guest),
                Change::Register {
                    account: account(),
                    invitation: Some(TokenHash::of("code")),
                    session: login(Some("token")),
                    replaces: Some(SessionId(4)),
                },
            ),
            change(By::Operator, Change::CreateToken { account: account(), session: login(None) }),
            change(by(&admin), set_room("tea", RoomPatch { slow_mode_s: Some(3), ..RoomPatch::default() })),
            change(by(&admin), mute(&guest, u64::MAX)),
            change(by(&admin), ban(&guest)),
            change(by(&admin), kick("tea", &guest)),
            change(By::Operator, set_role(1, Role::Admin)),
            change(By::Operator, Change::RemoveAccount { account: AccountRef::Id(user(1)) }),
            change(By::Operator, Change::RotateGuestKey { key: GuestKey::from_bytes([9; 32]) }),
            change(By::Operator, Change::OfferSetup { code_hash: TokenHash::of("code"), span_ms: 3_600_000 }),
            change(by(&guest), Change::EndSession { session: SessionId(1 << 52) }),
            change(By::Server, Change::SetPolicy(Policy::default())),
            change(
                By::Server,
                Change::Seen {
                    sessions: vec![Use::Session(SessionId(1)), Use::SignedGuest { user: user(3), issued_ms: 1_000 }],
                },
            ),
            change(By::Server, Change::Forget { room: room("tea"), up_to: Seq(u64::MAX) }),
            change(By::Server, Change::EraseMessages { room: room("tea"), messages: vec![frame] }),
            change(By::Server, Change::ForgetRooms { rooms: vec![room("tea")] }),
            change(By::Server, Change::ForgetSessions { sessions: vec![SessionId(1)] }),
            change(By::Server, Change::ForgetAuditEntries { entries: vec![AuditId(1)] }),
        ]
    }

    #[test]
    fn a_batch_survives_encoding_and_decoding() {
        let incarnation = Uuid::from_u128(42);
        let mut proposed = proposals(entries());
        proposed[0].reply_to = ReplyTo::Request(7);
        let batch = Batch::of(incarnation, 17, &proposed);
        assert_eq!((batch.version, batch.incarnation, batch.number), (FORMAT_VERSION, incarnation, 17));
        assert_eq!(batch.entries, entries());
        assert_eq!(Batch::decode(&batch.encode()).unwrap(), batch);
        let empty = Batch::of(incarnation, 18, &[]);
        assert_eq!(Batch::decode(&empty.encode()).unwrap(), empty);
    }

    #[test]
    fn a_newer_batch_and_a_malformed_batch_are_refused() {
        let batch = Batch::of(Uuid::from_u128(42), 17, &proposals(entries()));
        let newer = Batch { version: FORMAT_VERSION + 1, ..batch.clone() };
        let refused = Batch::decode(&newer.encode());
        assert!(matches!(refused, Err(BatchError::Newer { found }) if found == FORMAT_VERSION + 1), "{refused:?}");
        // Entries of a newer version may be of a kind that this program does not know.
        let unknown = format!(r#"{{"version":{},"incarnation":"x","entries":[{{"Later":1}}]}}"#, FORMAT_VERSION + 1);
        assert!(matches!(Batch::decode(unknown.as_bytes()), Err(BatchError::Newer { .. })));
        let bytes = batch.encode();
        for broken in [&bytes[..bytes.len() - 1], b"", b"{}", b"[]", br#"{"version":1}"#, br#"{"version":-1}"#] {
            assert!(
                matches!(Batch::decode(broken), Err(BatchError::Malformed(_))),
                "{}",
                String::from_utf8_lossy(broken)
            );
        }
    }
}
