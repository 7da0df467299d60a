//! A simulated machine with two clocks that a test moves, and the log clock on it.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-06-01.
const TODAY: u64 = 1_780_272_000_000;

/// A machine, the server on it, and what the server has stored.
struct Machine {
    boot: Instant,
    run_ms: u64,
    wall_ms: u64,
    clock: LogClock,
    stored: Stored,
    last_id: FrameId,
    events: Vec<ClockEvent>,
}

impl Machine {
    /// A new log at a wall time.
    fn new(wall_ms: u64) -> Self {
        let boot = Instant::now();
        let reading = Reading { at: boot, wall_ms };
        let clock = LogClock::resume(None, None, reading);
        let stored = clock.stored(reading);
        let mut machine =
            Self { boot, run_ms: 0, wall_ms, clock, stored, last_id: FrameId(uuid::Uuid::nil()), events: Vec::new() };
        machine.write();
        machine
    }

    /// A log that has run with a correct clock for two hours.
    fn settled() -> Self {
        let mut machine = Self::new(TODAY);
        machine.run(2 * HOUR);
        assert!(machine.clock.is_steady());
        assert_eq!(machine.events, []);
        machine
    }

    fn reading(&self) -> Reading {
        Reading { at: self.boot + Duration::from_millis(self.run_ms), wall_ms: self.wall_ms }
    }

    /// Takes a moment and stores it.
    fn write(&mut self) -> Moment {
        let reading = self.reading();
        let (moment, event) = self.clock.moment(reading);
        self.events.extend(event);
        self.stored = self.clock.stored(reading);
        assert_eq!((self.stored.clock_ms, self.stored.index), (moment.clock_ms, moment.index));
        assert_eq!(self.clock.shared().at(reading), moment);
        assert!(moment.clock_ms >= self.last_id.unix_ms(), "log time goes back");
        for place in [0, 1, PLACE_MAX] {
            let id = moment.frame_id(place);
            assert!(id > self.last_id, "{id} after {}", self.last_id);
            self.last_id = id;
        }
        moment
    }

    /// Lets time pass while the server runs and writes once a minute. Returns by how much log time advanced.
    fn run(&mut self, ms: i64) -> i64 {
        let before = self.stored.clock_ms;
        let mut left = ms as u64;
        while left > 0 {
            let step = left.min(MINUTE as u64);
            self.run_ms += step;
            self.wall_ms = self.wall_ms.saturating_add(step);
            left -= step;
            self.write();
        }
        self.stored.clock_ms as i64 - before as i64
    }

    /// Moves the wall clock.
    fn set(&mut self, by_ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add_signed(by_ms);
    }

    /// Stops the server for a time. The next run's monotonic clock is unrelated to this run's.
    fn stop(&mut self, ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add(ms as u64);
        self.boot = Instant::now();
        self.run_ms = 0;
        self.clock = LogClock::resume(Some(self.stored), Some(self.last_id.unix_ms()), self.reading());
        self.write();
    }

    fn take_events(&mut self) -> Vec<ClockEvent> {
        std::mem::take(&mut self.events)
    }
}

fn jumped(by_ms: i64) -> ClockEvent {
    ClockEvent::Jumped { by_ms }
}

fn caught_up(by_ms: i64) -> ClockEvent {
    ClockEvent::CaughtUp { by_ms: by_ms as u64 }
}

#[test]
fn a_new_log_begins_at_the_wall_clock_and_advances_with_it() {
    let mut machine = Machine::new(TODAY);
    assert_eq!(machine.stored, Stored { clock_ms: TODAY, wall_ms: TODAY, index: 1 });
    for _ in 0..500 {
        assert_eq!(machine.run(HOUR), HOUR);
        assert_eq!(machine.stored.clock_ms, machine.wall_ms);
    }
    assert_eq!(machine.events, []);
}

