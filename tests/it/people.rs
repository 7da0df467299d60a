//! Tests of how people are shown: with their role in every list of people, and under one name at a time.

use adda::model::role::Role;
use adda::store::accounts::SessionKind;
use serde_json::{Value, json};

use crate::support::Asked::{ByBearer, Plainly};
use crate::support::{People, Server, Ws, adda, request};

/// The people of a list, without their ids.
fn shown(people: &Value) -> Value {
    let one = |person: &Value| json!([person["username"], person["role"], person["bot"]]);
    people.as_array().expect("a list").iter().map(one).collect()
}

/// The people in the room `tea`, by a request.
fn listed(server: &Server) -> Value {
    shown(&server.get("/api/rooms/tea").json()["data"]["clients"])
}

#[test]
fn every_list_of_people_shows_roles_and_bots() {
    let mut people = People::new();
    let (_, admin) = people.find_user("admin", Role::Admin);
    let (rahim, _) = people.find_user("rahim", Role::User);
    let bot = people.session(rahim, SessionKind::Bot);
    let server = people.serve(&[]);
    let _admin = Ws::join(&server, &format!("/ws?room=tea&token={admin}"));
    let _bot = Ws::join(&server, &format!("/ws?room=tea&token={bot}"));
    let mut guest = Ws::connect(&server, "/ws/tea/Ana");
    let expected = json!([["admin", "admin", false], ["rahim", "user", true], ["Ana", "guest", false]]);
    assert_eq!(shown(&guest.expect("welcome")["members"]), expected);
    assert_eq!(listed(&server), expected);
    let paged = server.get("/api/rooms/tea/members").json();
    let mut paged = shown(&paged["data"]).as_array().cloned().expect("a list");
    paged.sort_by_key(Value::to_string);
    assert_eq!(
        Value::from(paged),
        json!([["Ana", "guest", false], ["admin", "admin", false], ["rahim", "user", true]])
    );
    // A new role is shown at once.
    adda(&people.data(), &["user", "role", "rahim", "admin"]);
    assert_eq!(listed(&server)[1], json!(["rahim", "admin", true]));
}

