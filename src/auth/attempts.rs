//! Limits on attempts to log in, to register and to become a guest. Pure: the caller passes the time.
//!
//! A failed login counts against the account and against the address. A successful login counts against neither. So two
//! attacks are limited: many passwords for one account from any number of addresses, and one password for many
//! accounts. A successful login has a limit of its own, because it costs a password hash, too.
//!
//! With the first limit alone, an attacker could lock out the owner of an account for good, with five wrong attempts
//! every half hour. So clients with an earlier successful login are counted apart from other clients. One kind is a
//! device that presents a token of a session of the same account, even of an ended session. The other is an address
//! from which the account was last used. An attacker has neither, and can't use up their attempts. An attacker can
//! still lock out the owner on a new device at a new address for as long as the attack lasts. Then `adda user passwd`
//! is the operator's remedy, and the log shows the attack.
//!
//! Names without an account are counted like accounts, so the answer does not tell which accounts exist.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::limits::{LOGINS_PER_USER_MAX, RATES_KEPT_MAX};
use crate::model::Username;
use crate::rate::{TokenBuckets, network_of};

use super::name::Skeletons;

/// Failed logins that one account may have within [`LOGIN_SPAN`], from all unknown clients together or from one known
/// device.
pub const LOGINS_PER_ACCOUNT: usize = 5;
/// Failed logins of unknown clients that one address may have. More than for an account: a whole school may share an
/// address or, where addresses are scarce, a whole quarter.
pub const LOGINS_PER_ADDRESS: usize = 20;
/// Successful logins of one account within [`SUCCESS_SPAN`]. This is more than the sessions that an account can have, so
/// a program can begin all of these at once.
pub const SUCCESSES_PER_ACCOUNT: usize = 60;
/// Successful logins that one address may have within [`SUCCESS_SPAN`]: the people of a school log in together.
pub const SUCCESSES_PER_ADDRESS: usize = 300;
/// For how long a successful login counts.
pub const SUCCESS_SPAN: Duration = Duration::from_secs(60);
const _: () = assert!(SUCCESSES_PER_ACCOUNT > LOGINS_PER_USER_MAX);
/// For how long a failed login counts.
pub const LOGIN_SPAN: Duration = Duration::from_secs(30 * 60);
/// Registration attempts that one address may make within [`REGISTRATION_SPAN`].
pub const REGISTRATIONS_PER_ADDRESS: usize = 10;
/// For how long a registration counts.
pub const REGISTRATION_SPAN: Duration = Duration::from_secs(60 * 60);
/// Guest sessions that one address may begin at once after a pause, as when a school opens the page together. It equals
/// the number of WebSockets that an address may open, because each of them creates a guest, too.
pub const SESSIONS_BURST: u32 = 300;
/// Guest sessions per second after the burst.
pub const SESSIONS_PER_S: u32 = 20;
/// Pairs of account and address that are remembered after a successful login.
const KNOWN_MAX: usize = RATES_KEPT_MAX;

/// A login attempt.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The name in the request, whether or not an account has it.
    pub name: &'a Username,
    pub address: IpAddr,
    /// A further token in the request. The caller has checked that it is or was the token of a session of this account.
    pub device: Option<&'a str>,
}

/// A login attempt whose password may be checked. The caller gives it back if the login succeeds.
#[derive(Debug)]
#[must_use = "a login that succeeds is to be given back, so that it does not count"]
pub struct LoginAttempt {
    account: u64,
    address: IpAddr,
    counted: Vec<Counted>,
    at: Instant,
}

/// Why a login may not be tried now, with the time to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginRefused {
    /// There were too many failed logins.
    Failed(Duration),
    /// There were too many successful logins.
    Succeeded(Duration),
}

/// The key that a failed login counts against. Names and tokens are hashed with a key of this process: nothing else of
/// them is needed, and an attacker chooses their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Account(u64),
    Address(IpAddr),
    Device(u64, u64),
    /// An account at an address that it was used from before.
    AccountAtAddress(u64, IpAddr),
}

/// All remembered attempts of the whole server.
#[derive(Debug)]
pub struct Attempts {
    keys: RandomState,
    /// Attempts by account, by device, and by account at a known address. Those by address are kept apart, because an attacker may use
    /// many addresses.
    accounts: Tries<Counted>,
    addresses: Tries<Counted>,
    registrations: Tries<IpAddr>,
    sessions: TokenBuckets<IpAddr>,
    /// Successful logins by account and by address.
    successes: Tries<u64>,
    address_successes: Tries<IpAddr>,
    known: Known,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            keys: RandomState::new(),
            accounts: Tries::new(LOGINS_PER_ACCOUNT, LOGIN_SPAN),
            addresses: Tries::new(LOGINS_PER_ADDRESS, LOGIN_SPAN),
            registrations: Tries::new(REGISTRATIONS_PER_ADDRESS, REGISTRATION_SPAN),
            sessions: TokenBuckets::new(SESSIONS_PER_S, SESSIONS_BURST),
            successes: Tries::new(SUCCESSES_PER_ACCOUNT, SUCCESS_SPAN),
            address_successes: Tries::new(SUCCESSES_PER_ADDRESS, SUCCESS_SPAN),
            known: Known::default(),
        }
    }
}

