//! No secret is stored or printed: not in the log, not on standard output, not in the database nor in the files beside
//! it, in any encoding.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::accounts_cli::Data;
use crate::setup::code_for;
use crate::support::Asked::{ByBearer, ByCookie, Plainly};
use crate::support::{Asked, DEADLINE, Response, Server, Ws, request};

const BOSS_PASSWORD: &str = "correct horse battery";
const WRONG_PASSWORD: &str = "incorrect mule socket";
const FIRST_PASSWORD: &str = "a first good password";
const SECOND_PASSWORD: &str = "another good password";

/// Base64 without padding (RFC 4648, section 4), or its variant for URLs.
fn base64(bytes: &[u8], for_urls: bool) -> String {
    let mut digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    digits.extend_from_slice(if for_urls { b"-_" } else { b"+/" });
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain([0, 0].iter()).take(3).fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        for place in 0..=chunk.len() {
            text.push(char::from(digits[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The encodings from which a secret could be read: plain, URL-encoded, and in hex and base64 at any offset. If the
/// secret is hex digits itself, also its bytes.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let mut bytes = vec![secret.as_bytes().to_vec()];
    let pairs = secret.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.extend(pairs.collect::<Option<Vec<u8>>>());
    let mut all = vec![secret.replace(' ', "+").into_bytes(), secret.replace(' ', "%20").into_bytes()];
    for bytes in bytes {
        all.extend([hex(&bytes).into_bytes(), hex(&bytes).to_uppercase().into_bytes()]);
        for (before, for_urls) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let digits = base64(&[&vec![0; before][..], &bytes].concat(), for_urls);
            // The first and the last digits contain bits of neighbouring bytes.
            all.push(digits.as_bytes()[(before * 8).div_ceil(6)..(before + bytes.len()) * 8 / 6].to_vec());
        }
        all.push(bytes);
    }
    all
}

fn holds(place: &[u8], text: &[u8]) -> bool {
    place.windows(text.len()).any(|window| window == text)
}

/// The names of the secrets that a place contains.
fn found<'a>(place: &[u8], secrets: &[(&'a str, String)]) -> Vec<&'a str> {
    let is_there = |secret: &str| spellings(secret).iter().any(|spelling| holds(place, spelling));
    secrets.iter().filter(|(_, secret)| is_there(secret)).map(|(name, _)| *name).collect()
}

#[track_caller]
fn done(server: &Server, asked: Asked<'_>, method: &str, target: &str, json: Value) -> Response {
    let json = Some(json).filter(|json| !json.is_null());
    let response = request(server.addr(), asked, method, target, json.as_ref());
    assert!(response.status < 300, "{method} {target}: {} {}", response.status, response.text());
    response
}

