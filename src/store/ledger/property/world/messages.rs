//! Entries of messages, and of connections that leave.

use super::*;

impl World {
    pub(super) fn message(&mut self, kind: Kind, wanted: Verdict) -> Made {
        let is_kind = |entry: &&Entry| Kind::of(entry) == kind;
        if matches!(wanted, Verdict::Duplicate | Verdict::Refused(Reason::NonceUsed)) {
            let sent: Vec<_> = self.sent.iter().filter(is_kind).cloned().collect();
            let Some(mut entry) = self.random.of(&sent).cloned() else {
                let Entry::Message(mut message) = self.message(kind, Verdict::Accepted)? else {
                    return self.message(kind, Verdict::Accepted);
                };
                message.nonce = Some(self.nonce());
                return Err(Entry::Message(message));
            };
            let (Entry::Message(message) | Entry::Announcement { message, .. }) = &mut entry else { unreachable!() };
            if self.random.once_in(3) {
                message.unless_stored = Some(Box::new(Reason::RateLimited.into()));
            }
            if wanted != Verdict::Duplicate {
                match &mut message.body {
                    Body::Text { content, .. } | Body::Announcement { content } => *content = "another text".into(),
                    Body::Delete { message_id } => *message_id = FrameId(self.random.uuid()),
                    Body::Rename { .. } => unreachable!(),
                }
            }
            return Ok(entry);
        }
        let action = match kind {
            Kind::Text => Action::Post,
            Kind::Announcement => Action::Announce,
            _ => Action::Delete,
        };
        let target =
            if wanted == Verdict::Refused(Reason::NotYours) { Target::Others(Role::Guest) } else { Target::Own };
        let (author, room) = match wanted {
            Verdict::Refused(Reason::Kicked) => self.kicked_client(action)?,
            Verdict::Refused(Reason::SlowMode) => self.slowed_client()?,
            _ => self.able(action, target, wanted)?,
        };
        let content: Box<str> =
            (0..3).map(|_| WORDS[self.random.below(WORDS.len())]).collect::<Vec<_>>().join(" ").into();
        let body = match kind {
            Kind::Text => {
                let reply_to = match wanted {
                    Verdict::Refused(Reason::NoSuchReply) => Some(FrameId(self.random.uuid())),
                    _ if self.random.once_in(4) => self.a_frame(&room).map(|frame| frame.id),
                    _ => None,
                };
                Body::Text { content, reply_to }
            }
            Kind::Announcement => Body::Announcement { content },
            _ => Body::Delete { message_id: self.deletable(&author, &room, wanted)? },
        };
        let is_in = self.is_present(&room, author.user());
        let is_member = is_in && self.random.once_in(2) || wanted == Verdict::Refused(Reason::Kicked);
        let unless_stored = match wanted {
            Verdict::Refused(reason @ (Reason::RateLimited | Reason::NotInRoom)) => Some(Box::new(reason.into())),
            _ => None,
        };
        let nonce = (!self.random.once_in(8)).then(|| self.nonce());
        let message = NewMessage { room: room.clone(), author, body, nonce, is_member, unless_stored };
        if kind != Kind::Announcement || message.unless_stored.is_some() {
            return Ok(Entry::Message(message));
        }
        let mut rooms = vec![room];
        for other in self.rooms.clone() {
            if !rooms.contains(&other) && self.random.once_in(3) {
                rooms.push(other);
            }
        }
        Ok(Entry::Announcement { rooms, message })
    }

    /// Repeats one of the latest messages that were stored with a nonce.
    pub(super) fn retry(&mut self) -> Entry {
        let at = self.random.below(self.sent.len());
        self.sent[at].clone()
    }

    /// Few nonces are used again when their message is forgotten. Many nonces show a fault that affects only some of
    /// them.
    pub(super) fn nonce(&mut self) -> Nonce {
        let count = if self.random.once_in(4) { 30 } else { 10_000 };
        Nonce::parse(&format!("n{}", self.random.below(count))).unwrap()
    }

