//! What changes do. Each first checks whether it is allowed, then writes the rows, then updates the policy in memory.
//! All run on the store's thread.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::credential::GUEST_SPAN_MS;
use crate::auth::permission::{Action, RegistrationCode, Target};
use crate::model::reason::Reason;
use crate::model::role::{Registration, Role};
use crate::model::{Author, RoomId, Seq, Timestamp, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::{AddressBan, AddressBanTerms, BanChange, Restrictions};

use super::super::change::{Change, Done, NewAccount, NewInvitation, NewLogin, NewRole, Policy, Restrict, Use};
use super::super::entry::{By, Event, Outcome, Principal};
use super::super::sqlite::people::{self, Account, AuditAction, Ban, Banned, InvitationId, SessionId};
use super::super::sqlite::{Connection, Fault};
use super::accounts::{account_done, find_account};
use super::upkeep::forget_audit_entries;
use super::{Ledger, Stop, Storage};

/// What a change reports to its proposer. Its effects on open connections are in [`Ledger::events`].
pub(super) type Made = Result<Done, Stop>;

impl Ledger {
    /// Makes a change completely, or refuses it and leaves everything as it was.
    pub(super) fn change(&mut self, storage: &mut impl Storage, by: &By, change: &Change) -> Result<Outcome, Fault> {
        storage.people().execute_batch("SAVEPOINT change")?;
        let (policy, lines) = (self.policy.clone(), self.lines.len());
        self.events.clear();
        match self.made(storage, by, change) {
            Ok(done) => {
                storage.people().execute_batch("RELEASE change")?;
                Ok(Outcome::Changed { done, events: std::mem::take(&mut self.events) })
            }
            Err(Stop::Refused(rejection)) => {
                storage.people().execute_batch("ROLLBACK TO change; RELEASE change")?;
                self.policy = policy;
                self.lines.truncate(lines);
                // A guest that the change stored is no longer stored.
                self.stored_guests.clear();
                Ok(Outcome::Refused { room: None, rejection, nonce: None })
            }
            Err(Stop::Fault(fault)) => {
                // In a file, the whole batch is rolled back. In memory there is no transaction around the savepoint.
                let _ = storage.people().execute_batch("ROLLBACK TO change; RELEASE change");
                self.policy = policy;
                Err(fault)
            }
        }
    }

    fn made(&mut self, storage: &mut impl Storage, by: &By, change: &Change) -> Made {
        let connection = storage.people();
        match change {
            Change::CreateAccount(account) => {
                operator(by)?;
                let Account { id, name, role, .. } = self.insert_account(connection, account)?;
                let created = AuditAction::CreateAccount.audited().user(id, name).detail(format_args!("role {role}"));
                self.audit(connection, None, created)?;
                self.rename_resembling(storage, &account.skeletons, None)?;
                account_done(storage.people(), 0)
            }
            Change::Register { account, invitation, session, replaces } => {
                let by = client(by)?;
                let clock_ms = self.moment.clock_ms;
                let code = match invitation {
                    Some(code) => people::registration_code(connection, *code, clock_ms)?,
                    None => RegistrationCode::None,
                };
                self.policy.may_register(by, code, clock_ms)?;
                let (role, how) = match (code, self.policy.flags.registration, invitation) {
                    (RegistrationCode::Invitation, Registration::Invite, Some(code)) => {
                        let InvitationId(invitation) = people::spend(connection, *code, clock_ms)?;
                        (account.role, format!(", invitation {invitation}"))
                    }
                    // A new admin ends the setup link, so its code counts once.
                    (RegistrationCode::Setup, ..) => (Role::Admin, ", as an admin by the setup link".to_owned()),
                    _ => (account.role, String::new()),
                };
                let skeletons = &account.skeletons;
                let account = self.insert_account(connection, &NewAccount { role, ..account.clone() })?;
                let registrant = Author { id: account.id, username: &account.name };
                let registered = AuditAction::Register.audited().detail(format_args!("from {}{how}", by.network));
                self.audit(connection, Some(registrant), registered)?;
                let done = self.log_in(connection, by, account, session, *replaces)?;
                self.rename_resembling(storage, skeletons, Some(by.user()))?;
                Ok(done)
            }
            Change::LogIn(NewLogin { user, password, renewed, session, replaces }) => {
                let by = client(by)?;
                let account = people::by_id(connection, *user)?.ok_or(Reason::WrongLogin)?;
                if self.policy.is_banned(Banned::User(*user), self.moment.clock_ms) {
                    return Err(Reason::Banned.into());
                }
                // The password may have changed while the client's password was hashed.
                if account.password.as_ref() != Some(password) {
                    return Err(Reason::WrongLogin.into());
                }
                if let Some(renewed) = renewed {
                    people::renew_hash(connection, *user, password, renewed)?;
                }
                self.lines.push(format!("{user} ({}) has logged in from {}", account.name, by.network));
                self.log_in(connection, by, account, session, *replaces)
            }
            Change::NameGuest { user, username, skeletons, session } => {
                let by = client(by)?;
                if !by.is_guest() {
                    return Err(Reason::LoggedIn.into());
                }
                self.policy.may(by, Action::Enter, None, Target::Own, self.moment.clock_ms)?;
                if username.as_str() != USERNAME_DEFAULT && people::resembling(connection, skeletons)?.is_some() {
                    return Err(Reason::NameReserved.into());
                }
                if let Some(present) = self.presence.user(*user).filter(|present| present.username() != username) {
                    self.may_rename(present).map_err(Stop::Refused)?;
                }
                let expires_ms = self.moment.clock_ms + GUEST_SPAN_MS;
                people::name_guest(connection, *user, username, session, expires_ms, &self.moment)?;
                self.lines.push(format!("{user} ({username}) has started a guest session from {}", by.network));
                let renamed = self.rename(storage, *user, username, Some(self.moment.clock_ms))?;
                self.events.extend(renamed.map(Event::Renamed));
                let expires_ms = Some(self.moment.wall_ms + GUEST_SPAN_MS);
                let (user, username, role) = (*user, username.clone(), Role::Guest);
                Ok(Done::Session { user, username, role, expires_ms, is_new_account: false })
            }
            Change::CreateToken { account, session } => {
                operator(by)?;
                let done = self.create_token(connection, account, session)?;
                if matches!(done, Done::Session { is_new_account: true, .. }) {
                    self.rename_resembling(storage, &account.skeletons, None)?;
                }
                Ok(done)
            }
            Change::EndSession { session } => self.end_session(connection, by, *session),
            Change::SetPassword { account, password, old, keep } => {
                let Account { id, name, password: current, .. } = find_account(connection, account)?;
                let clock_ms = self.moment.clock_ms;
                if let By::Client(by) = by {
                    if by.user() != id {
                        return Err(Reason::NotYours.into());
                    }
                    self.policy.may(by, Action::ChangePassword, None, Target::Own, clock_ms)?;
                    if current != *old {
                        return Err(Reason::WrongPassword.into());
                    }
                }
                let ended = people::set_password(connection, id, password, *keep, clock_ms)?;
                if by.author().is_some() {
                    self.lines.push(format!("{id} ({name}) has changed its password; sessions ended: {}", ended.len()));
                } else {
                    self.audit(connection, None, AuditAction::SetPassword.audited().user(id, name))?;
                }
                let sessions_ended = ended.len();
                self.ended(id, ended);
                account_done(connection, sessions_ended)
            }
            Change::SetRole(NewRole { account, role }) => {
                operator(by)?;
                let Account { id, name, role: before, .. } = find_account(connection, account)?;
                people::set_role(connection, id, *role)?;
                self.policy.roles.insert_mut(id, *role);
                self.events.push(Event::RoleSet { user: id, role: *role });
                if *role == Role::Admin {
                    if self.policy.muted_until(id, self.moment.clock_ms).is_some() {
                        self.events.push(Event::Muted { user: id });
                    }
                    self.policy.muted.remove_mut(&id);
                    self.policy.banned.remove_mut(&Banned::User(id));
                }
                if *role != before {
                    let changed = AuditAction::SetRole.audited().user(id, name).detail(format_args!("role {role}"));
                    self.audit(connection, None, changed)?;
                }
                account_done(connection, 0)
            }
            Change::RemoveAccount { account } => {
                operator(by)?;
                let Account { id, name, .. } = find_account(connection, account)?;
                let ended = people::remove(connection, id)?;
                self.policy.roles.remove_mut(&id);
                self.policy.remove_from_rooms(id);
                self.audit(connection, None, AuditAction::RemoveAccount.audited().user(id, name))?;
                let sessions_ended = ended.len();
                self.ended(id, ended);
                self.events.push(Event::UserEnded(id));
                account_done(connection, sessions_ended)
            }
            Change::Restrict(restrict) => self.restrict(storage, by, restrict),
            Change::BanAddress { network, terms, is_shared } => {
                let AddressBanTerms { until_ms, reason, force } = terms;
                self.may(by, Action::Ban, None, Target::Others(Role::Guest))?;
                if *is_shared && !force {
                    return Err(Reason::AddressShared.into());
                }
                let (banned, until_ms) = (Banned::Address(*network), until_ms.map(|ms| self.moment.to_clock(ms)));
                self.ban(connection, Ban { banned, until_ms, reason: reason.clone(), by: by.user() })?;
                let detail = ban_detail(terms.until_ms, reason);
                let change = AuditAction::Ban.audited().address(Some(*network)).detail(detail);
                self.audit(connection, by.author(), change)?;
                if self.policy.is_banned(banned, self.moment.clock_ms) {
                    self.events.push(Event::GuestsBanned(*network));
                }
                Ok(Done::Nothing)
            }
            Change::UnbanAddress { network } => {
                self.may(by, Action::Ban, None, Target::Others(Role::Guest))?;
                let banned = Banned::Address(*network);
                // An expired ban does not count, whether upkeep has removed its row or not.
                if !self.policy.is_banned(banned, self.moment.clock_ms) {
                    return Err(Reason::NotFound.into());
                }
                people::unban(connection, banned)?;
                self.policy.banned.remove_mut(&banned);
                self.audit(connection, by.author(), AuditAction::Unban.audited().address(Some(*network)))?;
                Ok(Done::Nothing)
            }
            Change::SetRoom { room, patch } => self.set_room(storage, client(by)?, room, patch),
            Change::DeleteRoom { room } => self.delete_room(storage, by, room),
            Change::Kick { room, user, target } => {
                let (_, username) =
                    self.may_moderate(storage, by, Action::Kick, Some(room), *user, target.as_deref())?;
                if people::remove_member(connection, room, *user)? {
                    self.policy.remove_member(room, *user);
                }
                self.presence.kick(room, *user);
                let kicked = AuditAction::Kick.audited().user(*user, username.clone()).room(Some(room));
                self.audit(connection, by.author(), kicked)?;
                self.events.push(Event::Kicked { room: room.clone(), user: *user });
                Ok(Done::Kicked { username })
            }
            Change::Invite(invitation) => self.invite(connection, by, invitation),
            Change::Revoke { invitation } => {
                let Some(found) = people::invitation(connection, *invitation, self.moment.clock_ms)? else {
                    // A client that may not make invitations gets that answer, whether this invitation exists or not.
                    self.may(by, Action::InviteToRegister, None, Target::Own)?;
                    return Err(Reason::NotFound.into());
                };
                // All invitations that the client may not see get the same answer.
                self.may(by, to_invite(found.room.as_ref()), found.room.as_ref(), Target::Own)
                    .map_err(|reason| if reason.is_hidden() { Reason::NotFound } else { reason })?;
                people::revoke(connection, *invitation, found.room.as_ref())?;
                let revoked = AuditAction::RevokeInvitation.audited().room(found.room.as_ref());
                self.audit(connection, by.author(), revoked.detail(format_args!("id {}", invitation.0)))?;
                Ok(Done::Nothing)
            }
            Change::UseInvitation { room, code_hash } => {
                let by = client(by)?;
                let (user, clock_ms) = (by.user(), self.moment.clock_ms);
                self.policy.may(by, Action::Enter, None, Target::Own, clock_ms)?;
                let settings = self.policy.room(room).cloned().unwrap_or_default();
                // A member may use an old invitation again.
                if self.policy.is_member(room, user) {
                    return Ok(Done::Room(settings));
                }
                let invitation = people::invitation_by_code(connection, *code_hash, clock_ms)?;
                if invitation.is_none_or(|invitation| invitation.room.as_ref() != Some(room)) {
                    return Err(Reason::NoSuchRoom.into());
                }
                let InvitationId(invitation) = people::spend(connection, *code_hash, clock_ms)?;
                people::add_member(connection, room, user, Seq(0), clock_ms)?;
                self.policy.add_member(room, user, Seq(0));
                self.store_guest_with_name(connection, by)?;
                let used = AuditAction::UseInvitation.audited().room(Some(room));
                self.audit(connection, Some(by.person.author()), used.detail(format_args!("id {invitation}")))?;
                Ok(Done::Room(settings))
            }
            Change::Seen { sessions } => {
                for used in sessions {
                    let session = match *used {
                        Use::Session(session) => session,
                        Use::SignedGuest { user, issued_ms } => {
                            self.store_guest(connection, user, issued_ms, None)?;
                            SessionId::of_guest(user)
                        }
                    };
                    people::note_use(connection, session, self.moment.clock_ms)?;
                }
                Ok(Done::Nothing)
            }
            Change::Forget { room, up_to } => {
                server(by)?;
                self.forget(storage, room, *up_to)
            }
            Change::EraseMessages { room, messages } => {
                server(by)?;
                self.erase_messages(storage, room, messages)
            }
            Change::ForgetRooms { rooms } => {
                server(by)?;
                self.forget_rooms(storage, rooms)
            }
            Change::ForgetSessions { sessions } => {
                server(by)?;
                self.forget_sessions(connection, sessions)
            }
            Change::ForgetAuditEntries { entries } => {
                server(by)?;
                forget_audit_entries(connection, entries)
            }
            Change::SetPolicy(policy) => {
                server(by)?;
                if self.policy.flags != *policy {
                    people::set_policy(connection, policy)?;
                    self.policy.flags = *policy;
                    let Policy { accounts, registration } = policy;
                    let detail = format_args!("accounts {accounts}, registration {registration}");
                    self.audit(connection, None, AuditAction::SetPolicy.audited().detail(detail))?;
                }
                Ok(Done::Nothing)
            }
            Change::RotateGuestKey { key } => {
                operator(by)?;
                people::set_guest_key(connection, key)?;
                self.policy.guest_key = Arc::new(key.clone());
                self.audit(connection, None, AuditAction::RotateGuestKey.audited())?;
                Ok(Done::Nothing)
            }
            Change::OfferSetup { code_hash, span_ms } => {
                operator(by)?;
                if people::has_admin(connection)? {
                    return Err(Reason::HasAdmin.into());
                }
                people::offer_setup(connection, *code_hash, self.moment.clock_ms + span_ms)?;
                self.audit(connection, None, AuditAction::CreateSetupLink.audited())?;
                Ok(Done::Invited { expires_ms: self.moment.wall_ms + span_ms })
            }
        }
    }

    /// Checks whether the proposer may do something. The operator and the server may do everything.
    pub(super) fn may(&self, by: &By, action: Action, room: Option<&RoomId>, target: Target) -> Result<(), Reason> {
        match by {
            By::Operator | By::Server => Ok(()),
            By::Client(by) => self.policy.may(by, action, room, target, self.moment.clock_ms).map(drop),
        }
    }

    /// The role and name of a user that the proposer may moderate. Stores the user if it is a connected guest without a
    /// row. A user that has only sent messages, such as a client without a token, is a guest, too.
    fn may_moderate(
        &mut self,
        storage: &impl Storage,
        by: &By,
        action: Action,
        room: Option<&RoomId>,
        user: UserId,
        connected: Option<&Principal>,
    ) -> Result<(Role, Option<Username>), Stop> {
        // The first check assumes a guest. A client that may moderate no user must not learn which users exist.
        self.may(by, action, room, Target::Others(Role::Guest))?;
        let connection = storage.people();
        let connected = connected.filter(|connected| connected.user() == user);
        let connected_name = connected.map(|connected| connected.person.username.clone());
        let (role, username) = match (people::find_user(connection, user)?, connected) {
            (Some((role, username)), _) => (role, username.or(connected_name)),
            (None, Some(connected)) => {
                self.store_guest_with_name(connection, connected)?;
                (Role::Guest, connected_name)
            }
            (None, None) => (Role::Guest, Some(storage.author_name(user)?.ok_or(Reason::NoSuchUser)?)),
        };
        let is_self = matches!(by, By::Client(by) if by.user() == user);
        self.may(by, action, room, if is_self { Target::Own } else { Target::Others(role) })?;
        Ok((role, username))
    }

    fn restrict(&mut self, storage: &impl Storage, by: &By, restrict: &Restrict) -> Made {
        let connection = storage.people();
        let Restrict { user, restrictions: Restrictions { mute_until_ms, ban }, target, networks, is_shared } =
            restrict;
        let (user, clock_ms) = (*user, self.moment.clock_ms);
        let action = if ban.is_some() { Action::Ban } else { Action::Mute };
        let (role, username) = self.may_moderate(storage, by, action, None, user, target.as_deref())?;
        let audited = |action: AuditAction| action.audited().user(user, username.clone());
        if let Some(shown_until_ms) = mute_until_ms {
            let until_ms = self.moment.to_clock(*shown_until_ms);
            let before = self.policy.muted_until(user, clock_ms);
            people::mute(connection, user, until_ms, by.user(), clock_ms)?;
            let change = if until_ms > clock_ms {
                self.policy.muted.insert_mut(user, until_ms);
                audited(AuditAction::Mute).detail(format_args!("until {}", Timestamp::at(*shown_until_ms)))
            } else {
                self.policy.muted.remove_mut(&user);
                audited(AuditAction::Unmute)
            };
            if self.policy.muted_until(user, clock_ms) != before {
                self.audit(connection, by.author(), change)?;
            }
            self.events.push(Event::Muted { user });
        }
        match ban {
            None => {}
            Some(BanChange::Lift) => {
                people::unban(connection, Banned::User(user))?;
                if self.policy.is_banned(Banned::User(user), clock_ms) {
                    self.audit(connection, by.author(), audited(AuditAction::Unban))?;
                }
                self.policy.banned.remove_mut(&Banned::User(user));
            }
            Some(BanChange::Ban { until_ms, reason, by_address }) => {
                let networks: &[IpAddr] = match (by_address, role) {
                    (None, _) => &[],
                    (Some(_), Role::Guest) if networks.is_empty() => return Err(Reason::AddressUnknown.into()),
                    (Some(AddressBan { force: false }), Role::Guest) if *is_shared => {
                        return Err(Reason::AddressShared.into());
                    }
                    (Some(_), Role::Guest) => networks,
                    (Some(_), _) => return Err(Reason::TargetIsNoGuest.into()),
                };
                let detail = ban_detail(*until_ms, reason);
                let until_ms = until_ms.map(|until_ms| self.moment.to_clock(until_ms));
                let banned = networks.iter().map(|network| Banned::Address(*network)).chain([Banned::User(user)]);
                for banned in banned {
                    self.ban(connection, Ban { banned, until_ms, reason: reason.clone(), by: by.user() })?;
                }
                // One entry for each address.
                for at in 0..networks.len().max(1) {
                    let change = audited(AuditAction::Ban).address(networks.get(at).copied()).detail(&detail);
                    self.audit(connection, by.author(), change)?;
                }
                if self.policy.is_banned(Banned::User(user), clock_ms) {
                    self.events.push(Event::UserEnded(user));
                    self.events.extend(networks.iter().map(|network| Event::GuestsBanned(*network)));
                }
            }
        }
        let muted_until_ms = self.policy.muted_until(user, clock_ms).map(|until_ms| self.moment.shown(until_ms));
        let is_banned = self.policy.is_banned(Banned::User(user), clock_ms);
        Ok(Done::Restricted { username, muted_until_ms, is_banned })
    }

    fn ban(&mut self, connection: &Connection, ban: Ban) -> Result<(), Fault> {
        people::ban(connection, &ban, self.moment.clock_ms)?;
        self.policy.banned.insert_mut(ban.banned, ban.until_ms);
        Ok(())
    }

    fn invite(&mut self, connection: &Connection, by: &By, invitation: &NewInvitation) -> Made {
        let NewInvitation { id, room, uses, span_ms, .. } = invitation;
        self.may(by, to_invite(room.as_ref()), room.as_ref(), Target::Own)?;
        match room {
            Some(room) if !self.policy.is_private(room) => return Err(Reason::RoomIsPublic.into()),
            None if self.policy.flags.registration == Registration::Closed => {
                return Err(Reason::RegistrationOff.into());
            }
            _ => {}
        }
        people::invite(connection, invitation, by.user(), self.moment.clock_ms)?;
        let expires_ms = self.moment.wall_ms + span_ms;
        let detail = format!("id {}, uses {uses}, until {}", id.0, Timestamp::at(expires_ms));
        let created = AuditAction::CreateInvitation.audited().room(room.as_ref()).detail(detail);
        self.audit(connection, by.author(), created)?;
        Ok(Done::Invited { expires_ms })
    }
}

fn client(by: &By) -> Result<&Arc<Principal>, Reason> {
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

/// The action of inviting to a private room, or to register.
fn to_invite(room: Option<&RoomId>) -> Action {
    if room.is_some() { Action::InviteToRoom } else { Action::InviteToRegister }
}

/// The end and the reason of a ban, for the audit log.
fn ban_detail(until_ms: Option<u64>, reason: &str) -> String {
    let end = until_ms.map_or_else(|| "for good".to_owned(), |ms| format!("until {}", Timestamp::at(ms)));
    if reason.is_empty() { end } else { format!("{end}, reason {reason}") }
}
