//! Keeping order: what admins do to people and rooms, by whichever road they ask for it.
//!
//! Each measure is asked of the table of permissions, stored, and then ordered of the hub, so that it holds at once for
//! those who are here. Over HTTP that is done by whoever answers the request; what is asked for over a WebSocket the hub
//! hands to a thread here, as it waits for no disk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use chrono::DateTime;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::auth::permission::{Access, Action, Refusal, Whose};
use crate::hub::{Busy, Command, Directory, Errand, Handle, Order, rejected};
use crate::identity::{Actor, Denied, Door};
use crate::limits::{
    ERRANDS_WAITING_MAX, LABEL_CHARS_MAX, ROOM_NAME_CHARS_MAX, SLOW_MODE_S_MAX, STORE_STACK_BYTES, TOPIC_CHARS_MAX,
};
use crate::model::{NameError, Person, RoomId, Timestamp, UserId, Username, visible_line};
use crate::protocol::{BanSaid, BanTerms, ErrorCode, Measure, NO_SUCH_USER, Rejected, Restraint, RoomChange};
use crate::role::Role;
use crate::store::RegistryError;
use crate::store::accounts::{self as kept, Ban, Banned, RoomSettings};
use crate::threads::Vital;

/// Why a measure is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// By the table of permissions, or as it can't be asked.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is nobody by that id.
    #[error("{NO_SUCH_USER}")]
    Nobody,
    /// It can't be meant so.
    #[error("{0}")]
    Field(&'static str),
    /// A line that people would see can't be one.
    #[error("the {0} can't be taken: {1}")]
    Line(&'static str, NameError),
    /// It can't be stored now, or the hub has no time.
    #[error("the server is busy")]
    Busy,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.into())
    }
}

impl From<Busy> for Failure {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Account(_) => Self::Nobody,
            RegistryError::Busy => Self::Busy,
        }
    }
}

impl From<Failure> for Rejected {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Denied(Denied::Refused(refusal)) => return rejected(*refusal),
            Failure::Denied(Denied::Name) => ErrorCode::BadName,
            Failure::Nobody => ErrorCode::NotFound,
            Failure::Field(_) => ErrorCode::BadJson,
            Failure::Line(_, NameError::TooLong(_)) => ErrorCode::TooLong,
            Failure::Line(..) => ErrorCode::BadName,
            Failure::Busy | Failure::Denied(Denied::Busy) => ErrorCode::Busy,
        };
        Self::new(code, failure.to_string(), None)
    }
}

/// Whose turn it is: held from storing a change to ordering it, so that the hub hears of changes as they were stored.
/// Cloning gives another handle of the same.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<()>>);

impl Turns {
    /// Waits for other changes to be ordered.
    pub fn take(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever keeps order works with this.
#[derive(Clone, Copy)]
pub struct Keeper<'a> {
    /// What is kept of people.
    pub door: &'a Door,
    /// The way to the hub.
    pub directory: &'a dyn Directory,
    /// Whose turn it is.
    pub turns: &'a Turns,
}

/// How somebody stands after a change.
#[derive(Debug)]
pub struct Restrained {
    /// What they are called, where they are called anything.
    pub username: Option<Username>,
    /// Until when they may say nothing, if they may not.
    pub muted_until: Option<Timestamp>,
    /// Whether they are kept out.
    pub is_banned: bool,
}

impl<'a> Keeper<'a> {
    /// Waits for other changes to be ordered.
    pub fn turn(&self) -> MutexGuard<'a, ()> {
        self.turns.take()
    }

