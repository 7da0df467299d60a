//! Joins the modules of the page to one script, and its style sheets to one, so that a first visit takes few requests.
//!
//! Each module becomes a function that is called once and returns what the module exports. So modules do not share
//! names, as before. It takes the forms of `import` and `export` that the page uses; any other form is an error of the
//! build. Lines of comment and indentation are left out.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::Generated;

const INDEX: &str = "index.html";
const MODULES: &str = "js";
/// The module that imports the others. Nothing imports it, and it may wait for promises, so it is no function.
const ENTRY: &str = "main.js";
const STYLE_LINK: (&str, &str) = ("<link rel=\"stylesheet\" href=\"", "\">");
const PRELOAD_LINK: (&str, &str) = ("<link rel=\"modulepreload\" href=\"", "\">");
const SCRIPT: (&str, &str) = ("<script type=\"module\" src=\"", "\"></script>");

pub struct Bundle {
    /// The address of the style sheet and that of the script change with their content, so a client can keep them.
    pub style: Generated,
    pub script: Generated,
    /// `index.html` with references to these two.
    pub index: Generated,
    /// The files that the bundle has.
    joined: Vec<PathBuf>,
}

impl Bundle {
    pub fn of(source: &Path) -> io::Result<Self> {
        let index = fs::read_to_string(source.join(INDEX))?;
        let style_paths: Vec<PathBuf> =
            index.lines().filter_map(|line| within(line, STYLE_LINK)).map(|path| source.join(path)).collect();
        let style: String =
            style_paths.iter().map(|path| Ok(style(&fs::read_to_string(path)?))).collect::<io::Result<_>>()?;
        let modules = source.join(MODULES);
        let mut script = Script::default();
        script.add(&modules, ENTRY)?;

        let mut hasher = DefaultHasher::new();
        (&style, &script.text).hash(&mut hasher);
        let folder = format!("v/{:016x}", hasher.finish());
        let style = Generated { path: format!("{folder}/page.css"), text: style };
        let joined = script.added.iter().map(|path| modules.join(path)).chain(style_paths).collect();
        let script = Generated { path: format!("{folder}/page.js"), text: script.text };

        let mut style_link = Some(format!("{}{}{}\n", STYLE_LINK.0, style.path, STYLE_LINK.1));
        let mut text = String::new();
        for line in index.lines() {
            if within(line, STYLE_LINK).is_some() {
                text.extend(style_link.take());
            } else if within(line, SCRIPT).is_some() {
                text += &format!("{}{}{}\n", SCRIPT.0, script.path, SCRIPT.1);
            } else if within(line, PRELOAD_LINK).is_none() {
                text += &format!("{line}\n");
            }
        }
        Ok(Self { style, script, index: Generated { path: INDEX.to_owned(), text }, joined })
    }

    /// Whether a file is needed no more, because the bundle has it.
    pub fn replaces(&self, path: &Path) -> bool {
        self.joined.iter().any(|joined| joined == path)
    }
}

/// What a line has between two texts.
fn within<'a>(line: &'a str, (before, after): (&str, &str)) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_suffix(after)
}

/// A style sheet whose URLs are right in the folder of the bundle, which is one deeper.
fn style(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .fold(String::new(), |text, line| text + &line.replace("url(\"../", "url(\"../../") + "\n")
}

#[derive(Default)]
struct Script {
    text: String,
    /// The paths of the modules in it, below the folder of the modules.
    added: Vec<String>,
}

impl Script {
    /// Adds a module behind those that it imports.
    fn add(&mut self, folder: &Path, path: &str) -> io::Result<()> {
        let unknown = |line: &str| Err(io::Error::other(format!("{path}: the bundle does not take `{line}`")));
        let text =
            fs::read_to_string(folder.join(path)).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        let (mut imports, mut code, mut exports) = (String::new(), String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("import ") {
                let mut import = line.to_owned();
                while !import.ends_with(';') {
                    import += lines.next().unwrap_or(";").trim();
                }
                let Some((names, from)) =
                    within(&import, ("import {", "\";")).and_then(|it| it.split_once("} from \""))
                else {
                    return unknown(&import);
                };
                let imported = resolve(path, from);
                if !self.added.contains(&imported) {
                    self.add(folder, &imported)?;
                }
                let names = names.replace(" as ", ": ");
                writeln!(imports, "const {{{names}}} = {};", variable(&imported)).map_err(io::Error::other)?;
                continue;
            }
            let declaration = line.strip_prefix("export ").unwrap_or(line);
            if declaration.len() < line.len() {
                let Some(name) = exported(declaration) else { return unknown(line) };
                exports.push(name);
            }
            let shown = declaration.trim();
            if shown.matches('`').count() % 2 == 1 {
                // Its indentation would be part of a string.
                return unknown(line);
            }
            if !shown.is_empty() && !shown.starts_with("//") {
                code += shown;
                code.push('\n');
            }
        }
        self.text += &if path == ENTRY {
            imports + &code
        } else {
            format!(
                "const {} = (() => {{\n{imports}{code}return {{ {} }};\n}})();\n",
                variable(path),
                exports.join(", ")
            )
        };
        self.added.push(path.to_owned());
        Ok(())
    }
}

/// The name that a declaration makes: of a function, a class or a constant.
fn exported(declaration: &str) -> Option<&str> {
    let declaration = declaration.strip_prefix("async ").unwrap_or(declaration);
    let name = ["function ", "class ", "const "].iter().find_map(|keyword| declaration.strip_prefix(keyword))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

/// The path of a module that another one imports, both below the folder of the modules.
fn resolve(importer: &str, target: &str) -> String {
    let mut parts: Vec<&str> = importer.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The variable that has what a module exports. No module declares a name that begins with `$`.
fn variable(path: &str) -> String {
    let name: String =
        path.trim_end_matches(".js").chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    format!("${name}")
}
