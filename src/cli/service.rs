//! `adda service`: prints a systemd unit that runs this program.

use std::env;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory};

use super::Error;
use super::args::Cli;
use super::output::{print_document, warn};
use super::serve::Serve;
use crate::config::Data;

/// The directory that systemd creates for the service.
const STATE_DIRECTORY: &str = "/var/lib/adda";
const DATA_DEFAULT: &str = "/var/lib/adda/adda.db";
/// Directories that the service can't see: `ProtectHome` and `PrivateTmp` hide them.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

#[derive(Debug, Clone, Args)]
pub struct Service {
    #[command(flatten)]
    pub serve: Serve,
    /// The flags of the command line but for `--data`, with the values as they were typed.
    #[arg(skip)]
    pub given: Vec<String>,
}

/// The flags of `serve`, without variables and with another default for the database.
pub fn defaults(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let arg = arg.env(None::<&str>);
        if arg.get_id() == "data" { arg.default_value(DATA_DEFAULT) } else { arg }
    })
}

/// The flags of the command line but for `--data`, as words.
pub fn given(matches: &ArgMatches) -> Vec<String> {
    let mut given = Vec::new();
    for arg in Cli::command().get_arguments().filter(|arg| arg.get_id() != "data") {
        let id = arg.get_id().as_str();
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            for value in matches.get_raw(id).into_iter().flatten() {
                given.extend([format!("--{}", arg.get_long().unwrap_or(id)), value.to_string_lossy().into_owned()]);
            }
        }
    }
    given
}

/// Prints the unit.
///
/// # Errors
/// [`Error`].
pub fn run(flags: &Service) -> Result<ExitCode, Error> {
    let config = flags.serve.config(None)?;
    let unknown = |source: io::Error| Error::Refused(format!("failed to find the path of this program: {source}"));
    let program = env::current_exe().map_err(unknown)?;
    let data = match config.data {
        Data::File(path) => Some(std::path::absolute(path).map_err(unknown)?),
        Data::Memory => None,
    };
    for path in [Some(&program), data.as_ref()].into_iter().flatten() {
        if HIDDEN.iter().any(|hidden| path.starts_with(hidden)) {
            let advice =
                if *path == program { "copy it to /usr/local/bin and run it there" } else { "use another --data" };
            warn(&format!("the service can't use {}: {advice}", path.display()));
        }
    }
    let unit = Unit { program: &program, data: data.as_deref(), given: &flags.given, port: config.listen.port() };
    print_document(&unit.text())
}

struct Unit<'a> {
    program: &'a Path,
    /// `None` for `:memory:`.
    data: Option<&'a Path>,
    given: &'a [String],
    port: u16,
}

