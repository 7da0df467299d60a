//! Turns the reference (`static/docs/*.md`) into HTML pages.
//!
//! A page is Markdown as GitHub shows it. Links to other pages, `limits.md#rooms`, become links of the server,
//! `limits#rooms`. The ids of headings follow GitHub's rule, so that one link works in both places.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::bundle::Generated;

/// The order of the pages in the navigation. A page that is missing here is an error.
const PAGES: [&str; 10] = [
    "index",
    "quick-start",
    "configuration",
    "operating",
    "websocket",
    "http",
    "errors",
    "permissions",
    "limits",
    "architecture",
];

pub fn pages(source: &Path) -> io::Result<Vec<Generated>> {
    let sources: Vec<(&str, String)> = PAGES
        .into_iter()
        .map(|name| Ok((name, fs::read_to_string(source.join(name).with_extension("md"))?)))
        .collect::<io::Result<_>>()?;
    for file in fs::read_dir(source)? {
        let path = file?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "md") && !PAGES.contains(&name) {
            return Err(io::Error::other(format!("{} is not in the list of pages", path.display())));
        }
    }
    let titles: Vec<(&str, &str)> = sources.iter().map(|(name, text)| (*name, title(text))).collect();
    let page = |(name, text): &(&str, String)| Generated {
        path: format!("docs/{name}.html"),
        text: page(name, text, &titles),
    };
    Ok(sources.iter().map(page).collect())
}

/// The title of a page: its first heading.
fn title(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default()
}

fn page(name: &str, text: &str, titles: &[(&str, &str)]) -> String {
    let links: String = titles
        .iter()
        .map(|(other, title)| {
            let current = if *other == name { " aria-current=\"page\"" } else { "" };
            format!("<li><a href=\"{}\"{current}>{}</a></li>\n", address(other), escaped(title))
        })
        .collect();
    let title = escaped(title(text));
    let body = body(text);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} · adda</title>\n\
         <link rel=\"icon\" href=\"../favicon.svg\">\n<link rel=\"stylesheet\" href=\"docs.css\">\n</head>\n<body>\n\
         <nav aria-label=\"Pages\">\n<p><a href=\"../\">adda</a></p>\n<ul>\n{links}</ul>\n</nav>\n\
         <main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// The address of a page, relative to the others.
fn address(name: &str) -> &str {
    if name == "index" { "./" } else { name }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn body(text: &str) -> String {
    let mut events: Vec<Event<'_>> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    let mut seen = HashMap::new();
    let mut at = 0;
    while at < events.len() {
        match &mut events[at] {
            Event::Start(Tag::Heading { level, id, .. }) if *level != HeadingLevel::H1 => {
                *id = None;
                let slug = slug(&events[at + 1..], &mut seen);
                if let Event::Start(Tag::Heading { id, .. }) = &mut events[at] {
                    *id = Some(CowStr::from(slug));
                }
            }
            Event::Start(Tag::Link { dest_url, .. }) => {
                if let Some(link) = page_link(dest_url) {
                    *dest_url = CowStr::from(link);
                }
            }
            // A wide table scrolls by itself.
            Event::Start(Tag::Table(_)) => {
                events.insert(at, Event::Html("<div class=\"table\" tabindex=\"0\">".into()));
                at += 1;
            }
            Event::End(TagEnd::Table) => {
                events.insert(at + 1, Event::Html("</div>\n".into()));
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    let mut body = String::with_capacity(text.len() * 2);
    html::push_html(&mut body, events.into_iter());
    body
}

/// The link to another page of the reference: `limits.md#rooms` becomes `limits#rooms`.
fn page_link(link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let name = file.strip_suffix(".md").filter(|name| PAGES.contains(name))?;
    let anchor = anchor.map_or_else(String::new, |anchor| format!("#{anchor}"));
    Some(format!("{}{anchor}", address(name)))
}

/// The id of a heading by GitHub's rule: lower case, without punctuation, with hyphens for spaces, and a number for a
/// repetition.
fn slug(inside: &[Event<'_>], seen: &mut HashMap<String, usize>) -> String {
    let mut slug = String::new();
    for event in inside.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_)))) {
        if let Event::Text(text) | Event::Code(text) = event {
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            slug.extend(kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }));
        }
    }
    let count = seen.entry(slug.clone()).or_insert(0);
    *count += 1;
    if *count > 1 { format!("{slug}-{}", *count - 1) } else { slug }
}
