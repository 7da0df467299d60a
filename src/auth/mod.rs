//! Who is who: what a role may do, secrets, passwords, names that look alike, and how often one may try.
//!
//! Pure, but for the random bytes, which come from the system.

pub mod attempts;
pub mod credential;
pub mod guest_token;
pub mod name;
pub mod password;
pub mod permission;
pub mod secret;
