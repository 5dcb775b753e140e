//! Lines for the person who waits, written past the capture of the test runner.
//!
//! `eprintln!` is captured and shown only for failed tests; a first build of six minutes must not look like a hang.

use std::io::Write;

/// Prints one line on standard error.
///
/// A closed standard error is nobody's failure, so the result of the write is dropped.
pub fn say(line: &str) {
    // One write, so that lines of parallel test processes do not mix.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
