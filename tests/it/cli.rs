//! Tests of the command: its arguments, its output, its exit codes, and the contents of its log.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tungstenite::Message;

use crate::support::{DEADLINE, Event, Server, Ws, clean, http, output, run};

/// Time from a signal to the end of the process.
const STOP_WAIT: Duration = Duration::from_secs(5);

fn adda() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    clean(&mut command);
    command
}

/// Runs a command that must print nothing to stdout; returns its exit code and its stderr.
#[track_caller]
fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let output = output(command);
    assert!(output.stdout.is_empty(), "{command:?} said {:?}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_invalid_flag_is_exit_2_and_a_sentence() {
    for flags in [
        &["--no-such-flag"][..],
        &["--listen"],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1"],
        &["--listen", "127.0.0.1:99999"],
        &["--history", "many"],
        &["--rate", "fast"],
        &["--rate=-1"],
        &["--max-connections=-5"],
        &["--max-per-ip", "x"],
        &["--outbox-bytes", "1X"],
        &["--ping-interval", "soon"],
        &["--origin", "not an origin"],
        &["--log", "shout"],
        &["--accounts", "required", "--data", ":memory:"],
        &["--accounts", "required", "--data", ":memory:", "--registration", "invite"],
        &["no-such-command"],
    ] {
        let (code, said) = refusal(adda().args(flags));
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        assert!(said.contains(flags[0].split('=').next().unwrap_or_default()), "{flags:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{flags:?}: {said}");
    }
}