    /// Puts somebody out of a room; out of a private one for good. Gives what they are called.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn kick(&self, actor: &mut Actor, room: &RoomId, user: UserId) -> Result<Option<Username>, Failure> {
        let by = doer(actor)?;
        let username = self.whose(actor, user)?;
        actor.may(Action::Kick)?;
        let id = room.clone();
        let _turn = self.turn();
        self.door.registry().change(move |c| Ok(kept::remove_member(c, &id, user)?))?;
        log::info!("{} has put {user} ({}) out of {room}", by.id, shown(username.as_ref()));
        // Also for who was none any more: the hub may have been busy when they ceased to be one.
        if actor.circumstances.access == Access::Member {
            self.directory.order(Order::SetMember { room: room.clone(), user, is_member: false })?;
        }
        self.directory.order(Order::Kick { room: room.clone(), user })?;
        Ok(username)
    }

    /// Keeps somebody from speaking, or out; or no longer.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn restrain(&self, actor: &mut Actor, user: UserId, asked: Restraint) -> Result<Restrained, Failure> {
        let Restraint { muted_until, banned } = asked;
        let by = doer(actor)?.id;
        let username = self.whose(actor, user)?;
        if muted_until.is_none() && banned.is_none() {
            return Err(Failure::Field("say muted_until, or banned, or both"));
        }
        let now = Timestamp::now();
        let mute = match muted_until {
            None => None,
            Some(until) => {
                actor.may(Action::Mute)?;
                Some(until.as_deref().map_or(Ok(0), moment)?)
            }
        };
        if banned.is_some() {
            actor.may(Action::Ban)?;
        }
        let networks = match &banned {
            Some(BanSaid::With(BanTerms { address: true, .. })) => match actor.circumstances.whose {
                Whose::Others(Role::Guest) => match self.directory.networks_of(user)? {
                    networks if networks.is_empty() => {
                        return Err(Failure::Field("they are not here now, so it is not known from which address"));
                    }
                    networks => networks,
                },
                _ => return Err(Failure::Field("only a guest is banned by address, too; an account is by itself")),
            },
            _ => Vec::new(),
        };
        let ban = banned.map(|said| ban_of(said, user, by)).transpose()?;
        let (new_ban, new_networks) = (ban.clone(), networks.clone());
        let _turn = self.turn();
        let (muted_until, is_banned) = self.door.registry().change(move |connection| {
            if let Some(until_ms) = mute {
                kept::mute(connection, user, until_ms, by, &now)?;
            }
            match &new_ban {
                None => {}
                Some(None) => drop(kept::unban(connection, Banned::User(user))?),
                Some(Some(ban)) => {
                    kept::ban(connection, ban, &now)?;
                    for network in new_networks {
                        kept::ban(connection, &Ban { banned: Banned::Address(network), ..ban.clone() }, &now)?;
                    }
                }
            }
            Ok((kept::muted_until(connection, user, &now)?, kept::is_banned(connection, Banned::User(user), &now)?))
        })?;
        let name = shown(username.as_ref());
        if let Some(until_ms) = mute {
            match muted_until {
                Some(until_ms) => log::info!("{by} has muted {user} ({name}) until {}", Timestamp::at(until_ms)),
                None => log::info!("{by} lets {user} ({name}) speak again"),
            }
            self.directory.order(Order::Mute { user, until_ms })?;
        }
        match ban {
            None => {}
            Some(Some(Ban { until_ms: Some(until_ms), .. })) => {
                log::info!("{by} has banned {user} ({name}) until {}", Timestamp::at(until_ms));
            }
            Some(Some(_)) => log::info!("{by} has banned {user} ({name})"),
            Some(None) => log::info!("{by} lets {user} ({name}) in again"),
        }
        if is_banned {
            self.directory.order(Order::EndUser(user))?;
        }
        for network in networks {
            log::info!("{by} has banned the guests of {network}");
            self.directory.order(Order::EndGuests(network))?;
        }
        Ok(Restrained { username, muted_until: muted_until.map(Timestamp::at), is_banned })
    }

    /// Sets what is said of a room, and gives all that is set of it then. Whoever makes a room private is its first
    /// member.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn set_room(&self, actor: &mut Actor, room: &RoomId, asked: RoomChange) -> Result<RoomSettings, Failure> {
        let by = doer(actor)?;
        actor.may(Action::SetRoom)?;
        let RoomChange { name, topic, posting, slow_mode_s, private } = asked;
        if private.is_some() {
            actor.may(Action::SetPrivate)?;
        }
        if slow_mode_s.is_some_and(|s| s > SLOW_MODE_S_MAX) {
            return Err(Failure::Field("slow_mode_s is a number of seconds, an hour at most"));
        }
        let line = |what, text: Option<String>, chars_max| {
            let line = text.map(|text| visible_line(&text, chars_max)).transpose();
            line.map_err(|error| Failure::Line(what, error))
        };
        let (name, topic) = (line("name", name, ROOM_NAME_CHARS_MAX)?, line("topic", topic, TOPIC_CHARS_MAX)?);
        let (id, user, now) = (room.clone(), by.id, Timestamp::now());
        let _turn = self.turn();
        let (settings, is_member) = self.door.registry().change(move |connection| {
            let before = kept::room_settings(connection, &id)?;
            let settings = RoomSettings {
                name: name.unwrap_or_else(|| before.name.clone()),
                topic: topic.unwrap_or_else(|| before.topic.clone()),
                posting: posting.unwrap_or(before.posting),
                slow_mode_s: slow_mode_s.unwrap_or(before.slow_mode_s),
                is_private: private.unwrap_or(before.is_private),
            };
            kept::set_room(connection, &id, &settings)?;
            if settings.is_private && !before.is_private {
                kept::add_member(connection, &id, user, &now)?;
            }
            let is_member = kept::is_member(connection, &id, user)?;
            Ok((settings, is_member))
        })?;
        log::info!(
            "{user} has set room {room}: posting by {}, slow mode of {} s, {}",
            settings.posting,
            settings.slow_mode_s,
            if settings.is_private { "private" } else { "public" },
        );
        if is_member {
            // The member comes first, or they would be put out with the others. The hub keeps members of private rooms only,
            // and takes this one as it is.
            self.directory.order(Order::SetMember { room: room.clone(), user, is_member: true })?;
        }
        self.directory.order(Order::SetRoom { room: room.clone(), settings: settings.clone(), by })?;
        Ok(settings)
    }

    /// Notes whose somebody is to whoever acts, who must be known here; gives what they are called.
    fn whose(&self, actor: &mut Actor, user: UserId) -> Result<Option<Username>, Failure> {
        let found = self.door.registry().read(|connection| kept::somebody(connection, user))?;
        let (role, username) = found.ok_or(Failure::Nobody)?;
        actor.circumstances.whose = if actor.identity.user == Some(user) { Whose::Own } else { Whose::Others(role) };
        Ok(username)
    }
}

