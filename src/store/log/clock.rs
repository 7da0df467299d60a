//! Log time, and the [`Moment`] that it gives each batch.
//!
//! Leases, slow mode, spans of sessions and retention are measured in log time. Wall time is only shown. Log time
//! advances with the monotonic clock while the server runs, and never goes back. A jump of the wall clock never moves
//! it.
//!
//! Only the wall clock tells how long the server was stopped. So that time is added only after the wall clock was
//! steady for [`CLOCK_STEADY_WAIT`], once per run ([`ClockEvent::CaughtUp`]). Three rules keep a wrong clock from
//! ending sessions and restrictions too early:
//!
//! - The persisted state ([`Stored`]) follows the last trusted wall clock. If a run ends before its own clock is
//!   trusted, the next run counts the earlier stop. A jump shortly before a stop has no effect.
//! - A stop moves log time up to the wall clock at most, never past it. A run with a late clock (a Raspberry Pi without
//!   a network) is not taken for a long stop by the next run.
//! - A wall clock before [`WALL_MS_MIN`] was never set. A stop that began under such a clock has no known length.
//!
//! [`LogClock`] belongs to the thread that gives moments and is pure: it takes readings and calls no clock.
//! [`SharedClock`] is for the other threads. Only [`Reading::now`] and [`SharedClock::now`] read the system's clocks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use uuid::Builder;

use crate::limits::{BATCH_NUMBERS_SKIPPED, CLOCK_DRIFT_MAX, CLOCK_STEADY_WAIT, PLACES_PER_BATCH_MAX, WALL_MS_MIN};
use crate::model::{FrameId, Timestamp};

/// The bits of a frame id (RFC 9562, section 5.7): the time, then the bits that the version leaves free. These hold
/// epoch, index and place.
const TIME_BITS: u32 = 48;
const INDEX_BITS: u32 = 42;
const PLACE_BITS: u32 = 20;
const CLOCK_MS_MAX: u64 = (1 << TIME_BITS) - 1;
const INDEX_MAX: u64 = (1 << INDEX_BITS) - 1;
const PLACE_MAX: u32 = PLACES_PER_BATCH_MAX - 1;
const _: () = assert!(PLACES_PER_BATCH_MAX == 1 << PLACE_BITS && INDEX_BITS + PLACE_BITS == 62);
/// The epoch (12 bits) of a log that only this process writes. It never changes.
const EPOCH_LOCAL: u16 = 0;

/// The position of a batch in the log, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Log time in milliseconds. It never goes back from one moment to the next.
    pub clock_ms: u64,
    /// Wall time in milliseconds since 1970, to be shown. It follows the wall clock.
    pub wall_ms: u64,
    /// The batch's number. It increases by one from batch to batch, and by more at a start.
    pub index: u64,
    /// How far the wall clock is ahead of log time, in milliseconds. It changes only when the wall clock jumps or is
    /// trusted. So a time that a client gave is shown to the millisecond.
    pub ahead_ms: i64,
}

impl Moment {
    /// The id of the frame at a place in this batch. Ids increase strictly with log time, index and place.
    ///
    /// A place past [`PLACES_PER_BATCH_MAX`] gets the id of the last place, which the database refuses as a duplicate.
    #[must_use]
    pub fn frame_id(&self, place: u32) -> FrameId {
        let low = self.index.min(INDEX_MAX) << PLACE_BITS | u64::from(place.min(PLACE_MAX));
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&EPOCH_LOCAL.to_be_bytes());
        // The builder overwrites the first bits of `bytes[0]` and `bytes[2]` with version and variant. Both are zero
        // here.
        bytes[2..].copy_from_slice(&low.to_be_bytes());
        FrameId(Builder::from_unix_timestamp_millis(self.clock_ms.min(CLOCK_MS_MAX), &bytes).into_uuid())
    }

    /// The wall time, for frames.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::at(self.wall_ms)
    }

    /// The wall time to show for a log time, at this moment.
    #[must_use]
    pub fn shown(&self, clock_ms: u64) -> u64 {
        clock_ms.saturating_add_signed(self.ahead_ms)
    }

    /// The log time of a wall time that a client or the operator gave at this moment: the inverse of
    /// [`shown`](Self::shown).
    #[must_use]
    pub fn to_clock(&self, wall_ms: u64) -> u64 {
        wall_ms.saturating_add_signed(self.ahead_ms.saturating_neg())
    }
}

