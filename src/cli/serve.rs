//! `adda serve`: the flags of the server, what they mean as a [`Config`], and its run until a signal.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::advice;
use super::output::write_briefly;
use super::values::{
    List, address, connections, content_bytes, data_bytes, history, lease, limit, log_level, on_port, origins,
    outbox_bytes, ping_interval, port, proxies, rate, retention,
};
use super::{Error, greeting};
use crate::auth::secret::Secret;
use crate::config::{Cidr, Config, Data, Durability, Keep, Origin};
use crate::limits::Limits;
use crate::model::role::{Accounts, Registration};
use crate::{Running, StartError, logging, store};

// As a comment this text would be read for links.
const LISTEN_HELP: &str = "\
Address or port [default: 0.0.0.0:3000]

An address with a port such as 127.0.0.1:3000, [::1]:3000 or localhost:3000, or a port alone (3000 or :3000), which \
stands for 0.0.0.0. Port 0 picks a free port, which the first line of the output names.";
const ORIGIN_HELP: &str = "\
Allow pages of this origin to connect

For example https://chat.example. The server's own pages are always allowed. Can be repeated; several values are separated \
by commas or spaces.";

const LISTENING: &str = "Listening";
const STORAGE: &str = "Storage";
const ACCOUNTS: &str = "Accounts";
const LIMITS: &str = "Limits";
const PROXY: &str = "Proxies and other origins";
const LOGGING: &str = "Logging";

/// The flags of the server.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Address or port [default: 0.0.0.0:3000]
    #[arg(long, env = "ADDA_LISTEN", value_name = "ADDR", value_parser = address, help_heading = LISTENING,
          long_help = LISTEN_HELP)]
    pub listen: Option<SocketAddr>,

    /// Port to listen on, instead of --listen
    ///
    /// The same as --listen with a port alone. If neither is given, the variable PORT sets the port.
    #[arg(long, env = "ADDA_PORT", value_name = "PORT", value_parser = port, help_heading = LISTENING)]
    pub port: Option<u16>,

    /// Database file, or :memory:
    ///
    /// The file is created if it does not exist. :memory: stores nothing on disk: it keeps the latest messages of each room until the process
    /// ends, and has no accounts at the start.
    #[arg(long, env = "ADDA_DATA", value_name = "FILE", default_value = "adda.db", help_heading = STORAGE,
          value_hint = clap::ValueHint::FilePath)]
    pub data: PathBuf,

    /// Durability: full or normal
    ///
    /// full: acknowledged messages survive a power cut. normal: faster; they survive a crash of the process, but a power
    /// cut may lose the latest ones.
    #[arg(long, env = "ADDA_DURABILITY", value_name = "LEVEL", default_value = "full", value_enum,
          help_heading = STORAGE)]
    pub durability: Durability,

    /// Delete messages older than this; 0 keeps all
    ///
    /// A time such as 90d, 12h or 30m. Guests without messages are deleted after this time, too.
    #[arg(long, env = "ADDA_RETENTION", value_name = "TIME", default_value = "90d", value_parser = retention,
          help_heading = STORAGE)]
    pub retention: Duration,

    /// Maximum database size; 0 is no limit
    ///
    /// Above this size, the oldest messages are deleted. For example 64M (the minimum), 1G, 1GB or 1GiB; units are powers
    /// of 1024.
    #[arg(long, env = "ADDA_MAX_DATA", value_name = "BYTES", default_value = "1G", value_parser = data_bytes,
          help_heading = STORAGE)]
    pub max_data: u64,

    /// Accounts: optional or required
    ///
    /// optional: guests can chat without an account. required: only users with an account can chat; if there is no
    /// admin, the server prints how to create one when it starts.
    #[arg(long, env = "ADDA_ACCOUNTS", value_name = "WHEN", default_value = "optional", value_enum,
          help_heading = ACCOUNTS)]
    pub accounts: Accounts,

    /// How users register
    ///
    /// open: anyone can register. invite: with an invitation of an admin. closed: only the operator creates accounts,
    /// with `adda user add`.
    #[arg(long, env = "ADDA_REGISTRATION", value_name = "HOW", default_value = "closed", value_enum,
          help_heading = ACCOUNTS)]
    pub registration: Registration,

    /// Messages shown on joining a room
    ///
    /// At most 200.
    #[arg(long, env = "ADDA_HISTORY", value_name = "N", default_value_t = Limits::default().history_default,
          value_parser = history, help_heading = LIMITS)]
    pub history: usize,

    /// Maximum bytes of a message's text
    #[arg(long, env = "ADDA_MAX_CONTENT", value_name = "BYTES", default_value = "8192", value_parser = content_bytes,
          help_heading = LIMITS)]
    pub max_content: usize,

    /// Messages per second per user
    ///
    /// One address may send 20 times as many. 0 is no limit, and also lifts the limit on new connections.
    #[arg(long, env = "ADDA_RATE", value_name = "N/s", default_value = "10/s", value_parser = rate,
          help_heading = LIMITS)]
    pub rate: u32,

    /// Messages a user can send at once
    ///
    /// 0 is no limit.
    #[arg(long, env = "ADDA_BURST", value_name = "N", default_value_t = Limits::default().rate_burst,
          value_parser = limit, help_heading = LIMITS)]
    pub burst: u32,

    /// Maximum connections [default: set by the system]
    ///
    /// The system's limits on open files, threads and memory maps also apply.
    #[arg(long, env = "ADDA_MAX_CONNECTIONS", value_name = "N", value_parser = connections, help_heading = LIMITS)]
    pub max_connections: Option<u64>,

    /// Maximum connections per address
    ///
    /// For IPv6, per /64 network. 0 is no limit.
    #[arg(long, env = "ADDA_MAX_PER_IP", value_name = "N", default_value_t = 0, value_parser = limit,
          help_heading = LIMITS)]
    pub max_per_ip: u32,

    /// Maximum bytes queued for a slow reader
    ///
    /// A connection that reads too slowly is closed once this many bytes are waiting for it.
    #[arg(long, env = "ADDA_OUTBOX_BYTES", value_name = "BYTES", default_value = "1M", value_parser = outbox_bytes,
          help_heading = LIMITS)]
    pub outbox_bytes: usize,

    /// Time between pings
    ///
    /// A connection that is silent for 2.4 times as long is closed.
    #[arg(long, env = "ADDA_PING_INTERVAL", value_name = "TIME", default_value = "25s", value_parser = ping_interval,
          help_heading = LIMITS)]
    pub ping_interval: Duration,

    /// Time to reconnect without leaving
    ///
    /// Users who lose their connection stay in their rooms for this long, at most 5m. With 0, they are shown as leaving at
    /// once.
    #[arg(long, env = "ADDA_LEASE", value_name = "TIME", default_value = "10s", value_parser = lease,
          help_heading = LIMITS)]
    pub lease: Duration,

    /// Trust the headers of this proxy
    ///
    /// The address or range of a proxy, such as 127.0.0.1 or 10.0.0.0/8. Its headers Forwarded and X-Forwarded-For give
    /// the address of the client. Can be repeated; several values are separated by commas or spaces.
    #[arg(long = "trusted-proxy", env = "ADDA_TRUSTED_PROXY", value_name = "CIDR", value_parser = proxies,
          help_heading = PROXY)]
    pub trusted_proxies: Vec<List<Cidr>>,

    /// Allow pages of this origin to connect
    #[arg(long = "origin", env = "ADDA_ORIGIN", value_name = "URL", value_parser = origins, help_heading = PROXY,
          long_help = ORIGIN_HELP)]
    pub origins: Vec<List<Origin>>,

    /// Log level, from off to debug
    ///
    /// off, error, warn, info or debug. The log goes to standard error.
    #[arg(long, env = "ADDA_LOG", value_name = "LEVEL", default_value = "info", value_parser = log_level(),
          ignore_case = true, help_heading = LOGGING)]
    pub log: LevelFilter,
}

