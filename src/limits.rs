//! Every bound on what comes from outside, in one place, with the relations between them.
//!
//! A constant is a bound that nobody needs to change. [`Limits`] holds those that a flag or a test sets;
//! it is copied into each part at the start, so no part reads a global.

use std::time::Duration;

/// Bytes of a request head, from the request line to the empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a body that is kept in memory (JSON).
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a WebSocket frame's payload, and of a whole message however it is cut up.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What a session reads into when it has waited, and keeps for as long as it lives.
pub const READ_BUFFER_BYTES: usize = 512;
/// What it reads at once where there is more than that.
pub const READ_AHEAD_BYTES: usize = 4 * 1024;

/// Characters of a room's id.
pub const ROOM_CHARS_MAX: usize = 64;
/// Characters of a username.
pub const USERNAME_CHARS_MAX: usize = 32;
/// Characters of a nonce.
pub const NONCE_CHARS_MAX: usize = 64;

/// Characters of what a room is called, where not by its id.
pub const ROOM_NAME_CHARS_MAX: usize = 64;
/// Characters of what it is about.
pub const TOPIC_CHARS_MAX: usize = 256;
/// Seconds of slow mode: an hour.
pub const SLOW_MODE_S_MAX: u32 = 3_600;
/// Characters of what a session is known by, and of why somebody is banned.
pub const LABEL_CHARS_MAX: usize = 128;
/// Logins of one account that last at once; a new one ends the oldest.
pub const LOGINS_PER_USER_MAX: usize = 50;
/// Times that an invitation can be used.
pub const INVITATION_USES_MAX: u32 = 1_000;
/// Days that it can be used for.
pub const INVITATION_DAYS_MAX: u32 = 365;

/// Bytes of the latest frames of a room that the hub has at hand.
pub const RING_BYTES_MAX: usize = 256 * 1024;
/// Bytes of them over all rooms; past it every room's older half goes.
pub const RINGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages that a join replays at most, and that a room has at hand.
pub const HISTORY_MAX: usize = 200;
/// Frames that are read of a room's past for its first member: its latest messages and the events between them.
pub const PAST_FRAMES_MAX: usize = 5 * HISTORY_MAX;
/// Events that `:memory:` keeps of a room between its messages; beyond that its oldest messages go, too.
pub const EVENTS_KEPT_MAX: usize = 5_000;
/// Bytes of a replay that are sent at once; a longer one is paged as its reader takes it.
pub const REPLAY_AT_ONCE_BYTES: usize = 32 * 1024;
/// Stored frames that are read at once for somebody who catches up.
pub const PAGE_FRAMES_MAX: usize = 500;
/// Bytes of them, about.
pub const PAGE_BYTES_MAX: usize = 32 * 1024;
/// Comings and goings in a room that are remembered for the members that catch up.
pub const MISSED_MAX: usize = 1_000;
// A page must fit the smallest outbox beside what waits there already.
const _: () = assert!(REPLAY_AT_ONCE_BYTES <= MESSAGE_BYTES_MAX / 2 && PAGE_BYTES_MAX <= MESSAGE_BYTES_MAX / 2);
/// Members that a `welcome` and a room's listing name; beyond it only their count is given.
pub const MEMBERS_LISTED_MAX: usize = 200;
/// People in a room up to which it is told of each one that comes or goes; above it one `presence` frame tells of all.
pub const PRESENCE_PEOPLE_MAX: usize = 200;
/// From the first change in such a room to the frame that tells of it, and so from one frame to the next at least.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// People that each list of a `presence` frame names.
pub const PRESENCE_NAMES_MAX: usize = 20;
/// Names that the members of a room are sent with one `presence` frame, over all members: a list names fewer people in
/// a room of thousands, where each name is sent thousands of times.
pub const PRESENCE_NAMES_PER_INTERVAL_MAX: usize = 20_000;
// Up to there every `welcome` names everybody, so that a client's list is whole.
const _: () = assert!(PRESENCE_PEOPLE_MAX <= MEMBERS_LISTED_MAX);
const _: () = assert!(PRESENCE_NAMES_MAX * PRESENCE_PEOPLE_MAX <= PRESENCE_NAMES_PER_INTERVAL_MAX);
/// Messages in one page of a room's history, where nothing else is asked for.
pub const MESSAGES_LISTED: usize = 50;
/// Messages in one page at most.
pub const MESSAGES_LISTED_MAX: usize = 200;
/// Rooms in one page of the listing.
pub const ROOMS_LISTED_MAX: usize = 200;
/// Rooms that one connection is in at once.
pub const ROOMS_PER_CONNECTION_MAX: usize = 50;

