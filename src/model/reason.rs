//! The reasons of refusals, the same for WebSockets, for HTTP requests and for the command line. Pure.
//!
//! A [`Reason`] has a word for programs, a coarser documented [`Code`], an HTTP status and a sentence for people. A
//! [`Rejection`] is a reason with a sentence that may say more, and with the time after which a retry may succeed.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::NameError;

/// The documented `code` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    BadJson,
    BadType,
    BadRoom,
    BadName,
    BadPassword,
    BadRequest,
    TooLong,
    RateLimited,
    NotFound,
    Forbidden,
    Conflict,
    Busy,
    MethodNotAllowed,
    UpgradeRequired,
    HeadTooLarge,
    BodyTooLarge,
    TooSlow,
    Unavailable,
    Internal,
}

impl Code {
    /// The code as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadType => "bad_type",
            Self::BadRoom => "bad_room",
            Self::BadName => "bad_name",
            Self::BadPassword => "bad_password",
            Self::BadRequest => "bad_request",
            Self::TooLong => "too_long",
            Self::RateLimited => "rate_limited",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UpgradeRequired => "upgrade_required",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::TooSlow => "too_slow",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The code in an `error` frame, which has `bad_json` in place of `bad_request`.
    #[must_use]
    pub fn in_frame(self) -> &'static str {
        if self == Self::BadRequest { Self::BadJson.as_str() } else { self.as_str() }
    }
}

macro_rules! reasons {
    ($($name:ident $word:literal $code:ident $status:literal $sentence:literal;)*) => {
        /// The reason of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($name),*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in the field `reason`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word),*
                }
            }

            /// The field `code`.
            #[must_use]
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code),*
                }
            }

            /// The status of an HTTP response.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status),*
                }
            }

            /// The sentence for people, if the rejection says nothing more specific.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence),*
                }
            }
        }
    };
}

reasons! {
    // Permission.
    Banned "banned" Forbidden 403 "you are banned here";
    LoginRequired "login_required" Forbidden 401 "one must be logged in here";
    AccountRequired "account_required" Forbidden 401 "that is for those who have an account";
    Muted "muted" Forbidden 403 "you are muted";
    ReadOnly "read_only" Forbidden 403 "only admins post in this room";
    NotAdmin "not_admin" Forbidden 403 "that is for admins";
    NotYours "not_yours" Forbidden 403 "that is not yours";
    TargetIsSelf "target_is_self" Forbidden 403 "that can't be done to oneself";
    TargetIsAdmin "target_is_admin" Forbidden 403 "that can't be done to an admin";
    RegistrationClosed "registration_closed" Forbidden 403 "registration is closed, or by invitation";
    AlreadyRegistered "already_registered" Forbidden 403 "you have an account";
    RegistrationOff "registration_off" Conflict 409 "nobody can register here: the operator has closed that";
    ForeignOrigin "foreign_origin" Forbidden 403 "a page of another origin may not write here";
    // Sessions.
    SessionEnded "session_ended" Forbidden 401 "this session has ended";
    InvalidToken "invalid_token" Forbidden 401 "that token is nobody's";
    NoSession "no_session" Forbidden 401 "nobody is known here by what this request shows; begin a session";
    WrongLogin "wrong_login" Forbidden 401 "that name and that password don't belong together";
    WrongPassword "wrong_password" Forbidden 403 "the old password is another";
    BadPassword "bad_password" BadPassword 400 "that password can't be taken";
    // Rooms.
    NoSuchRoom "no_such_room" NotFound 404 "Room not found";
    NotInRoom "not_in_room" Forbidden 403 "you are not in this room; join it first";
    NotJoined "not_joined" NotFound 404 "you are not in this room";
    AlreadyInRoom "already_in_room" Conflict 409 "you are in this room already";
    TooManyRooms "too_many_rooms" Forbidden 403 "this connection is in too many rooms; leave one first";
    Kicked "kicked" Forbidden 403 "an admin has put you out of this room";
    MadePrivate "made_private" Forbidden 403 "this room is private now";
    RoomIsPublic "room_is_public" Conflict 409 "this room is public; anybody may come in";
    // Objects of a request.
    NoSuchMessage "no_such_message" NotFound 404 "there is no message by that id in this room";
    NoSuchReply "no_such_reply" NotFound 404 "there is no message to reply to by that id";
    NoSuchUser "no_such_user" NotFound 404 "there is nobody by that id";
    NoSuchInvitation "no_such_invitation" NotFound 404 "there is no such invitation, or it is used up";
    NotFound "not_found" NotFound 404 "there is no such thing";
    NoSuchPath "no_such_path" NotFound 404 "Not found";
    NameTaken "name_taken" Conflict 409 "that name is taken, or looks like one that is";
    NameReserved "name_reserved" BadName 403 "that name is somebody's here, or looks like it: log in, or take another";
    NonceUsed "nonce_used" Conflict 409 "that nonce was another message's; what is new needs a new one";
    LoggedIn "logged_in" Conflict 409 "you are logged in; log out to be a guest";
    NoPassword "no_password" Conflict 409 "this account has no password; the operator can give it one";
    AddressUnknown "address_unknown" BadRequest 400 "they are not here now, so it is not known from which address";
    TargetIsNoGuest "target_is_no_guest" BadRequest 400 "only a guest is banned by address, too; an account is by itself";
    // Contents of a frame or of a request.
    BadJson "bad_json" BadJson 400 "this is not JSON";
    MalformedField "malformed_field" BadJson 400 "a field is not what it should be";
    BadField "bad_field" BadRequest 400 "a field is not what it should be";
    BadQuery "bad_query" BadRequest 400 "the query can't be taken";
    BadEscape "bad_escape" BadRoom 400 "the query can't be read";
    BadRoom "bad_room" BadRoom 400 "the room's name can't be taken";
    BadName "bad_name" BadName 400 "the name can't be taken";
    NameTooLong "name_too_long" TooLong 400 "the name is too long";
    EmptyMessage "empty_message" BadJson 400 "the message is empty";
    MessageTooLong "message_too_long" TooLong 413 "the message is too long";
    UnknownType "unknown_type" BadType 400 "this type is not taken here";
    BinaryFrame "binary_frame" BadType 400 "binary frames are not taken here; send text";
    UnknownMediaType "unknown_media_type" BadType 415 "send JSON as application/json";
    MethodNotAllowed "method_not_allowed" MethodNotAllowed 405 "this method is not for here";
    UpgradeRequired "upgrade_required" UpgradeRequired 426 "this is where a WebSocket is opened; ask for the upgrade";
    // The request itself.
    MalformedRequest "malformed_request" BadRequest 400 "the request can't be read";
    UnknownExpectation "unknown_expectation" BadRequest 417 "the only expectation taken is 100-continue";
    HeadTooLarge "head_too_large" HeadTooLarge 431 "the request's head is too large";
    BodyTooLarge "body_too_large" BodyTooLarge 413 "the body is too large";
    TooSlow "too_slow" TooSlow 408 "the request took too long";
    // Rates and capacity.
    RateLimited "rate_limited" RateLimited 429 "not so fast";
    SlowMode "slow_mode" RateLimited 429 "slow mode: wait before your next message here";
    TooManyAttempts "too_many_attempts" RateLimited 429 "too many tries";
    TooManyConnections "too_many_connections" RateLimited 429
        "this address opens too many connections at once; try again in a moment";
    ServerFull "server_full" Busy 503 "the server has as many connections as it can carry";
    AddressFull "address_full" Busy 503 "there are as many connections from this address as it may have";
    DiskFull "disk_full" Busy 503 "the disk is full: the message is not stored";
    NotStored "not_stored" Busy 503 "the message can't be stored now";
    Busy "busy" Busy 503 "the server is busy; try again";
    OutcomeUnknown "outcome_unknown" Busy 504
        "no answer in time: it is not known whether the message is stored; send it again with the same key";
    Unavailable "unavailable" Unavailable 502 "there is no answer from the web server";
    Internal "internal" Internal 500 "this should not have happened";
}

