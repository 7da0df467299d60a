//! Tests of names: a name that resembles the name of an account is refused over HTTP and WebSocket, and ordinary names
//! are accepted.

use std::fmt::Write as _;

use adda::model::role::Role;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::support::{People, Response, Server, Ws, exchange, http, read_response, upgrade_request};

/// Valid names that resemble `admin` or `রহিম`, where those are accounts.
const SPOOFS: [&str; 82] = [
    // The name itself, in other cases, and with characters around or between.
    "admin",
    "Admin",
    "ADMIN",
    "aDmIn",
    "admin.",
    "_admin_",
    "a d m i n",
    "ad-min",
    "«admin»",
    "admin ✓",
    "admin™",
    "★admin★",
    "admin (admin)",
    "a\u{3000}dmin",
    "a\u{2800}dmin",
    // Digits and signs for letters.
    "adm1n",
    "adm|n",
    "admln",
    "@dmin",
    "@DM1N",
    "adrnin",
    // Cyrillic, Greek, Cherokee, Lisu, Armenian, Canadian, Coptic-like and phonetic look-alikes.
    "аdmin",
    "аdmіn",
    "АDМІN",
    "αdmin",
    "ΑDΜΙΝ",
    "admιn",
    "ᎪDMIN",
    "ꓮꓓꓟꓲꓠ",
    "adm\u{0456}ո",
    "ᗅDMIN",
    "ɑԁⅿıո",
    "adm\u{04CF}n",
    // Width, mathematics, circles, boxes, flags, small capitals, superscripts.
    "ａｄｍｉｎ",
    "ＡＤＭＩＮ",
    "𝐚𝐝𝐦𝐢𝐧",
    "𝓪𝓭𝓶𝓲𝓷",
    "𝔞𝔡𝔪𝔦𝔫",
    "𝕒𝕕𝕞𝕚𝕟",
    "𝚊𝚍𝚖𝚒𝚗",
    "𝗔𝗗𝗠𝗜𝗡",
    "ⓐⓓⓜⓘⓝ",
    "🄰🄳🄼🄸🄽",
    "🇦🇩🇲🇮🇳",
    "ᴀᴅᴍɪɴ",
    "ᵃᵈᵐⁱⁿ",
    // Joiners, variation selectors, marks on and through letters, composed and not.
    "ad\u{200D}min",
    "ad\u{200C}min",
    "admin\u{FE0F}",
    "àdmín",
    "a\u{0300}dmi\u{0301}n",
    "a\u{0336}d\u{0336}m\u{0336}in",
    "ađmin",
    "admin\u{20DD}",
    // The same for a name in Bengali.
    "রহিম",
    "রহিম.",
    "রহিম।",
    "র হি ম",
    "_রহিম_",
    "(রহিম)",
    "রহিম\u{2800}",
    "র\u{200C}হিম",
    "র\u{200D}হিম",
    "রহি\u{200D}ম",
    "রহিম\u{FE0F}",
    "রহিম\u{FE00}",
    "রহিম\u{E0100}",
    "র\u{0301}হিম",
    // RA as BA with a dot, or with a nukta, also a foreign one; Assamese, Tirhuta and Devanagari look-alikes; repeated
    // signs.
    "ব\u{09BC}হিম",
    "ব\u{0323}হিম",
    "ব\u{200C}\u{09BC}হিম",
    "ব\u{093C}হিম",
    "ৰহিম",
    "𑒫হিম",
    "রহি𑒧",
    "রহ\u{093F}ম",
    "রহিিম",
    "রহি\u{09BF}\u{09BF}ম",
    // With signs in another order, or composed.
    "সোহাগ",
    "স\u{09C7}\u{09BE}হাগ",
    "স\u{09BE}\u{09C7}হাগ",
    "স\u{09CB}হাগ\u{200D}!",
];

/// Invalid names, whatever accounts exist.
const NO_NAMES: [&str; 18] = [
    "ad\u{200B}min",
    "ad\u{2060}min",
    "ad\u{00AD}min",
    "ad\u{034F}min",
    "\u{FEFF}admin",
    "\u{202E}nimda",
    "admin\u{200E}",
    "\u{2067}admin\u{2069}",
    "admin\u{E0020}",
    "র\u{200B}হিম",
    "\u{202E}মিহর",
    "রহিম\u{200E}",
    "রহিম\u{200D}",
    "\u{2800}",
    "\u{3164}",
    "\u{115F}\u{1160}",
    "\u{FE0F}",
    "\u{FFA0}",
];

const HONEST: [&str; 36] = [
    "রহমান",
    "রহীম",
    "করিম",
    "ফাতেমা",
    "সুমাইয়া",
    "র\u{200D}্যাব",
    "ক্ষমা",
    "নুসরাত জাহান",
    "মেঘলা ☁\u{FE0F}",
    "চাঁদ",
    "উৎপল",
    "عمر",
    "فاطمة",
    "محمد علي",
    "小明",
    "王伟",
    "山田太郎",
    "はなこ",
    "김철수",
    "रहीम",
    "प्रिया",
    "தமிழ்",
    "สมชาย",
    "Иван",
    "Αλέξης",
    "דוד",
    "José María",
    "Łukasz",
    "Zoë",
    "O'Neil-Smith",
    "Administrator",
    "Badmin",
    "👩\u{200D}💻 dev",
    "👍🏽",
    "🇧🇩",
    "🦊",
];

