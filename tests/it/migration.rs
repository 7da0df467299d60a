//! Tests of migration: a database of an earlier adda is opened with all its data. These are messages and their order,
//! search, accounts, sessions, guests' tokens, bans, mutes, settings, private rooms and invitations.
//!
//! `fixtures/schema-N.db.gz` was created by an adda of schema N. `fixtures/schema-N.json` describes it: its users,
//! their tokens, and the answers of that adda. Its times are shifted so that it looks as if it had just been created.
//! An earlier adda creates both files anew: `ADDA_FIXTURE_FROM=/path/to/adda cargo test --test it migration`.
//!
//! `ADDA_BIG_DATABASE=5000000000` sets the size of the large database in bytes. `ADDA_BIN_BEFORE` names an earlier adda,
//! which must refuse the database that the new one has opened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DEADLINE, Response, Server, Ws, adda, clean, eventually, exchange, output, repository};

/// Maximum time from the start of the process to a complete response, for a database of any size.
const SERVES_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of the large database without `ADDA_BIG_DATABASE`.
const BIG_BYTES: u64 = 24_000_000;
/// Maximum time of the rebuild in the background, per gigabyte.
const REBUILD_WAIT_PER_GB: Duration = Duration::from_secs(300);

const PASSWORD: &str = "correct horse battery";
const UNTIL: &str = "2099-01-01T00:00:00.000Z";
/// Maximum time without a server within a test.
const ENDS_LATER_MS_MAX: i64 = 60_000;
/// The network of a banned guest, and that of another guest; both connect by a proxy.
const BANNED_ADDRESS: &str = "203.0.113.7";
const BANNED_ADDRESS_V6: &str = "2001:db8:7::1";
const NEIGHBOUR_V6: &str = "2001:db8:7::2";
const GOOD_ADDRESS: &str = "198.51.100.1";
const ROOMS: [&str; 4] = ["tea", "আড্ডা", "board", "vault"];
/// The schemas of the fixtures.
pub const SCHEMAS: [i64; 2] = [5, 6];
/// Columns with a time in milliseconds, by table, and the first schema that has the table.
const MOMENTS: [(&str, &[&str], i64); 9] = [
    ("messages", &["at_ms", "deleted_ms"], 5),
    ("accounts", &["created_ms"], 5),
    ("sessions", &["created_ms", "seen_ms", "expires_ms", "ended_ms"], 5),
    ("invitations", &["expires_ms", "created_ms"], 5),
    ("mutes", &["until_ms"], 5),
    ("bans", &["until_ms", "created_ms"], 5),
    ("room_members", &["since_ms"], 5),
    ("spoke", &["clock_ms"], 6),
    ("position", &["clock_ms", "wall_ms"], 6),
];

fn fixture(schema: i64, extension: &str) -> PathBuf {
    repository().join("tests/it/fixtures").join(format!("schema-{schema}.{extension}"))
}

/// The fixture, in its own directory.
pub struct Fixture {
    dir: TempDir,
    schema: i64,
    /// The description beside the database.
    pub facts: Value,
    /// How far its times are shifted.
    shift_ms: i64,
}

impl Fixture {
    /// Restores the database with all data in its WAL, as a killed server leaves it.
    #[track_caller]
    pub fn restore(schema: i64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let facts: Value =
            serde_json::from_str(&fs::read_to_string(fixture(schema, "json")).expect("the fixture")).expect("JSON");
        let made_ms = facts["made_ms"].as_i64().expect("a moment");
        let shift_ms = chrono::Utc::now().timestamp_millis() - made_ms;
        let fixture = Self { dir, schema, facts, shift_ms };
        fixture.unpack(&fixture.data());
        fixture
    }

