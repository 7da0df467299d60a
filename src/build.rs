//! The build script: makes the folder of files that the binary embeds and the server serves. It has `static/`, the
//! reference as HTML pages, and the page's modules and style sheets joined to one file each. In a debug build the page
//! uses its modules as they are; in a release build they are left out.

#[path = "build/bundle.rs"]
mod bundle;
#[path = "build/reference.rs"]
mod reference;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use bundle::{Bundle, Generated};

const SOURCE: &str = "static";
/// In Cargo's `OUT_DIR`: the folder of files, and the Rust code that embeds it. The code names the folder, because its path
/// is known only to the build script.
const TARGET: &str = "site";
const CODE: &str = "embedded.rs";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-changed=src/build");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let source = Path::new(SOURCE);
    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let target = output.join(TARGET);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let bundle = Bundle::of(source)?;
    copy(source, &target, &|path| !is_release || !bundle.contains(path))?;
    write(&target, &bundle.style)?;
    write(&target, &bundle.script)?;
    if is_release {
        write(&target, &bundle.index)?;
    }
    reference::pages(&source.join("docs"))?.iter().try_for_each(|page| write(&target, page))?;
    fs::write(
        output.join(CODE),
        format!("#[derive(rust_embed::RustEmbed)]\n#[folder = {target:?}]\nstruct Embedded;\n"),
    )
}

fn write(target: &Path, file: &Generated) -> io::Result<()> {
    let path = target.join(&file.path);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, &file.text)
}

fn copy(source: &Path, target: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), target.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to, is_wanted)?;
        } else if is_wanted(&from) {
            fs::write(to, fs::read(from)?)?;
        }
    }
    Ok(())
}
