//! Tests of the page's bundle: what the build script joins, and what it refuses.

#[path = "../../src/build/bundle.rs"]
mod source;

use std::fs;
use std::io;

use source::Bundle;

const INDEX: &str = "<link rel=\"stylesheet\" href=\"css/a.css\">\n<link rel=\"stylesheet\" href=\"css/b.css\">\n\
    <link rel=\"modulepreload\" href=\"js/one.js\">\n<script type=\"module\" src=\"js/main.js\"></script>\n<p>text\n";
const MAIN: &str = "import { one } from \"./one.js\";\n\none();\n";
const ONE: &str = "export function one() {}\n";
const STYLE: &str = "a { b: url(\"../c.svg\"); }\n";

/// The bundle of a page with some files besides or instead of the usual ones.
fn bundle(files: &[(&str, &str)]) -> io::Result<Bundle> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let usual =
        [("index.html", INDEX), ("js/main.js", MAIN), ("js/one.js", ONE), ("css/a.css", STYLE), ("css/b.css", STYLE)];
    for (path, text) in usual.iter().chain(files) {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    Bundle::of(dir.path())
}

#[test]
fn modules_and_style_sheets_are_joined_in_their_order() {
    let main = "// The page.\nimport {\n  one as first,\n  two,\n} from \"./one.js\";\nimport { Three } from \"./sub/three.js\";\n\n  first(two, Three);\n";
    let one = "export async function one() {}\n\nexport const two = 2;\n";
    let three = "import { one } from \"../one.js\";\n\nexport class Three {\n  // A comment.\n  run = one;\n}\n";
    let style = "/* A comment\n   of two lines. */\na { b: url(\"../c.svg\"); } /* another */\n";
    let files = [("js/main.js", main), ("js/one.js", one), ("js/sub/three.js", three), ("css/a.css", style)];
    let found = bundle(&files).expect("a bundle");
    assert_eq!(
        found.script.text,
        "const $one = (() => {\nasync function one() {}\nconst two = 2;\nreturn { one, two };\n})();\n\
         const $sub_three = (() => {\nconst { one } = $one;\nclass Three {\nrun = one;\n}\nreturn { Three };\n})();\n\
         const { one: first, two } = $one;\nconst { Three } = $sub_three;\nfirst(two, Three);\n"
    );
    assert_eq!(found.style.text, "a { b: url(\"../../c.svg\"); }\n".repeat(2));
    assert_eq!(
        found.index.text,
        format!(
            "<link rel=\"stylesheet\" href=\"{}\">\n<script type=\"module\" src=\"{}\"></script>\n<p>text\n",
            found.style.path, found.script.path
        )
    );
    let again = bundle(&files).expect("a bundle");
    assert_eq!(again.script.path, found.script.path, "the same files have the same address");
    let other = bundle(&[]).expect("a bundle");
    assert_ne!(other.script.path, found.script.path, "other files have another");
    assert!(!other.contains("static/index.html".as_ref()));
}

#[test]
fn what_the_bundle_does_not_know_is_refused() {
    let import = |statement: &str| format!("{statement}\none();\n");
    for (path, text) in [
        ("js/main.js", import("import * as all from \"./one.js\";")),
        ("js/main.js", import("import one from \"./one.js\";")),
        ("js/main.js", import("import \"./one.js\";")),
        ("js/main.js", import("import{ one } from \"./one.js\";")),
        ("js/main.js", import("  import { one } from \"./one.js\";")),
        ("js/main.js", import("import { two } from \"./one.js\";")),
        ("js/main.js", import("import { one } from \"./none.js\";")),
        ("js/main.js", import("await import(\"./one.js\");")),
        ("js/main.js", import("const here = import.meta.url;")),
        ("js/main.js", import("const $one = 1;")),
        ("js/main.js", import("const text = `one\n  two`;")),
        ("js/one.js", "export default 1;\n".to_owned()),
        ("js/one.js", "function one() {}\nexport { one };\n".to_owned()),
        ("js/one.js", "export function one$() {}\n".to_owned()),
        ("js/one.js", "export const one = 1, two = 2;\nexport { two };\n".to_owned()),
        ("js/one.js", "import { main } from \"./main.js\";\nexport function one() {}\n".to_owned()),
        ("css/b.css", "@import \"a.css\";\n".to_owned()),
        ("css/b.css", "a { b: url('../c.svg'); }\n".to_owned()),
        ("css/b.css", "a { b: url(c.svg); }\n".to_owned()),
        ("index.html", INDEX.replace("<script", "  <script")),
        ("index.html", INDEX.replace("js/main.js", "js/other.js")),
        ("index.html", format!("{INDEX}<script type=\"module\" src=\"js/one.js\"></script>\n")),
        ("index.html", format!("{INDEX}<link rel=\"stylesheet\" media=\"print\" href=\"css/a.css\">\n")),
    ] {
        let Err(error) = bundle(&[(path, &text)]) else { panic!("{path} is taken:\n{text}") };
        assert!(error.to_string().contains(".js") || error.to_string().contains(path), "{error}");
    }
    let twins = [("js/main.js", "import { one } from \"./a-b.js\";\nimport { two } from \"./a_b.js\";\n")];
    let twins = [twins[0], ("js/a-b.js", "export const one = 1;\n"), ("js/a_b.js", "export const two = 2;\n")];
    assert!(bundle(&twins).is_err());
}
