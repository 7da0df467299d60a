//! The outbox of one member's sink. Bytes that the sink can't take at once wait here, within a bound.
//!
//! The caller MUST:
//! 1. be the hub's thread, the only one that writes to a sink after the handshake;
//! 2. pass whole frames. Thus, between two calls, the sink is at the end of a frame, or inside a frame whose rest is
//!    the first thing that waits;
//! 3. never wait: a full sink fills the outbox, and a full outbox makes the member a slow consumer.

use std::collections::VecDeque;
use std::time::Instant;

use crate::wire::{CloseReason, Encoding};

use super::batch::Batch;
use super::sink::{Broken, Chunk, Sink};

/// The memory of a piece in addition to its bytes: its place in the queue, the spare capacity of the queue, and the
/// allocator's overhead. Without it, many small frames would take more memory than the bound allows.
const PIECE_OVERHEAD_BYTES: usize = 160;

/// Frames that one sink has not taken yet.
#[derive(Debug)]
pub struct Outbox {
    sink: Sink,
    waiting: VecDeque<Piece>,
    bytes: usize,
    /// The time of the sink's last progress, or of the beginning of the wait. Set only while bytes wait.
    progress_at: Option<Instant>,
    encoding: Encoding,
    /// Whether the sink has failed. The session that reads the other side sees the failure, too, and ends.
    broken: bool,
}

/// Whole frames, of which some bytes may have been sent.
#[derive(Debug)]
struct Piece {
    unsent: Chunk,
    /// The position of this member's first frame in the chunk's bytes.
    begin: usize,
}

