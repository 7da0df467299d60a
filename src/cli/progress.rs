//! The progress bar of a command.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::store::Progress;

/// Time between two updates of the progress bar.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// Width of the progress bar in characters.
const BAR_CHARS: u64 = 30;

/// A progress bar on standard error; nothing is shown if that is not a terminal.
pub struct Bar<W: Write> {
    what: &'static str,
    terminal: Option<W>,
    shown: Option<Instant>,
}

impl Bar<io::Stderr> {
    pub fn on_terminal(what: &'static str) -> Self {
        let stderr = io::stderr();
        Self { what, terminal: stderr.is_terminal().then_some(stderr), shown: None }
    }
}

impl<W: Write> Bar<W> {
    pub fn tell(&mut self, progress: Progress) {
        let is_time = self.shown.is_none_or(|shown| shown.elapsed() >= BAR_EVERY) || progress.done == progress.whole;
        if let Some(terminal) = &mut self.terminal
            && is_time
        {
            let whole = progress.whole.max(1);
            let full = progress.done.min(whole) * BAR_CHARS / whole;
            let bar: String = (0..BAR_CHARS).map(|at| if at < full { '#' } else { '.' }).collect();
            let percent = progress.done.min(whole) * 100 / whole;
            // An error means that the terminal is gone.
            let _ = write!(terminal, "\r{} [{bar}] {percent:3} %", self.what).and_then(|()| terminal.flush());
            self.shown = Some(Instant::now());
        }
    }

    pub fn end(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && self.shown.is_some()
        {
            let _ = writeln!(terminal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_bar_is_one_line_that_fills() {
        let mut bar = Bar { what: "copying", terminal: Some(Vec::new()), shown: None };
        bar.tell(Progress { done: 1, whole: 4 });
        bar.tell(Progress { done: 4, whole: 4 });
        bar.end();
        let text = String::from_utf8(bar.terminal.unwrap()).unwrap();
        let lines: Vec<&str> = text.split('\r').collect();
        assert_eq!(lines[1], "copying [#######.......................]  25 %");
        assert_eq!(lines[2], "copying [##############################] 100 %\n");
    }

    #[test]
    fn a_bar_without_progress_shows_nothing() {
        let mut bar = Bar { what: "copying", terminal: Some(Vec::new()), shown: None };
        bar.end();
        assert!(bar.terminal.unwrap().is_empty());
    }
}