impl Serve {
    /// The flags as the server takes them. `fallback_port` is the variable `PORT`, which is used if no flag says where
    /// to listen.
    ///
    /// # Errors
    /// [`Error::Usage`] if `fallback_port` is not a port, or if the flags together refuse every user.
    pub fn config(&self, fallback_port: Option<&str>) -> Result<Config, Error> {
        let mut config = Config::default();
        match (self.listen, self.port, fallback_port.filter(|text| !text.is_empty())) {
            (Some(address), ..) => config.listen = address,
            (None, Some(number), _) => config.listen = on_port(number),
            (None, None, Some(text)) => {
                let invalid = |expected| Error::Usage(format!("invalid value \"{text}\" in PORT: {expected}"));
                config.listen = on_port(port(text).map_err(invalid)?);
            }
            (None, None, None) => {}
        }
        config.data = if self.data.as_os_str() == ":memory:" { Data::Memory } else { Data::File(self.data.clone()) };
        config.durability = self.durability;
        config.keep = Keep {
            retention: (!self.retention.is_zero()).then_some(self.retention),
            bytes_max: (self.max_data > 0).then_some(self.max_data),
        };
        config.origins = self.origins.iter().flat_map(|list| list.0.clone()).collect();
        config.proxies = self.trusted_proxies.iter().flat_map(|list| list.0.clone()).collect();
        config.connections_max = self.max_connections;
        config.connections_per_address_max = self.max_per_ip;
        config.accounts = self.accounts;
        config.registration = self.registration;
        // In memory there is no account at the start, and no command creates one.
        let refuses_all = config.data == Data::Memory
            && config.accounts == Accounts::Required
            && config.registration != Registration::Open;
        if refuses_all {
            let sentence = "--accounts required with --data :memory: refuses every user, because there are no accounts; \
                add --registration open, or use a file";
            return Err(Error::Usage(sentence.to_owned()));
        }
        // A rate without a burst has none to bound, and the other way round.
        let is_limited = self.rate > 0 && self.burst > 0;
        let unless_off = |per_s: u32| if is_limited { per_s } else { 0 };
        config.limits = Limits {
            history_default: self.history,
            content_bytes_max: self.max_content,
            rate_per_s: unless_off(self.rate),
            rate_burst: self.burst,
            connections_per_s: unless_off(config.limits.connections_per_s),
            handshakes_per_s: unless_off(config.limits.handshakes_per_s),
            searches_per_s: unless_off(config.limits.searches_per_s),
            pages_per_s: unless_off(config.limits.pages_per_s),
            outbox_bytes_max: self.outbox_bytes,
            ping_interval: self.ping_interval,
            lease: self.lease,
            ..config.limits
        };
        Ok(config)
    }
}

