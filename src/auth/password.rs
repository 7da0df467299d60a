//! Passwords: what is taken for one, and their hashes (argon2id, RFC 9106, as PHC strings).
//!
//! Pure. A hash costs 19 MiB and tens of milliseconds, so it is made on the [`Hasher`](super::hasher::Hasher)'s threads,
//! never on a connection's or the hub's.

use std::fmt;

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

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// The most that a stored hash may ask for, so that a database that somebody has edited can't take the machine. What
/// was stored by an adda with other parameters has room in it.
const MEMORY_KIB_MAX: u32 = 32 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 4;
const _: () = assert!(MEMORY_KIB <= MEMORY_KIB_MAX && PASSES <= PASSES_MAX && LANES <= LANES_MAX);

/// Blocks, of 1 KiB each, that are asked of the system for a hash, whether or not it fills them all.
///
/// glibc takes what is freed below 32 MiB as a hint that the like will be wanted again, and from then on keeps up to
/// twice as much of everything that is freed. Above it, memory goes back to the system, and pages that were never
/// touched were never there.
pub(super) const BLOCKS_RESERVED: usize = 33 * 1024;
const _: () = assert!(BLOCKS_RESERVED > MEMORY_KIB_MAX as usize);

/// Passwords that everybody tries first. Most of what is on longer lists is shorter than [`PASSWORD_CHARS_MIN`].
const TRIED_FIRST: [&str; 16] = [
    "password",
    "passw0rd",
    "password1",
    "password123",
    "12345678",
    "123456789",
    "1234567890",
    "87654321",
    "qwertyui",
    "qwerty123",
    "qwertyuiop",
    "1q2w3e4r",
    "iloveyou",
    "abcd1234",
    "adda1234",
    "bangladesh",
];

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
        if TRIED_FIRST.contains(&&*lower) || chars.all(|c| Some(c) == first) {
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

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A password's hash, as a PHC string with its salt and parameters. Shown by no `Debug`, as it can be tried at leisure.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PasswordHash(Box<str>);

impl PasswordHash {
    /// A hash as it is stored. Whether it is one is seen when it is used.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The hash of no password: random, of the given cost. To compare with where there is no account, so that it takes
    /// as long as where there is one.
    pub(super) fn nobodys(cost: Cost) -> Result<Self, HashError> {
        let output = Output::new(&random_bytes::<HASH_BYTES>()).map_err(|_| HashError::Failed)?;
        phc_string(&cost.argon2()?, &random_bytes::<SALT_BYTES>(), output)
    }

    /// The PHC string, to be stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

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

/// How hard a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// What a new password is hashed with.
    pub const CURRENT: Self = Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES };
    /// So little that tests need not wait. Never for a password that matters.
    #[cfg(test)]
    pub const LITTLE: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    fn argon2(self) -> Result<Argon2<'static>, HashError> {
        let Self { memory_kib, passes, lanes } = self;
        let params = Params::new(memory_kib, passes, lanes, Some(HASH_BYTES)).map_err(|_| HashError::Failed)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Memory for one hash at a time. Empty until it is used; see [`BLOCKS_RESERVED`].
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0.reserve_exact(BLOCKS_RESERVED.saturating_sub(self.0.len()));
            self.0.resize(count, Block::default());
        }
        &mut self.0[..count]
    }

    /// Gives it back to the system.
    pub fn free(&mut self) {
        self.0 = Vec::new();
    }
}

/// Hashes a password with a new salt.
pub(super) fn hash(password: &Password, cost: Cost, memory: &mut Memory) -> Result<PasswordHash, HashError> {
    let salt = random_bytes::<SALT_BYTES>();
    let argon2 = cost.argon2()?;
    let output = output(&argon2, password, &salt, memory)?;
    phc_string(&argon2, &salt, output)
}

fn phc_string(argon2: &Argon2<'_>, salt: &[u8], output: Output) -> Result<PasswordHash, HashError> {
    let phc = phc::PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(|_| HashError::Failed)?,
        salt: Some(Salt::new(salt).map_err(|_| HashError::Failed)?),
        hash: Some(output),
    };
    Ok(PasswordHash(phc.to_string().into()))
}

