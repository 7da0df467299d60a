//! The `adda` command: parses the command line and runs one of the commands.

use std::process::ExitCode;

use adda::cli::args::{Cli, Command};
use adda::cli::{audit, backup, completions, doctor, export, man, output, serve, service, setup, tokens, users};

fn main() -> ExitCode {
    let cli = match Cli::of_process() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(flags) => serve::run(&flags),
        Command::User(flags) => users::run(&flags),
        Command::Token(flags) => tokens::run(&flags),
        Command::Audit(flags) => audit::run(&flags),
        Command::Export(flags) => export::run(&flags),
        Command::Backup(flags) => backup::run(&flags),
        Command::Doctor(flags) => doctor::run(&flags),
        Command::Setup(flags) => setup::run(&flags),
        Command::Service(flags) => service::run(&flags),
        Command::Completions(flags) => completions::run(&flags),
        Command::Man => man::run(),
    };
    result.unwrap_or_else(|error| output::fail(&error))
}