    /// Writes the database to a file.
    pub fn unpack(&self, data: &Path) {
        let mut bytes = Vec::new();
        let packed = File::open(fixture(self.schema, "db.gz")).expect("the fixture");
        GzDecoder::new(packed).read_to_end(&mut bytes).expect("its bytes");
        fs::write(data, bytes).expect("a file");
        let connection = Connection::open(data).expect("a database");
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("a setting");
        for (table, columns, _) in MOMENTS.into_iter().filter(|(.., since)| *since <= self.schema) {
            for column in columns {
                // A time far in the future, such as 2099, is not shifted.
                let shift = format!("UPDATE {table} SET {column} = {column} + ?1 WHERE {column} < 4000000000000");
                connection.execute(&shift, [self.shift_ms]).expect("a shift");
            }
        }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("adda.db")
    }

    fn token(&self, name: &str) -> &str {
        self.facts["tokens"][name].as_str().unwrap_or_else(|| panic!("no token of {name}"))
    }

    fn id(&self, name: &str) -> &str {
        self.facts["ids"][name].as_str().unwrap_or_else(|| panic!("no id of {name}"))
    }

    #[track_caller]
    pub fn serve(&self) -> Server {
        Server::spawn(server_command(Path::new(env!("CARGO_BIN_EXE_adda")), &self.data()))
    }
}

pub fn server_command(binary: &Path, data: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["--listen", "127.0.0.1:0", "--rate", "0", "--registration", "invite", "--data"]).arg(data);
    command.args(["--trusted-proxy", "127.0.0.1"]);
    command
}

/// The response to a client at an address.
#[track_caller]
fn ask(
    address: SocketAddr,
    from: &str,
    token: Option<&str>,
    method: &str,
    target: &str,
    json: Option<&Value>,
) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("X-Forwarded-For", from)];
    headers.extend(bearer.as_ref().map(|bearer| ("Authorization", bearer.as_str())));
    exchange(address, method, target, &headers, json).expect("an answer")
}

#[track_caller]
fn read(address: SocketAddr, token: Option<&str>, target: &str) -> Value {
    let answer = ask(address, GOOD_ADDRESS, token, "GET", target, None);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.json()["data"].take()
}

#[track_caller]
fn enters(server: &Server, from: &str, target: &str) -> Ws {
    let mut ws = Ws::connect_with(server, target, &[("X-Forwarded-For", from)]);
    ws.welcome = ws.expect("welcome");
    ws
}

/// The answers of an adda about all data of the fixture.
fn answers(address: SocketAddr, tokens: &Value) -> Value {
    let token = |name: &str| tokens[name].as_str();
    let rooms = ROOMS.iter().map(|room| {
        let room = percent_encoding::utf8_percent_encode(room, percent_encoding::NON_ALPHANUMERIC).to_string();
        let page = |query: &str| read(address, token("boss"), &format!("/api/rooms/{room}/messages?{query}"));
        let found = ["brown", "%E0%A6%AC%E0%A7%83%E0%A6%B7%E0%A7%8D%E0%A6%9F%E0%A6%BF", "regretted"];
        let found: Vec<Value> = found.iter().map(|word| page(&format!("limit=200&q={word}"))).collect();
        json!({
            "room": read(address, token("boss"), &format!("/api/rooms/{room}")),
            "messages": page("limit=200"),
            "found": found,
        })
    });
    let mut users = BTreeMap::new();
    for name in ["boss", "boss-login", "rahim", "rahim-login", "karim", "ana", "ben", "loud"] {
        let mut sessions = read(address, token(name), "/api/sessions");
        for session in sessions.as_array_mut().into_iter().flatten() {
            // The time of the last use, and the fields that depend on it.
            session.as_object_mut().expect("an object").retain(|key, _| key != "seen" && key != "expires");
        }
        let mut me = read(address, token(name), "/api/session");
        me.as_object_mut().expect("an object").remove("expires");
        users.insert(name, json!({"me": me, "sessions": sessions, "rooms": read(address, token(name), "/api/rooms")}));
    }
    json!({
        "rooms": rooms.collect::<Vec<Value>>(),
        "users": users,
        "bans": read(address, token("boss"), "/api/bans"),
        "room_invitations": read(address, token("boss"), "/api/invitations?room=vault"),
        "invitations": read(address, token("boss"), "/api/invitations"),
    })
}

