//! A log-linear histogram of durations in nanoseconds, exact to one part in 64.

use std::time::Duration;

/// Buckets per power of two, as a power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
const BUCKETS: usize = (64 - FINE_BITS as usize + 1) * FINE;

/// Counts by duration. Recording takes a few instructions and no allocation.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
    }

    /// The duration that a `share` (0 to 1) of all records do not exceed; `None` without records.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut passed = 0;
        self.counts
            .iter()
            .position(|count| {
                passed += count;
                passed >= rank
            })
            .map(|at| Duration::from_nanos(largest(at)))
    }
}

/// Values below `FINE` have a bucket each; above, a value's leading bits name it.
fn bucket(ns: u64) -> usize {
    let octave = (ns | (FINE as u64 - 1)).ilog2() + 1 - FINE_BITS;
    if octave == 0 {
        return ns as usize;
    }
    octave as usize * FINE + ((ns >> (octave - 1)) as usize & (FINE - 1))
}

/// The largest value of a bucket.
fn largest(bucket: usize) -> u64 {
    let (octave, fine) = (bucket / FINE, (bucket % FINE) as u64);
    if octave == 0 {
        return fine;
    }
    ((FINE as u64 + fine) << (octave - 1)) + ((1 << (octave - 1)) - 1)
}
