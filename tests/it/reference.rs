//! The commands of the README and of the reference, run as they are printed.
//!
//! A block of the language `console` has the commands, after `$ `, and what they print. The commands of a page share
//! one shell, one empty folder and one fresh server. `…` stands for any text in a line, and alone for any lines.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adda::store::accounts::AuditAction;

use crate::support::{Server, Ws, code_blocks, repository, test_tools};

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
    let mut is_continued = false;
    for line in code_blocks(page, "console").concat().lines() {
        if let Some(command) = line.strip_prefix("$ ") {
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

/// A page of the reference.
fn page(name: &str) -> String {
    fs::read_to_string(repository().join("static/docs").join(name)).expect("a page")
}

/// The row of a table that begins with a cell.
#[track_caller]
fn row<'a>(page: &'a str, first: &str) -> &'a str {
    let begin = format!("| {first}");
    page.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("no row begins with {begin}"))
}

#[test]
fn the_reference_shows_every_flag_with_its_default() {
    let text = page("configuration.md");
    let command = adda::cli::args::command(adda::cli::args::Variables::Ignored);
    let serve = command.find_subcommand("serve").expect("the command serve");
    let flags: Vec<_> =
        serve.get_arguments().filter(|flag| !["help", "version"].contains(&flag.get_id().as_str())).collect();
    for flag in &flags {
        let name = flag.get_long().expect("a long name");
        let row = row(&text, &format!("`--{name} "));
        for default in flag.get_default_values() {
            let default = format!("| `{}` |", default.to_str().expect("a default in UTF-8"));
            // A rate is shown with its unit, and a bare number is one of bytes.
            assert!(
                row.contains(&default) || row.contains(&default.replace("` |", "/s` |")),
                "{row} without {default}"
            );
        }
    }
    let rows = text.lines().filter(|line| line.starts_with("| `--")).count();
    assert_eq!(rows, flags.len(), "a row for each flag");
}

#[test]
fn the_reference_shows_every_command() {
    let text = page("operating.md");
    let command = adda::cli::args::command(adda::cli::args::Variables::Ignored);
    let mut names = Vec::new();
    for command in command.get_subcommands().filter(|command| command.get_name() != "serve") {
        let inner: Vec<_> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        if inner.is_empty() {
            names.push(command.get_name().to_owned());
        }
        names.extend(inner.iter().map(|inner| format!("{} {inner}", command.get_name())));
    }
    assert!(names.len() > 12, "{names:?}");
    for name in names {
        row(&text, &format!("`adda {name}"));
    }
}

/// The words in backquotes of the first cell of each row of the table below a line.
#[track_caller]
fn first_words(page: &str, above: &str) -> Vec<String> {
    let (_, table) = page.split_once(above).unwrap_or_else(|| panic!("no line {above}"));
    let rows =
        table.lines().skip_while(|line| !line.starts_with("| ---")).skip(1).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_reference_shows_every_metric() {
    let server = Server::start();
    let metrics = server.get("/metrics").text().to_owned();
    let mut served: Vec<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let shown = first_words(&page("operating.md"), "| metric | kind | meaning |\n");
    let mut shown: Vec<&str> = shown.iter().map(|name| name.split('{').next().expect("a name")).collect();
    served.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, served);
}

#[test]
fn the_reference_shows_every_action_of_the_audit_log() {
    let mut shown = first_words(&page("http.md"), "| `action` | change |\n");
    let mut known: Vec<_> = AuditAction::ALL.iter().map(|action| action.word()).collect();
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
}

#[test]
fn the_reference_shows_the_commands_of_a_websocket() {
    let server = Server::start();
    let mut ws = Ws::join(&server, "/ws/tea/ana");
    let shown = first_words(&page("websocket.md"), "| `type` | fields | effect |\n");
    assert!(shown.len() >= 10, "{shown:?}");
    for kind in shown {
        ws.command(&serde_json::json!({"type": kind, "nonce": "known"}));
        ws.command(&serde_json::json!({"type": "wave", "nonce": "unknown"}));
        let end = ws.until(|frame| {
            assert!(frame["nonce"] != "known" || frame["reason"] != "unknown_type", "{kind}: {frame}");
            frame["nonce"] == "unknown"
        });
        assert_eq!(end["reason"], "unknown_type", "{kind}");
    }
}

