//! The roles of users, and the settings that permissions depend on, with their words on the wire, in flags and in the
//! database. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The role of a user. The order is one of rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Without an account.
    Guest,
    /// With an account.
    User,
    /// Moderates, and manages rooms and users.
    Admin,
}

/// Which members may post in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Posting {
    /// All members.
    #[default]
    Everyone,
    /// Admins alone.
    Admins,
}

/// Whether an account is required (`--accounts`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accounts {
    /// No: guests are allowed.
    #[default]
    Optional,
    /// Yes: guests are refused.
    Required,
}

/// How an account is created (`--registration`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// By any client.
    Open,
    /// With an invitation.
    Invite,
    /// By the operator's command line alone.
    #[default]
    Closed,
}

/// How a session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// As a guest.
    Guest,
    /// With a password.
    Login,
    /// With a token that the operator has created for a program.
    Bot,
}

/// An error: the word is none of the allowed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {0}")]
pub struct NoSuchWord(&'static str);

macro_rules! words {
    ($($noun:ident: $list:literal, $($word:literal = $value:ident),+;)*) => {$(
        impl $noun {
            /// All values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The word for the value on the wire, in flags and in the database.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word),+
                }
            }
        }

        impl fmt::Display for $noun {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $noun {
            type Err = NoSuchWord;

            fn from_str(text: &str) -> Result<Self, NoSuchWord> {
                Self::ALL.iter().copied().find(|noun| noun.as_str() == text).ok_or(NoSuchWord($list))
            }
        }
    )*};
}
words! {
    Role: "guest, user, admin", "guest" = Guest, "user" = User, "admin" = Admin;
    Posting: "everyone, admins", "everyone" = Everyone, "admins" = Admins;
    Accounts: "optional, required", "optional" = Optional, "required" = Required;
    Registration: "open, invite, closed", "open" = Open, "invite" = Invite, "closed" = Closed;
    SessionKind: "guest, login, bot", "guest" = Guest, "login" = Login, "bot" = Bot;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_parses_to_its_value() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        for posting in Posting::ALL {
            assert_eq!(posting.as_str().parse(), Ok(*posting));
            assert_eq!(serde_json::to_value(posting).unwrap(), posting.as_str());
        }
        assert_eq!("required".parse(), Ok(Accounts::Required));
        assert_eq!("invite".parse(), Ok(Registration::Invite));
        assert_eq!("root".parse::<Role>().unwrap_err().to_string(), "expected one of: guest, user, admin");
        assert!("Admin".parse::<Role>().is_err() && "".parse::<Posting>().is_err());
        assert!(Role::Guest < Role::User && Role::User < Role::Admin);
    }
}
