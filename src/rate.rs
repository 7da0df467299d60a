//! A token bucket: so many a second, and a burst after a pause. Pure: the caller says what time it is.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::limits::RATES_KEPT_MAX;

/// Tokens drip in at a fixed rate up to a burst; each frame takes one.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_s: u32,
    burst: u32,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 never refuses; a burst is at least one.
    #[must_use]
    pub fn new(per_s: u32, burst: u32, now: Instant) -> Self {
        let burst = burst.max(1);
        Self { per_s, burst, tokens: f64::from(burst), filled_at: now }
    }

    /// Whether this bucket refuses nothing, so that its caller need not read the clock.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.per_s == 0
    }

    /// Whether a pause has filled it again.
    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= f64::from(self.burst)
    }

    fn fill(&mut self, now: Instant) {
        let dripped = now.saturating_duration_since(self.filled_at).as_secs_f64() * f64::from(self.per_s);
        self.tokens = (self.tokens + dripped).min(f64::from(self.burst));
        self.filled_at = self.filled_at.max(now);
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.is_unlimited() {
            return Ok(());
        }
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / f64::from(self.per_s)))
        }
    }
}

/// Buckets of many, each by its key. Those that are full again are forgotten now and then, so there are no more than
/// there are keys in use, and never more than [`RATES_KEPT_MAX`]: past that a stranger is refused.
#[derive(Debug)]
pub struct TokenBuckets<K> {
    per_s: u32,
    burst: u32,
    buckets: HashMap<K, TokenBucket>,
}

impl<K: Hash + Eq> TokenBuckets<K> {
    /// No bucket yet; each begins full.
    #[must_use]
    pub fn new(per_s: u32, burst: u32) -> Self {
        Self { per_s, burst, buckets: HashMap::new() }
    }

    /// Takes one token of a key's.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if self.per_s == 0 {
            return Ok(());
        }
        if self.buckets.len() >= RATES_KEPT_MAX && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= RATES_KEPT_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| TokenBucket::new(self.per_s, self.burst, now));
        bucket.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
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
    fn time_that_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1, 1, start);
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start - Duration::from_secs(5)).is_err());
        assert!(bucket.take(start).is_err());
    }

    #[test]
    fn each_key_has_its_own_and_strangers_are_bounded() {
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
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(0, 0, now);
        assert!((0..10_000).all(|_| bucket.take(now).is_ok()));
    }
}
