//! A small world of users and rooms, and the entries that its users propose.
//!
//! The world knows the results of earlier entries, so most of its entries make sense. It aims at one verdict for each
//! entry. If the state does not allow that verdict yet, it proposes a step towards it.

mod accounts;
mod messages;
mod moderation;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use uuid::Uuid;

use super::super::super::TokenHash;
use super::super::super::change::{
    AccountRef, Change, Done, NewAccount, NewInvitation, NewLogin, NewRole, NewSession, Policy, Restrict, Use,
};
use super::super::super::entry::{
    By, Entry, Event, Join, NewMessage, Outcome, Principal, Proof, Proposal, Renamed, ReplyTo, Stored,
};
use super::super::super::log::clock::Moment;
use super::super::super::policy::PolicySnapshot;
use super::super::super::sqlite::people::{AuditId, Banned, InvitationId, SessionId, SessionKind};
use super::table::{Kind, Verdict};
use crate::auth::credential::{GUEST_SPAN_MS, LOGIN_SPAN_MS};
use crate::auth::guest_token::GuestKey;
use crate::auth::name::Skeletons;
use crate::auth::password::PasswordHash;
use crate::auth::permission::{Action, PermissionContext, RegistrationCode, Target, may};
use crate::limits::RENAME_INTERVAL_MS;
use crate::model::reason::Reason;
use crate::model::role::{Accounts, Posting, Registration, Role};
use crate::model::{
    ConnectionId, FrameId, Nonce, Person, ROOM_DEFAULT, RoomId, Seq, USERNAME_DEFAULT, UserId, Username,
};
use crate::protocol::{AddressBan, AddressBanTerms, After, BanChange, Body, Restrictions, RoomPatch};

const ROOMS: [&str; 4] = ["tea", "jam", "আড্ডা", "attic"];
/// Names of accounts. The last name looks like the first.
const NAMES: [&str; 8] = ["ana", "রহিম", "eli", "fay", "gus", "ivo", "kim", "Аna"];
const GUEST_NAMES: [&str; 5] = [USERNAME_DEFAULT, "zoe", "wim", "রহিমা", "José"];
/// Words of messages. Searches use them too.
pub const WORDS: [&str; 9] = ["hello", "চা", "kettle", "José", "সকাল", "C++", "🎂", "ข้าวผัด", "喝茶"];
const NETWORKS: u8 = 3;
const GUESTS_MIN: usize = 3;
const CLIENTS_MAX: usize = 16;
const ACCOUNTS_MIN: usize = 3;
const ACCOUNTS_MAX: usize = 6;
const CONNECTIONS_MAX: usize = 14;
const SENT_MAX: usize = 24;
/// Users, sessions and tokens that are compared one by one, at most.
const NOTED_MAX: usize = 40;
/// If a room has more frames, most of them are forgotten, as memory keeps no more than 200.
const FRAMES_MANY: usize = 110;
/// The longest mute, ban or span, so that each is over at some time.
const RESTRICTED_MS_MAX: u64 = 90_000;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    pub fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    pub fn of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(self.next()) << 64 | u128::from(self.next()))
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_be_bytes()));
        bytes
    }

    /// A random number for a session or an invitation, as proposers choose it.
    fn key(&mut self) -> i64 {
        (self.next() >> 11).max(1) as i64
    }

    fn token_hash(&mut self) -> TokenHash {
        TokenHash::of_bytes(&self.bytes())
    }
}

type Client = Arc<Principal>;
/// An entry with the intended verdict, or a step towards it.
type Made = Result<Entry, Entry>;

struct KnownAccount {
    id: UserId,
    name: Username,
    password: Option<PasswordHash>,
}

struct KnownInvitation {
    id: InvitationId,
    code_hash: TokenHash,
    room: Option<RoomId>,
    uses_left: u32,
    expires_ms: u64,
}

/// The latest setup link.
#[derive(Clone, Copy)]
pub struct KnownSetup {
    pub code_hash: TokenHash,
    expires_ms: u64,
    is_spent: bool,
}

#[derive(Clone)]
struct KnownFrame {
    id: FrameId,
    author: UserId,
    seq: Seq,
    is_message: bool,
}