/// The frames of a history page without the events of deletion, which are not messages.
fn history_of(frames: &Value) -> Value {
    frames.as_array().expect("frames").iter().filter(|frame| frame["type"] != "delete").cloned().collect()
}

/// The answers of the adda that created the fixture, in the form of this adda.
fn expected(facts: &Value) -> Value {
    let mut answers = facts["answers"].clone();
    for room in answers["rooms"].as_array_mut().expect("rooms") {
        room["messages"] = history_of(&room["messages"]);
    }
    answers
}

/// Whether a field is an end time. The log counts only the time with a running server, so an end is later by the time
/// without one.
fn is_end(path: &str) -> bool {
    ["until", "expires"].iter().any(|end| path.ends_with(end))
}

/// Checks that everything in `before` is in `now`, which may have more fields; times are shifted.
#[track_caller]
fn assert_contains(now: &Value, before: &Value, shift_ms: i64, path: &str) {
    let moment = |value: &Value| value.as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => {
            for (key, before) in before {
                let found = now.get(key).unwrap_or_else(|| panic!("no {path}/{key}: {now:?}"));
                assert_contains(found, before, shift_ms, &format!("{path}/{key}"));
            }
        }
        (Value::Array(now), Value::Array(before)) => {
            assert_eq!(now.len(), before.len(), "{path}: {now:?}, before {before:?}");
            for (at, (now, before)) in now.iter().zip(before).enumerate() {
                assert_contains(now, before, shift_ms, &format!("{path}/{at}"));
            }
        }
        _ => match (moment(now), moment(before)) {
            (Some(found), Some(kept)) => {
                let shift_ms = if before == UNTIL { 0 } else { shift_ms };
                let later_ms = if is_end(path) { ENDS_LATER_MS_MAX } else { 0 };
                let range = shift_ms..=shift_ms + later_ms;
                assert!(range.contains(&(found - kept).num_milliseconds()), "{path}: {now}, before {before}");
            }
            _ => assert_eq!(now, before, "{path}"),
        },
    }
}

/// Checks all data of the fixture against a server that has it open.
#[track_caller]
pub fn assert_kept(server: &Server, fixture: &Fixture) {
    let Fixture { facts, shift_ms, .. } = fixture;
    let address = server.addr();
    assert_contains(&answers(address, &facts["tokens"]), &expected(facts), *shift_ms, "");

    // A guest that has ended its session, or is banned, stays out. So does a guest at a banned address.
    let status = |from: &str, token: Option<&str>, target: &str| ask(address, from, token, "GET", target, None).status;
    assert_eq!(status(GOOD_ADDRESS, Some(fixture.token("ended")), "/api/session"), 401);
    assert_eq!(status(GOOD_ADDRESS, Some(fixture.token("mallory")), "/api/rooms"), 403);
    for from in [BANNED_ADDRESS, BANNED_ADDRESS_V6, NEIGHBOUR_V6] {
        assert_eq!(Ws::refused(server, "/ws/tea/New", &[("X-Forwarded-For", from)]).status, 403, "{from}");
        assert_eq!(status(from, Some(fixture.token("rahim")), "/api/session"), 200, "an account may come from {from}");
    }
    assert_eq!(status(GOOD_ADDRESS, None, "/api/rooms/vault"), 404);

    // Guests and users keep their ids, and miss nothing.
    let first = &facts["answers"]["rooms"][0]["messages"][0];
    for name in ["ana", "ben", "rahim-login", "karim"] {
        let after = first["id"].as_str().expect("an id");
        let token = fixture.token(name);
        let mut ws = enters(server, GOOD_ADDRESS, &format!("/ws?room=tea&token={token}&after={after}"));
        assert_eq!(ws.user_id(), fixture.id(name), "{name}");
        assert_eq!((&ws.welcome["reset"], &ws.welcome["token"]), (&json!(false), &Value::Null), "{}", ws.welcome);
        let before = history_of(&facts["answers"]["rooms"][0]["messages"]);
        for before in before.as_array().expect("messages").iter().skip(1) {
            let frame = ws.until(|frame| frame["type"] != "delete");
            assert_contains(&frame, before, *shift_ms, "replay");
        }
    }
    let mut loud = enters(server, GOOD_ADDRESS, &format!("/ws?room=tea&history=0&token={}", fixture.token("loud")));
    assert_contains(&loud.welcome["muted_until"], &json!(UNTIL), *shift_ms, "muted_until");
    loud.command(&json!({"content": "hi", "nonce": "1"}));
    assert_eq!(loud.until(|frame| frame["nonce"] == "1")["code"], "forbidden");
}

