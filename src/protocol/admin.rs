//! The commands of admins, and the shapes of their JSON, the same in a frame and in a request.

use chrono::DateTime;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use super::{FrameType, read};
use crate::limits::{LABEL_CHARS_MAX, ROOM_NAME_CHARS_MAX, SLOW_MODE_S_MAX, TOPIC_CHARS_MAX};
use crate::model::reason::{Reason, Rejection};
use crate::model::role::Posting;
use crate::model::{UserId, visible_line};

/// A moderation command of an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAction {
    Kick(UserId),
    /// Mutes or bans a user, or ends a mute or ban.
    Restrict(UserId, Restrictions),
    SetRoom(RoomPatch),
}

impl AdminAction {
    /// The frame type of the command, and of its answer.
    #[must_use]
    pub fn kind(&self) -> FrameType {
        match self {
            Self::Kick(_) => FrameType::Kick,
            Self::Restrict(_, restrictions) if restrictions.ban.is_some() => FrameType::Ban,
            Self::Restrict(..) => FrameType::Mute,
            Self::SetRoom(_) => FrameType::Room,
        }
    }
}

/// Changes to the restrictions of a user. `None` keeps the current value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrictions {
    /// The end of the mute: a wall time in milliseconds since 1970. 0 ends a mute.
    pub mute_until_ms: Option<u64>,
    pub ban: Option<BanChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BanChange {
    Lift,
    Ban {
        /// The end of the ban, as a wall time; `None` is a permanent ban.
        until_ms: Option<u64>,
        reason: Box<str>,
        /// Whether guests from the addresses of a banned guest are banned, too.
        by_address: Option<AddressBan>,
    },
}

/// How a ban applies to addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBan {
    /// Whether an address is banned even if most connections share it.
    pub force: bool,
}

/// A ban of an address, which its user need not be known for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBanTerms {
    /// The end of the ban, as a wall time; `None` is a permanent ban.
    pub until_ms: Option<u64>,
    pub reason: Box<str>,
    pub force: bool,
}

/// Changes to the settings of a room. `None` keeps the current value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomPatch {
    pub name: Option<Box<str>>,
    pub topic: Option<Box<str>>,
    pub posting: Option<Posting>,
    #[serde(default, deserialize_with = "whole_number")]
    pub slow_mode_s: Option<u32>,
    #[serde(rename = "private")]
    pub is_private: Option<bool>,
}

/// Reads the body of `PUT /api/users/{id}`, or the fields of `mute` and `ban`.
///
/// # Errors
/// If a field is invalid.
pub fn restrictions(json: &str) -> Result<Restrictions, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields<'a> {
        /// A timestamp (RFC 3339), or `null` to end a mute.
        #[serde(default, deserialize_with = "present")]
        muted_until: Option<Option<String>>,
        /// `false`, `true` for a permanent ban, or the terms of a ban. Kept as raw JSON, so that no deeply nested value
        /// is parsed.
        #[serde(borrow)]
        banned: Option<&'a RawValue>,
    }
    let Fields { muted_until, banned } = read(json)?;
    let mute_until_ms = muted_until.map(|until| until.as_deref().map_or(Ok(0), moment)).transpose()?;
    let ban = match banned.map(RawValue::get) {
        None => None,
        Some("false") => Some(BanChange::Lift),
        Some("true") => Some(BanTerms::default().read()?),
        // A sequence would be taken for the fields in their order.
        Some(terms) if !terms.starts_with('{') => return Err(Reason::MalformedField.because(BAN_SHAPE)),
        Some(terms) => Some(read::<BanTerms>(terms)?.read()?),
    };
    if mute_until_ms.is_none() && ban.is_none() {
        return Err(Reason::BadField.because("missing field: muted_until or banned"));
    }
    Ok(Restrictions { mute_until_ms, ban })
}

/// Reads a patch of a room's settings from JSON.
///
/// # Errors
/// If a field is invalid.
pub fn room_patch(json: &str) -> Result<RoomPatch, Rejection> {
    let patch: RoomPatch = read(json)?;
    if patch.slow_mode_s.is_some_and(|s| s > SLOW_MODE_S_MAX) {
        return Err(Reason::BadField.because(format!("invalid field: slow_mode_s must be at most {SLOW_MODE_S_MAX}")));
    }
    let line = |what, text: Option<Box<str>>, chars_max| text.map(|text| line(what, &text, chars_max)).transpose();
    let name = line("name", patch.name, ROOM_NAME_CHARS_MAX)?;
    let topic = line("topic", patch.topic, TOPIC_CHARS_MAX)?;
    Ok(RoomPatch { name, topic, ..patch })
}

/// Parses a timestamp (RFC 3339) into milliseconds since 1970.
fn moment(text: &str) -> Result<u64, Rejection> {
    let moment = DateTime::parse_from_rfc3339(text);
    let moment =
        moment.map_err(|_| Reason::BadField.because("invalid timestamp; use RFC 3339, like 2026-01-31T12:00:00Z"))?;
    Ok(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
}

/// Checks a line of text that is shown to users.
fn line(what: &str, text: &str, chars_max: usize) -> Result<Box<str>, Rejection> {
    visible_line(text, chars_max).map_err(|error| Reason::BadName.of_name(what, error))
}

/// Reads a whole number, also written as `5.0`, which JSON does not tell from `5`.
///
/// # Errors
/// If it is another value, or out of range.
pub fn whole_number<'de, T: TryFrom<u64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole =
        number.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number));
    let number = number.as_u64().or(whole.map(|number| number as u64)).and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| D::Error::custom("expected a whole number that is not negative"))
}

/// The sentence for an invalid value of `banned`.
const BAN_SHAPE: &str = r#"invalid field: banned must be true, false or {"until","reason","address","force"}"#;

/// The terms of a ban, as in JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BanTerms {
    /// The end of the ban, as a timestamp (RFC 3339); `None` is a permanent ban.
    until: Option<String>,
    /// The reason, shown to other admins.
    #[serde(default)]
    reason: String,
    /// Whether guests from the addresses of a banned guest are banned, too.
    #[serde(default)]
    address: bool,
    /// Whether an address is banned even if most connections share it.
    #[serde(default)]
    force: bool,
}

impl BanTerms {
    fn read(self) -> Result<BanChange, Rejection> {
        let until_ms = self.until.as_deref().map(moment).transpose()?;
        let reason = line("reason", &self.reason, LABEL_CHARS_MAX)?;
        let by_address = self.address.then_some(AddressBan { force: self.force });
        Ok(BanChange::Ban { until_ms, reason, by_address })
    }
}

/// Reads the body of `PUT /api/bans/{address}`.
///
/// # Errors
/// If a field is invalid.
pub fn address_ban(json: &str) -> Result<AddressBanTerms, Rejection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        until: Option<String>,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        force: bool,
    }
    let Fields { until, reason, force } = read(json)?;
    let until_ms = until.as_deref().map(moment).transpose()?;
    Ok(AddressBanTerms { until_ms, reason: line("reason", &reason, LABEL_CHARS_MAX)?, force })
}

/// Tells a field that is `null` from a field that is missing: `null` is `Some(None)`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
