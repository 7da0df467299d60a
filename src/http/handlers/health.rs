//! Health and metrics of the server. Runs on the HTTP workers.

use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::model::reason::{Reason, Rejection};

/// Answers only if the hub and the store answer, and messages are stored.
pub(crate) fn healthz(request: &Request<'_>) -> Result<Reply, Rejection> {
    request.context.hub.ping()?;
    if let Some(loss) = request.context.reader.loss() {
        return Err(Reason::NotStored.because(format!("{loss}; messages are not stored")));
    }
    request.context.reader.view(|view| view.rooms(None, 1).map_err(Rejection::from))?;
    Ok(Reply::new(200, "text/plain; charset=utf-8", &b"ok\n"[..]))
}

pub(crate) fn metrics(request: &Request<'_>) -> Result<Reply, Rejection> {
    let text = request.context.metrics.render().into_bytes();
    Ok(Reply::new(200, "text/plain; version=0.0.4", text))
}
