//! Tests of the files of a database: who can read them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{DEADLINE, Server, Ws, clean, run};

/// The modes of all files in a directory that are not 0600, with their names.
#[track_caller]
fn readable_by_others(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let modes = entries.map(|entry| {
        let mode = entry.metadata().expect("its mode").permissions().mode() & 0o7777;
        (entry.file_name().to_string_lossy().into_owned(), mode)
    });
    modes.filter(|(_, mode)| *mode != 0o600).map(|(name, mode)| format!("{name} {mode:o}")).collect()
}

/// A shell that sets the umask and then becomes another program.
fn with_umask(umask: &str) -> Vec<String> {
    ["sh", "-c", &format!("umask {umask}; exec \"$0\" \"$@\"")].map(str::to_owned).to_vec()
}

#[track_caller]
fn serve(umask: &str, data: &Path) -> Server {
    let shell = with_umask(umask);
    let shell: Vec<&str> = shell.iter().map(String::as_str).collect();
    Server::under(&shell, &["--data", data.to_str().expect("a path in UTF-8")])
}

#[track_caller]
fn tool(umask: &str, arguments: &[&str], data: &Path) {
    let shell = with_umask(umask);
    let mut command = Command::new(&shell[0]);
    command.args(&shell[1..]).arg(env!("CARGO_BIN_EXE_adda")).args(arguments).arg("--data").arg(data);
    run(clean(&mut command));
}

#[test]
fn only_the_owner_can_read_what_is_written_whatever_the_umask_is() {
    for umask in ["022", "000", "077", "0277", "0777"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("adda.db");
        let mut server = serve(umask, &data);
        let mut ana = Ws::join(&server, "/ws/tea/Ana");
        ana.say("private");
        ana.expect_text("private");
        let is_socket = |name: &str| {
            fs::symlink_metadata(dir.path().join(name)).is_ok_and(|file| file.file_type().is_socket())
        };
        assert!(is_socket("adda.db.control") && dir.path().join("adda.db-wal").exists(), "umask {umask}");
        let copies = [dir.path().join("copy.db"), dir.path().join("all.ndjson")];
        let [copy, export] = copies.each_ref().map(|path| path.to_str().expect("a path in UTF-8"));
        tool(umask, &["backup", copy], &data);
        tool(umask, &["export", "--output", export], &data);
        tool(umask, &["token", "create", "deploy"], &data);
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, while it runs");
        // What a killed server leaves, and the next one makes of it.
        server.signal(Signal::KILL);
        server.wait_exit(DEADLINE);
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, after a kill");
        let mut server = serve(umask, &data);
        let log = server.whole_log();
        assert!(!log.contains("had mode"), "umask {umask}: {log}");
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, after the end");
        // A database that a command makes.
        tool(umask, &["token", "create", "deploy"], &dir.path().join("made.db"));
        assert_eq!(readable_by_others(dir.path()), Vec::<String>::new(), "umask {umask}, by a command");
    }
}

#[test]
fn the_files_of_an_earlier_server_are_made_private_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let place = tempfile::tempdir().expect("a temporary directory");
    // A symbolic link does not hide the files beside the database.
    let (data, link) = (dir.path().join("adda.db"), place.path().join("link.db"));
    std::os::unix::fs::symlink(&data, &link).expect("a link");
    let mut server = serve("022", &link);
    let mut ana = Ws::join(&server, "/ws/tea/Ana");
    ana.say("private");
    ana.expect_text("private");
    server.signal(Signal::KILL);
    server.wait_exit(DEADLINE);
    let names = ["adda.db", "adda.db-wal", "adda.db-shm"];
    for (name, mode) in names.iter().zip([0o644, 0o666, 0o640]) {
        fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).expect("its mode");
    }
    let server = serve("022", &link);
    assert_eq!(readable_by_others(dir.path()), Vec::<String>::new());
    let log = server.wait_for_log("the modes", |log| log.matches("had mode").count() == names.len());
    for (name, mode) in names.iter().zip(["644", "666", "640"]) {
        assert!(log.contains(&format!("{name}` had mode {mode}; changed it to 600")), "{log}");
    }
    let mut ben = Ws::join(&server, "/ws/tea/Ben?history=1");
    ben.expect_text("private");
}

#[test]
fn a_file_of_another_user_keeps_its_mode() {
    use rustix::process::geteuid;
    if !geteuid().is_root() {
        println!("only root can give a file to another user");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("adda.db");
    drop(serve("022", &data).whole_log());
    std::os::unix::fs::chown(&data, Some(65_534), None).expect("another owner");
    fs::set_permissions(&data, Permissions::from_mode(0o644)).expect("its mode");
    let mut server = serve("022", &data);
    let log = server.whole_log();
    assert!(log.contains("has mode 644 and belongs to user 65534; left as it is"), "{log}");
    assert_eq!(data.metadata().expect("its mode").permissions().mode() & 0o7777, 0o644);
}
