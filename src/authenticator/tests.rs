//! Tests of authentication: the client that a token shows, its name, and the recorded uses.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::*;
use crate::auth::credential::LOGIN_SPAN_MS;
use crate::auth::guest_token::{GuestKey, GuestToken};
use crate::config::{Data, Durability, Keep};
use crate::protocol::{BanChange, Restrictions};
use crate::store::accounts::Ban;
use crate::store::change::{Change, NewAccount, NewSession, Policy, Restrict};
use crate::store::entry::{Applied, By, Entry, Outcome, Proposal};
use crate::store::{self, Started};
use crate::threads::{Sleeper, WakingSender};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY_MS: u64 = 86_400_000;

fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn user(number: u128) -> UserId {
    UserId(uuid::Uuid::from_u128(number))
}

fn room() -> RoomId {
    RoomId::parse("tea").unwrap()
}

fn account(number: u128, text: &str, role: Role) -> NewAccount {
    NewAccount { id: user(number), name: name(text), skeletons: Skeletons::of(&name(text)), role, password: None }
}

fn session(number: i64, kind: SessionKind, token: Option<&str>) -> NewSession {
    let (id, token_hash) = (SessionId(number), token.map(TokenHash::of));
    NewSession { id, kind, token_hash, label: "".into(), span_ms: None }
}

/// A store in memory, as the server starts it.
struct Rig {
    reader: Reader,
    proposals: WakingSender<Vec<Proposal>>,
    applied: Receiver<Vec<Applied>>,
}

impl Rig {
    fn new() -> Self {
        let flags = Policy { registration: crate::model::role::Registration::Open, ..Policy::default() };
        let hub = Sleeper::default();
        let started = store::start(&Data::Memory, Durability::Full, Keep::default(), flags, &hub, Arc::default());
        let Started { writer, reader, .. } = started.unwrap();
        Self { reader, proposals: writer.proposals, applied: writer.applied }
    }

    fn change(&self, by: By, change: Change) {
        let entry = Entry::Change { by, change: Box::new(change) };
        self.proposals.send(vec![Proposal::unanswered(entry)]).unwrap();
        let applied = self.applied.recv().unwrap().pop().unwrap();
        assert!(matches!(applied.result, Outcome::Changed { .. }), "{applied:?}");
    }

    /// An account, number 1, with a token `bot`.
    fn with_bot(self) -> Self {
        let session = session(70, SessionKind::Bot, Some("bot"));
        self.change(By::Operator, Change::CreateToken { account: account(1, "rahim", Role::User), session });
        self
    }

    /// A client without a token, as a proposer.
    fn stranger(&self) -> By {
        By::Client(self.admit(None, "eve").unwrap().principal(user(99)))
    }

    /// A guest, number 7, with a stored session under the name `ana`. `token` is a random one, as earlier versions made
    /// them; `None` is for a signed one.
    fn with_guest(self, token: Option<&str>) -> Self {
        let key = token.map_or(SessionId::of_guest(user(7)).0, |_| 77);
        let (username, session) = (name("ana"), session(key, SessionKind::Guest, token));
        let change = Change::NameGuest { user: user(7), skeletons: Skeletons::of(&username), username, session };
        self.change(self.stranger(), change);
        self
    }

    fn signed(&self, number: u128, age_ms: u64) -> String {
        let issued_ms = self.reader.moment().clock_ms - age_ms;
        let token = GuestToken { user: user(number), issued_ms };
        self.reader.policy().guest_key.sign(&token).expose().to_owned()
    }

    fn authenticate(&self, token: &str) -> Authenticated {
        self.reader.view(|view| authenticate(view, Some(token), HERE)).unwrap()
    }

    fn admit(&self, token: Option<&str>, asked: &str) -> Result<Identity, Reason> {
        self.reader.view(|view| admit(view, token, name(asked), HERE))
    }

    fn restrict(&self, user: UserId, by: &By) {
        let ban = BanChange::Ban { until_ms: None, reason: "".into(), by_address: None };
        let restrictions = Restrictions { mute_until_ms: None, ban: Some(ban) };
        let restrict = Restrict { user, restrictions, target: None, networks: Vec::new(), is_shared: false };
        self.change(by.clone(), Change::Restrict(restrict));
    }
}