#[test]
fn a_new_log_begins_after_the_existing_frames() {
    let reading = Reading { at: Instant::now(), wall_ms: TODAY };
    for (newest, begins) in [(TODAY - 5, TODAY), (TODAY, TODAY + 1), (TODAY + 5, TODAY + 6), (u64::MAX, CLOCK_MS_MAX)] {
        let (moment, _) = LogClock::resume(None, Some(newest), reading).moment(reading);
        assert_eq!((moment.clock_ms, moment.wall_ms), (begins, TODAY), "{newest}");
    }
    // The newest frame of a continued log is its own. A later frame is from elsewhere.
    let stored = Stored { clock_ms: TODAY, wall_ms: TODAY, index: 7 };
    for (newest, begins) in [(None, TODAY), (Some(TODAY), TODAY), (Some(TODAY + 5), TODAY + 6)] {
        let (moment, _) = LogClock::resume(Some(stored), newest, reading).moment(reading);
        assert_eq!((moment.clock_ms, moment.index), (begins, 7 + BATCH_NUMBERS_SKIPPED + 1), "{newest:?}");
    }
}

#[test]
fn a_stop_counts_once_and_after_an_hour() {
    let mut machine = Machine::settled();
    machine.stop(10 * DAY);
    assert_eq!(machine.run(HOUR - SECOND), HOUR - SECOND);
    assert!(!machine.clock.is_steady());
    assert_eq!(machine.run(SECOND), SECOND + 10 * DAY);
    assert!(machine.clock.is_steady());
    assert_eq!(machine.run(100 * HOUR), 100 * HOUR);
    assert_eq!(machine.events, [caught_up(10 * DAY)]);
    assert_eq!(machine.stored.clock_ms, machine.wall_ms);
}

#[test]
fn a_clock_at_1970_that_is_set_after_the_start_has_no_effect() {
    let mut machine = Machine::settled();
    let late = machine.wall_ms as i64;
    machine.set(-late);
    machine.stop(0);
    assert_eq!(machine.run(10 * SECOND), 10 * SECOND);
    machine.set(late + 3 * DAY);
    assert_eq!(machine.run(HOUR), HOUR, "the hour begins when the clock is set");
    assert_eq!(machine.take_events(), [jumped(late + 3 * DAY)]);
    assert_eq!(machine.run(MINUTE), MINUTE + 3 * DAY);
    assert_eq!(machine.events, [caught_up(3 * DAY)]);
    assert_eq!(machine.stored.clock_ms, machine.wall_ms);
}

#[test]
fn a_jump_of_any_size_is_reported_and_moves_nothing() {
    for by_ms in [100 * DAY, -100 * DAY, HOUR, -HOUR, 3 * SECOND, -3 * SECOND, i64::MAX / 2, i64::MIN / 2] {
        let mut machine = Machine::settled();
        let real = machine.wall_ms;
        machine.set(by_ms);
        let set = machine.wall_ms as i64 - real as i64;
        assert_eq!(machine.run(3 * SECOND), 3 * SECOND);
        assert!(!machine.clock.is_steady());
        assert_eq!(machine.take_events(), [jumped(set)]);
        machine.set(-set);
        assert_eq!(machine.run(30 * DAY), 30 * DAY);
        assert!(machine.clock.is_steady());
        assert_eq!(machine.events, [jumped(-set)]);
    }
    for by_ms in [2 * SECOND, -2 * SECOND, 1] {
        let mut machine = Machine::settled();
        machine.set(by_ms);
        assert_eq!(machine.run(HOUR), HOUR);
        assert_eq!(machine.events, []);
    }
}

#[test]
fn a_jump_shortly_before_a_stop_has_no_effect() {
    for by_ms in [100 * DAY, -100 * DAY] {
        let mut machine = Machine::settled();
        machine.set(by_ms);
        machine.run(30 * MINUTE);
        machine.stop(DAY);
        machine.set(-by_ms);
        machine.run(30 * MINUTE);
        machine.stop(0);
        machine.take_events();
        assert_eq!(machine.run(3 * HOUR), 3 * HOUR + DAY, "{by_ms}");
        assert_eq!(machine.events, [caught_up(DAY)]);
    }
}

