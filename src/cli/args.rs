//! The command line: the commands, and how arguments and variables become one of them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::Error;
use super::audit::Audit;
use super::backup::Backup;
use super::completions::Completions;
use super::export::Export;
use super::output::fail;
use super::serve::Serve;
use super::service::{self, Service};
use super::setup::Setup;
use super::tokens::Token;
use super::usage;
use super::users::User;

/// The flags that `adda -h` shows.
const MAIN_FLAGS: [&str; 4] = ["listen", "data", "accounts", "log"];

/// Chat server in a single binary, with chat in the browser and room lists for curl
#[derive(Debug, Parser)]
#[command(
    name = "adda",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    override_usage = "adda [COMMAND] [OPTIONS]",
    max_term_width = 100,
    after_long_help = EXAMPLES
)]
pub struct Cli {
    /// `None` for `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub serve: Serve,
}

const EXAMPLES: &str = "\
Examples:
  adda
          Serve on port 3000, with the database adda.db in this directory
  adda --listen 8080 --data /var/lib/adda/adda.db
          Serve on another port, with another database
  adda --listen 127.0.0.1:3000 --trusted-proxy 127.0.0.1
          Serve behind a TLS-terminating proxy on the same machine
  adda setup
          Print a link that creates the first admin
  adda backup adda-backup.db
          Copy the database; the server may be running
  adda service | sudo tee /etc/systemd/system/adda.service
          Install a systemd service

Environment:
  Each flag of `adda serve`, and --data of the other commands, can also be set by an environment \
variable, for example --max-content by ADDA_MAX_CONTENT. A flag overrides its variable, and an empty variable is ignored. \
Without --listen and --port, and without their variables, PORT sets the port.

  NO_COLOR turns colours off. On a terminal the server prints a QR code of its address, black on \
white. With NO_COLOR or TERM=dumb it has no colours; then it is black on white only on a dark terminal.

Exit status:
  0 for success, 1 for an error, 2 for an invalid command line or environment.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (the default)
    #[command(after_long_help = "See `adda --help` for examples and variables.")]
    Serve(Serve),
    /// Create, change, list and remove accounts
    #[command(after_long_help = "\
Examples:
  adda user add rahim --role admin
  adda user add karim < password.txt
  adda user list --format json

This works while the server is running. Changes take effect at once, including on open connections.")]
    User(User),
    /// Create, list and revoke tokens for bots
    #[command(after_long_help = "\
Examples:
  adda token create herald --label news --expires 90d > token.txt
  adda token list
  adda token revoke 123

This works while the server is running. Changes take effect at once, including on open connections.")]
    Token(Token),
    /// Print the audit log: who changed what, and when
    #[command(after_long_help = "\
Examples:
  adda audit
  adda audit --limit 0 --format json > audit.ndjson

The newest entry comes first. This works while the server is running.")]
    Audit(Audit),
    /// Export messages, oldest first
    #[command(after_long_help = "\
Examples:
  adda export > messages.ndjson
  adda export --room tea --since 7d --format text

This works while the server is running.")]
    Export(Export),
    /// Copy the database to a new file
    #[command(after_long_help = "\
Example:
  adda backup adda-backup.db

This works while the server is running. The copy is checked, and no file is overwritten. To restore it, stop the \
server, replace the database with the copy, and remove the files adda.db-wal and adda.db-shm.")]
    Backup(Backup),
    /// Check the database; exit status 1 if it is damaged
    #[command(after_long_help = "This works while the server is running. Nothing is changed.")]
    Doctor(DatabaseFlag),
    /// Print a link for creating the first admin
    #[command(after_long_help = "\
The link works once, within an hour, and only while there is no admin. A newer link replaces it.

Examples:
  adda setup
  adda setup --url https://chat.example

The server need not run now, but must run when the link is opened.")]
    Setup(Setup),
    /// Print a systemd unit for this program
    #[command(after_long_help = "\
Takes the flags of `adda serve` and writes them into the unit. Environment variables are ignored.

Examples:
  adda service | sudo tee /etc/systemd/system/adda.service
  adda service --listen 127.0.0.1:3000 --trusted-proxy 127.0.0.1")]
    Service(Service),
    /// Print a completion script for a shell
    #[command(after_long_help = "\
Examples:
  adda completions bash > ~/.local/share/bash-completion/completions/adda
  adda completions zsh > ~/.zfunc/_adda
  adda completions fish > ~/.config/fish/completions/adda.fish")]
    Completions(Completions),
    /// Print the manual page
    #[command(after_long_help = "\
Examples:
  adda man | man -l -
  adda man | sudo tee /usr/local/share/man/man1/adda.1 > /dev/null")]
    Man,
}

/// The database that a command works on.
#[derive(Debug, Clone, Args)]
pub struct DatabaseFlag {
    /// Database file
    #[arg(long, global = true, env = "ADDA_DATA", value_name = "FILE", default_value = "adda.db",
          value_hint = clap::ValueHint::FilePath)]
    data: PathBuf,
}

impl DatabaseFlag {
    /// The database's file.
    ///
    /// # Errors
    /// [`Error::Usage`] if the flag names no file.
    pub fn file(&self) -> Result<&Path, Error> {
        if self.data.as_os_str() == ":memory:" {
            let sentence = "the database :memory: exists only inside its server; name a file with --data or ADDA_DATA";
            return Err(Error::Usage(sentence.to_owned()));
        }
        Ok(&self.data)
    }
}

