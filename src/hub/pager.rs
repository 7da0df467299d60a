//! The pager: a thread that reads a room's history, page by page, for members whose gap is longer than the room's ring.
//! The hub sends a request and does not wait; the page comes back through a channel.

use std::io;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::limits::{PAGE_BYTES_MAX, PAGE_FRAMES_MAX, STORE_STACK_BYTES};
use crate::store::entry::Stored;
use crate::store::{Kinds, Reader, Side};
use crate::threads::{AbortOnPanic, lower_priority};

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
    pub fn start(reader: Reader) -> io::Result<(Self, JoinHandle<()>)> {
        let (fetches, asked) = unbounded();
        let (answers, pages) = unbounded();
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

fn run(reader: &Reader, asked: &Receiver<Fetch>, answers: &Sender<(Fetch, Option<Vec<Stored>>)>) {
    for fetch in asked {
        let (side, kinds, limit) = match fetch.span {
            Span::Latest { count, until } => (Side::Before(until.next()), Kinds::Messages, count),
            Span::Messages { after, .. } => (Side::After(after), Kinds::Messages, PAGE_FRAMES_MAX),
            Span::All { after } => (Side::After(after), Kinds::All, PAGE_FRAMES_MAX),
        };
        let page = reader.view(|view| view.page(&fetch.room, side.above(fetch.floor), kinds, limit));
        let page = page.map(fitting).inspect_err(|error| log::error!("{error}")).ok();
        if answers.send((fetch, page)).is_err() {
            return;
        }
    }
}

/// Cuts a page to the frames that are sent at once.
fn fitting(mut frames: Vec<Stored>) -> Vec<Stored> {
    let mut bytes = 0;
    let fitting = frames.iter().take_while(|stored| {
        let fits = bytes <= PAGE_BYTES_MAX;
        bytes += stored.json.len();
        fits
    });
    let fitting = fitting.count();
    frames.truncate(fitting);
    frames
}
