//! The command line: flags, their environment, and what they mean as a [`Config`].

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::DateTime;
use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use crate::config::{Cidr, Config, Data, Durability, Keep, Origin};
use crate::limits::{
    DATA_BYTES_MIN, HISTORY_MAX, LABEL_CHARS_MAX, LEASE_MAX, Limits, MESSAGE_BYTES_MAX, OUTBOXES_BYTES_MAX,
};
use crate::model::role::{Accounts, Registration, Role};
use crate::model::{RoomId, Timestamp, Username};
use crate::store::accounts::SessionId;

use super::Error;
use super::export::{Export, Format};
use super::users::ListFormat;

/// A chat server in one binary: browser chat, rooms, and room listings for curl.
#[derive(Debug, Parser)]
#[command(name = "adda", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; nothing is `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub serve: Serve,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also without this word)
    Serve(Serve),
    /// Write the messages of a database, oldest first; the server may be running
    Export(ExportFlags),
    /// Copy a database to a new file; the server may be running
    Backup(BackupFlags),
    /// Look whether a database is sound, and change nothing; exit code 1 where it is not
    Doctor(DatabaseFlag),
    /// Make, change, list and remove accounts; the server may be running
    User(UserFlags),
    /// Make, list and end tokens, by which programs come in; the server may be running
    Token(TokenFlags),
}

/// Which database a tool works on.
#[derive(Debug, Clone, Args)]
pub struct DatabaseFlag {
    /// The database
    #[arg(long, global = true, env = "ADDA_DATA", value_name = "FILE", default_value = "adda.db")]
    pub data: PathBuf,
}

impl DatabaseFlag {
    /// The database's file.
    ///
    /// # Errors
    /// Where the flag names no file.
    pub fn file(&self) -> Result<&Path, Error> {
        if self.data.as_os_str() == ":memory:" {
            let sentence = "--data is :memory:, which no command can read or change; name a file";
            return Err(Error::Usage(sentence.to_owned()));
        }
        Ok(&self.data)
    }
}

/// The flags of `user`.
#[derive(Debug, Clone, Args)]
pub struct UserFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,
    #[command(subcommand)]
    pub command: UserCommand,
}

/// The flags of `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What `adda user` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make an account; its password is asked for, or is a line of standard input
    Add {
        /// What they are called
        #[arg(value_parser = username)]
        name: Username,
        /// What they may do: user or admin
        #[arg(long, value_name = "ROLE", default_value = "user", value_parser = role)]
        role: Role,
    },
    /// Set a password, which is asked for, or is a line of standard input; logins by the old one end
    Passwd {
        /// Whose
        #[arg(value_parser = username)]
        name: Username,
    },
    /// Make somebody an admin, or a user again
    Role {
        /// Whom
        #[arg(value_parser = username)]
        name: Username,
        /// What they may do: user or admin
        #[arg(value_parser = role)]
        role: Role,
    },
    /// List the accounts
    List {
        /// For people (text), or a JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Remove an account with its sessions and tokens; its messages stay
    Remove {
        /// Whose
        #[arg(value_parser = username)]
        name: Username,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

/// What `adda token` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once; where there is no such account, one without a password is made
    Create {
        /// Who its bearer is
        #[arg(value_parser = username)]
        name: Username,
        /// What it is for, to tell it from others
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = label)]
        label: String,
        /// How long it is good, such as 90d; without this it is for good
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<Duration>,
    },
    /// List the tokens, never what they are
    List {
        /// Only of this account
        #[arg(value_parser = username)]
        name: Option<Username>,
        /// For people (text), or a JSON object a line (json)
        #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
        format: ListFormat,
    },
    /// Make the tokens of all guests invalid, by another key; they come in as new guests
    RotateGuests,
    /// End a token
    Revoke {
        /// Its number in the list
        #[arg(value_name = "ID", value_parser = session_key)]
        id: SessionId,
    },
}

/// The flags of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,

    /// Only this room
    #[arg(long, value_name = "ROOM", value_parser = room)]
    pub room: Option<RoomId>,

    /// The frames as members got them (ndjson), or lines for people (text)
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", value_enum)]
    pub format: Format,

    /// Only from this time on: 2026-01-31, 2026-01-31T18:00:00Z, or 7d for the last seven days
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,

    /// A new file; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

impl ExportFlags {
    /// The flags as the tool takes them.
    ///
    /// # Errors
    /// Where `--data` names no file.
    pub fn export(&self) -> Result<Export, Error> {
        Ok(Export {
            data: self.database.file()?.to_owned(),
            room: self.room.clone(),
            format: self.format,
            since_ms: self.since.as_ref().map_or(0, |since| since.unix_ms),
            output: (self.output.as_os_str() != "-").then(|| self.output.clone()),
        })
    }
}

/// The flags of `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupFlags {
    #[command(flatten)]
    pub database: DatabaseFlag,

    /// Where the copy goes: a file that is not there yet
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
}

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

fn address(text: &str) -> Result<SocketAddr, String> {
    let sentence = || "an address looks like 0.0.0.0:3000, [::]:3000 or localhost:3000".to_owned();
    text.to_socket_addrs().map_err(|_| sentence())?.next().ok_or_else(sentence)
}