impl Reason {
    /// Whether the answer must be the same as for a room that does not exist, because private rooms are hidden.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        self == Self::NoSuchRoom
    }

    /// The reason with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.word() == word)
    }

    /// A rejection for this reason, with a sentence that says more.
    #[must_use]
    pub fn because(self, sentence: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { reason: self, sentence: sentence.into(), retry_ms: None }
    }

    /// The rejection of an invalid name for this reason, unless the name is too long. `what` is the field.
    #[must_use]
    pub fn of_name(self, what: &str, error: NameError) -> Rejection {
        let reason = if matches!(error, NameError::TooLong(_)) { Self::NameTooLong } else { self };
        reason.because(format!("the {what} can't be taken: {error}"))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for Reason {}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&word).ok_or_else(|| serde::de::Error::custom("unknown reason"))
    }
}

/// A reason with its sentence, as it is sent to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub reason: Reason,
    pub sentence: Cow<'static, str>,
    /// Milliseconds after which a retry may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl Rejection {
    /// This rejection with the time after which a retry may succeed.
    #[must_use]
    pub fn retry_after(self, retry_ms: u64) -> Self {
        Self { retry_ms: Some(retry_ms), ..self }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        reason.because(reason.sentence())
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_word_belongs_to_one_reason() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.word()), Some(*reason));
            assert!(reason.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason:?}");
            assert!(!reason.sentence().is_empty() && (400..600).contains(&reason.status()), "{reason:?}");
        }
    }

    /// The table as the reference shows it.
    fn table() -> String {
        let mut text = String::from("| reason | code | status | meaning |\n| --- | --- | --- | --- |\n");
        for reason in Reason::ALL {
            let (word, code, status) = (reason.word(), reason.code().as_str(), reason.status());
            text += &format!("| `{word}` | `{code}` | {status} | {} |\n", reason.sentence());
        }
        text
    }

    #[test]
    fn the_reference_shows_the_table() {
        let page = include_str!("../../static/docs/errors.md");
        let (_, section) = page.split_once("## Errors\n").expect("the page has the section");
        let (section, _) = section.split_once("\n## ").expect("a section follows");
        let shown =
            section.lines().filter(|line| line.starts_with('|')).fold(String::new(), |all, line| all + line + "\n");
        assert_eq!(shown, table(), "static/docs/errors.md should say:\n{}", table());
    }

    #[test]
    fn a_code_has_fitting_statuses() {
        for reason in Reason::ALL {
            let fits = match reason.code() {
                Code::Forbidden => [401, 403].contains(&reason.status()),
                Code::NotFound => reason.status() == 404,
                Code::Conflict => reason.status() == 409,
                Code::RateLimited => reason.status() == 429,
                Code::Busy => [503, 504].contains(&reason.status()),
                _ => true,
            };
            assert!(fits, "{reason:?}");
        }
    }
}