pub struct World {
    pub random: Random,
    moment: Moment,
    /// Whether the next moment is more than a minute later. Ended sessions are not remembered then.
    waits: bool,
    policy: PolicySnapshot,
    rooms: Vec<RoomId>,
    /// The current rooms and all earlier rooms.
    pub all_rooms: Vec<RoomId>,
    clients: Vec<Client>,
    /// Guests whose session is over and no longer remembered.
    over: Vec<Client>,
    accounts: Vec<KnownAccount>,
    sessions: VecDeque<SessionId>,
    pub users: VecDeque<UserId>,
    pub token_hashes: VecDeque<TokenHash>,
    ended: BTreeSet<SessionId>,
    invitations: VecDeque<KnownInvitation>,
    pub setup: Option<KnownSetup>,
    /// How many admins have registered by a setup link.
    pub setups_used: u32,
    frames: BTreeMap<RoomId, Vec<KnownFrame>>,
    heads: BTreeMap<RoomId, Seq>,
    sent: VecDeque<Entry>,
    /// The room and seq of the message that a user sent with a nonce. An entry is removed with its message.
    nonces: HashMap<(UserId, Nonce), (RoomId, Seq)>,
    connections: Vec<(RoomId, Client, ConnectionId)>,
    connections_made: u64,
    /// The name of each user that has connections, and when it was chosen while the user had some.
    names: HashMap<UserId, Username>,
    renamed: HashMap<UserId, u64>,
    kicked: Vec<(RoomId, UserId)>,
    last_message: BTreeMap<(RoomId, UserId), u64>,
    rooms_made: usize,
}