/// Stack of a connection's thread.
pub const STACK_BYTES: usize = 128 * 1024;
/// Stack of the threads that have the database.
pub const STORE_STACK_BYTES: usize = 512 * 1024;
/// Rooms whose row the store remembers.
pub const ROOMS_CACHED_MAX: usize = 10_000;
/// Bytes of the WAL, where no long reader holds it up; checkpoints keep it at about half of that.
pub const WAL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Uses of sessions that wait to be written.
pub const USES_PENDING_MAX: usize = 10_000;
/// Guests who are known to be stored, so that it is not asked again for each message.
pub const STORED_GUESTS_CACHED_MAX: usize = 100_000;
/// Messages that are deleted at once when a room's order is forgotten.
pub const FORGOTTEN_AT_ONCE: usize = 500;
/// The least that `--max-data` may say: room for the WAL and a day's guests.
pub const DATA_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Requests that are with `tiny_http` at once; others wait for their turn.
pub const RELAYS_MAX: usize = 24;
/// Bodies that are held in memory at once: 16 MiB of them.
pub const BODIES_MAX: usize = 256;
/// How long a request waits for its turn before it is refused.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
/// Refused connections that are kept until they have read why.
pub const REFUSED_MAX: usize = 32;

/// Descriptors that are not a connection's own: the standard three, listeners, `REFUSED_MAX`, and for each of
/// `RELAYS_MAX` ours and `tiny_http`'s two of its private connection.
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// Memory maps that are not a connection's: the binary, its libraries, the heap, the other threads.
pub const MAPS_RESERVED: u64 = 4_000;
/// Memory maps of a thread: stack, its guard, the signal stack, its guard; and one for the heap's growth.
pub const MAPS_PER_THREAD: u64 = 5;

const _: () = assert!((3 * RELAYS_MAX + REFUSED_MAX + CONTROL_CLIENTS_MAX + 2) as u64 + 16 <= DESCRIPTORS_RESERVED);
const _: () = assert!(HEAD_BYTES_MAX <= STACK_BYTES / 4);
const _: () = assert!(READ_BUFFER_BYTES <= READ_AHEAD_BYTES && READ_AHEAD_BYTES <= MESSAGE_BYTES_MAX);

/// Commands that wait for the hub. Each carries at most `FRAMES_PER_COMMAND_MAX` frames and about
/// `MESSAGE_BYTES_MAX` of text, twice that at the worst, so this queue holds 32 MiB; a session that finds it full waits,
/// and its socket pushes back on its client.
pub const COMMANDS_QUEUED_MAX: usize = 256;
/// Frames that a session hands over at once, when its socket had several.
pub const FRAMES_PER_COMMAND_MAX: usize = 64;
/// Entries that wait for the store before the hub stops taking commands.
pub const PROPOSALS_PENDING_MAX: usize = 4_096;

/// Entries of one batch that can have a frame id: 20 bits of the id count them. An announcement takes one for each room.
pub const PLACES_PER_BATCH_MAX: u32 = 1 << 20;
const _: () = assert!(PROPOSALS_PENDING_MAX < PLACES_PER_BATCH_MAX as usize);
/// Batch numbers that a log skips when it is opened again, so that a batch that a power cut took back shares no frame id
/// with a later one. 42 bits of an id hold the number: enough for four million starts.
pub const BATCH_NUMBERS_SKIPPED: u64 = 1 << 20;
/// How often the position of the log is stored while messages tell the time. There are never as many batches in that time as
/// [`BATCH_NUMBERS_SKIPPED`]: that would be one a microsecond.
pub const POSITION_EVERY: Duration = Duration::from_secs(1);
const _: () = assert!(POSITION_EVERY.as_micros() < BATCH_NUMBERS_SKIPPED as u128);
/// How long the wall clock must go as the monotonic clock does before it is trusted.
pub const CLOCK_STEADY_WAIT: Duration = Duration::from_secs(3_600);
/// How far the two may drift apart within that time; more is a jump.
pub const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(2);
/// 2025-01-01. A wall clock before it was never set: this code is younger.
pub const WALL_MS_MIN: u64 = 1_735_689_600_000;

/// Bytes that wait in the channel of a member whose frames are read by a thread, as the system's buffer holds them for a
/// socket. It must last for the time between two tries of the hub, 2 ms: 16 MB/s. A longer chunk goes alone.
pub const CHANNEL_BYTES_MAX: usize = 32 * 1024;
/// Chunks in it, as small ones weigh more than their bytes.
pub const CHANNEL_CHUNKS_MAX: usize = 256;
// A page of history is one chunk.
const _: () = assert!(PAGE_BYTES_MAX <= CHANNEL_BYTES_MAX);
/// The longest time between two keep-alives of a one-way stream. Proxies cut what is silent for 30 s or more.
pub const STREAM_KEEP_ALIVE_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// Commands that the hub takes before it sends what they made.
pub const COMMANDS_PER_ROUND_MAX: usize = 256;
/// Bytes of a room's batch after which it is sent without waiting for the end of the round.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Bytes of memory that a room keeps for its next batch.
pub const BATCH_BYTES_KEPT: usize = 64 * 1024;

/// All the outboxes together; past it the fullest is a slow consumer.
pub const OUTBOXES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of stored frames that `:memory:` keeps, over all rooms; the oldest go first.
pub const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Guests that `:memory:` knows again.
pub const GUESTS_KEPT_MAX: usize = 50_000;

