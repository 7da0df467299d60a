//! Passwords: what is taken for one, and their hashes (argon2id, RFC 9106, as PHC strings).
//!
//! A hash costs 19 MiB and tens of milliseconds, so it is made on the threads for logins (`http::slow`), never on a
//! connection's thread or the hub's.

use std::hint::black_box;

use argon2::password_hash::phc::{self, Output, ParamsString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use unicode_normalization::UnicodeNormalization;

use super::name::Looks;
use super::secret::random_bytes;
use crate::model::Username;

/// Characters of a password at least (NIST SP 800-63B, section 3.1.1.2, where a password is all there is: 15; with a
/// bound on tries and for a chat, its older 8).
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Bytes of it at most. A long one costs no more to hash; the bound is on what is read.
pub const PASSWORD_BYTES_MAX: usize = 1024;

const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const COST: Params = match Params::new(19 * 1024, 2, 1, Some(HASH_BYTES)) {
    Ok(params) => params,
    Err(_) => panic!("argon2 does not take these parameters"),
};
/// The most that a stored hash may ask for, so that a database that somebody has edited can't take the machine. What
/// was stored by an adda with other parameters has room in it.
const MEMORY_KIB_MAX: u32 = 32 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 4;
const _: () = assert!(is_bounded(&COST));

/// Blocks, of 1 KiB each, that are asked of the system for a hash, whether or not it fills them all.
///
/// glibc takes what is freed below 32 MiB as a hint that the like will be wanted again, and from then on keeps up to
/// twice as much of everything that is freed. Above it, memory goes back to the system, and pages that were never
/// touched were never there.
const BLOCKS_RESERVED: usize = 33 * 1024;
const _: () = assert!(BLOCKS_RESERVED > MEMORY_KIB_MAX as usize);

/// Passwords that everybody tries first. Most of what is on longer lists is shorter than [`PASSWORD_CHARS_MIN`].
const TRIED_FIRST: &str = "password passw0rd password1 password123 12345678 123456789 1234567890 87654321 qwertyui \
                           qwerty123 qwertyuiop 1q2w3e4r iloveyou abcd1234 adda1234 bangladesh";

/// Why a text is not taken for a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too few characters.
    #[error("the password has fewer than {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Too many bytes.
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// The name of whom it is for, or hardly more.
    #[error("the password is the name, or hardly more")]
    SameAsName,
    /// One that is guessed at once.
    #[error("the password is one of those that are tried first")]
    TriedFirst,
}

/// A password as it is hashed: in NFC, as keyboards differ in how they compose letters. Shown by no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Reads what somebody shows to log in. Whether it would be taken for a new password is not asked.
    ///
    /// # Errors
    /// [`PasswordError::TooLong`], so that little is read; such a password was never taken.
    pub fn shown(text: &str) -> Result<Self, PasswordError> {
        // NFC never makes a text more than three times as long (UAX #15, table 6), nor a third as short.
        if text.len() > 3 * PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let password: String = text.nfc().collect();
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        Ok(Self(password.into()))
    }

    /// Reads what somebody wants as a password.
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
        let looks_alike = Username::parse(&lower).is_ok_and(|lower| Looks::of(&lower).resemble(&Looks::of(of)));
        if is_hardly_more || looks_alike {
            return Err(PasswordError::SameAsName);
        }
        Ok(password)
    }
}

hide_in_debug!(Password);

/// A password's hash, as a PHC string with its salt and parameters. Shown by no `Debug`, as it can be tried at leisure.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// A hash as it is stored. Whether it is one is seen when it is used.
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

/// Why no hash could be made or compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// What is stored is no hash of argon2id within bounds.
    #[error("the stored hash can't be read")]
    Stored,
    /// The library refuses what it is given; not with parameters of ours.
    #[error("the password can't be hashed")]
    Failed,
}

/// What a password turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The account's. A new hash is to be stored in place of the old one, where that was made at another cost.
    Right {
        /// The new hash.
        renewed: Option<PasswordHash>,
    },
    /// Not the account's, or there is no such account: the same time has passed.
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
/// as there is no such account, it takes as long.
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
    fn what_is_too_easy_is_refused_in_words() {
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
        assert!(Password::shown("short").is_ok(), "whoever logs in may show anything");
        assert!(TooShort.to_string().contains('8') && TooLong.to_string().contains("1024"));
    }

    #[test]
    fn a_password_is_the_same_however_its_letters_were_composed() {
        let one = Password::new("caf\u{E9} cr\u{E8}me", &rahim()).unwrap();
        let other = Password::new("cafe\u{301} cre\u{300}me", &rahim()).unwrap();
        assert_eq!(one, other);
        // Case and spaces are the password's own.
        assert_ne!(one, Password::shown("Café crème").unwrap());
        assert_ne!(one, Password::shown("café crème ").unwrap());
    }

    fn verified(text: &str, stored: &PasswordHash) -> Result<Verdict, HashError> {
        verify(&Password::shown(text).unwrap(), Some(stored))
    }

    #[test]
    fn a_hash_knows_its_password_alone() {
        let password = Password::new("correct horse", &rahim()).unwrap();
        let stored = hash(&password).unwrap();
        assert!(stored.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", stored.as_str());
        assert_eq!(verified("correct horse", &stored), Ok(Verdict::Right { renewed: None }));
        assert_eq!(verified("correct horsf", &stored), Ok(Verdict::Wrong));
        assert_eq!(verified("", &stored), Ok(Verdict::Wrong));
        assert_eq!(verify(&password, None), Ok(Verdict::Wrong));
        assert_ne!(stored, hash(&password).unwrap(), "each has its own salt");
        let shown = format!("{password:?} {stored:?}");
        assert!(!shown.contains("correct") && !shown.contains("argon2"));
    }

    #[test]
    fn another_implementation_agrees_and_a_hash_of_another_cost_is_made_anew() {
        // From the test suite of the reference implementation.
        let stored = PasswordHash::stored(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        );
        assert_eq!(verified("wrong", &stored), Ok(Verdict::Wrong));
        let verdict = verified("password", &stored);
        let Ok(Verdict::Right { renewed: Some(renewed) }) = verdict else { panic!("{verdict:?}") };
        assert!(renewed.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", renewed.as_str());
        assert_eq!(verified("password", &renewed), Ok(Verdict::Right { renewed: None }));
    }

    #[test]
    fn what_is_no_hash_of_ours_is_an_error() {
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
