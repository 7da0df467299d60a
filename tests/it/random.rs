//! Reproducible random numbers: every random test prints its seed, and `ADDA_SEED` sets it.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good with any seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator seeded from `ADDA_SEED`, or from the clock; prints the seed.
    pub fn from_env() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()));
        let seed = match std::env::var("ADDA_SEED") {
            Ok(text) => text.parse().expect("ADDA_SEED is a number"),
            Err(_) => clock(),
        };
        println!("ADDA_SEED={seed}");
        Self(seed)
    }

    /// An independent generator.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in `times` calls, on average.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }

    /// A duration below `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.within(0..1_000_000) as f64 / 1e6)
    }
}