/// Whether a password is the one of a hash; and whether the hash should be made anew, as its cost is not `cost`. The
/// hashes are compared in a time that does not depend on where they differ.
pub(super) fn verify(
    password: &Password,
    stored: &PasswordHash,
    cost: Cost,
    memory: &mut Memory,
) -> Result<(bool, bool), HashError> {
    let phc = phc::PasswordHash::new(&stored.0).map_err(|_| HashError::Stored)?;
    let params = Params::try_from(&phc).map_err(|_| HashError::Stored)?;
    let used = Cost { memory_kib: params.m_cost(), passes: params.t_cost(), lanes: params.p_cost() };
    let is_ours = phc.algorithm == argon2::ARGON2ID_IDENT && phc.version == Some(Version::V0x13.into());
    let is_bounded = used.memory_kib <= MEMORY_KIB_MAX && used.passes <= PASSES_MAX && used.lanes <= LANES_MAX;
    let (true, true, Some(salt), Some(expected)) = (is_ours, is_bounded, phc.salt, phc.hash) else {
        return Err(HashError::Stored);
    };
    if expected.len() != HASH_BYTES {
        return Err(HashError::Stored);
    }
    let found = output(&used.argon2()?, password, &salt, memory)?;
    Ok((found == expected, used != cost))
}

fn output(argon2: &Argon2<'_>, password: &Password, salt: &[u8], memory: &mut Memory) -> Result<Output, HashError> {
    let mut bytes = [0; HASH_BYTES];
    let blocks = memory.blocks(argon2.params().block_count());
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

    #[test]
    fn a_hash_knows_its_password_alone() {
        let mut memory = Memory::default();
        let password = Password::new("correct horse", &rahim()).unwrap();
        let stored = hash(&password, Cost::CURRENT, &mut memory).unwrap();
        assert!(stored.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", stored.as_str());
        let mut verify = |text: &str, stored: &PasswordHash| {
            verify(&Password::shown(text).unwrap(), stored, Cost::CURRENT, &mut memory)
        };
        assert_eq!(verify("correct horse", &stored), Ok((true, false)));
        assert_eq!(verify("correct horsf", &stored), Ok((false, false)));
        assert_eq!(verify("", &stored), Ok((false, false)));
        let again = hash(&password, Cost::CURRENT, &mut Memory::default()).unwrap();
        assert_ne!(stored, again, "each has its own salt");
        let shown = format!("{password:?} {stored:?}");
        assert!(!shown.contains("correct") && !shown.contains("argon2"));
    }

    #[test]
    fn another_implementation_agrees() {
        // From the test suite of the reference implementation.
        let stored = PasswordHash::stored(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        );
        let mut memory = Memory::default();
        let password = Password::shown("password").unwrap();
        assert_eq!(verify(&password, &stored, Cost::CURRENT, &mut memory), Ok((true, true)));
    }

    #[test]
    fn a_hash_of_another_cost_is_to_be_made_anew() {
        let mut memory = Memory::default();
        let password = Password::shown("correct horse").unwrap();
        let stored = hash(&password, Cost::LITTLE, &mut memory).unwrap();
        assert_eq!(verify(&password, &stored, Cost::CURRENT, &mut memory), Ok((true, true)));
        assert_eq!(verify(&password, &stored, Cost::LITTLE, &mut memory), Ok((true, false)));
    }

    #[test]
    fn nobodys_hash_costs_as_much_and_is_of_no_password() {
        let nobodys = PasswordHash::nobodys(Cost::CURRENT).unwrap();
        assert!(nobodys.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", nobodys.as_str());
        let password = Password::shown("correct horse").unwrap();
        assert_eq!(verify(&password, &nobodys, Cost::CURRENT, &mut Memory::default()), Ok((false, false)));
        assert_ne!(nobodys, PasswordHash::nobodys(Cost::CURRENT).unwrap());
    }

    #[test]
    fn what_is_no_hash_of_ours_is_an_error_and_costs_nothing() {
        let mut memory = Memory::default();
        let password = Password::shown("password").unwrap();
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
            let stored = PasswordHash::stored(&text);
            assert_eq!(verify(&password, &stored, Cost::CURRENT, &mut memory), Err(HashError::Stored), "{text}");
        }
        assert!(memory.0.is_empty());
    }
}
