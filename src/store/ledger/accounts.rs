//! Accounts and sessions: how changes create and end them.

use crate::auth::credential::LOGIN_SPAN_MS;
use crate::auth::permission::{Action, Target};
use crate::limits::LOGINS_PER_USER_MAX;
use crate::model::UserId;
use crate::model::reason::Reason;

use super::super::change::{AccountRef, Done, NewAccount, NewSession};
use super::super::entry::{By, Event, Principal, Proof};
use super::super::sqlite::people::{self, Account, AuditAction, SessionId, SessionKind};
use super::super::sqlite::{Connection, Fault};
use super::changes::Made;
use super::{Ledger, Stop};

impl Ledger {
    pub(super) fn insert_account(&mut self, connection: &Connection, account: &NewAccount) -> Result<Account, Stop> {
        let NewAccount { id, name, role, password, skeletons } = account.clone();
        let account = Account { id, name, role, password, created_ms: self.moment.wall_ms };
        people::create(connection, &account, &skeletons)?;
        self.policy.roles.insert_mut(id, role);
        Ok(account)
    }

    pub(super) fn create_token(&mut self, connection: &Connection, account: &NewAccount, session: &NewSession) -> Made {
        let (user, role, is_new_account) = match people::by_name(connection, &account.name)? {
            Some(known) if known.name == account.name => (known.id, known.role, false),
            Some(_) => return Err(Reason::NameTaken.into()),
            None => {
                self.insert_account(connection, account)?;
                (account.id, account.role, true)
            }
        };
        // A token lasts for its span from now, whether it is used or not.
        let expires_ms = session.span_ms.map(|span_ms| self.moment.clock_ms + span_ms);
        people::begin_session(connection, user, session, expires_ms, self.moment.wall_ms)?;
        let note = if is_new_account { ", new account" } else { "" };
        let created = AuditAction::CreateToken.audited().user(user, account.name.clone());
        self.audit(connection, None, created.detail(format_args!("id {}{note}", session.id.0)))?;
        let expires_ms = session.span_ms.map(|span_ms| self.moment.wall_ms + span_ms);
        let username = account.name.clone();
        Ok(Done::Session { user, username, role, expires_ms, is_new_account })
    }

    /// Begins a login. Ends the session that it replaces, and the oldest logins beyond the limit.
    pub(super) fn log_in(
        &mut self,
        connection: &Connection,
        by: &Principal,
        account: Account,
        session: &NewSession,
        replaces: Option<SessionId>,
    ) -> Made {
        let Account { id: user, name: username, role, .. } = account;
        let (clock_ms, wall_ms) = (self.moment.clock_ms, self.moment.wall_ms);
        let span_ms = session.span_ms.unwrap_or(LOGIN_SPAN_MS);
        people::begin_session(connection, user, session, Some(clock_ms + span_ms), wall_ms)?;
        let ended = people::end_oldest_logins(connection, user, LOGINS_PER_USER_MAX, clock_ms)?;
        // A signed token is valid without a row. Its session is stored so that it can be ended.
        if replaces.is_some() && replaces == by.session() {
            self.store_guest_with_name(connection, by)?;
        }
        if let Some(replaced) = replaces
            && let Some(replaced) = people::session_of_key(connection, replaced, clock_ms)?
        {
            people::end_session(connection, replaced.user, replaced.key, clock_ms)?;
            self.ended(replaced.user, vec![replaced.key]);
            if replaced.kind == SessionKind::Guest {
                self.events.push(Event::UserEnded(replaced.user));
            }
        }
        self.ended(user, ended);
        let expires_ms = Some(wall_ms + span_ms);
        Ok(Done::Session { user, username, role, expires_ms, is_new_account: false })
    }

    pub(super) fn end_session(&mut self, connection: &Connection, by: &By, session: SessionId) -> Made {
        let clock_ms = self.moment.clock_ms;
        let user = match by {
            By::Server => return Err(Reason::NotAdmin.into()),
            By::Operator => {
                let found = people::session_of_key(connection, session, clock_ms)?;
                let found = found.filter(|found| found.kind == SessionKind::Bot).ok_or(Reason::NotFound)?;
                let revoked = AuditAction::RevokeToken.audited().user(found.user, found.username);
                self.audit(connection, None, revoked.detail(format_args!("id {}", session.0)))?;
                found.user
            }
            By::Client(by) => {
                self.policy.may(by, Action::EndSession, None, Target::Own, clock_ms)?;
                if let Proof::SignedGuest { issued_ms } = by.proof {
                    self.store_guest(connection, by.user(), issued_ms, None)?;
                }
                self.lines.push(format!("{} has ended session {}", by.user(), session.0));
                if by.is_guest() {
                    self.events.push(Event::UserEnded(by.user()));
                }
                by.user()
            }
        };
        people::end_session(connection, user, session, clock_ms)?;
        self.ended(user, vec![session]);
        account_done(connection, 1)
    }

    /// Remembers ended sessions, and has their connections closed.
    pub(super) fn ended(&mut self, user: UserId, sessions: Vec<SessionId>) {
        for session in &sessions {
            self.policy.ended.insert_mut(*session, self.moment.clock_ms);
        }
        if !sessions.is_empty() {
            self.events.push(Event::SessionsEnded { user, sessions });
        }
    }

    pub(super) fn store_guest_with_name(&mut self, connection: &Connection, guest: &Principal) -> Result<(), Fault> {
        match guest.proof {
            Proof::SignedGuest { issued_ms } => {
                self.store_guest(connection, guest.user(), issued_ms, Some(&guest.person.username))
            }
            Proof::None | Proof::Guest(_) | Proof::Account(_) => Ok(()),
        }
    }
}

/// The report of a change to an account.
pub(super) fn account_done(connection: &Connection, sessions_ended: usize) -> Made {
    Ok(Done::Account { sessions_ended, has_admin: people::has_admin(connection)? })
}

pub(super) fn find_account(connection: &Connection, account: &AccountRef) -> Result<Account, Stop> {
    let found = match account {
        AccountRef::Id(id) => people::by_id(connection, *id)?,
        AccountRef::Name(name) => people::by_name(connection, name)?.filter(|account| account.name == *name),
    };
    found.ok_or_else(|| Reason::NotFound.into())
}
