//! Rules of the code base that a program can check. Each checker is first tested with a violation that it must find.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::repository;

/// The layer of each file or folder of `src/`. A file imports only from lower layers and from its own folder. The
/// imports within a layer must not form a cycle.
const LAYERS: [(u8, &[&str]); 7] = [
    (6, &["main", "cli", "lib"]),
    (5, &["front"]),
    (4, &["authenticator", "session", "http", "agents"]),
    (3, &["hub"]),
    (2, &["store"]),
    (1, &["protocol", "wire", "http1", "auth", "logging"]),
    (0, &["build", "model", "limits", "rate", "metrics", "config", "threads", "published"]),
];

/// Names that only some folders of `src/` may use: the name, and these folders.
const KEPT_TO: [(&str, &[&str]); 3] =
    [("tiny_http", &["front", "http"]), ("tungstenite", &["session"]), ("rusqlite", &["store/sqlite"])];

/// Names that must be absent from the hub: the disk, other processes, JSON from clients, sleeps, and the bytes of one
/// protocol. It may name `Encoding::Json`, but not the form of its bytes.
const NOT_IN_HUB: [&str; 9] = [
    "std::fs",
    "File",
    "std::process",
    "rusqlite",
    "serde_json::from_",
    "thread::sleep",
    "websocket",
    "ndjson",
    "crate::session",
];

/// The allowed files and folders at the top of the checkout, besides dotfiles.
const TOP_LEVEL: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE", "LICENSE-MIT", "LICENSE-APACHE", "src", "static", "tests"];

/// Names of registries. With a registry in a file, packages come from that place instead of the one that the machine's
/// owner has configured. The names are in pieces, so that this file does not contain them.
const REGISTRIES: [&str; 10] = [
    concat!("artifac", "tory"),
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("registry.npm", "js"),
    concat!("registry.yarn", "pkg"),
    concat!("files.python", "hosted"),
    concat!("pypi", ".org"),
    concat!("deb.deb", "ian.org"),
    concat!("--index", "-url"),
    concat!("[regis", "tries"),
];

/// The longest file, and the longest production code of a file: without comments, blank lines and tests.
const LINES_MAX: usize = 1_000;
const PRODUCTION_LINES_MAX: usize = 500;

/// A text file of the checkout: its path from the top, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The file or folder of `src/` to which it belongs, if it does.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }
}

/// The code alone: comments and quoted text become spaces, line by line.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let blank = |part: &str| -> String { part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect() };
    while let Some(first) = rest.chars().next() {
        let before_is_word = code.chars().last().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else if !before_is_word && let Some(length) = raw_string(rest) {
            length
        } else {
            0
        };
        if length > 0 {
            code += &blank(&rest[..length]);
            rest = &rest[length..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of the block comment at the start of `text`, with nested comments.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string at the start of `text`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string at the start of `text`, if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    let body = inside[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end)? + end.len();
    Some(text.len() - body.len() + length)
}

/// The length of the character literal at the start of `text`, or 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].chars();
    let first = inside.next();
    if first == Some('\\') {
        return text[3..].find('\'').map_or(0, |end| end + 4);
    }
    match (first, inside.next()) {
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// Code without the parts that are only built for tests.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept += &rest[..at];
        let (body, semicolon) = (rest[at..].find('{'), rest[at..].find(';'));
        let end = match (body, semicolon) {
            (Some(open), semicolon) if semicolon.is_none_or(|semicolon| open < semicolon) => {
                let mut depth = 0;
                let closing = rest[at + open..].char_indices().find(|(_, c)| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth == 0
                });
                closing.map_or(rest.len(), |(close, _)| at + open + close + 1)
            }
            (_, Some(semicolon)) => at + semicolon + 1,
            _ => rest.len(),
        };
        rest = &rest[end..];
    }
    kept + rest
}

