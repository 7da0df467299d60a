//! The loads, and one run of a load.

use std::io;
use std::time::Duration;

use rustix::process::Pid;

use crate::connect::{self, Connects};
use crate::crowd::{Crowd, Layout, PATIENCE};
use crate::machine;
use crate::member::Pace;
use crate::server::Server;
use crate::verdict::Verdict;

/// One load.
#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub layout: Layout,
    pub work: Work,
    /// Whether the server stores messages in a file that is synced to the disk, or in memory.
    pub is_on_disk: bool,
}

/// What the connections of a load do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// The senders of each room send.
    Talk(Pace),
    /// All members are idle.
    Idle,
    /// Connections are opened and closed; the layout is not used.
    Connect,
}

/// All loads. `connections` is the number of connections of the idle load.
pub fn all(connections: usize) -> [Load; 9] {
    let load = |name, rooms, members_per_room, senders_per_room, work| Load {
        name,
        layout: Layout { rooms, members_per_room, senders_per_room },
        work,
        is_on_disk: false,
    };
    let on_disk = |load: Load| Load { is_on_disk: true, ..load };
    [
        load("sat", 1, 100, 2, Work::Talk(Pace::Window(64))),
        load("rate", 1, 100, 2, Work::Talk(Pace::PerSecond(100))),
        load("rooms", 100, 10, 1, Work::Talk(Pace::Window(8))),
        load("big", 1, 1000, 2, Work::Talk(Pace::PerSecond(10))),
        load("idle", connections.div_ceil(10), 10, 0, Work::Idle),
        load("echo", 1, 1, 1, Work::Talk(Pace::Window(1))),
        on_disk(load("ack", 1, 1, 1, Work::Talk(Pace::PerSecond(100)))),
        on_disk(load("file", 10, 1, 1, Work::Talk(Pace::Window(64)))),
        load("connect", 0, 1, 0, Work::Connect),
    ]
}

impl Work {
    pub fn pace(self) -> Option<Pace> {
        match self {
            Self::Talk(pace) => Some(pace),
            Self::Idle | Self::Connect => None,
        }
    }
}

/// How long a load runs before the measurement, and how long it is measured.
#[derive(Clone, Copy)]
pub struct Spans {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// The result of one run. Figures that can't be known are absent.
pub struct Outcome {
    pub load: Load,
    pub traffic: Option<Traffic>,
    /// Memory beyond the server's initial memory: when all members have joined and are quiet, or at the end of the
    /// traffic.
    pub resident_kib_per_connection: Option<f64>,
    /// The same after the pings, and how many connections have answered them.
    pub pinged: Option<Pinged>,
    pub connects: Option<Connects>,
    pub verdict: Verdict,
}

/// The server's work in the measured span.
pub struct Traffic {
    pub deliveries_per_s: f64,
    pub frame_bytes: f64,
    pub p50: Option<Duration>,
    pub p99: Option<Duration>,
    pub p999: Option<Duration>,
    pub server_cpu_us_per_delivery: Option<f64>,
    pub server_busy: Option<f64>,
    pub others_busy: Option<Others>,
    /// Near 1 the generator is the bottleneck, not the server.
    pub generator_busy: f64,
}

/// The share of the two cores that other processes used. Each core should have one user.
#[derive(Clone, Copy)]
pub struct Others {
    pub server_core: f64,
    pub generator_core: f64,
}

/// The result of the pings.
pub struct Pinged {
    pub pongs: usize,
    pub resident_kib_per_connection: Option<f64>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        let all_answered = self.pinged.as_ref().is_none_or(|pinged| pinged.pongs == self.load.layout.members());
        self.verdict.is_clean() && all_answered
    }
}

impl Load {
    /// Runs the load.
    ///
    /// # Errors
    /// If the load can't be run at all; faults of single messages are in the outcome.
    pub fn run(&self, server: &Server, spans: Spans) -> io::Result<Outcome> {
        // New rooms, for a running server that keeps earlier messages.
        let rooms_prefix = format!("{}-{:x}", self.name, std::process::id());
        if self.work == Work::Connect {
            return Ok(self.come_and_go(connect::run(server.address, &rooms_prefix, spans)));
        }
        let resident_before = Resident::of(server.pid, self.layout.members())?;
        let mut crowd = Crowd::new(self.layout)?;
        crowd.join(server.address, &rooms_prefix)?;
        let traffic = match self.work.pace() {
            Some(pace) => Some(talk(&mut crowd, pace, server, spans)?),
            None => None,
        };
        crowd.hush();
        let verdict = crowd.settle(PATIENCE)?;
        let resident_kib_per_connection = resident_before.grown()?;
        let pinged = match self.work {
            Work::Idle => Some(Pinged { pongs: crowd.ping()?, resident_kib_per_connection: resident_before.grown()? }),
            _ => None,
        };
        Ok(Outcome { load: *self, traffic, resident_kib_per_connection, pinged, connects: None, verdict })
    }

