//! The verdict: whether all members received all messages, once and in order.

use crate::member::{Member, Sightings};

/// The faults of a whole load.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that were missing when a later one arrived, at sampled members.
    pub gaps: u64,
    /// Messages that arrived twice or too late; at members that only count, the messages beyond what the sampled
    /// members received.
    pub duplicates: u64,
    /// Messages that did not arrive.
    pub losses: u64,
    /// `error` frames.
    pub refusals: u64,
    /// Connections that ended.
    pub gone: u64,
    /// Whether the server sent a `seq` to check.
    pub seq_checked: bool,
    /// The text of one refusal or of one end.
    pub example: Option<String>,
}

impl Verdict {
    /// Judges all rooms, at a time when all messages should have arrived.
    pub fn of<'a>(rooms: impl Iterator<Item = &'a [Member]>, sightings: &Sightings) -> Self {
        let mut verdict = Self {
            refusals: sightings.refusals,
            seq_checked: true,
            example: sightings.refusal.clone(),
            ..Self::default()
        };
        let message_bytes = (sightings.watched_bytes / sightings.watched_messages.max(1)).max(1);
        for room in rooms {
            verdict.judge(room, message_bytes);
        }
        verdict
    }

    pub fn is_clean(&self) -> bool {
        self.gaps + self.duplicates + self.losses + self.refusals + self.gone == 0
    }

    fn judge(&mut self, room: &[Member], message_bytes: u64) {
        let sent = room.iter().filter_map(|member| member.sender.as_ref()).map(|sender| u64::from(sender.sent)).sum();
        let live_bytes = live_bytes(room, sent);
        for member in room {
            if let Some(why) = &member.gone {
                self.gone += 1;
                self.example.get_or_insert_with(|| why.clone());
            }
            match &member.witness {
                Some(witness) => {
                    self.gaps += witness.gaps();
                    self.duplicates += witness.duplicates;
                    self.losses += sent - witness.count().min(sent);
                    self.seq_checked &= witness.has_seq();
                }
                None => {
                    self.losses += live_bytes.saturating_sub(member.live_bytes).div_ceil(message_bytes);
                    self.duplicates += member.live_bytes.saturating_sub(live_bytes).div_ceil(message_bytes);
                }
            }
        }
    }
}

/// The bytes of live traffic that each member of a room should have read: as many as a sampled member that received
/// everything once. Without one, as many as the member with the most.
fn live_bytes(room: &[Member], sent: u64) -> u64 {
    let watched = || room.iter().filter_map(|member| Some((member.witness.as_ref()?, member.live_bytes)));
    let faultless = watched().filter(|(witness, _)| witness.count() == sent).map(|(_, bytes)| bytes).min();
    faultless.or_else(|| watched().map(|(_, bytes)| bytes).max()).unwrap_or(0)
}