/// Whether a use is recorded for a session of these times.
fn is_noted(rig: &Rig, kind: SessionKind, proof: Proof, created_ms: u64, seen_ms: u64) -> bool {
    let session = Session {
        key: SessionId(77),
        user: user(7),
        role: Role::Guest,
        kind,
        username: None,
        label: "".into(),
        created_ms,
        seen_ms,
        expires_ms: None,
    };
    note_use(&rig.reader, &session, proof);
    !rig.reader.uses_noted().is_empty()
}

#[test]
fn a_use_is_recorded_if_it_is_worth_a_commit() {
    let rig = Rig::new();
    let (minute_ms, half_ms) = (60_000, GUEST_SPAN_MS / 2);
    let now_ms = rig.reader.moment().clock_ms;
    let signed = |ago_ms| Proof::SignedGuest { issued_ms: now_ms - ago_ms };
    let (guest, login) = (Proof::Guest(SessionId(77)), Proof::Account(SessionId(77)));
    for (kind, proof, created_ago_ms, seen_ago_ms, expected) in [
        (SessionKind::Login, login, DAY_MS, 9 * minute_ms, false),
        (SessionKind::Login, login, DAY_MS, 10 * minute_ms, true),
        (SessionKind::Login, login, 0, 0, false),
        (SessionKind::Guest, guest, DAY_MS, 9 * minute_ms, false),
        (SessionKind::Guest, guest, DAY_MS, 10 * minute_ms, true),
        (SessionKind::Bot, login, 0, 0, true),
        (SessionKind::Bot, login, DAY_MS, minute_ms, false),
        (SessionKind::Bot, login, DAY_MS, 10 * minute_ms, true),
        // A signed token without a row: the first half of its lifetime costs no commit.
        (SessionKind::Guest, signed(half_ms - minute_ms), half_ms - minute_ms, half_ms - minute_ms, false),
        (SessionKind::Guest, signed(half_ms), half_ms, half_ms, true),
        // With a row, the rule of other sessions applies.
        (SessionKind::Guest, signed(DAY_MS), DAY_MS, 9 * minute_ms, false),
        (SessionKind::Guest, signed(DAY_MS), DAY_MS, 10 * minute_ms, true),
        (SessionKind::Guest, Proof::None, DAY_MS, DAY_MS, false),
    ] {
        let is_noted = is_noted(&rig, kind, proof, now_ms - created_ago_ms, now_ms - seen_ago_ms);
        assert_eq!(is_noted, expected, "{kind:?} {proof:?} {created_ago_ms} {seen_ago_ms}");
    }
}

#[test]
fn a_signed_token_without_a_row_is_valid_until_it_expires() {
    let rig = Rig::new();
    let token = rig.signed(5, DAY_MS);
    let client = rig.authenticate(&token);
    let session = client.session.clone().unwrap();
    assert_eq!((session.user, session.kind, session.role), (user(5), SessionKind::Guest, Role::Guest));
    assert_eq!((session.key, session.username), (SessionId::of_guest(user(5)), None));
    assert_eq!(client.identity.proof, Proof::SignedGuest { issued_ms: session.created_ms });
    assert_eq!(session.expires_ms, Some(session.created_ms + GUEST_SPAN_MS));
    assert_eq!(client.identity.principal(user(99)).user(), user(5));
    let stored = rig.reader.view(|view| view.stored_guest(user(5))).unwrap();
    assert_eq!(stored, StoredGuest::Absent, "reading stores nothing");

    assert!(rig.authenticate(&rig.signed(5, GUEST_SPAN_MS - 60_000)).session.is_some());
    let foreign = GuestKey::random().sign(&GuestToken { user: user(5), issued_ms: session.created_ms });
    for token in [&*rig.signed(5, GUEST_SPAN_MS), foreign.expose(), "", "guess", &"0a".repeat(39), &"0a".repeat(32)] {
        let client = rig.authenticate(token);
        assert_eq!((client.identity.user, client.identity.proof), (None, Proof::None), "{token}");
        assert_eq!(client.identity.principal(user(99)).user(), user(99));
    }
}

#[test]
fn an_ended_session_authenticates_no_user() {
    let rig = Rig::new().with_guest(None);
    let (token, other) = (rig.signed(7, 0), rig.signed(8, 0));
    let end = |token: &str, number| {
        let by = By::Client(rig.authenticate(token).identity.principal(user(99)));
        rig.change(by, Change::EndSession { session: SessionId::of_guest(user(number)) });
    };
    assert_eq!(rig.authenticate(&token).session.unwrap().username, Some(name("ana")));
    end(&token, 7);
    end(&other, 8);
    for (token, number) in [(&token, 7), (&other, 8)] {
        assert_eq!(rig.authenticate(token).identity.user, None, "{number}");
        assert_eq!(rig.admit(Some(token), "eve").unwrap().user, None);
        // The same holds for a later token of the same guest.
        assert_eq!(rig.authenticate(&rig.signed(number, 0)).identity.user, None);
    }
}

