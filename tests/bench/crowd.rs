//! All members of a load. One thread reads and writes for all of them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::member::{Member, Pace, Sender, Sightings, interval_ns};
use crate::verdict::Verdict;
use crate::witness::Witness;

/// Maximum bytes of one read. Frames of watched members are parsed in this buffer; bytes of the others are never copied
/// there.
const BUFFER_BYTES: usize = 1024 * 1024;
const EVENTS: usize = 1024;
/// How long no data may arrive before a wait is given up.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long no data arrives until no more is expected.
const QUIET: Duration = Duration::from_millis(200);

/// The number of rooms, of members in each, and of senders among these. The members of a room are adjacent: first its
/// senders, then the other watched members.
#[derive(Clone, Copy)]
pub struct Layout {
    pub rooms: usize,
    pub members_per_room: usize,
    pub senders_per_room: usize,
}

/// Watched members in a room that do not send, in one room out of `WATCHED_ROOM_EVERY`.
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

    /// The number in the messages of the sender at that place in the member's room.
    fn sender(&self, member: usize, place: usize) -> u16 {
        (self.room(member) * self.senders_per_room + place) as u16
    }

    fn watches(&self, member: usize) -> bool {
        let others = if self.room(member).is_multiple_of(WATCHED_ROOM_EVERY) { WATCHED_PER_ROOM } else { 0 };
        self.place(member) < self.senders_per_room + others
    }

    /// The index of the first member of each room.
    fn room_starts(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.members()).step_by(self.members_per_room)
    }

    /// The indices of the senders, room by room.
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
    /// The pace of the senders; `None` while they do not send.
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

    /// Adds the next member. Rooms are filled one after another, each with its senders first.
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

    /// Joins all members, and waits until each room is settled. When all members of a room are in, the first one sends
    /// a marker; what follows the marker is the same for all members. A complete handshake is not enough for that: a
    /// member is in the room when it has its `welcome`.
    ///
    /// # Errors
    /// If a connection is refused, or a member does not receive the marker of its room.
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

    /// Reads while a long step is in progress. All members receive each other's joins then, and none may become a slow
    /// consumer.
    fn keep_up(&mut self, at: usize) -> io::Result<()> {
        if at.is_multiple_of(16) {
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Pings from all members; returns how many got a pong.
    pub fn ping(&mut self) -> io::Result<usize> {
        for at in 0..self.members.len() {
            self.members[at].send_ping();
            self.keep_up(at)?;
        }
        let all = self.members.len();
        self.turn_until(PATIENCE, |crowd| crowd.sightings.pongs >= all)?;
        Ok(self.sightings.pongs)
    }

    /// Nanoseconds since the start of the load, the time base of the stamps in messages.
    pub fn now_ns(&self) -> u64 {
        nanos(self.begun)
    }

    /// From now on, members that are not watched only count their bytes.
    pub fn count_unwatched(&mut self) {
        for member in &mut self.members {
            member.counted = member.witness.is_none();
        }
    }

    /// Starts the senders. With a rate, their messages are spread over the interval, so that 200 messages per second
    /// are 200 rounds per second, as in the floor.
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

    /// Stops the senders.
    pub fn hush(&mut self) {
        self.pace = None;
    }

    /// Waits until all members have received all messages, and returns the verdict. If no data arrives any more,
    /// missing messages are lost.
    pub fn settle(&mut self, patience: Duration) -> io::Result<Verdict> {
        self.turn_until(patience, |crowd| crowd.verdict().losses == 0)?;
        // Unexpected messages may arrive late.
        self.turn_until(QUIET, |_| false)?;
        Ok(self.verdict())
    }

    /// Runs the load until a time.
    pub fn run_until(&mut self, end_ns: u64) -> io::Result<()> {
        while let Some(left_ns) = end_ns.checked_sub(self.now_ns()) {
            self.turn(Duration::from_nanos(left_ns))?;
        }
        Ok(())
    }

    /// Reads until the condition holds; `false` if no data arrived for `patience`.
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

    /// Waits for sockets, at most for `wait`, and serves them; `false` if none was ready.
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

    /// Sends what each sender has due, and returns the time of the next message.
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
