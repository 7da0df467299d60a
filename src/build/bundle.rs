//! Joins the modules of the page to one script, and its style sheets to one, so that a first visit takes few requests.
//!
//! Each module becomes a function that is called once and returns what the module exports. So modules do not share
//! names, as before. The bundle knows the few forms of `import` and `export` that the page uses; any other is an error
//! of the build. Lines of comment and indentation are left out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

const INDEX: &str = "index.html";
const MODULES: &str = "js";
/// The module that imports the others. Nothing imports it, and it may wait for promises, so it is no function.
const ENTRY: &str = "main.js";
const STYLE_LINK: (&str, &str) = ("<link rel=\"stylesheet\" href=\"", "\">");
const PRELOAD_LINK: (&str, &str) = ("<link rel=\"modulepreload\" href=\"", "\">");
const SCRIPT: (&str, &str) = ("<script type=\"module\" src=\"", "\"></script>");

/// A file that the build makes: its path below the root of the server, and its text.
pub struct Generated {
    pub path: String,
    pub text: String,
}

pub struct Bundle {
    /// The address of the style sheet and that of the script change with their content, so a client can keep them.
    pub style: Generated,
    pub script: Generated,
    /// `index.html` with references to these two.
    pub index: Generated,
    /// The files that are in the bundle.
    joined: BTreeSet<PathBuf>,
}

impl Bundle {
    pub fn of(source: &Path) -> io::Result<Self> {
        let index = fs::read_to_string(source.join(INDEX))?;
        let scripts: Vec<&str> = index.lines().filter_map(|line| within(line, SCRIPT)).collect();
        if scripts != [format!("{MODULES}/{ENTRY}")] {
            return Err(refused(INDEX, "other scripts than the entry"));
        }
        let style_paths: Vec<&str> = index.lines().filter_map(|line| within(line, STYLE_LINK)).collect();
        let style: String = style_paths
            .iter()
            .map(|path| style(path, &fs::read_to_string(source.join(path))?))
            .collect::<io::Result<_>>()?;
        let mut script = Script::default();
        script.add(&source.join(MODULES), ENTRY)?;

        let mut hasher = DefaultHasher::new();
        (&style, &script.text).hash(&mut hasher);
        let folder = format!("v/{:016x}", hasher.finish());
        let style = Generated { path: format!("{folder}/page.css"), text: style };
        let modules = script.exports.keys().map(|path| source.join(MODULES).join(path));
        let joined = modules.chain(style_paths.iter().map(|path| source.join(path))).collect();
        let script = Generated { path: format!("{folder}/page.js"), text: script.text };

        let mut style_link = Some(format!("{}{}{}\n", STYLE_LINK.0, style.path, STYLE_LINK.1));
        let mut text = String::new();
        for line in index.lines() {
            if within(line, STYLE_LINK).is_some() {
                text.extend(style_link.take());
            } else if within(line, SCRIPT).is_some() {
                text += &format!("{}{}{}\n", SCRIPT.0, script.path, SCRIPT.1);
            } else if within(line, PRELOAD_LINK).is_some() {
                // The script has all modules.
            } else if line.contains("\"css/") || line.contains("\"js/") {
                return Err(refused(INDEX, line));
            } else {
                text += &format!("{line}\n");
            }
        }
        Ok(Self { style, script, index: Generated { path: INDEX.to_owned(), text }, joined })
    }

    /// Whether the bundle contains a file.
    pub fn contains(&self, path: &Path) -> bool {
        self.joined.contains(path)
    }
}

fn refused(path: &str, what: &str) -> io::Error {
    io::Error::other(format!("{path}: the bundle does not take `{what}`"))
}

/// The part of a line between a prefix and a suffix.
fn within<'a>(line: &'a str, (prefix, suffix): (&str, &str)) -> Option<&'a str> {
    line.strip_prefix(prefix)?.strip_suffix(suffix)
}

/// A style sheet without comments, and with URLs for the folder of the bundle, which is one deeper.
fn style(path: &str, text: &str) -> io::Result<String> {
    const URL: &str = "url(";
    const URL_HERE: &str = "url(\"../";
    let mut code = String::new();
    for (number, part) in text.split("/*").enumerate() {
        let part = if number == 0 { part } else { part.split_once("*/").map_or("", |(_, behind)| behind) };
        code += part;
    }
    if code.contains("@import") || code.matches(URL).count() != code.matches(URL_HERE).count() {
        return Err(refused(path, "an import or a URL of another form"));
    }
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.fold(String::new(), |text, line| text + &line.replace(URL_HERE, "url(\"../../") + "\n"))
}

