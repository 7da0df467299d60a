//! The store: one thread that gives every message its place in its room's order and keeps it.
//!
//! The hub sends it batches of [`Append`] and gets each back as one batch of [`Appended`], in the same order;
//! presence travels in the batches too, so that a `join` comes before its user's first message and a `leave` after
//! the last. At most one batch is on its way at a time, so neither side ever waits for room in a channel.
//! For now messages are kept in memory ([`kept`]): nothing outlives the process.

mod kept;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::ids::FrameIds;
use crate::limits::{APPENDS_PENDING_MAX, STACK_BYTES};
use crate::metrics::Metrics;
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp};
use crate::protocol::{Frame, FrameType};

use kept::Kept;

/// What the hub wants to have a place in a room's order.
#[derive(Debug)]
pub enum Append {
    /// A message, to be stored.
    Message(NewMessage),
    /// Somebody comes; not stored, but in order. Bears whatever the hub wants back.
    Join {
        /// Which room.
        room: RoomId,
        /// The hub's own mark.
        ticket: Ticket,
        /// Whether the hub needs to be told the room's past.
        wants_past: bool,
    },
    /// Somebody goes; not stored, but in order.
    Leave {
        /// Which room.
        room: RoomId,
        /// The hub's own mark.
        ticket: Ticket,
    },
}

/// The hub's own mark on a coming or going: which member it is about. The store only gives it back.
pub type Ticket = usize;

/// A message that has no place yet.
#[derive(Debug)]
pub struct NewMessage {
    /// Where.
    pub room: RoomId,
    /// By whom.
    pub author: Arc<Person>,
    /// What.
    pub content: Box<str>,
    /// The client's own mark on it.
    pub nonce: Option<Nonce>,
    /// The frame that it answers.
    pub reply_to: Option<FrameId>,
}

/// What has its place now.
#[derive(Debug)]
pub enum Appended {
    /// A message is stored.
    Message {
        /// Where.
        room: RoomId,
        /// The frame, with its place.
        stored: Stored,
    },
    /// Somebody comes at this place.
    Join {
        /// Which room.
        room: RoomId,
        /// As it was given.
        ticket: Ticket,
        /// The room's past, where it was asked for.
        past: Option<Past>,
    },
    /// Somebody goes at this place.
    Leave {
        /// Which room.
        room: RoomId,
        /// As it was given.
        ticket: Ticket,
    },
}

/// A stored frame as members get it. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub id: FrameId,
    /// Its place.
    pub seq: Seq,
    /// Its JSON.
    pub json: Arc<[u8]>,
}

/// What is kept of a room, at a moment of its order.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The last place taken.
    pub head: Seq,
    /// The latest frames, oldest first, [`HISTORY_MAX`](crate::limits::HISTORY_MAX) at most.
    pub frames: Vec<Stored>,
}

/// A room of which something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRoom {
    /// Its id.
    pub id: RoomId,
    /// The last place taken.
    pub head: Seq,
}

/// A question to the store from outside the hub.
enum Question {
    Rooms { after: Option<RoomId>, limit: usize, answer: Sender<Vec<KeptRoom>> },
    Room { id: RoomId, answer: Sender<Option<KeptRoom>> },
}

/// Reads from the store, for the handlers of REST; never through the hub.
#[derive(Debug, Clone)]
pub struct Reader {
    questions: Sender<Question>,
}

impl Reader {
    /// The rooms of which something is kept, ordered by id, from behind `after`, `limit` at most.
    /// `None` where the store has ended.
    #[must_use]
    pub fn rooms(&self, after: Option<RoomId>, limit: usize) -> Option<Vec<KeptRoom>> {
        let (answer, answered) = bounded(1);
        self.questions.send(Question::Rooms { after, limit, answer }).ok()?;
        answered.recv().ok()
    }

    /// One such room. `None` where the store has ended.
    #[must_use]
    pub fn room(&self, id: RoomId) -> Option<Option<KeptRoom>> {
        let (answer, answered) = bounded(1);
        self.questions.send(Question::Room { id, answer }).ok()?;
        answered.recv().ok()
    }
}

/// The hub's end of the store.
#[derive(Debug)]
pub struct Writer {
    /// Takes a batch; holds one, and the hub sends the next only when the last has come back.
    pub appends: Sender<Vec<Append>>,
    /// Gives it back.
    pub appended: Receiver<Vec<Appended>>,
}

/// Starts the thread. It ends when the [`Writer`] is dropped.
///
/// # Errors
/// Where the system gives no thread.
pub fn start(metrics: Arc<Metrics>) -> io::Result<(Writer, Reader, JoinHandle<()>)> {
    let (appends, append_batches) = bounded(1);
    let (appended_batches, appended) = bounded(1);
    // Askers wait for their answer, so there are never more questions than workers that ask.
    let (questions, asked) = bounded(1);
    let thread = thread::Builder::new().name("store".into()).stack_size(STACK_BYTES).spawn(move || {
        run(&append_batches, &appended_batches, asked, &metrics);
    })?;
    Ok((Writer { appends, appended }, Reader { questions }, thread))
}

