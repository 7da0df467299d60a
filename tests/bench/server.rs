//! The server under load: started on a core of its own, or one that runs already.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{self, Cores};

/// How long it may take to stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A server that accepts connections. One that we started ends with this.
pub struct Server {
    pub address: SocketAddr,
    /// Where known: without it there are no figures of processor time and memory.
    pub pid: Option<Pid>,
    /// Where it has a core for itself.
    pub cores: Option<Cores>,
    started: Option<(Child, BufReader<ChildStdout>)>,
}

impl Server {
    /// Starts one, and waits until it accepts.
    ///
    /// # Errors
    /// Where it does not say that it listens.
    pub fn start(program: &Path, arguments: &[String], cores: Cores) -> io::Result<Self> {
        // The child inherits the core of the thread that starts it.
        machine::pin(cores.server)?;
        let child = Command::new(program)
            // In memory, where nothing else is asked for by `--server-args '--data FILE'`.
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
            // Its end of the pipe stays open, so that it can go on writing.
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

    /// One that runs already.
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
