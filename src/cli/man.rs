//! `adda man`: prints the manual page, one for all commands, from the same texts as `--help` (roff, `man(7)`).

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use super::Error;
use super::args::{Variables, command};
use super::output::print_document;

/// Prints the page.
///
/// # Errors
/// [`Error::Write`].
pub fn run() -> Result<ExitCode, Error> {
    let mut adda = command(Variables::Ignored);
    adda.build();
    let mut page = Page(String::new());
    page.adda(&adda);
    print_document(&page.0)
}

/// The roff text of the page so far. Appending to a string can't fail.
struct Page(String);

impl Page {
    fn adda(&mut self, adda: &Command) {
        let version = adda.get_version().unwrap_or_default();
        let about = adda.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(self.0, ".TH ADDA 1 \"\" \"adda {version}\" \"User Commands\"");
        self.heading("SH", "NAME");
        self.text(&format!("adda - {about}"));
        self.heading("SH", "SYNOPSIS");
        self.synopsis(adda);
        self.heading("SH", "DESCRIPTION");
        self.text("The server, and the commands on its database. Without a command, adda runs the server as `adda serve` does.");
        self.heading("SH", "COMMANDS");
        for command in adda.get_subcommands() {
            self.command(command, command.get_name() == "serve" || command.get_name() == "service");
        }
        self.heading("SH", "OPTIONS");
        self.text("The options of `adda serve`, of `adda service`, and of adda without a command.");
        let mut heading = None;
        for arg in adda.get_arguments() {
            if arg.get_help_heading() != heading {
                heading = arg.get_help_heading();
                self.heading("SS", heading.unwrap_or("Other"));
            }
            self.arg(arg);
        }
        self.after_help(adda, true);
    }

    /// A command with its subcommands. `shares_options` leaves out its options, which the page lists apart.
    fn command(&mut self, command: &Command, shares_options: bool) {
        self.heading("SS", command.get_bin_name().unwrap_or_else(|| command.get_name()));
        let about = command.get_long_about().or(command.get_about());
        for paragraph in about.map(ToString::to_string).unwrap_or_default().split("\n\n") {
            self.0.push_str(".PP\n");
            self.text(paragraph);
        }
        if !command.has_subcommands() && !shares_options {
            command.get_arguments().filter(|arg| !is_help(arg)).for_each(|arg| self.arg(arg));
        }
        self.after_help(command, false);
        for command in subcommands(command) {
            self.command(command, false);
        }
    }

    /// The usage of each command that has no subcommands.
    fn synopsis(&mut self, command: &Command) {
        if !command.has_subcommands() || command.get_name() == "adda" {
            let usage = command.clone().render_usage().to_string();
            self.text(usage.trim().trim_start_matches("Usage:").trim());
            self.0.push_str(".br\n");
        }
        subcommands(command).for_each(|command| self.synopsis(command));
    }

    fn arg(&mut self, arg: &Arg) {
        self.0.push_str(".TP\n");
        let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR, ")).unwrap_or_default();
        let _ = match arg.get_long() {
            Some(long) if takes_value => {
                writeln!(self.0, "{short}\\fB\\-\\-{}\\fR \\fI{}\\fR", escaped(long), escaped(name))
            }
            Some(long) => writeln!(self.0, "{short}\\fB\\-\\-{}\\fR", escaped(long)),
            None => writeln!(self.0, "\\fI{}\\fR", escaped(name)),
        };
        let (short, long) = (arg.get_help().map(ToString::to_string), arg.get_long_help().map(ToString::to_string));
        let mut help = long.or(short).unwrap_or_default();
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if takes_value && !arg.is_hide_default_value_set() && defaults.iter().any(|value| !value.is_empty()) {
            let _ = write!(help, " [default: {}]", defaults.join(" "));
        }
        for (index, paragraph) in help.split("\n\n").enumerate() {
            self.0.push_str(if index == 0 { "" } else { ".IP\n" });
            self.text(paragraph);
        }
    }

    /// The text after the help: a line that ends with a colon begins a part, and indented lines of examples stay lines.
    fn after_help(&mut self, command: &Command, is_top: bool) {
        let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let mut is_example = false;
        if !is_top && !text.is_empty() {
            self.0.push_str(".PP\n");
        }
        for line in text.lines() {
            match line.strip_suffix(':').filter(|heading| !heading.contains(' ') || is_top) {
                Some(heading) if !line.starts_with(' ') => {
                    self.end_example(&mut is_example);
                    if is_top {
                        self.heading("SH", &heading.to_uppercase());
                    } else {
                        let _ = writeln!(self.0, ".PP\n{}:", escaped(heading));
                    }
                    if heading.starts_with("Example") {
                        self.0.push_str(".nf\n");
                        is_example = true;
                    }
                }
                _ if line.is_empty() => {
                    self.end_example(&mut is_example);
                    self.0.push_str(".PP\n");
                }
                _ if is_example => {
                    let _ = writeln!(self.0, "    {}", escaped(line.strip_prefix("  ").unwrap_or(line)));
                }
                _ => self.text(line.trim()),
            }
        }
        self.end_example(&mut is_example);
    }

    fn end_example(&mut self, is_example: &mut bool) {
        if std::mem::take(is_example) {
            self.0.push_str(".fi\n");
        }
    }

    fn heading(&mut self, kind: &str, title: &str) {
        let _ = writeln!(self.0, ".{kind} \"{}\"", escaped(title));
    }

    fn text(&mut self, text: &str) {
        for line in text.lines() {
            // A line that begins with a dot or an apostrophe would be a request.
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            let _ = writeln!(self.0, "{guard}{}", escaped(line));
        }
    }
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help")
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// Text without characters that roff interprets. A minus stays one when it is copied from the page.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq")
}