/// The files that are only built for tests: those with a `#[cfg(test)] mod name;` in a file beside them.
fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources {
        let code = code_of(&source.text).split_whitespace().collect::<Vec<_>>().join(" ");
        let code = code.replace("pub(crate) mod", "mod").replace("pub(super) mod", "mod");
        for rest in code.split("#[cfg(test)] mod ").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if rest[name.len()..].starts_with(';') {
                let folder = source.path.strip_suffix("/mod.rs").map(str::to_string);
                let folder = folder.or_else(|| source.path.strip_suffix("/lib.rs").map(str::to_string));
                let folder = folder.unwrap_or_else(|| source.path.trim_end_matches(".rs").to_string());
                found.insert(format!("{folder}/{name}.rs"));
            }
        }
    }
    // The folder of such a file belongs to it.
    let folders: Vec<_> = found.iter().map(|path| path.replace(".rs", "/")).collect();
    let is_within = |source: &&Source| folders.iter().any(|folder| source.path.starts_with(folder));
    found.extend(sources.iter().filter(is_within).map(|source| source.path.clone()));
    found
}

/// The numbers of the lines in which `name` occurs as a whole word.
fn lines_with(code: &str, name: &str) -> Vec<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let begins_as_word = name.starts_with(word);
    let ends_as_word = name.ends_with(|c| c != '_' && word(c));
    let holds = |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            let before = begins_as_word && line[..at].ends_with(word);
            let after = ends_as_word && line[at + name.len()..].starts_with(word);
            !before && !after
        })
    };
    code.lines().enumerate().filter(|(_, line)| holds(line)).map(|(n, _)| n + 1).collect()
}

/// The modules that a file of `src/` names by `crate::…`, or by enough `super::` to reach the root.
fn imports(source: &Source) -> BTreeSet<String> {
    let code = code_of(&source.text);
    let flat: String = code.split_whitespace().collect::<Vec<_>>().join(" ").replace(":: ", "::").replace("{ ", "{");
    let depth = source.path.matches('/').count();
    let mut roots = vec!["crate::".to_string(), "adda::".to_string()];
    let is_root_of_folder = source.path.ends_with("/mod.rs") || source.path == "src/lib.rs";
    // The depth from the file's module to the root; within a nested `mod tests`, one more `super::` leads nowhere.
    roots.push("super::".repeat(depth - usize::from(is_root_of_folder)));
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let first_of = |text: &str| text.chars().take_while(|c| word(*c)).collect::<String>();
    let mut found = BTreeSet::new();
    for root in roots.iter().filter(|root| !root.is_empty()) {
        for (at, _) in flat.match_indices(root.as_str()) {
            if flat[..at].ends_with(|c| word(c) || c == ':') {
                continue;
            }
            // Within the tests of a file, `super` is the file itself.
            if root.starts_with("super") && flat[..at].contains("mod tests") {
                continue;
            }
            let rest = &flat[at + root.len()..];
            match rest.strip_prefix('{') {
                None => {
                    found.insert(first_of(rest));
                }
                Some(group) => {
                    let mut level = 0;
                    let end = group.find(|c| {
                        level += i32::from(c == '{') - i32::from(c == '}');
                        level < 0
                    });
                    let mut level = 0;
                    let own = |c: char| {
                        level += i32::from(c == '{') - i32::from(c == '}');
                        level == 0 && c == ','
                    };
                    let group = &group[..end.unwrap_or(group.len())];
                    found.extend(group.split(own).map(|part| first_of(part.trim())));
                }
            }
        }
    }
    found.remove("");
    found
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// Violations of the layers: imports from a higher layer, files without a layer, cycles.
fn check_layers(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        let Some(module) = source.module() else { continue };
        let Some(layer) = layer_of(module) else {
            breaches.push(format!("{} has no layer in the table of tests/it/rules.rs", source.path));
            continue;
        };
        for import in imports(source) {
            // A name that is not a module is an item of lib.rs, or a macro of the file's own folder.
            let import = if layer_of(&import).is_some() { import.as_str() } else { "lib" };
            let its_layer = layer_of(import).unwrap_or(u8::MAX);
            if import != module && its_layer > layer {
                breaches.push(format!("{} (layer {layer}) imports {import} (layer {its_layer})", source.path));
            } else if import != module && its_layer == layer && module != "lib" && module != "main" {
                graph.entry(module.to_string()).or_default().insert(import.to_string());
            }
        }
    }
    for start in graph.keys() {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut next: Vec<&str> = vec![start];
        while let Some(module) = next.pop() {
            for import in graph.get(module).into_iter().flatten() {
                if reached.insert(import) {
                    next.push(import);
                }
            }
        }
        if reached.contains(start.as_str()) {
            breaches.push(format!("{start} imports itself in a circle"));
        }
    }
    breaches
}

