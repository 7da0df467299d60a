//! Which handler a request is for, and which pages may have its answer.

use super::error::ApiError;
use super::reply::Reply;
use super::{Request, accounts, api, assets, moderation, sessions};
use crate::model::reason::Reason;

/// What any page may do, and send along, where something is public: read it.
const READING: [&str; 2] = ["GET", "HEAD"];
const READING_HEADERS: &str = "Authorization, Last-Event-ID";
/// What the pages may send along that the operator lets write.
const WRITING_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
/// How long a browser need not ask again whether it may.
const PREFLIGHT_AGE_S: &str = "600";

/// Which paths a route is for.
enum Paths {
    /// This one.
    Exact(&'static str),
    /// This and one part more, which may not be empty.
    Item(&'static str),
    /// This, a part that may not be empty, and this behind it.
    Within(&'static str, &'static str),
    /// This, a part that may not be empty, this, and one part more that may not be empty.
    WithinItem(&'static str, &'static str),
    /// Those of the page.
    Assets,
}

impl Paths {
    fn has(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == *exact,
            Self::Item(prefix) => path.strip_prefix(prefix).is_some_and(|item| !item.is_empty() && !item.contains('/')),
            Self::Within(prefix, suffix) => {
                let item = path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
                item.is_some_and(|item| !item.is_empty() && !item.contains('/'))
            }
            Self::WithinItem(prefix, middle) => {
                let parts = path.strip_prefix(prefix).and_then(|rest| rest.split_once(middle));
                parts
                    .is_some_and(|(one, other)| [one, other].iter().all(|part| !part.is_empty() && !part.contains('/')))
            }
            Self::Assets => assets::has(path),
        }
    }
}

type Handler = fn(&Request<'_>) -> Result<Reply, ApiError>;

/// What can be done at some paths. HEAD goes with GET, OPTIONS with everything.
struct Route {
    paths: Paths,
    methods: &'static [(&'static str, Handler)],
    /// Whether any page may read it; none but ours and those that the operator named may write anything.
    is_public: bool,
}

const ROUTES: &[Route] = &[
    Route { paths: Paths::Exact("/healthz"), methods: &[("GET", healthz)], is_public: true },
    Route { paths: Paths::Exact("/metrics"), methods: &[("GET", metrics)], is_public: false },
    Route { paths: Paths::Exact("/api/about"), methods: &[("GET", accounts::about)], is_public: true },
    Route { paths: Paths::Exact("/api/rooms"), methods: &[("GET", api::rooms)], is_public: true },
    Route {
        paths: Paths::Item("/api/rooms/"),
        methods: &[("GET", api::room), ("PATCH", moderation::set_room)],
        is_public: true,
    },
    Route {
        paths: Paths::Within("/api/rooms/", "/messages"),
        methods: &[("GET", api::messages), ("POST", api::post)],
        is_public: true,
    },
    Route {
        paths: Paths::WithinItem("/api/rooms/", "/messages/"),
        methods: &[("DELETE", api::delete)],
        is_public: false,
    },
    Route {
        paths: Paths::Within("/api/rooms/", "/members"),
        methods: &[("POST", moderation::become_member)],
        is_public: false,
    },
    Route {
        paths: Paths::WithinItem("/api/rooms/", "/members/"),
        methods: &[("DELETE", moderation::kick)],
        is_public: false,
    },
    Route {
        paths: Paths::Exact("/api/session"),
        methods: &[("GET", sessions::who), ("POST", sessions::begin), ("DELETE", sessions::end)],
        is_public: false,
    },
    Route { paths: Paths::Exact("/api/sessions"), methods: &[("GET", sessions::list)], is_public: false },
    Route { paths: Paths::Item("/api/sessions/"), methods: &[("DELETE", sessions::end_one)], is_public: false },
    Route { paths: Paths::Exact("/api/accounts"), methods: &[("POST", accounts::register)], is_public: false },
    Route {
        paths: Paths::Exact("/api/account/password"),
        methods: &[("PUT", accounts::change_password)],
        is_public: false,
    },
    Route {
        paths: Paths::Exact("/api/invitations"),
        methods: &[("GET", moderation::invitations), ("POST", moderation::invite)],
        is_public: false,
    },
    Route { paths: Paths::Item("/api/invitations/"), methods: &[("DELETE", moderation::uninvite)], is_public: false },
    Route { paths: Paths::Item("/api/users/"), methods: &[("PUT", moderation::restrict)], is_public: false },
    Route { paths: Paths::Exact("/api/bans"), methods: &[("GET", moderation::bans)], is_public: false },
    Route { paths: Paths::Item("/api/bans/"), methods: &[("DELETE", moderation::unban_address)], is_public: false },
    Route { paths: Paths::Exact("/api/announcements"), methods: &[("POST", moderation::announce)], is_public: false },
    #[cfg(test)]
    Route { paths: Paths::Exact(super::PANIC_PATH), methods: &[("GET", |_| panic!("for a test"))], is_public: false },
    Route { paths: Paths::Assets, methods: &[("GET", assets::get)], is_public: false },
];

