//! The `adda` command: parses the flags, starts the server and stops it on a signal, or runs one of the tools.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use adda::cli::args::{Cli, Command, Serve, TokenCommand, TokenFlags, UserCommand, UserFlags};
use adda::cli::{Error, export, users};
use adda::config::Data;
use adda::limits::LOG_FLUSH_WAIT;
use adda::logging;
use adda::model::role::Accounts;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code for invalid flags or an invalid environment.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(flags) => serve(&flags),
        Command::Export(flags) => tool(flags.export().and_then(|export| export::export(&export))),
        Command::Backup(flags) => tool(flags.database.file().and_then(|data| export::backup(data, &flags.target))),
        Command::Doctor(flags) => doctor(flags.file().and_then(export::doctor)),
        Command::User(flags) => tool(user(&flags)),
        Command::Token(flags) => tool(token(&flags)),
    }
}

fn user(flags: &UserFlags) -> Result<(), Error> {
    let data = flags.database.file()?;
    match &flags.command {
        UserCommand::Add { name, role } => users::add(data, name, *role),
        UserCommand::Passwd { name } => users::set_password(data, name),
        UserCommand::Role { name, role } => users::set_role(data, name, *role),
        UserCommand::List { format } => users::list(data, *format),
        UserCommand::Remove { name, yes } => users::remove(data, name, *yes),
    }
}

fn token(flags: &TokenFlags) -> Result<(), Error> {
    let data = flags.database.file()?;
    match &flags.command {
        TokenCommand::Create { name, label, expires } => users::create_token(data, name, label, *expires),
        TokenCommand::List { name, format } => users::list_tokens(data, name.as_ref(), *format),
        TokenCommand::RotateGuests => users::rotate_guest_key(data),
        TokenCommand::Revoke { id } => users::revoke_token(data, *id),
    }
}

fn serve(flags: &Serve) -> ExitCode {
    let config = match flags.config(std::env::var("PORT").ok().as_deref()) {
        Ok(config) => config,
        Err(sentence) => return fail(&sentence, EXIT_USAGE),
    };
    // Before the start: a signal during the start then stops the server cleanly after it.
    let mut signals = match Signals::new([SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("failed to wait for signals: {error}"), 1),
    };
    if let Err(error) = logging::start(flags.log) {
        return fail(&format!("failed to start the log: {error}"), 1);
    }
    let (accounts, data) = (config.accounts, config.data.clone());
    let running = match adda::start(config) {
        Ok(running) => running,
        Err(error) => {
            log::logger().flush();
            write_briefly(move || print_error(&error.to_string()));
            return ExitCode::FAILURE;
        }
    };
    let address = running.address();
    write_briefly(move || {
        greet(address);
        say_first_steps(accounts, &data);
    });
    let signal = signals.forever().next();
    log::info!("stopping, by {}", if signal == Some(SIGINT) { "Ctrl-C" } else { "SIGTERM" });
    running.stop();
    log::info!("stopped");
    log::logger().flush();
    ExitCode::SUCCESS
}

fn tool(result: Result<(), Error>) -> ExitCode {
    doctor(result.map(|()| true))
}

/// Its exit code also says whether the database is sound.
fn doctor(result: Result<bool, Error>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ Error::Usage(_)) => fail(&error.to_string(), EXIT_USAGE),
        Err(error) => fail(&error.to_string(), 1),
    }
}

/// Writes to a standard stream on a thread of its own, and waits for at most [`LOG_FLUSH_WAIT`]. A terminal that is
/// stopped (Ctrl-S) or a full pipe blocks the write, and must not block the thread that waits for the signals.
fn write_briefly(write: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let output = move || {
        write();
        drop(done);
    };
    match thread::Builder::new().name("output".into()).spawn(output) {
        // Returns when `done` is dropped, or after that time.
        Ok(_) => drop(ended.recv_timeout(LOG_FLUSH_WAIT)),
        Err(error) => log::warn!("failed to start a thread for the output: {error}"),
    }
}

/// Prints the first steps if accounts are required and there is no admin yet.
fn say_first_steps(accounts: Accounts, data: &Data) {
    if let (Accounts::Required, Data::File(file)) = (accounts, data) {
        match users::first_steps(file) {
            Ok(Some(sentence)) => {
                let mut stdout = io::stdout().lock();
                // Standard output may be closed.
                let _ = writeln!(stdout, "\n{sentence}").and_then(|()| stdout.flush());
            }
            Ok(None) => {}
            Err(error) => log::error!("failed to look for an admin: {error}"),
        }
    }
}

fn fail(sentence: &str, code: u8) -> ExitCode {
    print_error(sentence);
    ExitCode::from(code)
}

fn print_error(sentence: &str) {
    // If standard error is closed the sentence is lost; the exit code is still right.
    let _ = writeln!(io::stderr(), "adda: {sentence}");
}

/// Prints the addresses of the server: one line for programs, URLs for people, and a QR code for phones.
fn greet(address: SocketAddr) {
    let mut text = format!("listening on http://{address}\n");
    let open: Vec<String> =
        addresses(address).into_iter().map(|ip| format!("http://{}", SocketAddr::new(ip, address.port()))).collect();
    for url in &open {
        text.push_str(&format!("  open {url}\n"));
    }
    if io::stdout().is_terminal()
        && let Some(url) = open.iter().rev().find(|url| !url.contains("127.0.0.1") && !url.contains("localhost"))
        && let Ok(code) = qrcode::QrCode::new(url)
    {
        let code = code.render::<qrcode::render::unicode::Dense1x2>().quiet_zone(true).build();
        text.push_str(&format!("\n{code}\n"));
    }
    let mut stdout = io::stdout().lock();
    // Standard output may be closed.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The addresses under which the server is reachable from this machine and its networks, loopback first.
fn addresses(address: SocketAddr) -> Vec<IpAddr> {
    if !address.ip().is_unspecified() {
        return vec![address.ip()];
    }
    let mut found: Vec<IpAddr> =
        if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
    // Link-local IPv6 needs a zone, which browsers don't accept.
    found.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    });
    found.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv6()));
    found
}