/// Checks that the data of the fixture can be used, which changes it.
#[track_caller]
fn assert_usable(server: &Server, fixture: &Fixture) {
    let facts = &fixture.facts;
    let address = server.addr();
    // An earlier message is recognised by its nonce, and the order of its room continues.
    let messages = facts["answers"]["rooms"][0]["messages"].as_array().expect("messages");
    let sent = messages.iter().find(|frame| frame["nonce"] == "ana-1").expect("a message with a nonce");
    let mut ana = enters(server, GOOD_ADDRESS, &format!("/ws?room=tea&history=0&token={}", fixture.token("ana")));
    ana.command(&json!({"content": sent["content"], "nonce": "ana-1"}));
    let again = ana.until(|frame| frame["nonce"] == "ana-1");
    assert_eq!((&again["duplicate"], &again["id"], &again["seq"]), (&json!(true), &sent["id"], &sent["seq"]));
    ana.command(&json!({"content": "নতুন brown", "nonce": "new"}));
    let new = ana.until(|frame| frame["nonce"] == "new");
    let head = facts["answers"]["rooms"][0]["room"]["seq"].as_u64().expect("a number");
    assert_eq!(new["seq"], head + 1, "{new}");
    let found = read(address, None, "/api/rooms/tea/messages?limit=200&q=brown");
    let before = facts["answers"]["rooms"][0]["found"][0].as_array().expect("a page").len();
    assert_eq!(found.as_array().map(Vec::len), Some(before + 1));
    // An earlier message is deleted.
    let target = format!("/api/rooms/tea/messages/{}", sent["id"].as_str().expect("an id"));
    assert_eq!(ask(address, GOOD_ADDRESS, Some(fixture.token("ana")), "DELETE", &target, None).status, 204);

    let post = |token: Option<&str>, target: &str, json: Value| {
        ask(address, GOOD_ADDRESS, token, "POST", target, Some(&json)).status
    };
    assert_eq!(post(None, "/api/session", json!({"username": "রহিম", "password": PASSWORD})), 201);
    assert_eq!(post(None, "/api/session", json!({"username": "রহিম", "password": "another horse battery"})), 401);
    let as_boss = post(None, "/api/session", json!({"username": "boss"}));
    assert!((400..500).contains(&as_boss), "a guest has the name of an account: {as_boss}");
    let code = |name: &str| facts["codes"][name].as_str().expect("a code").to_owned();
    let member = json!({"invitation": code("vault")});
    assert_eq!(post(Some(fixture.token("ben")), "/api/rooms/vault/members", member.clone()), 200);
    assert_eq!(post(Some(fixture.token("karim")), "/api/rooms/vault/members", member), 404, "it is used up");
    let account = json!({"username": "nadia", "password": PASSWORD, "invitation": code("register")});
    assert_eq!(post(None, "/api/accounts", account), 201);
    // An admin keeps the role, and ends the restrictions.
    let boss = Some(fixture.token("boss-login"));
    let lift = ask(address, GOOD_ADDRESS, boss, "DELETE", &format!("/api/bans/{BANNED_ADDRESS}"), None);
    assert_eq!(lift.status, 204, "{}", lift.text());
    enters(server, BANNED_ADDRESS, "/ws/tea/New");
    let mallory = format!("/api/users/{}", fixture.id("mallory"));
    let lift = ask(address, GOOD_ADDRESS, boss, "PUT", &mallory, Some(&json!({"banned": false})));
    assert_eq!(lift.status, 200, "{}", lift.text());
    assert_eq!(read(address, Some(fixture.token("mallory")), "/api/session")["id"], fixture.id("mallory"));
}

