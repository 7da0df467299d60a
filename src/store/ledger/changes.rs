//! What changes do, each in its own function: first whether it is allowed, then the rows, then the policy at hand.

use std::net::IpAddr;

use crate::auth::credential::{GUEST_SPAN_MS, LOGIN_SPAN_MS};
use crate::auth::permission::{Action, Target};
use crate::limits::LOGINS_PER_USER_MAX;
use crate::model::reason::Reason;
use crate::model::{Person, RoomId, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{BanChange, Restrictions, RoomPatch};
use crate::role::{Registration, Role};

use super::super::change::{AccountRef, Change, Done, NewAccount, NewInvitation, NewSession, Restrict, Use};
use super::super::entry::{By, Event, Outcome, Principal, Proof};
use super::super::log::clock::Moment;
use super::super::sqlite::people::{self, Account, Ban, Banned, RoomSettings, SessionId, SessionKind};
use super::super::sqlite::{Connection, Fault};
use super::{Ledger, Made, Stop, Storage};

impl Ledger {
    /// Makes a change whole, or refuses it and leaves everything as it was.
    pub(super) fn change<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        change: &Change,
        moment: &Moment,
    ) -> Result<Outcome, Fault> {
        storage.people().execute_batch("SAVEPOINT change")?;
        let (policy, lines) = (self.policy.clone(), self.lines.len());
        match self.made(storage, by, change, moment) {
            Ok((done, events)) => {
                storage.people().execute_batch("RELEASE change")?;
                Ok(Outcome::Changed { done, events })
            }
            Err(Stop::Refused(rejection)) => {
                storage.people().execute_batch("ROLLBACK TO change; RELEASE change")?;
                self.policy = policy;
                self.lines.truncate(lines);
                // A guest that was stored on the way is not any more.
                self.stored_guests.clear();
                Ok(Outcome::Refused { room: None, rejection, nonce: None })
            }
            Err(Stop::Fault(fault)) => {
                // A file's whole batch is rolled back. In memory there is nothing around the savepoint.
                let _ = storage.people().execute_batch("ROLLBACK TO change; RELEASE change");
                self.policy = policy;
                Err(fault)
            }
        }
    }

    fn made<S: Storage>(&mut self, storage: &mut S, by: &By, change: &Change, moment: &Moment) -> Result<Made, Stop> {
        match change {
            Change::CreateAccount(account) => self.create_account(storage, by, account, moment),
            Change::Register { account, invitation, session, replaces } => {
                let by = client(by)?;
                let invited = match invitation {
                    Some(code) => people::invitation_by_code(storage.people(), *code, moment.clock_ms)?
                        .is_some_and(|invitation| invitation.room.is_none()),
                    None => false,
                };
                self.may_as_guest(by, Action::Register, invited, moment)?;
                if let (Registration::Invite, Some(code)) = (self.policy.flags.registration, invitation) {
                    people::spend(storage.people(), *code, moment.clock_ms)?;
                }
                people::create(storage.people(), &row_of(account, moment), &account.looks)?;
                self.policy.roles.insert_mut(account.id, account.role);
                self.lines.push(format!("{} ({}) has registered from {}", account.id, account.name, by.network));
                self.log_in(storage, by, account.id, session, *replaces, moment)
            }
            Change::LogIn { user, password, renewed, session, replaces } => {
                let by = client(by)?;
                let account = people::by_id(storage.people(), *user)?.ok_or(Reason::WrongLogin)?;
                if self.policy.is_banned(Banned::User(*user), moment.clock_ms) {
                    return Err(Reason::Banned.into());
                }
                // The password may have been changed while it was hashed.
                if account.password.as_ref() != Some(password) {
                    return Err(Reason::WrongLogin.into());
                }
                if let Some(renewed) = renewed {
                    people::renew_hash(storage.people(), *user, password, renewed)?;
                }
                self.lines.push(format!("{user} ({}) has logged in from {}", account.name, by.network));
                self.log_in(storage, by, *user, session, *replaces, moment)
            }
            Change::NameGuest { user, username, looks, session } => {
                let by = client(by)?;
                if !by.is_guest() {
                    return Err(Reason::LoggedIn.into());
                }
                self.may_as_guest(by, Action::Enter, false, moment)?;
                if username.as_str() != USERNAME_DEFAULT && people::resembling(storage.people(), looks)?.is_some() {
                    return Err(Reason::NameReserved.into());
                }
                let expires_ms = moment.clock_ms + GUEST_SPAN_MS;
                people::name_guest(storage.people(), *user, username, session, expires_ms, moment)?;
                self.lines.push(format!("{user} ({username}) is a guest, from {}", by.network));
                let expires_ms = Some(moment.wall_ms + GUEST_SPAN_MS);
                let (user, username, role) = (*user, username.clone(), Role::Guest);
                Ok((Done::Session { user, username, role, expires_ms, is_new_account: false }, Vec::new()))
            }
            Change::CreateToken { account, session } => self.create_token(storage, by, account, session, moment),
            Change::EndSession { session } => self.end_session(storage, by, *session, moment),
            Change::SetPassword { account, password, old, keep } => {
                let account = self.account(storage, account)?;
                if let By::Client(by) = by {
                    if by.user() != account.id {
                        return Err(Reason::NotYours.into());
                    }
                    self.policy.may(by, Action::ChangePassword, None, Target::Own, moment.clock_ms)?;
                    if account.password != *old {
                        return Err(Reason::WrongPassword.into());
                    }
                }
                let ended = people::set_password(storage.people(), account.id, password, *keep, moment.clock_ms)?;
                self.lines.push(format!("{} has another password, which ends {} sessions", account.id, ended.len()));
                self.ended(storage.people(), account.id, ended, moment)
            }
            Change::SetRole { account, role } => {
                operator(by)?;
                let account = self.account(storage, account)?;
                people::set_role(storage.people(), account.id, *role)?;
                self.policy.roles.insert_mut(account.id, *role);
                let mut events = Vec::new();
                if *role == Role::Admin {
                    if self.policy.muted_until(account.id, moment.clock_ms).is_some() {
                        events.push(Event::Muted { user: account.id });
                    }
                    self.policy.muted.remove_mut(&account.id);
                    self.policy.banned.remove_mut(&Banned::User(account.id));
                }
                self.lines.push(format!("{} ({}) is of role {role} now", account.id, account.name));
                let has_admin = people::has_admin(storage.people())?;
                Ok((Done::Account { sessions_ended: 0, has_admin }, events))
            }
            Change::RemoveAccount { account } => {
                operator(by)?;
                let account = self.account(storage, account)?;
                let ended = people::remove(storage.people(), account.id)?;
                self.policy.roles.remove_mut(&account.id);
                let rooms: Vec<_> =
                    self.policy.members.keys().filter(|(_, user)| *user == account.id).cloned().collect();
                for member in &rooms {
                    self.policy.members.remove_mut(member);
                }
                self.lines.push(format!("{} ({}) is removed", account.id, account.name));
                let (done, mut events) = self.ended(storage.people(), account.id, ended, moment)?;
                events.push(Event::UserEnded(account.id));
                Ok((done, events))
            }
            Change::Restrict(restrict) => self.restrict(storage, by, restrict, moment),
            Change::UnbanAddress { network } => {
                self.may_moderate(by, Action::Ban, None, Role::Guest, moment)?;
                let banned = Banned::Address(*network);
                // One that is over counts for nothing, whether upkeep has removed its row or not.
                if !self.policy.is_banned(banned, moment.clock_ms) {
                    return Err(Reason::NotFound.into());
                }
                people::unban(storage.people(), banned)?;
                self.policy.banned.remove_mut(&banned);
                self.lines.push(format!("{} lets the guests of {network} in again", name_of(by)));
                Ok((Done::Nothing, Vec::new()))
            }
            Change::SetRoom { room, patch } => self.set_room(storage, by, room, patch, moment),
            Change::Kick { room, user, target } => {
                self.may_moderate(by, Action::Kick, Some(room), Role::Guest, moment)?;
                let (role, username) = self.target(storage, *user, target.as_deref(), moment)?;
                self.may_to(by, Action::Kick, Some(room), *user, role, moment)?;
                if people::remove_member(storage.people(), room, *user)? {
                    self.policy.members.remove_mut(&(room.clone(), *user));
                }
                self.presence.kick(room, *user);
                self.lines.push(format!("{} has kicked {user} ({}) out of {room}", name_of(by), shown(&username)));
                Ok((Done::Kicked { username }, vec![Event::Kicked { room: room.clone(), user: *user }]))
            }
            Change::Invite(invitation) => self.invite(storage, by, invitation, moment),
            Change::Uninvite { invitation } => {
                let found = people::invitation(storage.people(), *invitation, moment.clock_ms)?;
                let Some(found) = found else {
                    // A client that may make none is told that, whether there is this one or not.
                    self.may(by, Action::InviteToRegister, None, Target::Own, moment)?;
                    return Err(Reason::NotFound.into());
                };
                let action = if found.room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister };
                // One answer to whatever is no invitation for this client.
                self.may(by, action, found.room.as_ref(), Target::Own, moment)
                    .map_err(|reason| if reason.is_hidden() { Reason::NotFound } else { reason })?;
                people::uninvite(storage.people(), *invitation, found.room.as_ref())?;
                self.lines.push(format!("{} has revoked invitation {}", name_of(by), invitation.0));
                Ok((Done::Nothing, Vec::new()))
            }
            Change::UseInvitation { room, code_hash } => {
                let by = client(by)?;
                self.policy.may(by, Action::Enter, None, Target::Own, moment.clock_ms)?;
                let (connection, user) = (storage.people(), by.user());
                // A member may follow an old invitation again.
                if self.policy.is_member(room, user) {
                    return Ok((Done::Room(self.policy.room(room).cloned().unwrap_or_default()), Vec::new()));
                }
                let invitation = people::invitation_by_code(connection, *code_hash, moment.clock_ms)?;
                if invitation.is_none_or(|invitation| invitation.room.as_ref() != Some(room)) {
                    return Err(Reason::NoSuchRoom.into());
                }
                people::spend(connection, *code_hash, moment.clock_ms)?;
                people::add_member(connection, room, user, moment.clock_ms)?;
                self.policy.members.insert_mut((room.clone(), user), ());
                self.store_target(storage, by, moment)?;
                self.lines.push(format!("{user} ({}) is a member of {room} by an invitation", by.person.username));
                let settings = self.policy.room(room).cloned().unwrap_or_default();
                Ok((Done::Room(settings), Vec::new()))
            }
            Change::Seen { sessions } => {
                for used in sessions {
                    match used {
                        Use::Session(session) => people::note_use(storage.people(), *session, moment.clock_ms)?,
                        Use::SignedGuest { user, issued_ms } => {
                            self.store_guest(storage, *user, *issued_ms, None, moment)?;
                            people::note_use(storage.people(), SessionId::of_guest(*user), moment.clock_ms)?;
                        }
                    }
                }
                Ok((Done::Nothing, Vec::new()))
            }
            Change::Forget { .. } | Change::ForgetRooms { .. } | Change::ForgetSessions { .. } => {
                server(by)?;
                self.forget(storage, change)
            }
            Change::SetPolicy(policy) => {
                server(by)?;
                people::set_policy(storage.people(), policy)?;
                self.policy.flags = *policy;
                Ok((Done::Nothing, Vec::new()))
            }
            Change::RotateGuestKey { key } => {
                operator(by)?;
                people::set_guest_key(storage.people(), key)?;
                self.policy.guest_key = std::sync::Arc::new(crate::auth::guest_token::GuestKey::from_bytes(key.0));
                self.lines.push("the key of guests' tokens is another now".to_owned());
                Ok((Done::Nothing, Vec::new()))
            }
        }
    }

    /// Whether the proposer may do something. The operator and the server may do everything.
    fn may(
        &self,
        by: &By,
        action: Action,
        room: Option<&RoomId>,
        target: Target,
        moment: &Moment,
    ) -> Result<(), Reason> {
        match by {
            By::Operator | By::Server => Ok(()),
            By::Client(by) => self.policy.may(by, action, room, target, moment.clock_ms).map(drop),
        }
    }

    /// Whether the proposer may do something to another user of a role. Asked for a guest first: a client that may do
    /// it to nobody learns nothing of who there is.
    fn may_moderate(
        &self,
        by: &By,
        action: Action,
        room: Option<&RoomId>,
        role: Role,
        moment: &Moment,
    ) -> Result<(), Reason> {
        self.may(by, action, room, Target::Others(role), moment)
    }

    fn may_to(
        &self,
        by: &By,
        action: Action,
        room: Option<&RoomId>,
        user: UserId,
        role: Role,
        moment: &Moment,
    ) -> Result<(), Reason> {
        let is_self = matches!(by, By::Client(by) if by.user() == user);
        self.may(by, action, room, if is_self { Target::Own } else { Target::Others(role) }, moment)
    }

    fn create_account<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        account: &NewAccount,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        operator(by)?;
        people::create(storage.people(), &row_of(account, moment), &account.looks)?;
        self.policy.roles.insert_mut(account.id, account.role);
        self.lines.push(format!("{} ({}) has an account of role {} now", account.id, account.name, account.role));
        let has_admin = people::has_admin(storage.people())?;
        Ok((Done::Account { sessions_ended: 0, has_admin }, Vec::new()))
    }

    fn create_token<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        account: &NewAccount,
        session: &NewSession,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        operator(by)?;
        let connection = storage.people();
        let (user, role, is_new_account) = match people::by_name(connection, &account.name)? {
            Some(known) if known.name == account.name => (known.id, known.role, false),
            Some(_) => return Err(Reason::NameTaken.into()),
            None => {
                people::create(connection, &row_of(account, moment), &account.looks)?;
                self.policy.roles.insert_mut(account.id, account.role);
                (account.id, account.role, true)
            }
        };
        // A token lasts until its time, whether it is used or not.
        let expires_ms = session.span_ms.map(|span_ms| moment.clock_ms + span_ms);
        people::begin_session(connection, user, session, expires_ms, moment.wall_ms)?;
        self.lines.push(format!("{user} ({}) has token {} now", account.name, session.id.0));
        let expires_ms = session.span_ms.map(|span_ms| moment.wall_ms + span_ms);
        let username = account.name.clone();
        Ok((Done::Session { user, username, role, expires_ms, is_new_account }, Vec::new()))
    }

    /// Begins a login and ends the session that it replaces, and the oldest logins beyond the bound.
    fn log_in<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &Principal,
        user: UserId,
        session: &NewSession,
        replaces: Option<SessionId>,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        let connection = storage.people();
        let account = people::by_id(connection, user)?.ok_or(Reason::WrongLogin)?;
        let (clock_ms, span_ms) = (moment.clock_ms, session.span_ms.unwrap_or(LOGIN_SPAN_MS));
        people::begin_session(connection, user, session, Some(clock_ms + span_ms), moment.wall_ms)?;
        let ended = people::end_oldest_logins(connection, user, LOGINS_PER_USER_MAX, clock_ms)?;
        let mut events = Vec::new();
        // A signed token is valid without a row. Its session is stored to be ended.
        if replaces.is_some() && replaces == by.session() {
            self.store_target(storage, by, moment)?;
        }
        if let Some(replaced) = replaces
            && let Some(replaced) = people::session_of_key(connection, replaced, clock_ms)?
        {
            people::end_session(connection, replaced.user, replaced.key, clock_ms)?;
            let (_, more) = self.ended(connection, replaced.user, vec![replaced.key], moment)?;
            events.extend(more);
            if replaced.kind == SessionKind::Guest {
                events.push(Event::UserEnded(replaced.user));
            }
        }
        let (_, more) = self.ended(connection, user, ended, moment)?;
        events.extend(more);
        let (username, role) = (account.name, account.role);
        let expires_ms = Some(moment.wall_ms + span_ms);
        Ok((Done::Session { user, username, role, expires_ms, is_new_account: false }, events))
    }

    fn end_session<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        session: SessionId,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        let connection = storage.people();
        let mut events = Vec::new();
        let user = match by {
            By::Server => return Err(Reason::NotAdmin.into()),
            By::Operator => {
                let found = people::session_of_key(connection, session, moment.clock_ms)?;
                let found = found.filter(|found| found.kind == SessionKind::Bot).ok_or(Reason::NotFound)?;
                people::end_session(connection, found.user, session, moment.clock_ms)?;
                self.lines.push(format!("token {} of {} has ended", session.0, found.user));
                found.user
            }
            By::Client(by) => {
                self.policy.may(by, Action::EndSession, None, Target::Own, moment.clock_ms)?;
                if let Proof::SignedGuest { issued_ms } = by.proof {
                    people::store_guest(connection, by.user(), issued_ms, None, moment)?;
                }
                people::end_session(connection, by.user(), session, moment.clock_ms)?;
                self.lines.push(format!("{} has ended session {}", by.user(), session.0));
                if by.is_guest() {
                    events.push(Event::UserEnded(by.user()));
                }
                by.user()
            }
        };
        let (done, more) = self.ended(connection, user, vec![session], moment)?;
        events.extend(more);
        Ok((done, events))
    }

    /// Remembers sessions that ended, and closes their connections.
    fn ended(
        &mut self,
        connection: &Connection,
        user: UserId,
        ended: Vec<SessionId>,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        for session in &ended {
            self.policy.ended.insert_mut(*session, moment.clock_ms);
        }
        let done = Done::Account { sessions_ended: ended.len(), has_admin: people::has_admin(connection)? };
        let events = if ended.is_empty() { Vec::new() } else { vec![Event::SessionsEnded { user, sessions: ended }] };
        Ok((done, events))
    }

    fn account<S: Storage>(&self, storage: &S, account: &AccountRef) -> Result<Account, Stop> {
        let found = match account {
            AccountRef::Id(id) => people::by_id(storage.people(), *id)?,
            AccountRef::Name(name) => people::by_name(storage.people(), name)?.filter(|account| account.name == *name),
        };
        found.ok_or_else(|| Reason::NotFound.into())
    }

    /// The role and name of a user that is to be moderated. A guest that is connected is stored by it.
    fn target<S: Storage>(
        &mut self,
        storage: &S,
        user: UserId,
        connected: Option<&Principal>,
        moment: &Moment,
    ) -> Result<(Role, Option<Username>), Stop> {
        if let Some((role, name)) = people::somebody(storage.people(), user)? {
            let name = name.or_else(|| connected.map(|connected| connected.person.username.clone()));
            return Ok((role, name));
        }
        let connected = connected.filter(|connected| connected.user() == user).ok_or(Reason::NoSuchUser)?;
        self.store_target(storage, connected, moment)?;
        Ok((Role::Guest, Some(connected.person.username.clone())))
    }

    fn store_target<S: Storage>(&mut self, storage: &S, guest: &Principal, moment: &Moment) -> Result<(), Fault> {
        match guest.proof {
            Proof::SignedGuest { issued_ms } => {
                self.store_guest(storage, guest.user(), issued_ms, Some(&guest.person.username), moment)
            }
            Proof::None | Proof::Guest(_) | Proof::Account(_) => Ok(()),
        }
    }

    fn restrict<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        restrict: &Restrict,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        let Restrict { user, restrictions: Restrictions { mute_until_ms, ban }, target, networks } = restrict;
        let action = if ban.is_some() { Action::Ban } else { Action::Mute };
        self.may_moderate(by, action, None, Role::Guest, moment)?;
        let (role, username) = self.target(storage, *user, target.as_deref(), moment)?;
        let (connection, clock_ms) = (storage.people(), moment.clock_ms);
        let (by_user, by_name, name) = (user_of(by), name_of(by), shown(&username));
        let mut events = Vec::new();
        if let Some(until_ms) = mute_until_ms {
            self.may_to(by, Action::Mute, None, *user, role, moment)?;
            let until_ms = moment.to_clock(*until_ms);
            people::mute(connection, *user, until_ms, by_user, clock_ms)?;
            if until_ms > clock_ms {
                self.policy.muted.insert_mut(*user, until_ms);
                self.lines.push(format!("{by_name} has muted {user} ({name})"));
            } else {
                self.policy.muted.remove_mut(user);
                self.lines.push(format!("{by_name} has unmuted {user} ({name})"));
            }
            events.push(Event::Muted { user: *user });
        }
        if let Some(ban) = ban {
            self.may_to(by, Action::Ban, None, *user, role, moment)?;
            match ban {
                BanChange::Lift => {
                    people::unban(connection, Banned::User(*user))?;
                    self.policy.banned.remove_mut(&Banned::User(*user));
                    self.lines.push(format!("{by_name} has unbanned {user} ({name})"));
                }
                BanChange::Ban { until_ms, reason, by_address } => {
                    let networks: &[IpAddr] = match (by_address, role) {
                        (false, _) => &[],
                        (true, Role::Guest) if networks.is_empty() => return Err(Reason::AddressUnknown.into()),
                        (true, Role::Guest) => networks,
                        (true, _) => return Err(Reason::TargetIsNoGuest.into()),
                    };
                    let until_ms = until_ms.map(|until_ms| moment.to_clock(until_ms));
                    let banned = networks.iter().map(|network| Banned::Address(*network)).chain([Banned::User(*user)]);
                    for banned in banned {
                        let ban = Ban { banned, until_ms, reason: reason.clone(), by: by_user };
                        people::ban(connection, &ban, clock_ms)?;
                        self.policy.banned.insert_mut(banned, until_ms);
                    }
                    self.lines.push(format!("{by_name} has banned {user} ({name}) and {} addresses", networks.len()));
                    if self.policy.is_banned(Banned::User(*user), clock_ms) {
                        events.push(Event::UserEnded(*user));
                        events.extend(networks.iter().map(|network| Event::GuestsBanned(*network)));
                    }
                }
            }
        }
        let muted_until_ms = self.policy.muted_until(*user, clock_ms).map(|until_ms| moment.shown(until_ms));
        let is_banned = self.policy.is_banned(Banned::User(*user), clock_ms);
        Ok((Done::Restricted { username, muted_until_ms, is_banned }, events))
    }

    fn set_room<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        room: &RoomId,
        patch: &RoomPatch,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        let client = client(by)?;
        self.may(by, Action::SetRoom, Some(room), Target::Own, moment)?;
        if patch.is_private.is_some() {
            self.may(by, Action::SetPrivate, Some(room), Target::Own, moment)?;
        }
        let connection = storage.people();
        let before = self.policy.room(room).cloned().unwrap_or_default();
        let was_private = before.is_private;
        let settings = RoomSettings {
            name: patch.name.clone().unwrap_or(before.name),
            topic: patch.topic.clone().unwrap_or(before.topic),
            posting: patch.posting.unwrap_or(before.posting),
            slow_mode_s: patch.slow_mode_s.unwrap_or(before.slow_mode_s),
            is_private: patch.is_private.unwrap_or(before.is_private),
        };
        people::set_room(connection, room, &settings)?;
        let became_private = settings.is_private && !was_private;
        if became_private {
            people::add_member(connection, room, client.user(), moment.clock_ms)?;
            self.policy.members.insert_mut((room.clone(), client.user()), ());
        }
        if !settings.is_private && was_private {
            let members: Vec<_> = self.policy.members.keys().filter(|(of, _)| of == room).cloned().collect();
            for member in &members {
                self.policy.members.remove_mut(member);
            }
        }
        if settings == RoomSettings::default() {
            self.policy.rooms.remove_mut(room);
        } else {
            self.policy.rooms.insert_mut(room.clone(), settings.clone().into());
        }
        self.lines.push(format!(
            "{} has set room {room}: posting by {}, slow mode of {} s, {}",
            client.user(),
            settings.posting,
            settings.slow_mode_s,
            if settings.is_private { "private" } else { "public" },
        ));
        let (shown, by) = (settings.clone(), Person::clone(&client.person));
        let changed = Event::RoomChanged { room: room.clone(), settings: shown, by, became_private };
        Ok((Done::Room(settings), vec![changed]))
    }

    fn invite<S: Storage>(
        &mut self,
        storage: &mut S,
        by: &By,
        invitation: &NewInvitation,
        moment: &Moment,
    ) -> Result<Made, Stop> {
        let NewInvitation { id, room, uses, span_ms, .. } = invitation;
        let action = if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister };
        self.may(by, action, room.as_ref(), Target::Own, moment)?;
        match room {
            Some(room) if !self.policy.is_private(room) => return Err(Reason::RoomIsPublic.into()),
            None if self.policy.flags.registration == Registration::Closed => {
                return Err(Reason::RegistrationOff.into());
            }
            _ => {}
        }
        people::invite(storage.people(), invitation, user_of(by), moment.clock_ms)?;
        let to = room.as_ref().map_or_else(|| "to register".to_owned(), |room| format!("to {room}"));
        self.lines.push(format!("{} has made invitation {} {to}, for {uses} uses", name_of(by), id.0));
        Ok((Done::Invited { expires_ms: moment.wall_ms + span_ms }, Vec::new()))
    }

    fn forget<S: Storage>(&mut self, storage: &mut S, change: &Change) -> Result<Made, Stop> {
        let mut events = Vec::new();
        match change {
            Change::Forget { room, up_to } => {
                if let Some(row) = storage.room(room)? {
                    // Also where it is forgotten already: rows of a long order may be left.
                    let up_to = (*up_to).min(row.head).max(row.floor);
                    storage.forget(room, row, up_to)?;
                    if row.floor < up_to {
                        events.push(Event::Forgotten { room: room.clone(), up_to });
                    }
                }
            }
            Change::ForgetRooms { rooms } => {
                for room in rooms.iter().filter(|room| self.presence.connections(room) == 0) {
                    storage.forget_room(room)?;
                }
            }
            Change::ForgetSessions { sessions } => {
                // Entries of a session that ended lately may be on their way. After a restart its row alone says that it
                // has ended.
                for session in sessions.iter().filter(|session| !self.policy.ended.contains_key(session)) {
                    people::forget_session(storage.people(), *session)?;
                }
                self.stored_guests.clear();
            }
            _ => {}
        }
        Ok((Done::Nothing, events))
    }
}

fn client(by: &By) -> Result<&Principal, Reason> {
    match by {
        By::Client(by) => Ok(by),
        By::Operator | By::Server => Err(Reason::NoSession),
    }
}

fn operator(by: &By) -> Result<(), Reason> {
    if *by == By::Operator { Ok(()) } else { Err(Reason::NotAdmin) }
}

fn server(by: &By) -> Result<(), Reason> {
    if *by == By::Server { Ok(()) } else { Err(Reason::NotAdmin) }
}

fn user_of(by: &By) -> UserId {
    match by {
        By::Client(by) => by.user(),
        By::Operator | By::Server => UserId(uuid::Uuid::nil()),
    }
}

fn name_of(by: &By) -> String {
    match by {
        By::Client(by) => by.user().to_string(),
        By::Operator => "the operator".to_owned(),
        By::Server => "the server".to_owned(),
    }
}

fn shown(username: &Option<Username>) -> &str {
    username.as_ref().map_or("", Username::as_str)
}

fn row_of(account: &NewAccount, moment: &Moment) -> Account {
    let NewAccount { id, name, role, password, .. } = account.clone();
    Account { id, name, role, password, created_ms: moment.wall_ms }
}
