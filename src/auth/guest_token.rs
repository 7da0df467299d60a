//! Guest tokens: a guest's identity, signed with a key from the database. A token is valid even if the database has no
//! row for the guest.
//!
//! A token is the lower-case hex of 39 bytes:
//!
//! ```text
//! version (1) | user id (16) | issue time, ms since 1970, big-endian (6) | MAC (16)
//! ```
//!
//! The MAC is the first 16 bytes of HMAC-SHA256 (RFC 2104, section 5, allows this truncation) over all bytes before it.
//! A token has 78 characters; a [`Secret`] has 64, so the two can't be confused. A token has one spelling only:
//! upper-case digits are refused.
//!
//! This file does not decide whether a token has expired or its guest was logged out: the caller does.

use std::net::IpAddr;

use hmac::digest::common::Key;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::{Builder, Uuid};

use crate::model::{UserId, Username};

use super::secret::{Secret, is_hex, random_bytes};

const VERSION: u8 = 1;
const USER_BYTES: usize = 16;
const TIME_BYTES: usize = 6;
const MAC_BYTES: usize = 16;
const SIGNED_BYTES: usize = 1 + USER_BYTES + TIME_BYTES;
const TOKEN_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
/// Characters of a token's text.
pub const GUEST_TOKEN_CHARS: usize = 2 * TOKEN_BYTES;
const _: () = assert!(GUEST_TOKEN_CHARS != super::secret::SECRET_CHARS);

/// The latest issue time that a token can hold: the year 10889.
const ISSUED_MS_MAX: u64 = (1 << (8 * TIME_BYTES)) - 1;
/// The largest integer that every JSON reader holds exactly (RFC 8259, section 6).
const SESSION_ID_MAX: u128 = (1 << 53) - 1;

/// The key that signs guest tokens. A new key ends all tokens of the old one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestKey([u8; Self::BYTES]);

/// The contents of a guest token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestToken {
    pub user: UserId,
    /// The time of issue, in milliseconds since 1970. A time after the year 10889 is signed as the latest possible
    /// time.
    pub issued_ms: u64,
}

impl GuestKey {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// A new key, from the system's random source.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// A key that was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The key, to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Signs a token. The text is for its guest alone.
    #[must_use]
    pub fn sign(&self, token: &GuestToken) -> Secret {
        let mut bytes = [0; TOKEN_BYTES];
        let (signed, mac) = bytes.split_at_mut(SIGNED_BYTES);
        signed.copy_from_slice(&token.to_bytes());
        mac.copy_from_slice(&self.mac(signed).finalize().into_bytes()[..MAC_BYTES]);
        Secret::of_bytes(&bytes)
    }

    /// Reads a token that a client presents; `None` unless this key has signed it. The MAC is compared in constant
    /// time.
    #[must_use]
    pub fn verify(&self, text: &str) -> Option<GuestToken> {
        let bytes = bytes_of(text)?;
        let (signed, mac) = bytes.split_at(SIGNED_BYTES);
        self.mac(signed).verify_truncated_left(mac).ok()?;
        GuestToken::from_bytes(signed)
    }

    /// The user id of a client without a token, by its network and its name. It is the same for each of its requests, so
    /// a retry is recognised, and no other network can make it. Without a name, it is an id for the network.
    ///
    /// It is a UUID of version 8 (RFC 9562, section 5.8), as no other id here is.
    #[must_use]
    pub fn user_without_token(&self, network: IpAddr, name: Option<&Username>) -> UserId {
        let network = match network {
            IpAddr::V4(network) => network.to_ipv6_mapped(),
            IpAddr::V6(network) => network,
        };
        // The first byte sets this apart from a token's version.
        let mut signed = vec![0];
        signed.extend_from_slice(&network.octets());
        signed.extend_from_slice(name.map_or("", Username::as_str).as_bytes());
        let mut bytes = [0; USER_BYTES];
        bytes.copy_from_slice(&self.mac(&signed).finalize().into_bytes()[..USER_BYTES]);
        UserId(Builder::from_custom_bytes(bytes).into_uuid())
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        // A key shorter than the hash's block is padded with zeros (RFC 2104, section 2).
        let mut block = Key::<Hmac<Sha256>>::default();
        block[..Self::BYTES].copy_from_slice(&self.0);
        let mut mac = Hmac::new(&block);
        mac.update(signed);
        mac
    }
}

