//! Tests of the frames of clients and of the server.

use uuid::Uuid;

use super::*;
use crate::limits::{self, Limits};
use crate::model::reason::{Reason, Rejection};
use crate::model::{FrameId, Nonce, Person, RoomId, Seq, Timestamp, UserId, Username};

fn limits() -> Limits {
    Limits { content_bytes_max: 100, ..Limits::default() }
}

fn text(content: &str) -> ClientFrame {
    let command = ClientCommand::Message(Body::Text { content: content.into(), reply_to: None });
    ClientFrame { room: None, nonce: None, command }
}

#[test]
fn a_message_may_be_json_or_plain_text() {
    for (frame, content) in [
        (r#"{"type":"text","content":"hi"}"#, "hi"),
        (r#"{"content":"হ্যালো"}"#, "হ্যালো"),
        (r#"{"message":"hi"}"#, "hi"),
        (r#"{"content":"hi","message":"other"}"#, "hi"),
        (r#"{"content":"line\nnext","extra":[1,{"a":null}]}"#, "line\nnext"),
        ("hello there", "hello there"),
        ("as typed\n", "as typed"),
        ("[1,2]", "[1,2]"),
        (" {not json", " {not json"),
    ] {
        assert_eq!(decode(frame, &limits()), Ok(text(content)), "{frame}");
    }
}

#[test]
fn commands_carry_their_fields() {
    let room = RoomId::parse("tea").ok();
    let nonce = Nonce::parse("n1").ok();
    let id = "0192f7a0-0000-7000-8000-000000000001";
    let reply = Body::Text { content: "x".into(), reply_to: FrameId::parse(id) };
    let replay = Replay { history: limits::HISTORY_MAX, after: Some(After::parse(id)) };
    for (json, room, nonce, command) in [
        (
            format!(r#"{{"content":"x","room_id":" tea ","nonce":"n1","reply_to":"{id}"}}"#),
            room.clone(),
            nonce.clone(),
            ClientCommand::Message(reply),
        ),
        (
            format!(r#"{{"type":"join","room_id":"tea","after":"{id}","history":9999}}"#),
            room.clone(),
            None,
            ClientCommand::Join(replay),
        ),
        (r#"{"type":"leave","room_id":"tea","nonce":"n1"}"#.to_owned(), room, nonce.clone(), ClientCommand::Leave),
        (r#"{"type":"typing","nonce":"n1"}"#.to_owned(), None, nonce, ClientCommand::Typing),
    ] {
        assert_eq!(decode(&json, &limits()), Ok(ClientFrame { room, nonce, command }), "{json}");
    }
}

const USER: &str = "0192f7a0-0000-7000-8000-000000000002";

#[test]
fn admin_commands_carry_their_fields() {
    let user = UserId(Uuid::try_parse(USER).unwrap());
    let until_ms = 1_769_860_800_000;
    let restrict = |mute_until_ms, ban| AdminAction::Restrict(user, Restrictions { mute_until_ms, ban });
    let force = |force| Some(AddressBan { force });
    let ban = |until_ms, reason: &str, by_address| {
        restrict(None, Some(BanChange::Ban { until_ms, reason: reason.into(), by_address }))
    };
    let topic = RoomPatch { topic: Some("tea".into()), slow_mode_s: Some(5), ..RoomPatch::default() };
    for (fields, expected) in [
        (format!(r#""type":"kick","user_id":"{USER}""#), AdminAction::Kick(user)),
        (
            format!(r#""type":"mute","user_id":"{USER}","muted_until":"2026-01-31T12:00:00Z""#),
            restrict(Some(until_ms), None),
        ),
        (format!(r#""type":"mute","user_id":"{USER}","muted_until":null"#), restrict(Some(0), None)),
        (format!(r#""type":"ban","user_id":"{USER}","banned":false"#), restrict(None, Some(BanChange::Lift))),
        (format!(r#""type":"ban","user_id":"{USER}","banned":true"#), ban(None, "", None)),
        (
            format!(r#""type":"ban","user_id":"{USER}","banned":{{"reason":"loud","address":true}}"#),
            ban(None, "loud", force(false)),
        ),
        (
            format!(r#""type":"ban","user_id":"{USER}","banned":{{"address":true,"force":true}}"#),
            ban(None, "", force(true)),
        ),
        (
            format!(r#""type":"ban","user_id":"{USER}","banned":{{"until":"2026-01-31T12:00:00Z"}}"#),
            ban(Some(until_ms), "", None),
        ),
        (r#""type":"room","topic":"tea","slow_mode_s":5"#.to_owned(), AdminAction::SetRoom(topic)),
    ] {
        let (room, nonce) = (RoomId::parse("tea").ok(), Nonce::parse("n").ok());
        let decoded = decode(&format!(r#"{{{fields},"room_id":"tea","nonce":"n"}}"#), &limits());
        let command = ClientCommand::Admin(Box::new(expected));
        assert_eq!(decoded, Ok(ClientFrame { room, nonce, command }), "{fields}");
    }
}

#[test]
fn a_refused_field_is_named() {
    let user = format!(r#""user_id":"{USER}""#);
    for (frame, name) in [
        (r#"{"content":"x","nonce":5}"#.to_owned(), "`nonce`"),
        (r#"{"nonce":"n","room_id":{},"content":"x"}"#.to_owned(), "`room_id`"),
        (r#"{"content":"x","content":"y"}"#.to_owned(), "`content`"),
        (r#"{"type":"join","room_id":"tea","history":"5"}"#.to_owned(), "`history`"),
        (r#"{"type":"join","room_id":"tea","after":5}"#.to_owned(), "`after`"),
        (r#"{"type":7}"#.to_owned(), "`type`"),
        (r#"{"type":"delete","message_id":7}"#.to_owned(), "`message_id`"),
        (format!(r#"{{"type":"ban",{user},"banned":true,"banned":false}}"#), "`banned`"),
        (format!(r#"{{"type":"ban",{user},"banned":{{"address":1}}}}"#), "`address`"),
        (format!(r#"{{"type":"mute",{user},"muted_until":7}}"#), "`muted_until`"),
        (r#"{"type":"room","topic":["tea"]}"#.to_owned(), "`topic`"),
    ] {
        let Rejection { reason, sentence, .. } = decode(&frame, &limits()).unwrap_err().rejection;
        assert_eq!(reason, Reason::MalformedField, "{frame}: {sentence}");
        assert!(sentence.contains(name), "{frame}: {sentence}");
    }
}

#[test]
fn a_refused_frame_has_its_reason_and_its_nonce() {
    use Reason::*;
    let long = "x".repeat(101);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120));
    let long_name = "x".repeat(limits::ROOM_NAME_CHARS_MAX + 1);
    for (frame, reason, code, with_nonce) in [
        (r#"{"content":"#.to_string(), BadJson, "bad_json", false),
        (r#"{"content":5,"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (r#"{"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (r#"{"content":"  \n","nonce":"n"}"#.to_string(), EmptyMessage, "bad_json", true),
        (r#"{"type":"dance","nonce":"n"}"#.to_string(), UnknownType, "bad_type", true),
        (r#"{"content":"x","room_id":"a\u0000","nonce":"n"}"#.to_string(), BadRoom, "bad_room", true),
        (r#"{"content":"x","room_id":"dm:a:b","nonce":"n"}"#.to_string(), BadRoom, "bad_room", true),
        (format!(r#"{{"content":"x","nonce":"{long}"}}"#), NameTooLong, "too_long", false),
        (r#"{"content":"x","nonce":""}"#.to_string(), BadName, "bad_name", false),
        (format!(r#"{{"content":"{long}","nonce":"n"}}"#), MessageTooLong, "too_long", true),
        (r#"{"content":"x","reply_to":"42","nonce":"n"}"#.to_string(), NoSuchReply, "not_found", true),
        (r#"{"type":"delete","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (r#"{"type":"delete","message_id":"42","nonce":"n"}"#.to_string(), NoSuchMessage, "not_found", true),
        (r#"{"type":"kick","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (r#"{"type":"kick","user_id":"ana","nonce":"n"}"#.to_string(), NoSuchUser, "not_found", true),
        (format!(r#"{{"type":"mute","user_id":"{USER}","nonce":"n"}}"#), MalformedField, "bad_json", true),
        (
            format!(r#"{{"type":"mute","user_id":"{USER}","banned":true,"nonce":"n"}}"#),
            MalformedField,
            "bad_json",
            true,
        ),
        (format!(r#"{{"type":"ban","user_id":"{USER}","banned":7,"nonce":"n"}}"#), MalformedField, "bad_json", true),
        (
            format!(r#"{{"type":"ban","user_id":"{USER}","muted_until":null,"nonce":"n"}}"#),
            MalformedField,
            "bad_json",
            true,
        ),
        (
            format!(r#"{{"type":"ban","user_id":"{USER}","banned":{deep},"nonce":"n"}}"#),
            MalformedField,
            "bad_json",
            true,
        ),
        (format!(r#"{{"type":"room","topic":{deep},"nonce":"n"}}"#), MalformedField, "bad_json", true),
        (r#"{"type":"room","slow_mode":5,"nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (r#"{"type":"room","posting":"nobody","nonce":"n"}"#.to_string(), MalformedField, "bad_json", true),
        (
            format!(r#"{{"type":"mute","user_id":"{USER}","muted_until":"soon","nonce":"n"}}"#),
            BadField,
            "bad_json",
            true,
        ),
        (r#"{"type":"room","slow_mode_s":3601,"nonce":"n"}"#.to_string(), BadField, "bad_json", true),
        (format!(r#"{{"type":"room","name":"{long_name}","nonce":"n"}}"#), NameTooLong, "too_long", true),
        (long.clone(), MessageTooLong, "too_long", false),
        (" ".to_string(), EmptyMessage, "bad_json", false),
    ] {
        let rejected = decode(&frame, &limits()).unwrap_err();
        let Rejected { rejection, nonce } = rejected;
        assert_eq!((rejection.reason, nonce.is_some()), (reason, with_nonce), "{frame}");
        assert_eq!(rejection.reason.code().in_frame(), code, "{frame}");
        assert!(!rejection.sentence.is_empty());
    }
}

#[test]
fn invalid_fields_of_an_http_body_are_refused() {
    use Reason::*;
    for (json, reason) in [
        ("{", BadJson),
        ("", BadJson),
        ("7", MalformedField),
        ("{}", BadField),
        (r#"{"muted":null}"#, MalformedField),
        (r#"{"muted_until":"soon"}"#, BadField),
        (r#"{"banned":{"until":"soon"}}"#, BadField),
        (r#"{"banned":{"reason":"\u0000"}}"#, BadName),
        (r#"{"banned":[null]}"#, MalformedField),
        (r#"{"banned":"for good"}"#, MalformedField),
        (r#"{"banned":{"until":null,"for":1}}"#, MalformedField),
    ] {
        let rejection = restrictions(json).unwrap_err();
        assert_eq!((rejection.reason, rejection.reason.status()), (reason, 400), "{json}");
    }
    assert_eq!(room_patch("{").unwrap_err().reason, BadJson);
    for number in ["-1", "0.5", "\"5\"", "4294967296", "1e30", "true"] {
        let json = format!(r#"{{"slow_mode_s":{number}}}"#);
        assert_eq!(room_patch(&json).unwrap_err().reason, MalformedField, "{json}");
    }
    for (number, expected) in [("5", Some(5)), ("5.0", Some(5)), ("5e1", Some(50)), ("null", None)] {
        let json = format!(r#"{{"slow_mode_s":{number}}}"#);
        assert_eq!(room_patch(&json).unwrap().slow_mode_s, expected, "{json}");
    }
}

#[test]
fn a_frame_has_the_seven_fields_and_no_empty_fields() {
    let mut bytes = Vec::new();
    let person = Person::guest(UserId(Uuid::nil()), Username::parse("রহিম").unwrap());
    let (id, room, now) = (FrameId(Uuid::nil()), RoomId::parse("tea").unwrap(), Timestamp::at(1_700_000_000_123));
    let frame = Frame::new(id, &room, person.author(), "\"হ্যালো\"\n", FrameType::Text, &now);
    Frame { seq: Some(Seq(7)), ..frame }.encode(&mut bytes);
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        concat!(
            r#"{"id":"00000000-0000-0000-0000-000000000000","room_id":"tea","#,
            r#""user_id":"00000000-0000-0000-0000-000000000000","username":"রহিম","content":"\"হ্যালো\"\n","#,
            r#""type":"text","timestamp":"2023-11-14T22:13:20.123Z","seq":7}"#
        )
    );
}
