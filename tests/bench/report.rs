//! The report: a table for people, JSON for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::floor::Floor;
use crate::load::{Others, Outcome, Work};
use crate::machine::{self, Cores};
use crate::member::Pace;

/// The results of one run of the benchmark.
pub struct Report {
    pub cores: Cores,
    /// A description of what was measured.
    pub server: String,
    pub floor_before: Floor,
    pub floor_after: Floor,
    pub outcomes: Vec<Outcome>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_clean)
    }

    /// The table.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let floor = self.floor_before.and(&self.floor_after);
        writeln!(out, "\n{}", machine::description())?;
        writeln!(out, "{}", self.server)?;
        if self.cores.are_shared() {
            writeln!(out, "Only one core: server and generator share it, and the figures mean little.")?;
        }
        let floors = [&floor, &self.floor_before, &self.floor_after];
        for (name, us) in [
            ("hot", floors.map(Floor::hot_us)),
            ("hot CPU", floors.map(Floor::hot_cpu_us)),
            ("paced CPU", floors.map(Floor::paced_us)),
        ] {
            let [used, before, after] = us;
            writeln!(out, "floor {name:<10} {used:.2} us a send (before {before:.2}, after {after:.2})")?;
        }
        if let Some(others) = floor.others() {
            let percent = others * 100.0;
            writeln!(out, "floor: other processes took {percent:.0}% of a core: the ratios mean little")?;
        }
        writeln!(out)?;
        write_row(out, &HEADINGS.map(str::to_owned))?;
        for outcome in &self.outcomes {
            write_row(out, &Row::of(outcome, &floor).cells(outcome))?;
        }
        writeln!(out)?;
        self.outcomes.iter().try_for_each(|outcome| remarks(outcome, out))
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let floor = self.floor_before.and(&self.floor_after);
        let floor_json = |floor: &Floor| {
            json!({"hot_us": floor.hot_us(), "hot_cpu_us": floor.hot_cpu_us(), "paced_cpu_us": floor.paced_us(),
                "others_busy": floor.others()})
        };
        let loads: Vec<Value> = self.outcomes.iter().map(|outcome| Row::of(outcome, &floor).json(outcome)).collect();
        json!({
            "machine": machine::description(),
            "server": self.server,
            "cores_shared": self.cores.are_shared(),
            "floor": floor_json(&floor),
            "floor_before": floor_json(&self.floor_before),
            "floor_after": floor_json(&self.floor_after),
            "loads": loads,
            "clean": self.is_clean(),
        })
    }
}

/// The share of a core that other processes may use without a remark; `/proc/stat` is not exact.
const OTHERS_MAX: f64 = 0.1;

const HEADINGS: [&str; 16] = [
    "load",
    "deliveries/s",
    "x hot",
    "by CPU",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU us",
    "x paced",
    "KiB/conn",
    "server",
    "others",
    "bench",
    "gaps",
    "dups",
    "lost",
];

fn write_row(out: &mut impl Write, cells: &[String; HEADINGS.len()]) -> io::Result<()> {
    for (cell, heading) in cells.iter().zip(HEADINGS) {
        let width = heading.len().max(6);
        write!(out, "{cell:>width$}  ")?;
    }
    writeln!(out)
}

/// The figures of a load, in the displayed units.
struct Row {
    deliveries_per_s: Option<f64>,
    /// The ratio of deliveries to the sends of the hot floor, for a load that is limited by nothing else.
    times_hot: Option<f64>,
    /// The same ratio by processor time: what it would be without other processes on the server's core.
    times_hot_by_cpu: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    cpu_us: Option<f64>,
    /// The ratio of the processor time of a delivery to that of a send of the paced floor, for a load that is paced,
    /// too.
    times_paced: Option<f64>,
    resident_kib: Option<f64>,
    server_busy: Option<f64>,
    others_busy: Option<Others>,
    generator_busy: Option<f64>,
}

