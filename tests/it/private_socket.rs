//! Tests of the private socket of the HTTP server: it opens wherever the environment points, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{DEADLINE, Server};

/// A server with a database, whose directory for temporary files is this one.
#[track_caller]
fn with_temporary(directory: &Path, data: &Path) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adda"));
    command.env("TMPDIR", directory).env("XDG_RUNTIME_DIR", directory).env("RUNTIME_DIRECTORY", directory);
    command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data);
    Server::spawn(command)
}

#[test]
fn no_directory_for_temporary_files_prevents_a_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let deep = dir.path().join("x".repeat(150));
    fs::create_dir(&deep).expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    // Missing, not writable even for root, and no directory at all.
    for temporary in ["/nonexistent", "/proc", file.to_str().expect("a path"), "", "relative"] {
        for data in [Path::new(":memory:"), &dir.path().join("adda.db"), &deep.join("adda.db")] {
            let mut server = with_temporary(Path::new(temporary), data);
            assert_eq!(server.get("/healthz").status, 200, "{temporary} {}", data.display());
            server.signal(Signal::TERM);
            assert_eq!(server.wait_exit(DEADLINE).code(), Some(0));
        }
    }
    for directory in [dir.path(), &deep] {
        let names = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("adda-http")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
