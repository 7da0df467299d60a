//! REST: keeping order. Invitations, what is set of rooms, who is in the private ones, mutes, bans, announcements.
//!
//! Each is stored first and then ordered of the hub, so that it holds at once for those who are here.

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use chrono::DateTime;

use super::error::ApiError;
use super::sessions::Data;
use super::who::{Actor, body};
use super::{Reply, Request};
use crate::auth::permission::{Action, Whose};
use crate::auth::secret::{Secret, is_secret};
use crate::head::unescape;
use crate::hub::Order;
use crate::limits::{
    INVITATION_DAYS_MAX, INVITATION_USES_MAX, LABEL_CHARS_MAX, ROOM_NAME_CHARS_MAX, SLOW_MODE_S_MAX, TOPIC_CHARS_MAX,
};
use crate::model::{RoomId, Timestamp, UserId, Username, visible_line};
use crate::protocol::checked_content;
use crate::rate::network_of;
use crate::role::{Posting, Registration, Role};
use crate::store::TokenHash;
use crate::store::accounts::{self as kept, Accepted, Ban, Banned, Invitation, NewInvitation, RoomSettings};

const DAY_MS: u64 = 86_400_000;

/// `PATCH /api/rooms/{id}`
pub(super) fn set_room(request: &Request<'_>) -> Reply {
    room_set(request).unwrap_or_else(Reply::from)
}

/// `POST /api/rooms/{id}/members`
pub(super) fn become_member(request: &Request<'_>) -> Reply {
    became_member(request).unwrap_or_else(Reply::from)
}

/// `DELETE /api/rooms/{id}/members/{user}`
pub(super) fn kick(request: &Request<'_>) -> Reply {
    kicked(request).unwrap_or_else(Reply::from)
}

/// `PUT /api/users/{id}`
pub(super) fn restrain(request: &Request<'_>) -> Reply {
    restrained(request).unwrap_or_else(Reply::from)
}

/// `GET /api/bans`
pub(super) fn bans(request: &Request<'_>) -> Reply {
    banned(request).unwrap_or_else(Reply::from)
}

/// `DELETE /api/bans/{address}`
pub(super) fn readmit(request: &Request<'_>) -> Reply {
    readmitted(request).unwrap_or_else(Reply::from)
}

/// `POST /api/announcements`
pub(super) fn announce(request: &Request<'_>) -> Reply {
    announced(request).unwrap_or_else(Reply::from)
}

/// `POST /api/invitations`
pub(super) fn invite(request: &Request<'_>) -> Reply {
    invited(request).unwrap_or_else(Reply::from)
}

/// `GET /api/invitations?room=R`
pub(super) fn invitations(request: &Request<'_>) -> Reply {
    invitations_listed(request).unwrap_or_else(Reply::from)
}

/// `DELETE /api/invitations/{id}`
pub(super) fn uninvite(request: &Request<'_>) -> Reply {
    uninvited(request).unwrap_or_else(Reply::from)
}

/// What is set of a room, as it is told.
#[derive(Debug, Serialize)]
pub(super) struct SettingsShown<'a> {
    id: &'a RoomId,
    name: &'a str,
    topic: &'a str,
    posting: Posting,
    slow_mode_s: u32,
    private: bool,
}

impl<'a> SettingsShown<'a> {
    fn of(id: &'a RoomId, settings: &'a RoomSettings) -> Self {
        let RoomSettings { name, topic, posting, slow_mode_s, is_private } = settings;
        let name = if name.is_empty() { id.as_str() } else { name };
        Self { id, name, topic, posting: *posting, slow_mode_s: *slow_mode_s, private: *is_private }
    }
}

/// A field that may be said to be nothing, which is not the same as not being there.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The room of a part of the path. What no room can be called is a room that is not there.
fn room_at(request: &Request<'_>, from_the_right: usize) -> Result<RoomId, ApiError> {
    let part = request.path.rsplit('/').nth(from_the_right).unwrap_or_default();
    RoomId::parse(&unescape(part).map_err(|_| ApiError::NoRoom)?).map_err(|_| ApiError::NoRoom)
}

