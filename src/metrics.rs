//! Counters and gauges that every part updates and `/metrics` shows in Prometheus's text format.
//!
//! Relaxed atomics, used from all threads. Each number is right by itself; two numbers need not be of the same moment.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only increases.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Log lines that were dropped since the start. The log belongs to the process, and so does its counter.
pub static LOG_LINES_DROPPED: Counter = Counter(AtomicU64::new(0));

/// A number that increases and decreases.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, value: usize) {
        self.0.store(value as u64, Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the values of a label: an enum with the text of each value, and all values in a list.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the metrics.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value as the label's text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

labels! {
    /// Why a connection or a request was refused before it reached the hub or a handler.
    Refusal {
        /// The limit on connections (503).
        Connections = "connections",
        /// The limit on connections of one address (503).
        PerAddress = "per_address",
        /// The rate limit on connections of one address (429).
        ConnectionRate = "connection_rate",
        /// The rate limit on WebSockets of one address (429).
        Handshakes = "handshakes",
        /// Permission: banned, login required, a reserved name, or a private room of which the client is not a member
        /// (401, 403, 404).
        Authentication = "authentication",
        /// The system refused a thread (503).
        Thread = "thread",
        /// A malformed head, or an unknown expectation (400, 417).
        BadHead = "bad_head",
        /// A head that is too large (431).
        LargeHead = "large_head",
        /// A head or body that took too long (408).
        Slow = "slow",
        /// A body that is too large (413).
        LargeBody = "large_body",
        /// A foreign origin (403).
        Origin = "origin",
        /// A malformed name or upgrade request (400, 426).
        Upgrade = "upgrade",
        /// No permit for the HTTP workers in time, no response from them, or the server is busy otherwise (502, 503).
        Busy = "busy",
    }
}

labels! {
    /// Why the server closed a connection, or rejected one of its frames.
    Drop {
        /// A slow consumer: its outbox is full, or it took nothing for too long (1013).
        SlowConsumer = "slow_consumer",
        /// A client that read a response over HTTP too slowly, or was the slowest when the memory for responses was short.
        SlowReader = "slow_reader",
        /// A connection without a complete head, closed at the limit on connections to make room for another.
        Displaced = "displaced",
        /// Nothing was received for too long (1008).
        Idle = "idle",
        /// A violation of RFC 6455 (1002).
        Protocol = "protocol",
        /// Text that is not UTF-8 (1007).
        Utf8 = "utf8",
        /// A message that is too large (1009).
        TooLarge = "too_large",
        /// Continued abuse (1008).
        Abuse = "abuse",
        /// A frame over the rate limit; the connection stays open.
        RateLimited = "rate_limited",
        /// A frame that was answered with another error; the connection stays open.
        Rejected = "rejected",
    }
}

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted since the start.
    pub accepted: Counter,
    /// Open connections of any kind now.
    pub connections: Gauge,
    /// Members of the hub now.
    pub members: Gauge,
    /// Rooms with members now.
    pub rooms: Gauge,
    /// Frames stored since the start.
    pub messages: Counter,
    /// Frames handed to members' sockets or outboxes since the start.
    pub deliveries: Counter,
    /// Bytes in all outboxes now.
    pub outbox_bytes: Gauge,
    /// Members with a non-empty outbox now.
    pub outboxes_waiting: Gauge,
    /// Commands that wait for the hub now.
    pub commands_queued: Gauge,
    /// Frames that wait for the store now.
    pub proposals_pending: Gauge,
    /// Requests that were answered over HTTP.
    pub http_requests: Counter,
    /// Errors of `accept` since the start.
    pub accept_errors: Counter,
    refusals: [Counter; Refusal::ALL.len()],
    drops: [Counter; Drop::ALL.len()],
}

impl Metrics {
    /// Counts a refusal.
    pub fn refused(&self, reason: Refusal) {
        self.refusals[reason as usize].increment();
    }

    /// Counts a drop.
    pub fn dropped(&self, reason: Drop) {
        self.drops[reason as usize].increment();
    }

    /// All metrics in Prometheus's text exposition format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(4096);
        let plain: [(&str, &str, &str, u64); 13] = [
            ("connections_accepted_total", "counter", "Connections accepted.", self.accepted.get()),
            ("connections", "gauge", "Connections open now.", self.connections.get()),
            ("members", "gauge", "WebSocket connections in the hub now.", self.members.get()),
            ("rooms", "gauge", "Rooms with members now.", self.rooms.get()),
            ("messages_total", "counter", "Messages stored.", self.messages.get()),
            ("deliveries_total", "counter", "Frames delivered to members.", self.deliveries.get()),
            ("outbox_bytes", "gauge", "Bytes queued in outboxes now.", self.outbox_bytes.get()),
            ("outboxes_waiting", "gauge", "Outboxes that are not empty now.", self.outboxes_waiting.get()),
            ("commands_queued", "gauge", "Commands queued for the hub now.", self.commands_queued.get()),
            ("appends_pending", "gauge", "Frames queued for the store now.", self.proposals_pending.get()),
            ("http_requests_total", "counter", "HTTP requests answered.", self.http_requests.get()),
            ("accept_errors_total", "counter", "Errors returned by accept.", self.accept_errors.get()),
            ("log_lines_dropped_total", "counter", "Log lines dropped.", LOG_LINES_DROPPED.get()),
        ];
        for (name, kind, help, value) in plain {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "adda_{name} {value}");
        }
        let refusals = Refusal::ALL.iter().zip(&self.refusals).map(|(reason, counter)| (reason.as_str(), counter));
        by_reason(&mut text, "refusals_total", "Connections and requests refused, by reason.", refusals);
        let drops = Drop::ALL.iter().zip(&self.drops).map(|(reason, counter)| (reason.as_str(), counter));
        by_reason(&mut text, "drops_total", "Connections closed and frames rejected, by reason.", drops);
        text
    }
}

/// Writes one counter with a line for each reason.
fn by_reason<'a>(text: &mut String, name: &str, help: &str, reasons: impl Iterator<Item = (&'a str, &'a Counter)>) {
    head(text, name, "counter", help);
    for (reason, counter) in reasons {
        let _ = writeln!(text, "adda_{name}{{reason=\"{reason}\"}} {}", counter.get());
    }
}

/// Writes the two lines that precede a metric. Writing to a `String` can't fail.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP adda_{name} {help}\n# TYPE adda_{name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_line() {
        let metrics = Metrics::default();
        metrics.refused(Refusal::Busy);
        metrics.refused(Refusal::Busy);
        metrics.dropped(Drop::SlowConsumer);
        metrics.deliveries.add(7);
        let text = metrics.render();
        assert!(text.contains("\nadda_refusals_total{reason=\"busy\"} 2\n"));
        assert!(text.contains("\nadda_refusals_total{reason=\"origin\"} 0\n"));
        assert!(text.contains("\nadda_drops_total{reason=\"slow_consumer\"} 1\n"));
        assert!(text.contains("\nadda_deliveries_total 7\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("adda_") && value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