hide_in_debug!(GuestKey);

impl GuestToken {
    /// The id of this guest's session, 1 to 2^53 − 1: the last 53 bits of the user id, which are random in a UUID of
    /// version 4. It is the same for every token of one guest, so renewing a token keeps the session.
    #[must_use]
    pub fn session_id(&self) -> i64 {
        let bits = self.user.0.as_u128() & SESSION_ID_MAX;
        // 53 bits fit; 0 stands for no session.
        (bits as i64).max(1)
    }

    fn to_bytes(self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [VERSION; SIGNED_BYTES];
        let (user, time) = bytes[1..].split_at_mut(USER_BYTES);
        user.copy_from_slice(self.user.0.as_bytes());
        time.copy_from_slice(&self.issued_ms.min(ISSUED_MS_MAX).to_be_bytes()[8 - TIME_BYTES..]);
        bytes
    }

    /// `None` for another version.
    fn from_bytes(signed: &[u8]) -> Option<Self> {
        let (user, time) = signed.strip_prefix(&[VERSION])?.split_at_checked(USER_BYTES)?;
        let issued_ms = time.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
        Some(Self { user: UserId(Uuid::from_slice(user).ok()?), issued_ms })
    }
}

/// Whether a text has the shape of a guest token. Only [`GuestKey::verify`] says whether it is one.
#[must_use]
pub fn is_guest_token(text: &str) -> bool {
    is_hex(text, GUEST_TOKEN_CHARS)
}