/// Runs the server until a signal.
///
/// # Errors
/// [`Error::Usage`] and [`Error::Start`].
pub fn run(flags: &Serve) -> Result<ExitCode, Error> {
    let config = flags.config(env::var("PORT").ok().as_deref())?;
    // Before the start: a signal during the start then stops the server cleanly after it.
    let mut signals =
        Signals::new(stop_signals()).map_err(|error| Error::Start(format!("failed to wait for signals: {error}")))?;
    logging::start(flags.log).map_err(|error| Error::Start(format!("failed to start the log: {error}")))?;
    let (accounts, data) = (config.accounts, config.data.clone());
    let running = crate::start(config).map_err(|error| {
        // The error comes after the lines of the log.
        log::logger().flush();
        Error::Start(with_advice(&error))
    })?;
    let address = running.address();
    let setup = if io::stdout().is_terminal() { offer_setup(&running) } else { None };
    write_briefly(move || greeting::print(address, accounts, &data, setup.as_ref()));
    let signal = signals.forever().next();
    let name = match signal {
        Some(SIGINT) => "Ctrl-C",
        Some(SIGHUP) => "SIGHUP",
        _ => "SIGTERM",
    };
    log::info!("stopping, by {name}");
    running.stop();
    log::info!("stopped");
    log::logger().flush();
    Ok(ExitCode::SUCCESS)
}

/// The signals that stop the server. A SIGHUP that is ignored at the start stays ignored, as `nohup` wants it.
fn stop_signals() -> Vec<i32> {
    // Without `/proc`, no signal counts as ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if is_ignored(SIGHUP, &status) { vec![SIGINT, SIGTERM] } else { vec![SIGINT, SIGTERM, SIGHUP] }
}

/// Whether a process ignores a signal, by its `/proc/PID/status` (proc_pid_status(5)).
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The code of a link for the first admin. `None` if there is an admin, or no link can be made now.
fn offer_setup(running: &Running) -> Option<Secret> {
    running.offer_setup().unwrap_or_else(|rejection| {
        log::warn!("failed to make a setup link: {}", rejection.sentence);
        None
    })
}

