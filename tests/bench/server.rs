//! The server under load: started on its own core, or a server that is running already.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{self, Cores};

/// How long the server may take to stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A server that accepts connections. A server that was started here is stopped on drop.
pub struct Server {
    pub address: SocketAddr,
    /// The process id, if known. Without it there are no figures of processor time and memory.
    pub pid: Option<Pid>,
    /// The core of the server, if it has its own.
    pub cores: Option<Cores>,
    started: Option<(Child, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts a server, and waits until it accepts connections.
    ///
    /// # Errors
    /// If the server does not print that it listens.
    pub fn start(program: &Path, arguments: &[String], cores: Cores) -> io::Result<Self> {
        // The child inherits the core of the thread that starts it.
        machine::pin(cores.server)?;
        let child = Command::new(program)
            // In memory, unless `--server-args '--data FILE'` says otherwise.
            .env("ADDA_DATA", ":memory:")
            .args(["--listen", "127.0.0.1:0", "--rate", "0", "--log", "warn"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("failed to start `{}`: {error}", program.display())));
        machine::pin(cores.generator)?;
        let mut child = child?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut server = Self {
            address: SocketAddr::from(([0; 4], 0)),
            pid,
            cores: Some(cores).filter(|cores| !cores.are_shared()),
            // The pipe stays open, so that the server can go on writing.
            started: Some((child, BufReader::new(output))),
        };
        let mut line = String::new();
        if let Some((_, output)) = &mut server.started {
            output.read_line(&mut line)?;
        }
        let address = line.trim_end().strip_prefix("listening on http://");
        server.address = address.and_then(|address| address.parse().ok()).ok_or_else(|| {
            io::Error::other(format!("`{}` said {line:?} where `listening on …` was due", program.display()))
        })?;
        Ok(server)
    }

    /// A server that is running already.
    pub fn running(address: SocketAddr, pid: Option<Pid>) -> Self {
        Self { address, pid, cores: None, started: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some((child, _)) = &mut self.started else { return };
        let asked = self.pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let deadline = Instant::now() + STOP_WAIT;
        while asked && Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("the server did not stop; it is killed");
        let _ = child.kill();
        let _ = child.wait();
    }
}