impl Attempts {
    /// The key of the account of a name, for this process. Names that look alike have the same key.
    #[must_use]
    pub fn account_key(&self, name: &Username) -> u64 {
        self.keys.hash_one(Skeletons::of(name).iter().next())
    }

    /// Counts a login as failed before its password is checked, so that a thousand logins at once are not all let
    /// through. Call it before any expensive work.
    ///
    /// # Errors
    /// [`LoginRefused`]; then it is not counted as failed.
    pub fn login(&mut self, login: Login<'_>, now: Instant) -> Result<LoginAttempt, LoginRefused> {
        let address = network_of(login.address);
        let account = self.account_key(login.name);
        let counted = match login.device {
            Some(device) => vec![Counted::Device(account, self.keys.hash_one(device))],
            None if self.known.has(account, address) => vec![Counted::AccountAtAddress(account, address)],
            None => vec![Counted::Account(account), Counted::Address(address)],
        };
        let waits = counted.iter().filter_map(|key| self.tries(key).wait(key, now));
        if let Some(wait) = waits.max() {
            return Err(LoginRefused::Failed(wait));
        }
        let of_account = self.successes.wait(&account, now);
        if let Some(wait) = of_account.max(self.address_successes.wait(&address, now)) {
            return Err(LoginRefused::Succeeded(wait));
        }
        for key in &counted {
            self.tries(key).count(*key, now);
        }
        Ok(LoginAttempt { account, address, counted, at: now })
    }

    /// Counts the login as successful because the password was right, and remembers the account at this address.
    pub fn succeeded(&mut self, pending: LoginAttempt) {
        self.undecided(&pending);
        self.successes.count(pending.account, pending.at);
        self.address_successes.count(pending.address, pending.at);
        self.known.add(pending.account, pending.address);
    }

    /// Takes the count back because the server had no time to check the password.
    pub fn undecided(&mut self, pending: &LoginAttempt) {
        for key in &pending.counted {
            self.tries(key).forgive(key, pending.at);
        }
    }

    /// Counts a registration attempt, whether or not it succeeds.
    ///
    /// # Errors
    /// The time to wait.
    pub fn register(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = network_of(address);
        if let Some(wait) = self.registrations.wait(&address, now) {
            return Err(wait);
        }
        self.registrations.count(address, now);
        Ok(())
    }

    /// Counts a new guest session.
    ///
    /// # Errors
    /// The time to wait.
    pub fn begin_session(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.sessions.take(network_of(address), now)
    }

    fn tries(&mut self, key: &Counted) -> &mut Tries<Counted> {
        if matches!(key, Counted::Address(_)) { &mut self.addresses } else { &mut self.accounts }
    }
}

/// The latest attempts of each key, within a span.
///
/// It holds at most [`RATES_KEPT_MAX`] keys. Beyond that the key with the fewest attempts is dropped, the oldest first.
/// So to have a key at its limit dropped, an attacker must bring as many other keys to their limit.
#[derive(Debug)]
struct Tries<K> {
    max: usize,
    span: Duration,
    tries: HashMap<K, VecDeque<Instant>>,
}

impl<K: Hash + Eq + Copy> Tries<K> {
    fn new(max: usize, span: Duration) -> Self {
        Self { max, span, tries: HashMap::new() }
    }

    /// The time until the next attempt is allowed; `None` if it is allowed now.
    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let tries = self.tries.get(key)?;
        // With `max` attempts counted, the first of them must have expired.
        let first = tries.len().checked_sub(self.max).and_then(|first| tries.get(first))?;
        let wait = (*first + self.span).saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    fn count(&mut self, key: K, now: Instant) {
        if self.tries.len() >= RATES_KEPT_MAX && !self.tries.contains_key(&key) {
            self.forget(now);
        }
        let tries = self.tries.entry(key).or_default();
        if tries.len() == self.max {
            tries.pop_front();
        }
        tries.push_back(now);
    }

