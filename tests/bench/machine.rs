//! The machine: its processors, which process runs on which, and the kernel's figures about processes.

use std::fs;
use std::io;

use rustix::process::{Pid, Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// One core for the server, and one for everything else.
#[derive(Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub generator: usize,
}

impl Cores {
    /// Takes the last allowed processor for the server and the first for the generator. With only one processor they
    /// share it.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let generator = usable.next().unwrap_or(0);
        Ok(Self { server: usable.next_back().unwrap_or(generator), generator })
    }

    pub fn are_shared(self) -> bool {
        self.server == self.generator
    }
}

/// Binds the calling thread, and the threads and processes that it starts from now on, to a core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Raises the limit of open files to the maximum.
pub fn raise_file_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The processors' name and number, and the kernel.
pub fn description() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").or_else(|| field("Model")).unwrap_or_else(|| "unknown processor".to_owned());
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Processor time of a process in nanoseconds. It is exact where the kernel shows the scheduler's sums of the live
/// threads, so no thread should end between two readings. Elsewhere it is in ticks of 10 ms.
pub fn cpu_ns(pid: Pid) -> io::Result<u64> {
    let pid = pid.as_raw_nonzero();
    let exact: Option<u64> = fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|task| {
            let sched = fs::read_to_string(task.ok()?.path().join("sched")).ok()?;
            let line = sched.lines().find(|line| line.starts_with("se.sum_exec_runtime"))?;
            let ms: f64 = line.split_once(':')?.1.trim().parse().ok()?;
            Some((ms * 1e6) as u64)
        })
        .sum();
    if let Some(exact_ns) = exact {
        return Ok(exact_ns);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain any character; user and system time are the 12th and 13th field after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Processor time of this process in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec) as u64
}

/// Busy time of a core for all processes, in nanoseconds; the kernel counts it in ticks of 10 ms.
pub fn core_busy_ns(core: usize) -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let ticks = |field: &str| field.parse::<u64>().unwrap_or(0);
    // The first eight are user, nice, system, idle, iowait, irq, softirq and steal.
    let fields = line.split_whitespace().take(8).enumerate();
    let busy: u64 = fields.filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, field)| ticks(field)).sum();
    Ok(busy * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory of a process in KiB. It is counted page by page where the kernel offers that; elsewhere it is the
/// kernel's running sum, which may be off by some hundred.
pub fn resident_kib(pid: Pid) -> io::Result<u64> {
    let pid = pid.as_raw_nonzero();
    let (text, key) = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => (text, "Rss:"),
        Err(_) => (fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
    };
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("no {key} for process {pid}")))
}