/// A server that gets each request from another address, because one address may not begin many sessions.
struct SpreadClient {
    server: Server,
    requests: u32,
}

impl SpreadClient {
    fn of(people: &People) -> Self {
        Self { server: people.serve(&["--trusted-proxy", "127.0.0.1"]), requests: 0 }
    }

    fn from(&mut self) -> String {
        self.requests += 1;
        format!("10.0.{}.{}", self.requests / 250, self.requests % 250 + 1)
    }

    fn post(&mut self, name: &str) -> Response {
        let body = json!({ "username": name }).to_string();
        let request = format!(
            "POST /api/session HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.from(),
            body.len()
        );
        http(self.server.addr(), request)
    }

    /// The raw response to an upgrade.
    fn upgrade(&mut self, name: &str) -> Response {
        let from = self.from();
        let target = format!("/ws/tea/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let mut stream = std::net::TcpStream::connect(self.server.addr()).expect("a connection");
        let request = upgrade_request(&target, &[("X-Forwarded-For", &from)]);
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
        read_response(&mut stream, crate::support::DEADLINE).expect("an answer")
    }

    /// The names that do not get these statuses over HTTP and WebSocket, with the statuses that they get.
    fn mismatches(&mut self, names: &[&str], by_post: u16, by_upgrade: u16) -> String {
        let mut mismatches = String::new();
        for name in names {
            let (post, upgrade) = (self.post(name), self.upgrade(name));
            let mut is_right = (post.status, upgrade.status) == (by_post, by_upgrade);
            if by_post >= 400 {
                is_right &= post.json()["code"] == "bad_name" && upgrade.json()["code"] == "bad_name";
            }
            if !is_right {
                let _ = writeln!(mismatches, "{name:?}: {} by POST, {} by an upgrade", post.status, upgrade.status);
            }
        }
        mismatches
    }
}

#[test]
fn names_that_resemble_an_accounts_name_are_refused_and_ordinary_names_accepted() {
    let people = People::new();
    people.account("admin", Role::Admin, Some("correct horse battery"));
    for name in ["রহিম", "সোহাগ"] {
        people.account(name, Role::User, None);
    }
    let mut client = SpreadClient::of(&people);
    assert_eq!(client.mismatches(&SPOOFS, 403, 403), "");
    assert_eq!(client.mismatches(&NO_NAMES, 400, 400), "");
    assert_eq!(client.mismatches(&HONEST, 201, 101), "");
}

#[test]
fn a_room_that_urls_cannot_name_is_refused() {
    let server = Server::start();
    for room in [".", "..", "%2e", "%2E%2E", ".%2e"] {
        let refused = Ws::refused(&server, &format!("/ws?room={room}&username=Ana"), &[]);
        assert_eq!((refused.status, &refused.json()["code"]), (400, &"bad_room".into()), "{room}");
        let refused = Ws::refused(&server, &format!("/ws/chat/{room}/"), &[]);
        assert_eq!(refused.status, 400, "{room}");
        let body = Some(json!({"content": "hi", "username": "Ana"}));
        let posted = exchange(server.addr(), "POST", &format!("/api/rooms/{room}/messages"), &[], body.as_ref());
        assert_eq!(posted.expect("an answer").status, 404, "{room}");
    }
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.command(&json!({"type": "join", "room_id": "..", "nonce": "j"}));
    assert_eq!(ana.until(|frame| frame["nonce"] == "j")["code"], "bad_room");
    Ws::join(&server, "/ws?room=...&username=Ana");
}

#[test]
fn a_message_that_shows_nothing_is_refused_as_empty() {
    let server = Server::start();
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    for content in ["\u{200B}", " \u{200B}\n", "\u{2060}\u{FEFF}", "\u{202E}\u{202C}", "\u{3164}", "\u{2800} \u{2800}"]
    {
        ana.command(&json!({"content": content, "nonce": "n"}));
        let refused = ana.until(|frame| frame["nonce"] == "n");
        assert_eq!((&refused["type"], &refused["reason"]), (&"error".into(), &"empty_message".into()), "{content:?}");
        let body = Some(json!({"content": content}));
        let posted = exchange(server.addr(), "POST", "/api/rooms/tea/messages", &[], body.as_ref()).expect("an answer");
        assert_eq!((posted.status, &posted.json()["reason"]), (400, &"empty_message".into()), "{content:?}");
    }
    ana.say("\u{200B}.");
    ana.expect_text("\u{200B}.");
}

#[test]
fn without_the_account_the_same_names_are_accepted() {
    let people = People::new();
    let mut client = SpreadClient::of(&people);
    assert_eq!(client.mismatches(&SPOOFS, 201, 101), "", "no account has a similar name");
    assert_eq!(client.mismatches(&NO_NAMES, 400, 400), "");
}
