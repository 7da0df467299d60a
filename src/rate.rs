//! Rate limits: token buckets with a rate per second and a burst, and which clients share one.
//!
//! A user has one bucket for messages, shared by all its connections and requests. Its address has another bucket,
//! large enough for the messages of [`USERS_PER_ADDRESS`] users. Without it, a guest could reconnect as a new user and
//! get a new burst each time. Runs on the threads of its callers, which pass the current time.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{Limits, RATE_LIMITERS_SWEPT_AT_MIN, RATES_KEPT_MAX, STRIKES_MAX, USERS_PER_ADDRESS};
use crate::model::UserId;

/// The shortest time until a user may try again after its address has used up its share. Other users of the address
/// take tokens, too, so an immediate retry would be refused again.
const ADDRESS_WAIT: Duration = Duration::from_secs(1);
/// The shortest time between two sweeps, which remove full buckets when there are too many.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The network that is rate limited as one address. An IPv6 subscriber has a whole /64 (RFC 6177), and an IPv4 address
/// may come mapped into IPv6.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// A token bucket: it fills at a fixed rate up to a burst. Each message, connection or request takes one token.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_s: f64,
    burst: u32,
    /// Below 0 if tokens that are still to come are taken.
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 never refuses. The burst is at least one token.
    #[must_use]
    pub fn new(per_s: impl Into<f64>, burst: u32, now: Instant) -> Self {
        let burst = burst.max(1);
        Self { per_s: per_s.into(), burst, tokens: f64::from(burst), filled_at: now }
    }

    /// Whether the bucket is full again after a pause.
    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= f64::from(self.burst)
    }

    fn fill(&mut self, now: Instant) {
        let dripped = now.saturating_duration_since(self.filled_at).as_secs_f64() * self.per_s;
        self.tokens = (self.tokens + dripped).min(f64::from(self.burst));
        self.filled_at = self.filled_at.max(now);
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until the next token.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.reserve(Duration::ZERO, now).map(|_| ())
    }

    /// Takes the next token that is not taken yet, and returns the time until it comes.
    ///
    /// # Errors
    /// That time, if it is longer than `wait_max`. Then no token is taken.
    pub fn reserve(&mut self, wait_max: Duration, now: Instant) -> Result<Duration, Duration> {
        if self.per_s <= 0.0 {
            return Ok(Duration::ZERO);
        }
        self.fill(now);
        let wait = Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.per_s);
        if wait > wait_max {
            return Err(wait);
        }
        self.tokens -= 1.0;
        Ok(wait)
    }
}

/// One bucket per key. Full buckets are removed when there are too many, so the map holds at most [`RATES_KEPT_MAX`]
/// buckets. Above that limit a new key is refused.
#[derive(Debug)]
pub struct TokenBuckets<K> {
    per_s: f64,
    burst: u32,
    buckets: HashMap<K, TokenBucket>,
    /// The earliest time of the next sweep. It keeps the cost of many new keys at one refusal each.
    sweep_from: Option<Instant>,
}

impl<K: Hash + Eq> TokenBuckets<K> {
    /// Has no buckets yet; each bucket begins full.
    #[must_use]
    pub fn new(per_s: impl Into<f64>, burst: u32) -> Self {
        Self { per_s: per_s.into(), burst, buckets: HashMap::new(), sweep_from: None }
    }

    /// Takes one token from the bucket of a key.
    ///
    /// # Errors
    /// The time until the next token.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        self.reserve(key, Duration::ZERO, now).map(|_| ())
    }

    /// Takes the next token of a key that is not taken yet, and returns the time until it comes.
    ///
    /// # Errors
    /// That time, if it is longer than `wait_max`. Then no token is taken.
    pub fn reserve(&mut self, key: K, wait_max: Duration, now: Instant) -> Result<Duration, Duration> {
        if self.per_s <= 0.0 {
            return Ok(Duration::ZERO);
        }
        if self.buckets.len() >= RATES_KEPT_MAX && !self.buckets.contains_key(&key) {
            if self.sweep_from.is_none_or(|from| from <= now) {
                self.buckets.retain(|_, bucket| !bucket.is_full(now));
                self.sweep_from = Some(now + SWEEP_EVERY);
            }
            if self.buckets.len() >= RATES_KEPT_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| TokenBucket::new(self.per_s, self.burst, now));
        bucket.reserve(wait_max, now)
    }
}

/// The source of the messages that a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Payer {
    User(UserId),
    /// Requests over HTTP without a user, from one address.
    Anonymous(IpAddr),
    /// All messages from one address.
    Address(IpAddr),
}