impl Route {
    /// The methods that some routes take, as `Allow` lists them.
    fn allowed<'a>(routes: impl IntoIterator<Item = &'a Self>) -> String {
        let mut methods = Vec::new();
        for (method, _) in routes.into_iter().flat_map(|route| route.methods) {
            let with_head = ["GET", "HEAD"].iter().take(2 * usize::from(*method == "GET"));
            for method in [method].into_iter().chain(with_head) {
                if !methods.contains(method) {
                    methods.push(*method);
                }
            }
        }
        methods.push("OPTIONS");
        methods.join(", ")
    }
}

/// Finds the handler of a request, and says which pages may have its answer. What is not there to read writes, so a
/// foreign page is turned away here, whatever it asks for.
pub(super) fn dispatch(method: &str, request: &Request<'_>) -> Reply {
    let is_writing = !READING.contains(&method) && method != "OPTIONS";
    if is_writing && !request.may_write() {
        return Reply::rejected(&Reason::ForeignOrigin.into());
    }
    if request.path == "*" {
        return Reply::empty(204).with("Allow", Route::allowed(ROUTES));
    }
    let Some(route) = ROUTES.iter().find(|route| route.paths.has(request.path)) else {
        return Reply::rejected(&Reason::NoSuchPath.into());
    };
    let handled_as = if method == "HEAD" { "GET" } else { method };
    let reply = if let Some((_, handler)) = route.methods.iter().find(|(name, _)| *name == handled_as) {
        handler(request).unwrap_or_else(Reply::from)
    } else {
        let allowed = Route::allowed([route]);
        if method == "OPTIONS" {
            Reply::empty(204).with("Allow", allowed)
        } else {
            Reply::rejected(&Reason::MethodNotAllowed.into()).with("Allow", allowed)
        }
    };
    shared(reply, method, route, request)
}

/// Tells a browser which pages may have an answer, or may ask (Fetch, “CORS protocol”): any may read what is public,
/// those that the operator named everything.
fn shared(reply: Reply, method: &str, route: &Route, request: &Request<'_>) -> Reply {
    // A preflight is about the request that is to come.
    let intended = request.header("Access-Control-Request-Method").filter(|_| method == "OPTIONS");
    let is_reading = match intended {
        Some(intended) => READING.contains(&intended),
        None => READING.contains(&method) || method == "OPTIONS",
    };
    let asks = |reply: Reply, methods: String, headers| {
        if method != "OPTIONS" {
            return reply;
        }
        reply
            .with("Access-Control-Allow-Methods", methods)
            .with("Access-Control-Allow-Headers", headers)
            .with("Access-Control-Max-Age", PREFLIGHT_AGE_S)
    };
    if route.is_public && is_reading {
        let reply = reply.with("Access-Control-Allow-Origin", "*").with("Cross-Origin-Resource-Policy", "cross-origin");
        asks(reply, READING.join(", "), READING_HEADERS)
    } else if let Some(origin) = request.named_origin() {
        let reply = reply.with("Access-Control-Allow-Origin", origin.to_string()).with("Vary", "Origin");
        asks(reply, Route::allowed([route]), WRITING_HEADERS)
    } else {
        reply
    }
}

/// Says that it is well only if the hub and the store say anything at all.
fn healthz(request: &Request<'_>) -> Result<Reply, ApiError> {
    request.context.hub.ping()?;
    request.context.reader.view(|view| view.rooms(None, 1).map_err(ApiError::from))?;
    Ok(Reply::new(200, "text/plain; charset=utf-8", &b"ok\n"[..]))
}

fn metrics(request: &Request<'_>) -> Result<Reply, ApiError> {
    let text = request.context.metrics.render().into_bytes();
    Ok(Reply::new(200, "text/plain; version=0.0.4", text))
}
