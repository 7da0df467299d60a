//! Tests of the client against the real server side, and against processes that are not a server.

use std::fs::Permissions;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::agents::control::Control;
use crate::limits::CONTROL_REQUEST_BYTES_MAX;
use crate::model::reason::Reason;

const DEADLINE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);
const PATIENT: ClientWaits = ClientWaits { io: DEADLINE, answer: DEADLINE };
const HASTY: ClientWaits = ClientWaits { io: SHORT, answer: SHORT };

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Add { first: u32, second: u32 },
    Refuse,
    Echo(String),
}

fn database() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adda.db");
    fs::write(&path, "").unwrap();
    (directory, path)
}

fn serve(database: &Path) -> Control {
    let handler = |request: Request| match request {
        Request::Add { first, second } => Ok(first + second),
        Request::Echo(text) => Ok(text.len() as u32),
        Request::Refuse => Err(Reason::NameTaken.because("that name is taken")),
    };
    Control::start(database, handler).unwrap()
}

fn ask(database: &Path, waits: ClientWaits, asked: &Request) -> Result<u32, ControlError> {
    request_within(database, waits, asked)
}

fn add(database: &Path) -> Result<u32, ControlError> {
    ask(database, PATIENT, &Request::Add { first: 2, second: 3 })
}

/// A process that has bound the socket, and handles the first client in its own way.
fn impostor(database: &Path, act: impl FnOnce(UnixStream) + Send + 'static) -> JoinHandle<()> {
    let listener = UnixListener::bind(format!("{}.control", database.display())).unwrap();
    thread::spawn(move || act(listener.accept().unwrap().0))
}

fn one_line(mut stream: &UnixStream, line: &str) {
    let mut lines = Lines::new(stream, CONTROL_REQUEST_BYTES_MAX);
    lines.next(DEADLINE).unwrap().unwrap();
    stream.write_all(line.as_bytes()).unwrap();
}

#[test]
fn requests_are_answered_and_refused() {
    let (_directory, path) = database();
    let control = serve(&path);
    for _ in 0..10 {
        assert_eq!(add(&path).unwrap(), 5);
    }
    let refused = request::<_, u32>(&path, &Request::Refuse).unwrap_err();
    assert_eq!(refused.to_string(), "that name is taken");
    assert!(matches!(refused, ControlError::Refused(rejection) if rejection.reason == Reason::NameTaken));
    drop(control);
    assert!(matches!(add(&path), Err(ControlError::NoServer(_))));
}

#[test]
fn without_a_server_the_error_says_so() {
    let (_directory, path) = database();
    let error = add(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("no server has `{}` open", path.display()));
    // A killed server leaves its socket file behind.
    drop(UnixListener::bind(format!("{}.control", path.display())).unwrap());
    assert!(matches!(add(&path), Err(ControlError::NoServer(_))));
    let error = add(&path.with_file_name("lost.db")).unwrap_err();
    assert!(error.to_string().ends_with("No such file or directory (os error 2)"), "{error}");
}

#[test]
fn a_long_path_and_a_symbolic_link_lead_to_the_server() {
    let (directory, path) = database();
    let long = directory.path().join("d".repeat(100)).join("adda.db");
    fs::create_dir(long.parent().unwrap()).unwrap();
    fs::rename(&path, &long).unwrap();
    std::os::unix::fs::symlink(&long, &path).unwrap();
    let _control = serve(&long);
    for path in [&long, &path] {
        assert_eq!(add(path).unwrap(), 5);
    }
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let (_directory, path) = database();
    let _control = serve(&path);
    let text = "x".repeat(CONTROL_REQUEST_BYTES_MAX);
    let error = ask(&path, PATIENT, &Request::Echo(text)).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(request::<_, u32>(&path, &odd), Err(ControlError::Encode(_))));
    assert_eq!(add(&path).unwrap(), 5);
}

#[test]
fn the_error_for_another_version_names_both_versions() {
    let (_directory, path) = database();
    let other = impostor(&path, |stream| one_line(&stream, "{\"version\":3,\"no\":true}\n"));
    let error = add(&path).unwrap_err();
    assert!(matches!(error, ControlError::Version(_)));
    assert_eq!(
        error.to_string(),
        "control protocol mismatch: this command uses version 1, the server version 3; \
         use the `adda` that the server runs"
    );
    other.join().unwrap();
}

