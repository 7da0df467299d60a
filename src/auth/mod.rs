//! Who is who: what a role may do, secrets, passwords, names that look alike, and how often one may try.
//!
//! Pure, but for two edges: random bytes come from the system, and passwords are hashed on threads of their own
//! ([`Hasher`](hasher::Hasher)), as a hash takes 19 MiB and some tens of milliseconds.

pub mod attempts;
pub mod credential;
pub mod guest_token;
pub mod hasher;
pub mod name;
pub mod password;
pub mod permission;
pub mod secret;
