//! A token bucket: so many a second, and a burst after a pause. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

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

    /// Takes one token.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        if self.is_unlimited() {
            return Ok(());
        }
        let rate = f64::from(self.per_s);
        let dripped = now.saturating_duration_since(self.filled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + dripped).min(f64::from(self.burst));
        self.filled_at = self.filled_at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / rate))
        }
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
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(0, 0, now);
        assert!((0..10_000).all(|_| bucket.take(now).is_ok()));
    }
}
