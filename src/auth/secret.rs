//! Random secrets that the server makes and shows to their owner once: session tokens and invitation codes.
//!
//! Only a hash of a secret is ever stored. A secret has 256 random bits, so a plain hash is enough. The timing of a
//! look-up of its hash does not help an attacker to guess it. No function here does I/O.

use rustix::rand::GetRandomFlags;

const SECRET_BYTES: usize = 32;
/// Characters of a secret's text.
pub const SECRET_CHARS: usize = 2 * SECRET_BYTES;

/// A new secret, in hex. [`expose`](Self::expose) and [`into_text`](Self::into_text) give its text; `Debug` does not
/// show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// A secret of 256 random bits from the system.
    #[must_use]
    pub fn random() -> Self {
        Self::of_bytes(&random_bytes::<SECRET_BYTES>())
    }

    /// A secret of given bytes, which are not random alone.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex(bytes).into())
    }

    /// The secret as text, to show to its owner or to hash.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret as text, for a caller that owns it.
    #[must_use]
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}

hide_in_debug!(Secret);

/// Whether a text has the shape of a secret. Other texts are never hashed and looked up.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    is_hex(text, SECRET_CHARS)
}

/// Whether a text consists of `chars` lower-case hex digits.
pub(super) fn is_hex(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random id, 1 to 2^53 − 1, which every JSON reader holds exactly (RFC 8259, section 6). It is not secret.
#[must_use]
pub fn random_id() -> i64 {
    let bits = u64::from_le_bytes(random_bytes()) >> 11;
    i64::try_from(bits).unwrap_or(1).max(1)
}

/// A random name of 8 hex digits. It is not secret.
#[must_use]
pub fn random_name() -> String {
    hex(&random_bytes::<4>())
}

/// Random bytes from the system.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // The call blocks until the system has its first entropy. It may be interrupted, and on a current kernel it
        // does not fail otherwise.
        filled += rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_secret_has_256_random_bits_and_is_unique() {
        let secrets: HashSet<_> = (0..1_000).map(|_| Secret::random().into_text()).collect();
        assert_eq!(secrets.len(), 1_000);
        assert!(secrets.iter().all(|secret| is_secret(secret)));
        // Every bit is sometimes set and sometimes not.
        let bytes: Vec<[u8; 32]> = (0..200).map(|_| random_bytes()).collect();
        for bit in 0..256 {
            let set = bytes.iter().filter(|bytes| bytes[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((40..160).contains(&set), "bit {bit} is set in {set} of 200");
        }
    }

    #[test]
    fn debug_output_does_not_show_a_secret() {
        let secret = Secret::random();
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }

    #[test]
    fn a_text_without_the_shape_of_a_secret_is_rejected() {
        let secret = Secret::random();
        assert!(is_secret(secret.expose()));
        let long = format!("{}0", secret.expose());
        let upper = "A".repeat(64);
        for text in ["", &secret.expose()[1..], &long, &upper, &"é".repeat(32)] {
            assert!(!is_secret(text), "{text}");
        }
    }
}
