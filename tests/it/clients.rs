//! Common clients in one room together, with each form of the URL.
//!
//! Python's `websockets`, Node's `ws` and `websocat` come from `tests/run`; a browser is in `tests/browser`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{DEADLINE, Server, Ws, eventually, repository, test_tools};

/// The message of each client: words, joiners, conjuncts and an emoji of several characters.
const MESSAGES: [(&str, &str); 3] = [
    ("পাইথন", "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি"),
    ("নোড", "র\u{200d}্যাব আর ক্ষ্ম, কাঁঠাল 👩\u{200d}💻"),
    ("ক্যাট", "আড্ডা জমে ক্ষীর!"),
];

/// A foreign client; dropping this kills it.
struct Client(Child);

impl Client {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        // Proxy settings are for other hosts than this machine.
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        match child {
            Ok(child) => Self(child),
            Err(error) => panic!("failed to run {command:?}: {error}; run tests/run once, it installs the clients"),
        }
    }

    /// The lines that it prints until it ends, which must be with success.
    #[track_caller]
    fn lines(mut self) -> Vec<String> {
        let stdout = self.0.stdout.take().expect("a piped stdout");
        let lines = BufReader::new(stdout).lines().map(|line| line.expect("text in UTF-8")).collect();
        let status = self.0.wait().expect("our own child");
        assert!(status.success(), "{status}: {lines:?}");
        lines
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the three clients, each with the URL that `target` gives it, and checks that each got all messages. The room
/// must be empty before.
#[track_caller]
fn chat(server: &Server, watcher: &str, target: impl Fn(&str) -> String, names: [&str; 3]) {
    let tools = test_tools();
    let mut watcher = Ws::join(server, watcher);
    let url = |name: &str| format!("ws://{}{}", server.addr(), target(name));
    let clients = repository().join("tests/clients");
    let count = MESSAGES.len().to_string();

    let mut python = Command::new(tools.join("venv/bin/python"));
    python.arg(clients.join("chat.py")).args([&url(names[0]), MESSAGES[0].1, &count]);
    let mut node = Command::new("node");
    node.arg(clients.join("chat.mjs")).args([&url(names[1]), MESSAGES[1].1, &count]).env("ADDA_TEST_TOOLS", &tools);
    let mut websocat = Command::new(tools.join("bin/websocat"));
    websocat.args(["--text", "--no-close", &url(names[2])]);

    let python = Client::start(&mut python);
    let node = Client::start(&mut node);
    let mut websocat = Client::start(&mut websocat);
    let mut joined: Vec<String> = Vec::new();
    while joined.len() < 3 {
        let frame = watcher.expect("join");
        joined.push(frame["username"].as_str().unwrap_or_default().to_string());
    }
    joined.sort();
    let mut wanted = names.map(str::to_string);
    wanted.sort();
    assert_eq!(joined, wanted);

    watcher.say("begin");
    // websocat needs no JSON: a plain line is a message.
    let stdin = websocat.0.stdin.as_mut().expect("a piped stdin");
    stdin.write_all(format!("{}\n", MESSAGES[2].1).as_bytes()).expect("a line for websocat");

    let said: BTreeSet<String> = (0..3).map(|n| format!("{}: {}", names[n], MESSAGES[n].1)).collect();
    for (client, lines) in [("Python", python.lines()), ("Node", node.lines())] {
        assert_eq!(BTreeSet::from_iter(lines), said, "what {client} heard");
    }
    let stdout = websocat.0.stdout.take().expect("a piped stdout");
    let mut heard = BTreeSet::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let frame: Value = serde_json::from_str(&line).expect("a frame");
        if frame["type"] == "text" && frame["content"] != "begin" {
            let text = |name: &str| frame[name].as_str().unwrap_or_default().to_string();
            heard.insert(format!("{}: {}", text("username"), text("content")));
        }
        if heard.len() == said.len() {
            break;
        }
    }
    assert_eq!(heard, said, "what websocat heard");
    drop(websocat);
    let mut leaves = 0;
    watcher.until(|frame| {
        leaves += usize::from(frame["type"] == "leave");
        leaves == 3
    });
}

const NAMES: [&str; 3] = [MESSAGES[0].0, MESSAGES[1].0, MESSAGES[2].0];

#[test]
fn clients_chat_with_room_and_username_in_the_query() {
    let server = Server::start();
    chat(&server, "/ws?room=%E0%A6%9A%E0%A6%BE", |name| format!("/ws?room=চা&username={name}"), NAMES);
}

#[test]
fn clients_chat_with_the_username_in_the_path() {
    let server = Server::start();
    chat(&server, "/ws", |name| format!("/ws/{name}"), NAMES);
}

#[test]
fn clients_chat_with_room_and_username_in_the_path() {
    let server = Server::start();
    chat(&server, "/ws/%E0%A6%9A%E0%A6%BE/W", |name| format!("/ws/চা/{name}"), NAMES);
}

#[test]
fn clients_chat_with_the_room_alone() {
    let server = Server::start();
    chat(&server, "/ws/chat/%E0%A6%9A%E0%A6%BE/", |_| "/ws/chat/চা/".to_string(), ["Anonymous"; 3]);
}

#[test]
fn clients_chat_with_different_forms_of_the_url() {
    let server = Server::start();
    let target = |name: &str| match name {
        name if name == NAMES[0] => format!("/ws?username={name}"),
        name if name == NAMES[1] => format!("/ws/{name}"),
        name => format!("/ws/general/{name}"),
    };
    chat(&server, "/ws/chat/general/", target, NAMES);
    eventually("only the room's words are left", DEADLINE.max(Duration::from_secs(1)), || {
        server.get("/api/rooms/general").json()["data"]["client_count"] == 0
    });
}
