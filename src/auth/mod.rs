//! Authentication and permissions: secrets, passwords, the permission table, look-alike names, and limits on attempts.
//!
//! No function here does I/O or starts a thread. Only random bytes come from outside, from the system.

/// Implements `Debug` so that it shows the name of the type and nothing of its contents.
macro_rules! hide_in_debug {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

pub mod attempts;
pub mod credential;
pub mod guest_token;
pub mod name;
pub mod password;
pub mod permission;
pub mod secret;
