//! NDJSON bytes: each frame is a line, and an empty line is a keep-alive. Pure functions; they run on the caller's
//! thread.

pub(super) fn append_line(bytes: &mut Vec<u8>, json: &[u8]) {
    debug_assert!(!json.contains(&b'\n'), "JSON without white space has no line break");
    bytes.extend_from_slice(json);
    bytes.push(b'\n');
}

/// See [`Encoding::frame_end`](super::Encoding::frame_end).
pub(super) fn frame_end(bytes: &[u8], position: usize) -> usize {
    let Some(last) = position.checked_sub(1) else { return 0 };
    let rest = bytes.get(last..).unwrap_or_default();
    rest.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |length| last + length + 1)
}