/// A number with a unit, in the smallest of these units. An empty unit stands for a bare number.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, scale)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*scale))
}

/// Bytes, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    scaled(&text.to_ascii_uppercase(), &[("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)])
}

/// Bytes of something in memory.
fn size(text: &str) -> Option<usize> {
    bytes(text).and_then(|count| usize::try_from(count).ok())
}

/// A time of seconds, minutes, hours or days.
fn time(text: &str) -> Option<Duration> {
    scaled(text, &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)]).map(Duration::from_secs)
}

/// A time of milliseconds, seconds or minutes; a bare number is seconds.
fn short_time(text: &str) -> Option<Duration> {
    scaled(text, &[("ms", 1), ("", 1_000), ("s", 1_000), ("m", 60_000)]).map(Duration::from_millis)
}

fn retention(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let fits = time(text).filter(|time| (1..=36_500 * 86_400).contains(&time.as_secs()));
    fits.ok_or_else(|| "a retention is from 1s to 36500d, such as 90d, 12h or 30m, or 0 for no end".to_owned())
}

fn data_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let fits = bytes(text).filter(|count| (DATA_BYTES_MIN..=1 << 46).contains(count));
    fits.ok_or_else(|| {
        format!("a database has from {}M to 65536G, such as 1G, or 0 for no bound", DATA_BYTES_MIN >> 20)
    })
}

fn room(text: &str) -> Result<RoomId, String> {
    RoomId::parse(text).map_err(|error| error.to_string())
}

/// A date or a moment (RFC 3339), or a time before now.
fn since(text: &str) -> Result<Timestamp, String> {
    let ago = || {
        let ms = u64::try_from(time(text)?.as_millis()).ok()?;
        Some(Timestamp::now().unix_ms.saturating_sub(ms))
    };
    let moment = || {
        let midnight = format!("{text}T00:00:00Z");
        let moment = [text, &midnight].into_iter().find_map(|text| DateTime::parse_from_rfc3339(text).ok())?;
        // Before 1970 nothing was said here.
        Some(u64::try_from(moment.timestamp_millis()).unwrap_or(0))
    };
    let sentence = || "a time looks like 2026-01-31, 2026-01-31T18:00:00Z or 7d".to_owned();
    moment().or_else(ago).map(Timestamp::at).ok_or_else(sentence)
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "a rate looks like 10/s; 0 is no limit".to_owned())
}

fn content_bytes(text: &str) -> Result<usize, String> {
    // Room for the JSON around it, and for escapes.
    let most = MESSAGE_BYTES_MAX / 2;
    let fits = size(text).filter(|count| (1..=most).contains(count));
    fits.ok_or_else(|| format!("a message's text has from 1 to {most} bytes, such as 8192 or 8K"))
}

fn outbox_bytes(text: &str) -> Result<usize, String> {
    let range = MESSAGE_BYTES_MAX..=OUTBOXES_BYTES_MAX;
    let fits = size(text).filter(|count| range.contains(count));
    fits.ok_or_else(|| "an outbox has from 64K to 256M, such as 1M".to_owned())
}

fn ping_interval(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| (100..=3_600_000).contains(&time.as_millis()));
    fits.ok_or_else(|| "a ping interval is from 100ms to 60m, such as 25s".to_owned())
}

fn lease(text: &str) -> Result<Duration, String> {
    let fits = short_time(text).filter(|time| *time <= LEASE_MAX);
    fits.ok_or_else(|| "a lease is 5m at most, such as 10s, or 0 for none".to_owned())
}

fn expiry(text: &str) -> Result<Duration, String> {
    let fits = time(text).filter(|time| (1..=36_500 * 86_400).contains(&time.as_secs()));
    fits.ok_or_else(|| "a token is good for 1s to 36500d, such as 90d, 12h or 30m".to_owned())
}

fn username(text: &str) -> Result<Username, String> {
    Username::parse(text).map_err(|error| error.to_string())
}

fn role(text: &str) -> Result<Role, String> {
    let role = text.parse().ok().filter(|role| *role != Role::Guest);
    role.ok_or_else(|| "a role is user or admin".to_owned())
}

fn label(text: &str) -> Result<String, String> {
    let fits = text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control);
    let sentence = || format!("a label has {LABEL_CHARS_MAX} characters at most, and no controls");
    fits.then(|| text.trim().to_owned()).ok_or_else(sentence)
}

fn session_key(text: &str) -> Result<SessionId, String> {
    text.parse().map(SessionId).map_err(|_| "a token is named by its number in `adda token list`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_time_is_a_date_a_moment_or_so_long_ago() {
        for (text, ms) in [
            ("1970-01-02", 86_400_000),
            ("1970-01-01T00:00:01.5Z", 1_500),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-01-01", 0),
        ] {
            assert_eq!(since(text).unwrap().unix_ms, ms, "{text}");
        }
        let ago = Timestamp::now().unix_ms - since("2h").unwrap().unix_ms;
        assert!((7_199_000..7_201_000).contains(&ago), "{ago}");
        for text in ["", "yesterday", "2026-13-01", "2026-01-31T25:00:00Z", "7", "-7d"] {
            assert!(since(text).is_err(), "{text}");
        }
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
