//! Helpers for the store's tests: entries to propose, and a store without threads to propose them to.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::accounts::{SessionId, SessionKind};
use super::change::{AccountRef, Change, Done, NewAccount, NewRole, NewSession, Restrict};
use super::engine::Store;
use super::entry::{By, Entry, Event, Join, NewMessage, Outcome, Principal, Proof, Proposal, ReplyTo};
use super::log::clock::{Moment, Reading};
use super::sqlite::schema::Database;
use super::terms::Terms;
use super::{Kinds, ReadError, Reader, Side, Stored, TokenHash};
use crate::auth::name::Skeletons;
use crate::config::{Durability, Keep};
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{ConnectionId, FrameId, Nonce, Person, RoomId, Seq, UserId, Username};
use crate::protocol::{After, BanChange, Body, Restrictions, RoomPatch};

pub const NETWORK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

pub fn username(name: &str) -> Username {
    Username::parse(name).unwrap()
}

fn name_of(number: u128) -> Username {
    username(&format!("user {number}"))
}

fn principal(number: u128, proof: Proof) -> Arc<Principal> {
    let person = Arc::new(Person::guest(user(number), name_of(number)));
    Arc::new(Principal { person, proof, network: NETWORK })
}

/// A client without a token.
pub fn stranger(number: u128) -> Arc<Principal> {
    principal(number, Proof::None)
}

/// A guest with a signed token.
pub fn signed_guest(number: u128, issued_ms: u64) -> Arc<Principal> {
    principal(number, Proof::SignedGuest { issued_ms })
}

/// The same client under another name.
pub fn named(principal: &Principal, name: &str) -> Arc<Principal> {
    let person = Arc::new(Person { username: username(name), ..Person::clone(&principal.person) });
    Arc::new(Principal { person, ..principal.clone() })
}

/// A logged-in client.
pub fn logged_in(number: u128) -> Arc<Principal> {
    principal(number, Proof::Account(SessionId(number as i64)))
}

pub fn new_account(number: u128, role: Role) -> NewAccount {
    let name = name_of(number);
    NewAccount { id: user(number), skeletons: Skeletons::of(&name), name, role, password: None }
}

pub fn new_session(number: i64, kind: SessionKind, token: Option<&str>) -> NewSession {
    let (id, token_hash) = (SessionId(number), token.map(TokenHash::of));
    NewSession { id, kind, token_hash, label: "a browser".into(), span_ms: None }
}

pub fn nonce(text: &str) -> Nonce {
    Nonce::parse(text).unwrap()
}

pub fn text(content: &str) -> Body {
    Body::Text { content: content.into(), reply_to: None }
}

/// A message from a connection in the room.
pub fn message(name: &str, author: &Arc<Principal>, content: &str) -> NewMessage {
    let (room, author, body) = (room(name), Arc::clone(author), text(content));
    NewMessage { room, author, body, nonce: None, is_member: true, unless_stored: None }
}

impl NewMessage {
    pub fn with_nonce(self, text: &str) -> Self {
        Self { nonce: Some(nonce(text)), ..self }
    }

    pub fn with_body(self, body: Body) -> Self {
        Self { body, ..self }
    }
}

/// A client joins with its first connection; see [`of_connection`].
pub fn join(name: &str, principal: &Arc<Principal>) -> Entry {
    let (room, principal) = (room(name), Arc::clone(principal));
    Entry::Join(Join { room, connection: ConnectionId(1), principal, skeletons: None, known: None, after: None })
}

pub fn join_after(name: &str, principal: &Arc<Principal>, after: FrameId) -> Entry {
    let (room, principal, after) = (room(name), Arc::clone(principal), Some(After::Id(after)));
    Entry::Join(Join { room, connection: ConnectionId(1), principal, skeletons: None, known: None, after })
}

pub fn leave(name: &str, principal: &Principal) -> Entry {
    Entry::Leave { room: room(name), user: principal.user(), connection: ConnectionId(1) }
}