#[derive(Default)]
struct Script {
    text: String,
    /// The modules in it by their paths below the folder of the modules, with the names that they export.
    exports: BTreeMap<String, BTreeSet<String>>,
    /// The modules that are being added, each of which imports the next.
    adding: Vec<String>,
}

impl Script {
    /// Adds a module behind those that it imports.
    fn add(&mut self, folder: &Path, path: &str) -> io::Result<()> {
        if self.adding.iter().any(|importer| importer == path) {
            return Err(refused(path, &format!("a circle of imports: {}", self.adding.join(", "))));
        }
        let variable = variable(path);
        if self.exports.keys().any(|other| self::variable(other) == variable) {
            return Err(refused(path, "two modules with one variable"));
        }
        self.adding.push(path.to_owned());
        let text =
            fs::read_to_string(folder.join(path)).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        let (mut imports, mut code, mut exports) = (String::new(), String::new(), BTreeSet::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("import ") {
                let mut import = line.to_owned();
                while !import.ends_with(';') {
                    import += lines.next().unwrap_or(";").trim();
                }
                imports += &self.import(folder, path, &import)?;
                continue;
            }
            let declaration = line.strip_prefix("export ").unwrap_or(line);
            if declaration.len() < line.len() {
                exports.insert(exported(declaration).ok_or_else(|| refused(path, line))?.to_owned());
            }
            let statement = declaration.trim();
            if statement.is_empty() || statement.starts_with("//") {
                continue;
            }
            let is_unknown = ["import", "export"].iter().any(|word| {
                statement.strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '{', '(', '.', '*', '"']))
            });
            let declares_variable = ["const $", "let $", "var $", "function $", "class $"];
            // The indentation of a string over several lines would be part of it.
            if is_unknown
                || statement.contains("import(")
                || statement.contains("import.meta")
                || declares_variable.iter().any(|start| statement.contains(start))
                || statement.matches('`').count() % 2 == 1
            {
                return Err(refused(path, line));
            }
            code += statement;
            code.push('\n');
        }
        let names: Vec<&str> = exports.iter().map(String::as_str).collect();
        self.text += &if path == ENTRY {
            imports + &code
        } else {
            format!("const {variable} = (() => {{\n{imports}{code}return {{ {} }};\n}})();\n", names.join(", "))
        };
        self.exports.insert(path.to_owned(), exports);
        self.adding.pop();
        Ok(())
    }

    /// Adds the module that a statement imports, if it is not there, and returns the statement that takes its place.
    fn import(&mut self, folder: &Path, importer: &str, statement: &str) -> io::Result<String> {
        let parts = within(statement, ("import {", "\";")).and_then(|parts| parts.split_once("} from \""));
        let Some((names, target)) = parts else { return Err(refused(importer, statement)) };
        let path = resolve(importer, target);
        if !self.exports.contains_key(&path) {
            self.add(folder, &path)?;
        }
        let exports = &self.exports[&path];
        let mut taken = Vec::new();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let (exported, local) = name.split_once(" as ").unwrap_or((name, name));
            if !exports.contains(exported) {
                return Err(refused(importer, &format!("{name} of {path}, which does not export it")));
            }
            taken.push(if exported == local { exported.to_owned() } else { format!("{exported}: {local}") });
        }
        let mut code = String::new();
        writeln!(code, "const {{ {} }} = {};", taken.join(", "), variable(&path)).map_err(io::Error::other)?;
        Ok(code)
    }
}

/// The name that a declaration makes: of a function, a class or a constant.
fn exported(declaration: &str) -> Option<&str> {
    let (rest, ends) = if let Some(rest) = declaration.strip_prefix("const ") {
        (rest, " = ")
    } else if let Some(rest) = declaration.strip_prefix("class ") {
        (rest, " ")
    } else {
        (declaration.strip_prefix("async ").unwrap_or(declaration).strip_prefix("function ")?, "(")
    };
    let (name, _) = rest.split_once(ends)?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some(name)
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

/// The variable that has what a module exports.
fn variable(path: &str) -> String {
    let name: String =
        path.trim_end_matches(".js").chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
    format!("${name}")
}
