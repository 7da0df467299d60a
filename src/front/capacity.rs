//! How many connections the system can carry. Computed once at the start, before the first connection is accepted.
//!
//! Every limit of the system is checked in advance, because reaching one is worse than a refused connection. Without
//! memory maps the standard library aborts the process instead of returning an error.

use std::fmt;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{DESCRIPTORS_RESERVED, MAPS_PER_THREAD, MAPS_RESERVED};

/// The limit that decides the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// The flag `--max-connections`.
    Flag,
    /// Open files (`RLIMIT_NOFILE`).
    Descriptors,
    /// Memory maps (`vm.max_map_count`).
    Maps,
    /// Tasks (`RLIMIT_NPROC`, `kernel.threads-max`, the cgroup's `pids.max`).
    Tasks,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "--max-connections",
            Self::Descriptors => "the limit of open files (ulimit -n)",
            Self::Maps => "the limit of memory maps (vm.max_map_count)",
            Self::Tasks => "the limit of tasks (ulimit -u, kernel.threads-max or the cgroup's pids.max)",
        })
    }
}

/// The limits of the system; `None` if there is no limit or it is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Open files of this process.
    pub descriptors: Option<u64>,
    /// Memory maps of this process.
    pub maps: Option<u64>,
    /// The smallest limit on tasks.
    pub tasks: Option<u64>,
}

impl Bounds {
    /// Raises the soft limit of open files to the hard limit, and reads the limits of the system.
    #[must_use]
    pub fn raise_and_read() -> Self {
        let descriptors = getrlimit(Resource::Nofile);
        // If it can't be raised, the soft limit applies.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors });
        let tasks = [getrlimit(Resource::Nproc).current, number("/proc/sys/kernel/threads-max"), cgroup_tasks()];
        Self {
            descriptors: getrlimit(Resource::Nofile).current,
            maps: number("/proc/sys/vm/max_map_count"),
            tasks: tasks.into_iter().flatten().min(),
        }
    }

    /// The number of connections that the system can handle, at least 1, and the limit that decides it. `flag` is that of
    /// the operator.
    #[must_use]
    pub fn connections_max(&self, flag: Option<u64>) -> (u64, Term) {
        let terms = [
            flag.map(|flag| (flag, Term::Flag)),
            // A connection has one descriptor. Those of requests at the HTTP workers are reserved.
            self.descriptors.map(|bound| (bound.saturating_sub(DESCRIPTORS_RESERVED), Term::Descriptors)),
            self.maps.map(|bound| (bound.saturating_sub(MAPS_RESERVED) / MAPS_PER_THREAD, Term::Maps)),
            // Other processes need tasks, too.
            self.tasks.map(|bound| (bound / 10 * 8 + bound % 10 * 8 / 10, Term::Tasks)),
        ];
        let (count, term) = terms.into_iter().flatten().min_by_key(|(count, _)| *count).unwrap_or((10_000, Term::Maps));
        (count.max(1), term)
    }
}

/// The smallest `pids.max` of this process's cgroup and its ancestors (cgroup v2).
fn cgroup_tasks() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| number(Path::new("/sys/fs/cgroup").join(group).join("pids.max"))).min()
}

/// The number in a file; `None` without a number, as in `max`.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_decides() {
        let bounds = |descriptors, maps, tasks| Bounds { descriptors, maps, tasks };
        for (bounds, flag, expected) in [
            (bounds(Some(20_000), Some(65_530), Some(96_365)), None, (12_306, Term::Maps)),
            (bounds(Some(20_000), Some(65_530), Some(96_365)), Some(100), (100, Term::Flag)),
            (bounds(Some(1_024), Some(65_530), Some(96_365)), None, (896, Term::Descriptors)),
            (bounds(Some(20_000), Some(65_530), Some(100)), None, (80, Term::Tasks)),
            (bounds(Some(64), None, None), None, (1, Term::Descriptors)),
            (bounds(None, None, Some(u64::MAX)), Some(5), (5, Term::Flag)),
        ] {
            assert_eq!(bounds.connections_max(flag), expected, "{bounds:?} {flag:?}");
        }
    }

    #[test]
    fn the_limits_of_this_system_can_be_read() {
        let bounds = Bounds::raise_and_read();
        assert!(bounds.descriptors.is_some_and(|count| count >= 64), "{bounds:?}");
        assert!(bounds.maps.is_some() && bounds.tasks.is_some(), "{bounds:?}");
    }
}
