//! Who is who: what a role may do, secrets, passwords, names that look alike, and how often one may try.
//!
//! Pure, but for the random bytes, which come from the system.

/// A `Debug` that shows the name of a type and nothing of its contents.
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