/// Who acts. A stranger has no role in which they could.
fn doer(actor: &Actor) -> Result<Person, Refusal> {
    actor.person().ok_or(Refusal::NotAdmin)
}

fn shown(username: Option<&Username>) -> &str {
    username.map_or("", Username::as_str)
}

/// A moment as somebody wrote it, in milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Failure> {
    let moment = DateTime::parse_from_rfc3339(text);
    let moment = moment.map_err(|_| Failure::Field("a moment looks like 2026-01-31T12:00:00Z"))?;
    Ok(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
}

/// The ban that was said; nothing where it is that there be none.
fn ban_of(said: BanSaid, user: UserId, by: UserId) -> Result<Option<Ban>, Failure> {
    let (until, reason) = match said {
        BanSaid::Plain(false) => return Ok(None),
        BanSaid::Plain(true) => (None, String::new()),
        BanSaid::With(BanTerms { until, reason, .. }) => (until, reason),
    };
    let until_ms = until.as_deref().map(moment).transpose()?;
    let reason = visible_line(&reason, LABEL_CHARS_MAX).map_err(|error| Failure::Line("reason", error))?;
    Ok(Some(Ban { banned: Banned::User(user), until_ms, reason, by }))
}

/// The way for errands; bounded by [`ERRANDS_WAITING_MAX`], past which whoever asks is told to try again.
#[must_use]
pub fn errands() -> (Sender<Errand>, Receiver<Errand>) {
    bounded(ERRANDS_WAITING_MAX)
}

/// Starts the thread that carries out what is asked for over WebSockets. It ends with the hub.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(
    errands: Receiver<Errand>,
    door: Door,
    hub: Handle,
    turns: Turns,
    commands: Sender<Command>,
) -> io::Result<()> {
    let builder = thread::Builder::new().name("keeper".into()).stack_size(STORE_STACK_BYTES);
    let keep = move || {
        let _vital = Vital("keeper");
        for errand in errands {
            let keeper = Keeper { door: &door, directory: &hub, turns: &turns };
            let outcome = run(&keeper, &errand).map_err(Rejected::from);
            // Fails only where the hub has ended.
            let _ = commands.send(Command::ErrandDone { errand: Box::new(errand), outcome });
        }
    };
    builder.spawn(keep).map(drop)
}

/// Carries out an errand; says in a sentence what was done.
fn run(keeper: &Keeper<'_>, errand: &Errand) -> Result<String, Failure> {
    let Errand { by, session, room, measure, .. } = errand;
    let mut actor = keeper.door.member(by, *session, room)?;
    match &**measure {
        Measure::Kick(user) => {
            let username = keeper.kick(&mut actor, room, *user)?;
            Ok(format!("{} is out of this room", shown(username.as_ref())))
        }
        Measure::Restrain(user, restraint) => {
            let is_ban = restraint.banned.is_some();
            let restrained = keeper.restrain(&mut actor, *user, restraint.clone())?;
            let username = shown(restrained.username.as_ref());
            Ok(match (is_ban, restrained.is_banned, restrained.muted_until) {
                (true, true, _) => format!("{username} is banned"),
                (true, false, _) => format!("{username} may come in again"),
                (false, _, Some(until)) => format!("{username} is muted until {until}"),
                (false, _, None) => format!("{username} may speak again"),
            })
        }
        Measure::SetRoom(change) => {
            keeper.set_room(&mut actor, room, change.clone())?;
            Ok("it is set".to_owned())
        }
    }
}