    fn forgive(&mut self, key: &K, at: Instant) {
        if let Some(tries) = self.tries.get_mut(key) {
            if let Some(pair) = tries.iter().position(|instant| *instant == at) {
                tries.remove(pair);
            }
            if tries.is_empty() {
                self.tries.remove(key);
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        let span = self.span;
        self.tries.retain(|_, tries| tries.back().is_some_and(|last| *last + span > now));
        if self.tries.len() >= RATES_KEPT_MAX {
            let least = self.tries.iter().min_by_key(|(_, tries)| (tries.len(), tries.back().copied()));
            if let Some(key) = least.map(|(key, _)| *key) {
                self.tries.remove(&key);
            }
        }
    }
}

/// The latest [`KNOWN_MAX`] pairs of account and address with a successful login.
#[derive(Debug, Default)]
struct Known {
    /// The number of the latest addition of each pair.
    pairs: HashMap<(u64, IpAddr), u64>,
    /// All additions, the oldest first.
    order: VecDeque<((u64, IpAddr), u64)>,
    additions: u64,
}

impl Known {
    fn has(&self, account: u64, address: IpAddr) -> bool {
        self.pairs.contains_key(&(account, address))
    }

    fn add(&mut self, account: u64, address: IpAddr) {
        self.additions += 1;
        let pair = (account, address);
        self.pairs.insert(pair, self.additions);
        self.order.push_back((pair, self.additions));
        // The order may hold a pair several times; the latest counts.
        while self.order.len() > 2 * KNOWN_MAX || self.pairs.len() > KNOWN_MAX {
            let Some((oldest, number)) = self.order.pop_front() else { return };
            if self.pairs.get(&oldest) == Some(&number) {
                self.pairs.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    fn stranger(name: &Username, from: u32) -> Login<'_> {
        Login { name, address: address(from), device: None }
    }

    /// Tries these logins, all of which fail, and returns how many of them are let through.
    fn let_through<'a>(attempts: &mut Attempts, logins: impl IntoIterator<Item = Login<'a>>, now: Instant) -> usize {
        logins.into_iter().filter(|login| attempts.login(*login, now).is_ok()).count()
    }

    #[test]
    fn an_account_has_five_attempts_per_half_hour_from_all_addresses_together() {
        let (mut attempts, start, rahim) = (Attempts::default(), Instant::now(), name("rahim"));
        assert_eq!(let_through(&mut attempts, (0..1_000).map(|from| stranger(&rahim, from)), start), 5);
        let refused = attempts.login(stranger(&rahim, 9), start + SECOND).unwrap_err();
        assert_eq!(refused, LoginRefused::Failed(LOGIN_SPAN - SECOND));
        assert_eq!(let_through(&mut attempts, [stranger(&name("RAHIM"), 9)], start), 0, "however it is written");
        assert_eq!(let_through(&mut attempts, [stranger(&name("karim"), 9)], start), 1);
        let later = start + LOGIN_SPAN;
        assert_eq!(let_through(&mut attempts, (0..9).map(|from| stranger(&rahim, from)), later), 5);
    }

    #[test]
    fn no_half_hour_window_has_more_than_five_attempts() {
        let (mut attempts, start, rahim) = (Attempts::default(), Instant::now(), name("rahim"));
        let mut let_in = Vec::new();
        for minute in 0..240 {
            let now = start + minute * 60 * SECOND;
            if attempts.login(stranger(&rahim, minute), now).is_ok() {
                let_in.push(now);
            }
        }
        assert!(let_in.windows(6).all(|six| six[5] - six[0] >= LOGIN_SPAN));
        assert_eq!(let_in.len(), 40);
    }

    #[test]
    fn an_address_has_few_attempts_over_all_accounts_and_ipv6_counts_by_64() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let names: Vec<_> = (0..10_000).map(|number| name(&format!("user {number}"))).collect();
        assert_eq!(let_through(&mut attempts, names.iter().map(|name| stranger(name, 1)), now), LOGINS_PER_ADDRESS);
        let v6 = |name, text: &str| Login { name, address: text.parse().unwrap(), device: None };
        let hosts = names.iter().enumerate().map(|(at, name)| v6(name, &format!("2001:db8:1:2::{at:x}")));
        assert_eq!(let_through(&mut attempts, hosts, now), LOGINS_PER_ADDRESS);
        assert_eq!(let_through(&mut attempts, [v6(&names[0], "2001:db8:1:3::1")], now), 1);
        assert_eq!(let_through(&mut attempts, [v6(&names[0], "::ffff:0.0.0.1")], now), 0, "an IPv4 address");
    }

    #[test]
    fn a_successful_login_does_not_count_as_failed() {
        let (mut attempts, now, rahim) = (Attempts::default(), Instant::now(), name("rahim"));
        for from in 0..50 {
            let pending = attempts.login(stranger(&rahim, from), now).unwrap();
            attempts.succeeded(pending);
        }
        for _ in 0..100 {
            let pending = attempts.login(stranger(&rahim, 500), now).unwrap();
            attempts.undecided(&pending);
        }
        assert!(attempts.accounts.tries.is_empty() && attempts.addresses.tries.is_empty());
    }

    #[test]
    fn successful_logins_are_limited_by_account_and_by_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let mut log_in = |name: &Username, from, now| {
            let pending = attempts.login(stranger(name, from), now)?;
            attempts.succeeded(pending);
            Ok::<_, LoginRefused>(())
        };
        let rahim = name("rahim");
        let done = (0..1_000).take_while(|from| log_in(&rahim, *from, now).is_ok()).count();
        assert_eq!(done, SUCCESSES_PER_ACCOUNT);
        assert_eq!(log_in(&rahim, 1, now + SECOND), Err(LoginRefused::Succeeded(SUCCESS_SPAN - SECOND)));
        assert_eq!(log_in(&name("karim"), 1, now), Ok(()));
        let pupils: Vec<_> = (0..1_000).map(|number| name(&format!("pupil {number}"))).collect();
        let done = pupils.iter().take_while(|pupil| log_in(pupil, 5_000, now).is_ok()).count();
        assert_eq!(done, SUCCESSES_PER_ADDRESS);
        assert_eq!(log_in(&name("karim"), 2, now), Ok(()));
        assert_eq!(log_in(&rahim, 5_000, now + SUCCESS_SPAN), Ok(()));
    }

    #[test]
    fn an_attacker_cannot_lock_out_the_owner_of_an_account() {
        let (mut attempts, start, rahim) = (Attempts::default(), Instant::now(), name("rahim"));
        let pending = attempts.login(stranger(&rahim, 1), start).unwrap();
        attempts.succeeded(pending);
        for hour in 0..100 {
            let now = start + hour * 3600 * SECOND;
            let_through(&mut attempts, (100..200).map(|from| stranger(&rahim, from)), now);
            assert!(attempts.login(stranger(&rahim, 50), now).is_err(), "a stranger waits");
            assert!(attempts.login(stranger(&rahim, 1), now).is_ok(), "at the address where the account was used");
            let known = Login { device: Some("a token of old"), ..stranger(&rahim, 150) };
            assert!(attempts.login(known, now).is_ok(), "a known device, wherever it is");
        }
    }

    #[test]
    fn a_known_device_or_address_has_five_attempts_too() {
        let (mut attempts, now, rahim) = (Attempts::default(), Instant::now(), name("rahim"));
        let pending = attempts.login(stranger(&rahim, 1), now).unwrap();
        attempts.succeeded(pending);
        assert_eq!(let_through(&mut attempts, [stranger(&rahim, 1); 100], now), LOGINS_PER_ACCOUNT);
        let known = Login { device: Some("a token of old"), ..stranger(&rahim, 2) };
        assert_eq!(let_through(&mut attempts, [known; 100], now), LOGINS_PER_ACCOUNT);
        let karim = name("karim");
        assert_eq!(let_through(&mut attempts, [stranger(&karim, 1); 100], now), LOGINS_PER_ACCOUNT, "not known there");
    }

    #[test]
    fn registrations_and_sessions_are_limited_by_address() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let registered = (0..100).filter(|_| attempts.register(address(1), now).is_ok()).count();
        assert_eq!(registered, REGISTRATIONS_PER_ADDRESS);
        assert_eq!(attempts.register(address(1), now).unwrap_err(), REGISTRATION_SPAN);
        assert!(attempts.register(address(2), now).is_ok());
        assert!(attempts.register(address(1), now + REGISTRATION_SPAN).is_ok());
        let begun = (0..1_000).filter(|_| attempts.begin_session(address(1), now).is_ok()).count();
        assert_eq!(begun, SESSIONS_BURST as usize);
        assert!(attempts.begin_session(address(1), now).unwrap_err() <= SECOND);
    }

    #[test]
    fn memory_is_bounded_and_keys_at_their_limit_are_dropped_last() {
        let mut tries = Tries::new(5, LOGIN_SPAN);
        let start = Instant::now();
        for _ in 0..5 {
            tries.count(0, start);
        }
        for key in 1..RATES_KEPT_MAX as u32 + 500 {
            tries.count(key, start + SECOND);
        }
        assert_eq!(tries.tries.len(), RATES_KEPT_MAX);
        assert!(tries.wait(&0, start + SECOND).is_some(), "a flood of names does not set a counter back");
        tries.count(u32::MAX, start + LOGIN_SPAN + 2 * SECOND);
        assert_eq!(tries.tries.len(), 1, "what does not count any more goes first");

        let mut known = Known::default();
        for number in 0..KNOWN_MAX as u64 + 10 {
            known.add(number, address(1));
            known.add(7, address(1));
        }
        assert!(known.pairs.len() <= KNOWN_MAX);
        assert!(known.has(7, address(1)) && !known.has(1, address(1)) && known.has(KNOWN_MAX as u64, address(1)));
    }
}
