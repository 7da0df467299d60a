//! What the server prints at its start: its addresses, a QR code, and the first steps.
//!
//! The first line is for programs. The rest is for people, and may change.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::Error;
use super::setup::link;
use crate::auth::secret::Secret;
use crate::config::Data;
use crate::model::role::Accounts;
use crate::store::Offline;

const BLACK_ON_WHITE: &str = "\x1b[30;47m";
const RESET: &str = "\x1b[0m";

/// Prints the addresses of the server, and the first steps if there is no admin yet. `setup` is the code of a link for
/// the first admin.
pub fn print(address: SocketAddr, accounts: Accounts, data: &Data, setup: Option<&Secret>) {
    let mut text = format!("listening on http://{address}\n");
    let urls: Vec<String> =
        addresses(address).into_iter().map(|ip| format!("http://{}", SocketAddr::new(ip, address.port()))).collect();
    for url in &urls {
        text.push_str(&format!("  open {url}\n"));
    }
    let stdout = io::stdout();
    if stdout.is_terminal()
        && let Some(url) = urls.iter().rev().find(|url| !url.contains("127.0.0.1") && !url.contains("localhost"))
        && let Some(code) = qr_code(url, AutoStream::choice(&stdout) != ColorChoice::Never)
    {
        text.push_str(&format!("\n{code}\n"));
    }
    match (setup, urls.last()) {
        (Some(code), Some(url)) => text.push_str(&format!(
            "\nThere is no admin yet. To create the first one, open this link within an hour:\n  {}\n",
            link(url, code)
        )),
        _ => text.push_str(&first_steps(accounts, data)),
    }
    let mut stdout = stdout.lock();
    // Standard output may be closed.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A QR code with a quiet zone. With colours it is black on white on any terminal. Without them its light modules are
/// drawn in the colour of the text, so it is black on white on a dark terminal, and inverted on a light one.
fn qr_code(text: &str, is_coloured: bool) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    // `Dense1x2::Dark` is drawn, `Dense1x2::Light` is blank.
    let (dark, light) = if is_coloured { (Dense1x2::Dark, Dense1x2::Light) } else { (Dense1x2::Light, Dense1x2::Dark) };
    let drawn = code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build();
    let (begin, end) = if is_coloured { (BLACK_ON_WHITE, RESET) } else { ("", "") };
    Some(drawn.lines().map(|line| format!("{begin}{line}{end}\n")).collect())
}

/// The addresses under which the server is reachable from this machine and its networks, loopback first.
fn addresses(address: SocketAddr) -> Vec<IpAddr> {
    if !address.ip().is_unspecified() {
        return vec![address.ip()];
    }
    let mut found: Vec<IpAddr> =
        if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
    // Link-local IPv6 needs a zone, which browsers don't accept.
    found.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    });
    found.sort_by_key(|ip| (!ip.is_loopback(), ip.is_ipv6()));
    found
}

/// How to create the first admin, if accounts are required and there is none; else an empty text.
fn first_steps(accounts: Accounts, data: &Data) -> String {
    let (Accounts::Required, Data::File(file)) = (accounts, data) else { return String::new() };
    match no_admin_yet(file) {
        Ok(Some(sentence)) => format!("\n{sentence}\n"),
        Ok(None) => String::new(),
        Err(error) => {
            log::error!("failed to look for an admin: {error}");
            String::new()
        }
    }
}

/// The sentence for the operator, if accounts are required and there is no admin.
fn no_admin_yet(data: &Path) -> Result<Option<String>, Error> {
    if Offline::open(data)?.has_admin()? {
        return Ok(None);
    }
    let file = shell_word(&data.display().to_string());
    Ok(Some(format!(
        "accounts are required, and there is no admin yet; to make one: adda user add NAME --role admin --data {file}"
    )))
}

/// The text as one word of a shell command.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_as_one_shell_word() {
        for (path, word) in [
            ("adda.db", "adda.db"),
            ("/srv/chat/adda-1.db", "/srv/chat/adda-1.db"),
            ("my chat.db", "'my chat.db'"),
            ("it's.db", r"'it'\''s.db'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(path), word);
        }
    }

    #[test]
    fn a_qr_code_is_black_on_white() {
        let coloured = qr_code("http://192.168.1.5:3000", true).unwrap();
        let plain = qr_code("http://192.168.1.5:3000", false).unwrap();
        assert_eq!(coloured.lines().count(), plain.lines().count());
        // The last line is half of the quiet zone, and half outside of the code.
        for (line, drawn) in coloured.lines().zip(plain.lines()).take(plain.lines().count() - 1) {
            let line = line.strip_prefix(BLACK_ON_WHITE).and_then(|line| line.strip_suffix(RESET)).unwrap();
            assert_eq!(line.chars().count(), drawn.chars().count());
            for (black, white) in line.chars().zip(drawn.chars()) {
                assert!([(' ', '█'), ('█', ' '), ('▀', '▄'), ('▄', '▀')].contains(&(black, white)), "{black} {white}");
            }
        }
        // The quiet zone is light: it is blank on white, and drawn without colours.
        assert!(plain.lines().next().unwrap().chars().all(|c| c == '█'), "{plain}");
    }
}
