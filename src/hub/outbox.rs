//! The way to one member's sink: what the sink took at once is gone, what it did not take waits here, bounded.
//!
//! The caller MUST:
//! 1. be the hub's thread, the only one that writes to a sink after the handshake;
//! 2. hand over whole frames, so that between two calls the stream stands at the end of a frame of ours, or
//!    inside one whose rest is the first thing that waits;
//! 3. never wait: a full sink is a full outbox, and a full outbox is a slow consumer.

use std::collections::VecDeque;
use std::time::Instant;

use crate::wire::{CloseReason, Encoding};

use super::batch::Batch;
use super::sink::{Broken, Chunk, Sink};

/// What a piece takes beside its bytes: its place here, with the room that a growing queue has to spare, and what
/// the allocation adds. Many small frames would otherwise weigh more than the bound says.
const PIECE_OVERHEAD_BYTES: usize = 160;

/// Frames on their way to one sink.
#[derive(Debug)]
pub struct Outbox {
    sink: Sink,
    waiting: VecDeque<Piece>,
    bytes: usize,
    /// When the sink last took something, while something waits.
    progress_at: Option<Instant>,
    encoding: Encoding,
    /// Whether the sink has failed; the session that reads from its other side will see it too, and end.
    broken: bool,
}

/// Whole frames, some bytes of which may have been sent.
#[derive(Debug)]
struct Piece {
    unsent: Chunk,
    /// Where in the chunk's bytes this member's first frame begins.
    begin: usize,
}

impl Outbox {
    pub fn new(sink: Sink, encoding: Encoding) -> Self {
        Self { sink, waiting: VecDeque::new(), bytes: 0, progress_at: None, encoding, broken: false }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The memory that what waits takes, in bytes.
    pub fn weight(&self) -> usize {
        self.bytes + self.waiting.len() * PIECE_OVERHEAD_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// When the sink last took something, while something waits.
    pub fn progress_at(&self) -> Option<Instant> {
        self.progress_at
    }

    /// Sends the batch from `begin`, the start of a frame; what the sink does not take waits.
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

    /// Tries again with what waits, some pieces at a time, until the sink is full or nothing is left.
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

    /// Forgets all that waits but the rest of a frame that has begun.
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

    /// Sends the reason behind what waits, if the encoding has words for it.
    pub fn send_close(&mut self, reason: CloseReason) {
        let mut bytes = Vec::new();
        self.encoding.append_close(&mut bytes, reason);
        self.send(&mut Batch::new(&bytes), 0);
    }

    /// Tells the peer that nothing more comes; it can still be heard.
    pub fn end(&mut self) {
        self.sink.end();
    }

    /// Ends both ways at once; the session that reads from this socket sees its end.
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

    /// The other side of a sink.
    enum Far {
        Socket(TcpStream),
        Channel(Receiver<Chunk>),
    }

    impl Far {
        /// Reads to the end, in a thread of its own.
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

    /// Some frames of many sizes, which differ by their first bytes.
    fn frames(encoding: Encoding, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..count {
            encoding.append_frame(&mut bytes, format!("{number:0>0$}", 20_000 + 7 * number).as_bytes());
        }
        bytes
    }

    /// Fills the sink until something waits; gives all that was handed over.
    fn fill(outbox: &mut Outbox) -> Vec<u8> {
        let bytes = frames(outbox.encoding(), 50);
        let mut all = Vec::new();
        // With more than the rest of a frame.
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
    fn a_late_member_gets_a_batch_from_its_own_beginning() {
        for (mut outbox, far) in outboxes() {
            outbox.send(&mut Batch::new(b"oldnew"), 3);
            outbox.send(&mut Batch::new(b"old"), 3);
            outbox.end();
            assert_eq!(far.read().join().unwrap(), b"new");
        }
    }

    #[test]
    fn what_a_full_sink_does_not_take_comes_later_and_whole() {
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
    fn a_cut_leaves_whole_frames_and_then_the_close() {
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
    fn a_cut_of_a_late_member_counts_from_its_first_frame() {
        for (mut outbox, far) in outboxes() {
            let encoding = outbox.encoding();
            let bytes = frames(encoding, 500);
            // What is before it would be read as another length.
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
    fn what_a_channel_holds_is_bounded() {
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
    fn a_peer_that_is_gone_costs_nothing() {
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
