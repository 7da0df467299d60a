//! Every limit on input from outside, in one file, with the relations between the limits.
//!
//! A constant is a limit that need not be changed. [`Limits`] holds the limits that a flag or a test sets. It is copied
//! into each part at the start, so no part reads a global.

use std::time::Duration;

/// Bytes of a request head, from the request line to the empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request body (JSON), which is held in memory.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a WebSocket frame's payload, and of a whole message in any number of fragments.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the buffer that a session waits with, and keeps for its lifetime.
pub const READ_BUFFER_BYTES: usize = 512;
/// Bytes that a session reads at once if more than that have arrived.
pub const READ_AHEAD_BYTES: usize = 4 * 1024;

/// Characters of a room's id.
pub const ROOM_CHARS_MAX: usize = 64;
/// Characters of a username.
pub const USERNAME_CHARS_MAX: usize = 32;
/// How long a user keeps a name before it can choose another one while it is in a room, in milliseconds of log time.
pub const RENAME_INTERVAL_MS: u64 = 60_000;
/// Characters of a nonce.
pub const NONCE_CHARS_MAX: usize = 64;

/// Characters of a room's display name.
pub const ROOM_NAME_CHARS_MAX: usize = 64;
/// Characters of a room's topic.
pub const TOPIC_CHARS_MAX: usize = 256;
/// Maximum seconds of slow mode: an hour.
pub const SLOW_MODE_S_MAX: u32 = 3_600;
/// Characters of a session's label, and of the reason of a ban.
pub const LABEL_CHARS_MAX: usize = 128;
/// Login sessions of one account at once; a new one ends the oldest.
pub const LOGINS_PER_USER_MAX: usize = 50;
/// How many times an invitation can be used.
pub const INVITATION_USES_MAX: u32 = 1_000;
/// How many days an invitation is valid.
pub const INVITATION_DAYS_MAX: u32 = 365;
/// How long a setup link is valid, in milliseconds of log time: an hour.
pub const SETUP_SPAN_MS: u64 = 3_600_000;

/// How long an entry of the audit log is kept, in log time: 90 days.
pub const AUDIT_KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);
/// Entries of the audit log; beyond it, the oldest registrations are forgotten, and then the oldest entries of the user
/// with the most.
pub const AUDIT_ENTRIES_MAX: usize = 100_000;
/// When the audit log is full, the oldest registrations are removed until this number is left. A registration is the
/// only entry that a stranger without an invitation can cause, so strangers can't push out the other entries.
pub const AUDIT_REGISTRATIONS_KEPT: usize = AUDIT_ENTRIES_MAX / 10;
/// Entries in one page of the audit log.
pub const AUDIT_ENTRIES_LISTED_MAX: usize = 200;

