//! The files of the web page and of the reference, from the folder that the build script makes. They are embedded in
//! the binary, with their media types, ETags and compressed forms.
//!
//! Runs on the HTTP workers. It reads no disk, and no reply depends on the user.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{LazyLock, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::auth::secret::hex;
use crate::config::split_host;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::model::reason::{Reason, Rejection};

/// The file at the path `/`.
const INDEX: &str = "index.html";
/// For files that keep their name in every version: `index.html`, texts, the reference. A browser must revalidate its
/// copy before each use, so no page runs with the script of another version.
const CACHE_REVALIDATED: &str = "no-cache";
/// For files that also work with another version of the page.
const CACHE_DAY: &str = "max-age=86400";
/// For files whose address changes with their content: the bundle.
const CACHE_FOREVER: &str = "max-age=31536000, immutable";
/// The folder of those files.
const VERSIONED: &str = "v/";

// `Embedded`: the files by their paths.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The address of the reference without its slash, from which its links would not work.
const REFERENCE_PATH: &str = "/docs";

static ASSETS: LazyLock<BTreeMap<String, Asset>> = LazyLock::new(|| {
    let named = |name: Cow<'static, str>| {
        let file = Embedded::get(&name)?;
        let asset = Asset::new(&name, file.data, &file.metadata.sha256_hash());
        Some((name.into_owned(), asset))
    };
    Embedded::iter().filter_map(named).collect()
});

/// One file of the page.
struct Asset {
    kind: Kind,
    cache_control: &'static str,
    identity: Cow<'static, [u8]>,
    etag: String,
    etag_gzip: String,
    /// Compressed on the first request that accepts it; `None` if compression does not make it smaller.
    gzip: OnceLock<Option<Vec<u8>>>,
}

/// The properties that a file's name implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    mime: &'static str,
    is_text: bool,
}

impl Kind {
    fn of(name: &str) -> Self {
        let (mime, is_text) = match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
            "html" => ("text/html; charset=utf-8", true),
            "css" => ("text/css; charset=utf-8", true),
            "js" => ("text/javascript; charset=utf-8", true),
            "json" => ("application/json", true),
            "webmanifest" => ("application/manifest+json", true),
            "svg" => ("image/svg+xml", true),
            "txt" => ("text/plain; charset=utf-8", true),
            "md" => ("text/markdown; charset=utf-8", true),
            "png" => ("image/png", false),
            "jpg" => ("image/jpeg", false),
            "ico" => ("image/x-icon", false),
            "woff2" => ("font/woff2", false),
            _ => ("application/octet-stream", false),
        };
        Self { mime, is_text }
    }
}

/// Whether a path is a file of the page.
pub fn has(path: &str) -> bool {
    path == REFERENCE_PATH || find(path).is_some()
}

fn find(path: &str) -> Option<&'static Asset> {
    match path.strip_prefix('/')? {
        "" => ASSETS.get(INDEX),
        "docs/" => ASSETS.get("docs/index.html"),
        // A page of the reference has no extension in its address.
        name if name.starts_with("docs/") && !name.contains('.') => ASSETS.get(&format!("{name}.html")),
        name => ASSETS.get(name),
    }
}

/// Replies with the file at a path, or with 304 if the client has it.
pub(crate) fn get(request: &Request<'_>) -> Result<Reply, Rejection> {
    if request.path == REFERENCE_PATH {
        // Relative, because a proxy may serve adda below a path.
        return Ok(Reply::empty(308).with("Location", "docs/"));
    }
    Ok(find(request.path).map_or_else(|| Reply::from(Reason::NoSuchPath), |asset| asset.reply(request)))
}

impl Asset {
    fn new(name: &str, identity: Cow<'static, [u8]>, hash: &[u8; 32]) -> Self {
        let hash = hex(&hash[..16]);
        let kind = Kind::of(name);
        let cache_control = if name.starts_with(VERSIONED) {
            CACHE_FOREVER
        } else if kind.is_text {
            CACHE_REVALIDATED
        } else {
            CACHE_DAY
        };
        Self {
            kind,
            cache_control,
            identity,
            etag: format!("\"{hash}\""),
            etag_gzip: format!("\"{hash}-gzip\""),
            gzip: OnceLock::new(),
        }
    }

    fn reply(&'static self, request: &Request<'_>) -> Reply {
        let gzip = request.header("Accept-Encoding").filter(|accepted| takes_gzip(accepted));
        let gzip = gzip.and_then(|_| self.gzip());
        let etag = if gzip.is_some() { &self.etag_gzip } else { &self.etag };
        let is_known = request.header("If-None-Match").is_some_and(|tags| names(tags, etag));
        let reply =
            if is_known { Reply::empty(304) } else { Reply::new(200, self.kind.mime, gzip.unwrap_or(&self.identity)) };
        // Sent with 304 as well: a browser updates the header fields of its copy from a 304.
        let reply = reply.with("Content-Security-Policy", policy(request.header("Host")));
        let reply = reply.with("ETag", etag.as_str()).with("Cache-Control", self.cache_control);
        let reply = if self.kind.is_text { reply.with("Vary", "Accept-Encoding") } else { reply };
        if gzip.is_some() && !is_known { reply.with("Content-Encoding", "gzip") } else { reply }
    }

    fn gzip(&self) -> Option<&[u8]> {
        let compressed = self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            let bytes = encoder.write_all(&self.identity).and_then(|()| encoder.finish()).ok()?;
            (self.kind.is_text && bytes.len() < self.identity.len()).then_some(bytes)
        });
        compressed.as_deref()
    }
}

