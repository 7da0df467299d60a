//! Passwords: the rules for new ones, and their hashes (argon2id, RFC 9106, as PHC strings).
//!
//! A hash takes 7 MiB and tens of milliseconds. So it is computed on the threads for logins (`http::slow_lane`) or in a
//! command, never on a connection's thread or on the hub's.

use std::hint::black_box;

use argon2::password_hash::phc::{self, Output, ParamsString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use unicode_normalization::UnicodeNormalization;

use super::name::Skeletons;
use super::secret::random_bytes;
use crate::model::Username;

/// Minimum characters of a password. NIST SP 800-63B, section 3.1.1.2, asks for 15 where the password is the only
/// factor. Its older minimum of 8 is enough for a chat that limits attempts.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Maximum bytes of a password. A long one costs no more to hash; the limit is on what is read.
pub const PASSWORD_BYTES_MAX: usize = 1024;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// One of OWASP's choices for argon2id, all of which are equally strong: 7 MiB, five passes, one lane. Of these it takes
/// the least memory, so that logins from one address can't take much of it.
const COST: Params = match Params::new(7 * 1024, 5, 1, Some(HASH_BYTES)) {
    Ok(params) => params,
    Err(_) => panic!("argon2 does not take these parameters"),
};
/// The highest cost that a stored hash may ask for, so that an edited database can't exhaust the machine. It leaves
/// room for hashes that were stored by an adda with other parameters.
const MEMORY_KIB_MAX: u32 = 32 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 4;
const _: () = assert!(is_bounded(&COST));

/// Blocks of 1 KiB that are allocated for each hash, whether or not it fills them all.
///
/// When glibc frees a block below 32 MiB, it raises its mmap threshold to that size. From then on it keeps up to twice
/// as much freed memory. A larger allocation goes back to the system when it is freed. Pages of it that were never
/// written take no memory.
const BLOCKS_RESERVED: usize = 33 * 1024;
const _: () = assert!(BLOCKS_RESERVED > MEMORY_KIB_MAX as usize);

/// The most common passwords. Most entries of longer lists are shorter than [`PASSWORD_CHARS_MIN`].
const TRIED_FIRST: &str = "password passw0rd password1 password123 12345678 123456789 1234567890 87654321 qwertyui \
                           qwerty123 qwertyuiop 1q2w3e4r iloveyou abcd1234 adda1234 bangladesh";

/// Why a password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("password too short: at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    #[error("password too long: at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// It is the name of its user, or hardly more.
    #[error("password too similar to the username")]
    SameAsName,
    /// It is one of the most common passwords, or one character repeated.
    #[error("password too common")]
    TriedFirst,
}

/// A password in NFC, because keyboards differ in how they compose letters. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Reads a password for a login. The rules for new passwords are not applied.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`], so that the work is bounded. No password of this length was ever accepted.
    pub fn shown(text: &str) -> Result<Self, PasswordError> {
        // NFC makes a text at most three times as long (UAX #15, table 6), and at least a third as long.
        if text.len() > 3 * PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let password: String = text.nfc().collect();
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(password.into()))
    }

    /// Reads a new password and applies the rules for it.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn new(text: &str, of: &Username) -> Result<Self, PasswordError> {
        let password = Self::shown(text)?;
        if password.0.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        let lower = password.0.to_lowercase();
        let mut chars = lower.chars();
        let first = chars.next();
        if TRIED_FIRST.split(' ').any(|tried| tried == lower) || chars.all(|c| Some(c) == first) {
            return Err(PasswordError::TriedFirst);
        }
        let name = of.as_str().to_lowercase();
        // The name, the name twice, the name and a year.
        let around = lower.replacen(&name, "", 2);
        let is_hardly_more = lower.contains(&name) && around.chars().filter(|c| !c.is_ascii_digit()).count() < 2;
        let is_similar = Username::parse(&lower).is_ok_and(|lower| Skeletons::of(&lower).resemble(&Skeletons::of(of)));
        if is_hardly_more || is_similar {
            return Err(PasswordError::SameAsName);
        }
        Ok(password)
    }
}