/// Somebody by their id, who must be known here: whose that is to whoever acts, and what they are called.
fn somebody(request: &Request<'_>, actor: &Actor) -> Result<(UserId, Whose, Option<Username>), ApiError> {
    let id = Uuid::try_parse(request.item()).map(UserId).map_err(|_| ApiError::NotFound)?;
    let found = request.context.door.registry().read(|connection| kept::somebody(connection, id))?;
    let (role, name) = found.ok_or(ApiError::NotFound)?;
    Ok((id, if actor.identity.user == Some(id) { Whose::Own } else { Whose::Others(role) }, name))
}

/// Whether somebody may do this to some guest, so that whoever may not learns nothing of who there is.
fn may_to_others(actor: &mut Actor, action: Action) -> Result<(), ApiError> {
    actor.circumstances.whose = Whose::Others(Role::Guest);
    actor.may(action)
}

fn room_set(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        name: Option<String>,
        topic: Option<String>,
        posting: Option<Posting>,
        slow_mode_s: Option<u32>,
        private: Option<bool>,
    }
    let room = room_at(request, 0)?;
    let actor = Actor::of(request, Some(&room))?;
    actor.may(Action::SetRoom)?;
    let Asked { name, topic, posting, slow_mode_s, private } = body(request)?;
    if private.is_some() {
        actor.may(Action::SetPrivate)?;
    }
    if slow_mode_s.is_some_and(|s| s > SLOW_MODE_S_MAX) {
        return Err(ApiError::Field("slow_mode_s is a number of seconds, an hour at most"));
    }
    let line = |what, text: Option<String>, chars_max| {
        let line = text.map(|text| visible_line(&text, chars_max)).transpose();
        line.map_err(|error| ApiError::Name(what, error))
    };
    let (name, topic) = (line("name", name, ROOM_NAME_CHARS_MAX)?, line("topic", topic, TOPIC_CHARS_MAX)?);
    let (user, id, now) = (actor.user()?, room.clone(), Timestamp::now());
    let turn = request.context.turn();
    let (before, after) = request.context.door.registry().change(move |connection| {
        let before = kept::room_settings(connection, &id)?;
        let after = RoomSettings {
            name: name.unwrap_or_else(|| before.name.clone()),
            topic: topic.unwrap_or_else(|| before.topic.clone()),
            posting: posting.unwrap_or(before.posting),
            slow_mode_s: slow_mode_s.unwrap_or(before.slow_mode_s),
            is_private: private.unwrap_or(before.is_private),
        };
        kept::set_room(connection, &id, &after)?;
        if after.is_private && !before.is_private {
            kept::add_member(connection, &id, user, &now)?;
        }
        Ok((before, after))
    })?;
    log::info!(
        "{user} has set room {room}: posting by {}, slow mode of {} s, {}",
        after.posting,
        after.slow_mode_s,
        if after.is_private { "private" } else { "public" },
    );
    let directory = request.context.directory;
    if after.is_private && !before.is_private {
        // The member comes first, or they would be put out with the others. The hub keeps members of private rooms only,
        // and takes this one as it is.
        directory.order(Order::SetMember { room: room.clone(), user, is_member: true })?;
    }
    directory.order(Order::SetRoom { room: room.clone(), settings: after.clone() })?;
    drop(turn);
    Ok(Reply::json(&Data { data: SettingsShown::of(&room, &after) }))
}