/// Violations of the rules about names.
fn check_names(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let tests = test_files(sources);
    for source in sources.iter().filter(|source| !tests.contains(&source.path)) {
        let Some(module) = source.module() else { continue };
        let code = without_tests(&code_of(&source.text));
        for (name, folders) in KEPT_TO {
            let lines = lines_with(&code, name);
            let is_allowed = folders.iter().any(|folder| source.path.starts_with(&format!("src/{folder}/")));
            if !is_allowed && !lines.is_empty() {
                breaches.push(format!("{} names {name} in lines {lines:?}", source.path));
            }
        }
        for name in NOT_IN_HUB {
            let lines = lines_with(&code, name);
            if module == "hub" && !lines.is_empty() {
                breaches.push(format!("{} has {name} in lines {lines:?}", source.path));
            }
        }
    }
    breaches
}

/// `unwrap` outside of tests, and `unsafe` anywhere.
fn check_care(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let tests = test_files(sources);
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let code = code_of(&source.text);
        let unsafe_lines = lines_with(&code, concat!("un", "safe"));
        if !unsafe_lines.is_empty() {
            breaches.push(format!("{} is unsafe in lines {unsafe_lines:?}", source.path));
        }
        let is_test = tests.contains(&source.path);
        let unwraps = lines_with(&without_tests(&code), ".unwrap()");
        if source.module().is_some() && !is_test && !unwraps.is_empty() {
            breaches.push(format!("{} unwraps in lines {unwraps:?}", source.path));
        }
    }
    breaches
}

/// Files that are too long.
fn check_length(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let tests = test_files(sources);
    for source in sources.iter().filter(|source| !source.path.ends_with("Cargo.lock")) {
        if source.text.lines().count() > LINES_MAX {
            breaches.push(format!("{} has over {LINES_MAX} lines", source.path));
        }
        if source.module().is_some() && source.path.ends_with(".rs") && !tests.contains(&source.path) {
            let code = without_tests(&code_of(&source.text));
            let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
            if lines > PRODUCTION_LINES_MAX {
                breaches.push(format!("{} has {lines} lines of production code", source.path));
            }
        }
    }
    breaches
}

/// Whether a literal of a struct gives every field, so that it does not begin with another value of it.
fn is_whole_literal(code: &str, at: usize) -> bool {
    let is_type = ["->", "struct", "let", "impl"].iter().any(|word| code[..at].trim_end().ends_with(word));
    let literal = code[at..].split_inclusive('}').next().unwrap_or_default();
    !is_type && !literal.contains("..")
}

/// Violations of the invariants of permissions and refusals.
fn check_invariants(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let tests = test_files(sources);
    for source in sources.iter().filter(|source| source.module().is_some() && !tests.contains(&source.path)) {
        let code = without_tests(&code_of(&source.text));
        let mut breach = |what: &str| breaches.push(format!("{} {what}", source.path));
        // One function decides permission, and one makes its context.
        if code.lines().any(|line| line.starts_with("pub fn may(")) && source.path != "src/auth/permission.rs" {
            breach("has a second function that decides permission");
        }
        let makes_context = code.match_indices("PermissionContext {").any(|(at, _)| is_whole_literal(&code, at));
        if makes_context && source.path != "src/store/policy.rs" {
            breach("makes a permission context");
        }
        // Every refusal is a `Reason`, which has its status.
        if ["Reply::new(4", "Reply::new(5", "Reply::empty(4", "Reply::empty(5"].iter().any(|made| code.contains(made)) {
            breach("refuses a request without a reason");
        }
        // Every change is applied by the ledger, in the transaction of the store.
        if source.module() != Some("store") && ["store::ledger", "store::engine"].iter().any(|name| code.contains(name))
        {
            breach("goes past the log to the ledger");
        }
    }
    breaches
}