#[test]
fn an_error_names_what_was_typed_and_what_to_try() {
    for (arguments, said) in [
        (&["--no-such-flag"][..], "no such flag: --no-such-flag; see `adda --help`"),
        (&["--lisen", "3000"], "no such flag: --lisen; did you mean --listen?"),
        (&["serve", "--max-content-bytes", "1"], "no such flag: --max-content-bytes; did you mean --max-content?"),
        (&["user", "add", "x", "--rle", "admin"], "no such flag: --rle; did you mean --role?"),
        (&["dance"], "no such command: dance; see `adda --help`"),
        (&["doctr"], "no such command: doctr; did you mean doctor?"),
        (&["users"], "no such command: users; did you mean user?"),
        (&["serv"], "no such command: serv; did you mean serve?"),
        (&["setup", "--url", "chat"], "invalid value \"chat\" for --url: expected a URL such as https://chat.example"),
        (
            &["--listen", "127.0.0.1"],
            "invalid value \"127.0.0.1\" for --listen: expected a port, too, such as 127.0.0.1:3000",
        ),
        (&["--listen", "[::1]:99999"], "invalid value \"[::1]:99999\" for --listen: expected a port from 0 to 65535"),
        (&["user", "ad"], "no such command: ad; did you mean add?"),
        (&["help", "user", "ad"], "no such command: ad; did you mean add?"),
        (&["user", "--data", "x"], "command missing; see `adda user --help`"),
        (&["user", "add"], "argument missing: NAME; see `adda user add --help`"),
        (&["user", "add", "x", "y"], "unexpected argument: y; see `adda user add --help`"),
        (&["user", "add", "x", "--role", "king"], "invalid value \"king\" for --role: expected user or admin"),
        (&["user", "remove", "x", "--yes=1"], "--yes takes no value; see `adda user remove --help`"),
        (&["token", "revoke", "x"], "invalid value \"x\" for ID: expected an id from `adda token list`"),
        (&["--data", "x", "user", "list"], "--data stands before the command user; put flags after it"),
        (&["--listen"], "value missing for --listen <ADDR>; see `adda --help`"),
        (&["--accounts"], "value missing for --accounts <WHEN>; expected optional or required"),
        (&["--listen", "1", "--listen", "2"], "--listen given twice; use it once"),
        (&["--listen", "1", "--port", "2"], "--listen and --port conflict; use one of them"),
        (&["--port", "x"], "invalid value \"x\" for --port: expected a port from 0 to 65535"),
        (
            &["--listen", "nowhere"],
            "invalid value \"nowhere\" for --listen: expected an address such as 0.0.0.0:3000, or a port",
        ),
        (&["--durability", "some"], "invalid value \"some\" for --durability: expected full or normal"),
        (&["--log", "shout"], "invalid value \"shout\" for --log: expected off, error, warn, info or debug"),
        (&["--history", "201"], "invalid value \"201\" for --history: expected a number from 0 to 200"),
        (
            &["--origin", "http://a ftp://x"],
            "invalid value \"http://a ftp://x\" for --origin: \"ftp://x\": expected an origin such as \
             https://chat.example or http://192.168.1.5:3000",
        ),
        (
            &["--trusted-proxy", "10.0.0.1/8"],
            "invalid value \"10.0.0.1/8\" for --trusted-proxy: the address has bits beyond the prefix length; \
             did you mean 10.0.0.0/8?",
        ),
        (&["completions", "tcsh"], "invalid value \"tcsh\" for SHELL: expected bash, elvish, fish, powershell or zsh"),
    ] {
        assert_eq!(refusal(adda().args(arguments)), (Some(2), format!("adda: {said}\n")), "{arguments:?}");
    }
    let (code, said) = refusal(adda().args(["--listen", "\u{1b}[31m\nx"]));
    assert!(code == Some(2) && said.lines().count() == 1 && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn an_error_names_the_variable_that_has_the_value() {
    let address = "expected an address such as 0.0.0.0:3000, or a port";
    for (variables, arguments, said) in [
        (&[("ADDA_LISTEN", "nowhere")][..], &[][..], format!("invalid value \"nowhere\" in ADDA_LISTEN: {address}")),
        (&[("ADDA_LISTEN", "nowhere")], &["serve"], format!("invalid value \"nowhere\" in ADDA_LISTEN: {address}")),
        (&[("ADDA_LISTEN", "a")], &["--listen", "b"], format!("invalid value \"b\" for --listen: {address}")),
        (&[("ADDA_LISTEN", "a")], &["--listen", "a"], format!("invalid value \"a\" for --listen: {address}")),
        (&[("PORT", "high")], &[], "invalid value \"high\" in PORT: expected a port from 0 to 65535".to_owned()),
        (&[("ADDA_PORT", "x")], &[], "invalid value \"x\" in ADDA_PORT: expected a port from 0 to 65535".to_owned()),
        (
            &[("ADDA_MAX_PER_IP", "x")],
            &[],
            "invalid value \"x\" in ADDA_MAX_PER_IP: expected a number, or 0 for no limit".to_owned(),
        ),
        (
            &[("ADDA_LOG", "x")],
            &[],
            "invalid value \"x\" in ADDA_LOG: expected off, error, warn, info or debug".to_owned(),
        ),
        (
            &[("ADDA_LISTEN", "1"), ("ADDA_PORT", "2")],
            &[],
            "ADDA_LISTEN and ADDA_PORT conflict; use one of them".to_owned(),
        ),
    ] {
        let said = format!("adda: {said}\n");
        let mut command = adda();
        command.envs(variables.iter().copied()).args(arguments);
        assert_eq!(refusal(&mut command), (Some(2), said), "{variables:?} {arguments:?}");
    }
    // The variables of the server don't concern the other commands.
    let output = output(adda().env("ADDA_LISTEN", "nowhere").args(["completions", "bash"]));
    assert_eq!(output.status.code(), Some(0));
}

/// Starts a server with these variables and arguments; returns its address.
fn address_of(variables: &[(&str, &str)], arguments: &[&str]) -> std::net::SocketAddr {
    let mut command = Command::new("env");
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(env!("CARGO_BIN_EXE_adda")).args(arguments);
    Server::spawn(command).addr()
}

#[test]
fn a_port_alone_is_an_address() {
    // Only a free port that the system chooses can be requested without a race.
    for (variables, arguments, is_unspecified) in [
        (&[][..], &["--listen", "0"][..], true),
        (&[], &["--listen", ":0"], true),
        (&[], &["--port", "0"], true),
        (&[], &["serve", "--port=0"], true),
        (&[("PORT", "1")], &["--port", "0"], true),
        (&[("ADDA_LISTEN", "0"), ("PORT", "1")], &[], true),
        (&[("ADDA_PORT", "0"), ("PORT", "1")], &[], true),
        (&[("ADDA_LISTEN", "127.0.0.1:1")], &["--port", "0"], true),
        (&[("ADDA_PORT", "1")], &["--listen", "127.0.0.1:0"], false),
    ] {
        let address = address_of(variables, arguments);
        assert_eq!(address.ip().is_unspecified(), is_unspecified, "{variables:?} {arguments:?}: {address}");
        assert!(address.port() > 1, "{variables:?} {arguments:?}: {address}");
    }
}

#[test]
fn an_empty_variable_is_ignored() {
    let flags = "LISTEN PORT DURABILITY RETENTION MAX_DATA HISTORY ORIGIN TRUSTED_PROXY MAX_CONNECTIONS MAX_PER_IP \
                 MAX_CONTENT RATE BURST OUTBOX_BYTES PING_INTERVAL ACCOUNTS REGISTRATION LEASE LOG";
    let names: Vec<String> = flags.split(' ').map(|flag| format!("ADDA_{flag}")).collect();
    let mut empty: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "")).collect();
    empty.push(("PORT", ""));
    assert_ne!(address_of(&empty, &["--listen", "127.0.0.1:0"]).port(), 0);
    let said = refusal(adda().env("ADDA_LISTEN", "").args(["--listen", ""])).1;
    assert!(said.contains("--listen"), "an empty flag is not ignored: {said}");
    let said = refusal(adda().env("ADDA_DATA", "").args(["export"]).current_dir("/")).1;
    assert!(said.contains("`adda.db`"), "the default is used: {said}");
}