fn became_member(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        invitation: String,
    }
    let room = room_at(request, 1)?;
    // By an invitation one comes in as its member does.
    let actor = Actor::of(request, None)?;
    actor.may(Action::Enter)?;
    let Asked { invitation } = body(request)?;
    let user = actor.user()?;
    // One answer to whatever is no invitation to this room.
    let code = Some(&*invitation).filter(|code| is_secret(code)).map(TokenHash::of).ok_or(ApiError::NoRoom)?;
    let (id, now) = (room.clone(), Timestamp::now());
    let turn = request.context.turn();
    let accepted = request.context.door.registry().change(move |connection| {
        // Whoever is a member may follow their old invitation again.
        if kept::is_member(connection, &id, user)? {
            return Ok(Some((Accepted::Already(id.clone()), kept::room_settings(connection, &id)?)));
        }
        let invitation = kept::invitation_by_code(connection, code, &now)?;
        if invitation.is_none_or(|invitation| invitation.room.as_ref() != Some(&id)) {
            return Ok(None);
        }
        let settings = kept::room_settings(connection, &id)?;
        Ok(Some((kept::accept_to_room(connection, code, user, &now)?, settings)))
    })?;
    let (accepted, settings) = accepted.ok_or(ApiError::NoRoom)?;
    if matches!(accepted, Accepted::New(_)) {
        log::info!("{user} ({}) is a member of {room} by an invitation", actor.identity.username);
    }
    // Also for who was one before: the hub may have been busy when they became it.
    request.context.directory.order(Order::SetMember { room: room.clone(), user, is_member: true })?;
    drop(turn);
    Ok(Reply::json(&Data { data: SettingsShown::of(&room, &settings) }))
}

fn kicked(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = room_at(request, 2)?;
    let mut actor = Actor::of(request, Some(&room))?;
    may_to_others(&mut actor, Action::Kick)?;
    let (user, whose, name) = somebody(request, &actor)?;
    actor.circumstances.whose = whose;
    actor.may(Action::Kick)?;
    let id = room.clone();
    let _turn = request.context.turn();
    let was_member = request.context.door.registry().change(move |c| Ok(kept::remove_member(c, &id, user)?))?;
    let name = name.as_ref().map_or("", Username::as_str);
    log::info!("{} has put {user} ({name}) out of {room}", actor.user()?);
    let directory = request.context.directory;
    directory.order(Order::Kick { room: room.clone(), user })?;
    if was_member {
        directory.order(Order::SetMember { room, user, is_member: false })?;
    }
    Ok(Reply::empty(204))
}