/// The variables that stand for flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variables {
    /// Those of the process, except for empty ones.
    OfProcess,
    Ignored,
}

/// The definition of the command line.
#[must_use]
pub fn command(variables: Variables) -> clap::Command {
    let set = |name: &std::ffi::OsStr| env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut each = |arg: clap::Arg| {
        // The variables follow from a rule, and the help texts name the possible values.
        let takes_values = arg.get_action().takes_values();
        let arg = arg.hide_env(true).hide_possible_values(takes_values);
        let is_used = variables == Variables::OfProcess && arg.get_env().is_some_and(set);
        if is_used { arg } else { arg.env(None::<&str>) }
    };
    with_each_arg(Cli::command(), &mut each)
        .mut_args(|arg| {
            let is_hidden = !MAIN_FLAGS.contains(&arg.get_id().as_str());
            arg.hide_short_help(is_hidden)
        })
        .mut_subcommands(|command| if command.get_name() == "service" { service::defaults(command) } else { command })
}

fn with_each_arg(command: clap::Command, each: &mut dyn FnMut(clap::Arg) -> clap::Arg) -> clap::Command {
    command.mut_args(&mut *each).mut_subcommands(|command| with_each_arg(command, each))
}

impl Cli {
    /// Parses the arguments and variables of the process. The error is the exit code of the process: after the help or
    /// the version, or after a sentence about an invalid command line.
    ///
    /// # Errors
    /// The exit code.
    pub fn of_process() -> Result<Self, ExitCode> {
        Self::of(env::args_os().collect()).map_err(|stop| match stop {
            Stop::Help(help) => {
                // A closed output does not change the exit code.
                let _ = help.print();
                ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(1))
            }
            Stop::Invalid(sentence) => fail(&Error::Usage(sentence)),
        })
    }

    /// Parses arguments, the first of which is the name of the program, and the variables of the process.
    pub(super) fn of(mut args: Vec<OsString>) -> Result<Self, Stop> {
        let mut command = command(Variables::OfProcess);
        // `adda help user` and `adda user help` are `adda user --help`.
        let has_subcommands = |arg: &OsString| command.find_subcommand(arg).is_some_and(clap::Command::has_subcommands);
        let place = if args.get(1).is_some_and(has_subcommands) { 2 } else { 1 };
        if args.get(place).is_some_and(|arg| arg == "help") {
            args.remove(place);
            args.push("--help".into());
        }
        if args.iter().any(|arg| arg == "-h") {
            // The short help has one list of flags.
            command = with_each_arg(command, &mut |arg| arg.help_heading(None::<&str>));
        }
        if args.get(1).is_some_and(|arg| command.find_subcommand(arg).is_some()) {
            // The variables of `serve` don't concern another command.
            command = command.mut_args(|arg| arg.env(None::<&str>));
        }
        let matches = command.try_get_matches_from_mut(&args).map_err(|error| match error.exit_code() {
            0 => Stop::Help(error),
            _ if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Stop::Help(error),
            _ => Stop::Invalid(usage::sentence(&error, &args)),
        })?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| Stop::Invalid(error.to_string()))?;
        match &mut cli.command {
            None => choose_listen(&mut cli.serve, &matches)?,
            Some(Command::Serve(serve)) => {
                matches.subcommand_matches("serve").map_or(Ok(()), |matches| choose_listen(serve, matches))?;
            }
            Some(Command::Service(service)) => {
                if let Some(matches) = matches.subcommand_matches("service") {
                    choose_listen(&mut service.serve, matches)?;
                    service.given = service::given(matches);
                }
            }
            Some(_) => {}
        }
        Ok(cli)
    }
}

/// Why nothing is run.
#[derive(Debug)]
pub(super) enum Stop {
    /// The help or the version was asked for, or the help is the answer to a missing command.
    Help(clap::Error),
    Invalid(String),
}

/// Decides between `--listen` and `--port`: a flag overrides a variable, and two flags or two variables conflict.
fn choose_listen(serve: &mut Serve, matches: &ArgMatches) -> Result<(), Stop> {
    let conflict = |first: &str, second: &str| Stop::Invalid(format!("{first} and {second} conflict; use one of them"));
    match (matches.value_source("listen"), matches.value_source("port")) {
        (Some(ValueSource::CommandLine), Some(ValueSource::CommandLine)) => Err(conflict("--listen", "--port")),
        (Some(ValueSource::EnvVariable), Some(ValueSource::EnvVariable)) => Err(conflict("ADDA_LISTEN", "ADDA_PORT")),
        (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => {
            serve.listen = None;
            Ok(())
        }
        // Without `--listen`, the port counts.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command(Variables::OfProcess).debug_assert();
    }

    #[test]
    fn the_variable_of_a_flag_follows_from_its_name() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(variable) = arg.get_env() else { continue };
                let flag = arg.get_long().expect("a flag").to_uppercase().replace('-', "_");
                assert_eq!(variable.to_str(), Some(&*format!("ADDA_{flag}")));
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
        let serve = Cli::command();
        let without = serve.get_arguments().filter(|arg| arg.get_env().is_none());
        assert_eq!(without.count(), 0, "each flag of the server has a variable");
    }
}
