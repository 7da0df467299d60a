//! Clients that post over HTTP, one request per connection like `curl`. They retry with the same `Idempotency-Key`
//! until the server confirms that the message is stored.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;

use uuid::Uuid;

use crate::history::{Client, Event, Nonce, Room};
use crate::support::{Response, read_response};
use crate::ws_clients::{RETRY, Stage, message_of};

/// A posting client. It sends its next message when the last one is stored.
pub struct HttpClient {
    number: u64,
    room: Room,
    sent_count: u64,
    user: Option<Uuid>,
    events: Vec<Event>,
}

impl HttpClient {
    pub fn new(number: usize, room: Room) -> Self {
        Self { number: number as u64, room, sent_count: 0, user: None, events: Vec::new() }
    }

    /// Posts until the end of the test.
    pub fn run(mut self, stage: &Stage) -> Client {
        let _alarm = stage.alarm();
        while !stage.is_ending() {
            self.sent_count += 1;
            self.post(Nonce(self.number << 32 | self.sent_count), stage);
        }
        stage.settle();
        Client { name: self.name(), events: self.events }
    }

    fn name(&self) -> String {
        format!("poster-{}", self.number)
    }

    /// Posts a message until it is stored.
    fn post(&mut self, nonce: Nonce, stage: &Stage) {
        let mut is_again = false;
        loop {
            stage.wait_until_up(0);
            stage.assert_going();
            if is_again {
                stage.note_sent_again();
            }
            self.events.push(Event::Sent { room: self.room, nonce });
            match self.exchange(nonce, stage) {
                Ok(response) if matches!(response.status, 200 | 201) => {
                    let frame = &response.json()["data"];
                    let message = message_of(frame);
                    assert_eq!(message.nonce, Some(nonce), "the answer to another request: {frame}");
                    let user = frame["user_id"].as_str().and_then(|text| Uuid::try_parse(text).ok());
                    assert!(user.is_some() && self.user.is_none_or(|before| user == Some(before)), "not {frame}");
                    self.user = user;
                    let is_duplicate = response.status == 200;
                    assert_eq!(frame["duplicate"] == true, is_duplicate, "{frame}");
                    self.events.push(if is_duplicate { Event::Duplicate(message) } else { Event::Acked(message) });
                    stage.note_ack(is_duplicate);
                    return;
                }
                // With these statuses it is unknown whether the message is stored.
                Ok(response) => assert!(response.status >= 500, "{} {}", response.status, response.text()),
                Err(_) => {}
            }
            is_again = true;
            thread::sleep(RETRY);
        }
    }

    fn exchange(&self, nonce: Nonce, stage: &Stage) -> io::Result<Response> {
        let (room, name, body) = (self.room.id(), self.name(), nonce.content());
        let request = format!(
            "POST /api/rooms/{room}/messages?username={name} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\nIdempotency-Key: {}\r\n\r\n{body}",
            body.len(),
            nonce.text(),
        );
        let mut stream = TcpStream::connect_timeout(&stage.address(), stage.patience())?;
        stream.write_all(request.as_bytes())?;
        let response = read_response(&mut stream, stage.patience())?;
        // A truncated body is not a response.
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        if length.is_some_and(|length: usize| length != response.body.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(response)
    }
}