/// The error, and what the operator can try.
fn with_advice(error: &StartError) -> String {
    let advice = match error {
        StartError::Listen(_, source) => match source.kind() {
            io::ErrorKind::AddrInUse => "; stop the other program, or choose another port with --listen",
            io::ErrorKind::AddrNotAvailable => "; choose an address of this machine with --listen",
            io::ErrorKind::PermissionDenied => "; choose a port from 1024 on with --listen",
            _ => "",
        },
        StartError::Store(store::StartError::Open(error)) => advice(error),
        _ => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};

    fn config(args: &[&str], port: Option<&str>) -> Result<Config, String> {
        let args = [&["adda"], args].concat().into_iter().map(Into::into).collect();
        let cli = Cli::of(args).map_err(|stop| format!("{stop:?}"))?;
        let serve = match cli.command {
            Some(Command::Serve(serve)) => serve,
            Some(other) => return Err(format!("{other:?}")),
            None => cli.serve,
        };
        serve.config(port).map_err(|error| error.to_string())
    }

    #[test]
    fn an_ignored_signal_is_found_in_the_status_of_the_process() {
        let status = "Name:\tadda\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(is_ignored(SIGHUP, status) && !is_ignored(SIGINT, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\tmany"));
    }

    #[test]
    fn flags_become_a_config() {
        let plain = config(&[], None).unwrap();
        assert_eq!(plain.listen.to_string(), "0.0.0.0:3000");
        assert_eq!(plain.limits, Limits::default());
        let given = config(
            &[
                "serve",
                "--listen=[::1]:0",
                "--rate=0",
                "--ping-interval=500ms",
                "--outbox-bytes=2M",
                "--max-content=1K",
                "--data=:memory:",
                "--retention=12h",
                "--max-data=0",
                "--accounts=required",
                "--registration=open",
                "--lease=0",
            ],
            Some("80"),
        );
        let given = given.unwrap();
        assert_eq!(given.listen.to_string(), "[::1]:0");
        assert_eq!((given.limits.rate_per_s, given.limits.connections_per_s, given.limits.handshakes_per_s), (0, 0, 0));
        assert_eq!((given.limits.searches_per_s, given.limits.pages_per_s), (0, 0));
        assert!(plain.limits.handshakes_per_s > 0 && plain.proxies.is_empty());
        let proxies = config(&["--trusted-proxy=10.0.0.0/8, ::1", "--trusted-proxy=127.0.0.1"], None).unwrap().proxies;
        assert_eq!(proxies.len(), 3);
        let keep = Keep { retention: Some(Duration::from_secs(43_200)), bytes_max: None };
        assert_eq!((plain.keep, given.keep), (Config::default().keep, keep));
        assert_eq!((plain.data, given.data), (Config::default().data, Data::Memory));
        assert_eq!(config(&["--retention=0"], None).unwrap().keep.retention, None);
        assert_eq!((plain.accounts, plain.registration), (Accounts::Optional, Registration::Closed));
        assert_eq!((given.accounts, given.registration), (Accounts::Required, Registration::Open));
        let invites = config(&["--accounts=required", "--registration=invite"], None).unwrap();
        assert_eq!((invites.accounts, invites.registration), (Accounts::Required, Registration::Invite));
        assert_eq!((plain.limits.lease, given.limits.lease), (Duration::from_secs(10), Duration::ZERO));
        assert_eq!(config(&["--lease=5m"], None).unwrap().limits.lease, Duration::from_secs(300));
        assert_eq!(given.limits.ping_interval, Duration::from_millis(500));
        assert_eq!((given.limits.outbox_bytes_max, given.limits.content_bytes_max), (2 << 20, 1 << 10));
        assert_eq!(config(&[], Some("8080")).unwrap().listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config(&["--origin=http://a,https://b:1", "--origin", "http://c"], None).unwrap().origins.len(), 3);
        for (args, port, listen) in [
            (&["--listen=3000"][..], Some("1"), "0.0.0.0:3000"),
            (&["--listen", ":80"], None, "0.0.0.0:80"),
            (&["--port", "8080"], Some("1"), "0.0.0.0:8080"),
            (&["serve", "--port=0"], None, "0.0.0.0:0"),
            (&[], Some(""), "0.0.0.0:3000"),
        ] {
            assert_eq!(config(args, port).unwrap().listen.to_string(), listen, "{args:?}");
        }
        assert_eq!(config(&["--max-data", "1 GB"], None).unwrap().keep.bytes_max, Some(1 << 30));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        for args in [
            ["--durability=some"],
            ["--retention=90"],
            ["--retention=0d"],
            ["--retention=d"],
            ["--retention=90é"],
            ["--max-data=1M"],
            ["--max-data=lots"],
            ["--listen=nowhere"],
            ["--listen=1.2.3.4"],
            ["--rate=fast"],
            ["--rate=-1"],
            ["--outbox-bytes=1"],
            ["--max-content=1G"],
            ["--ping-interval=0"],
            ["--ping-interval=9999m"],
            ["--lease=301s"],
            ["--lease=long"],
            ["--accounts=never"],
            ["--registration=yes"],
            ["--history=201"],
            ["--max-connections=0"],
            ["--origin=ftp://x"],
            ["--trusted-proxy=proxy.example"],
            ["--trusted-proxy=10.0.0.1/8"],
            ["--trusted-proxy="],
            ["--log=loud"],
            ["--no-such-flag"],
            ["dance"],
        ] {
            assert!(config(&args, None).is_err(), "{args:?}");
        }
        assert!(config(&[], Some("http")).unwrap_err().contains("invalid value \"http\" in PORT"));
        let conflict = config(&["--listen=3000", "--port=3000"], None).unwrap_err();
        assert!(conflict.contains("--listen and --port conflict"), "{conflict}");
        for registration in ["--registration=closed", "--registration=invite"] {
            let refused = config(&["--data=:memory:", "--accounts=required", registration], None).unwrap_err();
            assert!(refused.contains("refuses every user"), "{refused}");
            assert!(config(&["--data=:memory:", registration], None).is_ok());
        }
    }
}
