//! Bounded newline-delimited JSON: bytes in chunks to lines, lines to messages and back. Pure.
//!
//! A line is judged by one scan (length, UTF-8, depth) before any parser sees it. The trap: serde_json limits depth only
//! at 128 and has no limit for length, so the scan must come first.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::limits::{LINE_BYTES, LINE_DEPTH};
use crate::message::Message;

/// Buffer kept between lines: a thousand idle sessions must not each keep the longest line that they ever had.
const KEPT_BYTES: usize = 4 * 1024;

/// Why a line is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// More than [`LINE_BYTES`] without a newline.
    #[error("line longer than {LINE_BYTES} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("line is not utf-8")]
    NotUtf8,
    /// Nested deeper than [`LINE_DEPTH`].
    #[error("line nested deeper than {LINE_DEPTH}")]
    TooDeep,
    /// A message of a version that this build does not speak.
    #[error("unknown message")]
    Unsupported,
    /// Not JSON, or a known message of the wrong shape. Says what and where, with nothing of the line itself.
    #[error("{0}")]
    Malformed(String),
}

/// A message that would make a line longer than [`LINE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message longer than {LINE_BYTES} bytes")]
pub struct TooLarge;

/// Cuts chunks of bytes into lines and holds at most one incomplete line, which is no line if the stream ends there.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    complete: bool,
    failed: bool,
}

impl Lines {
    /// Takes bytes from the front of `chunk` up to the end of a line.
    ///
    /// Gives the line without its newline, or `None` when `chunk` is used up.
    ///
    /// # Errors
    /// [`LineError::TooLong`] as soon as the line exceeds its bound, whether or not its end has come; then for ever, so
    /// that the tail of that line is never taken for a line.
    pub fn next<'a>(&'a mut self, chunk: &mut &[u8]) -> Result<Option<&'a [u8]>, LineError> {
        if self.complete {
            self.partial.clear();
            self.partial.shrink_to(KEPT_BYTES);
            self.complete = false;
        }
        let newline = chunk.iter().position(|&byte| byte == b'\n');
        let (head, tail) = chunk.split_at(newline.unwrap_or(chunk.len()));
        self.failed |= self.partial.len() + head.len() > LINE_BYTES;
        if self.failed {
            return Err(LineError::TooLong);
        }
        self.partial.extend_from_slice(head);
        *chunk = tail.get(1..).unwrap_or_default();
        self.complete = newline.is_some();
        Ok(self.complete.then_some(self.partial.as_slice()))
    }
}

/// Parses one line.
///
/// # Errors
/// [`LineError`], in the order in which the checks are made.
pub fn decode<M: Message + DeserializeOwned>(line: &[u8]) -> Result<M, LineError> {
    let text = scan(line)?;
    match serde_json::from_str::<M>(text) {
        Ok(message) => message.check().map(|()| message).map_err(|why| LineError::Malformed(why.to_owned())),
        Err(_) if is_unknown::<M>(text) => Err(LineError::Unsupported),
        Err(error) => Err(LineError::Malformed(describe(&error))),
    }
}

/// Writes one line, newline included.
///
/// # Errors
/// [`TooLarge`] when the line exceeds its bound.
pub fn encode<M: Message + Serialize>(message: &M) -> Result<Vec<u8>, TooLarge> {
    let mut line = serde_json::to_vec(message).map_err(|_| TooLarge)?;
    if line.len() > LINE_BYTES {
        return Err(TooLarge);
    }
    line.push(b'\n');
    Ok(line)
}

/// Checks length, UTF-8 and depth.
fn scan(line: &[u8]) -> Result<&str, LineError> {
    if line.len() > LINE_BYTES {
        return Err(LineError::TooLong);
    }
    let text = std::str::from_utf8(line).map_err(|_| LineError::NotUtf8)?;
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > LINE_DEPTH {
                    return Err(LineError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(text)
}

/// Whether a line that did not parse is a well-formed message of another name.
fn is_unknown<M: Message>(text: &str) -> bool {
    #[derive(Deserialize)]
    struct AnyMessage(BTreeMap<String, IgnoredAny>);

    serde_json::from_str::<AnyMessage>(text).is_ok_and(|AnyMessage(fields)| {
        fields.len() == 1 && !fields.keys().any(|name| M::NAMES.contains(&name.as_str()))
    })
}

/// serde_json's own message may quote what the peer sent; this one names only the kind of mistake and its place.
fn describe(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "unexpected field or value",
        serde_json::error::Category::Eof => "unfinished json",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "invalid json",
    };
    format!("{kind} at column {}", error.column())
}

#[cfg(test)]
mod tests;