fn run(
    appends: &Receiver<Vec<Append>>,
    appended: &Sender<Vec<Appended>>,
    mut questions: Receiver<Question>,
    metrics: &Metrics,
) {
    let mut kept = Kept::new();
    let mut encoder = Encoder { ids: FrameIds::new(), json: Vec::new() };
    loop {
        select! {
            recv(appends) -> batch => {
                let Ok(batch) = batch else { return };
                let answer = commit(batch, &mut kept, &mut encoder, metrics);
                if appended.send(answer).is_err() {
                    return;
                }
            }
            recv(questions) -> question => match question {
                // Whoever asked may have given up waiting.
                Ok(Question::Rooms { after, limit, answer }) => drop(answer.try_send(kept.rooms(after.as_ref(), limit))),
                Ok(Question::Room { id, answer }) => drop(answer.try_send(kept.room(&id))),
                // No reader is left; batches may still come.
                Err(_) => questions = never(),
            },
        }
    }
}

/// Gives everything in a batch its place, with one reading of the clock for all of it.
fn commit(batch: Vec<Append>, kept: &mut Kept, encoder: &mut Encoder, metrics: &Metrics) -> Vec<Appended> {
    debug_assert!(batch.len() <= APPENDS_PENDING_MAX + crate::limits::FRAMES_PER_COMMAND_MAX);
    let now = Timestamp::now();
    let mut messages = 0;
    let answer = batch.into_iter().map(|append| match append {
        Append::Message(message) => {
            messages += 1;
            let stored = kept.append(&message.room, |seq| encoder.encode(&message, seq, &now));
            Appended::Message { room: message.room, stored }
        }
        Append::Join { room, ticket, wants_past } => {
            kept.enter(&room);
            let past = wants_past.then(|| kept.past(&room));
            Appended::Join { room, ticket, past }
        }
        Append::Leave { room, ticket } => {
            kept.exit(&room);
            Appended::Leave { room, ticket }
        }
    });
    let answer = answer.collect();
    kept.forget_oldest();
    metrics.messages.add(messages);
    answer
}

/// Makes the frame of a message, once for everybody.
struct Encoder {
    ids: FrameIds,
    json: Vec<u8>,
}

impl Encoder {
    fn encode(&mut self, message: &NewMessage, seq: Seq, now: &Timestamp) -> Stored {
        let id = self.ids.next(now);
        self.json.clear();
        Frame {
            id,
            room_id: &message.room,
            user_id: message.author.id,
            username: &message.author.username,
            content: &message.content,
            kind: FrameType::Text,
            timestamp: now,
            seq: Some(seq),
            nonce: message.nonce.as_ref(),
            reply_to: message.reply_to,
            welcome: None,
            error: None,
        }
        .encode(&mut self.json);
        Stored { id, seq, json: Arc::from(self.json.as_slice()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{UserId, Username};

    fn message(room: &str, content: &str) -> Append {
        Append::Message(NewMessage {
            room: RoomId::parse(room).unwrap(),
            author: Arc::new(Person { id: UserId(uuid::Uuid::nil()), username: Username::parse("ana").unwrap() }),
            content: content.into(),
            nonce: Some(Nonce::parse("n").unwrap()),
            reply_to: None,
        })
    }

    fn seqs(answer: &[Appended]) -> Vec<(String, u64)> {
        let places = answer.iter().filter_map(|appended| match appended {
            Appended::Message { room, stored } => Some((room.to_string(), stored.seq.0)),
            _ => None,
        });
        places.collect()
    }

    #[test]
    fn each_room_counts_for_itself_and_order_is_kept() {
        let (writer, reader, thread) = start(Arc::default()).unwrap();
        let tea = RoomId::parse("tea").unwrap();
        let join = |wants_past| Append::Join { room: tea.clone(), ticket: 7, wants_past };
        writer.appends.send(vec![message("tea", "1"), message("jam", "1"), join(true), message("tea", "2")]).unwrap();
        let answer = writer.appended.recv().unwrap();
        assert_eq!(seqs(&answer), [("tea".into(), 1), ("jam".into(), 1), ("tea".into(), 2)]);
        let Appended::Join { ticket: 7, past: Some(past), .. } = &answer[2] else { panic!("{answer:?}") };
        assert_eq!((past.head, past.frames.len()), (Seq(1), 1));

        let rooms = reader.rooms(None, 10).unwrap();
        let names: Vec<_> = rooms.iter().map(|room| (room.id.as_str(), room.head.0)).collect();
        assert_eq!(names, [("jam", 1), ("tea", 2)]);
        assert_eq!(reader.room(tea.clone()).unwrap().unwrap().head, Seq(2));
        assert_eq!(reader.room(RoomId::parse("none").unwrap()), Some(None));
        assert_eq!(reader.rooms(Some(RoomId::parse("jam").unwrap()), 10).unwrap().len(), 1);

        drop(reader);
        writer.appends.send(vec![message("tea", "3")]).unwrap();
        assert_eq!(seqs(&writer.appended.recv().unwrap()), [("tea".into(), 3)]);
        drop(writer);
        thread.join().unwrap();
    }
}
