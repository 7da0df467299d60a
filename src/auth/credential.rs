//! How a client presents a token: the session cookie (RFC 6265) and `Authorization: Bearer` (RFC 6750).
//!
//! Pure. The parsers are strict: a malformed credential is refused and never guessed at, because a proxy in front of
//! the server may guess otherwise.

use std::fmt;

use super::guest_token::is_guest_token;
use super::secret::is_secret;

/// How long a guest session and a login session last from their last use, in milliseconds.
pub const GUEST_SPAN_MS: u64 = 90 * DAY_MS;
pub const LOGIN_SPAN_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// Why the credential of a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Two cookies of this name. A page of another subdomain or path may have set one of them.
    #[error("more than one session cookie")]
    TwoCookies,
    /// The Authorization field is not `Bearer` and a token.
    #[error("the Authorization header must be “Bearer TOKEN”")]
    NotBearer,
}

/// The cookie that holds a session's token, of one server.
///
/// Its name has the server's id, because a browser sends the cookies of a host to all its ports (RFC 6265, section 8.5).
/// It has no `__Host-` prefix: that prefix requires `Secure`, and the page must work without TLS on a LAN.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionCookie {
    name: Box<str>,
    /// Until when the name without an id is read, in log time.
    old_until_ms: u64,
}

/// The name of the cookie in earlier versions, without the server's id. An earlier version on the same host may still
/// use it.
const OLD_NAME: &str = "adda_session";

impl SessionCookie {
    /// The cookie of a server that has got its id at a log time. After that, no cookie lives longer under the old name
    /// than a guest's session.
    #[must_use]
    pub fn new(server: &str, made_ms: u64) -> Self {
        Self { name: format!("{OLD_NAME}_{server}").into(), old_until_ms: made_ms.saturating_add(GUEST_SPAN_MS) }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a `Set-Cookie` field that gives a session to a browser. `None` if the text does not have the shape of
    /// a token: then it could hold anything, such as cookie attributes.
    ///
    /// `HttpOnly`: no script can read it. `SameSite=Lax`: a POST from a foreign page does not carry it. `Secure`: set
    /// when the browser connected by TLS.
    #[must_use]
    pub fn set(&self, token: &str, kept_ms: u64, over_tls: bool) -> Option<String> {
        is_session_token(token).then(|| set_cookie(&self.name, token, kept_ms / 1_000, over_tls))
    }

    /// The value of a `Set-Cookie` field that deletes the session cookie from a browser.
    #[must_use]
    pub fn clear(&self, over_tls: bool) -> String {
        set_cookie(&self.name, "", 0, over_tls)
    }

    /// The value of a `Set-Cookie` field that deletes the cookie of the old name.
    #[must_use]
    pub fn clear_old(over_tls: bool) -> String {
        set_cookie(OLD_NAME, "", 0, over_tls)
    }

    /// The session token in the Cookie fields of a request (RFC 6265, sections 4.2.1 and 5.4), if there is one. Without a
    /// cookie of this name, that of the old name counts for a while.
    ///
    /// Other cookies are ignored, whatever they contain and however long they are: other programs on the same host set
    /// them. The session cookie may occur once only. A browser sends two if a page of another subdomain or path has set
    /// one too, and the server can't tell which is its own. A cookie whose value does not have the shape of a token
    /// counts as absent.
    ///
    /// # Errors
    /// [`CredentialError::TwoCookies`].
    pub fn token<'a, I: IntoIterator<Item = &'a [u8]>>(
        &self,
        fields: impl Fn() -> I,
        clock_ms: u64,
    ) -> Result<Option<&'a str>, CredentialError> {
        match token_named(&self.name, fields())? {
            // Another server on the host may have set one, too.
            None if clock_ms < self.old_until_ms => Ok(token_named(OLD_NAME, fields()).unwrap_or(None)),
            found => Ok(found),
        }
    }
}

/// Whether a token is in a cookie of the old name.
#[must_use]
pub fn is_old_cookie<'a>(token: &str, fields: impl IntoIterator<Item = &'a [u8]>) -> bool {
    token_named(OLD_NAME, fields) == Ok(Some(token))
}

fn token_named<'a>(name: &str, fields: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<&'a str>, CredentialError> {
    let mut found = None;
    for field in fields {
        for pair in field.split(|b| *b == b';') {
            let Some(value) = pair.trim_ascii().strip_prefix(name.as_bytes()) else { continue };
            let Some(value) = value.strip_prefix(b"=") else { continue };
            if found.replace(value).is_some() {
                return Err(CredentialError::TwoCookies);
            }
        }
    }
    Ok(found.and_then(|value| std::str::from_utf8(value).ok()).filter(|value| is_session_token(value)))
}

