//! The operator's command line. Accounts and tokens are created only by it, so that tests do not depend on how they are
//! stored.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::clean;

/// Runs `adda ARGUMENTS --data DATA`, which must succeed; returns its stdout.
#[track_caller]
pub fn adda(data: &Path, arguments: &[&str]) -> String {
    adda_given(data, arguments, "")
}

/// The same with `input` as its standard input.
#[track_caller]
pub fn adda_given(data: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    clean(&mut command).args(arguments).arg("--data").arg(data);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("the command starts");
    // A command that reads no input may have ended already.
    let _ = child.stdin.take().expect("a piped stdin").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the command ends");
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{arguments:?}: {status}\n{stdout}\n{}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Creates a bot token of an account, and the account if there is none; `role` is `user` or `admin`.
#[track_caller]
pub fn user_token(data: &Path, name: &str, role: &str) -> String {
    let token = adda(data, &["token", "create", name]).trim_end().to_owned();
    if role == "admin" {
        adda(data, &["user", "role", name, role]);
    }
    token
}