/// Bytes of the latest frames of a room that the hub caches (its ring).
pub const RING_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the rings of all rooms; beyond it, every ring is halved.
pub const RINGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages that a join replays at most, and that the ring of a room holds.
pub const HISTORY_MAX: usize = 200;
/// Frames that are loaded of a room's past for its first member: its latest messages and the events between them.
pub const PAST_FRAMES_MAX: usize = 5 * HISTORY_MAX;
/// Events that `:memory:` keeps of a room; beyond it, the room's oldest frames are dropped, messages too.
pub const EVENTS_KEPT_MAX: usize = 5_000;
/// Bytes of a replay that are sent at once; a longer replay is sent in pages as its reader takes them.
pub const REPLAY_AT_ONCE_BYTES: usize = 32 * 1024;
/// Stored frames in one page for a member that catches up.
pub const PAGE_FRAMES_MAX: usize = 500;
/// Approximate bytes of such a page.
pub const PAGE_BYTES_MAX: usize = 32 * 1024;
/// Joins and leaves in a room that are remembered for the members that catch up.
pub const MISSED_MAX: usize = 1_000;
// A page must fit into the smallest outbox beside the bytes that wait there already.
const _: () = assert!(REPLAY_AT_ONCE_BYTES <= MESSAGE_BYTES_MAX / 2 && PAGE_BYTES_MAX <= MESSAGE_BYTES_MAX / 2);
/// Members that a `welcome` and a room listing name; with more, they give only the count.
pub const MEMBERS_LISTED_MAX: usize = 200;
/// Up to this number of people, each join and leave is announced in the room. With more, one `presence` frame announces
/// all.
pub const PRESENCE_PEOPLE_MAX: usize = 200;
/// Time from the first change in such a room to the frame that announces it. So it is also the minimum time between two
/// of these frames.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);
/// People that each list of a `presence` frame names.
pub const PRESENCE_NAMES_MAX: usize = 20;
/// Names in one `presence` frame, times the members that receive it. So in a room of thousands each list names fewer
/// people, as each name is sent thousands of times.
pub const PRESENCE_NAMES_PER_INTERVAL_MAX: usize = 20_000;
// Up to that size every `welcome` names all members, so that a client's list is complete.
const _: () = assert!(PRESENCE_PEOPLE_MAX <= MEMBERS_LISTED_MAX);
const _: () = assert!(PRESENCE_NAMES_MAX * PRESENCE_PEOPLE_MAX <= PRESENCE_NAMES_PER_INTERVAL_MAX);
/// Messages in one page of a room's history by default.
pub const MESSAGES_LISTED: usize = 50;
/// Maximum messages in one page of a room's history.
pub const MESSAGES_LISTED_MAX: usize = 200;
/// Distinct terms of a search.
pub const SEARCH_TERMS_MAX: usize = 16;
/// How long a search may take. Then it answers with what it has found, and the client goes on from there.
pub const SEARCH_TIME: Duration = Duration::from_millis(200);
/// Searches that wait for the thread that searches; a further one is refused.
pub const SEARCHES_WAITING_MAX: usize = 8;
/// How long a search may wait for the thread before it is refused.
pub const SEARCH_WAIT: Duration = Duration::from_secs(5);
/// Frames that a reader of `:memory:` copies while it holds the lock that the store needs, too.
pub const MEMORY_FRAMES_AT_ONCE: usize = 200;
/// Rooms in one page of the room listing.
pub const ROOMS_LISTED_MAX: usize = 200;
/// Rooms that one connection may be in at once.
pub const ROOMS_PER_CONNECTION_MAX: usize = 50;

/// Bytes of stack of a connection's thread.
pub const STACK_BYTES: usize = 128 * 1024;
/// Bytes of stack of threads that use the database.
pub const STORE_STACK_BYTES: usize = 512 * 1024;
/// Rooms whose database row the store caches.
pub const ROOMS_CACHED_MAX: usize = 10_000;
/// Bytes of the WAL while no long read delays checkpoints; they keep it at about half of that.
pub const WAL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of the file that holds space for a full disk. It is smaller on a small disk.
pub const RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// On a full disk, a database up to this size refuses messages and deletes none. A larger one deletes its oldest.
pub const KEPT_ON_FULL_DISK_BYTES: u64 = 16 * 1024 * 1024;
/// Recorded uses of sessions that wait to be written.
pub const USES_PENDING_MAX: usize = 10_000;
/// Guests that are cached as stored, so that the store does not look them up for each message.
pub const STORED_GUESTS_CACHED_MAX: usize = 100_000;
/// Messages of a forgotten room that are deleted in one step.
pub const FORGOTTEN_AT_ONCE: usize = 500;
/// Minimum of `--max-data`: room for the WAL and for a day's guests.
pub const DATA_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Requests at `tiny_http` at once; further requests wait for a permit.
pub const RELAYS_MAX: usize = 24;
/// Those of one address.
pub const RELAYS_PER_ADDRESS_MAX: usize = 18;
/// Request bodies in memory at once: 16 MiB.
pub const BODIES_MAX: usize = 256;
/// Those of one address.
pub const BODIES_PER_ADDRESS_MAX: usize = 192;
/// How long a body is not cut off, however many there are.
pub const BODY_SPARED: Duration = Duration::from_secs(1);
/// How long a request waits for a permit before it is refused.
pub const RELAY_WAIT: Duration = Duration::from_secs(5);
const _: () = assert!(BODY_SPARED.as_millis() < RELAY_WAIT.as_millis());
/// Bytes of all responses that their readers have not taken yet.
pub const RESPONSES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Those of the readers at one address.
pub const RESPONSES_PER_ADDRESS_BYTES_MAX: usize = 8 * 1024 * 1024;
// Several readers at one address get the longest page of history: its messages, with other fields and escapes.
const _: () = assert!(4 * MESSAGES_LISTED_MAX * (8 * 1024 + 512) < RESPONSES_PER_ADDRESS_BYTES_MAX);
/// Bytes per second of a response that its reader must take, on average over [`Limits::write_stall`].
pub const RESPONSE_BYTES_PER_S_MIN: u32 = 4 * 1024;
/// How long an unfinished head is not cut off in favour of a client whose address has hardly fewer of them.
pub const HEAD_SPARED: Duration = Duration::from_secs(1);
/// Requests that a connection carries, one after the other.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 100;
/// How long a connection is kept without a request.
pub const IDLE_WAIT: Duration = Duration::from_secs(15);
/// Connections of one address that are kept without a request; a further one ends the oldest.
pub const IDLE_PER_ADDRESS_MAX: usize = 8;
/// All connections that are kept without a request are at most this part of the limit on connections.
pub const IDLE_PART: u64 = 10;
/// Refused connections that are kept open until their clients have read the response.
pub const REFUSED_MAX: usize = 32;

