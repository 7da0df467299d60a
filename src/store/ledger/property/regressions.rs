//! Cases in which stores once differed or an entry had a wrong effect. Random batches seldom reach them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use uuid::Uuid;

use super::super::super::TokenHash;
use super::super::super::change::{AccountRef, Change, NewAccount, NewInvitation, NewRole};
use super::super::super::engine::scripted::ScriptedStore;
use super::super::super::entry::{By, Entry, Join, NewMessage, Outcome, Principal, Proof, Proposal};
use super::super::super::log::clock::Moment;
use super::super::super::sqlite::people::{InvitationId, SessionId};
use super::BEGIN_MS;
use crate::auth::name::Skeletons;
use crate::limits::BATCH_NUMBERS_SKIPPED;
use crate::model::reason::Reason;
use crate::model::role::Role;
use crate::model::{ConnectionId, Person, RoomId, UserId, Username};
use crate::protocol::{Body, RoomPatch};

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn client(id: u128, name: &str, proof: Proof) -> Arc<Principal> {
    let person = Arc::new(Person::guest(UserId(Uuid::from_u128(id)), Username::parse(name).unwrap()));
    Arc::new(Principal { person, proof, network: Ipv4Addr::LOCALHOST.into() })
}

fn guest() -> Arc<Principal> {
    client(7, "zoe", Proof::SignedGuest { issued_ms: BEGIN_MS })
}

fn admin() -> Arc<Principal> {
    client(1, "ana", Proof::Account(SessionId(1)))
}

fn account(of: &Principal, role: Role) -> Entry {
    let name = of.person.username.clone();
    let account = NewAccount { id: of.user(), skeletons: Skeletons::of(&name), name, role, password: None };
    change(By::Operator, Change::CreateAccount(account))
}

fn change(by: By, change: Change) -> Entry {
    Entry::Change { by, change: Box::new(change) }
}

fn message(author: Arc<Principal>, room: &RoomId, body: Body) -> NewMessage {
    NewMessage { room: room.clone(), author, body, nonce: None, is_member: true, unless_stored: None }
}

fn text(author: Arc<Principal>, room: &RoomId) -> Entry {
    Entry::Message(message(author, room, Body::Text { content: "hello".into(), reply_to: None }))
}

fn join(principal: Arc<Principal>, room: &RoomId, connection: u64) -> Entry {
    let (room, connection) = (room.clone(), ConnectionId(connection));
    Entry::Join(Join { room, connection, principal, skeletons: None, known: None, after: None })
}

fn leave(principal: &Principal, room: &RoomId, connection: u64) -> Entry {
    Entry::Leave { room: room.clone(), user: principal.user(), connection: ConnectionId(connection) }
}

/// A store, and the moment of its next batch.
struct Script(ScriptedStore, Moment);

impl Script {
    fn in_memory() -> Self {
        let begin = Moment { clock_ms: BEGIN_MS, wall_ms: BEGIN_MS, index: BATCH_NUMBERS_SKIPPED, ahead_ms: 0 };
        Self(ScriptedStore::in_memory(begin), begin)
    }

    fn apply(&mut self, entries: impl IntoIterator<Item = Entry>) -> Vec<Outcome> {
        self.1.index += 1;
        self.1.clock_ms += 1;
        let batch = entries.into_iter().map(Proposal::unanswered).collect();
        self.0.apply(vec![(self.1, batch)]).into_iter().map(|applied| applied.result).collect()
    }
}

fn reasons(outcomes: &[Outcome]) -> Vec<Option<Reason>> {
    let reason = |outcome: &Outcome| match outcome {
        Outcome::Refused { rejection, .. } | Outcome::JoinRefused { rejection, .. } => Some(rejection.reason),
        _ => None,
    };
    outcomes.iter().map(reason).collect()
}

/// A store that was just opened does not know which guests are stored.
#[test]
fn an_invitation_stores_a_guests_name_with_and_without_a_restart() {
    let rows = |restarts: bool| {
        let directory = tempfile::tempdir().unwrap();
        let begin = Moment { clock_ms: BEGIN_MS, wall_ms: BEGIN_MS, index: BATCH_NUMBERS_SKIPPED, ahead_ms: 0 };
        let mut script = Script(ScriptedStore::of_file(&directory.path().join("adda.db"), begin), begin);
        let (tea, attic) = (room("tea"), room("attic"));
        let patch = RoomPatch { is_private: Some(true), ..RoomPatch::default() };
        let code_hash = TokenHash::of("code");
        let invitation =
            NewInvitation { id: InvitationId(1), code_hash, room: Some(attic.clone()), uses: 1, span_ms: 1_000 };
        let outcomes = script.apply([
            account(&admin(), Role::Admin),
            change(By::Client(admin()), Change::SetRoom { room: attic.clone(), patch }),
            change(By::Operator, Change::Invite(invitation)),
            text(guest(), &tea),
        ]);
        assert_eq!(reasons(&outcomes), [None; 4]);
        if restarts {
            script.0.reopen();
        }
        let by = By::Client(guest());
        let outcomes = script.apply([change(by, Change::UseInvitation { room: attic, code_hash })]);
        assert_eq!(reasons(&outcomes), [None]);
        let rows = script.0.people().into_iter().filter(|row| row.starts_with("sessions"));
        rows.collect::<Vec<_>>()
    };
    let stays = rows(false);
    assert!(stays.iter().any(|row| row.contains("\"zoe\"")), "{stays:?}");
    assert_eq!(stays, rows(true));
}

