//! The description of the HTTP API (OpenAPI 3.1), made from the table of routes. `components.json` has the schemas.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::operation::{Content, Needs, Operation, Route};
use super::reply::Reply;
use super::request::Request;
use super::routes::ROUTES;
use super::server::Context;
use crate::model::reason::{Reason, Rejection};

const COMPONENTS: &str = include_str!("components.json");

/// `GET /api/openapi.json`
pub(super) fn get(request: &Request<'_>) -> Result<Reply, Rejection> {
    let Context { openapi, settings, .. } = request.context;
    let document = openapi.get_or_init(|| document(settings.cookie.name()).to_string().into_bytes());
    Ok(Reply::new(200, "application/json", document.clone()))
}

fn document(cookie: &str) -> Value {
    let paths: Map<String, Value> = ROUTES.iter().map(|route| (route.path.to_owned(), path_item(route))).collect();
    // A test parses the components; they are part of the binary.
    let mut components: Value = serde_json::from_str(COMPONENTS).unwrap_or_default();
    components["securitySchemes"]["cookie"]["name"] = cookie.into();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "adda",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The HTTP API of adda. The reference is at /docs/.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
    })
}

fn path_item(route: &Route) -> Value {
    let mut item = Map::new();
    if route.path_parameters().next().is_some() {
        let parameters: Vec<Value> = route.path_parameters().map(|name| reference("parameters", name)).collect();
        item.insert("parameters".to_owned(), parameters.into());
    }
    for operation in route.operations {
        item.insert(operation.method.to_ascii_lowercase(), described(operation));
    }
    item.into()
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn described(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "security": security(operation.needs),
        "responses": responses(operation),
    });
    if operation.needs == Needs::Admin {
        described["x-role"] = "admin".into();
    }
    if !operation.parameters.is_empty() {
        described["parameters"] = operation.parameters.iter().map(|name| reference("parameters", name)).collect();
    }
    if let Some(body) = operation.body {
        let mut content = json!({ "application/json": { "schema": reference("schemas", body.schema) } });
        if body.may_be_text {
            content["text/plain"] =
                json!({ "schema": { "type": "string", "format": "message-text", "minLength": 1 }, "example": "hi" });
        }
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

/// The ways to show a session. An operation without a need accepts a token, too.
fn security(needs: Needs) -> Value {
    match needs {
        Needs::Nothing => json!([{}, { "bearer": [] }, { "cookie": [] }]),
        Needs::Session | Needs::Account | Needs::Admin => json!([{ "bearer": [] }, { "cookie": [] }]),
    }
}

/// The answers of an operation, and its refusals grouped by status.
fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for answer in operation.answers {
        let mut response = json!({ "description": answer.description });
        match answer.content {
            Content::Empty => {}
            Content::Text(media_type) => {
                response["content"] = json!({ media_type: { "schema": { "type": "string" } } })
            }
            Content::Json(schema) => {
                response["content"] = json!({ "application/json": { "schema": reference("schemas", schema) } });
            }
        }
        responses.insert(answer.status.to_string(), response);
    }
    let mut by_status: BTreeMap<u16, Vec<Reason>> = BTreeMap::new();
    for reason in operation.reasons() {
        let reasons = by_status.entry(reason.status()).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    for (status, reasons) in by_status {
        responses.insert(status.to_string(), refusal(&reasons));
    }
    responses.into()
}

/// The response of refusals with the same status, with an example of each.
fn refusal(reasons: &[Reason]) -> Value {
    let words: Vec<String> = reasons.iter().map(|reason| format!("`{}`", reason.word())).collect();
    let example = |reason: &Reason| {
        let body = json!({ "error": reason.sentence(), "code": reason.code().as_str(), "reason": reason.word() });
        (reason.word().to_owned(), json!({ "value": body }))
    };
    let examples: Map<String, Value> = reasons.iter().map(example).collect();
    json!({
        "description": words.join(", "),
        "content": { "application/json": { "schema": reference("schemas", "Error"), "examples": examples } },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::{
        AUDIT_ENTRIES_LISTED_MAX, INVITATION_DAYS_MAX, INVITATION_USES_MAX, LABEL_CHARS_MAX, MEMBERS_LISTED_MAX,
        MESSAGES_LISTED, NONCE_CHARS_MAX, ROOM_CHARS_MAX, ROOM_NAME_CHARS_MAX, ROOMS_LISTED_MAX, SLOW_MODE_S_MAX,
        TOPIC_CHARS_MAX, USERNAME_CHARS_MAX,
    };
    use crate::store::accounts::AuditAction;

    /// Every `$ref` in a value.
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_component_exists_and_is_used() {
        let document = document("adda_session_12");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for name in &used {
            assert!(document.pointer(&name[1..]).is_some(), "{name} does not exist");
        }
        for kind in ["parameters", "schemas"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                assert!(used.contains(format!("#/components/{kind}/{name}").as_str()), "{kind}/{name} is not used");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_an_answer() {
        let operations: Vec<_> = ROUTES.iter().flat_map(|route| route.operations).collect();
        let names: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        assert_eq!(names.len(), operations.len());
        for operation in operations.iter().filter(|operation| operation.id != "panic") {
            assert!(operation.answers.iter().any(|answer| answer.status < 300), "{}", operation.id);
        }
    }

    #[test]
    fn the_actions_of_the_audit_log_are_described() {
        let words: Vec<_> = AuditAction::ALL.iter().map(|action| action.word()).collect();
        let described =
            &document("adda_session_12")["components"]["schemas"]["AuditPage"]["properties"]["data"]["items"];
        assert_eq!(described["properties"]["action"]["enum"], json!(words));
    }

    #[test]
    fn the_limits_of_schemas_are_those_of_the_server() {
        let document = document("adda_session_12");
        for (pointer, limit) in [
            ("schemas/RoomId/maxLength", ROOM_CHARS_MAX),
            ("schemas/Username/maxLength", USERNAME_CHARS_MAX),
            ("schemas/Nonce/maxLength", NONCE_CHARS_MAX),
            ("schemas/SlowMode/maximum", SLOW_MODE_S_MAX as usize),
            ("schemas/RoomPatch/properties/slow_mode_s/maximum", SLOW_MODE_S_MAX as usize),
            ("schemas/RoomPatch/properties/name/maxLength", ROOM_NAME_CHARS_MAX),
            ("schemas/RoomPatch/properties/topic/maxLength", TOPIC_CHARS_MAX),
            ("schemas/RoomDetails/properties/data/properties/clients/maxItems", MEMBERS_LISTED_MAX),
            ("schemas/NewInvitation/properties/uses/maximum", INVITATION_USES_MAX as usize),
            ("schemas/NewInvitation/properties/days/maximum", INVITATION_DAYS_MAX as usize),
            ("schemas/Restrictions/properties/banned/anyOf/1/properties/reason/maxLength", LABEL_CHARS_MAX),
            ("parameters/rooms_limit/schema/default", ROOMS_LISTED_MAX),
            ("parameters/audit_limit/schema/default", AUDIT_ENTRIES_LISTED_MAX),
            ("parameters/messages_limit/schema/default", MESSAGES_LISTED),
        ] {
            let value = document.pointer(&format!("/components/{pointer}"));
            assert_eq!(value.and_then(Value::as_u64), Some(limit as u64), "{pointer}");
        }
    }
}
