//! The sink of a member's bytes: a socket, or a channel that another thread reads.
//!
//! Runs on the hub's thread. A sink takes the bytes that fit at once; it never waits and has no buffer of its own. The
//! outbox keeps the bytes that the sink does not take.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{Shutdown, TcpStream};
use std::ops::{Deref, Range};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::limits::{CHANNEL_BYTES_MAX, CHANNEL_CHUNKS_MAX};

use super::batch::Batch;

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// The number of chunks in one system call.
const CHUNKS_PER_SEND: usize = 16;

/// The destination of a member's bytes.
#[derive(Debug)]
pub enum Sink {
    /// A socket, to which only the hub writes.
    Socket(Arc<TcpStream>),
    /// A channel, made by [`Sink::channel`].
    Channel(Box<ChunkSender>),
}

/// Whole frames for one member. The members of a room share the bytes.
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

/// The hub's end of a channel.
#[derive(Debug)]
pub struct ChunkSender {
    /// `None` after the end.
    chunks: Option<Sender<Chunk>>,
    /// The sizes of the latest chunks, including all chunks that are still in the channel.
    sizes: VecDeque<usize>,
    /// The sum of the sizes.
    bytes: usize,
}

/// The sink has failed: the peer or the reader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl Sink {
    /// Makes a sink whose chunks come from the receiver. The channel ends when the hub has closed the connection and
    /// all chunks are received.
    ///
    /// The reader may be slow; the rule for slow consumers applies. Like a session, it must send the hub
    /// [`Gone`](super::Command::Gone), either after the end of the channel or when it drops the receiver earlier.
    #[must_use]
    pub fn channel() -> (Self, Receiver<Chunk>) {
        let (chunks, received) = bounded(CHANNEL_CHUNKS_MAX);
        (Self::Channel(Box::new(ChunkSender { chunks: Some(chunks), sizes: VecDeque::new(), bytes: 0 })), received)
    }

    /// Sends a batch from `begin`, which is the start of a frame. Returns the number of bytes that were taken.
    pub(super) fn send(&mut self, batch: &mut Batch<'_>, begin: usize) -> Result<usize, Broken> {
        match self {
            Self::Socket(socket) => match send(&**socket, &batch.bytes()[begin..], FLAGS) {
                Ok(count) => Ok(count),
                Err(Errno::AGAIN | Errno::INTR) => Ok(0),
                Err(_) => Err(Broken),
            },
            Self::Channel(channel) => {
                let bytes = batch.shared();
                channel.send(&Chunk { range: begin..bytes.len(), bytes })
            }
        }
    }

    /// Sends some of the chunks, first ones first. Returns the number of bytes that were taken: 0 if the sink is full.
    pub(super) fn send_chunks<'a>(&mut self, mut chunks: impl Iterator<Item = &'a Chunk>) -> Result<usize, Broken> {
        match self {
            Self::Socket(socket) => {
                let slices: Vec<_> = chunks.take(CHUNKS_PER_SEND).map(|chunk| IoSlice::new(chunk)).collect();
                loop {
                    match sendmsg(&**socket, &slices, &mut SendAncillaryBuffer::default(), FLAGS) {
                        Ok(count) => return Ok(count),
                        Err(Errno::INTR) => {}
                        Err(Errno::AGAIN) => return Ok(0),
                        Err(_) => return Err(Broken),
                    }
                }
            }
            Self::Channel(channel) => chunks.next().map_or(Ok(0), |chunk| channel.send(chunk)),
        }
    }

    /// Shuts down the sending side. A socket can still be read.
    pub(super) fn end(&mut self) {
        match self {
            // Fails only if the peer has already gone.
            Self::Socket(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Channel(channel) => channel.chunks = None,
        }
    }

    /// Closes both directions at once. The session that reads from the socket sees its end.
    pub(super) fn abandon(&mut self) {
        match self {
            Self::Socket(socket) => drop(socket.shutdown(Shutdown::Both)),
            Self::Channel(channel) => channel.chunks = None,
        }
    }
}

