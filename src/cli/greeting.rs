//! What the server prints at its start: its addresses, a QR code, and the first steps.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::Error;
use crate::config::Data;
use crate::model::role::Accounts;
use crate::store::Offline;

/// Prints the addresses of the server: one line for programs, URLs for people, and a QR code for phones.
pub fn greet(address: SocketAddr) {
    let mut text = format!("listening on http://{address}\n");
    let open: Vec<String> =
        addresses(address).into_iter().map(|ip| format!("http://{}", SocketAddr::new(ip, address.port()))).collect();
    for url in &open {
        text.push_str(&format!("  open {url}\n"));
    }
    if io::stdout().is_terminal()
        && let Some(url) = open.iter().rev().find(|url| !url.contains("127.0.0.1") && !url.contains("localhost"))
        && let Ok(code) = qrcode::QrCode::new(url)
    {
        let code = code.render::<qrcode::render::unicode::Dense1x2>().quiet_zone(true).build();
        text.push_str(&format!("\n{code}\n"));
    }
    let mut stdout = io::stdout().lock();
    // Standard output may be closed.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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

/// Prints the first steps if accounts are required and there is no admin yet.
pub fn first_steps(accounts: Accounts, data: &Data) {
    if let (Accounts::Required, Data::File(file)) = (accounts, data) {
        match no_admin_yet(file) {
            Ok(Some(sentence)) => {
                let mut stdout = io::stdout().lock();
                // Standard output may be closed.
                let _ = writeln!(stdout, "\n{sentence}").and_then(|()| stdout.flush());
            }
            Ok(None) => {}
            Err(error) => log::error!("failed to look for an admin: {error}"),
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
        "accounts are required, and nobody is an admin yet; to make one: adda user add NAME --role admin --data {file}"
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
}
