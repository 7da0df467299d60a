//! A database with people in it, as an operator makes them, and requests that show who sends them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adda::auth::hasher::Hasher;
use adda::auth::password::{Password, PasswordHash};
use adda::config::Durability;
use adda::model::{Timestamp, UserId, Username};
use adda::role::Role;
use adda::store::accounts::{self, Account, AccountError, NewSession, SessionKind};
use adda::store::{Database, OpenError, TokenHash};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use super::{DEADLINE, Response, Server, eventually, http};

/// See the head of this file. People are made before a server is started.
pub struct People {
    dir: TempDir,
    tokens: u32,
}

impl People {
    /// Nobody yet.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), tokens: 0 }
    }

    /// The database.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("people.db")
    }

    /// Changes the database as no road does.
    #[track_caller]
    pub fn change<T>(&self, change: impl FnOnce(&Connection) -> Result<T, AccountError>) -> T {
        // A process that another test is just starting may hold the lock until it is itself.
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

    /// An account.
    #[track_caller]
    pub fn account(&self, name: &str, role: Role, password: Option<&str>) -> UserId {
        let id = UserId(Uuid::new_v4());
        let name = Username::parse(name).expect("a name");
        let account = Account { id, name, role, password: password.map(hash), created_ms: Timestamp::now().unix_ms };
        self.change(|connection| accounts::create(connection, &account));
        id
    }

    /// A session of somebody's, as a token.
    #[track_caller]
    pub fn session(&mut self, user: UserId, kind: SessionKind) -> String {
        self.tokens += 1;
        let token = format!("{:064x}", self.tokens);
        let hash = TokenHash::of(&token);
        let new = NewSession { token_hash: hash, user, kind, username: None, label: "", expires_ms: None };
        self.change(|connection| Ok(accounts::begin_session(connection, &new, &Timestamp::now())?));
        token
    }

    /// Somebody of a role, with a session.
    #[track_caller]
    pub fn somebody(&mut self, name: &str, role: Role) -> (UserId, String) {
        let (id, kind) = match role {
            Role::Guest => (UserId(Uuid::new_v4()), SessionKind::Guest),
            role => (self.account(name, role, None), SessionKind::Login),
        };
        (id, self.session(id, kind))
    }

    /// The server of these people.
    #[track_caller]
    pub fn serve(&self, flags: &[&str]) -> Server {
        let data = self.data();
        let data = data.to_str().expect("a path in UTF-8");
        Server::with(&[&["--data", data, "--rate", "0"], flags].concat())
    }
}

/// A password's hash, at today's cost.
fn hash(password: &str) -> PasswordHash {
    let hasher = Hasher::start().expect("a hasher");
    let password = Password::shown(password).expect("a password");
    hasher.hash(password, Instant::now() + Duration::from_secs(60)).expect("a hash")
}

/// How a request shows who sends it, and where from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// By nothing.
    Plainly,
    /// By the session's cookie, from our own page.
    ByCookie(&'a str),
    /// By the Authorization field, from a program.
    ByBearer(&'a str),
    /// By the cookie, from a page of another origin.
    FromElsewhere(&'a str),
}

impl Asked<'_> {
    /// The header fields that say it.
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
