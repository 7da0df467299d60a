//! All members of a load, and the one thread that reads and writes for them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::member::{Member, Pace, Sender, Sightings, interval_ns};
use crate::verdict::Verdict;
use crate::witness::Witness;

/// What is read at once, at most. Watched members' frames are parsed in it; of the others nothing is ever put there.
const BUFFER_BYTES: usize = 1024 * 1024;
const EVENTS: usize = 1024;
/// How long nothing may come before what is awaited is given up.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing comes after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(200);

/// How many rooms of how many members, and how many of these do what. A room's members stand side by side: its
/// senders first, then the other watched ones.
#[derive(Clone, Copy)]
pub struct Layout {
    pub rooms: usize,
    pub members_per_room: usize,
    pub senders_per_room: usize,
}

/// Of the members that don't send, so many are watched, in one room out of so many.
const WATCHED_PER_ROOM: usize = 3;
const WATCHED_ROOM_EVERY: usize = 10;

impl Layout {
    pub fn members(&self) -> usize {
        self.rooms * self.members_per_room
    }

    fn room(&self, member: usize) -> usize {
        member / self.members_per_room
    }

    fn place(&self, member: usize) -> usize {
        member % self.members_per_room
    }

    /// What the sender at that place of the member's room is called in its messages.
    fn sender(&self, member: usize, place: usize) -> u16 {
        (self.room(member) * self.senders_per_room + place) as u16
    }

    fn watches(&self, member: usize) -> bool {
        let others = if self.room(member).is_multiple_of(WATCHED_ROOM_EVERY) { WATCHED_PER_ROOM } else { 0 };
        self.place(member) < self.senders_per_room + others
    }

    /// The first member of each room.
    fn room_starts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.members()).step_by(self.members_per_room)
    }

    /// Who sends, room by room.
    fn senders(&self) -> impl Iterator<Item = usize> + use<> {
        let senders_per_room = self.senders_per_room;
        self.room_starts().flat_map(move |start| start..start + senders_per_room)
    }
}

/// All members of a load.
pub struct Crowd {
    layout: Layout,
    epoll: OwnedFd,
    members: Vec<Member>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    begun: Instant,
    /// How the senders go about it; nothing while they are silent.
    pace: Option<Pace>,
    pub sightings: Sightings,
}