/// The layers as the crate documentation shows them.
fn layers_shown(lib: &str) -> Vec<(u8, Vec<String>)> {
    let cell = |row: &str| -> Option<(u8, Vec<String>)> {
        let mut cells = row.strip_prefix("//! | ")?.trim_end_matches('|').split('|').map(str::trim);
        let layer = cells.next()?.parse().ok()?;
        Some((layer, cells.next()?.split_whitespace().map(|name| name.trim_matches('`').to_owned()).collect()))
    };
    lib.lines().filter_map(cell).collect()
}

/// Files that name a registry, and lock files with another registry than the ecosystem's own.
fn check_registries(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    let cargos_own = format!("registry+https://github.com/rust-lang/{}-index", concat!("crates", ".io"));
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            let named = REGISTRIES.iter().any(|registry| line.contains(registry));
            let other = line.starts_with("source = ") && !line.contains(&cargos_own);
            if named || (source.path.ends_with("Cargo.lock") && other) {
                breaches.push(format!("{} names a registry in line {}", source.path, number + 1));
            }
        }
    }
    breaches
}

fn check_top_level<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let first = |path: &'a str| path.split('/').next().unwrap_or_default();
    let names: BTreeSet<&str> = paths.into_iter().map(first).collect();
    let stray = |name: &&str| !name.starts_with('.') && !TOP_LEVEL.contains(name);
    names.into_iter().filter(stray).map(|name| format!("{name} stands at the top")).collect()
}

/// The paths of the checkout: those that git tracks or would add, or all files without git.
fn paths() -> Vec<String> {
    let git = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "core.quotePath=false", "-C"])
        .arg(repository())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    if let Ok(output) = git
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let there = |path: &&str| repository().join(path).is_file();
        return listed.split('\0').filter(there).map(str::to_string).collect();
    }
    let mut found = Vec::new();
    let mut folders = vec![repository().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map_while(Result::ok) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != ".git" && name != "node_modules" {
                folders.push(path);
            } else if path.is_file() {
                let inside = path.strip_prefix(repository()).map(Path::to_string_lossy);
                found.extend(inside.map(std::borrow::Cow::into_owned));
            }
        }
    }
    found
}

/// All text files of the checkout.
fn sources() -> Vec<Source> {
    let read = |path: String| {
        let text = fs::read_to_string(repository().join(&path)).ok()?;
        Some(Source { path, text })
    };
    let sources: Vec<Source> = paths().into_iter().filter_map(read).collect();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "this looks at the right folder");
    sources
}

