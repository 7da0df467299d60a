//! The reasons of refusals, the same for WebSockets, for HTTP requests and for the command line. Pure.
//!
//! A [`Reason`] has a word for programs, a coarser documented [`Code`], an HTTP status and a sentence for people. A
//! [`Rejection`] is a reason with a sentence that may say more, and with the time after which a retry may succeed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

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
    Banned "banned" Forbidden 403 "you are banned";
    LoginRequired "login_required" Forbidden 401 "login required";
    AccountRequired "account_required" Forbidden 401 "this action needs an account";
    Muted "muted" Forbidden 403 "you are muted";
    ReadOnly "read_only" Forbidden 403 "only admins can send messages in this room";
    NotAdmin "not_admin" Forbidden 403 "only admins can do this";
    NotYours "not_yours" Forbidden 403 "this belongs to another user";
    TargetIsSelf "target_is_self" Forbidden 403 "you cannot do this to yourself";
    TargetIsAdmin "target_is_admin" Forbidden 403 "you cannot do this to an admin";
    RegistrationClosed "registration_closed" Forbidden 403 "registration is closed or needs an invitation";
    AlreadyRegistered "already_registered" Forbidden 403 "you already have an account";
    RegistrationOff "registration_off" Conflict 409 "registration is closed; invitations to register are disabled";
    HasAdmin "has_admin" Conflict 409 "there is already an admin";
    ForeignOrigin "foreign_origin" Forbidden 403 "requests from this origin are not allowed";
    // Sessions.
    SessionEnded "session_ended" Forbidden 401 "the session has ended";
    InvalidToken "invalid_token" Forbidden 401 "invalid token";
    NoSession "no_session" Forbidden 401 "no session; start one first";
    WrongLogin "wrong_login" Forbidden 401 "wrong username or password";
    WrongPassword "wrong_password" Forbidden 403 "the current password is wrong";
    BadPassword "bad_password" BadPassword 400 "this password is not allowed; choose another";
    // Rooms.
    NoSuchRoom "no_such_room" NotFound 404 "Room not found";
    NotInRoom "not_in_room" Forbidden 403 "you are not in this room; join it first";
    NotJoined "not_joined" NotFound 404 "you are not in this room";
    AlreadyInRoom "already_in_room" Conflict 409 "you are already in this room";
    TooManyRooms "too_many_rooms" Forbidden 403 "too many rooms on this connection; leave one first";
    Kicked "kicked" Forbidden 403 "an admin kicked you from this room";
    MadePrivate "made_private" Forbidden 403 "this room is now private";
    NotMember "not_member" Forbidden 403 "this room is private; its members will see it if you join";
    RoomDeleted "room_deleted" Forbidden 403 "an admin deleted this room";
    DefaultRoom "default_room" Conflict 409 "“general” stays public: clients that name no room enter it";
    RoomIsPublic "room_is_public" Conflict 409 "this room is public; no invitation is needed";
    // Objects of a request.
    NoSuchMessage "no_such_message" NotFound 404 "no such message";
    NoSuchReply "no_such_reply" NotFound 404 "the message being replied to does not exist";
    NoSuchUser "no_such_user" NotFound 404 "no such user";
    NoSuchInvitation "no_such_invitation" NotFound 404 "no such invitation, or it has been used up";
    NotFound "not_found" NotFound 404 "no such object";
    NoSuchPath "no_such_path" NotFound 404 "Not found";
    NameTaken "name_taken" Conflict 409 "the username is taken, or too similar to a taken one";
    NameReserved "name_reserved" BadName 403
        "the username belongs to an account, or is too similar to one; log in, or choose another";
    NonceUsed "nonce_used" Conflict 409 "the nonce was used for another message";
    LoggedIn "logged_in" Conflict 409 "you are logged in; log out first";
    NoPassword "no_password" Conflict 409 "this account has no password; the operator can set one";
    AddressUnknown "address_unknown" BadRequest 400 "the guest is not connected, so the IP address is unknown";
    AddressShared "address_shared" Conflict 409
        "most connections come from this address, perhaps through a proxy that `--trusted-proxy` does not name; with “force” it is banned";
    TargetIsNoGuest "target_is_no_guest" BadRequest 400 "only guests can be banned by IP address";
    // Contents of a frame or of a request.
    BadJson "bad_json" BadJson 400 "invalid JSON";
    MalformedField "malformed_field" BadJson 400 "invalid field";
    BadField "bad_field" BadRequest 400 "invalid field";
    BadQuery "bad_query" BadRequest 400 "invalid query";
    BadEscape "bad_escape" BadRoom 400 "malformed percent-encoding";
    BadRoom "bad_room" BadRoom 400 "invalid room name";
    BadName "bad_name" BadName 400 "invalid name";
    NameTooLong "name_too_long" TooLong 400 "the name is too long";
    EmptyMessage "empty_message" BadJson 400 "the message is empty";
    MessageTooLong "message_too_long" TooLong 413 "the message is too long";
    UnknownType "unknown_type" BadType 400 "unknown type";
    BinaryFrame "binary_frame" BadType 400 "binary frames are not supported; send text";
    UnknownMediaType "unknown_media_type" BadType 415 "unsupported media type; send application/json";
    MethodNotAllowed "method_not_allowed" MethodNotAllowed 405 "method not allowed";
    UpgradeRequired "upgrade_required" UpgradeRequired 426 "this path needs a WebSocket upgrade";
    // The request itself.
    MalformedRequest "malformed_request" BadRequest 400 "malformed request";
    UnknownExpectation "unknown_expectation" BadRequest 417 "the only supported expectation is 100-continue";
    HeadTooLarge "head_too_large" HeadTooLarge 431 "request head too large";
    BodyTooLarge "body_too_large" BodyTooLarge 413 "request body too large";
    TooSlow "too_slow" TooSlow 408 "request timeout";
    // Rates and capacity.
    RateLimited "rate_limited" RateLimited 429 "rate limit exceeded";
    SlowMode "slow_mode" RateLimited 429 "slow mode: wait before your next message in this room";
    RenamedRecently "renamed_recently" RateLimited 429 "a name can be changed once a minute";
    TooManyAttempts "too_many_attempts" RateLimited 429 "too many attempts";
    TooManyConnections "too_many_connections" RateLimited 429
        "too many new connections from this address; try again in a moment";
    ServerFull "server_full" Busy 503 "the server has reached its connection limit";
    AddressFull "address_full" Busy 503 "this address has reached its connection limit";
    DiskFull "disk_full" Busy 503 "the disk is full; the message was not stored";
    NotStored "not_stored" Busy 503 "the message could not be stored";
    Busy "busy" Busy 503 "the server is busy; try again";
    OutcomeUnknown "outcome_unknown" Busy 504
        "no response in time; the message may have been stored: send it again with the same nonce";
    Unavailable "unavailable" Unavailable 502 "no response from the web server";
    Internal "internal" Internal 500 "internal server error";
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
        reason.because(format!("invalid {what}: {error}"))
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

    /// The same with the time to wait.
    #[must_use]
    pub fn retry_in(self, wait: Duration) -> Self {
        self.retry_after(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
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