#[test]
fn flags_override_the_environment() {
    for (name, value) in [("ADDA_LISTEN", "127.0.0.1:x"), ("ADDA_HISTORY", "many"), ("PORT", "high")] {
        let (code, said) = refusal(adda().env(name, value));
        assert_eq!(code, Some(2), "{name}={value}: {said}");
        assert!(!said.trim().is_empty(), "{name}={value}");
    }
    let server = Server::with(&["--history", "1"]);
    assert_eq!(server.get("/healthz").status, 200);
    let mut command = Command::new("env");
    command.args(["ADDA_LISTEN=127.0.0.1:0", "ADDA_MAX_CONTENT=77", "PORT=1", env!("CARGO_BIN_EXE_adda")]);
    let server = Server::spawn(command);
    assert_eq!(Ws::join(&server, "/ws").welcome["limits"]["content_bytes"], 77);
    let mut command = Command::new("env");
    command.args(["ADDA_LISTEN=127.0.0.1:1", "ADDA_MAX_CONTENT=77", env!("CARGO_BIN_EXE_adda")]);
    command.args(["--listen", "127.0.0.1:0", "--max-content", "88"]);
    let server = Server::spawn(command);
    assert_eq!(Ws::join(&server, "/ws").welcome["limits"]["content_bytes"], 88);
}

#[test]
fn the_variable_port_sets_the_port() {
    // Only a free port that the system chooses can be requested without a race.
    let mut command = Command::new("env");
    command.args(["PORT=0", env!("CARGO_BIN_EXE_adda")]);
    let server = Server::spawn(command);
    assert!(server.addr().ip().is_unspecified(), "as by default, but for the port: {}", server.addr());
    assert_ne!(server.addr().port(), 0);
}

#[test]
fn the_subcommand_serve_is_optional() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(Server::spawn(command).get("/healthz").status, 200);
}

