//! What is asked of the operator: a password, without showing it, or whether to go on.
//!
//! While a password is typed the terminal shows nothing. A signal that ends the process meanwhile first puts the terminal
//! back, so that the shell shows again what is typed.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process;
use std::thread::{self, JoinHandle};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::Error;
use crate::auth::password::{PASSWORD_BYTES_MAX, Password};
use crate::model::Username;

/// Bytes of a line that are read: more than a password has however its letters are composed, so that one that is too long
/// is known to be.
const LINE_BYTES_MAX: u64 = 4 * PASSWORD_BYTES_MAX as u64;

/// Asks for a new password: twice on a terminal, else it is a line of standard input.
pub fn new_password(of: &Username) -> Result<Password, Error> {
    let parse = |text: &str| Password::new(text, of).map_err(|error| Error::Refused(error.to_string()));
    if !io::stdin().is_terminal() {
        return parse(&line("no password on standard input")?);
    }
    let first = parse(&hidden(&format!("Password for {}: ", of.as_str()))?)?;
    let second = parse(&hidden("The same again: ")?);
    if second.is_ok_and(|second| second == first) {
        Ok(first)
    } else {
        Err(Error::Refused("the two passwords are not the same".to_owned()))
    }
}

/// Asks whether to go on, on a terminal; anything but yes is no.
pub fn is_sure(question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage("nobody can be asked, as standard input is no terminal; say --yes".to_owned()));
    }
    prompt(&format!("{question} [y/N] "))?;
    let answer = line("").unwrap_or_default().trim().to_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

/// A line as it was typed, without its end. `none` is the sentence where there is none.
fn line(none: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        return Err(Error::Refused(none.to_owned()));
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map_err(|_| Error::Refused("what was given is no text (UTF-8)".to_owned()))
}

fn hidden(question: &str) -> Result<String, Error> {
    let _hush = Hush::begin().map_err(failed)?;
    prompt(question)?;
    line("no password was given")
}

fn prompt(question: &str) -> Result<(), Error> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)
}

fn failed(error: io::Error) -> Error {
    Error::Refused(format!("failed to ask: {error}"))
}

/// A terminal that shows nothing of what is typed but its end; as before when this is dropped, or the process ended.
struct Hush {
    before: Termios,
    signals: Handle,
    watch: Option<JoinHandle<()>>,
}

impl Hush {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        // Heard before anything is hidden.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let restored = before.clone();
        let watch = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                show(&restored);
                // The line that was begun ends, as the shell goes on behind it.
                let _ = writeln!(io::stderr());
                process::exit(128 + signal);
            }
        })?;
        let mut hushed = before.clone();
        hushed.local_modes.remove(LocalModes::ECHO);
        // The line's end is shown: one sees that it was taken.
        hushed.local_modes.insert(LocalModes::ECHONL);
        let hush = Self { before, signals: handle, watch: Some(watch) };
        // What was typed ahead was shown, so it is no secret: it goes.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hushed)?;
        Ok(hush)
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        show(&self.before);
        self.signals.close();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
    }
}

fn show(before: &Termios) {
    // A terminal that is gone shows nothing anyway.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}
