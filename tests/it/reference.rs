//! The commands of the README and of the reference, run as they are printed.
//!
//! A block of the language `console` has the commands, after `$ `, and what they print. The commands of a page share
//! one shell, one empty folder and one fresh server. `…` stands for any text in a line, and alone for any lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Server, repository, test_tools};

/// The commands that start the server. It runs already, so they print what it printed.
const STARTS: [&str; 2] = ["adda", "cargo run --release"];

/// A command, and the lines that it should print.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    command: String,
    output: Vec<String>,
}

/// The examples in the `console` blocks of a page.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut is_inside = false;
    let mut is_continued = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_inside = line == "```console";
        } else if !is_inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_owned(), output: Vec::new() });
            is_continued = line.ends_with('\\');
        } else if let Some(example) = examples.last_mut() {
            if is_continued {
                example.command += "\n";
                example.command += line;
                is_continued = line.ends_with('\\');
            } else {
                example.output.push(line.to_owned());
            }
        }
    }
    examples
}

/// Whether a line is as printed, where `…` stands for any text.
fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether lines are as printed, where a line `…` stands for any lines.
fn lines_match(expected: &[String], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((first, expected)) if first == "…" => (0..=lines.len()).any(|at| lines_match(expected, &lines[at..])),
        Some((first, expected)) => {
            lines.split_first().is_some_and(|(line, lines)| line_matches(first, line) && lines_match(expected, lines))
        }
    }
}

/// Runs the examples of a page, and returns those whose output differs.
#[track_caller]
fn differing(name: &str, page: &str) -> Vec<String> {
    let examples = examples(page);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (folder, programs) = (dir.path().join("folder"), dir.path().join("programs"));
    fs::create_dir(&folder).expect("a folder");
    fs::create_dir(&programs).expect("a folder");
    symlink(env!("CARGO_BIN_EXE_adda"), programs.join("adda")).expect("a link");
    symlink(test_tools().join("bin/websocat"), programs.join("websocat")).expect("a link");
    let database = folder.join("adda.db");
    let server = Server::with(&["--data", database.to_str().expect("a path in UTF-8")]);
    let address = server.addr().to_string();
    // The reader listens on every address, the test on one.
    let printed = format!("listening on http://0.0.0.0:3000\n{}\n", server.next_line());

    let mut script = String::new();
    for Example { command, .. } in &examples {
        let command = command.replace("localhost:3000", &address);
        if STARTS.contains(&&*command) {
            fs::write(dir.path().join("start"), printed.replace(&address, "127.0.0.1:3000")).expect("a file");
            script += "cat ../start; printf '\\036'\n";
        } else {
            script += &format!("{{ {command}\n}} 2>&1; printf '\\036'\n");
        }
    }
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = Command::new("bash");
    crate::support::clean(&mut shell)
        .args(["-c", &script])
        .current_dir(&folder)
        .env("PATH", format!("{}:{path}", programs.display()))
        .env_remove("ADDA_DATA")
        .stdin(Stdio::null());
    let output = shell.output().expect("bash");
    let output = String::from_utf8_lossy(&output.stdout).replace(&address, "localhost:3000");
    let outputs: Vec<&str> = output.split_terminator('\u{1e}').collect();
    assert_eq!(outputs.len(), examples.len(), "{name}: {output}");
    let differs = |(example, output): (&Example, &&str)| {
        let lines: Vec<&str> = output.lines().collect();
        let said =
            || format!("{name}: $ {}\nexpected:\n{}\ngot:\n{output}", example.command, example.output.join("\n"));
        (!lines_match(&example.output, &lines)).then(said)
    };
    examples.iter().zip(&outputs).filter_map(differs).collect()
}

#[test]
fn every_command_prints_what_the_reference_says() {
    let pages = fs::read_dir(repository().join("static/docs")).expect("the reference");
    let pages =
        pages.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|e| e == "md"));
    let pages: Vec<_> = pages.chain([repository().join("README.md")]).collect();
    let read = |path: &Path| fs::read_to_string(path).expect("a page");
    let commands: usize = pages.iter().map(|path| examples(&read(path)).len()).sum();
    assert!(commands > 40, "only {commands} commands found");
    // Each page has a server of its own.
    let differing: Vec<String> = std::thread::scope(|scope| {
        let spawn = |path: &PathBuf| {
            let (name, page) = (path.display().to_string(), read(path));
            scope.spawn(move || differing(&name, &page))
        };
        let running: Vec<_> = pages.iter().map(spawn).collect();
        running.into_iter().flat_map(|page| page.join().expect("a page that runs")).collect()
    });
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

#[test]
fn examples_are_read_and_compared_as_they_are_printed() {
    let page = "text\n```console\n$ a \\\n  b\nx…z\n…\nend\n$ c\n```\n```sh\n$ no\n```\n";
    let found = examples(page);
    assert_eq!(found[0], Example { command: "a \\\n  b".into(), output: vec!["x…z".into(), "…".into(), "end".into()] });
    assert_eq!(found[1], Example { command: "c".into(), output: Vec::new() });
    assert_eq!(found.len(), 2);
    for (lines, expected) in [
        (&["xyz", "end"][..], true),
        (&["xz", "1", "2", "end"], true),
        (&["xy", "end"], false),
        (&["xyz", "end", "more"], false),
        (&["xyz"], false),
    ] {
        assert_eq!(lines_match(&found[0].output, lines), expected, "{lines:?}");
    }
    assert!(!line_matches("a…b", "ab c") && line_matches("a…b…", "a1b2") && !line_matches("ab", "abc"));
}
