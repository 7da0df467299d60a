//! Records changes in the audit log and in the server's log.

use crate::model::Author;

use super::super::entry::NewMessage;
use super::super::message::Message;
use super::super::sqlite::people::{self, AuditAction, AuditedChange};
use super::super::sqlite::{Connection, Fault};
use super::Ledger;

impl Ledger {
    /// Records a change by a user, or by the operator for `None`.
    pub(super) fn audit(
        &mut self,
        connection: &Connection,
        by: Option<Author<'_>>,
        change: AuditedChange,
    ) -> Result<(), Fault> {
        let entry = people::audit(connection, by, change, &self.moment)?;
        self.lines.push(entry.to_string());
        Ok(())
    }

    /// Records that a message was deleted. The audit log has only deletions by another user than the author.
    pub(super) fn audit_deletion(
        &mut self,
        connection: &Connection,
        delete: &NewMessage,
        deleted: &Message,
    ) -> Result<(), Fault> {
        let (by, room) = (delete.author.person.author(), &delete.room);
        if by.id == deleted.user {
            self.lines.push(format!("{} has deleted message {} in {room}", by.id, deleted.id));
            return Ok(());
        }
        let change = AuditAction::DeleteMessage.audited().user(deleted.user, deleted.username.clone()).room(Some(room));
        self.audit(connection, Some(by), change.detail(format_args!("id {}", deleted.id)))
    }
}