/// Both clocks, read at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The monotonic clock.
    pub at: Instant,
    /// The wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Reading {
    /// Reads the system's clocks.
    #[must_use]
    pub fn now() -> Self {
        // If the thread is paused between the two reads, it would see a jump that did not happen. So it reads again.
        const APART_MAX: Duration = Duration::from_millis(50);
        const TRIES: usize = 4;
        let is_at_once = |reading: &Self| reading.at.elapsed() <= APART_MAX;
        (1..TRIES).map(|_| Self::read()).find(is_at_once).unwrap_or_else(Self::read)
    }

    fn read() -> Self {
        let at = Instant::now();
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { at, wall_ms: ms(since_1970) }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The state of the log when it was last written. It is persisted with batches that write, and when the server stops.
/// See [`LogClock::stored`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub clock_ms: u64,
    /// Wall time by the last trusted clock.
    pub wall_ms: u64,
    /// The number of the last batch.
    pub index: u64,
}

impl Stored {
    /// Whether both clocks differ by at most `span` from those of `other`.
    #[must_use]
    pub fn is_within(&self, span: Duration, other: &Self) -> bool {
        let apart_ms = self.clock_ms.abs_diff(other.clock_ms).max(self.wall_ms.abs_diff(other.wall_ms));
        apart_ms <= ms(span)
    }
}

/// An observation of the clocks, for the server's log output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockEvent {
    /// The wall clock was set, or the machine slept. Log time continues as before.
    Jumped {
        /// Positive for a jump forward, negative for a jump back.
        by_ms: i64,
    },
    /// Log time advanced by the time for which the server was stopped.
    CaughtUp {
        /// The length of the stop.
        by_ms: u64,
    },
}

impl fmt::Display for ClockEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jumped { by_ms } => {
                let way = if *by_ms < 0 { "back" } else { "forward" };
                let by_s = by_ms.unsigned_abs() / 1_000;
                write!(f, "the wall clock jumped {way} by {by_s} s; retention and time limits are not affected")
            }
            Self::CaughtUp { by_ms } => {
                let by_s = by_ms / 1_000;
                write!(f, "the wall clock is steady; the {by_s} s for which the server was stopped count from now on")
            }
        }
    }
}

/// The source of moments.
#[derive(Debug)]
pub struct LogClock {
    shared: Arc<Shared>,
    /// Log time of the last moment or reading.
    clock_ms: u64,
    index: u64,
    /// The wall time at the start of this run, by the wall clock since its last jump.
    start_wall_ms: i128,
    /// Since when the wall clock advances with the monotonic clock.
    steady_since: Instant,
    /// The same start, by the last trusted clock. Until this run has trusted a clock, the stop before it is not
    /// counted.
    trusted_start_wall_ms: Option<i128>,
    /// When the stop before this run began, until its length is known.
    stopped_at_ms: Option<u64>,
}

impl LogClock {
    /// Begins a log, or continues a stored log. If the newest frame in the database is not from this log, log time
    /// begins after it.
    #[must_use]
    pub fn resume(stored: Option<Stored>, newest_frame_ms: Option<u64>, reading: Reading) -> Self {
        let begin_ms = stored.map_or(reading.wall_ms, |stored| stored.clock_ms);
        let is_foreign = |ms: &u64| if stored.is_some() { *ms > begin_ms } else { *ms >= begin_ms };
        let begin_ms = newest_frame_ms.filter(is_foreign).map_or(begin_ms, |ms| ms.saturating_add(1)).min(CLOCK_MS_MAX);
        Self {
            shared: Arc::new(Shared {
                start: reading.at,
                begin_ms: AtomicU64::new(begin_ms),
                index: AtomicU64::new(0),
                ahead_ms: AtomicI64::new(ahead_ms(reading.wall_ms.into(), begin_ms)),
            }),
            clock_ms: begin_ms,
            index: stored.map_or(0, |stored| stored.index.saturating_add(BATCH_NUMBERS_SKIPPED)),
            start_wall_ms: reading.wall_ms.into(),
            steady_since: reading.at,
            trusted_start_wall_ms: stored.map(|stored| stored.wall_ms.into()),
            // The stop began at log time or later. A wall clock behind log time was late.
            stopped_at_ms: stored.map(|stored| stored.wall_ms.max(begin_ms)),
        }
    }

    /// The moment of the next batch.
    pub fn moment(&mut self, reading: Reading) -> (Moment, Option<ClockEvent>) {
        let event = self.observe(reading);
        self.index = self.index.saturating_add(1);
        self.shared.index.store(self.index, Ordering::Release);
        let ahead_ms = self.shared.ahead_ms.load(Ordering::Acquire);
        (Moment { clock_ms: self.clock_ms, wall_ms: reading.wall_ms, index: self.index, ahead_ms }, event)
    }

    /// Reads the clocks without a batch, so that jumps are noticed and a stop is counted while nothing is written. Once
    /// a minute is enough.
    pub fn observe(&mut self, reading: Reading) -> Option<ClockEvent> {
        let event = self.jump(reading).or_else(|| self.trust(reading));
        self.clock_ms = self.clock_ms.max(self.shared.clock_ms(reading.at));
        event
    }