#[test]
fn a_wrong_clock_that_is_set_within_the_first_hour_has_no_effect() {
    for by_ms in [100 * DAY, -100 * DAY, -200 * DAY] {
        let mut machine = Machine::settled();
        machine.set(by_ms);
        machine.stop(2 * DAY);
        machine.run(59 * MINUTE);
        machine.set(-by_ms);
        assert_eq!(machine.run(HOUR), HOUR);
        assert_eq!(machine.run(MINUTE), MINUTE + 2 * DAY, "{by_ms}");
    }
}

#[test]
fn sleep_of_the_machine_is_a_jump() {
    let mut machine = Machine::settled();
    machine.set(30 * DAY);
    assert_eq!(machine.run(50 * HOUR), 50 * HOUR);
    assert_eq!(machine.events, [jumped(30 * DAY)]);
    // Log time stays behind the wall clock by the time that the machine slept. A stop still counts with its full
    // length.
    machine.take_events();
    machine.stop(DAY);
    assert_eq!(machine.run(2 * HOUR), 2 * HOUR + DAY);
    assert_eq!(machine.stored.clock_ms + 30 * DAY as u64, machine.wall_ms);
}

#[test]
fn stops_between_short_runs_add_up() {
    let mut machine = Machine::settled();
    for _ in 0..20 {
        machine.stop(23 * HOUR);
        assert_eq!(machine.run(45 * MINUTE), 45 * MINUTE);
    }
    assert_eq!(machine.run(15 * MINUTE), 15 * MINUTE + 20 * 23 * HOUR);
    machine.stop(0);
    assert_eq!(machine.run(5 * HOUR), 5 * HOUR);
    assert_eq!(machine.events, [caught_up(20 * 23 * HOUR)]);
}

#[test]
fn a_clock_set_back_before_a_stop_does_not_turn_log_time_back() {
    let mut machine = Machine::settled();
    machine.set(-5 * DAY);
    machine.stop(DAY);
    assert_eq!(machine.run(10 * HOUR), 10 * HOUR);
    assert_eq!(machine.events, []);
    // Log time is ahead now. A stop counts only from the time at which the wall clock has caught up with it.
    machine.stop(10 * DAY);
    machine.run(2 * HOUR);
    assert_eq!(machine.stored.clock_ms, machine.wall_ms);
}

#[test]
fn a_run_with_a_late_clock_is_not_taken_for_a_stop() {
    // The clock of a machine without battery and network restarts at the time of its last image.
    for late in [200 * DAY, machine_age()] {
        let mut machine = Machine::settled();
        machine.set(-late);
        machine.stop(0);
        machine.run(20 * HOUR);
        machine.set(late);
        machine.stop(DAY);
        machine.take_events();
        assert_eq!(machine.run(2 * HOUR), 2 * HOUR + DAY, "{late}");
        assert_eq!(machine.stored.clock_ms, machine.wall_ms);
    }
}

/// From 1970 to a settled machine's time.
fn machine_age() -> i64 {
    Machine::settled().wall_ms as i64
}

#[test]
fn a_log_that_began_in_1970_does_not_jump_to_the_present() {
    for run in [10 * MINUTE, 10 * HOUR] {
        let mut machine = Machine::new(0);
        machine.run(run);
        machine.set(TODAY as i64);
        machine.stop(DAY);
        machine.take_events();
        assert_eq!(machine.run(5 * HOUR), 5 * HOUR);
        // Later stops count.
        machine.stop(DAY);
        assert_eq!(machine.run(5 * HOUR), 5 * HOUR + DAY);
        assert_eq!(machine.events, [caught_up(DAY)]);
    }
}

#[test]
fn a_log_that_began_late_counts_only_the_stop() {
    let mut machine = Machine::new(TODAY - 200 * DAY as u64);
    machine.run(10 * SECOND);
    machine.set(200 * DAY);
    machine.run(30 * MINUTE);
    machine.stop(DAY);
    machine.take_events();
    assert_eq!(machine.run(5 * HOUR), 5 * HOUR + DAY);
    assert_eq!(machine.events, [caught_up(DAY)]);
}