fn set_cookie(name: &str, value: &str, max_age_s: u64, over_tls: bool) -> String {
    let secure = if over_tls { "; Secure" } else { "" };
    format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_s}{secure}")
}

/// Whether a text has the shape of a session token: a random secret, or a signed guest token.
fn is_session_token(text: &str) -> bool {
    is_secret(text) || is_guest_token(text)
}

/// The token of an `Authorization` field: `Bearer`, spaces, and a token (RFC 6750, section 2.1). The scheme is compared
/// without case (RFC 9110, section 11.1).
///
/// # Errors
/// [`CredentialError::NotBearer`] for anything else. Whether a session has the token is not checked here.
pub fn token_of_bearer(field: &[u8]) -> Result<&str, CredentialError> {
    let field = std::str::from_utf8(field).map_err(|_| CredentialError::NotBearer)?;
    let (scheme, token) = field.split_once(' ').ok_or(CredentialError::NotBearer)?;
    let token = token.trim_ascii_start();
    let unpadded = token.trim_end_matches('=');
    let is_token = !unpadded.is_empty() && unpadded.bytes().all(is_b64token);
    if is_token && scheme.eq_ignore_ascii_case("Bearer") { Ok(token) } else { Err(CredentialError::NotBearer) }
}

fn is_b64token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// The credential of a request. A token in the URL counts as a bearer token: no foreign page knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// The request has no credential.
    None,
    /// A cookie. Browsers send it by themselves, so a change that it authenticates must come from an allowed origin.
    Cookie(&'a str),
    /// A token that the client has put into the request explicitly.
    Bearer(&'a str),
}

impl<'a> Credential<'a> {
    /// Chooses the credential of a request that has several. An explicit token comes before a cookie, which the browser
    /// adds by itself.
    ///
    /// # Errors
    /// [`CredentialError`] if the Authorization field, or a cookie that is read, is refused.
    pub fn of(
        authorization: Option<&'a [u8]>,
        in_url: Option<&'a str>,
        in_cookie: impl FnOnce() -> Result<Option<&'a str>, CredentialError>,
    ) -> Result<Self, CredentialError> {
        let bearer = authorization.map(token_of_bearer).transpose()?.or(in_url);
        match bearer {
            Some(token) => Ok(Self::Bearer(token)),
            None => Ok(in_cookie()?.map_or(Self::None, Self::Cookie)),
        }
    }

    /// The token, if there is one.
    #[must_use]
    pub fn token(self) -> Option<&'a str> {
        match self {
            Self::None => None,
            Self::Cookie(token) | Self::Bearer(token) => Some(token),
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Cookie(_) => "Cookie(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret::Secret;

    /// The cookie of a server that has got its id at 0.
    fn session_cookie() -> SessionCookie {
        SessionCookie::new("12", 0)
    }

    fn of_cookies_at<'a>(fields: &[&'a str], clock_ms: u64) -> Result<Option<&'a str>, CredentialError> {
        session_cookie().token(|| fields.iter().map(|field| field.as_bytes()), clock_ms)
    }

    fn of_cookies<'a>(fields: &[&'a str]) -> Result<Option<&'a str>, CredentialError> {
        of_cookies_at(fields, GUEST_SPAN_MS)
    }

    #[test]
    fn a_set_cookie_field_has_all_required_attributes() {
        let token = Secret::random();
        let week_ms = 7 * DAY_MS;
        assert_eq!(
            session_cookie().set(token.expose(), week_ms, true).unwrap(),
            format!("adda_session_12={}; HttpOnly; SameSite=Lax; Path=/; Max-Age=604800; Secure", token.expose())
        );
        assert!(!session_cookie().set(token.expose(), week_ms, false).unwrap().contains("Secure"));
        assert_eq!(session_cookie().clear(false), "adda_session_12=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
    }

    #[test]
    fn the_session_cookie_is_found_among_others() {
        let token = "0a".repeat(32);
        let ours = format!("adda_session_12={token}");
        for field in [
            ours.clone(),
            format!("a=b; {ours}"),
            format!("{ours}; a=b"),
            format!("a=\"q; {ours};c"),
            format!("a=b;{ours};  "),
            format!("a={}; {ours}; b={0}", "x".repeat(8_000)),
            format!(
                "xadda_session_12=1; adda_session=1; {ours}; adda_session_122=2; Adda_Session_12=3; adda_session_12"
            ),
        ] {
            assert_eq!(of_cookies(&[&field]), Ok(Some(&*token)), "{field}");
            assert_eq!(of_cookies(&["z=y", &field, ""]), Ok(Some(&*token)), "{field}, in a field of its own");
        }
        assert_eq!(session_cookie().token(|| [&b"a=\xFF\xFE; b=\x80"[..]], 0), Ok(None));
    }

    #[test]
    fn a_signed_guest_token_is_read_from_a_cookie_and_set_again() {
        let guest = "0a".repeat(39);
        let cookie = format!("adda_session_12={guest}");
        assert_eq!(of_cookies(&[&cookie]), Ok(Some(&*guest)));
        assert_eq!(
            session_cookie().set(&guest, 60_999, false).unwrap(),
            format!("{cookie}; HttpOnly; SameSite=Lax; Path=/; Max-Age=60")
        );
        for text in [&guest[1..], &format!("{guest}0"), &guest.to_uppercase(), "x; Path=/evil"] {
            assert_eq!(session_cookie().set(text, 60_000, false), None, "{text}");
            assert_eq!(of_cookies(&[&format!("adda_session_12={text}")]), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_malformed_session_cookie_counts_as_absent() {
        let token = "0a".repeat(32);
        for field in [
            String::new(),
            "adda_session_12".into(),
            "adda_session_12=".into(),
            "adda_session_12=guess".into(),
            format!("adda_session_12=\"{token}\""),
            format!("adda_session_12= {token}"),
            format!("adda_session_12 ={token}"),
            format!("adda_session_12={token}0"),
            format!("adda_session_12={}", token.to_uppercase()),
            format!("a=adda_session_12={token}"),
        ] {
            assert_eq!(of_cookies(&[&field]), Ok(None), "{field}");
        }
    }

    #[test]
    fn two_session_cookies_are_refused() {
        let token = "0a".repeat(32);
        let ours = format!("adda_session_12={token}");
        assert_eq!(of_cookies(&[&format!("{ours}; {ours}")]), Err(CredentialError::TwoCookies));
        assert_eq!(of_cookies(&[&ours, "adda_session_12=x"]), Err(CredentialError::TwoCookies));
    }

    #[test]
    fn the_old_name_is_read_for_90_days_and_only_without_a_cookie_of_the_new_name() {
        let [ours, old] = ["0a", "0b"].map(|byte| byte.repeat(32));
        let (new_cookie, old_cookie) = (format!("adda_session_12={ours}"), format!("adda_session={old}"));
        assert_eq!(of_cookies_at(&[&old_cookie], GUEST_SPAN_MS - 1), Ok(Some(&*old)));
        assert_eq!(of_cookies_at(&[&old_cookie], GUEST_SPAN_MS), Ok(None));
        let both = format!("{old_cookie}; {new_cookie}; {old_cookie}");
        assert_eq!(of_cookies_at(&[&both], 0), Ok(Some(&*ours)));
        assert_eq!(of_cookies_at(&[&old_cookie, &old_cookie], 0), Ok(None));
        assert!(is_old_cookie(&old, [old_cookie.as_bytes()]));
        assert!(!is_old_cookie(&ours, [both.as_bytes()]));
        // The cookie of another server is not read.
        assert_eq!(of_cookies_at(&["adda_session_13=0a"], 0), Ok(None));
    }

    #[test]
    fn a_bearer_field_holds_one_token() {
        for (field, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER   a-b.c_d~e+f/g==", Some("a-b.c_d~e+f/g==")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer =", None),
            ("Bearerabc", None),
            ("Bearer\tabc", None),
            ("Bearer a b", None),
            ("Bearer a,b", None),
            ("Bearer a=b", None),
            ("Bearer é", None),
            ("Basic abc", None),
            ("Bear", None),
            ("", None),
        ] {
            assert_eq!(token_of_bearer(field.as_bytes()).ok(), token, "{field:?}");
        }
    }

    #[test]
    fn an_explicit_token_comes_before_a_cookie() {
        let token = "0a".repeat(32);
        let cookie = format!("adda_session_12={token}");
        let of =
            |authorization: Option<&'static [u8]>, url| Credential::of(authorization, url, || of_cookies(&[&cookie]));
        assert_eq!(of(Some(b"Bearer abc"), Some("url")), Ok(Credential::Bearer("abc")));
        assert_eq!(of(None, Some("url")), Ok(Credential::Bearer("url")));
        assert_eq!(of(None, None), Ok(Credential::Cookie(&token)));
        assert_eq!(of(Some(b"Basic abc"), None), Err(CredentialError::NotBearer));
        assert_eq!(Credential::of(None, None, || Ok(None)), Ok(Credential::None));
        assert!(!format!("{:?}", of(None, None)).contains(&token));
    }
}