    pub(super) fn kicked_client(&mut self, action: Action) -> Result<(Client, RoomId), Entry> {
        let kicked = self.kicked.clone();
        let found = kicked.iter().find_map(|(room, user)| {
            let client = self.clients.iter().find(|client| client.user() == *user)?;
            let fits = self.is_present(room, *user) && self.fits(client, action, Some(room), Target::Own, Ok(()));
            fits.then(|| (Arc::clone(client), room.clone()))
        });
        found.ok_or_else(|| self.kick(Verdict::Accepted).unwrap_or_else(|step| step))
    }

    /// A client that posted a moment ago in a room with slow mode.
    pub(super) fn slowed_client(&mut self) -> Result<(Client, RoomId), Entry> {
        let slow: Vec<_> = self.rooms.iter().filter(|room| self.slow_mode_s(room) > 0).cloned().collect();
        for room in &slow {
            let fits = |client: &&Client| {
                let last_message = self.last_message.get(&(room.clone(), client.user()));
                let is_slowed = last_message
                    .is_some_and(|at| at + 1_000 * u64::from(self.slow_mode_s(room)) > self.moment.clock_ms);
                is_slowed && self.policy.role(client).is_ok_and(|role| role != Role::Admin)
            };
            let client = self
                .clients
                .iter()
                .filter(fits)
                .find(|client| self.fits(client, Action::Post, Some(room), Target::Own, Ok(())));
            if let Some(client) = client {
                return Ok((Arc::clone(client), room.clone()));
            }
        }
        if slow.is_empty() {
            return Err(self.step(Some(Reason::SlowMode)));
        }
        Err(self.message(Kind::Text, Verdict::Accepted).unwrap_or_else(|step| step))
    }

    pub(super) fn slow_mode_s(&self, room: &RoomId) -> u32 {
        self.policy.room(room).map_or(0, |settings| settings.slow_mode_s)
    }

    /// The message that a client deletes.
    pub(super) fn deletable(&mut self, author: &Client, room: &RoomId, wanted: Verdict) -> Result<FrameId, Entry> {
        let user = author.user();
        let may_all = self.policy.role(author) == Ok(Role::Admin);
        let frames = self.frames.get(room).cloned().unwrap_or_default();
        let fits = |frame: &&KnownFrame| match wanted {
            Verdict::Accepted => frame.is_message && (frame.author == user || may_all),
            Verdict::Refused(Reason::NotYours) => frame.is_message && frame.author != user,
            Verdict::Refused(Reason::NoSuchMessage) => !frame.is_message,
            _ => true,
        };
        let frames: Vec<_> = frames.iter().filter(fits).map(|frame| frame.id).collect();
        match self.random.of(&frames) {
            Some(id) => Ok(*id),
            None if matches!(wanted, Verdict::Accepted | Verdict::Refused(Reason::NotYours)) => {
                Err(self.message(Kind::Text, Verdict::Accepted).unwrap_or_else(|step| step))
            }
            None => Ok(FrameId(self.random.uuid())),
        }
    }

    pub(super) fn a_frame(&mut self, room: &RoomId) -> Option<KnownFrame> {
        let frames = self.frames.get(room)?;
        self.random.of(frames).cloned()
    }

    pub(super) fn leave(&mut self) -> Entry {
        // Sometimes a connection of a kicked user goes first.
        let is_kicked =
            |(room, client, _): &&(RoomId, Client, ConnectionId)| self.kicked.contains(&(room.clone(), client.user()));
        let kicked = self.connections.iter().find(is_kicked).cloned();
        let one = kicked.filter(|_| self.moment.index.is_multiple_of(4));
        let one = one.or_else(|| self.random.of(&self.connections).cloned());
        let (room, user, connection) = match one {
            Some((room, client, connection)) => (room, client.user(), connection),
            None => (self.a_room(), UserId(self.random.uuid()), ConnectionId(0)),
        };
        // A connection whose join was refused leaves too.
        let connection = if self.random.once_in(4) { ConnectionId(0) } else { connection };
        Entry::Leave { room, user, connection }
    }
}