#[test]
fn slow_drift_is_not_a_jump() {
    let mut machine = Machine::settled();
    for _ in 0..24 * 365 {
        machine.set(SECOND);
        machine.run_ms += HOUR as u64;
        machine.wall_ms += HOUR as u64;
        machine.write();
    }
    assert_eq!(machine.events, []);
}

#[test]
fn an_idle_log_sees_a_jump_and_counts_a_stop() {
    let mut machine = Machine::settled();
    machine.stop(DAY);
    let before = machine.clock.shared().at(machine.reading());
    machine.run_ms += HOUR as u64;
    machine.wall_ms += HOUR as u64;
    assert_eq!(machine.clock.observe(machine.reading()), Some(caught_up(DAY)));
    let after = machine.clock.shared().at(machine.reading());
    assert_eq!(after.clock_ms - before.clock_ms, (HOUR + DAY) as u64);
    assert_eq!(after.index, before.index, "no batch was given a moment");
    assert_eq!(machine.clock.stored(machine.reading()).clock_ms, after.clock_ms);
}

#[test]
fn readings_out_of_order_do_not_turn_time_back() {
    let mut machine = Machine::settled();
    let (late, early) = (machine.reading(), Reading { at: machine.boot, wall_ms: TODAY });
    let shown = machine.clock.moment(late).0;
    let again = machine.clock.moment(early).0;
    assert_eq!((again.clock_ms, again.index), (shown.clock_ms, shown.index + 1));
    let before_the_start = Reading { at: machine.boot - Duration::from_secs(1), wall_ms: TODAY };
    assert!(machine.clock.moment(before_the_start).0.clock_ms >= again.clock_ms);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let at = Instant::now();
    let most = u64::MAX;
    let stored = Stored { clock_ms: most, wall_ms: most, index: most };
    for (stored, wall_ms) in [(Some(stored), 0), (Some(stored), most), (None, most), (None, 0)] {
        let mut clock = LogClock::resume(stored, Some(most), Reading { at, wall_ms });
        for (after_s, wall_ms) in [(0, most), (1, 0), (4_000, most), (8_000, most), (12_000, 0), (16_000, 0)] {
            let reading = Reading { at: at + Duration::from_secs(after_s), wall_ms };
            let (moment, event) = clock.moment(reading);
            assert_eq!(moment.clock_ms, CLOCK_MS_MAX);
            assert_eq!(moment.frame_id(u32::MAX), moment.frame_id(PLACE_MAX));
            assert_eq!(moment.frame_id(0).unix_ms(), CLOCK_MS_MAX);
            let _ = (clock.stored(reading), event.map(|event| event.to_string()), moment.timestamp());
        }
    }
    let moment = Moment { clock_ms: 10, wall_ms: most, index: most, ahead_ms: i64::MAX };
    assert_eq!((moment.shown(most), moment.shown(0)), (most, i64::MAX as u64));
    assert_eq!((moment.to_clock(0), moment.to_clock(most)), (0, most - i64::MAX as u64));
    let moment = Moment { ahead_ms: i64::MIN, ..moment };
    assert_eq!((moment.shown(0), moment.to_clock(most)), (0, most));
}

#[test]
fn a_frame_id_has_version_7_and_holds_time_index_and_place() {
    let moment = Moment { clock_ms: 0x0123_4567_89ab, wall_ms: TODAY, index: 0x2aa_aaaa_aaab, ahead_ms: 0 };
    let id = moment.frame_id(0x9_8765).0;
    assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
    let bits = id.as_u128();
    assert_eq!(bits >> 80, u128::from(moment.clock_ms));
    assert_eq!(bits >> 64 & 0xfff, 0);
    assert_eq!(bits >> 20 & u128::from(INDEX_MAX), u128::from(moment.index));
    assert_eq!(bits & 0xf_ffff, 0x9_8765);
}