/// A moment as somebody wrote it, in milliseconds since 1970.
fn moment(text: &str) -> Result<u64, ApiError> {
    let moment = DateTime::parse_from_rfc3339(text);
    let moment = moment.map_err(|_| ApiError::Field("a moment looks like 2026-01-31T12:00:00Z"))?;
    Ok(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
}

fn restrained(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum BanAsked {
        Plain(bool),
        #[serde(rename_all = "snake_case")]
        With {
            until: Option<String>,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            address: bool,
        },
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[serde(default, deserialize_with = "said")]
        muted_until: Option<Option<String>>,
        banned: Option<BanAsked>,
    }
    #[derive(Serialize)]
    struct Restrained {
        id: UserId,
        muted_until: Option<Timestamp>,
        banned: bool,
    }
    let mut actor = Actor::of(request, None)?;
    may_to_others(&mut actor, Action::Ban)?;
    let Asked { muted_until, banned } = body(request)?;
    let (user, whose, name) = somebody(request, &actor)?;
    actor.circumstances.whose = whose;
    if muted_until.is_none() && banned.is_none() {
        return Err(ApiError::Field("say muted_until, or banned, or both"));
    }
    let (by, now) = (actor.user()?, Timestamp::now());
    let mute = match muted_until {
        None => None,
        Some(until) => {
            actor.may(Action::Mute)?;
            Some(until.as_deref().map_or(Ok(0), moment)?)
        }
    };
    let directory = request.context.directory;
    let networks = match &banned {
        Some(BanAsked::With { address: true, .. }) => match whose {
            Whose::Others(Role::Guest) => directory.networks_of(user)?,
            _ => return Err(ApiError::Field("only a guest is banned by address, too; an account is by itself")),
        },
        _ => Vec::new(),
    };
    let ban = match banned {
        None => None,
        Some(asked) => {
            actor.may(Action::Ban)?;
            Some(match asked {
                BanAsked::Plain(false) => None,
                BanAsked::Plain(true) => {
                    Some(Ban { banned: Banned::User(user), until_ms: None, reason: "".into(), by })
                }
                BanAsked::With { until, reason, .. } => {
                    let until_ms = until.as_deref().map(moment).transpose()?;
                    let reason = visible_line(&reason, LABEL_CHARS_MAX);
                    let reason = reason.map_err(|error| ApiError::Name("reason", error))?;
                    Some(Ban { banned: Banned::User(user), until_ms, reason, by })
                }
            })
        }
    };
    let (new_ban, at, new_networks) = (ban.clone(), now.clone(), networks.clone());
    let _turn = request.context.turn();
    let (muted_until, is_banned) = request.context.door.registry().change(move |connection| {
        if let Some(until_ms) = mute {
            kept::mute(connection, user, until_ms, by, &at)?;
        }
        match &new_ban {
            None => {}
            Some(None) => drop(kept::unban(connection, Banned::User(user))?),
            Some(Some(ban)) => {
                kept::ban(connection, ban, &at)?;
                for network in new_networks {
                    kept::ban(connection, &Ban { banned: Banned::Address(network), ..ban.clone() }, &at)?;
                }
            }
        }
        Ok((kept::muted_until(connection, user, &at)?, kept::is_banned(connection, Banned::User(user), &at)?))
    })?;
    let name = name.as_ref().map_or("", Username::as_str);
    if let Some(until_ms) = mute {
        match muted_until {
            Some(until_ms) => log::info!("{by} has muted {user} ({name}) until {}", Timestamp::at(until_ms)),
            None => log::info!("{by} lets {user} ({name}) speak again"),
        }
        directory.order(Order::Mute { user, until_ms })?;
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
        directory.order(Order::EndUser(user))?;
    }
    for network in networks {
        log::info!("{by} has banned the guests of {network}");
        directory.order(Order::EndGuests(network))?;
    }
    let muted_until = muted_until.map(Timestamp::at);
    Ok(Reply::json(&Data { data: Restrained { id: user, muted_until, banned: is_banned } }))
}

fn readmitted(request: &Request<'_>) -> Result<Reply, ApiError> {
    let mut actor = Actor::of(request, None)?;
    may_to_others(&mut actor, Action::Ban)?;
    let text = unescape(request.item()).map_err(|_| ApiError::NotFound)?;
    let network = network_of(text.parse().map_err(|_| ApiError::NotFound)?);
    let by = actor.user()?;
    let was_banned = request
        .context
        .door
        .registry()
        .change(move |connection| Ok(kept::unban(connection, Banned::Address(network))?))?;
    if !was_banned {
        return Err(ApiError::NotFound);
    }
    log::info!("{by} lets the guests of {network} in again");
    Ok(Reply::empty(204))
}

fn banned(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Line {
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<UserId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<Username>,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        until: Option<Timestamp>,
        reason: Box<str>,
        by: UserId,
    }
    let mut actor = Actor::of(request, None)?;
    may_to_others(&mut actor, Action::Ban)?;
    let lines = request.context.door.registry().read(|connection| {
        let line = |Ban { banned, until_ms, reason, by }| {
            let (user, address) = match banned {
                Banned::User(id) => (Some(id), None),
                Banned::Address(address) => (None, Some(address.to_string())),
            };
            let known = user.map_or(Ok(None), |id| kept::somebody(connection, id))?;
            let (username, until) = (known.and_then(|(_, name)| name), until_ms.map(Timestamp::at));
            Ok(Line { user, username, address, until, reason, by })
        };
        kept::bans(connection, &Timestamp::now())?.into_iter().map(line).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    Ok(Reply::json(&Data { data: lines }))
}

fn announced(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        content: String,
    }
    let actor = Actor::of(request, None)?;
    actor.may(Action::Announce)?;
    let asked: Asked = body(request)?;
    let content = checked_content(&asked.content, &request.context.policy.limits, None).map_err(ApiError::Rejected)?;
    let author = actor.person()?;
    log::info!("{} announces something to all rooms", author.id);
    request.context.directory.order(Order::Announce { author, content })?;
    // Taken; each room's members see it when it is stored there.
    Ok(Reply { status: 202, ..Reply::json(&Data { data: asked }) })
}

/// An invitation as admins are told of it.
#[derive(Serialize)]
struct InvitationShown<'a> {
    id: i64,
    /// Once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    room: Option<&'a RoomId>,
    uses_left: u32,
    expires: Timestamp,
    by: UserId,
}

/// Whether somebody may have to do with invitations to a room, or to register.
fn may_invite(request: &Request<'_>, room: Option<&RoomId>) -> Result<Actor, ApiError> {
    let actor = Actor::of(request, room)?;
    actor.may(if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister })?;
    Ok(actor)
}