#[test]
fn a_user_with_several_tabs_has_one_name_and_its_rooms_are_told_of_a_new_one() {
    let server = Server::with(&["--rate", "0"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    ben.say("hi");
    ben.expect_text("hi");
    let mut first = Ws::connect(&server, "/ws/tea/Ana");
    let welcome = first.expect("welcome");
    let (id, token) = (welcome["user_id"].clone(), welcome["token"].as_str().expect("a token").to_owned());
    let mut second = Ws::connect(&server, &format!("/ws/tea/Ann?token={token}"));
    assert_eq!(second.expect("welcome")["username"], "Ann");
    for ws in [&mut ben, &mut first] {
        let told = ws.until(|frame| frame["type"] == "rename");
        let fields = ["user_id", "username", "content", "former", "seq"].map(|field| told[field].clone());
        assert_eq!(fields, [id.clone(), "Ann".into(), "Ann".into(), "Ana".into(), 2.into()]);
    }
    // Its first tab has the new name, too, and there is no third name within a minute.
    first.say("from the first tab");
    assert_eq!(ben.expect_text("from the first tab")["username"], "Ann");
    let mut third = Ws::connect(&server, &format!("/ws/tea/Anna?token={token}"));
    assert_eq!(third.expect("welcome")["username"], "Ann");
    let refused = request(server.addr(), ByBearer(&token), "POST", "/api/session", Some(&json!({"username": "Anna"})));
    assert_eq!((refused.status, &refused.json()["reason"]), (429, &"renamed_recently".into()), "{}", refused.text());
    assert!(
        refused.header("Retry-After").is_some_and(|wait| (1..=60).contains(&wait.parse::<u32>().expect("seconds")))
    );
    // More tabs than a list has people. Real newcomers are listed all the same.
    let tabs: Vec<Ws> = (0..210)
        .map(|number| {
            let mut tab = Ws::connect(&server, &format!("/ws/tea/name-{number}?token={token}"));
            let welcome = tab.expect("welcome");
            assert_eq!((&welcome["username"], &welcome["member_count"]), (&"Ann".into(), &2.into()));
            tab
        })
        .collect();
    let _eva = Ws::join(&server, "/ws/tea/Eva");
    let joined = ben.until(|frame| frame["type"] == "join");
    assert_eq!(joined["username"], "Eva", "the tabs are told as no joins");
    let expected = json!([["Ben", "guest", false], ["Ann", "guest", false], ["Eva", "guest", false]]);
    assert_eq!(listed(&server), expected);
    assert_eq!(server.get("/api/rooms/tea").json()["data"]["client_count"], 3);
    drop(tabs);
    // The history over HTTP has messages only; what follows a frame has the rename, too.
    let history = server.get("/api/rooms/tea/messages").json();
    let kinds = |page: &Value| -> Vec<Value> {
        page["data"].as_array().expect("a page").iter().map(|frame| frame["type"].clone()).collect()
    };
    assert_eq!(kinds(&history), ["text", "text"]);
    let first_id = history["data"][0]["id"].as_str().expect("an id");
    let after = server.get(&format!("/api/rooms/tea/messages?after={first_id}")).json();
    assert_eq!(kinds(&after), ["rename", "text"]);
    assert_eq!(after["data"][0]["former"], "Ana");
    let found = server.get("/api/rooms/tea/messages?q=Ann").json();
    assert_eq!(kinds(&found), [""; 0]);
}

#[test]
fn a_rename_in_a_room_without_messages_is_told_and_makes_no_room() {
    let server = Server::start();
    let mut ben = Ws::join(&server, "/ws/quiet/Ben");
    let mut ana = Ws::connect(&server, "/ws/quiet/Ana");
    let welcome = ana.expect("welcome");
    let token = welcome["token"].as_str().expect("a token");
    let named = request(server.addr(), ByBearer(token), "POST", "/api/session", Some(&json!({"username": "Ann"})));
    assert_eq!((named.status, &named.json()["data"]["username"]), (200, &"Ann".into()), "{}", named.text());
    let told = ben.until(|frame| frame["type"] == "rename");
    assert_eq!((&told["former"], &told["content"], told.get("seq")), (&"Ana".into(), &"Ann".into(), None));
    drop((ben, ana));
    let gone = || request(server.addr(), Plainly, "GET", "/api/rooms/quiet", None).status == 404;
    crate::support::eventually("the room is gone", crate::support::DEADLINE, gone);
}

#[test]
fn a_guest_whose_name_becomes_an_accounts_is_renamed_and_can_come_back() {
    let people = People::new();
    let server = people.serve(&["--lease", "0s"]);
    let mut ben = Ws::join(&server, "/ws/tea/Ben");
    ben.say("hi");
    ben.expect_text("hi");
    let mut boss = Ws::connect(&server, "/ws/tea/Boss");
    let token = boss.expect("welcome")["token"].as_str().expect("a token").to_owned();
    adda(&people.data(), &["token", "create", "boss"]);
    for ws in [&mut ben, &mut boss] {
        let told = ws.until(|frame| frame["type"] == "rename");
        assert_eq!((&told["former"], &told["username"]), (&"Boss".into(), &"Boss (guest)".into()));
    }
    boss.say("who am I?");
    assert_eq!(ben.expect_text("who am I?")["username"], "Boss (guest)");
    boss.command(&json!({"type": "join", "room_id": "more"}));
    assert_eq!(boss.until(|frame| frame["type"] == "welcome")["username"], "Boss (guest)");
    drop(boss);
    assert_eq!(Ws::refused(&server, &format!("/ws/tea/Boss?token={token}"), &[]).status, 403);
    // Without a name it has the one that it was given.
    let mut back = Ws::connect(&server, &format!("/ws?room=tea&token={token}"));
    assert_eq!(back.expect("welcome")["username"], "Boss (guest)");
}
