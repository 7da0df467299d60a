//! The `adda` command: parses the flags and runs one of the commands.

use std::process::ExitCode;

use adda::cli::args::{Cli, Command, TokenCommand, TokenFlags, UserCommand, UserFlags};
use adda::cli::output::{EXIT_USAGE, fail};
use adda::cli::{Error, backup, doctor, export, serve, tokens, users};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(flags) => serve::run(&flags),
        Command::Export(flags) => tool(flags.export().and_then(|export| export::export(&export))),
        Command::Backup(flags) => tool(flags.database.file().and_then(|data| backup::backup(data, &flags.target))),
        Command::Doctor(flags) => report(flags.file().and_then(doctor::doctor)),
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
        TokenCommand::Create { name, label, expires } => tokens::create_token(data, name, label, *expires),
        TokenCommand::List { name, format } => tokens::list_tokens(data, name.as_ref(), *format),
        TokenCommand::RotateGuests => tokens::rotate_guest_key(data),
        TokenCommand::Revoke { id } => tokens::revoke_token(data, *id),
    }
}

fn tool(result: Result<(), Error>) -> ExitCode {
    report(result.map(|()| true))
}

/// Its exit code also says whether the database is sound.
fn report(result: Result<bool, Error>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ Error::Usage(_)) => fail(&error.to_string(), EXIT_USAGE),
        Err(error) => fail(&error.to_string(), 1),
    }
}