impl Outbox {
    pub fn new(sink: Sink, encoding: Encoding) -> Self {
        Self { sink, waiting: VecDeque::new(), bytes: 0, progress_at: None, encoding, broken: false }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The memory of the waiting bytes.
    pub fn weight(&self) -> usize {
        self.bytes + self.waiting.len() * PIECE_OVERHEAD_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The time of the sink's last progress, or of the beginning of the wait. Set only while bytes wait.
    pub fn progress_at(&self) -> Option<Instant> {
        self.progress_at
    }

    /// Sends the batch from `begin`, which is the start of a frame. The bytes that the sink does not take wait.
    pub fn send(&mut self, batch: &mut Batch<'_>, begin: usize) {
        let end = batch.bytes().len();
        if self.broken || begin >= end {
            return;
        }
        let mut sent = begin;
        if self.waiting.is_empty() {
            match self.sink.send(batch, begin) {
                Ok(count) if begin + count == end => return,
                Ok(count) => sent += count,
                Err(Broken) => return self.fail(),
            }
            self.progress_at = Some(Instant::now());
        }
        self.bytes += end - sent;
        self.waiting.push_back(Piece { unsent: Chunk::new(batch.shared(), sent..end), begin });
    }

    /// Tries again to send the waiting bytes, some pieces at a time, until the sink is full or nothing is left.
    pub fn retry(&mut self) {
        while !self.waiting.is_empty() && !self.broken {
            match self.sink.send_chunks(self.waiting.iter().map(|piece| &piece.unsent)) {
                Ok(0) => return,
                Ok(count) => {
                    self.progress_at = Some(Instant::now());
                    self.take(count);
                }
                Err(Broken) => self.fail(),
            }
        }
        self.progress_at = None;
    }

    fn take(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0
            && let Some(piece) = self.waiting.front_mut()
        {
            let taken = count.min(piece.unsent.len());
            piece.unsent.advance(taken);
            count -= taken;
            if piece.unsent.is_empty() {
                self.waiting.pop_front();
            }
        }
    }

    /// Drops all waiting bytes except the rest of a frame that is partly sent.
    pub fn cut(&mut self) {
        self.waiting.truncate(1);
        if let Some(Piece { unsent, begin }) = self.waiting.front_mut() {
            unsent.cut(*begin, |bytes, position| self.encoding.frame_end(bytes, position));
            self.bytes = unsent.len();
            if unsent.is_empty() {
                self.waiting.clear();
            }
        }
    }

    /// Sends the close reason after the waiting bytes, if the encoding can express it.
    pub fn send_close(&mut self, reason: CloseReason) {
        let mut bytes = Vec::new();
        self.encoding.append_close(&mut bytes, reason);
        self.send(&mut Batch::new(&bytes), 0);
    }

    /// Shuts down the sending side. The peer can still send.
    pub fn end(&mut self) {
        self.sink.end();
    }

    /// Closes both directions at once. The session that reads from this socket sees its end.
    pub fn abandon(&mut self) {
        self.sink.abandon();
    }

    fn fail(&mut self) {
        self.broken = true;
        self.waiting.clear();
        self.bytes = 0;
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    use crossbeam_channel::Receiver;

    use super::*;
    use crate::limits::CHANNEL_BYTES_MAX;
    use crate::wire::websocket::close_frame;

    enum Far {
        Socket(TcpStream),
        Channel(Receiver<Chunk>),
    }

    impl Far {
        /// Reads to the end on its own thread.
        fn read(self) -> JoinHandle<Vec<u8>> {
            thread::spawn(move || {
                let mut got = Vec::new();
                match self {
                    Self::Socket(mut socket) => drop(socket.read_to_end(&mut got).unwrap()),
                    Self::Channel(chunks) => chunks.iter().for_each(|chunk| got.extend_from_slice(&chunk)),
                }
                got
            })
        }
    }

    fn pair() -> (Sink, Far) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (Sink::Socket(Arc::new(near)), Far::Socket(far))
    }

    /// An outbox for each kind of sink and each encoding.
    fn outboxes() -> impl Iterator<Item = (Outbox, Far)> {
        Encoding::ALL.into_iter().flat_map(|encoding| {
            let (channel, chunks) = Sink::channel();
            [pair(), (channel, Far::Channel(chunks))].map(|(sink, far)| (Outbox::new(sink, encoding), far))
        })
    }

    /// Frames of many sizes, which differ in their first bytes.
    fn frames(encoding: Encoding, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..count {
            encoding.append_frame(&mut bytes, format!("{number:0>0$}", 20_000 + 7 * number).as_bytes());
        }
        bytes
    }

    /// Fills the sink until bytes wait. Returns all bytes that were passed to the outbox.
    fn fill(outbox: &mut Outbox) -> Vec<u8> {
        let bytes = frames(outbox.encoding(), 50);
        let mut all = Vec::new();
        // More waits than the rest of one frame.
        while outbox.weight() < bytes.len() {
            outbox.send(&mut Batch::new(&bytes), 0);
            all.extend_from_slice(&bytes);
        }
        all
    }

    fn empty(outbox: &mut Outbox) {
        while !outbox.is_empty() {
            outbox.retry();
            thread::yield_now();
        }
    }

    #[test]
    fn a_late_member_gets_a_batch_from_its_first_frame() {
        for (mut outbox, far) in outboxes() {
            outbox.send(&mut Batch::new(b"oldnew"), 3);
            outbox.send(&mut Batch::new(b"old"), 3);
            outbox.end();
            assert_eq!(far.read().join().unwrap(), b"new");
        }
    }

    #[test]
    fn bytes_that_a_full_sink_refuses_are_sent_later_and_complete() {
        for (mut outbox, far) in outboxes() {
            let mut all = fill(&mut outbox);
            let more = frames(outbox.encoding(), 3);
            outbox.send(&mut Batch::new(&more), 0);
            all.extend_from_slice(&more);
            assert!(outbox.weight() >= more.len() && outbox.progress_at().is_some());
            let reader = far.read();
            empty(&mut outbox);
            outbox.retry();
            assert_eq!(outbox.progress_at(), None);
            outbox.end();
            assert!(reader.join().unwrap() == all, "the bytes differ");
        }
    }

    #[test]
    fn a_cut_leaves_whole_frames_followed_by_the_close() {
        for (mut outbox, far) in outboxes() {
            let encoding = outbox.encoding();
            let all = fill(&mut outbox);
            let waited = outbox.weight();
            outbox.cut();
            assert!(outbox.weight() < waited && outbox.weight() <= 21_000);
            outbox.send_close(CloseReason::SlowConsumer);
            let reader = far.read();
            empty(&mut outbox);
            outbox.end();
            let got = reader.join().unwrap();
            let close = match encoding {
                Encoding::Json => close_frame(CloseReason::SlowConsumer),
                Encoding::Ndjson => Vec::new(),
            };
            let frames = got.strip_suffix(close.as_slice()).expect("the close frame is last");
            assert!(all.starts_with(frames));
            assert_eq!(encoding.frame_end(&all, frames.len()), frames.len(), "cut inside a frame");
        }
    }

    #[test]
    fn a_cut_for_a_late_member_counts_from_its_first_frame() {
        for (mut outbox, far) in outboxes() {
            let encoding = outbox.encoding();
            let bytes = frames(encoding, 500);
            // A cut that parsed the bytes before the first frame would find a wrong length.
            let late = [b"no frame at all", &bytes[..]].concat();
            outbox.send(&mut Batch::new(&late), 15);
            // A channel takes all of the first batch, or nothing.
            outbox.send(&mut Batch::new(&late), 15);
            assert!(!outbox.is_empty());
            outbox.cut();
            assert!(outbox.weight() <= 24_000);
            let reader = far.read();
            empty(&mut outbox);
            outbox.end();
            let got = reader.join().unwrap();
            let all = [&bytes[..], &bytes[..]].concat();
            assert!(all.starts_with(&got));
            assert_eq!(encoding.frame_end(&all, got.len()), got.len(), "cut inside a frame");
        }
    }

    #[test]
    fn the_memory_of_a_channel_is_bounded() {
        let (sink, received) = Sink::channel();
        let mut outbox = Outbox::new(sink, Encoding::Ndjson);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..100 {
            outbox.send(&mut Batch::new(&line), 0);
        }
        assert_eq!(received.len(), CHANNEL_BYTES_MAX / line.len());
        assert_eq!(outbox.bytes, 100 * line.len() - received.len() * line.len());
        assert_eq!(outbox.weight(), outbox.bytes + (100 - received.len()) * PIECE_OVERHEAD_BYTES);
    }

    #[test]
    fn an_outbox_with_a_broken_sink_holds_nothing() {
        for (mut outbox, far) in outboxes() {
            drop(far);
            let bytes = frames(outbox.encoding(), 50);
            for _ in 0..100 {
                outbox.send(&mut Batch::new(&bytes), 0);
                outbox.retry();
            }
            assert!(outbox.is_empty() && outbox.progress_at().is_none());
        }
    }
}