fn invited(request: &Request<'_>) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        room: Option<String>,
        uses: Option<u32>,
        days: Option<u32>,
    }
    let Asked { room, uses, days } = body(request)?;
    let room = room.map(|room| RoomId::parse(&room)).transpose().map_err(|_| ApiError::NoRoom)?;
    let actor = may_invite(request, room.as_ref())?;
    let (uses, days) = (uses.unwrap_or(1), days.unwrap_or(7));
    if !(1..=INVITATION_USES_MAX).contains(&uses) || !(1..=INVITATION_DAYS_MAX).contains(&days) {
        return Err(ApiError::Field("uses is a number from 1 to 1000, days one from 1 to 365"));
    }
    if room.is_none() && request.context.policy.registration == Registration::Closed {
        return Err(ApiError::Conflict("nobody can register here: the operator has closed that"));
    }
    let (by, code, now) = (actor.user()?, Secret::random(), Timestamp::now());
    let (code_hash, expires_ms) = (TokenHash::of(code.expose()), now.unix_ms + u64::from(days) * DAY_MS);
    let to = room.clone();
    let key = request.context.door.registry().change(move |connection| {
        if let Some(room) = &to
            && !kept::room_settings(connection, room)?.is_private
        {
            return Ok(None);
        }
        let new = NewInvitation { code_hash, room: to.as_ref(), uses, expires_ms, created_by: by };
        Ok(Some(kept::invite(connection, &new, &now)?))
    })?;
    let id = key.ok_or(ApiError::Conflict("this room is public; anybody may come in"))?;
    match &room {
        Some(room) => log::info!("{by} has made invitation {id} to {room}, for {uses} uses in {days} days"),
        None => log::info!("{by} has made invitation {id} to register, for {uses} uses in {days} days"),
    }
    let expires = Timestamp::at(expires_ms);
    let data = InvitationShown { id, code: Some(code.expose()), room: room.as_ref(), uses_left: uses, expires, by };
    Ok(Reply { status: 201, ..Reply::json(&Data { data }) })
}

fn invitations_listed(request: &Request<'_>) -> Result<Reply, ApiError> {
    let room = request.query_value("room").transpose()?.map(|room| RoomId::parse(&room));
    let room = room.transpose().map_err(|_| ApiError::NoRoom)?;
    may_invite(request, room.as_ref())?;
    let registry = request.context.door.registry();
    let list = registry.read(|connection| kept::invitations(connection, room.as_ref(), &Timestamp::now()))?;
    let shown = list.iter().map(|Invitation { key, room, uses_left, expires_ms, created_by }| InvitationShown {
        id: *key,
        code: None,
        room: room.as_ref(),
        uses_left: *uses_left,
        expires: Timestamp::at(*expires_ms),
        by: *created_by,
    });
    Ok(Reply::json(&Data { data: shown.collect::<Vec<_>>() }))
}

fn uninvited(request: &Request<'_>) -> Result<Reply, ApiError> {
    let key = request.item().parse().map_err(|_| ApiError::NotFound)?;
    let registry = request.context.door.registry();
    let found = registry.read(|connection| kept::invitation(connection, key, &Timestamp::now()))?;
    // Who may make none to register is told that, whether there is this one or not.
    let Some(Invitation { room, .. }) = found else {
        may_invite(request, None)?;
        return Err(ApiError::NotFound);
    };
    let actor = may_invite(request, room.as_ref())?;
    registry.change(move |connection| kept::uninvite(connection, key, room.as_ref()))?;
    log::info!("{} has taken back invitation {key}", actor.user()?);
    Ok(Reply::empty(204))
}
