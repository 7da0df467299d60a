//! The pager: a thread that reads a room's history, page by page, for members whose gap is longer than the room's ring.
//! The hub sends a request and does not wait; the page comes back through a channel.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::limits::{PAGE_BYTES_MAX, PAGE_FRAMES_MAX, STORE_STACK_BYTES};
use crate::model::Seq;
use crate::store::entry::Stored;
use crate::store::{Kinds, PageLimit, ReadError, Reader, Side, View};
use crate::threads::{AbortOnPanic, Sleeper, WakingSender, lower_priority};

use super::state::{Fetch, Span};

/// How much lower this thread's priority is than the hub's: live frames come before a replay.
const NICE: i32 = 15;

/// The hub's end of the pager's channels.
#[derive(Debug)]
pub struct Pager {
    /// Both channels are bounded by the requests of the hub. It asks for one page at a time for each join that is
    /// catching up. Such joins are bounded by the number of connections and the rooms of each.
    fetches: Sender<Fetch>,
    /// The pages, each with its request. A page is empty if there are no more frames, and `None` if it can't be read.
    pub pages: Receiver<(Fetch, Option<Vec<Stored>>)>,
}

impl Pager {
    /// Starts the thread. It ends when the hub's end is dropped.
    pub fn start(reader: Reader, hub: &Sleeper) -> io::Result<(Self, JoinHandle<()>)> {
        let (fetches, asked) = unbounded();
        let (answers, pages) = hub.channel(None);
        let builder = thread::Builder::new().name("pager".into()).stack_size(STORE_STACK_BYTES);
        let thread = builder.spawn(move || {
            let _abort = AbortOnPanic("pager");
            lower_priority(NICE);
            run(&reader, &asked, &answers);
        })?;
        Ok((Self { fetches, pages }, thread))
    }

    pub fn fetch(&self, fetch: Fetch) {
        // The pager does not end before the hub.
        let _ = self.fetches.send(fetch);
    }
}

fn run(reader: &Reader, asked: &Receiver<Fetch>, answers: &WakingSender<(Fetch, Option<Vec<Stored>>)>) {
    for fetch in asked {
        let page = reader.view(|view| page(view, &fetch)).inspect_err(|error| log::error!("{error}")).ok();
        if answers.send((fetch, page)).is_err() {
            return;
        }
    }
}

/// The next page of a request. Reads only what is sent at once, however long the frames after it are.
fn page(view: &View<'_>, fetch: &Fetch) -> Result<Vec<Stored>, ReadError> {
    let read = |side: Side, kinds, limit| view.page(&fetch.room, side.above(fetch.floor), kinds, limit);
    let (after, kinds) = match fetch.span {
        Span::Latest { count, until } => {
            let latest = read(Side::Before(until.next()), Kinds::Messages, count.into())?;
            let Some(first) = latest.first() else { return Ok(latest) };
            (Seq(first.seq.0 - 1), Kinds::Messages)
        }
        Span::Messages { after, .. } => (after, Kinds::Messages),
        Span::All { after } => (after, Kinds::All),
    };
    read(Side::After(after), kinds, PageLimit { frames: PAGE_FRAMES_MAX, bytes: PAGE_BYTES_MAX })
}