    fn come_and_go(&self, connects: Connects) -> Outcome {
        let verdict = Verdict {
            refusals: connects.failed,
            seq_checked: true,
            example: connects.example.clone(),
            ..Verdict::default()
        };
        Outcome {
            load: *self,
            traffic: None,
            resident_kib_per_connection: None,
            pinged: None,
            connects: Some(connects),
            verdict,
        }
    }
}

/// The traffic of a load, measured after its warm-up.
fn talk(crowd: &mut Crowd, pace: Pace, server: &Server, spans: Spans) -> io::Result<Traffic> {
    crowd.count_unwatched();
    crowd.speak(pace);
    crowd.run_until(crowd.now_ns() + spans.warm_up.as_nanos() as u64)?;
    let before = Reading::take(crowd, server)?;
    // Messages that were sent during the reading have waited for the generator, not for the server.
    crowd.sightings.timed_since_ns = crowd.now_ns();
    crowd.run_until(before.now_ns + spans.measured.as_nanos() as u64)?;
    let after = Reading::take(crowd, server)?;
    crowd.sightings.timed_since_ns = u64::MAX;

    let span_ns = (after.now_ns - before.now_ns) as f64;
    let frame_bytes = (after.watched_bytes - before.watched_bytes) as f64
        / (after.watched_messages - before.watched_messages).max(1) as f64;
    let deliveries = (after.live_bytes - before.live_bytes) as f64 / frame_bytes.max(1.0);
    let server_cpu_ns =
        after.server_cpu_ns.zip(before.server_cpu_ns).map(|(after, before)| after.saturating_sub(before) as f64);
    let own_cpu_ns = (after.own_cpu_ns - before.own_cpu_ns) as f64;
    let cores = after.cores_busy_ns.zip(before.cores_busy_ns);
    let others_busy = cores.zip(server_cpu_ns).map(|((after, before), server_cpu_ns)| {
        let share = |core: usize, ours_ns: f64| (((after[core] - before[core]) as f64 - ours_ns) / span_ns).max(0.0);
        Others { server_core: share(0, server_cpu_ns), generator_core: share(1, own_cpu_ns) }
    });
    let quantile = |share| crowd.sightings.latency.quantile(share);
    Ok(Traffic {
        deliveries_per_s: deliveries / span_ns * 1e9,
        frame_bytes,
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
        server_cpu_us_per_delivery: server_cpu_ns.map(|ns| ns / deliveries.max(1.0) / 1e3),
        server_busy: server_cpu_ns.map(|ns| ns / span_ns),
        others_busy,
        generator_busy: own_cpu_ns / span_ns,
    })
}

/// The figures that are read at the beginning and at the end of the measured span.
struct Reading {
    now_ns: u64,
    live_bytes: u64,
    watched_bytes: u64,
    watched_messages: u64,
    own_cpu_ns: u64,
    server_cpu_ns: Option<u64>,
    /// Busy time of the server's core and of the generator's.
    cores_busy_ns: Option<[u64; 2]>,
}

impl Reading {
    fn take(crowd: &Crowd, server: &Server) -> io::Result<Self> {
        Ok(Self {
            now_ns: crowd.now_ns(),
            live_bytes: crowd.sightings.live_bytes,
            watched_bytes: crowd.sightings.watched_bytes,
            watched_messages: crowd.sightings.watched_messages,
            own_cpu_ns: machine::own_cpu_ns(),
            server_cpu_ns: server.pid.map(machine::cpu_ns).transpose()?,
            cores_busy_ns: match server.cores {
                Some(cores) => Some([machine::core_busy_ns(cores.server)?, machine::core_busy_ns(cores.generator)?]),
                None => None,
            },
        })
    }
}

/// The server's memory before the first member joined.
struct Resident {
    server: Option<Pid>,
    members: usize,
    before_kib: u64,
}

impl Resident {
    fn of(server: Option<Pid>, members: usize) -> io::Result<Self> {
        Ok(Self { server, members, before_kib: server.map_or(Ok(0), machine::resident_kib)? })
    }

    /// How much each member has added to it.
    fn grown(&self) -> io::Result<Option<f64>> {
        let Some(server) = self.server else { return Ok(None) };
        let now_kib = machine::resident_kib(server)?;
        Ok(Some((now_kib as f64 - self.before_kib as f64) / self.members as f64))
    }
}