hide_in_debug!(Password);

/// A password's hash, as a PHC string with its salt and parameters. `Debug` does not show it, because it could be
/// attacked offline.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// A stored hash. It is parsed only when it is used.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The PHC string, to be stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

hide_in_debug!(PasswordHash);

/// Why a password can't be hashed or verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The stored text is not an argon2id hash within the limits.
    #[error("failed to read the stored password hash")]
    Stored,
    /// The library refuses its input. It does not do so with our parameters.
    #[error("failed to hash the password")]
    Failed,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Right {
        /// A new hash to store in place of the old one, if that was made at another cost.
        renewed: Option<PasswordHash>,
    },
    /// The password is wrong, or there is no such account. Both take the same time, unless the hash was stored at another
    /// cost.
    Wrong,
}

/// Hashes a password with a new salt.
///
/// # Errors
/// [`HashError::Failed`].
pub fn hash(password: &Password) -> Result<PasswordHash, HashError> {
    let salt = random_bytes::<SALT_BYTES>();
    let phc = phc::PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&COST).map_err(|_| HashError::Failed)?,
        salt: Some(Salt::new(&salt).map_err(|_| HashError::Failed)?),
        hash: Some(output(password, &salt, &COST)?),
    };
    Ok(PasswordHash(phc.to_string().into()))
}

/// Compares a password with a stored hash, in a time that does not depend on where they differ. Without a stored hash,
/// because the account does not exist, it takes as long.
///
/// # Errors
/// [`HashError`].
pub fn verify(password: &Password, stored: Option<&PasswordHash>) -> Result<Verdict, HashError> {
    let Some(stored) = stored else {
        black_box(output(password, &[0; SALT_BYTES], &COST)?);
        return Ok(Verdict::Wrong);
    };
    let phc = phc::PasswordHash::new(&stored.0).map_err(|_| HashError::Stored)?;
    let params = Params::try_from(&phc).map_err(|_| HashError::Stored)?;
    let is_ours = phc.algorithm == argon2::ARGON2ID_IDENT && phc.version == Some(Version::V0x13.into());
    let (true, true, Some(salt), Some(expected)) = (is_ours, is_bounded(&params), phc.salt, phc.hash) else {
        return Err(HashError::Stored);
    };
    if output(password, &salt, &params)? != expected {
        return Ok(Verdict::Wrong);
    }
    let renewed = if params == COST { None } else { Some(hash(password)?) };
    Ok(Verdict::Right { renewed })
}

const fn is_bounded(params: &Params) -> bool {
    params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX
        && matches!(params.output_len(), Some(HASH_BYTES))
}

