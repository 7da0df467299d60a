//! The writer: everything in a batch gets its place and is committed, or none of it is.

use std::collections::HashMap;

use rusqlite::{Connection, ErrorCode};

use crate::ids::FrameIds;
use crate::limits::HISTORY_MAX;
use crate::model::{Seq, Timestamp};
use crate::protocol::{After, ErrorCode as Code, Rejected};

use super::accounts;
use super::messages::{self, RoomRow, Side};
use super::rooms::Rooms;
use super::{Append, Appended, NO_SUCH_REPLY, NewMessage, Past, exit_on_sync_failure, nonce_conflict};

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
        let writes =
            batch.iter().any(|append| matches!(append, Append::Message(_) | Append::Join { guest: Some(_), .. }));
        if !writes {
            return batch.iter().map(|append| self.append(append, &now, &mut HashMap::new())).collect();
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut touched = HashMap::new();
        let answer =
            batch.iter().map(|append| self.append(append, &now, &mut touched)).collect::<rusqlite::Result<_>>();
        let answer = answer.and_then(|answer: Vec<Appended>| {
            for (key, head) in touched {
                messages::update_head(&self.connection, RoomRow { key, head })?;
            }
            self.connection.execute_batch("COMMIT")?;
            Ok(answer)
        });
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // Some errors have rolled it back already.
                if !self.connection.is_autocommit() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    fn append(&mut self, append: &Append, now: &Timestamp, touched: &mut Heads) -> rusqlite::Result<Appended> {
        match append {
            Append::Message(new) => self.append_message(new, now, touched),
            Append::Join { room, ticket, known, after, guest } => {
                if let Some(guest) = guest {
                    accounts::begin_session(&self.connection, &guest.session(), now)?;
                }
                let row = self.rooms.row(&self.connection, room)?;
                let past = if known.is_none() { Some(self.past(row)?) } else { None };
                let seen = self.seen(row, *after)?;
                Ok(Appended::Join { room: room.clone(), ticket: *ticket, past, seen, is_known: true })
            }
            Append::Leave { room, ticket } => Ok(Appended::Leave { room: room.clone(), ticket: *ticket }),
        }
    }

    fn append_message(&mut self, new: &NewMessage, now: &Timestamp, touched: &mut Heads) -> rusqlite::Result<Appended> {
        let ticket = new.ticket;
        let row = self.rooms.row(&self.connection, &new.room)?;
        if let Some(answered) = new.reply_to
            && self.seen(row, Some(After::Id(answered)))?.is_none()
        {
            // A retry may come when what it answers has gone.
            if let Some(answer) = self.sent_before(new)? {
                return Ok(answer);
            }
            let rejected = Rejected::new(Code::NotFound, NO_SUCH_REPLY, new.nonce.clone());
            return Ok(Appended::Refused { room: new.room.clone(), rejected, ticket });
        }
        let mut row = match row {
            Some(row) => row,
            None => messages::insert_room(&self.connection, &new.room)?,
        };
        let stored = messages::encode_new(new, self.ids.next(now), row.head.next(), now, &mut self.json);
        if messages::insert(&self.connection, row, new, &stored, now)? {
            row.head = row.head.next();
            self.rooms.set(&new.room, row);
            touched.insert(row.key, row.head);
            return Ok(Appended::Message { room: new.room.clone(), stored, ticket });
        }
        // Only a nonce can stand in the way.
        self.sent_before(new)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// The answer to a message whose author has used its nonce before; nothing where it is new.
    fn sent_before(&mut self, new: &NewMessage) -> rusqlite::Result<Option<Appended>> {
        let Some(nonce) = &new.nonce else { return Ok(None) };
        let Some(before) = messages::by_nonce(&self.connection, new.author.id, nonce)? else { return Ok(None) };
        let ticket = new.ticket;
        Ok(Some(if before.says_the_same(new) {
            Appended::Duplicate { stored: before.stored(true, &mut self.json), ticket }
        } else {
            Appended::Refused { room: new.room.clone(), rejected: nonce_conflict(new), ticket }
        }))
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
            Append::Message(new) => self.sent_before(&new).ok().flatten().unwrap_or_else(|| {
                let NewMessage { room, nonce, ticket, .. } = new;
                let rejected = Rejected { retry_ms: Some(1_000), ..Rejected::new(Code::Busy, sentence, nonce) };
                Appended::Refused { room, rejected, ticket }
            }),
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