impl Crowd {
    pub fn new(layout: Layout) -> io::Result<Self> {
        Ok(Self {
            layout,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            members: Vec::with_capacity(layout.members()),
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; BUFFER_BYTES],
            begun: Instant::now(),
            pace: None,
            sightings: Sightings::new(),
        })
    }

    /// Adds the next member: the first room is filled first, each with its senders first.
    pub fn add(&mut self, mut member: Member) -> io::Result<()> {
        let at = self.members.len();
        if self.layout.watches(at) {
            member.witness = Some(Witness::new(self.layout.sender(at, 0), self.layout.senders_per_room));
        }
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        epoll::add(&self.epoll, member.socket(), epoll::EventData::new_u64(at as u64), flags)?;
        self.members.push(member);
        Ok(())
    }

    /// Joins everybody, and waits until each room is settled: its first member says a marker when all are in, and
    /// what follows the marker is the same for everyone. A handshake that is done is not enough for that: whoever is in
    /// has been welcomed.
    ///
    /// # Errors
    /// Where somebody is not let in, or the marker does not come to all of its room.
    pub fn join(&mut self, address: SocketAddr, rooms_prefix: &str) -> io::Result<()> {
        for at in 0..self.layout.members() {
            let room = format!("{rooms_prefix}-{:04}", self.layout.room(at));
            let username = format!("member-{:04}", self.layout.place(at));
            let member = Member::join(address, &room, &username)
                .map_err(|error| io::Error::other(format!("member {at}: {error}")))?;
            self.add(member)?;
            self.keep_up(at)?;
        }
        let all = self.members.len();
        if !self.turn_until(PATIENCE, |crowd| crowd.sightings.welcomed == all)? {
            let welcomed = self.sightings.welcomed;
            return Err(io::Error::other(format!("{welcomed} of {all} members were welcomed")));
        }
        for at in self.layout.room_starts() {
            self.members[at].send_marker(self.layout.sender(at, 0));
            self.keep_up(at)?;
        }
        if self.turn_until(PATIENCE, |crowd| crowd.sightings.settled == all)? {
            return Ok(());
        }
        let settled = self.sightings.settled;
        let example = self.verdict().example.unwrap_or_default();
        Err(io::Error::other(format!("{settled} of {all} members heard their room's marker. {example}")))
    }

    /// In the middle of something long: everybody hears of everybody else meanwhile, and nobody must become a
    /// slow consumer.
    fn keep_up(&mut self, at: usize) -> io::Result<()> {
        if at.is_multiple_of(16) {
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Everybody asks the server for a sign of life; says how many got it.
    pub fn ping(&mut self) -> io::Result<usize> {
        for at in 0..self.members.len() {
            self.members[at].send_ping();
            self.keep_up(at)?;
        }
        let all = self.members.len();
        self.turn_until(PATIENCE, |crowd| crowd.sightings.pongs >= all)?;
        Ok(self.sightings.pongs)
    }

    /// Nanoseconds since the load began: what messages are stamped with.
    pub fn now_ns(&self) -> u64 {
        nanos(self.begun)
    }

    /// Whoever is not watched is only counted from now on.
    pub fn count_unwatched(&mut self) {
        for member in &mut self.members {
            member.counted = member.witness.is_none();
        }
    }

    /// Lets the senders send. Those with a rate are spread over their interval, so that two hundred messages a
    /// second are two hundred rounds a second, as in the floor.
    pub fn speak(&mut self, pace: Pace) {
        let start_ns = self.now_ns();
        for at in self.layout.senders() {
            let place = self.layout.place(at);
            let offset_ns = match pace {
                Pace::Window(_) => 0,
                Pace::PerSecond(rate) => interval_ns(rate) * place as u64 / self.layout.senders_per_room as u64,
            };
            self.members[at].sender = Some(Sender::new(self.layout.sender(at, place), start_ns + offset_ns));
        }
        self.pace = Some(pace);
        self.send_due(pace);
    }

    /// Ends the sending.
    pub fn hush(&mut self) {
        self.pace = None;
    }

    /// Waits until everybody has received all that was sent, and judges; what has not come once nothing comes any
    /// more is lost.
    pub fn settle(&mut self, patience: Duration) -> io::Result<Verdict> {
        self.turn_until(patience, |crowd| crowd.verdict().losses == 0)?;
        // What should not come at all may come late.
        self.turn_until(QUIET, |_| false)?;
        Ok(self.verdict())
    }

    /// Runs the load until that moment.
    pub fn run_until(&mut self, end_ns: u64) -> io::Result<()> {
        while let Some(left_ns) = end_ns.checked_sub(self.now_ns()) {
            self.turn(Duration::from_nanos(left_ns))?;
        }
        Ok(())
    }

    /// Reads until it is so; `false` where nothing came for as long as `patience`.
    pub fn turn_until(&mut self, patience: Duration, so: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let mut heard = Instant::now();
        while !so(self) {
            if self.turn(Duration::from_millis(50))? {
                heard = Instant::now();
            } else if heard.elapsed() > patience {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for sockets, not longer than `wait`, and serves them; `false` where there were none.
    pub fn turn(&mut self, wait: Duration) -> io::Result<bool> {
        let wait = match self.pace {
            Some(pace @ Pace::PerSecond(_)) => {
                let due_ns = self.send_due(pace);
                wait.min(Duration::from_nanos(due_ns.saturating_sub(self.now_ns())))
            }
            _ => wait,
        };
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait))?;
        for event in &self.events {
            let (data, flags) = (event.data, event.flags);
            let member = &mut self.members[data.u64() as usize];
            if flags.contains(epoll::EventFlags::OUT) {
                member.flush();
            }
            let now_ns = if member.counted { 0 } else { nanos(self.begun) };
            member.read(&mut self.buffer, now_ns, &mut self.sightings);
            if flags.contains(epoll::EventFlags::RDHUP) {
                member.end("the server ended the connection");
            }
            if let (Some(pace @ Pace::Window(_)), Some(_)) = (self.pace, &member.sender) {
                member.send_due(pace, nanos(self.begun));
            }
        }
        Ok(!self.events.is_empty())
    }

    /// Lets every sender send what is due, and says when the next one is.
    fn send_due(&mut self, pace: Pace) -> u64 {
        let mut next_ns = u64::MAX;
        for at in self.layout.senders() {
            let member = &mut self.members[at];
            member.send_due(pace, nanos(self.begun));
            next_ns = member.sender.as_ref().map_or(next_ns, |sender| next_ns.min(sender.due_ns()));
        }
        next_ns
    }

    fn verdict(&self) -> Verdict {
        Verdict::of(self.members.chunks(self.layout.members_per_room), &self.sightings)
    }
}

fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}
