//! `adda serve`: the flags of the server, what they mean as a [`Config`], and its run until a signal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::greeting;
use super::output::{EXIT_USAGE, fail, write_briefly};
use super::values::{address, content_bytes, data_bytes, lease, outbox_bytes, ping_interval, rate, retention};
use crate::config::{Cidr, Config, Data, Durability, Keep, Origin};
use crate::limits::{HISTORY_MAX, Limits};
use crate::logging;
use crate::model::role::{Accounts, Registration};

/// The flags of the server.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where to listen; port 0 picks a free one [default: 0.0.0.0:3000, or port $PORT]
    #[arg(long, env = "ADDA_LISTEN", value_name = "ADDR:PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,

    /// Where messages are kept, made where it is not; `:memory:` keeps the latest, and nothing beyond the process
    #[arg(long, env = "ADDA_DATA", value_name = "FILE", default_value = "adda.db")]
    pub data: PathBuf,

    /// Whether an acked message survives a power cut (full) or a crash of the process only (normal)
    #[arg(long, env = "ADDA_DURABILITY", value_name = "LEVEL", default_value = "full", value_enum)]
    pub durability: Durability,

    /// How long messages are kept, such as 90d or 12h; 0 is for good
    #[arg(long, env = "ADDA_RETENTION", value_name = "TIME", default_value = "90d", value_parser = retention)]
    pub retention: Duration,

    /// How large the database may grow before the oldest messages go; 0 is as the disk allows
    #[arg(long, env = "ADDA_MAX_DATA", value_name = "BYTES", default_value = "1G", value_parser = data_bytes)]
    pub max_data: u64,

    /// Stored messages that are shown on joining a room
    #[arg(long, env = "ADDA_HISTORY", value_name = "N", default_value_t = Limits::default().history_default as u64,
          value_parser = clap::value_parser!(u64).range(0..=HISTORY_MAX as u64))]
    pub history: u64,

    /// Pages of this origin may connect too; may be given again, or separated by commas
    #[arg(long = "origin", env = "ADDA_ORIGIN", value_name = "URL", value_delimiter = ',')]
    pub origins: Vec<Origin>,

    /// Believe this proxy, or these, when they say whom they ask for (Forwarded or X-Forwarded-For); may be given again, or
    /// separated by commas
    #[arg(long = "trusted-proxy", env = "ADDA_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxies: Vec<Cidr>,

    /// Connections at once, where that is fewer than the system allows
    #[arg(long, env = "ADDA_MAX_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: Option<u64>,

    /// Connections at once from one address (IPv6: from one /64); 0 is no limit
    #[arg(long, env = "ADDA_MAX_PER_IP", value_name = "N", default_value_t = 0)]
    pub max_per_ip: u32,

    /// Bytes of a message's text
    #[arg(long, env = "ADDA_MAX_CONTENT", value_name = "BYTES", default_value = "8192", value_parser = content_bytes)]
    pub max_content: usize,

    /// Messages a second from one user (from one address 20 times as many); 0 is no limit, nor for new connections
    #[arg(long, env = "ADDA_RATE", value_name = "N/s", default_value = "10/s", value_parser = rate)]
    pub rate: u32,

    /// Messages at once after a pause; 0 is no limit
    #[arg(long, env = "ADDA_BURST", value_name = "N", default_value_t = Limits::default().rate_burst)]
    pub burst: u32,

    /// Bytes that may wait for a member that reads too slowly, before it is disconnected
    #[arg(long, env = "ADDA_OUTBOX_BYTES", value_name = "BYTES", default_value = "1M", value_parser = outbox_bytes)]
    pub outbox_bytes: usize,

    /// How often a connection is asked whether it is still there
    #[arg(long, env = "ADDA_PING_INTERVAL", value_name = "TIME", default_value = "25s", value_parser = ping_interval)]
    pub ping_interval: Duration,

    /// Whether one must have an account to come in (required), or guests are welcome (optional)
    #[arg(long, env = "ADDA_ACCOUNTS", value_name = "WHEN", default_value = "optional", value_enum)]
    pub accounts: Accounts,

    /// How one comes to an account: by asking for one (open), by invitation (invite), or by `adda user add` alone (closed)
    #[arg(long, env = "ADDA_REGISTRATION", value_name = "HOW", default_value = "closed", value_enum)]
    pub registration: Registration,

    /// How long a connection that was lost keeps its place, before the others see a leave; 0 is not at all
    #[arg(long, env = "ADDA_LEASE", value_name = "TIME", default_value = "10s", value_parser = lease)]
    pub lease: Duration,

    /// How much to log: off, error, warn, info, debug
    #[arg(long, env = "ADDA_LOG", value_name = "LEVEL", default_value = "info")]
    pub log: LevelFilter,
}