/// The first rooms of every world.
pub fn rooms() -> impl Iterator<Item = RoomId> {
    ROOMS.iter().map(|name| room(name))
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn change(by: By, change: Change) -> Entry {
    Entry::Change { by, change: Box::new(change) }
}

fn by(client: &Client) -> By {
    By::Client(Arc::clone(client))
}

impl World {
    pub fn new(seed: u64, moment: Moment, policy: PolicySnapshot) -> Self {
        let rooms: Vec<_> = rooms().collect();
        Self {
            random: Random(seed),
            moment,
            waits: false,
            policy,
            all_rooms: rooms.clone(),
            rooms,
            clients: Vec::new(),
            over: Vec::new(),
            accounts: Vec::new(),
            sessions: VecDeque::new(),
            users: VecDeque::new(),
            token_hashes: VecDeque::new(),
            ended: BTreeSet::new(),
            invitations: VecDeque::new(),
            setup: None,
            setups_used: 0,
            frames: BTreeMap::new(),
            heads: BTreeMap::new(),
            sent: VecDeque::new(),
            nonces: HashMap::new(),
            connections: Vec::new(),
            connections_made: 0,
            names: HashMap::new(),
            renamed: HashMap::new(),
            kicked: Vec::new(),
            last_message: BTreeMap::new(),
            rooms_made: 0,
        }
    }

    /// The first entries, on which the stores must agree before anything else.
    pub fn first(&mut self) -> Vec<Proposal> {
        let key = GuestKey::from_bytes(self.random.bytes());
        vec![Proposal::unanswered(change(By::Operator, Change::RotateGuestKey { key }))]
    }

    /// The moment of the next batch.
    pub fn tick(&mut self) -> Moment {
        let random = &mut self.random;
        let by_ms = match random.below(1_000) {
            _ if std::mem::take(&mut self.waits) => 60_000 + random.below(2_000),
            0..400 => random.below(3),
            400..850 => random.below(2_000),
            850..970 => random.below(30_000),
            970..992 => 60_000 + random.below(60_000),
            992..998 => 3_600_000 + random.below(3),
            _ => (30 + random.below(70)) * 86_400_000,
        };
        self.moment.clock_ms += by_ms as u64;
        self.moment.index += 1;
        self.moment.wall_ms += by_ms as u64;
        // The wall clock is set forward or back.
        if random.once_in(50) {
            self.moment.wall_ms = self.moment.wall_ms + 5_000_000 - random.below(10_000_000) as u64;
        }
        self.moment.ahead_ms = self.moment.wall_ms.cast_signed() - self.moment.clock_ms.cast_signed();
        self.moment
    }

    /// The entries of the next batch, given the current policy. Most aim at one of `aims`. The others are messages and
    /// retries, so many that a fault of one nonce in 64 shows.
    pub fn batch(&mut self, policy: PolicySnapshot, aims: &[(Kind, Verdict)]) -> Vec<Proposal> {
        self.policy = policy;
        self.renew();
        let count = 1 + if self.random.once_in(2) { 0 } else { self.random.below(7) };
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((kind, verdict)) = self.random.of(aims).copied() else { break };
            let made = match self.random.below(8) {
                0 | 1 if !self.sent.is_empty() => Ok(self.retry()),
                2 => self.message(Kind::Text, Verdict::Accepted),
                _ => self.entry(kind, verdict),
            };
            let entry = made.unwrap_or_else(|step| step);
            let entry = if self.random.once_in(9) { self.mutated(entry) } else { entry };
            let reply_to = match self.random.below(4) {
                0 => ReplyTo::None,
                1 => ReplyTo::Connection(ConnectionId(self.random.next() % 100)),
                2 => ReplyTo::Member(self.random.below(20)),
                _ => ReplyTo::Request(self.random.next() % 1_000),
            };
            batch.push(Proposal { entry, reply_to });
        }
        batch
    }

    /// A leave of every connection, as before a restart.
    pub fn all_leave(&self) -> Vec<Proposal> {
        let leave = |(room, client, connection): &(RoomId, Client, ConnectionId)| {
            let (room, user, connection) = (room.clone(), client.user(), *connection);
            Proposal::unanswered(Entry::Leave { room, user, connection })
        };
        self.connections.iter().map(leave).collect()
    }

    /// The number of connections in a room.
    pub fn connections(&self, room: &RoomId) -> usize {
        self.connections.iter().filter(|(of, ..)| of == room).count()
    }

    fn is_present(&self, room: &RoomId, user: UserId) -> bool {
        self.connections.iter().any(|(of, client, _)| of == room && client.user() == user)
    }

    /// Notes the results of an entry.
    pub fn learn(&mut self, entry: &Entry, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome {
                Outcome::Stored { room, stored, .. } => self.learn_frame(entry, room, stored),
                Outcome::Duplicate(stored) => {
                    let sent_before = sent_with(entry).and_then(|key| self.nonces.get(&key));
                    assert_eq!(sent_before.map(|(_, seq)| *seq), Some(stored.seq), "no retry: {entry:?}");
                }
                Outcome::Left { room } => {
                    let Entry::Leave { user, connection, .. } = entry else { continue };
                    self.connections.retain(|(of, client, one)| (of, client.user(), one) != (room, *user, connection));
                    if !self.is_present(room, *user) {
                        self.kicked.retain(|kicked| *kicked != (room.clone(), *user));
                    }
                    if !self.connections.iter().any(|(_, client, _)| client.user() == *user) {
                        self.names.remove(user);
                        self.renamed.remove(user);
                    }
                }
                Outcome::Joined { room, username, events, .. } => {
                    let Entry::Join(join) = entry else { continue };
                    for event in events {
                        match event {
                            Event::Renamed(renamed) => self.learn_rename(renamed, true),
                            Event::Noticed { room, stored } => self.learn_notice(join.principal.user(), room, stored),
                            other => panic!("{other:?}"),
                        }
                    }
                    let principal = &join.principal;
                    let username = username.as_ref().unwrap_or(&principal.person.username).clone();
                    let known = self.names.insert(principal.user(), username.clone());
                    assert!(known.is_none_or(|known| known == username), "a second name: {entry:?}");
                    self.kicked.retain(|kicked| *kicked != (room.clone(), join.principal.user()));
                    self.connections.push((room.clone(), Arc::clone(&join.principal), join.connection));
                }
                Outcome::Changed { done, events } => {
                    let Entry::Change { by, change } = entry else { continue };
                    for event in events {
                        match event {
                            Event::SessionsEnded { sessions, .. } => self.ended.extend(sessions),
                            Event::Kicked { room, user } => self.kicked.push((room.clone(), *user)),
                            Event::Forgotten { room, up_to } => {
                                self.frames.entry(room.clone()).or_default().retain(|frame| frame.seq > *up_to);
                                self.nonces.retain(|_, (of, seq)| of != room || *seq > *up_to);
                            }
                            Event::Erased { room, messages } => {
                                let is_erased = |id| messages.iter().any(|message| message.id == id);
                                let frames = self.frames.entry(room.clone()).or_default();
                                frames.iter_mut().for_each(|frame| frame.is_message &= !is_erased(frame.id));
                            }
                            Event::Renamed(renamed) => {
                                self.learn_rename(renamed, matches!(**change, Change::NameGuest { .. }));
                            }
                            Event::Noticed { room, stored } => self.learn_notice(by.user(), room, stored),
                            _ => {}
                        }
                    }
                    self.learn_change(by, change, done);
                }
                _ => {}
            }
        }
    }

    /// `is_chosen` says that the user has chosen the name.
    fn learn_rename(&mut self, Renamed { user, username, former, stored }: &Renamed, is_chosen: bool) {
        let before = self.names.insert(*user, username.clone());
        assert_eq!(before.as_ref(), Some(former), "of a user in no room, or with another name");
        self.renamed.remove(user);
        if is_chosen {
            self.renamed.insert(*user, self.moment.clock_ms);
        }
        for (room, stored) in stored {
            assert!(self.is_present(room, *user), "{user:?} is not in {room}");
            let frame = KnownFrame { id: stored.id, author: *user, seq: stored.seq, is_message: false };
            self.frames.entry(room.clone()).or_default().push(frame);
            self.heads.insert(room.clone(), stored.seq);
        }
    }

    fn learn_notice(&mut self, author: UserId, room: &RoomId, stored: &Stored) {
        let frame = KnownFrame { id: stored.id, author, seq: stored.seq, is_message: true };
        self.frames.entry(room.clone()).or_default().push(frame);
        self.heads.insert(room.clone(), stored.seq);
    }

    /// Whether a user has chosen its name less than a minute ago.
    fn is_renamed(&self, user: UserId) -> bool {
        self.renamed.get(&user).is_some_and(|at_ms| at_ms + RENAME_INTERVAL_MS > self.moment.clock_ms)
    }

    fn learn_frame(&mut self, entry: &Entry, room: &RoomId, stored: &Stored) {
        let (Entry::Message(message) | Entry::Announcement { message, .. }) = entry else { return };
        let is_message = message.body.message_id().is_none();
        let author = message.author.user();
        self.note_user(author);
        let frame = KnownFrame { id: stored.id, author, seq: stored.seq, is_message };
        self.frames.entry(room.clone()).or_default().push(frame);
        self.heads.insert(room.clone(), stored.seq);
        if matches!(message.body, Body::Text { .. }) {
            self.last_message.insert((room.clone(), author), self.moment.clock_ms);
        }
        if let Some(deleted) = message.body.message_id() {
            self.frames.entry(room.clone()).or_default().iter_mut().for_each(|frame| {
                frame.is_message &= frame.id != deleted;
            });
        }
        if let Some(key) = sent_with(entry).filter(|_| message.room == *room) {
            let before = self.nonces.insert(key, (room.clone(), stored.seq));
            assert_eq!(before, None, "stored twice: {entry:?}");
            self.sent.push_back(entry.clone());
            if self.sent.len() > SENT_MAX {
                self.sent.pop_front();
            }
        }
    }

    fn learn_change(&mut self, by: &By, change: &Change, done: &Done) {
        match change {
            Change::CreateAccount(account) => self.learn_account(account),
            Change::Register { account, invitation, .. } => {
                let Done::Session { role, .. } = done else { panic!("no session: {done:?}") };
                let code = self.setup.filter(|setup| Some(setup.code_hash) == *invitation);
                let expected = match code.map(|setup| self.is_valid(setup)) {
                    Some(true) => Role::Admin,
                    Some(false) => panic!("a setup link counts twice: {change:?}"),
                    None => Role::User,
                };
                assert_eq!(*role, expected, "{change:?}");
                self.setups_used += u32::from(expected == Role::Admin);
                self.learn_account(&NewAccount { role: *role, ..account.clone() });
                invitation.iter().for_each(|code| self.learn_use(*code));
            }
            Change::CreateToken { account, .. } if matches!(done, Done::Session { is_new_account: true, .. }) => {
                self.learn_account(account);
            }
            Change::SetRole(NewRole { role: Role::Admin, .. }) => self.spend_setup(),
            Change::OfferSetup { code_hash, span_ms } => {
                let (code_hash, expires_ms) = (*code_hash, self.moment.clock_ms + span_ms);
                self.setup = Some(KnownSetup { code_hash, expires_ms, is_spent: false });
            }
            Change::SetPassword { account, password, .. } => {
                let is_one = |known: &KnownAccount| match account {
                    AccountRef::Id(id) => known.id == *id,
                    AccountRef::Name(name) => known.name == *name,
                };
                self.accounts.iter_mut().filter(|known| is_one(known)).for_each(|known| {
                    known.password = Some(password.clone());
                });
            }
            Change::RemoveAccount { account } => self.accounts.retain(|known| match account {
                AccountRef::Id(id) => known.id != *id,
                AccountRef::Name(name) => known.name != *name,
            }),
            Change::LogIn(NewLogin { user, renewed: Some(renewed), .. }) => {
                self.accounts.iter_mut().filter(|known| known.id == *user).for_each(|known| {
                    known.password = Some(renewed.clone());
                });
            }
            Change::Invite(invitation) => {
                let NewInvitation { id, code_hash, room, uses: uses_left, span_ms } = invitation.clone();
                let expires_ms = self.moment.clock_ms + span_ms;
                self.invitations.push_back(KnownInvitation { id, code_hash, room, uses_left, expires_ms });
            }
            Change::UseInvitation { code_hash, .. } => self.learn_use(*code_hash),
            Change::Revoke { invitation } => self.invitations.retain(|known| known.id != *invitation),
            _ => {}
        }
        let (Done::Session { user, username, .. }, Some(session)) = (done, session_of(change)) else { return };
        self.note_user(*user);
        self.note_session(session);
        let network = match by {
            By::Client(by) => by.network,
            By::Operator | By::Server => self.network(),
        };
        let proof = match (session.kind, session.token_hash) {
            (SessionKind::Guest, None) => Proof::SignedGuest { issued_ms: self.moment.clock_ms },
            (SessionKind::Guest, Some(_)) => Proof::Guest(session.id),
            (SessionKind::Login | SessionKind::Bot, _) => Proof::Account(session.id),
        };
        self.clients.retain(|client| client.session() != Some(session.id));
        let person = Arc::new(Person::guest(*user, username.clone()));
        self.clients.push(Arc::new(Principal { person, proof, network }));
    }

    /// An invitation may have been used. Whether the use counted depends on the user.
    fn learn_use(&mut self, code: TokenHash) {
        let known = self.invitations.iter_mut().filter(|known| known.code_hash == code);
        known.for_each(|known| known.uses_left = known.uses_left.saturating_sub(1));
    }

    fn learn_account(&mut self, account: &NewAccount) {
        let NewAccount { id, name, role, password, .. } = account.clone();
        self.note_user(id);
        self.accounts.push(KnownAccount { id, name, password });
        if role == Role::Admin {
            self.spend_setup();
        }
    }

    /// A new admin ends the setup link.
    fn spend_setup(&mut self) {
        self.setup.iter_mut().for_each(|setup| setup.is_spent = true);
    }

    fn is_valid(&self, setup: KnownSetup) -> bool {
        !setup.is_spent && setup.expires_ms > self.moment.clock_ms
    }

    fn note_session(&mut self, session: &NewSession) {
        note(&mut self.sessions, session.id);
        session.token_hash.into_iter().for_each(|hash| note(&mut self.token_hashes, hash));
    }

    fn note_user(&mut self, user: UserId) {
        note(&mut self.users, user);
    }

    /// Replaces clients and rooms that are of no more use.
    fn renew(&mut self) {
        let policy = &self.policy;
        let is_over = |client: &Client| {
            policy.role(client).is_ok() && client.session().is_some_and(|session| self.ended.contains(&session))
        };
        let (over, going_on): (Vec<_>, _) = self.clients.drain(..).partition(is_over);
        self.clients = going_on;
        self.over.extend(over.into_iter().filter(|client| client.is_guest()));
        let excess = self.over.len().saturating_sub(4);
        self.over.drain(..excess);
        let excess = self.clients.len().saturating_sub(CLIENTS_MAX);
        for _ in 0..excess {
            // An admin's session goes last, as there may be only one.
            let ended = self.clients.iter().position(|client| self.policy.role(client) != Ok(Role::Admin));
            self.clients.remove(ended.unwrap_or(0));
        }
        let is_fit = |client: &&Client| self.fits(client, Action::Enter, None, Target::Own, Ok(()));
        let guests = self.clients.iter().filter(|client| client.is_guest()).filter(is_fit).count();
        if guests < GUESTS_MIN && self.policy.flags.accounts == Accounts::Optional {
            let guest = self.guest();
            self.clients.push(guest);
        }
        if !self.clients.iter().any(|client| client.proof == Proof::None) {
            let guest = self.guest();
            self.clients.push(Arc::new(Principal { proof: Proof::None, ..Principal::clone(&guest) }));
        }
        let clock_ms = self.moment.clock_ms;
        self.invitations.retain(|known| {
            let is_open = known.room.as_ref().is_none_or(|room| self.policy.is_private(room));
            is_open && known.uses_left > 0 && known.expires_ms > clock_ms
        });
        for at in 0..self.rooms.len() {
            let of = &self.rooms[at];
            let has_member = self.accounts.iter().any(|account| self.policy.is_member(of, account.id));
            if self.policy.is_private(of) && !has_member {
                self.rooms_made += 1;
                let next = room(&format!("room {}", self.rooms_made));
                self.all_rooms.push(next.clone());
                self.rooms[at] = next;
            }
        }
    }

    /// A guest without stored data.
    fn guest(&mut self) -> Client {
        let id = UserId(self.random.uuid());
        self.note_user(id);
        let text = self.random.of(&GUEST_NAMES).copied().unwrap_or(USERNAME_DEFAULT);
        let person = Arc::new(Person::guest(id, name(text)));
        let proof = Proof::SignedGuest { issued_ms: self.moment.clock_ms };
        Arc::new(Principal { person, proof, network: self.network() })
    }

    fn network(&mut self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, (self.random.next() % u64::from(NETWORKS)) as u8).into()
    }

    /// Whether the policy gives this answer to a client that attempts an action.
    fn fits(
        &self,
        client: &Principal,
        action: Action,
        room: Option<&RoomId>,
        target: Target,
        wanted: Result<(), Reason>,
    ) -> bool {
        self.policy.may(client, action, room, target, self.moment.clock_ms).map(drop) == wanted
    }

    /// A client and a room for which the policy gives this answer, if there are any.
    fn search(
        &mut self,
        action: Action,
        target: Target,
        wanted: Result<(), Reason>,
        in_room: bool,
    ) -> Option<(Client, RoomId)> {
        let mut found = Vec::new();
        for client in &self.clients {
            for room in &self.rooms {
                if self.fits(client, action, in_room.then_some(room), target, wanted) {
                    found.push((Arc::clone(client), room.clone()));
                }
            }
        }
        self.random.of(&found).cloned()
    }

    fn able(&mut self, action: Action, target: Target, wanted: Verdict) -> Result<(Client, RoomId), Entry> {
        self.able_where(action, target, wanted, action.is_in_room())
    }

    fn able_where(
        &mut self,
        action: Action,
        target: Target,
        wanted: Verdict,
        in_room: bool,
    ) -> Result<(Client, RoomId), Entry> {
        let reason = match wanted {
            Verdict::Refused(reason) if is_of_permission(reason) => Err(reason),
            _ => Ok(()),
        };
        let found = self.search(action, target, reason, in_room);
        found.ok_or_else(|| self.step(reason.err()))
    }

    /// An entry that leads towards a state in which a client is refused for a reason, or is not refused.
    fn step(&mut self, reason: Option<Reason>) -> Entry {
        let by_admin = |world: &mut Self, patch| {
            let admin = world.search(Action::SetRoom, Target::Own, Ok(()), true);
            match admin {
                Some((admin, room)) => change(by(&admin), Change::SetRoom { room, patch }),
                None => world.step(None),
            }
        };
        match reason {
            Some(Reason::SessionEnded) => {
                let found = self.search(Action::EndSession, Target::Own, Ok(()), false);
                let found = found.and_then(|(client, _)| Some((by(&client), client.session()?)));
                let Some((by, session)) = found else { return self.step(None) };
                change(by, Change::EndSession { session })
            }
            Some(reason @ (Reason::Banned | Reason::Muted)) => {
                let Some(client) = self.random.of(&self.clients).cloned() else { return self.step(None) };
                let until_ms = self.wall_soon();
                let restrictions = if reason == Reason::Muted {
                    Restrictions { mute_until_ms: Some(until_ms), ban: None }
                } else {
                    let ban = BanChange::Ban { until_ms: Some(until_ms), reason: "spam".into(), by_address: None };
                    Restrictions { mute_until_ms: None, ban: Some(ban) }
                };
                self.restrict(By::Operator, &client, restrictions)
            }
            Some(Reason::LoginRequired) => self.set_policy(Accounts::Required),
            Some(Reason::NoSuchRoom | Reason::NotMember) => {
                by_admin(self, RoomPatch { is_private: Some(true), ..RoomPatch::default() })
            }
            Some(Reason::ReadOnly) => {
                by_admin(self, RoomPatch { posting: Some(Posting::Admins), ..RoomPatch::default() })
            }
            Some(Reason::SlowMode) => by_admin(self, RoomPatch { slow_mode_s: Some(60), ..RoomPatch::default() }),
            _ => match self.random.below(7) {
                0 => self.set_policy(Accounts::Optional),
                1 => {
                    let Some(account) = self.account_ref() else { return self.create_account(Role::Admin) };
                    change(By::Operator, Change::SetRole(NewRole { account, role: Role::Admin }))
                }
                2 => {
                    let Some(account) = self.account_ref() else { return self.create_account(Role::Admin) };
                    change(By::Operator, Change::SetRole(NewRole { account, role: Role::User }))
                }
                3 | 4 => self.log_in(Verdict::Accepted).unwrap_or_else(|step| step),
                5 => {
                    let patch =
                        RoomPatch { posting: Some(Posting::Everyone), is_private: Some(false), ..RoomPatch::default() };
                    match self.search(Action::SetRoom, Target::Own, Ok(()), true) {
                        Some((admin, room)) => change(by(&admin), Change::SetRoom { room, patch }),
                        None => self.create_account(Role::Admin),
                    }
                }
                _ => {
                    let Some(client) = self.random.of(&self.clients).cloned() else {
                        return self.create_account(Role::Admin);
                    };
                    let restrictions = Restrictions { mute_until_ms: Some(0), ban: Some(BanChange::Lift) };
                    self.restrict(By::Operator, &client, restrictions)
                }
            },
        }
    }

    fn wall_soon(&mut self) -> u64 {
        self.moment.wall_ms + 1_000 + self.random.next() % RESTRICTED_MS_MAX
    }

    fn entry(&mut self, kind: Kind, wanted: Verdict) -> Made {
        let refused = if let Verdict::Refused(reason) = wanted { Some(reason) } else { None };
        match kind {
            Kind::Text | Kind::Announcement | Kind::Delete => self.message(kind, wanted),
            Kind::Join => {
                let (principal, room) = match refused {
                    Some(Reason::NameReserved) => {
                        let found = self.search(Action::Enter, Target::Own, Ok(()), true);
                        found
                            .filter(|(client, _)| client.is_guest())
                            .ok_or_else(|| self.set_policy(Accounts::Optional))?
                    }
                    // An admin becomes a member of a private room.
                    None if self.random.once_in(4) => {
                        self.able(Action::Enter, Target::Own, Verdict::Refused(Reason::NotMember))?
                    }
                    _ => self.able(Action::Enter, Target::Own, wanted)?,
                };
                if self.connections.len() >= CONNECTIONS_MAX && refused.is_none() {
                    return Err(self.leave());
                }
                let skeletons = if refused == Some(Reason::NameReserved) {
                    Some(self.skeletons_of_account()?)
                } else {
                    principal.is_guest().then(|| Skeletons::of(&principal.person.username))
                };
                let known = if self.random.once_in(2) { self.heads.get(&room).copied() } else { None };
                let after = match self.random.below(4) {
                    0 => Some(After::Unknown),
                    1 => None,
                    _ => self.a_frame(&room).map(|frame| After::Id(frame.id)),
                };
                self.connections_made += 1;
                let connection = ConnectionId(self.connections_made);
                Ok(Entry::Join(Join { room, connection, principal, skeletons, known, after }))
            }
            Kind::Leave => Ok(self.leave()),
            Kind::CreateAccount => {
                let account = self.new_account(refused == Some(Reason::NameTaken))?;
                let by = if refused == Some(Reason::NotAdmin) { self.not_the_operator() } else { By::Operator };
                Ok(change(by, Change::CreateAccount(account)))
            }
            Kind::Register => self.register(refused),
            Kind::LogIn => self.log_in(wanted),
            Kind::NameGuest => self.name_guest(refused),
            Kind::CreateToken => {
                let span_ms = self.random.once_in(2).then(|| self.random.next() % (40 * 86_400_000));
                let id = SessionId(self.random.key());
                let token_hash = Some(self.random.token_hash());
                let session = NewSession { id, kind: SessionKind::Bot, token_hash, label: "bot".into(), span_ms };
                let mut account = self.new_account(refused == Some(Reason::NameTaken))?;
                if refused != Some(Reason::NameTaken)
                    && let Some(known) = self.random.of(&self.accounts)
                    && self.moment.index.is_multiple_of(2)
                {
                    account.name = known.name.clone();
                    account.skeletons = Skeletons::of(&account.name);
                }
                let by = if refused == Some(Reason::NotAdmin) { self.not_the_operator() } else { By::Operator };
                Ok(change(by, Change::CreateToken { account, session }))
            }
            Kind::EndSession => self.end_session(refused),
            Kind::SetPassword => self.set_password(refused),
            Kind::SetRole => {
                let by = if refused == Some(Reason::NotAdmin) { self.not_the_operator() } else { By::Operator };
                let mut role = if self.random.once_in(2) { Role::Admin } else { Role::User };
                let mut account = self.account_ref().ok_or_else(|| self.create_account(Role::User))?;
                if refused == Some(Reason::NotFound) {
                    if self.random.once_in(2) {
                        role = Role::Guest;
                    } else {
                        account = AccountRef::Id(UserId(self.random.uuid()));
                    }
                }
                Ok(change(by, Change::SetRole(NewRole { account, role })))
            }
            Kind::RemoveAccount => {
                let by = if refused == Some(Reason::NotAdmin) { self.not_the_operator() } else { By::Operator };
                if self.accounts.len() <= ACCOUNTS_MIN && refused.is_none() {
                    return Err(self.create_account(Role::User));
                }
                let account = match refused {
                    Some(Reason::NotFound) => AccountRef::Name(name("nobody")),
                    _ => self.account_ref().ok_or_else(|| self.create_account(Role::User))?,
                };
                Ok(change(by, Change::RemoveAccount { account }))
            }
            Kind::Restrict => self.restriction(wanted),
            Kind::BanAddress => self.ban_address(wanted),
            Kind::UnbanAddress => self.unban_address(wanted),
            Kind::SetRoom => {
                let patch = RoomPatch {
                    name: self.random.once_in(4).then(|| "The room".into()),
                    topic: self.random.once_in(4).then(|| WORDS[self.random.below(WORDS.len())].into()),
                    posting: self.random.once_in(2).then(|| Posting::ALL[usize::from(self.random.once_in(4))]),
                    slow_mode_s: self.random.once_in(2).then(|| [0, 0, 5, 60][self.random.below(4)]),
                    is_private: self.random.once_in(2).then(|| self.random.once_in(3)),
                };
                if refused == Some(Reason::NoSession) {
                    let room = self.a_room();
                    return Ok(change(self.operator_or_server(), Change::SetRoom { room, patch }));
                }
                if refused == Some(Reason::DefaultRoom) {
                    let (admin, _) = self.able_where(Action::SetPrivate, Target::Own, wanted, false)?;
                    let patch = RoomPatch { is_private: Some(true), ..patch };
                    return Ok(change(by(&admin), Change::SetRoom { room: room(ROOM_DEFAULT), patch }));
                }
                let (admin, room) = self.able(Action::SetRoom, Target::Own, wanted)?;
                Ok(change(by(&admin), Change::SetRoom { room, patch }))
            }
            Kind::DeleteRoom => {
                let by_operator = wanted == Verdict::Accepted && self.random.once_in(3);
                if refused == Some(Reason::NoSuchRoom) {
                    let (admin, _) = self.able_where(Action::DeleteRoom, Target::Own, Verdict::Accepted, false)?;
                    return Ok(change(by(&admin), Change::DeleteRoom { room: room("nowhere") }));
                }
                let (admin, room) = self.able(Action::DeleteRoom, Target::Own, wanted)?;
                let by = if by_operator { By::Operator } else { by(&admin) };
                Ok(change(by, Change::DeleteRoom { room }))
            }
            Kind::Kick => self.kick(wanted),
            Kind::Invite => self.invite(wanted),
            Kind::Revoke => self.revoke(wanted),
            Kind::UseInvitation => self.use_invitation(wanted),
            Kind::Seen => {
                let count = 1 + self.random.below(3);
                let mut sessions = Vec::with_capacity(count);
                for _ in 0..count {
                    match self.random.of(&self.clients).map(|client| (client.user(), client.proof)) {
                        Some((user, Proof::SignedGuest { issued_ms })) => {
                            sessions.push(Use::SignedGuest { user, issued_ms });
                        }
                        _ => {
                            sessions.extend(self.random.of(self.sessions.make_contiguous()).copied().map(Use::Session))
                        }
                    }
                }
                Ok(change(By::Server, Change::Seen { sessions }))
            }
            Kind::Forget
            | Kind::EraseMessages
            | Kind::ForgetRooms
            | Kind::ForgetSessions
            | Kind::ForgetAuditEntries => {
                let by = if refused.is_some() { self.not_the_server() } else { By::Server };
                Ok(change(by, self.forget(kind)))
            }
            Kind::SetPolicy => {
                let accounts = if self.random.once_in(4) { Accounts::Required } else { Accounts::Optional };
                let Entry::Change { change: policy, .. } = self.set_policy(accounts) else { unreachable!() };
                let by = if refused.is_some() { self.not_the_server() } else { By::Server };
                Ok(Entry::Change { by, change: policy })
            }
            Kind::RotateGuestKey => {
                let key = GuestKey::from_bytes(self.random.bytes());
                let by = if refused.is_some() { self.not_the_operator() } else { By::Operator };
                Ok(change(by, Change::RotateGuestKey { key }))
            }
            Kind::OfferSetup => self.offer_setup(refused),
        }
    }

    fn a_room(&mut self) -> RoomId {
        let at = self.random.below(self.rooms.len());
        self.rooms[at].clone()
    }

    fn operator_or_server(&mut self) -> By {
        if self.random.once_in(2) { By::Operator } else { By::Server }
    }

    fn not_the_operator(&mut self) -> By {
        match self.random.of(&self.clients) {
            Some(client) if !self.moment.index.is_multiple_of(3) => by(client),
            _ => By::Server,
        }
    }

    fn not_the_server(&mut self) -> By {
        match self.random.of(&self.clients) {
            Some(client) if !self.moment.index.is_multiple_of(3) => by(client),
            _ => By::Operator,
        }
    }

    /// Whether a room has so many frames that some must be forgotten first.
    pub fn is_full(&self) -> bool {
        self.frames.values().any(|frames| frames.len() > FRAMES_MANY)
    }

    /// The same entry by another client, or for another room.
    fn mutated(&mut self, mut entry: Entry) -> Entry {
        let Some(client) = self.random.of(&self.clients).cloned() else { return entry };
        let room = self.a_room();
        let by_any = match self.random.below(4) {
            0 => By::Operator,
            1 => By::Server,
            _ => by(&client),
        };
        match &mut entry {
            Entry::Message(message) => {
                if self.random.once_in(2) {
                    message.author = client;
                } else {
                    message.room = room;
                }
            }
            Entry::Announcement { message, .. } => message.author = client,
            Entry::Join(join) => {
                if self.random.once_in(2) {
                    join.principal = client;
                } else {
                    join.room = room;
                    join.known = None;
                }
            }
            Entry::Leave { .. } => {}
            Entry::Change { by, change } => {
                // Only the guest itself can name a guest.
                if !matches!(**change, Change::NameGuest { .. }) {
                    *by = by_any;
                }
            }
        }
        entry
    }
}

/// The author and the nonce of a message.
fn sent_with(entry: &Entry) -> Option<(UserId, Nonce)> {
    let (Entry::Message(message) | Entry::Announcement { message, .. }) = entry else { return None };
    Some((message.author.user(), message.nonce.clone()?))
}

/// Remembers a value among the latest ones.
fn note<T: PartialEq>(known: &mut VecDeque<T>, new: T) {
    if known.contains(&new) {
        return;
    }
    if known.len() >= NOTED_MAX {
        known.pop_front();
    }
    known.push_back(new);
}

/// Whether the policy alone decides this reason.
fn is_of_permission(reason: Reason) -> bool {
    use Reason::{Banned, LoginRequired, Muted, NoSuchRoom, NotAdmin, NotMember, NotYours, ReadOnly, SessionEnded};
    matches!(
        reason,
        Banned | LoginRequired | Muted | NoSuchRoom | NotAdmin | NotMember | NotYours | ReadOnly | SessionEnded
    )
}

fn session_of(change: &Change) -> Option<&NewSession> {
    match change {
        Change::Register { session, .. }
        | Change::LogIn(NewLogin { session, .. })
        | Change::NameGuest { session, .. }
        | Change::CreateToken { session, .. } => Some(session),
        _ => None,
    }
}
