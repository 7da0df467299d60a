//! The command `adda setup`: makes a link whose code registers the first admin.

use std::path::Path;

use super::Error;
use super::propose::{Absent, propose};
use crate::auth::secret::Secret;
use crate::model::reason::Reason;
use crate::store::change::Change;

/// Makes a setup link, and returns its code. A link that was made before ends. `None` if there is an admin already. The
/// code is valid for an hour ([`SETUP_SPAN_MS`](crate::limits::SETUP_SPAN_MS)), and shown only here.
///
/// # Errors
/// [`Error`].
pub fn setup_link(data: &Path) -> Result<Option<Secret>, Error> {
    let (change, code) = Change::offer_setup();
    match propose(data, Absent::Make, change) {
        Ok(_) => Ok(Some(code)),
        Err(error) if error.reason() == Some(Reason::HasAdmin) => Ok(None),
        Err(error) => Err(error),
    }
}
