//! The writer: everything in a batch gets its place and is committed, or none of it is.

use std::collections::HashMap;

use rusqlite::{Connection, ErrorCode};

use crate::ids::FrameIds;
use crate::limits::HISTORY_MAX;
use crate::model::{RoomId, Seq, Timestamp};
use crate::protocol::{After, ErrorCode as Code, NO_SUCH_REPLY, Rejected};

use super::accounts;
use super::messages::{self, Message, RoomRow, Side};
use super::rooms::Rooms;
use super::{
    Append, Appended, NewMessage, Past, exit_on_sync_failure, log_taken_back, may_take_back, refused, sent_before,
};

/// The writer: its connection, and where each room's order stands.
pub struct Store {
    pub connection: Connection,
    pub rooms: Rooms,
    ids: FrameIds,
    json: Vec<u8>,
}

impl Store {
    pub fn new(connection: Connection) -> Self {
        Self { connection, rooms: Rooms::default(), ids: FrameIds::new(), json: Vec::new() }
    }

    /// Gives everything in a batch its place and commits it, with one reading of the clock for all of it.
    pub fn commit(&mut self, batch: Vec<Append>) -> Vec<Appended> {
        self.rooms.note(&batch);
        match self.try_commit(&batch) {
            Ok(answer) => answer,
            Err(error) => {
                exit_on_sync_failure(&error);
                // What was read of the rooms may be of what was rolled back.
                self.rooms.clear();
                log::error!("failed to store {} commands: {error}", batch.len());
                self.refuse(batch, &error)
            }
        }
    }

