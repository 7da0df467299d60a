//! REST: the audit log. Runs on the HTTP workers.

use crate::auth::permission::{Action, may};
use crate::http::extract::{Page, check_page_rate, limit_of, reader};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::limits::AUDIT_ENTRIES_LISTED_MAX;
use crate::model::reason::{Reason, Rejection};
use crate::store::accounts::AuditId;

/// `GET /api/audit?limit=N&before=ID`
pub(crate) fn list(request: &Request<'_>) -> Result<Reply, Rejection> {
    let limit = limit_of(request, AUDIT_ENTRIES_LISTED_MAX, AUDIT_ENTRIES_LISTED_MAX)?;
    let before = request.query_value("before").transpose()?.map(|id| id.parse().map(AuditId));
    let before = before.transpose().map_err(|_| Reason::BadQuery.because("before must be the id of an entry"))?;
    check_page_rate(request)?;
    request.context.reader.view(|view| {
        let identity = reader(request, view)?;
        may(identity.role, Action::ReadAudit, &identity.context(view, None))?;
        // One more entry than is listed tells whether there are more.
        let mut data = view.audit_entries(before, limit + 1)?;
        let has_more = data.len() > limit;
        data.truncate(limit);
        let next = data.last().filter(|_| has_more).map(|entry| entry.id);
        Ok(Reply::json(&Page { data, next }))
    })
}
