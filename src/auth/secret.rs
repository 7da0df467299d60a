//! Secrets that are made here and shown to their bearer once: session tokens and invitation codes.
//!
//! Only a hash of one is ever stored. A secret has 256 random bits, so a plain hash is enough, and looking its hash up
//! tells an attacker who measures time nothing that helps to guess it.

use rustix::rand::GetRandomFlags;

const SECRET_BYTES: usize = 32;
/// Characters of a secret's text.
pub const SECRET_CHARS: usize = 2 * SECRET_BYTES;

/// A new secret, in hex. It is shown by [`expose`](Self::expose) alone, and by no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// 256 bits from the system.
    #[must_use]
    pub fn random() -> Self {
        Self::of_bytes(&random_bytes::<SECRET_BYTES>())
    }

    /// A secret that was made otherwise than by [`random`](Self::random).
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex(bytes).into())
    }

    /// The secret itself, to be told to its bearer and to be hashed.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret as text, for an owner that shows it.
    #[must_use]
    pub fn into_text(self) -> Box<str> {
        self.0
    }
}

hide_in_debug!(Secret);

/// Whether a text that somebody shows could be a secret, so that nothing else is hashed and looked up.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    is_hex(text, SECRET_CHARS)
}

/// So many lower-case hex digits.
pub(super) fn is_hex(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random id, 1 to 2^53 − 1, which every JSON reader holds exactly (RFC 8259, section 6). It is no secret.
#[must_use]
pub fn random_id() -> i64 {
    let bits = u64::from_le_bytes(random_bytes()) >> 11;
    i64::try_from(bits).unwrap_or(1).max(1)
}

/// Random bytes from the system.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // Waits for the system's first entropy, fails never on a kernel of this century, and may be interrupted.
        filled += rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_secret_is_256_bits_that_nobody_has_twice() {
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
    fn a_secret_is_not_in_what_is_printed() {
        let secret = Secret::random();
        assert!(!format!("{secret:?}").contains(secret.expose()));
    }

    #[test]
    fn what_is_no_secret_is_known_by_its_form() {
        let secret = Secret::random();
        assert!(is_secret(secret.expose()));
        let long = format!("{}0", secret.expose());
        let upper = "A".repeat(64);
        for text in ["", &secret.expose()[1..], &long, &upper, &"é".repeat(32)] {
            assert!(!is_secret(text), "{text}");
        }
    }
}