fn user_version(data: &Path) -> i64 {
    let connection = Connection::open(data).expect("a database");
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number")
}

#[track_caller]
fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_database_of_an_earlier_adda_is_opened_with_all_its_data() {
    for fixture in SCHEMAS.map(Fixture::restore) {
        let server = fixture.serve();
        assert_kept(&server, &fixture);
        stop(server);
        // The data does not depend on the first start.
        let server = fixture.serve();
        assert_kept(&server, &fixture);
        assert_usable(&server, &fixture);
        stop(server);
        adda(&fixture.data(), &["doctor"]);
    }
}

#[test]
fn an_earlier_adda_refuses_a_migrated_database() {
    for schema in SCHEMAS {
        let fixture = Fixture::restore(schema);
        assert_eq!(user_version(&fixture.data()), schema);
        stop(fixture.serve());
        let now = user_version(&fixture.data());
        assert!(now > schema, "user_version was {schema} and is {now}");
        if let Some(binary) = std::env::var_os("ADDA_BIN_BEFORE") {
            for arguments in [&["doctor"][..], &["user", "add", "nadia"], &[]] {
                let mut command = Command::new(&binary);
                clean(&mut command).args(arguments).arg("--data").arg(fixture.data());
                let ended = output(&mut command);
                let said = String::from_utf8_lossy(&ended.stderr).into_owned();
                assert!(ended.status.code() == Some(1) && said.contains("newer"), "{arguments:?}: {ended:?}");
            }
        }
    }
}

#[test]
fn the_tools_can_read_and_change_an_earlier_database() {
    for fixture in SCHEMAS.map(Fixture::restore) {
        let data = fixture.data();
        adda(&data, &["doctor"]);
        let messages: Vec<Value> = adda(&data, &["export", "--room", "tea"])
            .lines()
            .map(|line| serde_json::from_str(line).expect("a frame a line"))
            .collect();
        let before = history_of(&fixture.facts["answers"]["rooms"][0]["messages"]);
        assert_contains(&history_of(&json!(messages)), &before, fixture.shift_ms, "export");
        let accounts = adda(&data, &["user", "list", "--format", "json"]);
        assert_eq!(accounts.lines().count(), 3, "{accounts}");
        let copy = data.with_extension("copy");
        adda(&data, &["backup", copy.to_str().expect("a plain path")]);
        assert_eq!(user_version(&copy), user_version(&data));
        let token = adda(&data, &["token", "create", "karim"]).trim_end().to_owned();
        let server = fixture.serve();
        assert_kept_but_for_tokens(&server, &fixture, &token);
    }
}

/// Like [`assert_kept`], with one token that was created meanwhile.
#[track_caller]
fn assert_kept_but_for_tokens(server: &Server, fixture: &Fixture, token: &str) {
    let me = read(server.addr(), Some(token), "/api/session");
    assert_eq!(me["id"], fixture.id("karim"));
    let sessions = read(server.addr(), Some(token), "/api/sessions");
    assert_eq!(sessions.as_array().map(Vec::len), Some(2), "{sessions}");
    assert_eq!(read(server.addr(), Some(fixture.token("ana")), "/api/session")["id"], fixture.id("ana"));
}

// ---- A large database.