fn output(password: &Password, salt: &[u8], params: &Params) -> Result<Output, HashError> {
    let mut blocks = Vec::with_capacity(BLOCKS_RESERVED);
    blocks.resize(params.block_count(), Block::default());
    let mut bytes = [0; HASH_BYTES];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let filled = argon2.hash_password_into_with_memory(password.0.as_bytes(), salt, &mut bytes, blocks);
    filled.map_err(|_| HashError::Failed)?;
    Output::new(&bytes).map_err(|_| HashError::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rahim() -> Username {
        Username::parse("Rahim").unwrap()
    }

    fn check(text: &str, of: &str) -> Option<PasswordError> {
        Password::new(text, &Username::parse(of).unwrap()).err()
    }

    #[test]
    fn a_weak_password_is_refused_with_a_sentence() {
        use PasswordError::{SameAsName, TooLong, TooShort, TriedFirst};
        for (text, of, refused) in [
            ("correct horse", "rahim", None),
            ("বৃষ্টি নামল আজ", "রহিম", None),
            ("rahim likes tea", "rahim", None),
            ("1234567", "rahim", Some(TooShort)),
            ("রহিমআছে", "করিম", Some(TooShort)),
            ("", "rahim", Some(TooShort)),
            ("PassWord", "rahim", Some(TriedFirst)),
            ("aaaaaaaaaa", "rahim", Some(TriedFirst)),
            ("১১১১১১১১১", "rahim", Some(TriedFirst)),
            ("Rahimuddin", "rahimuddin", Some(SameAsName)),
            ("rahimrahim", "rahim", Some(SameAsName)),
            ("rahim1987", "Rahim", Some(SameAsName)),
            ("RАHIMUDDIN", "rahimuddin", Some(SameAsName)),
            ("r a h i m!", "rahim", Some(SameAsName)),
        ] {
            assert_eq!(check(text, of), refused, "{text} of {of}");
        }
        assert_eq!(check(&"x1".repeat(PASSWORD_BYTES_MAX / 2), "rahim"), None);
        assert_eq!(check(&"x".repeat(PASSWORD_BYTES_MAX + 1), "rahim"), Some(TooLong));
        assert_eq!(Password::shown(&"x".repeat(100_000_000)), Err(TooLong));
        assert!(Password::shown("short").is_ok(), "a login accepts any text");
        assert!(TooShort.to_string().contains('8') && TooLong.to_string().contains("1024"));
    }

    #[test]
    fn a_password_does_not_depend_on_unicode_composition() {
        let one = Password::new("caf\u{E9} cr\u{E8}me", &rahim()).unwrap();
        let other = Password::new("cafe\u{301} cre\u{300}me", &rahim()).unwrap();
        assert_eq!(one, other);
        // Case and spaces are part of the password.
        assert_ne!(one, Password::shown("Café crème").unwrap());
        assert_ne!(one, Password::shown("café crème ").unwrap());
    }

    fn verified(text: &str, stored: &PasswordHash) -> Result<Verdict, HashError> {
        verify(&Password::shown(text).unwrap(), Some(stored))
    }

    #[test]
    fn a_hash_matches_only_its_password() {
        let password = Password::new("correct horse", &rahim()).unwrap();
        let stored = hash(&password).unwrap();
        assert!(stored.as_str().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{}", stored.as_str());
        assert_eq!(verified("correct horse", &stored), Ok(Verdict::Right { renewed: None }));
        assert_eq!(verified("correct horsf", &stored), Ok(Verdict::Wrong));
        assert_eq!(verified("", &stored), Ok(Verdict::Wrong));
        assert_eq!(verify(&password, None), Ok(Verdict::Wrong));
        assert_ne!(stored, hash(&password).unwrap(), "each has its own salt");
        let shown = format!("{password:?} {stored:?}");
        assert!(!shown.contains("correct") && !shown.contains("argon2"));
    }

    #[test]
    fn a_hash_of_another_implementation_is_verified_and_one_of_another_cost_renewed() {
        // From the test suite of the reference implementation.
        let stored = PasswordHash::stored(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        );
        assert_eq!(verified("wrong", &stored), Ok(Verdict::Wrong));
        let verdict = verified("password", &stored);
        let Ok(Verdict::Right { renewed: Some(renewed) }) = verdict else { panic!("{verdict:?}") };
        assert!(renewed.as_str().starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{}", renewed.as_str());
        assert_eq!(verified("password", &renewed), Ok(Verdict::Right { renewed: None }));
    }

    #[test]
    fn a_stored_text_that_is_not_a_valid_hash_is_an_error() {
        let rest = "c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for text in [
            String::new(),
            "password".into(),
            format!("$argon2i$v=19$m=256,t=2,p=1${rest}"),
            format!("$argon2id$v=16$m=256,t=2,p=1${rest}"),
            format!("$argon2id$v=19$m=1048576,t=2,p=1${rest}"),
            format!("$argon2id$v=19$m=256,t=2000,p=1${rest}"),
            format!("$argon2id$v=19$m=256,t=2,p=16${rest}"),
            format!("$argon2id$v=19$m=0,t=2,p=1${rest}"),
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ".into(),
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$AAAA".into(),
        ] {
            assert_eq!(verified("password", &PasswordHash::stored(&text)), Err(HashError::Stored), "{text}");
        }
    }
}
