//! The setup link. Its code registers the first admin, once. Only the latest link is stored.
//!
//! The link is stored after its end, too, so that its code is told from an unknown one. Upkeep must not remove it,
//! because the answer to a registration may not depend on upkeep.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::super::super::TokenHash;
use super::state::{set_value, value};
use super::{has_admin, invitation_by_code};
use crate::auth::permission::RegistrationCode;

const NAME: &str = "setup";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SetupLink {
    code_hash: TokenHash,
    /// In log time.
    expires_ms: u64,
    /// Whether there was an admin since the link was made.
    is_spent: bool,
}

/// Stores a setup link in place of the one before it.
pub fn offer_setup(connection: &Connection, code_hash: TokenHash, expires_ms: u64) -> rusqlite::Result<()> {
    store(connection, SetupLink { code_hash, expires_ms, is_spent: false })
}

/// Ends the setup link, if there is one, because there is an admin now.
pub(super) fn spend_setup(connection: &Connection) -> rusqlite::Result<()> {
    match setup_link(connection)? {
        Some(link) => store(connection, SetupLink { is_spent: true, ..link }),
        None => Ok(()),
    }
}

/// Looks up a code that a client shows in order to register.
pub fn registration_code(connection: &Connection, code: TokenHash, now_ms: u64) -> rusqlite::Result<RegistrationCode> {
    if let Some(link) = setup_link(connection)?.filter(|link| link.code_hash == code) {
        let is_valid = !link.is_spent && link.expires_ms > now_ms && !has_admin(connection)?;
        return Ok(if is_valid { RegistrationCode::Setup } else { RegistrationCode::SpentSetup });
    }
    let invitation = invitation_by_code(connection, code, now_ms)?;
    let is_to_register = invitation.is_some_and(|invitation| invitation.room.is_none());
    Ok(if is_to_register { RegistrationCode::Invitation } else { RegistrationCode::None })
}

fn setup_link(connection: &Connection) -> rusqlite::Result<Option<SetupLink>> {
    let json = value::<String>(connection, NAME)?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
}

fn store(connection: &Connection, link: SetupLink) -> rusqlite::Result<()> {
    set_value(connection, NAME, serde_json::to_string(&link).unwrap_or_default())
}
