//! The routing table: the handler of each path, and the origins that may read the response (CORS). Runs on the HTTP
//! workers.

use super::handlers::{accounts, assets, health, invitations, messages, moderation, rooms, sessions};
use super::reply::Reply;
use super::request::Request;
use crate::model::reason::{Reason, Rejection};

/// The methods that any origin may use on public paths, and the header fields that it may send.
const READING: [&str; 2] = ["GET", "HEAD"];
const READING_HEADERS: &str = "Authorization, Last-Event-ID";
/// The header fields that allowed origins may send.
const WRITING_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
/// The time for which a browser may cache the answer to a preflight request.
const PREFLIGHT_AGE_S: &str = "600";

type Handler = fn(&Request<'_>) -> Result<Reply, Rejection>;

/// The methods of a path. HEAD is handled like GET, and every path has OPTIONS.
struct Route {
    /// A path, in which `{}` stands for any one part that is not empty.
    path: &'static str,
    /// Whether any origin may read it. Only our own origin and the allowed ones may write.
    is_public: bool,
    methods: &'static [(&'static str, Handler)],
}

const PUBLIC: bool = true;
const NAMED: bool = false;

const fn route(path: &'static str, is_public: bool, methods: &'static [(&'static str, Handler)]) -> Route {
    Route { path, is_public, methods }
}

const ROUTES: &[Route] = &[
    route("/healthz", PUBLIC, &[("GET", health::healthz)]),
    route("/metrics", NAMED, &[("GET", health::metrics)]),
    route("/api/about", PUBLIC, &[("GET", accounts::about)]),
    route("/api/rooms", PUBLIC, &[("GET", rooms::list)]),
    route("/api/rooms/{}", PUBLIC, &[("GET", rooms::get), ("PATCH", moderation::set_room)]),
    route("/api/rooms/{}/messages", PUBLIC, &[("GET", messages::list), ("POST", messages::post)]),
    route("/api/rooms/{}/messages/{}", NAMED, &[("DELETE", messages::delete)]),
    route("/api/rooms/{}/members", NAMED, &[("POST", invitations::accept)]),
    route("/api/rooms/{}/members/{}", NAMED, &[("DELETE", moderation::kick)]),
    route("/api/session", NAMED, &[("GET", sessions::who), ("POST", sessions::begin), ("DELETE", sessions::end)]),
    route("/api/sessions", NAMED, &[("GET", sessions::list)]),
    route("/api/sessions/{}", NAMED, &[("DELETE", sessions::end_one)]),
    route("/api/accounts", NAMED, &[("POST", accounts::register)]),
    route("/api/account/password", NAMED, &[("PUT", accounts::change_password)]),
    route("/api/invitations", NAMED, &[("GET", invitations::list), ("POST", invitations::create)]),
    route("/api/invitations/{}", NAMED, &[("DELETE", invitations::revoke)]),
    route("/api/users/{}", NAMED, &[("PUT", moderation::restrict)]),
    route("/api/bans", NAMED, &[("GET", moderation::bans)]),
    route("/api/bans/{}", NAMED, &[("DELETE", moderation::unban_address)]),
    route("/api/announcements", NAMED, &[("POST", moderation::announce)]),
    #[cfg(test)]
    route(super::server::PANIC_PATH, NAMED, &[("GET", |_| panic!("for a test"))]),
];
/// All other paths are files of the page.
const FILES: &Route = &route("/", NAMED, &[("GET", assets::get)]);

impl Route {
    fn has(&self, path: &str) -> bool {
        let (wanted, parts) = (self.path.split('/'), path.split('/'));
        wanted.clone().count() == parts.clone().count()
            && wanted.zip(parts).all(|(wanted, part)| part == wanted || (wanted == "{}" && !part.is_empty()))
    }

    /// The methods of some routes, for the `Allow` header field.
    fn allowed<'a>(routes: impl IntoIterator<Item = &'a Self>) -> String {
        let mut methods = Vec::new();
        for (method, _) in routes.into_iter().flat_map(|route| route.methods) {
            let listed: &[_] = if *method == "GET" { &READING } else { &[*method] };
            for method in listed {
                if !methods.contains(method) {
                    methods.push(*method);
                }
            }
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

/// Finds the handler of a request, and adds the CORS fields. Any method other than GET, HEAD and OPTIONS is a write. A
/// write of a foreign origin is refused here, whatever its path.
pub(super) fn dispatch(method: &str, request: &Request<'_>) -> Reply {
    let is_writing = !READING.contains(&method) && method != "OPTIONS";
    if is_writing && !request.may_write() {
        return Reply::from(Reason::ForeignOrigin);
    }
    if request.path == "*" {
        return Reply::empty(204).with("Allow", Route::allowed(ROUTES));
    }
    let route = ROUTES.iter().find(|route| route.has(request.path));
    let Some(route) = route.or_else(|| assets::has(request.path).then_some(FILES)) else {
        return Reply::from(Reason::NoSuchPath);
    };
    let handled_as = if method == "HEAD" { "GET" } else { method };
    let reply = if let Some((_, handler)) = route.methods.iter().find(|(name, _)| *name == handled_as) {
        handler(request).unwrap_or_else(Reply::from)
    } else {
        let allowed = Route::allowed([route]);
        if method == "OPTIONS" {
            Reply::empty(204).with("Allow", allowed)
        } else {
            Reply::from(Reason::MethodNotAllowed).with("Allow", allowed)
        }
    };
    shared(reply, method, route, request)
}

/// Tells a browser which origins may read a response or send a request (Fetch, “CORS protocol”). Any origin may read
/// public paths; allowed origins may do everything.
fn shared(reply: Reply, method: &str, route: &Route, request: &Request<'_>) -> Reply {
    // A preflight asks about the request that follows it.
    let intended = request.header("Access-Control-Request-Method").filter(|_| method == "OPTIONS");
    let is_reading = match intended {
        Some(intended) => READING.contains(&intended),
        None => READING.contains(&method) || method == "OPTIONS",
    };
    let (reply, methods, headers) = if route.is_public && is_reading {
        let reply = reply.with("Access-Control-Allow-Origin", "*").with("Cross-Origin-Resource-Policy", "cross-origin");
        (reply, READING.join(", "), READING_HEADERS)
    } else if let Some(origin) = request.named_origin() {
        let reply = reply.with("Access-Control-Allow-Origin", origin.to_string()).with("Vary", "Origin");
        (reply, Route::allowed([route]), WRITING_HEADERS)
    } else {
        return reply;
    };
    if method != "OPTIONS" {
        return reply;
    }
    reply
        .with("Access-Control-Allow-Methods", methods)
        .with("Access-Control-Allow-Headers", headers)
        .with("Access-Control-Max-Age", PREFLIGHT_AGE_S)
}
