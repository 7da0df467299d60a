//! Asks the operator for a password, without showing it, or whether to continue. Runs in the command's process.
//!
//! While a password is typed the terminal does not echo. A signal that ends the process first restores the terminal, so
//! that the shell echoes again.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process;
use std::thread::{self, JoinHandle};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::Error;
use crate::auth::password::{PASSWORD_BYTES_MAX, Password};
use crate::model::Username;

/// Maximum bytes of a line that are read. It is above the longest password in any Unicode composition, so that a
/// password that is too long is detected.
const LINE_BYTES_MAX: u64 = 4 * PASSWORD_BYTES_MAX as u64;

/// Asks for a new password: twice on a terminal, else it reads one line of standard input.
pub fn new_password(of: &Username) -> Result<Password, Error> {
    let parse = |text: &str| Password::new(text, of).map_err(|error| Error::Refused(error.to_string()));
    if !io::stdin().is_terminal() {
        return parse(&line("no password on standard input; type one, or pipe one line")?);
    }
    let first = parse(&hidden(&format!("Password for {}: ", of.as_str()))?)?;
    let second = parse(&hidden("Repeat password: ")?);
    if second.is_ok_and(|second| second == first) {
        Ok(first)
    } else {
        Err(Error::Refused("passwords do not match".to_owned()))
    }
}

/// Asks whether to continue, on a terminal; any answer but yes is no.
pub fn is_sure(question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage("standard input is not a terminal; use --yes to confirm".to_owned()));
    }
    prompt(&format!("{question} [y/N] "))?;
    let answer = line("").unwrap_or_default().trim().to_lowercase();
    Ok(matches!(answer.as_str(), "y" | "yes"))
}

/// A line of input without its end. `none` is the error for an empty input.
fn line(none: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(failed)?;
    if bytes.is_empty() {
        return Err(Error::Refused(none.to_owned()));
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map_err(|_| Error::Refused("password is not UTF-8".to_owned()))
}

fn hidden(question: &str) -> Result<String, Error> {
    let _hush = Hush::begin().map_err(failed)?;
    prompt(question)?;
    line("no password")
}

fn prompt(question: &str) -> Result<(), Error> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)
}

fn failed(error: io::Error) -> Error {
    Error::Refused(format!("failed to read from the terminal: {error}"))
}

/// A terminal that echoes only the end of a line. Dropping this restores the terminal, as does a signal that ends the
/// process.
struct Hush {
    before: Termios,
    signals: Handle,
    watch: Option<JoinHandle<()>>,
}

impl Hush {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        // The signals are handled before the echo is turned off.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let handle = signals.handle();
        let restored = before.clone();
        let watch = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                show(&restored);
                // Ends the line of the prompt, because the shell continues behind it.
                let _ = writeln!(io::stderr());
                process::exit(128 + signal);
            }
        })?;
        let mut hushed = before.clone();
        hushed.local_modes.remove(LocalModes::ECHO);
        // The end of the line is echoed, so that the operator sees that the input was taken.
        hushed.local_modes.insert(LocalModes::ECHONL);
        let hush = Self { before, signals: handle, watch: Some(watch) };
        // Input that was typed before was shown on the terminal, so it is not secret and is discarded.
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
    // An error means that the terminal is gone.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}