impl Serve {
    /// The flags as the server takes them. `port` is the environment's `PORT`, heard where nothing says where
    /// to listen.
    ///
    /// # Errors
    /// A sentence about a `PORT` that is not a port, or about flags that together refuse every user.
    pub fn config(&self, port: Option<&str>) -> Result<Config, String> {
        let mut config = Config::default();
        match (self.listen, port) {
            (Some(address), _) => config.listen = address,
            (None, Some(port)) => {
                let number = port.parse().map_err(|_| format!("PORT is “{port}”, which is not a port (0 to 65535)"))?;
                config.listen.set_port(number);
            }
            (None, None) => {}
        }
        config.data = if self.data.as_os_str() == ":memory:" { Data::Memory } else { Data::File(self.data.clone()) };
        config.durability = self.durability;
        config.keep = Keep {
            retention: (!self.retention.is_zero()).then_some(self.retention),
            bytes_max: (self.max_data > 0).then_some(self.max_data),
        };
        config.origins.clone_from(&self.origins);
        config.proxies.clone_from(&self.trusted_proxies);
        config.connections_max = self.max_connections;
        config.connections_per_address_max = self.max_per_ip;
        config.accounts = self.accounts;
        config.registration = self.registration;
        // In memory there is no account at the start, and no command creates one.
        let refuses_all = config.data == Data::Memory
            && config.accounts == Accounts::Required
            && config.registration != Registration::Open;
        if refuses_all {
            let sentence = "--accounts required lets nobody in with --data :memory:, as no account is made there \
                but by --registration open; say that, or name a file";
            return Err(sentence.to_owned());
        }
        // A rate without a burst has none to bound, and the other way round.
        let is_limited = self.rate > 0 && self.burst > 0;
        config.limits = Limits {
            history_default: usize::try_from(self.history).unwrap_or(HISTORY_MAX),
            content_bytes_max: self.max_content,
            rate_per_s: if is_limited { self.rate } else { 0 },
            rate_burst: self.burst,
            handshakes_per_s: if is_limited { config.limits.handshakes_per_s } else { 0 },
            outbox_bytes_max: self.outbox_bytes,
            ping_interval: self.ping_interval,
            lease: self.lease,
            ..config.limits
        };
        Ok(config)
    }
}

/// Runs the server until a signal.
pub fn run(flags: &Serve) -> ExitCode {
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
    let running = match crate::start(config) {
        Ok(running) => running,
        Err(error) => {
            log::logger().flush();
            write_briefly(move || drop(fail(&error.to_string(), 1)));
            return ExitCode::FAILURE;
        }
    };
    let address = running.address();
    write_briefly(move || {
        greeting::greet(address);
        greeting::first_steps(accounts, &data);
    });
    let signal = signals.forever().next();
    log::info!("stopping, by {}", if signal == Some(SIGINT) { "Ctrl-C" } else { "SIGTERM" });
    running.stop();
    log::info!("stopped");
    log::logger().flush();
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Cli, Command};
    use clap::Parser as _;

    fn config(args: &[&str], port: Option<&str>) -> Result<Config, String> {
        let cli = Cli::try_parse_from([&["adda"], args].concat()).map_err(|error| error.to_string())?;
        let serve = match cli.command {
            Some(Command::Serve(serve)) => serve,
            Some(other) => return Err(format!("{other:?}")),
            None => cli.serve,
        };
        serve.config(port)
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
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
        assert_eq!((given.limits.rate_per_s, given.limits.handshakes_per_s), (0, 0));
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
        assert_eq!(config(&["--origin=http://a,https://b:1"], None).unwrap().origins.len(), 2);
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
        assert!(config(&[], Some("http")).unwrap_err().contains("PORT"));
        for registration in ["--registration=closed", "--registration=invite"] {
            let refused = config(&["--data=:memory:", "--accounts=required", registration], None).unwrap_err();
            assert!(refused.contains("lets nobody in"), "{refused}");
            assert!(config(&["--data=:memory:", registration], None).is_ok());
        }
    }
}
