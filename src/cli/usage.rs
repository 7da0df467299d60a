//! What is wrong with a command line, in one sentence that says what was typed, and what to try. Pure, but for the
//! variables of the process.

use std::error::Error as _;
use std::ffi::OsString;

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::{Variables, command};

/// The sentence for an error of these arguments.
pub fn sentence(error: &Error, args: &[OsString]) -> String {
    let help = format!("see `{} --help`", path(args));
    let arg = text(error, ContextKind::InvalidArg);
    let place =
        || if is_from_variable(error, args) { format!("in {}", variable(&arg)) } else { format!("for {}", bare(&arg)) };
    let value = text(error, ContextKind::InvalidValue);
    match error.kind() {
        ErrorKind::InvalidValue if value.is_empty() => format!("value missing for {arg}; {}", one_of(error, &help)),
        ErrorKind::InvalidValue => format!("invalid value \"{value}\" {}: {}", place(), one_of(error, &help)),
        ErrorKind::ValueValidation => {
            let reason = error.source().map_or_else(|| help.clone(), ToString::to_string);
            format!("invalid value \"{value}\" {}: {reason}", place())
        }
        ErrorKind::UnknownArgument => {
            let what = if arg.starts_with('-') {
                format!("no such flag: {arg}")
            } else {
                format!("unexpected argument: {arg}")
            };
            format!("{what}; {}", suggestion(error, ContextKind::SuggestedArg).unwrap_or(help))
        }
        ErrorKind::InvalidSubcommand => {
            let what = text(error, ContextKind::InvalidSubcommand);
            format!("no such command: {what}; {}", suggestion(error, ContextKind::SuggestedSubcommand).unwrap_or(help))
        }
        ErrorKind::ArgumentConflict => {
            let prior = text(error, ContextKind::PriorArg);
            match error.get(ContextKind::InvalidSubcommand) {
                Some(name) => format!("{} stands before the command {name}; put flags after it", bare(&prior)),
                None if prior == arg => format!("{} given twice; use it once", bare(&arg)),
                None => format!("{} and {} conflict; use one of them", bare(&arg), bare(&prior)),
            }
        }
        ErrorKind::MissingRequiredArgument => format!("argument missing: {}; {help}", arg.replace(['<', '>'], "")),
        ErrorKind::MissingSubcommand => format!("command missing; {help}"),
        ErrorKind::TooManyValues => format!("{} takes no value; {help}", bare(&arg)),
        ErrorKind::InvalidUtf8 => format!("an argument is not UTF-8; {help}"),
        _ => {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default();
            format!("{}; {help}", first.strip_prefix("error: ").unwrap_or(first))
        }
    }
}

/// The program and the subcommands that were typed.
fn path(args: &[OsString]) -> String {
    let mut path = String::from("adda");
    let mut command = command(Variables::Ignored);
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if let Some(found) = command.find_subcommand(word).cloned() {
            path.push(' ');
            path.push_str(word);
            command = found;
        }
    }
    path
}

/// Whether the error is in a variable: without the variables, these arguments have no error, or another one.
fn is_from_variable(error: &Error, args: &[OsString]) -> bool {
    match command(Variables::Ignored).try_get_matches_from(args) {
        Ok(_) => true,
        Err(other) => other.to_string() != error.to_string(),
    }
}

/// The variable of a flag that clap shows as `--flag <VALUE>`.
fn variable(arg: &str) -> String {
    format!("ADDA_{}", bare(arg).trim_start_matches('-').to_uppercase().replace('-', "_"))
}

/// The flag without its value, or the name of a positional argument.
fn bare(arg: &str) -> &str {
    let first = arg.split([' ', '=']).next().unwrap_or(arg);
    if first.starts_with('-') { first } else { arg.trim_matches(['<', '>', '[', ']', '.']) }
}

fn text(error: &Error, kind: ContextKind) -> String {
    error.get(kind).map(ToString::to_string).unwrap_or_default()
}

/// The values that clap would accept, if these are few words.
fn one_of(error: &Error, help: &str) -> String {
    let words = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => &words[..],
        _ => &[],
    };
    match words {
        [] => help.to_owned(),
        [word] => format!("expected {word}"),
        [first @ .., last] => format!("expected {} or {last}", first.join(", ")),
    }
}

fn suggestion(error: &Error, kind: ContextKind) -> Option<String> {
    let word = match error.get(kind)? {
        ContextValue::String(word) => word,
        // The most similar word is the last.
        ContextValue::Strings(words) => words.last()?,
        _ => return None,
    };
    Some(format!("did you mean {word}?"))
}
