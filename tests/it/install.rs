//! The commands of the README and of the reference that change the system: installation, the systemd unit, the cron job,
//! completions, and the restoring of a backup. They run as they are printed, as root, in a namespace with empty folders
//! in place of the system's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{code_blocks, repository};

/// Folders of the system that the commands write to.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/etc/systemd/system", "/var/lib", "/var/backups"];
/// `sudo` runs a command, as the test is root already. `systemctl` notes what it is asked for.
const SUDO: &str = "#!/bin/sh\nexec \"$@\"\n";
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$@\" >>\"$NOTES\"\n";

/// The one block with a text.
#[track_caller]
fn block(page: &str, language: &str, text: &str) -> String {
    let markdown = fs::read_to_string(repository().join(page)).expect("a page");
    let mut found = code_blocks(&markdown, language);
    found.retain(|block| block.contains(text));
    assert_eq!(found.len(), 1, "blocks of {page} with `{text}`: {found:?}");
    found.remove(0)
}

/// Runs a script in the namespace, and returns its output.
#[track_caller]
fn run(script: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).expect("a folder");
    for (name, text) in [("sudo", SUDO), ("systemctl", SYSTEMCTL)] {
        let program = programs.join(name);
        fs::write(&program, text).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    let cargo = dir.path().join(".cargo/bin");
    fs::create_dir_all(&cargo).expect("a folder");
    fs::create_dir_all(dir.path().join("target/release")).expect("a folder");
    for copy in [cargo.join("adda"), dir.path().join("target/release/adda")] {
        fs::copy(env!("CARGO_BIN_EXE_adda"), copy).expect("the program");
    }
    let mounts: String = FOLDERS.map(|folder| format!("mount -t tmpfs none {folder}\n")).concat();
    let script = format!("set -euo pipefail\n{mounts}mkdir /var/lib/adda\n{script}");
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = Command::new("unshare");
    let output = crate::support::clean(&mut shell)
        .args(["--mount", "bash", "-c", &script])
        .current_dir(dir.path())
        .env("HOME", dir.path())
        .env("NOTES", dir.path().join("notes"))
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}\n{}\n{}", said(&output.stdout), said(&output.stderr));
    let notes = fs::read_to_string(dir.path().join("notes")).unwrap_or_default();
    said(&output.stdout) + &notes
}

#[test]
fn the_program_and_its_unit_are_installed_by_the_printed_commands() {
    let check = "cmp /etc/systemd/system/adda.service <(/usr/local/bin/adda service)\n/usr/local/bin/adda --version\n";
    let version = format!("adda {}", env!("CARGO_PKG_VERSION"));
    let from_readme = run(&(block("README.md", "sh", "systemctl") + check));
    let build = block("static/docs/operating.md", "sh", "cargo build");
    let (cargo, install) = build.split_once('\n').expect("two commands");
    assert_eq!(cargo, "cargo build --release");
    let from_reference = run(&(install.to_owned() + &block("static/docs/operating.md", "sh", "adda service") + check));
    for output in [from_readme, from_reference] {
        assert!(output.contains(&version) && output.contains("ExecStart=/usr/local/bin/adda serve"), "{output}");
        assert!(output.ends_with("daemon-reload\nenable --now adda\n"), "{output}");
    }
}

#[test]
fn a_backup_by_cron_is_restored_by_the_printed_commands() {
    // Cron takes a `%` for a line break unless it is escaped.
    let cron = block("static/docs/operating.md", "cron", "adda backup");
    let backup = cron.split_whitespace().skip(5).collect::<Vec<_>>().join(" ").replace("\\%", "%");
    let restore = block("static/docs/operating.md", "sh", "systemctl stop");
    let name =
        restore.split_once("/var/backups/").and_then(|(_, rest)| rest.split_whitespace().next()).expect("a name");
    let data = "--data /var/lib/adda/adda.db";
    let output = run(&format!(
        "install .cargo/bin/adda /usr/local/bin/\necho 'correct horse battery' | adda user add ana {data}\n{backup}\n\
         mv \"/var/backups/adda-$(date +%F).db\" /var/backups/{name}\n\
         echo 'correct horse battery' | adda user add ben {data}\n{restore}adda user list --format json {data}\n"
    ));
    assert!(output.contains("\"name\":\"ana\"") && !output.contains("\"name\":\"ben\""), "{output}");
    assert!(output.ends_with("stop adda\nstart adda\n"), "{output}");
}

#[test]
fn completions_and_the_manual_are_written_by_the_printed_commands() {
    let commands = block("static/docs/configuration.md", "sh", "adda completions");
    let folders = ".local/share/bash-completion/completions .local/share/man/man1";
    let output = run(&format!(
        "install .cargo/bin/adda /usr/local/bin/\nmkdir -p {folders}\n{commands}bash -n .local/share/bash-completion/completions/adda\n\
         cat .local/share/man/man1/adda.1\n"
    ));
    assert!(output.contains("\n.SH \"EXIT STATUS\"\n"), "{output}");
}

#[test]
fn the_readme_and_the_reference_have_the_same_container_file() {
    let of = |page| {
        let file = block(page, "dockerfile", "FROM");
        let is_needed = |line: &&str| !line.is_empty() && !line.starts_with('#');
        file.lines().filter(is_needed).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("README.md"), of("static/docs/operating.md"));
}