/// The same join or leave by another connection of its client.
pub fn of_connection(number: u64, mut entry: Entry) -> Entry {
    let (Entry::Join(Join { connection, .. }) | Entry::Leave { connection, .. }) = &mut entry else { unreachable!() };
    *connection = ConnectionId(number);
    entry
}

pub fn change(by: By, change: Change) -> Entry {
    Entry::Change { by, change: Box::new(change) }
}

pub fn by(client: &Arc<Principal>) -> By {
    By::Client(Arc::clone(client))
}

pub fn set_room(name: &str, patch: RoomPatch) -> Change {
    Change::SetRoom { room: room(name), patch }
}

fn restrict(target: &Arc<Principal>, restrictions: Restrictions) -> Change {
    let (user, target) = (target.user(), Some(Arc::clone(target)));
    Change::Restrict(Restrict { user, restrictions, target, networks: vec![NETWORK], is_shared: false })
}

/// A mute until a wall time.
pub fn mute(target: &Arc<Principal>, until_ms: u64) -> Change {
    restrict(target, Restrictions { mute_until_ms: Some(until_ms), ban: None })
}

pub fn ban(target: &Arc<Principal>) -> Change {
    let ban = BanChange::Ban { until_ms: None, reason: "spam".into(), by_address: None };
    restrict(target, Restrictions { mute_until_ms: None, ban: Some(ban) })
}

pub fn kick(name: &str, target: &Arc<Principal>) -> Change {
    Change::Kick { room: room(name), user: target.user(), target: Some(Arc::clone(target)) }
}

pub fn set_role(number: u128, role: Role) -> Change {
    Change::SetRole(NewRole { account: AccountRef::Id(user(number)), role })
}

pub fn proposals(entries: impl IntoIterator<Item = Entry>) -> Vec<Proposal> {
    let proposal = |entry| Proposal { entry, reply_to: ReplyTo::None };
    entries.into_iter().map(proposal).collect()
}

/// Describes an outcome in a few words.
pub fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Stored { room, stored, .. } => format!("{room} {}", stored.seq.0),
        Outcome::Duplicate(stored) => format!("duplicate {}", stored.seq.0),
        Outcome::Refused { rejection, .. } => rejection.reason.word().into(),
        Outcome::Joined { past, seen, .. } => {
            let past = past.as_ref().unwrap();
            format!("join {} of {}, seen {:?}", past.frames.len(), past.head.0, seen.map(|seq| seq.0))
        }
        Outcome::JoinRefused { rejection, .. } => format!("no join: {}", rejection.reason.word()),
        Outcome::Left { .. } => "leave".into(),
        Outcome::Changed { .. } => "changed".into(),
    }
}

pub fn contents(frames: &[Stored]) -> Vec<String> {
    let content = |stored: &Stored| {
        let frame: serde_json::Value = serde_json::from_slice(&stored.json).unwrap();
        assert_eq!(frame["seq"], stored.seq.0);
        frame["content"].as_str().unwrap().to_owned()
    };
    frames.iter().map(content).collect()
}

/// The frames of a room on one side of a seq, or the messages there that have some words.
pub fn page(
    reader: &Reader,
    room: &RoomId,
    side: Side,
    kinds: Kinds,
    limit: usize,
    words: Option<&str>,
) -> Vec<Stored> {
    let Some(words) = words else { return reader.view(|view| view.page(room, side, kinds, limit)).unwrap() };
    let (terms, deadline) = (Terms::parse(words).unwrap(), Instant::now() + SEARCH_WAIT);
    let found = reader.search(room, &terms, limit, deadline, |_| Ok::<_, ReadError>(side.into())).unwrap();
    assert_eq!(found.stopped_at, None, "the search took too long");
    found.frames
}

/// How long a search in a test may take.
const SEARCH_WAIT: Duration = Duration::from_secs(60);