#[test]
fn wall_times_convert_to_log_time_and_back() {
    let moment = Moment { clock_ms: 1_000_000, wall_ms: TODAY, index: 1, ahead_ms: TODAY as i64 - 1_000_000 };
    assert_eq!(moment.shown(1_060_000), TODAY + 60_000);
    assert_eq!(moment.shown(0), TODAY - 1_000_000);
    assert_eq!(moment.to_clock(TODAY + 60_000), 1_060_000);
    assert_eq!(moment.to_clock(5), 0, "before log time began");
    assert_eq!(moment.timestamp().unix_ms, TODAY);
}

#[test]
fn clock_events_have_log_messages() {
    assert_eq!(
        jumped(-HOUR).to_string(),
        "the wall clock jumped back by 3600 s; retention and time limits are not affected"
    );
    assert_eq!(
        caught_up(DAY).to_string(),
        "the wall clock is steady; the 86400 s for which the server was stopped count from now on"
    );
}

#[test]
fn another_thread_sees_log_time_rise_while_the_log_catches_up() {
    let at = Instant::now();
    let stored = Stored { clock_ms: TODAY, wall_ms: TODAY, index: 0 };
    let mut clock = LogClock::resume(Some(stored), None, Reading { at, wall_ms: TODAY + DAY as u64 });
    let shared = clock.shared();
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        while last < TODAY + DAY as u64 {
            let moment = shared.now();
            assert!(moment.clock_ms >= last);
            last = moment.clock_ms;
        }
    });
    let an_hour_on = Reading { at: at + CLOCK_STEADY_WAIT, wall_ms: TODAY + (DAY + HOUR) as u64 };
    assert_eq!(clock.moment(an_hour_on).1, Some(caught_up(DAY)));
    reader.join().unwrap();
}

#[test]
fn the_clocks_of_the_system_can_be_read() {
    let reading = Reading::now();
    assert!(reading.wall_ms > 0 && reading.at.elapsed() < Duration::from_secs(60));
}

#[derive(Debug, Clone)]
enum Step {
    Run(i64),
    Set(i64),
    Stop(i64),
    /// A power cut that loses what was stored since the last stop or step.
    Crash(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let span = || prop_oneof![0..5 * SECOND, 0..2 * HOUR, 0..100 * DAY];
    let step = prop_oneof![
        4 => span().prop_map(|ms| Step::Run(ms.min(30 * HOUR))),
        2 => (span(), any::<bool>()).prop_map(|(ms, is_back)| Step::Set(if is_back { -ms } else { ms })),
        1 => span().prop_map(Step::Stop),
        1 => span().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// Log time never goes back and ids increase; `write` asserts both. Log time advances with the monotonic clock, and
    /// by the reported length of a stop, once per run at most.
    #[test]
    fn log_time_is_the_run_time_plus_the_reported_stops(
        wall_ms in prop_oneof![Just(0), Just(TODAY), 0..2 * TODAY],
        steps in steps(),
    ) {
        let mut machine = Machine::new(wall_ms);
        for step in steps {
            match step {
                Step::Run(ms) => {
                    machine.take_events();
                    let advanced = machine.run(ms);
                    let told = machine.take_events().into_iter().map(|event| match event {
                        ClockEvent::CaughtUp { by_ms } => by_ms as i64,
                        ClockEvent::Jumped { .. } => 0,
                    });
                    let told: Vec<i64> = told.filter(|ms| *ms > 0).collect();
                    prop_assert!(told.len() <= 1);
                    prop_assert_eq!(advanced, ms + told.iter().sum::<i64>());
                    prop_assert!(told.is_empty() || machine.stored.clock_ms <= machine.wall_ms);
                }
                Step::Set(by_ms) => machine.set(by_ms),
                Step::Stop(ms) => machine.stop(ms),
                Step::Crash(ms) => {
                    // Its clients have seen ids that the database lost.
                    let (stored, seen) = (machine.stored, machine.last_id);
                    machine.run(10 * SECOND);
                    let lost = machine.last_id;
                    (machine.stored, machine.last_id) = (stored, seen);
                    machine.stop(ms);
                    prop_assert_ne!(machine.last_id, lost);
                }
            }
        }
    }
}