#[test]
fn another_key_ends_all_signed_tokens_and_no_others() {
    let rig = Rig::new().with_bot();
    let token = rig.signed(5, 0);
    let key = crate::auth::guest_token::GuestKey::from_bytes([7; 32]);
    rig.change(By::Operator, Change::RotateGuestKey { key });
    assert_eq!(rig.authenticate(&token).identity.user, None);
    assert_eq!(rig.authenticate(&rig.signed(5, 0)).identity.user, Some(user(5)));
    assert_eq!(rig.authenticate("bot").identity.user, Some(user(1)));
}

#[test]
fn a_banned_client_is_not_admitted_and_its_use_changes_nothing() {
    let rig = Rig::new().with_bot().with_guest(None);
    rig.change(By::Operator, Change::CreateAccount(account(2, "karim", Role::Admin)));
    let guest = rig.signed(7, 0);
    let before = rig.authenticate("bot").session;
    for user in [user(1), user(7)] {
        rig.restrict(user, &By::Operator);
    }
    for token in ["bot", &guest] {
        assert_eq!(rig.admit(Some(token), "eve"), Err(Reason::Banned));
    }
    assert_eq!(rig.authenticate("bot").session, before, "it is known still");
    let bans: Vec<Ban> = rig.reader.view(|view| view.bans()).unwrap();
    assert_eq!(bans.len(), 2);
    let context = |token: &str| {
        rig.reader
            .view(|view| Ok::<_, ReadError>(authenticate(view, Some(token), HERE)?.identity.context(view, None)))
            .unwrap()
    };
    assert_eq!(context("bot").restriction, crate::auth::permission::Restriction::Banned);
    assert_eq!(rig.admit(Some("guess"), "eve").map(|identity| identity.user), Ok(None));
}

#[test]
fn an_account_has_its_own_name_and_a_guest_the_requested_name() {
    let rig = Rig::new().with_bot();
    let identity = rig.admit(Some("bot"), "eve").unwrap();
    assert_eq!((identity.user, identity.username, identity.role), (Some(user(1)), name("rahim"), Role::User));
    assert_eq!((identity.proof, identity.skeletons), (Proof::Account(SessionId(70)), None));
    let identity = rig.admit(Some(&rig.signed(5, 0)), "eve").unwrap();
    assert_eq!((identity.user, identity.username, identity.role), (Some(user(5)), name("eve"), Role::Guest));
    assert_eq!(identity.skeletons, Some(Skeletons::of(&name("eve"))), "to be compared again when it enters");
    for spoof in ["rahim", "Rahim", "rаhim"] {
        assert_eq!(rig.admit(None, spoof), Err(Reason::NameReserved), "{spoof}");
        assert_eq!(rig.admit(Some("guess"), spoof), Err(Reason::NameReserved), "{spoof}");
    }
    assert_eq!(rig.admit(None, USERNAME_DEFAULT).unwrap().user, None);
}

#[test]
fn a_guest_keeps_its_name_until_an_account_takes_it() {
    // By a random token, as older versions gave to guests, and by a signed token.
    for token in [Some("good"), None] {
        let rig = Rig::new().with_guest(token);
        let signed = rig.signed(7, 0);
        let token = token.unwrap_or(&signed);
        let called = |asked: &str| rig.admit(Some(token), asked).map(|identity| identity.username);
        assert_eq!(called(USERNAME_DEFAULT), Ok(name("ana")));
        assert_eq!(called("eve"), Ok(name("eve")));
        rig.change(By::Operator, Change::CreateAccount(account(8, "Ana", Role::User)));
        assert_eq!(called(USERNAME_DEFAULT), Ok(name(USERNAME_DEFAULT)));
        assert_eq!(called("ana"), Err(Reason::NameReserved));
    }
}

