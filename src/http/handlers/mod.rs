//! The handlers of requests, one file for each kind of resource.

pub(super) mod accounts;
pub(super) mod assets;
pub(super) mod audit;
pub(super) mod health;
pub(super) mod invitations;
pub(super) mod messages;
pub(super) mod moderation;
pub(super) mod rooms;
pub(super) mod sessions;