#[track_caller]
fn assert_kept(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn the_layers_are_kept() {
    assert_kept(check_layers(&sources()));
}

#[test]
fn the_crate_documentation_shows_the_layers() {
    let lib = fs::read_to_string(repository().join("src/lib.rs")).expect("the crate's root");
    let owned = |(layer, names): &(u8, &[&str])| (*layer, names.iter().map(|name| (*name).to_owned()).collect());
    let layers: Vec<(u8, Vec<String>)> = LAYERS.iter().map(owned).collect();
    assert_eq!(layers_shown(&lib), layers);
}

#[test]
fn the_invariants_are_kept() {
    assert_kept(check_invariants(&sources()));
}

#[test]
fn names_are_used_only_where_allowed() {
    assert_kept(check_names(&sources()));
}

#[test]
fn no_code_unwraps_or_is_unsafe() {
    assert_kept(check_care(&sources()));
}

#[test]
fn no_file_is_too_long() {
    assert_kept(check_length(&sources()));
}

#[test]
fn no_registry_is_named() {
    assert_kept(check_registries(&sources()));
}

#[test]
fn the_top_level_has_only_allowed_files() {
    assert_kept(check_top_level(paths().iter().map(String::as_str)));
}

mod planted {
    //! The violations that the checkers must find, and similar code that is allowed.

    use super::*;

    /// Checks whether a checker reports one file.
    #[track_caller]
    fn caught(check: fn(&[Source]) -> Vec<String>, path: &str, text: &str, expected: bool) {
        let breaches = check(&[Source::new(path, text)]);
        assert_eq!(!breaches.is_empty(), expected, "{path}: {text:?}: {breaches:?}");
    }

    #[test]
    fn imports_from_a_higher_layer_are_found() {
        for (path, text, breach) in [
            ("src/hub/mod.rs", "use crate::session::Session;", true),
            ("src/hub/mod.rs", "use crate::{model::Seq, http};", true),
            ("src/hub/mod.rs", "use crate::{\n    model::{Seq, RoomId},\n    listener,\n};", true),
            ("src/hub/state.rs", "use super::super::session;", true),
            ("src/hub/state.rs", "fn f() { crate::front::relay::go() }", true),
            ("src/model.rs", "use super::hub;", true),
            ("src/model.rs", "use crate::start;", true),
            ("src/protocol/mod.rs", "fn f(x: crate::store::Store) {}", true),
            ("src/wire/mod.rs", "use crate::hub::Hub;", true),
            ("src/wire/websocket.rs", "use super::super::session::Decoder;", true),
            ("src/surprise.rs", "", true),
            ("src/hub/mod.rs", "use crate::store::Store; use crate::protocol::{self, Frame};", false),
            ("src/hub/mod.rs", "use crate::{model::{Seq, RoomId}, limits};", false),
            ("src/hub/mod.rs", "use crate::wire::Encoding;", false),
            ("src/hub/state.rs", "use super::room::Room; use crate::hub::outbox;", false),
            ("src/model.rs", "//! See [`start`](crate::start).\nuse crate::limits;", false),
            ("src/model.rs", "const S: &str = \"crate::hub\"; /* crate::hub */", false),
            ("src/model.rs", "#[cfg(test)]\nmod tests {\n use super::*;\n}", false),
            ("src/main.rs", "use adda::cli;", false),
            ("src/lib.rs", "pub mod hub; use crate::hub::Hub;", false),
        ] {
            caught(check_layers, path, text, breach);
        }
    }

    #[test]
    fn cycles_within_a_layer_are_found() {
        let circle = [
            Source::new("src/model.rs", "use crate::rate::Bucket;"),
            Source::new("src/rate.rs", "use crate::limits;"),
            Source::new("src/limits.rs", "use crate::model;"),
        ];
        assert!(!check_layers(&circle).is_empty());
        assert!(check_layers(&circle[..2]).is_empty());
    }

    #[test]
    fn names_outside_their_files_are_found() {
        for (path, text, breach) in [
            ("src/session/mod.rs", "use tiny_http::Server;", true),
            ("src/hub/mod.rs", "fn f(m: tungstenite::Message) {}", true),
            ("src/hub/outbox.rs", "use std::fs;", true),
            ("src/hub/outbox.rs", "use std::fs::read;", true),
            ("src/hub/mod.rs", "let x: X = serde_json::from_str(text)?;", true),
            ("src/hub/mod.rs", "use crate::session::stream::Stream;", true),
            ("src/hub/mod.rs", "use crate::wire::{Encoding, websocket};", true),
            ("src/hub/outbox.rs", "fn f() { crate::wire::websocket::close_frame(reason) }", true),
            ("src/hub/outbox.rs", "use crate::wire::{CloseReason, Encoding}; // as a WebSocket says it", false),
            ("src/hub/batch.rs", "let views = rows.windows(2);", false),
            ("src/session/mod.rs", "use crate::wire::websocket; use crate::session::stream;", false),
            ("src/hub/mod.rs", "use rusqlite::Connection;", true),
            ("src/store/sqlite/mod.rs", "use rusqlite::Connection;", false),
            ("src/front/relay.rs", "use tiny_http::Server;", false),
            ("src/http/mod.rs", "use tiny_http::Server;", false),
            ("src/session/stream.rs", "use tungstenite::Message;", false),
            ("src/store/mod.rs", "use rusqlite::Connection;", true),
            ("src/lib.rs", "//! `tiny_http` serves, `tungstenite` reads.", false),
            ("src/store/mod.rs", "use std::fs;", false),
            ("src/hub/state.rs", "struct Profile; // File", false),
            ("src/hub/state.rs", "#[cfg(test)]\nmod tests { use std::fs; }", false),
        ] {
            caught(check_names, path, text, breach);
        }
    }

    #[test]
    fn broken_invariants_are_found() {
        let context = "let c = PermissionContext { role, room };";
        for (path, text, breach) in [
            ("src/session/mod.rs", "pub fn may(role: Role) -> bool { true }", true),
            ("src/auth/permission.rs", "pub fn may(role: Role) -> bool { true }", false),
            ("src/http/extract.rs", "impl Actor { pub fn may(&self) {} }", false),
            ("src/hub/mod.rs", context, true),
            ("src/store/policy.rs", context, false),
            ("src/hub/mod.rs", "let c = PermissionContext { code, ..context };", false),
            ("src/hub/mod.rs", "fn f() -> PermissionContext { g() }", false),
            ("src/http/handlers/rooms.rs", "Ok(Reply::new(404, text, body))", true),
            ("src/http/handlers/rooms.rs", "Ok(Reply::empty(500))", true),
            ("src/http/handlers/rooms.rs", "Ok(Reply::empty(204))", false),
            ("src/http/handlers/rooms.rs", "use crate::store::ledger::Ledger;", true),
            ("src/store/mod.rs", "use crate::store::ledger::Ledger;", false),
        ] {
            caught(check_invariants, path, text, breach);
        }
    }

    #[test]
    fn unwrap_and_unsafe_are_found() {
        for (path, text, breach) in [
            ("src/hub/mod.rs", "let x = y.unwrap();", true),
            ("src/hub/mod.rs", "#[cfg(test)]\nmod tests { fn f() { y.unwrap(); } }\nfn g() { y.unwrap(); }", true),
            ("src/hub/mod.rs", "#[cfg(test)]\nuse x::y;\nfn g() { y.unwrap(); }", true),
            ("tests/it/x.rs", "unsafe { f() }", true),
            ("src/hub/mod.rs", "let x = y.unwrap_or_default(); // .unwrap()", false),
            ("src/hub/mod.rs", "let x = \"\\\".unwrap()\"; let y = '\"'; let z = r#\"\".unwrap()\"#;", false),
            ("src/hub/mod.rs", "#[cfg(test)]\nmod tests { fn f() { y.unwrap(); } }", false),
            ("tests/it/x.rs", "y.unwrap(); // unsafe", false),
            ("src/lib.rs", "#![forbid(unsafe_code)]", false),
        ] {
            caught(check_care, path, text, breach);
        }
    }

    #[test]
    fn a_test_file_is_recognised_by_its_declaration() {
        let model = || Source::new("src/hub/model.rs", "fn f() { y.unwrap(); }");
        let declared = Source::new("src/hub/mod.rs", "#[cfg(test)]\nmod model;");
        let shipped = Source::new("src/hub/mod.rs", "mod model; #[cfg(test)] mod other;");
        assert!(check_care(&[declared, model()]).is_empty());
        assert!(!check_care(&[shipped, model()]).is_empty());
    }

    #[test]
    fn a_quote_in_a_comment_does_not_hide_later_code() {
        for text in [
            "let a = '\"'; x.unwrap();",
            "let a = '\\''; x.unwrap();",
            "let a = b'\\\\'; x.unwrap();",
            "fn f<'a>(x: &'a str) { x.unwrap() }",
            "let a = \"\\\\\"; x.unwrap();",
            "let a = r\"\\\"; x.unwrap();",
            "let a = r##\"\"#\"##; x.unwrap();",
            "/* /* */ \" */ x.unwrap();",
            "// \"\nx.unwrap();",
        ] {
            caught(check_care, "src/lib.rs", text, true);
        }
    }

    #[test]
    fn long_files_registries_and_stray_files_are_found() {
        caught(check_length, "src/hub/mod.rs", &"\n".repeat(1_001), true);
        caught(check_length, "src/hub/mod.rs", &"\n".repeat(1_000), false);
        let own = format!("source = \"registry+https://github.com/rust-lang/{}.io-index\"", "crates");
        caught(check_registries, "Cargo.lock", &own, false);
        caught(check_registries, "Cargo.lock", "source = \"registry+https://mirror.example/index\"", true);
        for registry in REGISTRIES {
            caught(check_registries, "tests/run", &format!("# see https://{registry}/x"), true);
        }
        assert_eq!(check_top_level(["notes.txt", "src/lib.rs", ".ci/run", "tests/run"]).len(), 1);
        assert_eq!(check_top_level(["docs/a.md"]).len(), 1);
        assert!(check_top_level(["Cargo.toml", "README.md", "static/css/base.css", ".gitignore"]).is_empty());
    }
}