#[test]
fn it_listens_on_ipv6_too() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    command.args(["--listen", "[::1]:0"]);
    let server = Server::spawn(command);
    assert!(server.addr().is_ipv6());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_port_in_use_is_exit_1_and_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, said) = refusal(adda().args(["--listen", &address]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
}

#[test]
fn an_address_of_another_machine_is_exit_1_and_one_sentence() {
    // TEST-NET-1 (RFC 5737) belongs to no machine.
    let (code, said) = refusal(adda().args(["--listen", "192.0.2.1:3000"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("192.0.2.1:3000"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
}

#[test]
fn help_and_version_are_exit_0() {
    let help = output(adda().arg("--help"));
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for flag in [
        "--listen",
        "--history",
        "--origin",
        "--max-connections",
        "--max-per-ip",
        "--max-content",
        "--rate",
        "--burst",
        "--outbox-bytes",
        "--ping-interval",
        "--log",
    ] {
        assert!(text.contains(flag), "no {flag} in\n{text}");
    }
    for heading in ["Listening:", "Storage:", "Accounts:", "Limits:", "Logging:", "Examples:", "Environment:"] {
        assert!(text.contains(&format!("\n{heading}\n")), "no {heading} in\n{text}");
    }
    for arguments in [&["help"][..], &["help", "user", "add"], &["user", "help", "add"], &["-h"], &["-V"]] {
        let output = output(adda().args(arguments));
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
    let version = output(adda().arg("--version"));
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_short_help_fits_a_terminal() {
    for (arguments, lines_max) in [
        (&["-h"][..], 24),
        (&["user", "-h"], 24),
        (&["user", "add", "-h"], 24),
        (&["token", "create", "-h"], 24),
        (&["export", "-h"], 24),
        (&["backup", "-h"], 24),
        (&["completions", "-h"], 24),
        (&["serve", "-h"], 30),
        (&["service", "-h"], 30),
    ] {
        let output = output(adda().env("COLUMNS", "80").args(arguments));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.lines().count() <= lines_max, "{arguments:?}: {} lines\n{text}", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{arguments:?}\n{text}");
        assert!(!text.contains('\u{1b}'), "no colours in a file");
    }
}

/// Runs a program of the system on a text, if it is installed; returns its stdout.
fn checked_by(program: &str, arguments: &[&str], text: &str) -> Option<String> {
    let mut child = match Command::new(program)
        .args(arguments)
        .env("MANWIDTH", "80")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{program}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("its input");
    let text = text.to_owned();
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("a writer").expect("all is read");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{program}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn completions_are_scripts_of_their_shells() {
    for (shell, sign) in [
        ("bash", "complete -F _adda"),
        ("zsh", "#compdef adda"),
        ("fish", "complete -c adda"),
        ("elvish", "edit:completion:arg-completer[adda]"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = run(adda().args(["completions", shell]));
        assert!(script.contains(sign), "{shell}");
        for word in ["trusted-proxy", "rotate-guests", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        match shell {
            "bash" => checked_by("bash", &["-n"], &script),
            "zsh" => checked_by("zsh", &["-n"], &script),
            "fish" => checked_by("fish", &["--no-execute"], &script),
            _ => None,
        };
    }
    // The shell itself completes a command, a flag and a value.
    let script = run(adda().args(["completions", "bash"]));
    for (line, word, found) in [("adda toke", "toke", "token"), ("adda serve --lis", "--lis", "--listen")] {
        let words: Vec<&str> = line.split(' ').collect();
        let ask = format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD={}; _adda adda {word} {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.len() - 1,
            words[words.len() - 2],
        );
        if let Some(said) = checked_by("bash", &[], &ask) {
            assert!(said.lines().any(|line| line == found), "{line}: {said}");
        }
    }
}

#[test]
fn the_manual_page_has_every_command_and_flag() {
    let page = run(adda().arg("man"));
    for line in [".TH ADDA 1", ".SH \"NAME\"", ".SH \"SYNOPSIS\"", ".SH \"ENVIRONMENT\"", ".SH \"EXAMPLES\""] {
        assert!(page.contains(line), "{line}");
    }
    let said = checked_by("groff", &["-man", "-Tutf8", "-ww", "-P-cbou"], &page);
    let text = said.unwrap_or_else(|| page.replace('\\', ""));
    for word in [
        "adda token rotate-guests",
        "adda user add",
        "--max-connections",
        "--trusted-proxy",
        "--expires",
        "adda completions",
        "--listen",
        "PORT",
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn the_unit_runs_this_program() {
    let program = env!("CARGO_BIN_EXE_adda");
    for (flags, command) in [
        (&[][..], "serve --data /var/lib/adda/adda.db"),
        (
            &["--listen", "127.0.0.1:3000", "--trusted-proxy", "127.0.0.1 ::1"],
            "serve --data /var/lib/adda/adda.db --listen 127.0.0.1:3000 --trusted-proxy \"127.0.0.1 ::1\"",
        ),
        (&["--data", "/srv/chat/adda.db", "--port", "443"], "serve --data /srv/chat/adda.db --port 443"),
    ] {
        // Variables of the shell are no part of the service.
        let unit = run(adda().env("ADDA_DATA", "mine.db").env("ADDA_LISTEN", "1").arg("service").args(flags));
        assert!(unit.contains(&format!("\nExecStart={program} {command}\n")), "{unit}");
        for line in ["ProtectSystem=strict", "NoNewPrivileges=yes", "LimitNOFILE=", "TasksMax=", "Restart=on-failure"] {
            assert!(unit.contains(&format!("\n{line}")), "{line} in\n{unit}");
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("adda.service");
        // systemd checks that the user of a unit exists.
        std::fs::write(&file, unit.replace("\nUser=adda\n", "\nUser=root\n")).expect("a unit");
        let verify = Command::new("systemd-analyze").arg("verify").arg(&file).output();
        let output = verify.expect("systemd-analyze");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("adda.service"), "{said}");
    }
    assert_eq!(refusal(adda().args(["service", "--listen", "nowhere"])).0, Some(2));
}

/// Runs a server that heeds SIGHUP, even if the tests run under `nohup`.
const HEEDING_HANGUPS: [&str; 2] = ["env", "--default-signal=HUP"];

#[test]
fn a_signal_closes_with_1001_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut server = Server::under(&HEEDING_HANGUPS, &[]);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        let mut ben = Ws::join(&server, "/ws/tea/Ben");
        server.signal(signal);
        for ws in [&mut ana, &mut ben] {
            assert_eq!(ws.close_code(), 1001, "{signal:?}");
            ws.end();
        }
        assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0), "{signal:?}");
        assert!(TcpStream::connect(server.addr()).is_err(), "nothing listens any more");
    }
}

#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_ignored() {
    // `nohup` does the same, and would also move the output to a file.
    let mut server = Server::under(&["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""], &[]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    server.signal(Signal::HUP);
    ana.say("still here");
    ana.expect_text("still here");
    server.signal(Signal::TERM);
    assert_eq!(ana.close_code(), 1001);
    assert!(server.whole_log().contains("by SIGTERM"));
}

#[test]
fn a_hangup_commits_what_was_acked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let flags = ["--data", data.to_str().expect("a path in UTF-8")];
    let mut server = Server::under(&HEEDING_HANGUPS, &flags);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("before the terminal closes");
    ana.expect_text("before the terminal closes");
    server.signal(Signal::HUP);
    assert_eq!(ana.close_code(), 1001);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
    assert!(server.log().contains("by SIGHUP") && !data.with_extension("db-wal").exists(), "{}", server.log());
    let server = Server::with(&flags);
    Ws::join(&server, "/ws/tea/Ben?history=1").expect_text("before the terminal closes");
}

#[test]
fn clients_that_do_not_answer_cannot_delay_the_stop() {
    let mut server = Server::start();
    let _silent: Vec<Ws> = (0..10).map(|_| Ws::connect(&server, "/ws/tea/Silent")).collect();
    let mut half = TcpStream::connect(server.addr()).expect("a connection");
    half.write_all(b"GET /api/rooms HTTP/1.1\r\nHost:").expect("half a head");
    let mut request = TcpStream::connect(server.addr()).expect("a connection");
    request
        .write_all(b"POST /api/rooms HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf a body")
        .expect("half a body");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
}

#[test]
fn under_load_all_clients_get_1001_and_every_acked_message_is_delivered() {
    const TALKERS: usize = 8;
    let mut server = Server::unhurried();
    let all: Vec<(usize, Ws)> = (0..TALKERS).map(|n| (n, Ws::join(&server, &format!("/ws/tea/T{n}")))).collect();
    let stopped = AtomicBool::new(false);
    let codes: Vec<u16> = thread::scope(|scope| {
        let talk = |(number, mut ws): (usize, Ws)| {
            let stopped = &stopped;
            let own = format!("from {number}");
            move || {
                let mut seq = 0;
                // Two messages in flight: with more, the slowest reader would become a slow consumer.
                let mut to_send = 2;
                loop {
                    for _ in 0..std::mem::take(&mut to_send) {
                        // Sending may fail once the server stops; its close code must still arrive.
                        if !stopped.load(Ordering::Relaxed) && ws.try_send(Message::text(own.clone())).is_err() {
                            stopped.store(true, Ordering::Relaxed);
                        }
                    }
                    match ws.event() {
                        Event::Frame(frame) if frame["type"] == "text" => {
                            assert_eq!(frame["seq"], seq + 1, "a gap before the stop");
                            seq += 1;
                            to_send = usize::from(frame["content"] == own.as_str());
                        }
                        Event::Frame(_) => {}
                        Event::Close(Some(code)) => return code,
                        other => panic!("{other:?} without a close code"),
                    }
                }
            }
        };
        let threads: Vec<_> = all.into_iter().map(|ws| scope.spawn(talk(ws))).collect();
        server.wait_for_metric_over("messages_total", 2_000);
        server.signal(Signal::TERM);
        threads.into_iter().map(|thread| thread.join().expect("a talker")).collect()
    });
    assert_eq!(codes, [1001; TALKERS]);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
}

#[test]
fn stdout_has_the_address_and_no_log() {
    let mut server = Server::start();
    Ws::join(&server, "/ws/tea/Ana").close(1000);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
    let rest = server.rest_of_stdout();
    assert!(rest.iter().all(|line| !line.contains("INFO") && !line.contains("DEBUG")), "{rest:?}");
    assert!(!server.log().is_empty(), "the log goes to stderr");
}

#[test]
fn it_accepts_as_soon_as_it_prints_its_address() {
    let start = Instant::now();
    let server = Server::start();
    let first_line = start.elapsed();
    assert_eq!(http(server.addr(), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    assert!(first_line < Duration::from_secs(2), "{first_line:?}");
}

#[test]
fn the_log_has_no_control_characters_bodies_or_queries() {
    let mut server = Server::with(&["--log", "debug"]);
    let mut ana = Ws::join(&server, "/ws/tea/Ana?token=s3cret-token");
    ana.say("s3cret-words");
    ana.expect_text("s3cret-words");
    ana.command(&serde_json::json!({"type": "s3cret\u{1b}[31m\nforged-line"}));
    ana.expect("error");
    for target in [
        "/ws/tea/%1B%5B31m%0Aforged-line",
        "/ws/%0D%0Aforged-line/Ana",
        "/ws?room=%07&username=%0Aforged-line",
        "/api/rooms/%0Aforged-line%1B%5B2J",
        "/%0Aforged-line?token=s3cret-token",
        "/\u{1b}[31m",
        "/a\nforged-line",
        "/\u{202e}\u{85}forged-line",
    ] {
        let mut stream = TcpStream::connect(server.addr()).expect("a connection");
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: \u{1b}]0;x\u{7}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        // Another test checks the response; here it is only awaited.
        let _ = stream.read_to_end(&mut Vec::new());
        let _ = Ws::open(server.addr(), target, &[("Origin", "http://a.example\u{1b}[31m")]);
    }
    ana.close(1000);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(STOP_WAIT).code(), Some(0));
    let log = server.log();
    assert!(log.lines().count() > 1, "something is logged: {log:?}");
    let control = log.chars().find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}'));
    assert_eq!(control, None, "{log:?}");
    assert!(!log.lines().any(|line| line.trim_start().starts_with("forged-line")), "{log}");
    for secret in ["s3cret-token", "s3cret-words"] {
        assert!(!log.contains(secret), "{log}");
    }
}
