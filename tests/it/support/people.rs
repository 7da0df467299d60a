//! A database with users and sessions, and requests with each kind of credential.

use std::net::SocketAddr;
use std::path::PathBuf;

use adda::auth::name::Skeletons;
use adda::auth::password::{self, Password, PasswordHash};
use adda::config::Durability;
use adda::model::role::Role;
use adda::model::{Timestamp, UserId, Username};
use adda::store::accounts::SessionKind;
use adda::store::change::{Change, NewAccount};
use adda::store::{Database, OpenError, StartError, propose_alone};
use rusqlite::{Connection, params};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use uuid::Uuid;

use super::{DEADLINE, Response, Server, eventually, http};

/// A database with users. They must be created before a server is started.
pub struct People {
    dir: TempDir,
    tokens: u32,
}

impl People {
    /// A database without users.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), tokens: 0 }
    }

    /// The database.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("people.db")
    }

    /// Changes the database by SQL, in ways that no client can.
    #[track_caller]
    pub fn change<T>(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        // A process that another test has forked may hold the lock until it executes its program.
        let mut opened = None;
        eventually("the database is free", DEADLINE, || {
            opened = match Database::open(&self.data(), Durability::Normal) {
                Err(OpenError::InUse(_)) => None,
                opened => Some(opened.expect("a database")),
            };
            opened.is_some()
        });
        let (_database, connection) = opened.expect("it was opened");
        change(&connection).expect("the change is made")
    }

    /// Creates an account.
    #[track_caller]
    pub fn account(&self, name: &str, role: Role, password: Option<&str>) -> UserId {
        let id = UserId(Uuid::new_v4());
        let name = Username::parse(name).expect("a name");
        let account = NewAccount { id, skeletons: Skeletons::of(&name), name, role, password: password.map(hash) };
        let mut made = None;
        eventually("the database is free", DEADLINE, || {
            made = match propose_alone(&self.data(), Change::CreateAccount(account.clone())) {
                Err(StartError::Open(OpenError::InUse(_))) => None,
                made => Some(made.expect("a database")),
            };
            made.is_some()
        });
        made.expect("it was proposed").expect("the account is made");
        id
    }

    /// Creates a session of a user; returns the token.
    #[track_caller]
    pub fn session(&mut self, user: UserId, kind: SessionKind) -> String {
        self.tokens += 1;
        let token = format!("{:064x}", self.tokens);
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now_ms = Timestamp::now().unix_ms as i64;
        self.change(|connection| {
            let sql = "INSERT INTO sessions (token_hash, user_id, kind, label, created_ms, seen_ms) VALUES (?1, ?2, ?3, '', ?4, ?4)";
            connection.execute(sql, params![hash, user.0.as_bytes(), kind.as_str(), now_ms])
        });
        token
    }

    /// Creates a user with a role and a session.
    #[track_caller]
    pub fn find_user(&mut self, name: &str, role: Role) -> (UserId, String) {
        let (id, kind) = match role {
            Role::Guest => (UserId(Uuid::new_v4()), SessionKind::Guest),
            role => (self.account(name, role, None), SessionKind::Login),
        };
        (id, self.session(id, kind))
    }

    /// Starts a server on this database.
    #[track_caller]
    pub fn serve(&self, flags: &[&str]) -> Server {
        let data = self.data();
        let data = data.to_str().expect("a path in UTF-8");
        Server::with(&[&["--data", data, "--rate", "0"], flags].concat())
    }
}

/// The hash of a password, at the current cost.
fn hash(password: &str) -> PasswordHash {
    password::hash(&Password::shown(password).expect("a password")).expect("a hash")
}

/// The credential and the origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// No credential.
    Plainly,
    /// The session cookie, from a page of our origin.
    ByCookie(&'a str),
    /// The Authorization field, from a program.
    ByBearer(&'a str),
    /// The session cookie, from a page of another origin.
    FromElsewhere(&'a str),
}

impl Asked<'_> {
    /// The header fields of this credential and origin.
    pub fn headers(self, address: SocketAddr) -> Vec<(&'static str, String)> {
        let cookie = |token: &str| ("Cookie", format!("theme=dark; adda_session={token}"));
        let host = ("Host", address.to_string());
        match self {
            Self::Plainly => vec![host],
            Self::ByCookie(token) => vec![host, cookie(token), ("Origin", format!("http://{address}"))],
            Self::ByBearer(token) => vec![host, ("Authorization", format!("Bearer {token}"))],
            Self::FromElsewhere(token) => vec![host, cookie(token), ("Origin", "http://evil.example".into())],
        }
    }
}

/// Sends a request, with JSON if there is any.
#[track_caller]
pub fn request(address: SocketAddr, asked: Asked<'_>, method: &str, target: &str, json: Option<&Value>) -> Response {
    let mut text = format!("{method} {target} HTTP/1.1\r\nUser-Agent: curl/8.5.0\r\n");
    for (name, value) in asked.headers(address) {
        text += &format!("{name}: {value}\r\n");
    }
    let body = json.map(Value::to_string).unwrap_or_default();
    if json.is_some() {
        text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    http(address, format!("{text}\r\n{body}"))
}