#[test]
fn a_process_that_does_not_answer_is_an_error() {
    let (_directory, path) = database();
    // It listens but accepts no client: the request stays in the system's buffer.
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &Addresses::of(&path).unwrap().file.unwrap().1).unwrap();
    rustix::net::listen(&socket, 3).unwrap();
    let waits = ClientWaits { io: DEADLINE, answer: SHORT };
    let error = ask(&path, waits, &Request::Add { first: 2, second: 3 }).unwrap_err();
    let sentence = format!("`{}` is in use by another process that does not answer", path.display());
    assert_eq!(error.to_string(), format!("{sentence}; the change may have been made"));
    // The buffer is too small for a request of this length.
    let text = "x".repeat(CONTROL_REQUEST_BYTES_MAX - 100);
    let error = ask(&path, HASTY, &Request::Echo(text)).unwrap_err();
    assert_eq!(error.to_string(), sentence);
    // Now its queue is full.
    let mut waiting = Vec::new();
    let error = loop {
        match open(&path, SHORT) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn malformed_answers_are_errors() {
    let (_directory, path) = database();
    let mut long = vec![b'x'; CONTROL_ANSWER_BYTES_MAX + 1];
    long.push(b'\n');
    let long = String::from_utf8(long).unwrap();
    for line in ["HTTP/1.1 400 Bad Request\r\n", "\n", "{\"version\":1,\"answer\":\"x\"}\n", &long] {
        let line = line.to_owned();
        // The client may close the connection before it has read all of a long line.
        let other = impostor(&path, move |stream| {
            let mut lines = Lines::new(&stream, CONTROL_REQUEST_BYTES_MAX);
            lines.next(DEADLINE).unwrap().unwrap();
            let _ = (&stream).write_all(line.as_bytes());
        });
        let error = add(&path).unwrap_err();
        assert!(matches!(error, ControlError::Malformed(_)), "{error}");
        other.join().unwrap();
        fs::remove_file(format!("{}.control", path.display())).unwrap();
    }
    for line in ["", "{\"version\":1,\"ans"] {
        let other = impostor(&path, move |stream| one_line(&stream, line));
        let error = add(&path).unwrap_err();
        assert!(matches!(error, ControlError::Unknown(_)), "{error}");
        other.join().unwrap();
        fs::remove_file(format!("{}.control", path.display())).unwrap();
    }
}

#[test]
fn a_refusal_before_the_request_is_reported() {
    let (_directory, path) = database();
    let other = impostor(&path, |mut stream| {
        let line = r#"{"version":1,"error":{"reason":"not_yours","sentence":"user 7 may not"}}"#;
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    let error = add(&path).unwrap_err();
    other.join().unwrap();
    assert_eq!(error.to_string(), "user 7 may not");
}

/// In `/tmp` any user can create a file of the socket's name before the server does. Only root can become another user;
/// without root, only the check of the directory is tested.
#[test]
fn nothing_is_sent_to_another_users_socket() {
    let (directory, path) = database();
    let socket = PathBuf::from(format!("{}.control", path.display()));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(is_sticky_directory_of(&socket));
    if !geteuid().is_root() {
        let _control = serve(&path);
        assert_eq!(add(&path).unwrap(), 5);
        return;
    }
    let other = Uid::from_raw(100_000 + std::process::id());
    let bound = socket.clone();
    let listening = thread::spawn(move || {
        set_thread_res_uid(other, other, other).unwrap();
        UnixListener::bind(bound).unwrap()
    });
    let listener = listening.join().unwrap();
    let error = add(&path).unwrap_err();
    let user = other.as_raw();
    let sentence =
        format!("the control socket of `{}` belongs to user {user}, not to the owner of the database", path.display());
    assert_eq!(error.to_string(), sentence);
    // The client then finds the server at the abstract socket.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&socket).unwrap();
    let _control = serve(&path);
    fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(add(&path).unwrap(), 5);
    drop(listener);
}