    /// The state to persist with the last moment.
    #[must_use]
    pub fn stored(&self, reading: Reading) -> Stored {
        let wall_ms = match self.trusted_start_wall_ms {
            Some(start_ms) => wall_ms(start_ms + i128::from(self.run_ms(reading.at))),
            // The first run of a log has no trusted clock yet.
            None => reading.wall_ms,
        };
        Stored { clock_ms: self.clock_ms, wall_ms, index: self.index }
    }

    /// For tests: whether the wall clock was steady for [`CLOCK_STEADY_WAIT`] in this run, and has not jumped since.
    #[cfg(test)]
    pub fn is_steady(&self) -> bool {
        self.trusted_start_wall_ms == Some(self.start_wall_ms)
    }

    /// A handle for other threads.
    #[must_use]
    pub fn shared(&self) -> SharedClock {
        SharedClock(Arc::clone(&self.shared))
    }

    fn jump(&mut self, reading: Reading) -> Option<ClockEvent> {
        let start_wall_ms = self.start_wall_ms(reading);
        let by_ms = start_wall_ms - self.start_wall_ms;
        if by_ms.unsigned_abs() <= CLOCK_DRIFT_MAX.as_millis() {
            return None;
        }
        self.start_wall_ms = start_wall_ms;
        self.note_ahead();
        self.steady_since = reading.at.max(self.steady_since);
        let by_ms = by_ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Some(ClockEvent::Jumped { by_ms })
    }

    fn trust(&mut self, reading: Reading) -> Option<ClockEvent> {
        if reading.at.saturating_duration_since(self.steady_since) < CLOCK_STEADY_WAIT {
            return None;
        }
        // The start is computed again, so that slow drift over months is no jump.
        self.start_wall_ms = self.start_wall_ms(reading);
        self.steady_since = reading.at;
        self.trusted_start_wall_ms = Some(self.start_wall_ms);
        let stopped_at_ms = self.stopped_at_ms.take().filter(|ms| *ms >= WALL_MS_MIN);
        let by_ms = stopped_at_ms.map_or(0, |at_ms| wall_ms(self.start_wall_ms).saturating_sub(at_ms));
        self.shared.advance(by_ms);
        self.note_ahead();
        (by_ms > 0).then_some(ClockEvent::CaughtUp { by_ms })
    }

    fn note_ahead(&self) {
        let begin_ms = self.shared.begin_ms.load(Ordering::Acquire);
        self.shared.ahead_ms.store(ahead_ms(self.start_wall_ms, begin_ms), Ordering::Release);
    }

    /// The wall time at the start of this run, by a reading.
    fn start_wall_ms(&self, reading: Reading) -> i128 {
        i128::from(reading.wall_ms) - i128::from(self.run_ms(reading.at))
    }

    fn run_ms(&self, at: Instant) -> u64 {
        ms(at.saturating_duration_since(self.shared.start))
    }
}

/// How far the wall clock was ahead of log time when this run began.
fn ahead_ms(start_wall_ms: i128, begin_ms: u64) -> i64 {
    (start_wall_ms - i128::from(begin_ms)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn wall_ms(value: i128) -> u64 {
    value.clamp(0, u64::MAX.into()) as u64
}

/// Log time for threads that give no moments. Reading it never blocks. Clones are handles of the same clock.
#[derive(Debug, Clone)]
pub struct SharedClock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// When this run began.
    start: Instant,
    /// Log time at that instant. It grows when the log catches up.
    begin_ms: AtomicU64,
    /// The number of the last batch that got a moment.
    index: AtomicU64,
    /// See [`Moment::ahead_ms`].
    ahead_ms: AtomicI64,
}

impl Shared {
    fn clock_ms(&self, at: Instant) -> u64 {
        let run_ms = ms(at.saturating_duration_since(self.start));
        self.begin_ms.load(Ordering::Acquire).saturating_add(run_ms).min(CLOCK_MS_MAX)
    }

    fn advance(&self, by_ms: u64) {
        // Only one thread writes, so a load and a store are enough.
        let begin_ms = self.begin_ms.load(Ordering::Acquire).saturating_add(by_ms).min(CLOCK_MS_MAX);
        self.begin_ms.store(begin_ms, Ordering::Release);
    }
}

impl SharedClock {
    /// The moment of a read: the current log time and wall time, and the number of the newest batch. That batch may not
    /// be committed yet.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.at(Reading::now())
    }

    /// The same, for a given reading.
    #[must_use]
    pub fn at(&self, reading: Reading) -> Moment {
        let index = self.0.index.load(Ordering::Acquire);
        let ahead_ms = self.0.ahead_ms.load(Ordering::Acquire);
        Moment { clock_ms: self.0.clock_ms(reading.at), wall_ms: reading.wall_ms, index, ahead_ms }
    }
}

#[cfg(test)]
mod tests;