/// The remaining allowance of a payer.
#[derive(Debug)]
struct Allowance {
    messages: TokenBucket,
    /// The number of refusals that are allowed before it counts as abuse. It grows by one each second.
    strikes: TokenBucket,
}

type Shared = Arc<Mutex<Allowance>>;

fn locked(shared: &Mutex<Allowance>) -> MutexGuard<'_, Allowance> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rate limit of one user's messages. Clones share it, and so do all connections of the user.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    own: Shared,
    address: Shared,
    is_unlimited: bool,
}

impl RateLimiter {
    /// Whether no message is ever refused, so that the caller need not read the clock.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.is_unlimited
    }

    /// Takes the token of one message.
    ///
    /// # Errors
    /// The time until a retry can succeed.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        if self.is_unlimited {
            return Ok(());
        }
        locked(&self.own).messages.take(now)?;
        locked(&self.address).messages.take(now).map_err(|wait| wait.max(ADDRESS_WAIT))
    }

    /// Counts a refusal. Returns whether there were so many refusals that it is abuse.
    #[must_use]
    pub fn is_abuse(&self, now: Instant) -> bool {
        locked(&self.own).strikes.take(now).is_err()
    }
}

/// The rate limits of all users that are connected, or were until recently, and of what each address does besides
/// messages.
#[derive(Debug)]
pub struct RateLimiters {
    per_s: u32,
    burst: u32,
    kept: Mutex<Kept>,
    connections: AddressRate,
    connection_wait_max: Duration,
    handshakes: AddressRate,
    searches: AddressRate,
    pages: AddressRate,
}

/// A rate of each address.
#[derive(Debug)]
struct AddressRate(Mutex<TokenBuckets<IpAddr>>);

impl AddressRate {
    fn new(per_s: u32, burst: u32) -> Self {
        Self(Mutex::new(TokenBuckets::new(per_s, burst)))
    }

    fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.reserve(address, Duration::ZERO, now).map(|_| ())
    }

    fn reserve(&self, address: IpAddr, wait_max: Duration, now: Instant) -> Result<Duration, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reserve(network_of(address), wait_max, now)
    }
}

/// An allowance is kept while a session holds it, and after that until it is full again. If a sweep leaves more than
/// [`RATES_KEPT_MAX`] allowances without a session, it removes them all. Then only the rate limit of the address still
/// applies to their users.
#[derive(Debug)]
struct Kept {
    allowances: HashMap<Payer, Shared>,
    /// The number of allowances at which full ones are removed. It is twice the number left by the last sweep, so a
    /// sweep costs a constant amount per new allowance.
    swept_at: usize,
}

impl RateLimiters {
    /// Uses the rates of `limits` and has no users yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            per_s: limits.rate_per_s,
            burst: limits.rate_burst,
            kept: Mutex::new(Kept { allowances: HashMap::new(), swept_at: RATE_LIMITERS_SWEPT_AT_MIN }),
            connections: AddressRate::new(limits.connections_per_s, limits.connections_burst),
            connection_wait_max: limits.connection_wait_max,
            handshakes: AddressRate::new(limits.handshakes_per_s, limits.handshakes_burst),
            searches: AddressRate::new(limits.searches_per_s, limits.searches_burst),
            pages: AddressRate::new(limits.pages_per_s, limits.pages_burst),
        }
    }

    /// Takes the next token of a connection from the bucket of an address, and returns the time until it comes.
    ///
    /// # Errors
    /// That time, if it is longer than [`Limits::connection_wait_max`]. Then no token is taken.
    pub fn reserve_connection(&self, address: IpAddr, now: Instant) -> Result<Duration, Duration> {
        self.connections.reserve(address, self.connection_wait_max, now)
    }

    /// Takes the token of one handshake from the bucket of an address.
    ///
    /// # Errors
    /// The time until the next handshake is allowed.
    pub fn take_handshake(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.handshakes.take(address, now)
    }

    /// Takes the token of one search from the bucket of an address.
    ///
    /// # Errors
    /// The time until the next search is allowed.
    pub fn take_search(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.searches.take(address, now)
    }

    /// Takes the token of one page of history from the bucket of an address.
    ///
    /// # Errors
    /// The time until the next page is allowed.
    pub fn take_page(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.pages.take(address, now)
    }

    /// The rate limit of a user at an address.
    #[must_use]
    pub fn of_user(&self, user: UserId, address: IpAddr, now: Instant) -> RateLimiter {
        self.rate_limiter(Payer::User(user), address, now)
    }

    /// The rate limit of all clients without a token at an address.
    #[must_use]
    pub fn of_anonymous(&self, address: IpAddr, now: Instant) -> RateLimiter {
        self.rate_limiter(Payer::Anonymous(network_of(address)), address, now)
    }

    fn rate_limiter(&self, own: Payer, address: IpAddr, now: Instant) -> RateLimiter {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.sweep(now);
        let own = kept.allowance(own, self.per_s, self.burst, now);
        let (per_s, burst) =
            (self.per_s.saturating_mul(USERS_PER_ADDRESS), self.burst.saturating_mul(USERS_PER_ADDRESS));
        let address = kept.allowance(Payer::Address(network_of(address)), per_s, burst, now);
        RateLimiter { own, address, is_unlimited: self.per_s == 0 }
    }
}