impl Row {
    fn of(outcome: &Outcome, floor: &Floor) -> Self {
        let traffic = outcome.traffic.as_ref();
        let ms = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1e3);
        let deliveries_per_s = traffic.map(|traffic| traffic.deliveries_per_s);
        let cpu_us = traffic.and_then(|traffic| traffic.server_cpu_us_per_delivery);
        let is_paced = matches!(outcome.load.work, Work::Talk(Pace::PerSecond(_)));
        let connects = outcome.connects.as_ref();
        Self {
            deliveries_per_s,
            times_hot: deliveries_per_s.filter(|_| !is_paced).map(|rate| rate * floor.hot_us() / 1e6),
            times_hot_by_cpu: cpu_us.filter(|_| !is_paced).map(|cpu_us| floor.hot_cpu_us() / cpu_us),
            p50_ms: ms(traffic.map_or_else(|| connects?.p50, |traffic| traffic.p50)),
            p99_ms: ms(traffic.map_or_else(|| connects?.p99, |traffic| traffic.p99)),
            p999_ms: ms(traffic.and_then(|traffic| traffic.p999)),
            cpu_us,
            times_paced: cpu_us.filter(|_| is_paced).map(|cpu_us| cpu_us / floor.paced_us()),
            resident_kib: outcome.resident_kib_per_connection,
            server_busy: traffic.and_then(|traffic| traffic.server_busy),
            others_busy: traffic.and_then(|traffic| traffic.others_busy),
            generator_busy: traffic.map(|traffic| traffic.generator_busy),
        }
    }

    fn cells(&self, outcome: &Outcome) -> [String; HEADINGS.len()] {
        let verdict = &outcome.verdict;
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
        [
            outcome.load.name.to_owned(),
            shown(self.deliveries_per_s, 0),
            shown(self.times_hot, 2),
            shown(self.times_hot_by_cpu, 2),
            shown(self.p50_ms, 3),
            shown(self.p99_ms, 3),
            shown(self.p999_ms, 3),
            shown(self.cpu_us, 3),
            shown(self.times_paced, 2),
            shown(self.resident_kib, 1),
            percent(self.server_busy),
            self.others_busy.map_or_else(
                || "-".to_owned(),
                |others| format!("{:.0}/{:.0}%", others.server_core * 100.0, others.generator_core * 100.0),
            ),
            percent(self.generator_busy),
            verdict.gaps.to_string(),
            verdict.duplicates.to_string(),
            verdict.losses.to_string(),
        ]
    }

    fn json(&self, outcome: &Outcome) -> Value {
        let verdict = &outcome.verdict;
        json!({
            "load": outcome.load.name,
            "connections": outcome.load.layout.members(),
            "connections_per_s": outcome.connects.as_ref().map(|connects| connects.per_s),
            "deliveries_per_s": self.deliveries_per_s,
            "times_hot": self.times_hot,
            "times_hot_by_cpu": self.times_hot_by_cpu,
            "frame_bytes": outcome.traffic.as_ref().map(|traffic| traffic.frame_bytes),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "p999_ms": self.p999_ms,
            "server_cpu_us_per_delivery": self.cpu_us,
            "times_paced": self.times_paced,
            "server_busy": self.server_busy,
            "others_busy": self.others_busy.map(|others| [others.server_core, others.generator_core]),
            "generator_busy": self.generator_busy,
            "resident_kib_per_connection": self.resident_kib,
            "resident_kib_per_connection_pinged":
                outcome.pinged.as_ref().and_then(|pinged| pinged.resident_kib_per_connection),
            "pongs": outcome.pinged.as_ref().map(|pinged| pinged.pongs),
            "gaps": verdict.gaps,
            "duplicates": verdict.duplicates,
            "losses": verdict.losses,
            "refusals": verdict.refusals,
            "gone": verdict.gone,
            "seq_checked": verdict.seq_checked,
        })
    }
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Prints the remarks for which the table has no column.
fn remarks(outcome: &Outcome, out: &mut impl Write) -> io::Result<()> {
    let (name, verdict) = (outcome.load.name, &outcome.verdict);
    let connections = outcome.load.layout.members();
    if let Some(traffic) = &outcome.traffic {
        writeln!(out, "{name}: {connections} connections, {:.0} bytes a frame", traffic.frame_bytes)?;
        if traffic.others_busy.is_some_and(|others| others.server_core.max(others.generator_core) > OTHERS_MAX) {
            writeln!(out, "{name}: other processes were on the two cores; rate and latency suffered")?;
        }
        if traffic.generator_busy > 0.95 {
            writeln!(out, "{name}: the generator was busy throughout: the server may be able to do more")?;
        }
    }
    if let Some(connects) = &outcome.connects {
        let (per_s, failed) = (connects.per_s, connects.failed);
        writeln!(out, "{name}: {per_s:.0} connections opened and closed a second, two at once; {failed} failed")?;
    }
    if let Some(pinged) = &outcome.pinged {
        let resident = shown(pinged.resident_kib_per_connection, 1);
        writeln!(out, "{name}: {} of {connections} answered a ping, {resident} KiB each after it", pinged.pongs)?;
    }
    if !verdict.seq_checked {
        writeln!(out, "{name}: no `seq` in the server's frames; the senders' own counters were checked")?;
    }
    if verdict.refusals + verdict.gone > 0 {
        let example = verdict.example.as_deref().unwrap_or_default();
        writeln!(out, "{name}: {} errors, {} connections gone: {example}", verdict.refusals, verdict.gone)?;
    }
    Ok(())
}