/// Descriptors that do not belong to a connection: the standard three, the listeners, `REFUSED_MAX`, and three for each
/// of `RELAYS_MAX`. These three are our end of the private connection and `tiny_http`'s two.
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// Memory maps that do not belong to a connection: the binary, its libraries, the heap, the other threads, and one for
/// each long response.
pub const MAPS_RESERVED: u64 = 4_000;
/// Memory maps of a thread: the stack, its guard, the signal stack, its guard, and one for growth of the heap.
pub const MAPS_PER_THREAD: u64 = 5;

const _: () = assert!((3 * RELAYS_MAX + REFUSED_MAX + CONTROL_CLIENTS_MAX + 2) as u64 + 16 <= DESCRIPTORS_RESERVED);
const _: () = assert!(HEAD_BYTES_MAX <= STACK_BYTES / 4);
const _: () = assert!(READ_BUFFER_BYTES <= READ_AHEAD_BYTES && READ_AHEAD_BYTES <= MESSAGE_BYTES_MAX);

/// Commands that wait for the hub. Each carries at most `FRAMES_PER_COMMAND_MAX` frames and about `MESSAGE_BYTES_MAX`
/// of text, at worst twice that. So this queue holds up to 32 MiB. A session that finds it full waits, and TCP passes
/// the backpressure on to its client.
pub const COMMANDS_QUEUED_MAX: usize = 256;
/// Frames that a session sends to the hub in one command, if several have arrived.
pub const FRAMES_PER_COMMAND_MAX: usize = 64;
/// Entries that wait for the store before the hub stops taking commands.
pub const PROPOSALS_PENDING_MAX: usize = 4_096;

/// Entries of one batch that can have a frame id: 20 bits of the id count them. An announcement takes one in each room.
pub const PLACES_PER_BATCH_MAX: u32 = 1 << 20;
const _: () = assert!(PROPOSALS_PENDING_MAX < PLACES_PER_BATCH_MAX as usize);
/// Batch numbers that are skipped when a log is opened again. So no later batch shares a frame id with a batch that was
/// lost in a power cut. 42 bits of an id hold the number: enough for four million starts.
pub const BATCH_NUMBERS_SKIPPED: u64 = 1 << 20;
/// How often the position of the log is stored while new messages also record the time. There are never as many batches
/// in this time as [`BATCH_NUMBERS_SKIPPED`]: that would be one per microsecond.
pub const POSITION_EVERY: Duration = Duration::from_secs(1);
const _: () = assert!(POSITION_EVERY.as_micros() < BATCH_NUMBERS_SKIPPED as u128);
/// How long the wall clock must agree with the monotonic clock before it is trusted.
pub const CLOCK_STEADY_WAIT: Duration = Duration::from_secs(3_600);
/// How far the two clocks may drift apart within that time; a greater difference is a jump.
pub const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(2);
/// 2025-01-01. A wall clock that shows an earlier time was never set: this code is younger.
pub const WALL_MS_MIN: u64 = 1_735_689_600_000;

/// Bytes in the channel of a member whose frames a thread reads. The channel corresponds to the send buffer of a
/// socket. It must last between two attempts of the hub, 2 ms: 16 MB/s. A chunk above this size is sent alone.
pub const CHANNEL_BYTES_MAX: usize = 32 * 1024;
/// Chunks in such a channel, because small chunks take more memory than their bytes.
pub const CHANNEL_CHUNKS_MAX: usize = 256;
// A page of history is one chunk.
const _: () = assert!(PAGE_BYTES_MAX <= CHANNEL_BYTES_MAX);
/// Maximum time between two keep-alives of a one-way stream. Proxies close a stream that is silent for 30 s or more.
pub const STREAM_KEEP_ALIVE_INTERVAL_MAX: Duration = Duration::from_secs(15);