#[test]
fn a_client_without_a_token_needs_no_look_up_if_no_name_is_protected() {
    let rig = Rig::new();
    let authenticator = Authenticator::start(rig.reader.clone()).unwrap();
    let admit = |asked: &str| {
        // While a view is open, every other look-up in memory waits.
        let mut admitted = None;
        let read = rig.reader.view(|_| {
            admitted = authenticator.admit_stranger(&name(asked), HERE, &room());
            Ok::<_, ReadError>(())
        });
        read.unwrap();
        admitted.map(|admitted| admitted.map(|identity| identity.username))
    };
    assert_eq!(admit("eve"), Some(Ok(name("eve"))));
    rig.change(By::Operator, Change::CreateAccount(account(1, "rahim", Role::User)));
    assert_eq!(admit(USERNAME_DEFAULT), Some(Ok(name(USERNAME_DEFAULT))));
    assert_eq!(admit("eve"), None, "it may look like an account's");
    assert_eq!(authenticator.admit(None, &name("rahim"), HERE, &room()), Err(Reason::NameReserved));
    assert!(authenticator.admit(None, &name("eve"), HERE, &room()).is_ok());
}

#[test]
fn a_private_room_does_not_exist_for_a_client_that_is_not_a_member() {
    let rig = Rig::new();
    rig.change(By::Operator, Change::CreateAccount(account(2, "karim", Role::Admin)));
    let bot = session(71, SessionKind::Bot, Some("admin"));
    rig.change(By::Operator, Change::CreateToken { account: account(2, "karim", Role::Admin), session: bot });
    let admin = By::Client(rig.authenticate("admin").identity.principal(user(99)));
    let patch = crate::protocol::RoomPatch { is_private: Some(true), ..Default::default() };
    rig.change(admin, Change::SetRoom { room: room(), patch });
    let authenticator = Authenticator::start(rig.reader.clone()).unwrap();
    let admit = |token: Option<&str>, asked: &str| authenticator.admit(token, &name(asked), HERE, &room());
    assert_eq!(admit(None, USERNAME_DEFAULT), Err(Reason::NoSuchRoom));
    assert_eq!(admit(None, "eve"), Err(Reason::NoSuchRoom));
    assert_eq!(admit(Some(&rig.signed(5, 0)), "eve"), Err(Reason::NoSuchRoom));
    assert_eq!(admit(Some("admin"), "eve").map(|identity| identity.role), Ok(Role::Admin));
}

#[test]
fn a_full_authenticator_is_busy_for_new_requests_and_answers_the_queued() {
    let rig = Rig::new().with_bot();
    let authenticator = Authenticator::start(rig.reader.clone()).unwrap();
    let request = || {
        let (asked, room) = (name("eve"), room());
        let (answer, answered) = (Mutex::default(), Condvar::new());
        Arc::new(AdmissionRequest { token: None, asked, address: HERE, room, answer, answered })
    };
    let (mut waiting, mut refused) = (Vec::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    // While this view is open, every other view waits: a store in memory has one connection.
    let read = rig.reader.view(|_| {
        // The thread soon takes one request. The queue is full when the thread takes no more.
        while waiting.len() <= AUTHENTICATIONS_WAITING_MAX {
            let request = request();
            authenticator.requests.send_deadline(Arc::clone(&request), deadline).unwrap();
            waiting.push(request);
        }
        for _ in 0..3 {
            let answer = authenticator.wait(&request(), Instant::now() + Duration::from_millis(20));
            refused += usize::from(answer == Err(Reason::Busy));
        }
        Ok::<_, ReadError>(())
    });
    read.unwrap();
    assert_eq!((waiting.len(), refused), (AUTHENTICATIONS_WAITING_MAX + 1, 3));
    for request in waiting {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = request.answered.wait_timeout_while(request.answer(), left, |answer| answer.is_none());
        assert!(matches!(*waited.unwrap().0, Some(Ok(_))));
    }
    assert!(authenticator.admit(None, &name("eve"), HERE, &room()).is_ok());
}

#[test]
fn a_use_extends_a_login_session() {
    let rig = Rig::new();
    let account = account(1, "rahim", Role::User);
    let register = Change::Register {
        account,
        invitation: None,
        session: session(5, SessionKind::Login, Some("login")),
        replaces: None,
    };
    rig.change(rig.stranger(), register);
    let expires_ms = || rig.authenticate("login").session.unwrap().expires_ms.unwrap();
    let before = expires_ms();
    let used = Use::Session(SessionId(5));
    thread::sleep(Duration::from_millis(2));
    rig.change(By::Server, Change::Seen { sessions: vec![used] });
    assert!(expires_ms() > before && expires_ms() <= rig.reader.moment().clock_ms + LOGIN_SPAN_MS);
}