/// An announcement is stored in all of its rooms or in none. Its author needs to be in none of them.
#[test]
fn an_admin_can_announce_to_a_room_after_being_kicked_from_it() {
    let mut script = Script::in_memory();
    let (tea, jam) = (room("tea"), room("jam"));
    let user = client(2, "eli", Proof::Account(SessionId(2)));
    let kick = Change::Kick { room: jam.clone(), user: user.user(), target: None };
    let role = Change::SetRole(NewRole { account: AccountRef::Id(user.user()), role: Role::Admin });
    let announcement = message(Arc::clone(&user), &tea, Body::Announcement { content: "tea is ready".into() });
    let outcomes = script.apply([
        account(&admin(), Role::Admin),
        account(&user, Role::User),
        join(Arc::clone(&user), &jam, 1),
        change(By::Client(admin()), kick),
        change(By::Operator, role),
        Entry::Announcement { rooms: vec![tea, jam], message: announcement },
    ]);
    assert_eq!(reasons(&outcomes), [None; 7]);
}

#[test]
fn a_kicked_user_is_refused_until_its_last_connection_has_left() {
    let mut script = Script::in_memory();
    let tea = room("tea");
    let join = |connection| join(guest(), &tea, connection);
    let leave = |connection| leave(&guest(), &tea, connection);
    let kick = || {
        let change_of = Change::Kick { room: tea.clone(), user: guest().user(), target: Some(guest()) };
        change(By::Operator, change_of)
    };
    let text_of_guest = || text(guest(), &tea);
    let outcomes = script.apply([join(1), join(2), kick(), text_of_guest(), leave(1), text_of_guest(), leave(2)]);
    let kicked = Some(Reason::Kicked);
    assert_eq!(reasons(&outcomes), [None, None, None, kicked, None, kicked, None]);
    // A kick of a user outside the room refuses nothing, as only a leave would end it.
    let outcomes = script.apply([kick(), join(3), text_of_guest()]);
    assert_eq!(reasons(&outcomes), [None; 3]);
}

/// A room is forgotten after a connection has left. Meanwhile another connection that knows its order joins.
#[test]
fn an_order_continues_after_the_last_seq_that_a_connection_has_seen() {
    let directory = tempfile::tempdir().unwrap();
    let begin = Moment { clock_ms: BEGIN_MS, wall_ms: BEGIN_MS, index: BATCH_NUMBERS_SKIPPED, ahead_ms: 0 };
    let file = Script(ScriptedStore::of_file(&directory.path().join("adda.db"), begin), begin);
    for mut script in [file, Script::in_memory()] {
        let tea = room("tea");
        let outcomes = script.apply([text(guest(), &tea), text(guest(), &tea)]);
        let Outcome::Stored { stored, .. } = &outcomes[1] else { panic!("{outcomes:?}") };
        let known = Some(stored.seq);
        let forget = Change::Forget { room: tea.clone(), up_to: stored.seq };
        let forget_room = || change(By::Server, Change::ForgetRooms { rooms: vec![tea.clone()] });
        script.apply([change(By::Server, forget), forget_room()]);
        assert_eq!(script.0.order(&tea), None);
        let Entry::Join(join) = join(guest(), &tea, 1) else { unreachable!() };
        let join = Entry::Join(Join { known, ..join });
        let outcomes = script.apply([join, forget_room(), text(guest(), &tea), leave(&guest(), &tea, 1)]);
        let Outcome::Stored { stored, .. } = &outcomes[2] else { panic!("{outcomes:?}") };
        assert_eq!(stored.seq.0, 3);
    }
}

/// The word index was damaged when a message got the key of a forgotten one.
#[test]
fn the_word_index_stays_sound_when_the_newest_messages_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let begin = Moment { clock_ms: BEGIN_MS, wall_ms: BEGIN_MS, index: BATCH_NUMBERS_SKIPPED, ahead_ms: 0 };
    let mut script = Script(ScriptedStore::of_file(&directory.path().join("adda.db"), begin), begin);
    let tea = room("tea");
    for round in 0..60 {
        let outcomes = script.apply([text(guest(), &tea), text(guest(), &tea)]);
        let Outcome::Stored { stored, .. } = &outcomes[round % 2] else { panic!("{outcomes:?}") };
        let delete = message(guest(), &tea, Body::Delete { message_id: stored.id });
        let outcomes = script.apply([Entry::Message(delete)]);
        let Outcome::Stored { stored, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
        let up_to = stored.seq;
        if round % 3 > 0 {
            script.apply([change(By::Server, Change::Forget { room: tea.clone(), up_to })]);
        }
        if round % 7 == 0 {
            script.0.reopen();
        }
        assert_eq!(script.0.integrity(), ["ok"], "round {round}");
    }
}