/// Commands that the hub takes before it sends the frames that they produced.
pub const COMMANDS_PER_ROUND_MAX: usize = 256;
/// Bytes of a room's batch above which it is sent before the end of the round.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// How long, and up to how many bytes, the frames of a busy room wait for further frames while the hub has more commands
/// to take. Their authors get them at once.
pub const BATCH_WAIT_MAX: Duration = Duration::from_millis(10);
pub const BATCH_WAIT_BYTES_MAX: usize = 64 * 1024;
/// A room is busy if its last frames were sent less than this ago. So a quiet room does not wait because of a busy one.
pub const BUSY_ROOM_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of memory that a room keeps allocated for its next batch.
pub const BATCH_BYTES_KEPT: usize = 64 * 1024;

/// Bytes of all outboxes together; beyond it, the member with the fullest is treated as a slow consumer.
pub const OUTBOXES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of frames that `:memory:` keeps, over all rooms; the oldest are dropped first.
pub const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Guests that `:memory:` remembers.
pub const GUESTS_KEPT_MAX: usize = 50_000;

/// Connections that wait for authentication; the threads of further connections wait for room in the queue.
pub const AUTHENTICATIONS_WAITING_MAX: usize = 256;
/// Maximum time of an authentication, with the time in the queue.
pub const AUTHENTICATION_WAIT: Duration = Duration::from_secs(5);
/// Password hashes that are computed at once. Each takes 7 MiB.
pub const HASHES_RUNNING_MAX: usize = 2;
/// Requests that wait for a hash. With the running ones they leave half of the relay's permits to other requests.
pub const HASHES_WAITING_MAX: usize = 10;
// Searches and hashes together leave some of them.
const _: () = assert!(HASHES_WAITING_MAX + HASHES_RUNNING_MAX <= RELAYS_MAX / 2);
const _: () = assert!(HASHES_WAITING_MAX + HASHES_RUNNING_MAX + SEARCHES_WAITING_MAX < RELAYS_MAX);
/// How long a request waits for its turn to hash a password. Then it is refused, before the relay's wait for the
/// response is over.
pub const HASH_WAIT: Duration = Duration::from_secs(10);
/// How long a change may take before its proposer gets the answer that the outcome is unknown.
pub const CHANGE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a request on the control socket, with the end of its line. An import of accounts takes many requests.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a response on the control socket; longer lists are paged.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Clients of the control socket that are served at once.
pub const CONTROL_CLIENTS_MAX: usize = 4;
/// Further clients that wait in the system's queue.
pub const CONTROL_BACKLOG: i32 = 64;
/// Maximum time to read one request, and to write one response, on the control socket.
pub const CONTROL_IO_WAIT: Duration = Duration::from_secs(5);
/// How long a command waits for its response: first for one of the threads, which stalled clients may hold, then for
/// the store.
pub const CONTROL_ANSWER_WAIT: Duration = Duration::from_secs(20);
const _: () = assert!(CONTROL_ANSWER_WAIT.as_millis() > 2 * CONTROL_IO_WAIT.as_millis() + CHANGE_WAIT.as_millis());
/// How long the hub may take to answer an HTTP request before the response is that the server is busy.
pub const HUB_ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a client may take to close the connection after the close frame.
pub const CLOSE_WAIT: Duration = Duration::from_secs(3);
/// The same for a slow consumer, which has much to read before the close frame.
pub const SLOW_CLOSE_WAIT: Duration = Duration::from_secs(30);
/// Maximum time of a stop, from the signal to the last lines of the log.
pub const STOP_WAIT: Duration = Duration::from_secs(4);
/// How much of this time HTTP requests in progress have.
pub const REQUESTS_STOP_WAIT: Duration = Duration::from_millis(500);
const _: () = assert!(CLOSE_WAIT.as_millis() < STOP_WAIT.as_millis());

/// Bytes of a log line's text; a longer text is cut there.
pub const LOG_TEXT_BYTES_MAX: usize = 4 * 1024;
/// Log lines that wait for standard error; further lines are dropped and counted. The queue holds a burst of some tenths
/// of a second, and at most 4 MiB.
pub const LOG_LINES_QUEUED_MAX: usize = 1_024;
/// How long the end of the process waits for the queued log lines, and its start for a standard output that is not read.
pub const LOG_FLUSH_WAIT: Duration = Duration::from_millis(500);
// Supervisors and tests expect the end of the process within 5 s of the signal.
const _: () = assert!(STOP_WAIT.as_millis() + LOG_FLUSH_WAIT.as_millis() < 5_000);