impl Unit<'_> {
    fn text(&self) -> String {
        let Self { program, data, given, port } = *self;
        let data_word = data.map_or(":memory:".into(), |path| path.display().to_string());
        let mut words = vec![program.display().to_string(), "serve".into(), "--data".into(), data_word.clone()];
        words.extend(given.iter().cloned());
        // In a command line, a dollar sign begins a variable.
        let command: Vec<String> = words.iter().map(|word| unit_word(word).replace('$', "$$")).collect();
        let elsewhere =
            data.filter(|path| !path.starts_with(STATE_DIRECTORY)).and_then(Path::parent).map(PathBuf::from);

        let mut text = String::from("# systemd unit of the adda chat server, printed by `adda service`.\n#\n");
        text.push_str("# To install it, as root:\n");
        if let Some(directory) = &elsewhere {
            let directory = directory.display();
            let _ = writeln!(text, "#   useradd --system --user-group --no-create-home --shell /usr/sbin/nologin adda");
            let _ = writeln!(text, "#   install -d -o adda -g adda -m 0700 {directory}");
        }
        text.push_str(
            "#   write this text to /etc/systemd/system/adda.service\n\
             #   systemctl daemon-reload\n\
             #   systemctl enable --now adda\n#\n",
        );
        if data.is_some() {
            let _ = writeln!(
                text,
                "# To create the first admin, as root, while the service runs:\n\
                 #   {} setup --data {data_word}\n#",
                program.display()
            );
        }
        text.push_str("# The log: journalctl -u adda\n");
        let _ = write!(
            text,
            "\n[Unit]\n\
             Description=adda chat server\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n[Service]\n\
             Type=exec\n\
             ExecStart={}\n\
             Restart=on-failure\n\
             RestartSec=2\n\
             # An invalid command line does not get better by a restart.\n\
             RestartPreventExitStatus=2\n\
             TimeoutStopSec=10\n\n",
            command.join(" ")
        );
        match (&elsewhere, data) {
            (Some(directory), _) => {
                let directory = unit_word(&directory.display().to_string());
                let _ = write!(
                    text,
                    "# The user owns the directory of the database.\nUser=adda\nReadWritePaths={directory}\n"
                );
            }
            (None, Some(_)) => text.push_str(
                "# systemd creates the user and the directory /var/lib/adda.\n\
                 DynamicUser=yes\nStateDirectory=adda\nStateDirectoryMode=0700\n",
            ),
            (None, None) => text.push_str("DynamicUser=yes\n"),
        }
        text.push_str(
            "UMask=0077\n\n# Each connection has an open file and a thread.\nLimitNOFILE=65536\nTasksMax=65536\n\n",
        );
        if (1..1024).contains(&port) {
            text.push_str("AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n");
        } else {
            text.push_str("CapabilityBoundingSet=\n");
        }
        text.push_str(HARDENING);
        text
    }
}

/// The settings that take away what the server does not need. It reads the addresses of the machine by netlink, and
/// listens on a Unix socket beside the database.
const HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
";

/// A text as one word of a setting (`systemd.syntax(7)`, QUOTING).
fn unit_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    let mut is_plain = !text.is_empty();
    for c in text.chars() {
        match c {
            '%' => word.push_str("%%"),
            '"' | '\\' => {
                is_plain = false;
                word.push('\\');
                word.push(c);
            }
            '\n' => {
                is_plain = false;
                word.push_str("\\n");
            }
            _ => {
                is_plain &= !c.is_whitespace() && !matches!(c, '\'' | ';');
                word.push(c);
            }
        }
    }
    if is_plain { word } else { format!("\"{word}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_unit_is_quoted() {
        for (text, word) in [
            ("/usr/bin/adda", "/usr/bin/adda"),
            ("100%", "100%%"),
            ("my chat.db", "\"my chat.db\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("it's", "\"it's\""),
            ("a\nb", "\"a\\nb\""),
            ("", "\"\""),
        ] {
            assert_eq!(unit_word(text), word);
        }
    }

    #[test]
    fn a_database_elsewhere_needs_a_user_of_its_own() {
        let unit = |data: Option<&str>, port: u16| {
            let given = ["--listen".to_owned(), port.to_string()];
            Unit { program: Path::new("/opt/adda"), data: data.map(Path::new), given: &given, port }.text()
        };
        let plain = unit(Some(DATA_DEFAULT), 3000);
        assert!(plain.contains("\nExecStart=/opt/adda serve --data /var/lib/adda/adda.db --listen 3000\n"), "{plain}");
        assert!(plain.contains("\nDynamicUser=yes\nStateDirectory=adda\n") && !plain.contains("useradd"), "{plain}");
        assert!(plain.contains("\nCapabilityBoundingSet=\n"), "{plain}");
        let elsewhere = unit(Some("/srv/my chat/adda.db"), 443);
        assert!(elsewhere.contains("\nUser=adda\nReadWritePaths=\"/srv/my chat\"\n"), "{elsewhere}");
        assert!(elsewhere.contains("useradd") && !elsewhere.contains("DynamicUser"), "{elsewhere}");
        assert!(elsewhere.contains("\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{elsewhere}");
        let memory = unit(None, 3000);
        assert!(memory.contains("--data :memory:") && !memory.contains("StateDirectory"), "{memory}");
    }
}
