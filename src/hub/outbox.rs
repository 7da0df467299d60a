//! The way to one member's socket: what it took at once is gone, what it did not take waits here, bounded.
//!
//! Whoever sends MUST:
//! 1. be the hub's thread, the only one that writes to a socket after its handshake;
//! 2. hand over whole frames, so that between two calls the stream stands at the end of a frame of ours, or
//!    inside one whose rest is the first thing that waits;
//! 3. never wait: a full socket is a full outbox, and a full outbox is a slow consumer.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::ws::{CloseReason, close_frame, frame_end};

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Pieces that are handed to the system at once.
const PIECES_PER_SEND: usize = 16;
/// What a piece takes beside its bytes: its place here, with the room that a growing queue has to spare, and what
/// the allocation adds. Many small frames would otherwise weigh more than the bound says.
const PIECE_OVERHEAD_BYTES: usize = 160;

/// Frames on their way to one socket.
#[derive(Debug)]
pub struct Outbox {
    socket: Arc<TcpStream>,
    waiting: VecDeque<Piece>,
    bytes: usize,
    /// When the socket last took something, while something waits.
    progress_at: Option<Instant>,
    /// Whether the socket has failed; its session will see it too, and end.
    broken: bool,
}

/// Whole frames, some bytes of which may have been sent. Members of a room share the bytes.
#[derive(Debug)]
struct Piece {
    bytes: Arc<[u8]>,
    unsent: Range<usize>,
    /// Where in `bytes` this member's first frame begins.
    begin: usize,
}

/// A batch of frames that many members get: the bytes are shared among those who can't take them at once.
#[derive(Debug)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    shared: Option<Arc<[u8]>>,
}

impl<'a> Batch<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None }
    }

    fn shared(&mut self) -> Arc<[u8]> {
        Arc::clone(self.shared.get_or_insert_with(|| Arc::from(self.bytes)))
    }
}

impl Outbox {
    pub fn new(socket: Arc<TcpStream>) -> Self {
        Self { socket, waiting: VecDeque::new(), bytes: 0, progress_at: None, broken: false }
    }

    /// The memory that what waits takes, in bytes.
    pub fn weight(&self) -> usize {
        self.bytes + self.waiting.len() * PIECE_OVERHEAD_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// When the socket last took something, while something waits.
    pub fn progress_at(&self) -> Option<Instant> {
        self.progress_at
    }

    /// Sends the batch from `begin`, the start of a frame; what the socket does not take waits.
    pub fn send(&mut self, batch: &mut Batch<'_>, begin: usize) {
        if self.broken || begin >= batch.bytes.len() {
            return;
        }
        let mut sent = begin;
        if self.waiting.is_empty() {
            match send(&*self.socket, &batch.bytes[begin..], FLAGS) {
                Ok(count) if begin + count == batch.bytes.len() => return,
                Ok(count) => sent += count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.fail(),
            }
            self.progress_at = Some(Instant::now());
        }
        let bytes = batch.shared();
        self.bytes += bytes.len() - sent;
        self.waiting.push_back(Piece { unsent: sent..bytes.len(), bytes, begin });
    }

    /// Tries again with what waits, some pieces at a time, until the socket is full or nothing is left.
    pub fn retry(&mut self) {
        while !self.waiting.is_empty() && !self.broken {
            let pieces = self.waiting.iter().take(PIECES_PER_SEND);
            let slices: Vec<_> = pieces.map(|piece| IoSlice::new(&piece.bytes[piece.unsent.clone()])).collect();
            match sendmsg(&*self.socket, &slices, &mut SendAncillaryBuffer::default(), FLAGS) {
                Ok(count) => {
                    self.progress_at = Some(Instant::now());
                    self.take(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.fail(),
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
            piece.unsent.start += taken;
            count -= taken;
            if piece.unsent.is_empty() {
                self.waiting.pop_front();
            }
        }
    }

    /// Forgets all that waits but the rest of a frame that has begun.
    pub fn cut(&mut self) {
        self.waiting.truncate(1);
        if let Some(piece) = self.waiting.front_mut() {
            let begun = &piece.bytes[piece.begin..];
            piece.unsent.end = piece.begin + frame_end(begun, piece.unsent.start - piece.begin);
            self.bytes = piece.unsent.len();
            if piece.unsent.is_empty() {
                self.waiting.clear();
            }
        }
    }

    /// Sends a close frame behind what waits.
    pub fn send_close(&mut self, reason: CloseReason) {
        self.send(&mut Batch::new(&close_frame(reason)), 0);
    }

    /// Tells the peer that nothing more comes; it can still be heard.
    pub fn end(&self) {
        // Fails only where the peer has gone already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends both ways at once; the session that reads from this socket sees its end.
    pub fn abandon(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
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
    use std::net::TcpListener;

    use super::*;
    use crate::ws::encode_text;

    fn pair() -> (Outbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (Outbox::new(Arc::new(near)), far)
    }

    /// Some frames of many sizes, numbered by their first byte.
    fn frames(count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..count {
            encode_text(&mut bytes, &vec![number as u8; 20_000 + 7 * number]);
        }
        bytes
    }

    /// Fills the socket until something waits; gives all that was handed over.
    fn fill(outbox: &mut Outbox) -> Vec<u8> {
        let bytes = frames(50);
        let mut all = Vec::new();
        // With more than the rest of a frame.
        while outbox.weight() < bytes.len() {
            outbox.send(&mut Batch::new(&bytes), 0);
            all.extend_from_slice(&bytes);
        }
        all
    }

    #[test]
    fn a_late_member_gets_a_batch_from_its_own_beginning() {
        let (mut outbox, mut far) = pair();
        outbox.send(&mut Batch::new(b"oldnew"), 3);
        outbox.send(&mut Batch::new(b"old"), 3);
        outbox.end();
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"new");
    }

    #[test]
    fn what_a_full_socket_does_not_take_comes_later_and_whole() {
        let (mut outbox, mut far) = pair();
        let mut all = fill(&mut outbox);
        let more = frames(3);
        outbox.send(&mut Batch::new(&more), 0);
        all.extend_from_slice(&more);
        assert!(outbox.weight() >= more.len() && outbox.progress_at().is_some());
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        while !outbox.is_empty() {
            outbox.retry();
            std::thread::yield_now();
        }
        assert_eq!(outbox.progress_at(), None);
        outbox.end();
        assert!(reader.join().unwrap() == all, "the bytes differ");
    }

    #[test]
    fn a_cut_leaves_whole_frames_and_then_the_close() {
        let (mut outbox, mut far) = pair();
        let all = fill(&mut outbox);
        let waited = outbox.weight();
        outbox.cut();
        assert!(outbox.weight() < waited && outbox.weight() <= 21_000);
        outbox.send_close(CloseReason::SLOW_CONSUMER);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        while !outbox.is_empty() {
            outbox.retry();
            std::thread::yield_now();
        }
        outbox.end();
        let got = reader.join().unwrap();
        let close = close_frame(CloseReason::SLOW_CONSUMER);
        let frames = got.strip_suffix(close.as_slice()).expect("the close frame is last");
        assert!(all.starts_with(frames));
        assert_eq!(frame_end(&all, frames.len()), frames.len(), "cut inside a frame");
    }

    #[test]
    fn a_peer_that_is_gone_costs_nothing() {
        let (mut outbox, far) = pair();
        drop(far);
        let bytes = frames(50);
        for _ in 0..100 {
            outbox.send(&mut Batch::new(&bytes), 0);
            outbox.retry();
        }
        assert!(outbox.is_empty() && outbox.progress_at().is_none());
    }
}