/// Connections that wait to be authenticated; beyond that their threads wait for a place.
pub const AUTHENTICATIONS_WAITING_MAX: usize = 256;
/// How long that may take in all.
pub const AUTHENTICATION_WAIT: Duration = Duration::from_secs(5);
/// How long a change may take before its proposer is told that the outcome is not known.
pub const CHANGE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a request at the control socket, with the end of its line: an import of accounts is made of many.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer there; longer lists are paged.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Clients of the control socket that are served at once.
pub const CONTROL_CLIENTS_MAX: usize = 4;
/// Further ones that the system holds for us.
pub const CONTROL_BACKLOG: i32 = 64;
/// How long each read and each write there may take: a request, an answer.
pub const CONTROL_IO_WAIT: Duration = Duration::from_secs(5);
/// How long a command waits for its answer: for a place that stalled clients hold, then for the store.
pub const CONTROL_ANSWER_WAIT: Duration = Duration::from_secs(20);
const _: () = assert!(CONTROL_ANSWER_WAIT.as_millis() > 2 * CONTROL_IO_WAIT.as_millis() + CHANGE_WAIT.as_millis());
/// How long the hub takes to answer a question of REST before it is called busy.
pub const HUB_ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a connection that was told its close code may take to go.
pub const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// The same for a slow consumer, which has much to read before it.
pub const SLOW_CLOSE_WAIT: Duration = Duration::from_secs(30);
/// How long a stop may take, from the signal to the end of the process.
pub const STOP_WAIT: Duration = Duration::from_secs(4);
/// How much of it requests over HTTP have that were on their way.
pub const REQUESTS_STOP_WAIT: Duration = Duration::from_millis(500);
const _: () = assert!(CLOSE_WAIT.as_millis() < STOP_WAIT.as_millis());

/// The most that `--lease` may say: a place that is kept is one more member to count.
pub const LEASE_MAX: Duration = Duration::from_secs(300);
/// Addresses and users whose rate is remembered though nobody of them is here.
pub const RATES_KEPT_MAX: usize = 10_000;
/// How many must be remembered before it is looked who can be forgotten.
pub const PACES_SWEPT_AT_MIN: usize = 1_000;
/// How many users' messages may come from one address: a school has one, and so has a household.
pub const USERS_PER_ADDRESS: u32 = 20;

/// Refused frames, one forgiven each second, after which a connection is closed for abuse (1008).
pub const STRIKES_MAX: u32 = 200;

/// The bounds that a flag sets, or that a test shrinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// From accepting a connection to the end of its request's head.
    pub head_deadline: Duration,
    /// From the end of the head to the end of the body.
    pub body_deadline: Duration,
    /// How long a reader of an answer may take nothing of it.
    pub write_stall: Duration,
    /// Bytes of a message's content (`--max-content`).
    pub content_bytes_max: usize,
    /// Messages that a join replays when it does not say (`--history`).
    pub history_default: usize,
    /// Bytes that wait for one member (`--outbox-bytes`).
    pub outbox_bytes_max: usize,
    /// How long a member's socket may take nothing while something waits for it.
    pub outbox_stall: Duration,
    /// How long a connection that was lost keeps its place; 0 for not at all (`--lease`).
    pub lease: Duration,
    /// People in a room up to which it is told of each one that comes or goes.
    pub presence_people_max: usize,
    /// From one ping to the next (`--ping-interval`).
    pub ping_interval: Duration,
    /// Messages a second that a user may send; 0 for no limit (`--rate`).
    pub rate_per_s: u32,
    /// Messages that they may send at once after a pause (`--burst`).
    pub rate_burst: u32,
    /// WebSockets a second that an address may open; 0 for no limit.
    pub handshakes_per_s: u32,
    /// WebSockets that it may open at once after a pause: a school behind one address comes in together.
    pub handshakes_burst: u32,
}

impl Limits {
    /// How long a connection may send nothing, or take over one message: a ping and more than another
    /// interval for its answer (25 s make 60 s).
    #[must_use]
    pub fn read_deadline(&self) -> Duration {
        self.ping_interval * 12 / 5
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(30),
            write_stall: Duration::from_secs(10),
            content_bytes_max: 8 * 1024,
            history_default: 5,
            outbox_bytes_max: 1024 * 1024,
            outbox_stall: Duration::from_secs(10),
            lease: Duration::from_secs(10),
            presence_people_max: PRESENCE_PEOPLE_MAX,
            ping_interval: Duration::from_secs(25),
            rate_per_s: 10,
            rate_burst: 30,
            handshakes_per_s: 20,
            handshakes_burst: 300,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_client_always_answers_a_ping_in_time() {
        for seconds in [1, 25, 300] {
            let limits = Limits { ping_interval: Duration::from_secs(seconds), ..Limits::default() };
            assert!(limits.ping_interval * 2 < limits.read_deadline());
        }
        assert_eq!(Limits::default().read_deadline(), Duration::from_secs(60));
    }
}
