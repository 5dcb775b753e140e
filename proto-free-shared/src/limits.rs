//! Bounds that both sides keep. Pure.

use std::time::Duration;

/// Longest line, in bytes, without its newline.
pub const LINE_BYTES: usize = 64 * 1024;
/// Deepest nesting of brackets in a line.
pub const LINE_DEPTH: usize = 16;
/// Most puts that an agent has under way without an answer, unless `welcome` says less.
pub const IN_FLIGHT: u32 = 256;
/// Most keys in one `want` line: with the longest keys that is three quarters of a line.
pub const WANT_KEYS: usize = 150;
/// Most cluster IPs, and most node ports, that a `put` calls unusable.
pub const UNUSABLE: usize = 8;
/// Most endpoints that serve the same ports in one family, and most such sets, of a Service.
pub const ENDPOINTS: usize = 100;
/// See [`ENDPOINTS`].
pub const ENDPOINT_SETS: usize = 4;
/// Most rules, entries of TLS, and hosts in one of these, of an Ingress.
pub const INGRESS_RULES: usize = 64;
/// Most paths of an Ingress, over all rules.
pub const INGRESS_PATHS: usize = 256;
/// Longest host name of an Ingress, in bytes (RFC 1123).
pub const INGRESS_HOST: usize = 253;
/// Longest path of an Ingress, in bytes.
pub const INGRESS_PATH: usize = 1024;
/// Largest `tls.crt` that crosses, in bytes: a chain of a dozen certificates. With [`TLS_KEY`] it leaves a line room to spare.
pub const TLS_CERTIFICATE: usize = 32 * 1024;
/// Largest `tls.key` that crosses, in bytes: an RSA key of 8,192 bits has 6,400.
pub const TLS_KEY: usize = 8 * 1024;
/// Most Ingress classes that an agent shows.
pub const INGRESS_CLASSES: usize = 32;
/// Mean time between two beats of one side.
pub const BEAT: Duration = Duration::from_secs(15);
/// A side from which nothing came for this long is gone.
pub const SILENCE: Duration = Duration::from_secs(50);
/// A peer that takes no line for this long is let go.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Time for the `hello` after the request has begun.
pub const HELLO: Duration = Duration::from_secs(10);