/// Maximum of `--lease`: a lost connection with a lease still counts as a member.
pub const LEASE_MAX: Duration = Duration::from_secs(300);
/// Addresses and users whose rate is remembered without an open connection.
pub const RATES_KEPT_MAX: usize = 10_000;
/// Number of remembered rates from which on full buckets are removed.
pub const RATE_LIMITERS_SWEPT_AT_MIN: usize = 1_000;
/// The rate limit of an address, as a multiple of the rate limit of a user: a school or a household shares one address.
pub const USERS_PER_ADDRESS: u32 = 20;

/// Rooms that an address may make at once after a pause, by the first message in each.
pub const NEW_ROOMS_BURST: u32 = 20;
/// How long an address must wait for each further room.
pub const NEW_ROOM_INTERVAL: Duration = Duration::from_secs(10);
/// Clients without a token whose address is remembered, so that a ban of one can include it.
pub const POSTERS_KEPT_MAX: usize = 10_000;
/// With at least this many connections of other users, and most of all connections, an address counts as shared. It is
/// then banned only by force.
pub const SHARED_ADDRESS_MIN: usize = 3;

/// Refused frames after which a connection is closed for abuse (1008); one is forgiven each second.
pub const STRIKES_MAX: u32 = 200;

/// The limits that a flag sets, or that a test shrinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Maximum time from accepting a connection, or from its turn under the rate limit, to the end of the request's head.
    pub head_deadline: Duration,
    /// Maximum time from the end of the head to the end of the body.
    pub body_deadline: Duration,
    /// How long a client may take no byte of a response.
    pub write_stall: Duration,
    /// Maximum bytes of a message's content (`--max-content`).
    pub content_bytes_max: usize,
    /// Messages that a join replays by default (`--history`).
    pub history_default: usize,
    /// Maximum bytes of a member's outbox (`--outbox-bytes`).
    pub outbox_bytes_max: usize,
    /// How long a member's socket may take no byte of a non-empty outbox.
    pub outbox_stall: Duration,
    /// How long a member stays in its rooms after its connection was lost; 0 for not at all (`--lease`).
    pub lease: Duration,
    /// Up to this number of people, each join and leave is announced in the room.
    pub presence_people_max: usize,
    /// Time between two pings (`--ping-interval`).
    pub ping_interval: Duration,
    /// Messages per second that a user may send; 0 for no limit (`--rate`).
    pub rate_per_s: u32,
    /// Messages that a user may send at once after a pause (`--burst`).
    pub rate_burst: u32,
    /// Connections per second that an address may open; 0 for no limit.
    pub connections_per_s: u32,
    /// Connections that an address may open at once after a pause. A page that is loaded opens about six.
    pub connections_burst: u32,
    /// How long a connection waits at most for the rate limit of its address. Clients wait longer for a response.
    pub connection_wait_max: Duration,
    /// WebSockets per second that an address may open; 0 for no limit.
    pub handshakes_per_s: u32,
    /// WebSockets that an address may open at once after a pause: the clients of a school behind one address connect
    /// together.
    pub handshakes_burst: u32,
    /// Searches per second from an address; 0 for no limit.
    pub searches_per_s: u32,
    /// Searches from an address at once after a pause.
    pub searches_burst: u32,
    /// Pages of history per second from an address; 0 for no limit.
    pub pages_per_s: u32,
    /// Pages of history from an address at once after a pause.
    pub pages_burst: u32,
}

impl Limits {
    /// How long a connection may send nothing, or take over one message. It leaves time for a ping and for more than
    /// another interval until its pong (an interval of 25 s gives 60 s).
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
            connections_per_s: 400,
            connections_burst: 2_000,
            connection_wait_max: Duration::from_secs(2),
            handshakes_per_s: 20,
            handshakes_burst: 300,
            searches_per_s: 10,
            searches_burst: 200,
            pages_per_s: 100,
            pages_burst: 2_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_answers_within_an_interval_meets_the_read_deadline() {
        for seconds in [1, 25, 300] {
            let limits = Limits { ping_interval: Duration::from_secs(seconds), ..Limits::default() };
            assert!(limits.ping_interval * 2 < limits.read_deadline());
        }
        assert_eq!(Limits::default().read_deadline(), Duration::from_secs(60));
    }
}