fn bytes_of(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    if !is_guest_token(text) {
        return None;
    }
    let mut bytes = [0; TOKEN_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::secret::is_secret;

    fn token(user: u128, issued_ms: u64) -> GuestToken {
        GuestToken { user: UserId(Uuid::from_u128(user)), issued_ms }
    }

    #[test]
    fn the_text_of_a_token_is_the_same_in_all_versions_of_adda() {
        // Tokens in browsers outlive an update. The MAC was computed with Python's hmac module.
        let key = GuestKey::from_bytes(std::array::from_fn(|at| at as u8));
        let token = token(0x0102_0304_0506_4708_890a_0b0c_0d0e_0f10, 1_700_000_000_123);
        let text = "010102030405064708890a0b0c0d0e0f10018bcfe5687b\
                    7cdcb9ffc3f4282d5c2ae5fca99742ee";
        assert_eq!(key.sign(&token).expose(), text);
        assert_eq!(key.verify(text), Some(token));
    }

    #[test]
    fn a_client_without_a_token_has_one_id_by_key_network_and_name() {
        let [key, other_key] = [GuestKey::random(), GuestKey::random()];
        let names = ["Ana", "Ben"].map(|name| Username::parse(name).unwrap());
        let networks = ["192.0.2.1", "192.0.2.2", "2001:db8::", "::"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut known = std::collections::HashSet::new();
        for key in [&key, &other_key] {
            for network in networks {
                for name in [None, Some(&names[0]), Some(&names[1])] {
                    let user = key.user_without_token(network, name);
                    assert_eq!(user, key.user_without_token(network, name));
                    assert_eq!(user.0.get_version_num(), 8);
                    assert!(known.insert(user), "{network} {name:?} has the id of another");
                }
            }
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(key.user_without_token(mapped, None), key.user_without_token(networks[0], None));
    }

    #[test]
    fn a_guest_token_is_not_taken_for_another_secret() {
        let signed = GuestKey::random().sign(&token(1, 1));
        assert!(is_guest_token(signed.expose()) && !is_secret(signed.expose()));
        let secret = Secret::random();
        assert!(!is_guest_token(secret.expose()));
        assert_eq!(GuestKey::random().verify(secret.expose()), None);
        for text in ["", &signed.expose()[1..], &format!("{}0", signed.expose()), &"é".repeat(39), &"A".repeat(78)] {
            assert!(!is_guest_token(text), "{text}");
            assert_eq!(GuestKey::random().verify(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_version_is_refused_even_if_it_is_signed() {
        let key = GuestKey::random();
        let mut signed = token(1, 1).to_bytes();
        signed[0] = VERSION + 1;
        let mac = key.mac(&signed).finalize().into_bytes();
        let text: String = signed.iter().chain(&mac[..MAC_BYTES]).map(|byte| format!("{byte:02x}")).collect();
        assert!(is_guest_token(&text));
        assert_eq!(key.verify(&text), None);
    }

    #[test]
    fn debug_output_shows_neither_key_nor_token() {
        let key = GuestKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "GuestKey(…)");
        assert!(!format!("{:?}", key.sign(&token(1, 1))).contains(key.sign(&token(1, 1)).expose()));
        let (one, other) = (GuestKey::random(), GuestKey::random());
        assert_ne!(one.as_bytes(), other.as_bytes());
    }

    #[test]
    fn session_ids_stay_within_their_bounds() {
        for (user, id) in [(0, 1), (1, 1), (2, 2), (1 << 53, 1), (u128::MAX, (1 << 53) - 1)] {
            assert_eq!(token(user, 5).session_id(), id);
        }
        assert_eq!(token(1 << 100 | 77, 5).session_id(), token(1 << 90 | 77, 9).session_id());
    }

    #[test]
    fn an_issue_time_past_the_maximum_is_signed_as_the_maximum() {
        let key = GuestKey::random();
        let verified = key.verify(key.sign(&token(7, u64::MAX)).expose());
        assert_eq!(verified, Some(token(7, ISSUED_MS_MAX)));
    }

    proptest! {
        #[test]
        fn a_signed_token_is_verified_unchanged(key: [u8; 32], user: u128, issued_ms in 0..=ISSUED_MS_MAX) {
            let key = GuestKey::from_bytes(key);
            let signed = key.sign(&token(user, issued_ms));
            prop_assert_eq!(GuestKey::from_bytes(*key.as_bytes()).verify(signed.expose()), Some(token(user, issued_ms)));
            prop_assert!((1..1 << 53).contains(&token(user, issued_ms).session_id()));
        }

        #[test]
        fn no_character_can_be_changed(key: [u8; 32], user: u128, issued_ms in 0..=ISSUED_MS_MAX, digit in "[0-9a-fA-F]") {
            let key = GuestKey::from_bytes(key);
            let signed = key.sign(&token(user, issued_ms));
            for at in 0..GUEST_TOKEN_CHARS {
                let mut text = signed.expose().to_owned();
                text.replace_range(at..=at, &digit);
                prop_assert_eq!(key.verify(&text).is_some(), text == signed.expose(), "{} at {}", digit, at);
            }
        }

        #[test]
        fn another_key_rejects_the_token(key: [u8; 32], bit in 0usize..256, user: u128, issued_ms: u64) {
            let mut other = key;
            other[bit / 8] ^= 1 << (bit % 8);
            let signed = GuestKey::from_bytes(key).sign(&token(user, issued_ms));
            prop_assert_eq!(GuestKey::from_bytes(other).verify(signed.expose()), None);
        }

        #[test]
        fn any_text_is_refused(text in "\\PC{0,100}", hex in "[0-9a-f]{78}") {
            let key = GuestKey::from_bytes([7; 32]);
            prop_assert_eq!(key.verify(&text), None);
            prop_assert_eq!(key.verify(&hex), None);
        }
    }
}
