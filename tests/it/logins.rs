//! Tests of logins under load: an account that logs in again and again delays only itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use adda::model::role::Role;
use serde_json::json;

use crate::support::{DEADLINE, People, Response, connect_from, eventually, read_response};

const PASSWORD: &str = "correct horse battery";
/// Threads of each account that logs in again and again.
const THREADS: usize = 4;
/// Logins of others meanwhile, at each address.
const OTHERS: usize = 6;

fn log_in(source: impl Into<IpAddr>, address: SocketAddr, name: &str) -> Response {
    let body = json!({"username": name, "password": PASSWORD}).to_string();
    let mut stream = connect_from(source, address, None).expect("a connection");
    let request = format!(
        "POST /api/session HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
    read_response(&mut stream, DEADLINE).expect("an answer")
}

#[test]
fn accounts_that_log_in_again_and_again_delay_only_themselves() {
    let people = People::new();
    let names: Vec<String> = (0..4 + OTHERS).map(|number| format!("person {number}")).collect();
    for name in &names {
        people.account(name, Role::User, Some(PASSWORD));
    }
    let (looping, others) = names.split_at(4);
    let server = people.serve(&[]);
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for name in looping.iter().flat_map(|name| [name; THREADS]) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let status = log_in(Ipv4Addr::LOCALHOST, server.addr(), name).status;
                    assert!([201, 429, 503].contains(&status), "{status}");
                    done.fetch_add(1, Ordering::Relaxed);
                    if status != 201 {
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
        eventually("they log in", DEADLINE, || done.load(Ordering::Relaxed) > 4 * THREADS);
        let failed: Vec<String> = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)]
            .into_iter()
            .flat_map(|source| others.iter().map(move |name| (source, name)))
            .filter_map(|(source, name)| {
                let response = log_in(source, server.addr(), name);
                (response.status != 201).then(|| format!("{name} from {source}: {}", response.text()))
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(failed.is_empty(), "{failed:?}");
    });
}
