//! Names of present users. A user has one name at a time, over all its connections and rooms. A `rename` tells its rooms
//! of a new one.

use std::borrow::Cow;
use std::sync::Arc;

use crate::auth::name::Skeletons;
use crate::limits::{RENAME_INTERVAL_MS, USERNAME_CHARS_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::{Person, USERNAME_DEFAULT, UserId, Username};
use crate::protocol::Body;

use super::super::entry::{Event, Join, NewMessage, Principal, Proof, Renamed};
use super::super::sqlite::{Connection, Fault, people};
use super::presence::Present;
use super::{Ledger, Storage};

/// The end of the name of a guest whose name has become the name of an account.
const GUEST_SUFFIX: &str = " (guest)";

impl Ledger {
    /// The message under the current name of its author.
    pub(super) fn under_current_name<'a>(&self, new: &'a NewMessage) -> Cow<'a, NewMessage> {
        match self.presence.user(new.author.user()) {
            Some(present) if *present.username() != new.author.person.username => {
                Cow::Owned(NewMessage { author: named(&new.author, present.username()), ..new.clone() })
            }
            _ => Cow::Borrowed(new),
        }
    }

    /// Whether a join is under a name that its user does not have yet. A present user keeps its name if it asks for
    /// none, or has chosen one a moment ago.
    pub(super) fn has_new_name(&self, Join { principal, .. }: &Join) -> bool {
        let asked = &principal.person.username;
        self.presence.user(principal.user()).is_none_or(|present| {
            present.username() != asked && asked.as_str() != USERNAME_DEFAULT && self.may_rename(present).is_ok()
        })
    }

    /// Renames a present user that joins under another name.
    pub(super) fn rename_for_join(
        &mut self,
        storage: &mut impl Storage,
        join: &Join,
    ) -> Result<Option<Renamed>, Fault> {
        let Join { principal, .. } = join;
        if self.presence.user(principal.user()).is_none() || !self.has_new_name(join) {
            return Ok(None);
        }
        self.rename(storage, principal.user(), &principal.person.username, Some(self.moment.clock_ms))
    }

    /// Checks whether a user may choose another name now.
    pub(super) fn may_rename(&self, present: &Present) -> Result<(), Rejection> {
        // Its rooms see the name, so a rename is a way to speak.
        if self.policy.muted_until(present.principal.user(), self.moment.clock_ms).is_some() {
            return Err(Reason::Muted.into());
        }
        let Some(renamed_ms) = present.renamed_ms else { return Ok(()) };
        let left_ms = (renamed_ms + RENAME_INTERVAL_MS).saturating_sub(self.moment.clock_ms);
        if left_ms == 0 {
            return Ok(());
        }
        let sentence = format!("a name can be changed once a minute, retry in {} s", left_ms.div_ceil(1_000));
        Err(Reason::RenamedRecently.because(sentence).retry_after(left_ms))
    }

    /// Gives a present user another name, in its session and in its rooms. `None` if it has no connection in a room, or
    /// the name already. A room without messages gets no stored frame, so that a rename makes no room.
    pub(super) fn rename(
        &mut self,
        storage: &mut impl Storage,
        user: UserId,
        username: &Username,
        renamed_ms: Option<u64>,
    ) -> Result<Option<Renamed>, Fault> {
        let Some(present) = self.presence.user(user).filter(|present| present.username() != username) else {
            return Ok(None);
        };
        let former = present.username().clone();
        let author = named(&present.principal, username);
        storage.begin()?;
        if let Proof::SignedGuest { issued_ms } = author.proof {
            self.store_guest(storage.people(), user, issued_ms, None)?;
        }
        people::rename_guest(storage.people(), user, username)?;
        let mut stored = Vec::new();
        for room in self.presence.rooms_of(user) {
            let row = storage.room(&room)?;
            if row.is_none_or(|row| row.head == row.floor) {
                continue;
            }
            let body = Body::Rename { former: former.clone() };
            let new = NewMessage::of_request(room.clone(), Arc::clone(&author), body, None);
            let Some(frame) = self.append(storage, &new, row)? else { continue };
            stored.push((room, frame));
        }
        self.lines.push(format!("{user} ({former}) has the name {username} now"));
        self.presence.rename(author, renamed_ms);
        Ok(Some(Renamed { user, username: username.clone(), former, stored }))
    }

    /// Renames the present guests whose names resemble the name of a new account.
    pub(super) fn rename_resembling(
        &mut self,
        storage: &mut impl Storage,
        skeletons: &Skeletons,
        except: Option<UserId>,
    ) -> Result<(), Fault> {
        let resembles = |present: &&Present| {
            let principal = &present.principal;
            principal.is_guest()
                && Some(principal.user()) != except
                && present.username().as_str() != USERNAME_DEFAULT
                && Skeletons::of(present.username()).resemble(skeletons)
        };
        let guests = self.presence.users().filter(resembles);
        let mut guests: Vec<_> = guests.map(|present| (present.principal.user(), present.username().clone())).collect();
        guests.sort_unstable_by_key(|(user, _)| *user);
        for (user, username) in guests {
            let username = name_of_guest(storage.people(), &username)?;
            let renamed = self.rename(storage, user, &username, None)?;
            self.events.extend(renamed.map(Event::Renamed));
        }
        Ok(())
    }
}

/// A guest's name that says that it is no account's.
fn name_of_guest(connection: &Connection, username: &Username) -> Result<Username, Fault> {
    let kept = USERNAME_CHARS_MAX - GUEST_SUFFIX.chars().count();
    let kept: String = username.as_str().chars().take(kept).collect();
    let username =
        Username::parse(&format!("{}{GUEST_SUFFIX}", kept.trim_end())).unwrap_or_else(|_| Username::anonymous());
    let is_taken = people::resembling(connection, &Skeletons::of(&username))?.is_some();
    Ok(if is_taken { Username::anonymous() } else { username })
}

/// The same user under another name.
fn named(principal: &Principal, username: &Username) -> Arc<Principal> {
    let person = Person { username: username.clone(), ..Person::clone(&principal.person) };
    Arc::new(Principal { person: Arc::new(person), ..principal.clone() })
}