#[test]
fn the_reference_names_files_that_exist() {
    for path in first_words(&page("architecture.md"), "| part | what it does |\n") {
        let is_there = ["", "src/"].iter().any(|folder| {
            let path = repository().join(format!("{folder}{path}"));
            path.exists() || path.with_extension("rs").exists()
        });
        assert!(is_there, "{path}");
    }
}

#[test]
fn the_reference_shows_the_limits() {
    use adda::auth::attempts::{
        LOGINS_PER_ACCOUNT, LOGINS_PER_ADDRESS, REGISTRATIONS_PER_ADDRESS, SESSIONS_BURST, SESSIONS_PER_S,
        SUCCESSES_PER_ACCOUNT, SUCCESSES_PER_ADDRESS,
    };
    use adda::auth::password::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};
    use adda::limits::*;

    let text = page("limits.md");
    let limits = Limits::default();
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
    let s = |time: std::time::Duration| format!("{} s", time.as_secs());
    let grouped = |number: usize| format!("{},{:03}", number / 1_000, number % 1_000);
    let (rate, burst) = (limits.rate_per_s, limits.rate_burst);
    for (first, parts) in [
        ("request head", vec![kib(HEAD_BYTES_MAX), format!("{HEADERS_MAX} fields"), s(limits.head_deadline)]),
        ("request body", vec![kib(BODY_BYTES_MAX), s(limits.body_deadline)]),
        ("requests of a connection", vec![format!("| {REQUESTS_PER_CONNECTION_MAX},")]),
        (
            "idle connections",
            vec![s(IDLE_WAIT), format!("{IDLE_PER_ADDRESS_MAX} of an address"), {
                assert_eq!(IDLE_PART, 10);
                "a tenth".to_owned()
            }],
        ),
        (
            "requests in service",
            vec![format!("{RELAYS_MAX} at once, {RELAYS_PER_ADDRESS_MAX} of an address"), s(RELAY_WAIT)],
        ),
        ("request bodies in memory", vec![format!("{BODIES_MAX} at once, {BODIES_PER_ADDRESS_MAX} of an address")]),
        ("response |", vec![kib(RESPONSE_BYTES_PER_S_MIN as usize), s(limits.write_stall)]),
        (
            "responses that wait",
            vec![mib(RESPONSES_BYTES_MAX), format!("{} of an address", mib(RESPONSES_PER_ADDRESS_BYTES_MAX))],
        ),
        ("WebSocket message", vec![kib(MESSAGE_BYTES_MAX), kib(limits.content_bytes_max), s(limits.read_deadline())]),
        (
            "room, username, nonce",
            vec![format!("{ROOM_CHARS_MAX}, {USERNAME_CHARS_MAX}, {NONCE_CHARS_MAX} characters")],
        ),
        ("a room's displayed name, topic", vec![format!("{ROOM_NAME_CHARS_MAX}, {TOPIC_CHARS_MAX} characters")]),
        ("slow mode", vec![format!("{} s", grouped(SLOW_MODE_S_MAX as usize))]),
        ("a token's label, a ban's reason", vec![format!("{LABEL_CHARS_MAX} characters")]),
        (
            "password |",
            vec![format!("{PASSWORD_CHARS_MIN} characters"), format!("{} bytes", grouped(PASSWORD_BYTES_MAX))],
        ),
        ("rooms of one connection", vec![format!("| {ROOMS_PER_CONNECTION_MAX} |")]),
        ("logins of one account", vec![format!("{LOGINS_PER_USER_MAX} at once")]),
        (
            "invitation",
            vec![format!("{} uses", grouped(INVITATION_USES_MAX as usize)), format!("{INVITATION_DAYS_MAX} days")],
        ),
        (
            "audit log",
            vec![
                format!("{} days", AUDIT_KEPT.as_secs() / 86_400),
                format!("{} entries", grouped(AUDIT_ENTRIES_MAX)),
                format!("down to {},", grouped(AUDIT_REGISTRATIONS_KEPT)),
            ],
        ),
        ("setup link", vec![(if SETUP_SPAN_MS == 3_600_000 { "an hour" } else { "?" }).to_owned()]),
        (
            "rate |",
            vec![format!("{rate} messages a second after a burst of {burst}"), format!("{STRIKES_MAX} refusals")],
        ),
        (
            "rate of an address",
            vec![
                format!("{} messages a second", rate * USERS_PER_ADDRESS),
                format!("burst of {}", burst * USERS_PER_ADDRESS),
                format!(
                    "{} new connections a second after {}, the next ones wait for up to {} s",
                    limits.connections_per_s,
                    grouped(limits.connections_burst as usize),
                    limits.connection_wait_max.as_secs()
                ),
                format!("{} new WebSockets a second after {}", limits.handshakes_per_s, limits.handshakes_burst),
            ],
        ),
        (
            "reads of an address",
            vec![
                format!("{} searches a second after a burst of {}", limits.searches_per_s, limits.searches_burst),
                format!(
                    "{} pages of history a second after {}",
                    limits.pages_per_s,
                    grouped(limits.pages_burst as usize)
                ),
            ],
        ),
        (
            "search |",
            vec![
                format!("{SEARCH_TERMS_MAX} different terms"),
                format!("{} ms", SEARCH_TIME.as_millis()),
                format!("{SEARCHES_WAITING_MAX} wait, for {}", s(SEARCH_WAIT)),
            ],
        ),
        (
            "failed logins",
            vec![format!("{LOGINS_PER_ACCOUNT} of an account"), format!("{LOGINS_PER_ADDRESS} of an address")],
        ),
        (
            "successful logins",
            vec![format!("{SUCCESSES_PER_ACCOUNT} of an account and {SUCCESSES_PER_ADDRESS} of an address")],
        ),
        (
            "registrations, guests' sessions",
            vec![format!("{REGISTRATIONS_PER_ADDRESS} an hour; {SESSIONS_BURST}, then {SESSIONS_PER_S} a second")],
        ),
        (
            "password checks",
            vec![format!("{HASHES_RUNNING_MAX} at once, {HASHES_WAITING_MAX} wait, for {}", s(HASH_WAIT))],
        ),
        (
            "people that a `welcome`",
            vec![
                format!("first {MEMBERS_LISTED_MAX}"),
                format!("{PRESENCE_NAMES_MAX} and {PRESENCE_NAMES_MAX}"),
                grouped(PRESENCE_NAMES_PER_INTERVAL_MAX),
            ],
        ),
        (
            "latest frames in memory",
            vec![format!("{HISTORY_MAX} messages or {}", kib(RING_BYTES_MAX)), mib(RINGS_BYTES_MAX)],
        ),
        ("`--data :memory:`", vec![format!("{HISTORY_MAX} messages"), mib(KEPT_BYTES_MAX)]),
        ("replay", vec![format!("{HISTORY_MAX} messages")]),
        ("outbox |", vec![mib(limits.outbox_bytes_max), s(limits.outbox_stall), mib(OUTBOXES_BYTES_MAX)]),
        ("silence", vec![format!("every {}, end after {}", s(limits.ping_interval), s(limits.read_deadline()))]),
        (
            "connections | the",
            vec![
                format!("open files − {DESCRIPTORS_RESERVED}"),
                format!("(`(vm.max_map_count − {MAPS_RESERVED}) / {MAPS_PER_THREAD}`)"),
            ],
        ),
    ] {
        let row = row(&text, first);
        for part in parts {
            assert!(row.contains(&part), "{row} without {part}");
        }
    }
}