/// Adds many messages to the fixture, in rooms of their own.
fn enlarge(data: &Path, bytes: u64) {
    const ROOMS: i64 = 50;
    const ROWS_AT_ONCE: i64 = 100_000;
    let connection = Connection::open(data).expect("a database");
    connection
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -200000;")
        .expect("settings");
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    let first_room = number("SELECT max(key) FROM rooms") + 1;
    for room in 0..ROOMS {
        let sql = "INSERT INTO rooms (key, id, head) VALUES (?1, ?2, 0)";
        connection.execute(sql, (first_room + room, format!("big-{room:02}"))).expect("a room");
    }
    let user: Vec<u8> =
        connection.query_row("SELECT user_id FROM sessions LIMIT 1", [], |row| row.get(0)).expect("a user");
    let words =
        ["rain", "tea", "বৃষ্টি", "evening", "music", "harbour", "কথা", "window", "letter", "garden", "train", "চা"];
    let words: String = words.iter().cycle().take(48).map(|word| format!("{word} ")).collect();
    let now_ms = chrono::Utc::now().timestamp_millis();
    let mut done = 0;
    while fs::metadata(data).map_or(0, |file| file.len()) < bytes {
        let first = number("SELECT coalesce(max(key), 0) FROM messages") + 1;
        connection
            .execute(
                "INSERT INTO messages (key, id, room, seq, user_id, username, nonce, content, at_ms, kind)
                 WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1)
                 SELECT ?2 + n, unhex(printf('0192f7a0%024x', ?2 + n)), ?3 + (?4 + n) % ?5, (?4 + n) / ?5 + 1, ?6, 'ana',
                        printf('big-%d', ?2 + n), printf('number%d ', ?4 + n) || ?7, ?8, 'text' FROM n",
                (ROWS_AT_ONCE.min(bytes as i64 / 1_000), first, first_room, done, ROOMS, user.clone(), &words, now_ms),
            )
            .expect("messages");
        connection
            .execute(
                // The index has the room of each word.
                "INSERT INTO words (rowid, content) SELECT key, char(57344) || room || ' ' || content FROM messages
                 WHERE key >= ?1",
                [first],
            )
            .expect("their words");
        done = number("SELECT count(*) FROM messages WHERE nonce LIKE 'big-%' AND key >= 0");
    }
    let heads = "UPDATE rooms SET head = (SELECT max(seq) FROM messages WHERE room = rooms.key) WHERE id LIKE 'big-%'";
    connection.execute(heads, []).expect("heads");
    println!("{done} messages, {} bytes", fs::metadata(data).map_or(0, |file| file.len()));
}

#[test]
fn a_large_database_of_an_earlier_adda_is_served_at_once() {
    let bytes = std::env::var("ADDA_BIG_DATABASE").map_or(BIG_BYTES, |text| text.parse().expect("a number of bytes"));
    let fixture = Fixture::restore(SCHEMAS[0]);
    let data = fixture.data();
    enlarge(&data, bytes);
    let unlimited = || {
        let mut command = server_command(Path::new(env!("CARGO_BIN_EXE_adda")), &data);
        command.args(["--max-data", "0"]);
        command
    };
    // The first server is killed at once; the next one continues its work.
    for is_killed in [true, false, false] {
        let begun = Instant::now();
        let mut server = Server::spawn(unlimited());
        let listening = begun.elapsed();
        let address = server.addr();
        let page = read(address, None, "/api/rooms/big-07/messages?limit=200");
        assert_eq!(page.as_array().map(Vec::len), Some(200));
        let mut ana =
            enters(&server, GOOD_ADDRESS, &format!("/ws?room=big-08&token={}&history=5", fixture.token("ana")));
        assert_eq!(ana.contents(5).len(), 5);
        let nonce = format!("{begun:?}");
        ana.command(&json!({"content": "stored at once", "nonce": nonce}));
        assert_eq!(ana.until(|frame| frame["nonce"] == nonce.as_str())["type"], "text");
        let served = begun.elapsed();
        println!("listening after {listening:?}, all served after {served:?}");
        assert!(served < SERVES_WITHIN, "listening after {listening:?}, all served after {served:?}");
        if is_killed {
            server.signal(Signal::KILL);
            server.wait_exit(DEADLINE);
        } else {
            // The rebuild in the background ends, and search finds everything.
            let wait = DEADLINE + REBUILD_WAIT_PER_GB.mul_f64(bytes as f64 / 1e9);
            let find = |room: &str, word: &str| read(address, None, &format!("/api/rooms/{room}/messages?q={word}"));
            eventually("the oldest and the newest are found", wait, || {
                let oldest = find("big-07", "number7%20rain");
                oldest.as_array().map(Vec::len) == Some(1)
                    && find("tea", "brown").as_array().is_some_and(|found| !found.is_empty())
            });
            stop(server);
        }
    }
    let begun = Instant::now();
    adda(&data, &["doctor"]);
    println!("inspected in {:?}", begun.elapsed());
}