    fn try_commit(&mut self, batch: &[Append]) -> rusqlite::Result<Vec<Appended>> {
        let now = Timestamp::now();
        let mut answer = Vec::with_capacity(batch.len());
        let writes = |append: &Append| !matches!(append, Append::Join { guest: None, .. } | Append::Leave { .. });
        if !batch.iter().any(writes) {
            self.append_all(batch, &now, &mut answer)?;
            return Ok(answer);
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let stored = self.append_all(batch, &now, &mut answer).and_then(|touched| {
            for (key, head) in touched {
                messages::update_head(&self.connection, RoomRow { key, head })?;
            }
            self.connection.execute_batch("COMMIT")
        });
        match stored {
            Ok(()) => Ok(answer),
            Err(error) => {
                // Some errors have rolled it back already.
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    /// Gives everything its place; gives back where the orders of the rooms stand that have something new.
    fn append_all(&mut self, batch: &[Append], now: &Timestamp, answer: &mut Vec<Appended>) -> rusqlite::Result<Heads> {
        let mut touched = HashMap::new();
        for append in batch {
            match append {
                Append::Message(new) => answer.push(self.append_message(new, now, &mut touched)?),
                Append::Announcement { rooms, message } => self.announce(rooms, message, now, &mut touched, answer)?,
                Append::Join { room, ticket, known, after, guest } => {
                    if let Some(guest) = guest {
                        accounts::begin_session(&self.connection, &guest.session(), now)?;
                    }
                    let row = self.rooms.row(&self.connection, room)?;
                    let past = if known.is_none() { Some(self.past(row)?) } else { None };
                    let seen = self.seen(row, *after)?;
                    answer.push(Appended::Join { room: room.clone(), ticket: *ticket, past, seen, is_known: true });
                }
                Append::Leave { room, ticket } => {
                    answer.push(Appended::Leave { room: room.clone(), ticket: *ticket });
                }
            }
        }
        Ok(touched)
    }

    fn append_message(&mut self, new: &NewMessage, now: &Timestamp, touched: &mut Heads) -> rusqlite::Result<Appended> {
        let row = self.rooms.row(&self.connection, &new.room)?;
        let checked = match &new.refusal {
            Some(rejected) => Err(Rejected::clone(rejected)),
            None => self.check(new, row)?,
        };
        let target = match checked {
            Ok(target) => target,
            // A retry may come when what it was about has gone, or when it would not be taken any more.
            Err(rejected) => return Ok(self.sent_before(new)?.unwrap_or_else(|| refused(new, rejected))),
        };
        let mut row = match row {
            Some(row) => row,
            None => messages::insert_room(&self.connection, &new.room)?,
        };
        let stored = messages::encode_new(new, self.ids.next(now), row.head.next(), now, &mut self.json);
        if !messages::insert(&self.connection, row, new, &stored, now)? {
            // Only a nonce can stand in the way.
            return self.sent_before(new)?.ok_or(rusqlite::Error::QueryReturnedNoRows);
        }
        row.head = row.head.next();
        self.rooms.set(&new.room, row);
        touched.insert(row.key, row.head);
        let erased = match target.map(|message| message.erased(now)) {
            Some(erased) => {
                messages::erase(&self.connection, row.key, &erased)?;
                let erased = erased.stored(false, &mut self.json);
                log_taken_back(new, &erased);
                Some(erased)
            }
            None => None,
        };
        Ok(Appended::Message { room: new.room.clone(), stored, erased, ticket: new.ticket })
    }

    /// Whether a message may be stored that is new, as far as what it is about goes: what it answers must be there,
    /// and so must what it takes back, which is given.
    fn check(&self, new: &NewMessage, row: Option<RoomRow>) -> rusqlite::Result<Result<Option<Message>, Rejected>> {
        let NewMessage { body, .. } = new;
        if let Some(answered) = body.reply_to()
            && self.seen(row, Some(After::Id(answered)))?.is_none()
        {
            return Ok(Err(Rejected::new(Code::NotFound, NO_SUCH_REPLY, None)));
        }
        let Some(message_id) = body.message_id() else { return Ok(Ok(None)) };
        let message = match row {
            Some(row) => messages::by_id(&self.connection, row.key, message_id)?,
            None => None,
        };
        Ok(may_take_back(new, message.as_ref()).map(|()| message))
    }

    /// A message in several rooms, of which only the first bears its nonce: it is in all of them or in none.
    fn announce(
        &mut self,
        rooms: &[RoomId],
        message: &NewMessage,
        now: &Timestamp,
        touched: &mut Heads,
        answer: &mut Vec<Appended>,
    ) -> rusqlite::Result<()> {
        let first = self.append_message(message, now, touched)?;
        let is_new = matches!(first, Appended::Message { .. });
        answer.push(first);
        for room in rooms.iter().skip(1).filter(|_| is_new) {
            answer.push(self.append_message(&message.copy_in(room), now, touched)?);
        }
        Ok(())
    }

    /// The answer to a message whose author has used its nonce before; nothing where it is new.
    fn sent_before(&mut self, new: &NewMessage) -> rusqlite::Result<Option<Appended>> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let before = messages::by_nonce(&self.connection, new.author.id, nonce)?;
        Ok(before.map(|before| sent_before(new, &before, &mut self.json)))
    }

    fn seen(&self, row: Option<RoomRow>, after: Option<After>) -> rusqlite::Result<Option<Seq>> {
        match (row, after) {
            (Some(row), Some(After::Id(id))) => messages::seq_of(&self.connection, row.key, id),
            _ => Ok(None),
        }
    }

    fn past(&mut self, row: Option<RoomRow>) -> rusqlite::Result<Past> {
        let Some(row) = row else { return Ok(Past::default()) };
        let latest = messages::page(&self.connection, row.key, Side::Before(row.head.next()), HISTORY_MAX)?;
        let frames = latest.iter().map(|message| message.stored(false, &mut self.json)).collect();
        Ok(Past { head: row.head, frames })
    }

    /// Answers a batch of which nothing is stored. People come and go all the same.
    fn refuse(&mut self, batch: Vec<Append>, error: &rusqlite::Error) -> Vec<Appended> {
        let sentence = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "the disk is full: the message is not stored",
            _ => "the message can't be stored now",
        };
        let refused = batch.into_iter().map(|append| match append {
            // It may be the retry of one that was stored: that it is not would be wrong.
            Append::Message(new) | Append::Announcement { message: new, .. } => {
                self.sent_before(&new).ok().flatten().unwrap_or_else(|| {
                    refused(&new, Rejected { retry_ms: Some(1_000), ..Rejected::new(Code::Busy, sentence, None) })
                })
            }
            Append::Join { room, ticket, known, after, .. } => {
                let row = self.rooms.row(&self.connection, &room).ok().flatten();
                // Reading goes on. What can't be read now, the next to come asks for again.
                let past = if known.is_none() { self.past(row).ok() } else { None };
                let seen = self.seen(row, after).ok().flatten();
                Appended::Join { room, ticket, past, seen, is_known: false }
            }
            Append::Leave { room, ticket } => Appended::Leave { room, ticket },
        });
        refused.collect()
    }
}

/// Where the orders of some rooms stand, by their keys.
type Heads = HashMap<i64, Seq>;
