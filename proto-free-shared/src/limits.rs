//! Bounds that both sides keep. Pure.

use std::time::Duration;

/// Longest line, in bytes, without its newline.
pub const LINE_BYTES: usize = 64 * 1024;
/// Deepest nesting of brackets in a line.
pub const LINE_DEPTH: usize = 16;
/// Most puts that an agent has under way without an answer, unless `welcome` says less.
pub const IN_FLIGHT: u32 = 256;
/// Most keys in one `want` line: with the longest keys that is half a line.
pub const WANT_KEYS: usize = 200;
/// Most cluster IPs, and most node ports, that a `put` calls unusable.
pub const UNUSABLE: usize = 8;
/// Mean time between two beats of one side.
pub const BEAT: Duration = Duration::from_secs(15);
/// A side from which nothing came for this long is gone.
pub const SILENCE: Duration = Duration::from_secs(50);
/// A peer that takes no line for this long is let go.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Time for the `hello` after the request has begun.
pub const HELLO: Duration = Duration::from_secs(10);