// ---- The fixture.

/// Creates the fixture, if the adda that is to create it is named.
#[test]
fn a_named_earlier_adda_creates_the_fixture_anew() {
    let Some(binary) = std::env::var_os("ADDA_FIXTURE_FROM").map(PathBuf::from) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    let tool = |arguments: &[&str], input: &str| {
        let mut command = Command::new(&binary);
        clean(&mut command).args(arguments).arg("--data").arg(&data);
        let streams = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = streams.spawn().expect("the command starts");
        let _ = child.stdin.take().expect("a piped stdin").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the command ends");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    };
    let mut tokens = BTreeMap::new();
    let mut ids = BTreeMap::new();
    tool(&["user", "add", "boss", "--role", "admin"], &format!("{PASSWORD}\n"));
    tool(&["user", "add", "রহিম"], &format!("{PASSWORD}\n"));
    for (name, account, label) in [("boss", "boss", "backups"), ("rahim", "রহিম", ""), ("karim", "karim", "a bot's")]
    {
        tokens.insert(name, tool(&["token", "create", account, "--label", label], ""));
    }
    let server = Server::spawn(server_command(&binary, &data));
    let address = server.addr();
    let post = |from: &str, token: Option<&str>, target: &str, json: Value| {
        let answer = ask(address, from, token, "POST", target, Some(&json));
        assert!(answer.status < 300, "{target}: {}", answer.text());
        answer.json()["data"].take()
    };
    for (name, account) in [("boss-login", "boss"), ("rahim-login", "রহিম"), ("ended", "রহিম")] {
        let session = post(GOOD_ADDRESS, None, "/api/session", json!({"username": account, "password": PASSWORD}));
        tokens.insert(name, session["token"].as_str().expect("a token").into());
    }
    let ended = ask(address, GOOD_ADDRESS, Some(&tokens["ended"]), "DELETE", "/api/session", None);
    assert_eq!(ended.status, 204);
    for (name, from) in
        [("ben", GOOD_ADDRESS), ("loud", GOOD_ADDRESS), ("mallory", BANNED_ADDRESS), ("malik", BANNED_ADDRESS_V6)]
    {
        let session = post(from, None, "/api/session", json!({"username": name}));
        tokens.insert(name, session["token"].as_str().expect("a token").into());
    }
    let mut ana = enters(&server, GOOD_ADDRESS, "/ws/tea/Ana");
    tokens.insert("ana", ana.welcome["token"].as_str().expect("a token").into());
    for (name, token) in &tokens {
        if *name != "ended" {
            let me = read(address, Some(token), "/api/session");
            ids.insert(*name, me["id"].as_str().expect("an id").to_owned());
        }
    }
    let boss = Some(tokens["boss"].as_str());
    let order = |method: &str, target: &str, json: Option<Value>| {
        let answer = ask(address, GOOD_ADDRESS, boss, method, target, json.as_ref());
        assert!(answer.status < 300, "{method} {target}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json()["data"].take() }
    };

    let mut said: Vec<Value> = Vec::new();
    for (number, content) in
        ["the quick brown fox", "বৃষ্টি নামলে চা", "two\nlines, \"quoted\"", "to be regretted", "the last of hers 🦊"]
            .iter()
            .enumerate()
    {
        let nonce = format!("ana-{number}");
        let reply_to = (number == 2).then(|| said[0]["id"].clone());
        ana.command(&json!({"content": content, "nonce": nonce, "reply_to": reply_to}));
        said.push(ana.until(|frame| frame["nonce"] == nonce.as_str()));
    }
    ana.command(&json!({"type": "delete", "message_id": said[3]["id"], "nonce": "ana-delete"}));
    ana.until(|frame| frame["nonce"] == "ana-delete");
    for name in ["rahim", "karim", "boss", "ben"] {
        for room in ["tea", "%E0%A6%86%E0%A6%A1%E0%A7%8D%E0%A6%A1%E0%A6%BE", "board", "vault"] {
            let content = format!("বৃষ্টি brown {name}");
            post(
                GOOD_ADDRESS,
                Some(&tokens[name]),
                &format!("/api/rooms/{room}/messages"),
                json!({"content": content}),
            );
        }
    }
    for name in ["mallory", "malik"] {
        let from = if name == "malik" { BANNED_ADDRESS_V6 } else { BANNED_ADDRESS };
        post(from, Some(&tokens[name]), "/api/rooms/tea/messages", json!({"content": "rude", "nonce": "m"}));
    }
    let rude = read(address, None, "/api/rooms/tea/messages?q=rude");
    order("DELETE", &format!("/api/rooms/tea/messages/{}", rude[0]["id"].as_str().expect("an id")), None);
    order("POST", "/api/announcements", Some(json!({"content": "We close at nine."})));
    eventually("the announcement is stored", DEADLINE, || {
        read(address, None, "/api/rooms/tea/messages?q=nine").as_array().is_some_and(|found| found.len() == 1)
    });

    let settings = json!({"name": "Board", "topic": "খবর", "posting": "admins", "slow_mode_s": 30});
    order("PATCH", "/api/rooms/board", Some(settings));
    order("PATCH", "/api/rooms/vault", Some(json!({"private": true, "topic": "hush"})));
    let vault = order("POST", "/api/invitations", Some(json!({"room": "vault", "uses": 3, "days": 365})));
    let register = order("POST", "/api/invitations", Some(json!({"days": 365})));
    for name in ["rahim", "ana"] {
        post(GOOD_ADDRESS, Some(&tokens[name]), "/api/rooms/vault/members", json!({"invitation": vault["code"]}));
    }
    order("PUT", &format!("/api/users/{}", ids["loud"]), Some(json!({"muted_until": UNTIL})));
    // The server knows the address only of a connected guest.
    for (name, from) in [("mallory", BANNED_ADDRESS), ("malik", BANNED_ADDRESS_V6)] {
        let mut ws = enters(&server, from, &format!("/ws?room=tea&token={}", tokens[name]));
        let ban = json!({"banned": {"until": UNTIL, "reason": "অভদ্র", "address": true}});
        order("PUT", &format!("/api/users/{}", ids[name]), Some(ban));
        assert_eq!(ws.close_code(), 1008);
    }
    drop(ana);
    eventually("all rooms are empty", DEADLINE, || {
        let rooms = read(address, boss, "/api/rooms");
        rooms.as_array().expect("rooms").iter().all(|room| room["client_count"] == 0)
    });
    let tokens = json!(tokens);
    let facts = json!({
        "made_ms": chrono::Utc::now().timestamp_millis(),
        "tokens": tokens,
        "ids": ids,
        "codes": {"vault": vault["code"], "register": register["code"]},
        "answers": answers(address, &tokens),
    });
    stop(server);
    let schema = user_version(&data);
    // One line per part, so that a diff is readable.
    let parts = facts.as_object().expect("an object").iter().map(|(name, part)| format!("{name:?}: {part}"));
    let parts: Vec<String> = parts.collect();
    fs::write(fixture(schema, "json"), format!("{{\n{}\n}}\n", parts.join(",\n"))).expect("the facts");
    let mut packed = GzEncoder::new(File::create(fixture(schema, "db.gz")).expect("a file"), Compression::best());
    packed.write_all(&fs::read(&data).expect("the database")).expect("its bytes");
    packed.finish().expect("its end");
}