#[track_caller]
fn said(response: &Response, name: &str) -> String {
    let json = response.json();
    json["data"][name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()
}

#[test]
fn no_secret_is_in_the_log_on_stdout_or_in_the_database() {
    let data = Data::new();
    let mut server = data.serve(&["--log", "debug", "--rate", "0", "--registration", "invite"]);
    let setup = code_for(&data);
    let mut by_commands = Vec::new();
    let mut command = |arguments: &[&str], input: &str| {
        let said = data.run(arguments, input);
        by_commands.push(said.err.clone());
        said.done()
    };
    let made = command(&["user", "add", "Boss", "--role", "admin"], &format!("{BOSS_PASSWORD}\n"));
    let bot = command(&["token", "create", "Herald", "--label", "the hourly news"], "").trim().to_owned();
    let lists = [command(&["user", "list"], ""), command(&["token", "list"], ""), command(&["doctor"], "")];
    by_commands.extend(lists);
    by_commands.push(made);

    let guest = said(&done(&server, Plainly, "POST", "/api/session", json!({"username": "Ana"})), "token");
    let login = json!({"username": "Boss", "password": BOSS_PASSWORD});
    let boss = said(&done(&server, Plainly, "POST", "/api/session", login), "token");
    let wrong = json!({"username": "Boss", "password": WRONG_PASSWORD});
    assert_eq!(request(server.addr(), Plainly, "POST", "/api/session", Some(&wrong)).status, 401);
    let invitation = said(&done(&server, ByCookie(&boss), "POST", "/api/invitations", json!({})), "code");
    let registers = json!({"username": "Rahim", "password": FIRST_PASSWORD, "invitation": invitation});
    let rahim = said(&done(&server, ByCookie(&guest), "POST", "/api/accounts", registers), "token");
    let passwords = json!({"old": FIRST_PASSWORD, "new": SECOND_PASSWORD});
    done(&server, ByCookie(&rahim), "PUT", "/api/account/password", passwords);
    done(&server, ByBearer(&boss), "PATCH", "/api/rooms/den", json!({"private": true}));
    let to_room = said(&done(&server, ByBearer(&boss), "POST", "/api/invitations", json!({"room": "den"})), "code");
    done(&server, ByBearer(&rahim), "POST", "/api/rooms/den/members", json!({"invitation": to_room}));
    done(&server, ByBearer(&rahim), "GET", "/api/sessions", Value::Null);

    let mut ws = Ws::join(&server, &format!("/ws?room=den&token={rahim}"));
    let mut herald = Ws::join(&server, &format!("/ws?room=tea&token={bot}"));
    let stranger = Ws::join(&server, "/ws/tea/Karim");
    let newcomer = stranger.welcome["token"].as_str().expect("a token").to_owned();
    // A token that no client has, like a typing mistake.
    let mistyped = hex(&[0xA7; 32]);
    Ws::join(&server, &format!("/ws?room=tea&token={mistyped}"));
    let stale = request(server.addr(), ByBearer(&mistyped), "GET", "/api/session", None);
    assert_eq!(stale.status, 401, "{}", stale.text());
    ws.say("hello");
    ws.until(|frame| frame["content"] == "hello");
    herald.say("news");
    herald.until(|frame| frame["content"] == "news");

    let secrets: Vec<(&str, String)> = [
        ("an admin's password", BOSS_PASSWORD),
        ("a wrong password", WRONG_PASSWORD),
        ("a password", FIRST_PASSWORD),
        ("a new password", SECOND_PASSWORD),
        ("a bot's token", &bot),
        ("a guest's token", &guest),
        ("an admin's token", &boss),
        ("a user's token", &rahim),
        ("a newcomer's token", &newcomer),
        ("a mistyped token", &mistyped),
        ("the code of a setup link", &setup),
        ("an invitation", &invitation),
        ("an invitation to a room", &to_room),
    ]
    .map(|(name, secret)| (name, secret.to_owned()))
    .into();
    for suffix in ["", "-wal", "-shm"] {
        let file = fs::read(format!("{}{suffix}", data.file())).expect("a file of a server that runs");
        assert_eq!(found(&file, &secrets), [""; 0], "in adda.db{suffix}");
    }
    assert!(holds(&data.bytes(), b"the hourly news"), "the files are read");

    // The check finds a planted secret in each of its encodings.
    for (number, spelling) in ["raw", "hex", "base64"].into_iter().enumerate() {
        let planted = format!("the planted secret {number}");
        let spelt = match spelling {
            "hex" => hex(planted.as_bytes()),
            "base64" => base64(format!("{number}: {planted}!").as_bytes(), number == 0),
            _ => planted.clone(),
        };
        assert_eq!(found(&data.bytes(), &[("planted", planted.clone())]), [""; 0]);
        ws.say(&spelt);
        ws.until(|frame| frame["content"] == spelt);
        assert_eq!(found(&data.bytes(), &[("planted", planted)]), ["planted"], "{spelling}");
    }
    let log = server.wait_for_log("the name of Rahim", |log| log.contains("Rahim") && log.contains("DEBUG ["));
    assert_eq!(found(log.as_bytes(), &secrets), [""; 0], "in\n{log}");

    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
    for (place, text) in [
        ("the log", server.log()),
        ("stdout", server.rest_of_stdout().join("\n")),
        ("what the commands said", by_commands.join("\n")),
    ] {
        assert_eq!(found(text.as_bytes(), &secrets), [""; 0], "in {place}");
    }
    assert_eq!(found(&data.bytes(), &secrets), [""; 0], "in what is left");
    assert_eq!(found(bot.as_bytes(), &secrets), ["a bot's token"], "what was printed once");
}