impl ChunkSender {
    /// Sends all of a chunk, or nothing.
    fn send(&mut self, chunk: &Chunk) -> Result<usize, Broken> {
        let Some(chunks) = &self.chunks else { return Err(Broken) };
        // The reader takes the oldest chunk first. Chunks that it takes meanwhile are counted by the next call.
        let waiting = chunks.len();
        while self.sizes.len() > waiting
            && let Some(size) = self.sizes.pop_front()
        {
            self.bytes -= size;
        }
        if !self.sizes.is_empty() && self.bytes + chunk.len() > CHANNEL_BYTES_MAX {
            return Ok(0);
        }
        match chunks.try_send(chunk.clone()) {
            Ok(()) => {
                self.sizes.push_back(chunk.len());
                self.bytes += chunk.len();
                Ok(chunk.len())
            }
            Err(TrySendError::Full(_)) => Ok(0),
            Err(TrySendError::Disconnected(_)) => Err(Broken),
        }
    }
}

impl Chunk {
    pub(super) fn new(bytes: Arc<[u8]>, range: Range<usize>) -> Self {
        Self { bytes, range }
    }

    /// Removes bytes from the front.
    pub(super) fn advance(&mut self, count: usize) {
        self.range.start += count;
    }

    /// Removes all bytes except the rest of the frame that is partly sent. `frame_end` finds the end of that frame. The
    /// first frame for this member begins at `begin`.
    pub(super) fn cut(&mut self, begin: usize, frame_end: impl FnOnce(&[u8], usize) -> usize) {
        self.range.end = begin + frame_end(&self.bytes[begin..], self.range.start - begin);
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(length: usize) -> Chunk {
        Chunk::new(vec![b'x'; length].into(), 0..length)
    }

    #[test]
    fn a_channel_is_bounded_by_bytes() {
        let (mut sink, received) = Sink::channel();
        let small = chunk(CHANNEL_BYTES_MAX / 4);
        for expected in [small.len(), small.len(), small.len(), small.len(), 0] {
            assert_eq!(sink.send_chunks([&small].into_iter()), Ok(expected));
        }
        assert_eq!(received.recv().unwrap().len(), small.len());
        assert_eq!(sink.send_chunks([&small, &small].into_iter()), Ok(small.len()));
        assert_eq!(sink.send_chunks([&small].into_iter()), Ok(0));
    }

    #[test]
    fn a_channel_is_bounded_by_its_number_of_chunks() {
        let (mut sink, received) = Sink::channel();
        let taken = (0..2 * CHANNEL_CHUNKS_MAX).filter(|_| sink.send_chunks([&chunk(1)].into_iter()) == Ok(1));
        assert_eq!(taken.count(), CHANNEL_CHUNKS_MAX);
        assert_eq!(received.try_iter().count(), CHANNEL_CHUNKS_MAX);
        assert_eq!(sink.send_chunks([&chunk(1)].into_iter()), Ok(1));
    }

    #[test]
    fn a_chunk_over_the_bound_is_sent_alone() {
        let (mut sink, received) = Sink::channel();
        let (long, short) = (chunk(3 * CHANNEL_BYTES_MAX), chunk(1));
        assert_eq!(sink.send_chunks([&long].into_iter()), Ok(long.len()));
        assert_eq!(sink.send_chunks([&short].into_iter()), Ok(0));
        received.recv().unwrap();
        assert_eq!(sink.send_chunks([&short].into_iter()), Ok(1));
        assert_eq!(sink.send_chunks([&long].into_iter()), Ok(0));
    }

    #[test]
    fn a_channel_ends_after_the_last_chunk() {
        let (mut sink, received) = Sink::channel();
        sink.send(&mut Batch::new(b"oldnew"), 3).unwrap();
        sink.end();
        assert_eq!(sink.send(&mut Batch::new(b"x"), 0), Err(Broken));
        assert_eq!(&*received.recv().unwrap(), b"new");
        assert!(received.recv().is_err());
    }

    #[test]
    fn a_dropped_receiver_breaks_the_sink() {
        for sent in [None, Some(1)] {
            let (mut sink, received) = Sink::channel();
            let taken = sent.map(|length| sink.send_chunks([&chunk(length)].into_iter()));
            assert_eq!(taken, sent.map(Ok));
            drop(received);
            assert_eq!(sink.send_chunks([&chunk(1)].into_iter()), Err(Broken), "{sent:?}");
        }
    }
}
