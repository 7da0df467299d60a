//! The floor: the kernel's own cost of sending one ready frame to each of a hundred loopback sockets. A server with one
//! `send` per delivery can't be cheaper.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags, send};
use rustix::time::{ClockId, clock_gettime};

use crate::machine::{self, Cores};
use crate::member::receive;

const SOCKETS: usize = 100;
/// About the size of a text frame of the loads.
const FRAME_BYTES: usize = 290;
const RUN: Duration = Duration::from_millis(400);
/// The number of quiet runs of each kind, and the number of attempts to get them.
const RUNS: usize = 5;
const RUNS_MAX: usize = 15;
/// The share of the two cores that other processes may use in a quiet run; `/proc/stat` is not exact.
const OTHERS_MAX: f64 = 0.1;
const ROUND: Duration = Duration::from_millis(5);

/// Several short runs of each kind.
pub struct Floor {
    hot: Vec<Send>,
    paced: Vec<Send>,
}

/// The cost of one send, as the average of a run.
#[derive(Clone, Copy)]
struct Send {
    wall_ns: f64,
    cpu_ns: f64,
    /// The share of the two cores that other processes used. A reader that does not get its core is not woken, which
    /// makes sends cheaper; a sender that does not get its core makes them more expensive.
    others: f64,
}

impl Floor {
    /// Measures the floor, with the sender on the server's core and the reader on the generator's.
    pub fn measure(cores: Cores) -> io::Result<Self> {
        Ok(Self { hot: quietest(|| run(cores, None))?, paced: quietest(|| run(cores, Some(ROUND)))? })
    }

    /// The runs of both measurements.
    pub fn and(&self, other: &Self) -> Self {
        Self { hot: [&self.hot[..], &other.hot].concat(), paced: [&self.paced[..], &other.paced].concat() }
    }

    /// Time per send at full speed.
    pub fn hot_us(&self) -> f64 {
        median_us(self.hot.iter().map(|send| send.wall_ns))
    }

    /// Processor time per send at full speed: the same without the share of other processes.
    pub fn hot_cpu_us(&self) -> f64 {
        median_us(self.hot.iter().map(|send| send.cpu_ns))
    }

    /// The share of other processes in the worst of the runs, if it is high enough to spoil the measurement.
    pub fn others(&self) -> Option<f64> {
        let shares = self.hot.iter().chain(&self.paced).map(|send| send.others);
        Some(shares.fold(0.0, f64::max)).filter(|others| *others >= OTHERS_MAX)
    }

    /// Processor time per send at 200 rounds per second.
    pub fn paced_us(&self) -> f64 {
        median_us(self.paced.iter().map(|send| send.cpu_ns))
    }
}

/// Repeats a run until enough runs were quiet, and returns the quietest.
fn quietest(run: impl Fn() -> io::Result<Send>) -> io::Result<Vec<Send>> {
    let mut runs: Vec<Send> = Vec::new();
    let quiet = |runs: &[Send]| runs.iter().filter(|send| send.others < OTHERS_MAX).count();
    while quiet(&runs) < RUNS && runs.len() < RUNS_MAX {
        runs.push(run()?);
    }
    runs.sort_by(|a, b| a.others.total_cmp(&b.others));
    runs.truncate(RUNS);
    Ok(runs)
}

fn median_us(runs_ns: impl Iterator<Item = f64>) -> f64 {
    let mut runs: Vec<f64> = runs_ns.map(|ns| ns / 1e3).collect();
    runs.sort_by(f64::total_cmp);
    let middle = runs.len() / 2;
    if runs.len() % 2 == 1 { runs[middle] } else { (runs[middle - 1] + runs[middle]) / 2.0 }
}

/// One run, at full speed or with one round per interval.
fn run(cores: Cores, round: Option<Duration>) -> io::Result<Send> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut senders = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..SOCKETS {
        let reader = TcpStream::connect(listener.local_addr()?)?;
        reader.set_nonblocking(true)?;
        readers.push(reader);
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        senders.push(sender);
    }
    let before = others_ns(cores)?;
    let mut send = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            machine::pin(cores.server)?;
            send_rounds(&senders, round)
        });
        drain(&readers)?;
        sender.join().unwrap_or_else(|_| Err(io::Error::other("the floor's sender panicked")))
    })?;
    send.others = (others_ns(cores)? - before) / RUN.as_nanos() as f64;
    Ok(send)
}

/// How long the two cores have been busy for other processes.
fn others_ns(cores: Cores) -> io::Result<f64> {
    let mut busy_ns = machine::core_busy_ns(cores.server)?;
    if !cores.are_shared() {
        busy_ns += machine::core_busy_ns(cores.generator)?;
    }
    Ok(busy_ns as f64 - machine::own_cpu_ns() as f64)
}

fn send_rounds(sockets: &[TcpStream], round: Option<Duration>) -> io::Result<Send> {
    let frame = [b'x'; FRAME_BYTES];
    let (wall, cpu_ns) = (Instant::now(), thread_cpu_ns());
    let mut rounds = 0;
    while wall.elapsed() < RUN {
        for socket in sockets {
            if send(socket, &frame, SendFlags::NOSIGNAL)? != frame.len() {
                return Err(io::Error::other("the floor's reader fell behind"));
            }
        }
        rounds += 1;
        if let Some(round) = round {
            thread::sleep((round * rounds).saturating_sub(wall.elapsed()));
        }
    }
    let per_send = |ns: u64| ns as f64 / f64::from(rounds) / sockets.len() as f64;
    Ok(Send {
        wall_ns: per_send(wall.elapsed().as_nanos() as u64),
        cpu_ns: per_send(thread_cpu_ns() - cpu_ns),
        others: 0.0,
    })
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec) as u64
}

/// Reads and discards everything until the sender has ended, as the generator does for members that it only counts.
fn drain(sockets: &[TcpStream]) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (at, socket) in sockets.iter().enumerate() {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&epoll, socket, epoll::EventData::new_u64(at as u64), flags)?;
    }
    let mut buffer = vec![0; 1024 * 1024];
    let mut events = Vec::with_capacity(sockets.len());
    let mut open = sockets.len();
    while open > 0 {
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let (data, flags) = (event.data, event.flags);
            let socket = &sockets[data.u64() as usize];
            let ended = receive(socket, &mut buffer, RecvFlags::TRUNC).is_err();
            if ended || flags.contains(epoll::EventFlags::RDHUP) {
                epoll::delete(&epoll, socket)?;
                open -= 1;
            }
        }
    }
    Ok(())
}