impl Default for RateLimiters {
    fn default() -> Self {
        Self::new(&Limits::default())
    }
}

impl Kept {
    fn allowance(&mut self, payer: Payer, per_s: u32, burst: u32, now: Instant) -> Shared {
        let fresh = || {
            let messages = TokenBucket::new(per_s, burst, now);
            Arc::new(Mutex::new(Allowance { messages, strikes: TokenBucket::new(1, STRIKES_MAX, now) }))
        };
        Arc::clone(self.allowances.entry(payer).or_insert_with(fresh))
    }

    fn sweep(&mut self, now: Instant) {
        if self.allowances.len() < self.swept_at {
            return;
        }
        let is_held = |shared: &Shared| Arc::strong_count(shared) > 1;
        let mut left = 0;
        self.allowances.retain(|_, shared| {
            is_held(shared) || {
                let mut allowance = locked(shared);
                let is_full = allowance.messages.is_full(now) && allowance.strikes.is_full(now);
                left += usize::from(!is_full);
                !is_full
            }
        });
        if left > RATES_KEPT_MAX {
            self.allowances.retain(|_, shared| is_held(shared));
        }
        self.swept_at = RATE_LIMITERS_SWEPT_AT_MIN.max(2 * self.allowances.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_applies() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 3, start);
        assert_eq!([(); 3].map(|()| bucket.take(start)), [Ok(()); 3]);
        let wait = bucket.take(start).unwrap_err();
        assert!(wait <= Duration::from_millis(100) && wait > Duration::from_millis(99), "{wait:?}");
        assert!(bucket.take(start + wait + Duration::from_millis(1)).is_ok());
        let later = start + Duration::from_secs(100);
        assert_eq!((0..10).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }

    #[test]
    fn a_token_is_reserved_within_the_longest_wait() {
        let start = Instant::now();
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        let mut bucket = TokenBucket::new(10, 2, start);
        for wait in [Duration::ZERO, Duration::ZERO].into_iter().chain((1..=10).map(|number| tenth * number)) {
            let reserved = bucket.reserve(second, start).unwrap();
            assert!(reserved.abs_diff(wait) < Duration::from_millis(1), "{reserved:?} {wait:?}");
        }
        let wait = bucket.reserve(second, start).unwrap_err();
        assert!(wait > second && wait < second + tenth * 2, "{wait:?}");
        assert!(bucket.take(start + second).is_err(), "all tokens that came are taken");
        assert!(bucket.take(start + second + tenth * 2).is_ok());
    }

    #[test]
    fn a_clock_that_goes_back_adds_no_tokens() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1, 1, start);
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start - Duration::from_secs(5)).is_err());
        assert!(bucket.take(start).is_err());
    }

    #[test]
    fn each_key_has_its_own_bucket_and_the_number_of_buckets_is_bounded() {
        let now = Instant::now();
        let mut buckets = TokenBuckets::new(1, 1);
        for key in 0..RATES_KEPT_MAX {
            assert!(buckets.take(key, now).is_ok());
        }
        assert!(buckets.take(0, now).is_err());
        assert!(buckets.take(usize::MAX, now).is_err());
        assert!(buckets.take(usize::MAX, now + Duration::from_secs(2)).is_ok());
        assert_eq!(buckets.buckets.len(), 1);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(0, 0, now);
        assert!((0..10_000).all(|_| bucket.take(now).is_ok()));
    }

    fn limits(rate_per_s: u32, rate_burst: u32) -> Limits {
        Limits { rate_per_s, rate_burst, handshakes_per_s: 1, handshakes_burst: 2, ..Limits::default() }
    }

    fn user(number: u128) -> UserId {
        UserId(uuid::Uuid::from_u128(number))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_user_has_one_rate_limit_for_all_connections() {
        let now = Instant::now();
        let rate_limiters = RateLimiters::new(&limits(1, 3));
        let [tab, phone] = ["192.0.2.1", "2001:db8::1"].map(|from| rate_limiters.of_user(user(1), address(from), now));
        assert!(tab.take(now).is_ok() && phone.take(now).is_ok() && tab.take(now).is_ok());
        assert!(tab.take(now).is_err() && phone.take(now).is_err());
        drop((tab, phone));
        assert!(rate_limiters.of_user(user(1), address("192.0.2.1"), now).take(now).is_err(), "it is remembered");
        assert!(rate_limiters.of_user(user(2), address("192.0.2.1"), now).take(now).is_ok(), "others have their own");
        let gone_on = (0..=STRIKES_MAX).position(|_| rate_limiters.of_user(user(1), address("::1"), now).is_abuse(now));
        assert_eq!(gone_on, Some(STRIKES_MAX as usize), "so are refusals");
    }

    #[test]
    fn new_users_of_an_address_share_its_rate_limit() {
        let now = Instant::now();
        let rate_limiters = RateLimiters::new(&limits(1, 3));
        let mut next = 0;
        let mut anew = |from: &str| {
            let mut takes = || {
                next += 1;
                rate_limiters.of_user(user(next), address(from), now).take(now).is_ok()
            };
            (0..).take_while(|_| takes()).count()
        };
        assert_eq!(anew("192.0.2.1"), 3 * USERS_PER_ADDRESS as usize);
        assert_eq!(anew("::ffff:192.0.2.1"), 0, "it is the same address");
        assert_eq!(anew("2001:db8::1"), 3 * USERS_PER_ADDRESS as usize);
        assert_eq!(anew("2001:db8::ffff:2"), 0, "it is the same subscriber");
        assert!(anew("2001:db8:0:1::1") > 0);
        let anonymous_user = |from: &str| rate_limiters.of_anonymous(address(from), now).take(now);
        assert!(anonymous_user("192.0.2.1").unwrap_err() >= ADDRESS_WAIT);
        assert_eq!([(); 4].map(|()| anonymous_user("192.0.2.2").is_ok()), [true, true, true, false]);
    }

    #[test]
    fn the_number_of_allowances_is_bounded() {
        let now = Instant::now();
        let rate_limiters = RateLimiters::new(&limits(1, 1));
        let held = rate_limiters.of_user(user(0), address("::1"), now);
        held.take(now).unwrap();
        let count = || rate_limiters.kept.lock().unwrap().allowances.len();
        // Each user has an address of its own.
        let stranger =
            |number: u128| rate_limiters.of_user(user(number), Ipv6Addr::from_bits(number << 64).into(), now);
        for number in 1..=2 * RATES_KEPT_MAX as u128 {
            let rate_limiter = stranger(number);
            let _ = rate_limiter.take(now);
            assert!(count() <= 4 * RATES_KEPT_MAX + 4 * RATE_LIMITERS_SWEPT_AT_MIN, "{}", count());
        }
        assert!(rate_limiters.of_user(user(0), address("::1"), now).take(now).is_err(), "who is here is not forgotten");
        let later = now + Duration::from_secs(3_600);
        for number in 0..8 * RATES_KEPT_MAX as u128 {
            drop(rate_limiters.of_user(user(1 << 100 | number), address("::2"), later));
        }
        assert!(count() <= 2 * RATE_LIMITERS_SWEPT_AT_MIN, "who came back to rest is: {}", count());
        drop(held);
    }

    #[test]
    fn searches_and_pages_have_buckets_of_their_own() {
        let now = Instant::now();
        let limits =
            Limits { searches_per_s: 1, searches_burst: 2, pages_per_s: 1, pages_burst: 3, ..Limits::default() };
        let rate_limiters = RateLimiters::new(&limits);
        let taken = |take: &dyn Fn() -> bool| (0..9).take_while(|_| take()).count();
        assert_eq!(taken(&|| rate_limiters.take_search(address("192.0.2.1"), now).is_ok()), 2);
        assert_eq!(taken(&|| rate_limiters.take_page(address("192.0.2.1"), now).is_ok()), 3);
        assert_eq!(taken(&|| rate_limiters.take_search(address("192.0.2.2"), now).is_ok()), 2);
    }

    #[test]
    fn handshakes_are_counted_by_network() {
        let now = Instant::now();
        let rate_limiters = RateLimiters::new(&limits(0, 0));
        let may_connect = |from: &str| rate_limiters.take_handshake(address(from), now).is_ok();
        assert_eq!([(); 3].map(|()| may_connect("2001:db8::1")), [true, true, false]);
        assert!(!may_connect("2001:db8::2") && may_connect("2001:db8:0:1::1"));
        assert!(may_connect("192.0.2.1") && may_connect("::ffff:192.0.2.1") && !may_connect("192.0.2.1"));
        let off = RateLimiters::new(&Limits { handshakes_per_s: 0, ..Limits::default() });
        assert!((0..10_000).all(|_| off.take_handshake(address("::1"), now).is_ok()));
    }
}
