//! The setup link over HTTP: its code registers the first admin while registration is closed, once.

use std::net::SocketAddr;
use std::thread;

use adda::config::{Config, Data as Place};
use serde_json::json;

use crate::accounts_cli::Data;
use crate::support::Asked::{ByCookie, Plainly};
use crate::support::{Response, request};

const PASSWORD: &str = "correct horse battery";

fn register(address: SocketAddr, name: &str, code: &str) -> Response {
    let account = json!({"username": name, "password": PASSWORD, "invitation": code});
    request(address, Plainly, "POST", "/api/accounts", Some(&account))
}

#[track_caller]
fn assert_refused(response: &Response, status: u16, reason: &str) {
    assert_eq!((response.status, &response.json()["reason"]), (status, &json!(reason)), "{}", response.text());
}

/// Registers two accounts at once with one code, of which one becomes the admin.
fn race(address: SocketAddr, code: &str) {
    assert_refused(&register(address, "Guess", &"0".repeat(64)), 403, "registration_closed");
    let racers = ["Ana", "Karim"].map(|name| {
        let code = code.to_owned();
        thread::spawn(move || register(address, name, &code))
    });
    let mut responses = racers.map(|racer| racer.join().expect("a response"));
    responses.sort_by_key(|response| response.status);
    let [admin, late] = &responses;
    assert_eq!(admin.status, 201, "{}", admin.text());
    let me = &admin.json()["data"];
    assert_eq!((&me["role"], &me["kind"]), (&json!("admin"), &json!("login")));
    let token = me["token"].as_str().expect("a token");
    let cookie = admin.header("Set-Cookie").expect("a cookie");
    assert!(cookie.starts_with("adda_session_") && cookie.contains(&format!("={token};")), "{cookie}");
    assert_refused(late, 404, "no_such_invitation");
    assert_refused(&register(address, "Late", code), 404, "no_such_invitation");
    let topic = json!({"topic": "leaves"});
    let set = request(address, ByCookie(token), "PATCH", "/api/rooms/tea", Some(&topic));
    assert_eq!(set.status, 200, "{}", set.text());
}

/// The code of the link that `adda setup` prints.
#[track_caller]
pub fn code_for(data: &Data) -> String {
    let link = data.run(&["setup", "--url", "https://chat.example/"], "").done();
    let code = link.trim_end().strip_prefix("https://chat.example/#setup=");
    code.unwrap_or_else(|| panic!("{link}")).to_owned()
}

#[test]
fn a_setup_link_of_a_running_server_makes_one_admin() {
    let data = Data::new();
    let server = data.serve(&["--log", "debug"]);
    let old = code_for(&data);
    let code = code_for(&data);
    assert_refused(&register(server.addr(), "Old", &old), 403, "registration_closed");
    race(server.addr(), &code);
    data.run(&["setup"], "").refused("there is already an admin");
    let log = server.log();
    assert!(log.contains("has made a setup link") && log.contains("as an admin by the setup link"), "{log}");
    for place in [log.as_bytes(), &data.bytes()] {
        let is_there = place.windows(code.len()).any(|window| window == code.as_bytes());
        assert!(!is_there, "the code is logged or stored");
    }
}

#[test]
fn a_setup_link_made_before_the_first_start_is_valid_after_it() {
    let data = Data::new();
    let made = data.run(&["setup"], "");
    assert!(made.err.contains("created a new database, ") && made.err.contains(&data.file()), "{made:?}");
    let code = code_for(&data);
    let server = data.serve(&["--registration", "open", "--accounts", "required"]);
    let account = json!({"username": "Rahim", "password": PASSWORD});
    let plain = request(server.addr(), Plainly, "POST", "/api/accounts", Some(&account));
    assert_eq!((plain.status, &plain.json()["data"]["role"]), (201, &json!("user")), "{}", plain.text());
    let admin = register(server.addr(), "Ana", &code);
    assert_eq!((admin.status, &admin.json()["data"]["role"]), (201, &json!("admin")), "{}", admin.text());
    assert_refused(&register(server.addr(), "Karim", &code), 404, "no_such_invitation");
}

/// There is no control socket then, so the server itself makes the link.
#[test]
fn a_setup_link_of_a_server_in_memory_makes_one_admin() {
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), data: Place::Memory, ..Config::default() };
    let running = adda::start(config).expect("a server");
    let code = running.offer_setup().expect("an answer").expect("there is no admin");
    race(running.address(), code.expose());
    assert!(running.offer_setup().expect("an answer").is_none(), "there is an admin");
    running.stop();
}
