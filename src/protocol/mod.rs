//! The chat protocol's JSON: the frames of clients, the frames of the server, and the error codes.
//!
//! Pure functions from text to values and back, which run on the caller's thread. This module must not depend on
//! sockets, the hub or rate limits.

mod admin;
mod command;
mod decode;
mod fields;
mod frame;
#[cfg(test)]
mod tests;

pub use admin::{
    AddressBan, AddressBanTerms, AdminAction, BanChange, Restrictions, RoomPatch, address_ban, restrictions,
    room_patch, whole_number,
};
pub use command::{After, Body, ClientCommand, ClientFrame, Replay};
pub use decode::{Rejected, checked_content, decode};
pub use fields::read;
pub use frame::{Failure, Frame, FrameType, LimitsShown, Own, Presence, RoomSettingsView, Welcome, http_error};
