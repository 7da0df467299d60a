//! The parts of the table of routes: what an operation takes, answers and refuses.

use super::reply::Reply;
use super::request::Request;
use crate::model::reason::{Reason, Rejection};

pub(super) type Handler = fn(&Request<'_>) -> Result<Reply, Rejection>;

/// A path and its operations.
pub(super) struct Route {
    /// The path. `{name}` stands for one part that is not empty.
    pub(super) path: &'static str,
    pub(super) readers: Readers,
    pub(super) operations: &'static [Operation],
}

/// The origins whose pages may read the answers of a path (CORS). Only the server's own origin and those that the
/// operator allows may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readers {
    AnyOrigin,
    AllowedOrigins,
}

/// One method of a path. HEAD is handled like GET, and every path has OPTIONS.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) handler: Handler,
    /// The unique name of the operation, for generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) needs: Needs,
    /// Names of parameters in the query and in header fields, as in `components.json`.
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Option<Body>,
    pub(super) answers: &'static [Answer],
    /// The reasons of its refusals, besides [`ANY_REQUEST`].
    pub(super) refusals: &'static [&'static [Reason]],
}

/// What a client must show for an operation to be possible at all. Permissions in a room are decided further in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Session,
    Account,
    Admin,
}

/// The body of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    /// The name of its schema in `components.json`.
    pub(super) schema: &'static str,
    /// Whether the body may also be the text of a message.
    pub(super) may_be_text: bool,
}

/// A response that is no refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Content,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    Empty,
    /// A media type without a schema.
    Text(&'static str),
    /// JSON: the name of its schema in `components.json`.
    Json(&'static str),
}

pub(super) const fn operation(
    method: &'static str,
    id: &'static str,
    handler: Handler,
    summary: &'static str,
) -> Operation {
    Operation {
        method,
        handler,
        id,
        summary,
        needs: Needs::Nothing,
        parameters: &[],
        body: None,
        answers: &[],
        refusals: &[],
    }
}

pub(super) const fn get(id: &'static str, handler: Handler, summary: &'static str) -> Operation {
    operation("GET", id, handler, summary)
}

pub(super) const fn post(id: &'static str, handler: Handler, summary: &'static str) -> Operation {
    operation("POST", id, handler, summary)
}

pub(super) const fn put(id: &'static str, handler: Handler, summary: &'static str) -> Operation {
    operation("PUT", id, handler, summary)
}

pub(super) const fn patch(id: &'static str, handler: Handler, summary: &'static str) -> Operation {
    operation("PATCH", id, handler, summary)
}

pub(super) const fn delete(id: &'static str, handler: Handler, summary: &'static str) -> Operation {
    operation("DELETE", id, handler, summary)
}

impl Operation {
    pub(super) const fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    pub(super) const fn parameters(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    pub(super) const fn json(self, schema: &'static str) -> Self {
        Self { body: Some(Body { schema, may_be_text: false }), ..self }
    }

    pub(super) const fn json_or_text(self, schema: &'static str) -> Self {
        Self { body: Some(Body { schema, may_be_text: true }), ..self }
    }

    pub(super) const fn answers(self, answers: &'static [Answer]) -> Self {
        Self { answers, ..self }
    }

    pub(super) const fn refusals(self, refusals: &'static [&'static [Reason]]) -> Self {
        Self { refusals, ..self }
    }

    /// Every reason for which this operation may be refused.
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.refusals.iter().copied().chain([ANY_REQUEST]).flatten().copied()
    }
}

pub(super) const fn answer(status: u16, schema: &'static str, description: &'static str) -> Answer {
    Answer { status, description, content: Content::Json(schema) }
}

pub(super) const fn text(media_type: &'static str, description: &'static str) -> Answer {
    Answer { status: 200, description, content: Content::Text(media_type) }
}

pub(super) const DONE: Answer = Answer { status: 204, description: "Done.", content: Content::Empty };

/// Refusals of any request, most of them in front of the router.
pub(super) const ANY_REQUEST: &[Reason] = &[
    Reason::MalformedRequest,
    Reason::UnknownExpectation,
    Reason::HeadTooLarge,
    Reason::BodyTooLarge,
    Reason::TooSlow,
    Reason::TooManyConnections,
    Reason::ServerFull,
    Reason::AddressFull,
    Reason::Busy,
    Reason::Unavailable,
    Reason::Internal,
];

impl Route {
    /// Whether a path matches this route.
    pub(super) fn matches(&self, path: &str) -> bool {
        let (wanted, parts) = (self.path.split('/'), path.split('/'));
        wanted.clone().count() == parts.clone().count()
            && wanted
                .zip(parts)
                .all(|(wanted, part)| part == wanted || (parameter(wanted).is_some() && !part.is_empty()))
    }

    /// The operation of a method.
    pub(super) fn operation(&self, method: &str) -> Option<&'static Operation> {
        self.operations.iter().find(|operation| operation.method == method)
    }

    /// The names of the parameters in the path.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(parameter)
    }
}

/// The name of the parameter for which a part of a route's path stands.
pub(super) fn parameter(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}
