//! `cargo bench`: loads on a server that has its own core, compared with the floor that the kernel sets.
//!
//! Only ratios to the floor are comparable between machines. `hot` is the ratio of deliveries per second to sends per
//! second at full speed. `paced` is the ratio of the server's processor time per delivery to that of a send at a low
//! rate. The floor is measured before and after the loads.
//!
//! | load | rooms × members | senders in each room |
//! | --- | --- | --- |
//! | `sat` | 1 × 100 | 2, keeping 64 unechoed messages each |
//! | `rate` | 1 × 100 | 2, 100 messages a second each |
//! | `rooms` | 100 × 10 | 1, keeping 8 unechoed |
//! | `big` | 1 × 1,000 | 2, 10 messages a second each |
//! | `idle` | 800 × 10 | none; every member asks for a pong at the end |
//! | `echo` | 1 × 1 | 1, keeping 1 unechoed |
//! | `ack` | 1 × 1 | 1, 100 messages a second; the server keeps them in a file and syncs it |
//! | `file` | 10 × 1 | 1, keeping 64 unechoed; in a file, as above |
//! | `connect` | | none; two threads open connections, one after another each, and close them when they are welcomed |
//!
//! Sampled members (all senders, and three others in one room out of ten) read every frame. The `seq` and the counter
//! of each sender must be consecutive, and every sent message must arrive. All members of a room receive the same
//! bytes. So the other members, which only count, must end with as many bytes as the sampled ones. The exit code is 1
//! if a message is missing, arrives twice, or is refused.
//!
//! Except for `connect`, one thread does everything: `crowd` polls, `member` reads and writes, `witness` checks,
//! `verdict` sums up.

mod connect;
mod crowd;
mod floor;
mod frame;
mod histogram;
mod load;
mod machine;
mod member;
mod report;
mod self_test;
mod server;
mod verdict;
mod witness;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::Pid;

use crate::floor::Floor;
use crate::load::{Outcome, Spans};
use crate::machine::Cores;
use crate::report::Report;
use crate::server::Server;

/// Measures a chat server under several loads, and the floor that the kernel sets.
#[derive(Parser)]
#[command(name = "cargo bench --")]
struct Flags {
    /// Only these loads.
    #[arg(long, value_delimiter = ',', value_parser = ["sat", "rate", "rooms", "big", "idle", "echo", "ack", "file", "connect"])]
    only: Vec<String>,
    /// How long each load is measured, after a second of warm-up.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Connections of the idle load, in tens.
    #[arg(long, default_value = "8000", value_parser = clap::value_parser!(u32).range(10..=65_000))]
    connections: u32,
    /// The server's program.
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_adda"))]
    server: PathBuf,
    /// More arguments for it, separated by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    server_args: String,
    /// A server that runs already, instead of one of our own for each load. It should not limit rates, nor ping
    /// within a load.
    #[arg(long, value_name = "ADDR")]
    keep_server: Option<SocketAddr>,
    /// Its process, for the figures of processor time and memory.
    #[arg(long, requires = "keep_server", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Writes the figures there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measures nothing: plays faulty streams to the checker, each of which it must find.
    #[arg(long)]
    self_test: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = if flags.self_test { self_test::run().map(|()| true) } else { run(&flags) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: not everybody got all, once, in order");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything; `true` if no fault was found.
fn run(flags: &Flags) -> io::Result<bool> {
    machine::raise_file_limit()?;
    let cores = Cores::choose()?;
    machine::pin(cores.generator)?;

    let floor_before = Floor::measure(cores)?;
    let mut outcomes = Vec::new();
    for load in load::all(flags.connections as usize) {
        if flags.only.is_empty() || flags.only.iter().any(|name| name == load.name) {
            eprintln!("{} ...", load.name);
            outcomes.push(flags.run_load(&load, cores)?);
        }
    }
    let report =
        Report { cores, server: flags.describe(cores), floor_before, floor_after: Floor::measure(cores)?, outcomes };

    report.print(&mut io::stdout().lock())?;
    if let Some(path) = &flags.json {
        fs::write(path, format!("{:#}\n", report.json()))?;
    }
    Ok(report.is_clean())
}

impl Flags {
    /// Each load gets a new server, so that no load sees the memory of another.
    fn run_load(&self, load: &load::Load, cores: Cores) -> io::Result<Outcome> {
        let directory = load.is_on_disk.then(tempfile::tempdir).transpose()?;
        let data = directory.as_ref().map(|directory| directory.path().join("adda.db"));
        let server = match self.keep_server {
            Some(address) => Server::running(address, self.pid.and_then(Pid::from_raw)),
            None => Server::start(&self.server, &self.arguments(data.as_deref()), cores)?,
        };
        let spans = Spans { warm_up: Duration::from_secs(1), measured: Duration::from_secs(self.seconds.into()) };
        let failed = |error| io::Error::other(format!("{}: {error}", load.name));
        load.run(&server, spans).map_err(failed)
    }

    /// A member that only counts can't answer a ping, nor tell it from a message. So pings are off within a load.
    fn arguments(&self, data: Option<&Path>) -> Vec<String> {
        let mut ours = vec!["--ping-interval".to_owned(), "3600s".to_owned()];
        if let Some(data) = data {
            ours.extend(["--data".into(), data.display().to_string(), "--durability".into(), "full".into()]);
        }
        ours.into_iter().chain(self.server_args.split_whitespace().map(str::to_owned)).collect()
    }

    fn describe(&self, cores: Cores) -> String {
        let Cores { server, generator } = cores;
        match self.keep_server {
            Some(address) => format!("server {address} as it was started, generator on core {generator}"),
            None => format!(
                "{} {} on core {server}, generator on core {generator}",
                self.server.display(),
                self.server_args
            ),
        }
    }
}
