//! `adda completions`: prints a completion script for a shell.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use super::Error;
use super::args::{Variables, command};
use super::output::print_document;

#[derive(Debug, Clone, Args)]
pub struct Completions {
    /// Shell: bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// [`Error::Write`].
pub fn run(flags: &Completions) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut command(Variables::Ignored), "adda", &mut script);
    print_document(&String::from_utf8_lossy(&script))
}
