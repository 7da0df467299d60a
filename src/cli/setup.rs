//! `adda setup`: makes a link whose code registers the first admin.

use std::process::ExitCode;

use clap::Args;

use super::Error;
use super::args::DatabaseFlag;
use super::output::{remark, say};
use super::propose::{Absent, propose};
use super::values::server_url;
use crate::auth::secret::Secret;
use crate::store::change::Change;

#[derive(Debug, Clone, Args)]
pub struct Setup {
    #[command(flatten)]
    database: DatabaseFlag,

    /// Address of the server in the link
    #[arg(long, env = "ADDA_URL", value_name = "URL", default_value = "http://localhost:3000",
          value_parser = server_url)]
    url: String,
}

/// Prints a link whose code registers the first admin. A link that was made before ends. The code is valid for an hour
/// ([`SETUP_SPAN_MS`](crate::limits::SETUP_SPAN_MS)), and shown only here.
///
/// # Errors
/// [`Error`]; [`Reason::HasAdmin`](crate::model::reason::Reason::HasAdmin) if there is an admin already.
pub fn run(flags: &Setup) -> Result<ExitCode, Error> {
    let (change, code) = Change::offer_setup();
    propose(flags.database.file()?, Absent::Make, change)?;
    say(&link(&flags.url, &code));
    remark("the link works once, within an hour; if the server has another address, give it with --url");
    Ok(ExitCode::SUCCESS)
}

/// The link of a code. The browser does not send what stands behind the `#`.
pub(super) fn link(url: &str, code: &Secret) -> String {
    format!("{}/#setup={}", url.trim_end_matches('/'), code.expose())
}