/// A store whose log time the test controls.
pub struct Rig {
    pub store: Store,
    pub reader: Reader,
    /// The moment of the next batch.
    pub moment: Moment,
    directory: Option<tempfile::TempDir>,
}

impl Rig {
    pub fn in_memory() -> Self {
        let (store, reader) = Store::in_memory(Keep::default(), Reading::now()).unwrap();
        Self::new(store, reader, None)
    }

    pub fn in_file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, reader) = Self::open(&directory.path().join("adda.db"));
        Self::new(store, reader, Some(directory))
    }

    fn open(path: &Path) -> (Store, Reader) {
        let (database, connection) = Database::open(path, Durability::Normal).unwrap();
        let (durability, keep) = (Durability::Normal, Keep::default());
        Store::of_database(&Arc::new(database), connection, durability, keep, Reading::now()).unwrap()
    }

    fn new(store: Store, reader: Reader, directory: Option<tempfile::TempDir>) -> Self {
        // Wall time is an hour ahead, so that the two can't be confused.
        let clock_ms = reader.moment().clock_ms;
        let moment = Moment { clock_ms, wall_ms: clock_ms + 3_600_000, index: 1 << 30, ahead_ms: 3_600_000 };
        Self { store, reader, moment, directory }
    }

    /// The same database, opened by a new process.
    pub fn restarted(self) -> Self {
        let Self { store, reader, moment, directory } = self;
        drop((store, reader));
        let directory = directory.unwrap();
        let (store, reader) = Self::open(&directory.path().join("adda.db"));
        Self { store, reader, moment, directory: Some(directory) }
    }

    /// Advances log time.
    pub fn pass(&mut self, ms: u64) {
        self.moment.clock_ms += ms;
        self.moment.wall_ms += ms;
    }

    pub fn apply(&mut self, entries: impl IntoIterator<Item = Entry>) -> Vec<Outcome> {
        self.moment.index += 1;
        let applied = self.store.apply(vec![(self.moment, proposals(entries))]);
        applied.into_iter().map(|applied| applied.result).collect()
    }

    pub fn words(&mut self, entries: impl IntoIterator<Item = Entry>) -> Vec<String> {
        self.apply(entries).iter().map(word).collect()
    }

    /// Applies one entry and describes its outcome.
    pub fn word(&mut self, entry: Entry) -> String {
        word(&self.apply([entry])[0])
    }

    pub fn send(&mut self, message: NewMessage) -> String {
        self.word(Entry::Message(message))
    }

    /// Stores a message and returns its frame.
    pub fn stored(&mut self, message: NewMessage) -> Stored {
        match self.apply([Entry::Message(message)]).pop() {
            Some(Outcome::Stored { stored, .. }) => stored,
            other => panic!("{other:?}"),
        }
    }

    pub fn change(&mut self, by: By, made: Change) -> Result<(Done, Vec<Event>), Reason> {
        match self.apply([change(by, made)]).pop() {
            Some(Outcome::Changed { done, events }) => Ok((done, events)),
            Some(Outcome::Refused { rejection, .. }) => Err(rejection.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Creates an account and returns a client that is logged in to it.
    pub fn account(&mut self, number: u128, role: Role) -> Arc<Principal> {
        self.change(By::Operator, Change::CreateAccount(new_account(number, role))).unwrap();
        logged_in(number)
    }

    pub fn number(&self, sql: &str) -> i64 {
        self.store.on_connection(|connection| connection.query_row(sql, [], |row| row.get(0)).unwrap())
    }

    /// All kept messages of a room, or those that have some words.
    pub fn page(&self, name: &str, words: Option<&str>) -> Vec<String> {
        let side = Side::After(Seq(0));
        let page = page(&self.reader, &room(name), side, Kinds::Messages, 9_999, words);
        contents(&page)
    }
}

/// Runs a test on both storages.
pub fn in_both(test: impl Fn(Rig)) {
    test(Rig::in_memory());
    test(Rig::in_file());
}
