//! The router: finds the operation of a request in the table of routes, and says which origins may read the response
//! (CORS). Runs on the HTTP workers.

use super::handlers::assets;
use super::operation::{Operation, Readers, Route};
use super::reply::Reply;
use super::request::Request;
use super::routes::{PAGE, ROUTES};
use crate::http1::origin::foreign_origin;
use crate::model::reason::Reason;

/// The methods that any origin may use on public paths, and the header fields that it may send.
const READING: [&str; 2] = ["GET", "HEAD"];
const READING_HEADERS: &str = "Authorization, Last-Event-ID";
/// The header fields that allowed origins may send.
const WRITING_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
/// The time for which a browser may cache the answer to a preflight request.
const PREFLIGHT_AGE_S: &str = "600";

/// The methods of some routes, for the `Allow` header field.
fn allowed<'a>(routes: impl IntoIterator<Item = &'a Route>) -> String {
    let mut methods = Vec::new();
    for operation in routes.into_iter().flat_map(|route| route.operations) {
        let listed: &[_] = if operation.method == "GET" { &READING } else { &[operation.method] };
        for method in listed {
            if !methods.contains(method) {
                methods.push(*method);
            }
        }
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

/// Finds the handler of a request, and adds the CORS fields. Any method other than GET, HEAD and OPTIONS is a write. A
/// write of a foreign origin is refused here, whatever its path.
pub(super) fn dispatch(method: &str, request: &Request<'_>) -> Reply {
    let is_writing = !READING.contains(&method) && method != "OPTIONS";
    if is_writing && !request.may_write() {
        return Reply::from(foreign_origin(request.header("Origin"), request.header("Host")));
    }
    if request.path == "*" {
        return Reply::empty(204).with("Allow", allowed(ROUTES));
    }
    let route = ROUTES.iter().find(|route| route.matches(request.path));
    let Some(route) = route.or_else(|| assets::has(request.path).then_some(PAGE)) else {
        return Reply::from(Reason::NoSuchPath);
    };
    let handled_as = if method == "HEAD" { "GET" } else { method };
    let reply = if let Some(operation) = route.operation(handled_as) {
        answer(operation, &Request { template: route.path, ..*request })
    } else {
        let allowed = allowed([route]);
        if method == "OPTIONS" {
            Reply::empty(204).with("Allow", allowed)
        } else {
            Reply::from(Reason::MethodNotAllowed).with("Allow", allowed)
        }
    };
    with_cors(reply, method, route, request)
}

/// Runs the handler of an operation. In a debug build, a refusal that the operation does not document is a fault.
fn answer(operation: &'static Operation, request: &Request<'_>) -> Reply {
    let mut reply = (operation.handler)(request).unwrap_or_else(Reply::from);
    if cfg!(debug_assertions) {
        let documented = |reply: Reply| {
            let is_documented = reply.reason.is_none_or(|reason| operation.reasons().any(|known| known == reason));
            assert!(is_documented, "{}: {:?} is not documented", operation.id, reply.reason);
            reply
        };
        reply = documented(reply);
        if let Some((lane, payer, rest)) = reply.later.take() {
            reply.later = Some((lane, payer, Box::new(move |context| documented(rest(context)))));
        }
    }
    reply
}

/// Tells a browser which origins may read a response or send a request (Fetch, “CORS protocol”). Any origin may read
/// public paths; allowed origins may do everything.
fn with_cors(reply: Reply, method: &str, route: &Route, request: &Request<'_>) -> Reply {
    // A preflight asks about the request that follows it.
    let intended = request.header("Access-Control-Request-Method").filter(|_| method == "OPTIONS");
    let is_reading = match intended {
        Some(intended) => READING.contains(&intended),
        None => READING.contains(&method) || method == "OPTIONS",
    };
    let (reply, methods, headers) = if route.readers == Readers::AnyOrigin && is_reading {
        let reply = reply.with("Access-Control-Allow-Origin", "*").with("Cross-Origin-Resource-Policy", "cross-origin");
        (reply, READING.join(", "), READING_HEADERS)
    } else if let Some(origin) = request.named_origin() {
        let reply = reply.with("Access-Control-Allow-Origin", origin.to_string()).with("Vary", "Origin");
        (reply, allowed([route]), WRITING_HEADERS)
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