/// The Content-Security-Policy: the page may load only from this server. Old browsers do not count a WebSocket to this
/// server as `'self'`, so its URL is named. Its host is the request's host, whose form the head's parser has checked.
fn policy(host: Option<&str>) -> String {
    let sockets = host.and_then(split_host).map_or_else(String::new, |(host, port)| {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!(" ws://{host}{port} wss://{host}{port}")
    });
    format!(
        "default-src 'self'; connect-src 'self'{sockets}; object-src 'none'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    )
}

/// Whether an `Accept-Encoding` accepts gzip (RFC 9110, section 12.5.3): by name, or else by `*`, and not with `q=0`.
fn takes_gzip(accepted: &str) -> bool {
    let mut by_star = false;
    for choice in accepted.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_taken = quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0));
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            return is_taken;
        }
        by_star |= coding == "*" && is_taken;
    }
    by_star
}

/// Whether an `If-None-Match` names the tag, by the weak comparison (RFC 9110, section 13.1.2). Our tags contain no
/// comma.
fn names(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::tests::Backend;

    static BACKEND: LazyLock<Backend> = LazyLock::new(Backend::start);

    fn get_with(path: &str, headers: &[(&str, &str)]) -> Reply {
        let headers = crate::http::tests::headers(headers);
        get(&BACKEND.request(path, &headers)).unwrap()
    }

    #[test]
    fn the_page_is_served_with_its_media_types() {
        let reply = get_with("/", &[]);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(reply.header("Cache-Control"), Some("no-cache"));
        for (host, sockets) in [
            ("Chat.example:3000", " ws://chat.example:3000 wss://chat.example:3000;"),
            ("[::1]", " ws://[::1] wss://[::1];"),
            ("chat.example", " ws://chat.example wss://chat.example;"),
            ("a b", ";"),
            ("x; script-src *", ";"),
        ] {
            let policy = get_with("/", &[("Host", host)]).header("Content-Security-Policy").unwrap().to_string();
            assert!(policy.contains(&format!("; connect-src 'self'{sockets} ")), "{policy}");
            assert!(!policy.contains('*') && !policy.contains("unsafe"), "{policy}");
        }
        assert_eq!(reply.body, get_with("/index.html", &[]).body);
        for name in Embedded::iter() {
            assert_ne!(Kind::of(&name).mime, "application/octet-stream", "{name}");
        }
        for path in ["/none", "", "index.html", "//index.html", "/../Cargo.toml", "/."] {
            assert!(!has(path), "{path}");
        }
    }

    #[test]
    fn a_client_keeps_the_bundle_of_the_page() {
        for extension in [".css", ".js"] {
            let name = Embedded::iter().find(|name| name.starts_with(VERSIONED) && name.ends_with(extension)).unwrap();
            let reply = get_with(&format!("/{name}"), &[]);
            assert_eq!((reply.status, reply.header("Cache-Control")), (200, Some("max-age=31536000, immutable")));
            assert!(!reply.body.is_empty());
        }
    }

    #[test]
    fn a_client_with_a_current_copy_gets_304() {
        let etag = get_with("/", &[]).header("ETag").unwrap().to_string();
        for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_string()] {
            let reply = get_with("/", &[("If-None-Match", &tags)]);
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{tags}");
            assert_eq!(reply.header("ETag"), Some(&*etag));
            let policy = reply.header("Content-Security-Policy");
            assert_eq!(policy, get_with("/", &[]).header("Content-Security-Policy"), "it becomes the copy's");
        }
        assert_eq!(get_with("/", &[("If-None-Match", "\"x\"")]).status, 200);
        let compressed = get_with("/", &[("If-None-Match", &etag), ("Accept-Encoding", "gzip")]);
        let identity = get_with("/", &[]);
        let expected = if ASSETS[INDEX].gzip().is_some() { 200 } else { 304 };
        assert_eq!(compressed.status, expected, "the two forms have tags of their own");
        assert_eq!(identity.header("Vary"), Some("Accept-Encoding"));
    }

    #[test]
    fn text_is_compressed_once_for_clients_that_accept_it() {
        let text = b"adda ".repeat(1000);
        let asset: &'static Asset = Box::leak(Box::new(Asset {
            kind: Kind::of("a.css"),
            cache_control: CACHE_REVALIDATED,
            identity: text.clone().into(),
            etag: "\"1\"".to_string(),
            etag_gzip: "\"1-gzip\"".to_string(),
            gzip: OnceLock::new(),
        }));
        let reply_to = |accepted: &str| {
            let headers = crate::http::tests::headers(&[("Accept-Encoding", accepted)]);
            asset.reply(&BACKEND.request("/a.css", &headers))
        };
        let reply = reply_to("br, gzip");
        assert_eq!(reply.header("Content-Encoding"), Some("gzip"));
        assert_eq!(reply.header("ETag"), Some("\"1-gzip\""));
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*reply.body).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, text);
        assert_eq!(reply_to("gzip").body.as_ptr(), reply.body.as_ptr());
        assert_eq!(reply_to("gzip;q=0").header("Content-Encoding"), None);
    }

    #[test]
    fn accept_encoding_is_parsed() {
        for (accepted, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("*;q=0, gzip", true),
            ("gzip;q=0.001", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*;q=0", false),
            ("gzip;q=x", false),
            ("gzipped", false),
        ] {
            assert_eq!(takes_gzip(accepted), taken, "{accepted}");
        }
    }
}
