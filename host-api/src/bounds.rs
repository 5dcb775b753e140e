//! How much of host-api one tenant, and all tenants and strangers together, may use up. Pure.
//!
//! Every bound is here, with its unit; the README's table is made from [`table`]. What one tenant may use up is a value of
//! its own, so that the platform team can give tenants different bounds.

use std::time::Duration;

use k3k_expose_proto::limits::{DRAIN, HELLO, LINE_BYTES, SILENCE};

use crate::bucket::Rate;

/// What one tenant may use up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Twins: Services, Ingresses and certificates together. One more is refused as `TooManyObjects`.
    pub objects: usize,
    /// Objects that host-api keeps a record of, refused ones included. One more ends the session.
    pub records: usize,
    /// Bytes, as they are said, of objects that wait for their answer. What is beyond is asked for again when there is room.
    pub bytes: usize,
    /// Writes on the host. Who has used them up waits, and nobody waits for it.
    pub writes: Rate,
    /// Server pods with a session at the same time.
    pub sessions: usize,
}

impl Bounds {
    /// The same with room for so many twins, and for records of at least twice as many objects.
    #[must_use]
    pub fn with_objects(self, objects: usize) -> Self {
        Self { objects, records: self.records.max(objects.saturating_mul(2)), ..self }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            objects: 5_000,
            records: 10_000,
            bytes: 2 * MIB,
            writes: Rate { burst: 2_000, per_second: 50 },
            sessions: 32,
        }
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Records of all tenants.
pub const RECORDS: usize = 100_000;
/// Records that each tenant may have, however many others have.
pub const RECORDS_ASSURED: usize = 100;
/// Bytes of objects of all tenants that wait for their answer.
pub const BYTES: usize = 16 * MIB;
/// Bytes of such objects that each tenant may have, however many others have.
pub const BYTES_ASSURED: usize = 16 * KIB;
/// Sessions of all tenants.
pub const SESSIONS: usize = 4_096;
/// What an agent may say, in bytes; each line counts [`LINE_COST`] more. Who says more is read more slowly.
pub const SAID: Rate = Rate { burst: 4 * 1024 * 1024, per_second: 1024 * 1024 };
/// What a line costs besides its bytes: it has to be parsed and looked up, however short it is.
pub const LINE_COST: u32 = 256;
/// Least time between two requests to say everything again.
pub const SNAPSHOTS_APART: Duration = Duration::from_secs(10);

/// Connections of a TLS port without a request. One more takes the place of another: see [`crate::connections`].
pub const IDLE: usize = 512;
/// Time after which a connection of the session port without a request is closed.
pub const IDLE_TIME: Duration = Duration::from_secs(60);
/// The same of the admission port: the API server closes its own after 90 s, and none while it is about to ask.
pub const REVIEWS_IDLE_TIME: Duration = Duration::from_secs(120);
/// Time for a TLS handshake, and then for a first request.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams of one connection. An agent has one, and two while it renews its session.
pub const STREAMS: u32 = 4;
/// Bytes of the headers of a request.
pub const HEADER_BYTES: u32 = 16 * 1024;
/// Bytes of a token. Projected ones have about 1,200.
pub const TOKEN_BYTES: usize = 8 * KIB;
/// Bytes that may be on their way in one connection, and in each of its streams, and are not read yet.
pub const WINDOW: u32 = 256 * 1024;
/// Bytes of a response that wait for its reader.
pub const UNREAD: usize = 64 * KIB;

/// Requests that are on their way to a session.
pub const OPENING: usize = 512;
/// Of these, so many are looked up at the host's API server at the same time.
pub const LOOK_UPS: usize = 16;
/// Longest wait for one's turn to be looked up.
pub const LOOK_UP_TURN: Duration = Duration::from_secs(5);
/// Tries of one pod to open a session.
pub const TRIES: Rate = Rate { burst: 30, per_second: 1 };
/// Tokens of one address that the API server refused. Who has used them up is refused without a look.
pub const BAD_TOKENS: Rate = Rate { burst: 60, per_second: 2 };
/// Tokens that are put to the API server's review.
pub const REVIEWS: Rate = Rate { burst: 1_000, per_second: 100 };
/// Verdicts on tokens that are kept.
pub const VERDICTS: usize = 2_048;
/// How long a verdict is believed. Whether the pod lives is looked up each time.
pub const VERDICT_AGE: Duration = Duration::from_secs(45);
/// Log lines about refused sessions.
pub const REFUSALS_LOGGED: Rate = Rate { burst: 100, per_second: 5 };

/// A bound, as the README tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is bounded.
    pub what: &'static str,
    /// How much there may be of it.
    pub most: String,
    /// What happens beyond.
    pub beyond: &'static str,
}

/// Every bound, in the order of the README.
#[must_use]
pub fn table() -> Vec<Row> {
    let tenant = Bounds::default();
    let row = |what, most: String, beyond| Row { what, most, beyond };
    vec![
        row("twins of a tenant", many(tenant.objects), "`TooManyObjects`"),
        row(
            "objects of a tenant that are kept in mind, refused ones too",
            many(tenant.records),
            "the session ends: `exceeded`",
        ),
        row("the same of all tenants; each has room for 100", many(RECORDS), "the session ends: `exceeded`"),
        row("objects of a tenant that wait for an answer", bytes(tenant.bytes), "asked for again when there is room"),
        row("the same of all tenants; each has room for 16 KiB", bytes(BYTES), "asked for again when there is room"),
        row("writes of a tenant on the host", rate(tenant.writes, many), "they wait; others have their turn"),
        row(
            "writes of a tenant while another is at work that had fewer lately",
            "one at a time, and a rest as long as it took".to_owned(),
            "they wait",
        ),
        row("server pods of a tenant with a session", many(tenant.sessions), "`TooManySessions`"),
        row("sessions", many(SESSIONS), "`TooManySessions`"),
        row("a line", bytes(LINE_BYTES), "the session ends: `malformed`"),
        row("what agents of a tenant say, each line with 256 bytes more", rate(SAID, bytes), "it is read more slowly"),
        row(
            "requests to say everything again, of a tenant",
            format!("one in {}", time(SNAPSHOTS_APART)),
            "none is made",
        ),
        row("time without a line", time(SILENCE), "the session ends: `slow`"),
        row("time in which an agent takes no line", time(DRAIN), "the session ends: `slow`"),
        row(
            "bytes not read yet, in each direction",
            format!("{} in, {} out", bytes(widen(WINDOW)), bytes(UNREAD)),
            "the sender waits",
        ),
        row(
            "time for a handshake, a first request, a `hello`",
            format!("{}, {}, {}", time(HANDSHAKE), time(HANDSHAKE), time(HELLO)),
            "closed, closed, `BadHello`",
        ),
        row("time of a connection without a request", time(IDLE_TIME), "closed"),
        row("connections of a port without a request", many(IDLE), "the oldest of the address that has most is closed"),
        row("streams of a connection", many(widen(STREAMS)), "refused by HTTP/2"),
        row(
            "headers of a request, and the token in them",
            format!("{}, {}", bytes(widen(HEADER_BYTES)), bytes(TOKEN_BYTES)),
            "431, `TokenRejected`",
        ),
        row("requests on their way to a session", many(OPENING), "`TooBusy`"),
        row("of these looked up at the same time", many(LOOK_UPS), "they wait 5 s, then `TooBusy`"),
        row("tries of a pod to open a session", rate(TRIES, many), "`TooManyTries`"),
        row("take-overs of a tenant's sessions", "3 a minute".to_owned(), "`TooManyTakeovers`"),
        row("bad tokens from an address", rate(BAD_TOKENS, many), "`TooManyTries`"),
        row("tokens put to TokenReview", rate(REVIEWS, many), "`TooBusy`"),
        row(
            "verdicts on tokens, and how long each is believed",
            format!("{}, {}", many(VERDICTS), time(VERDICT_AGE)),
            "reviewed again",
        ),
        row("log lines about refused sessions", rate(REFUSALS_LOGGED, many), "counted, and told with the next"),
    ]
}

fn widen(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A number as people read it.
pub(crate) fn many(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn bytes(number: usize) -> String {
    if number >= MIB { format!("{} MiB", number / MIB) } else { format!("{} KiB", number / KIB) }
}

fn time(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

fn rate(rate: Rate, unit: fn(usize) -> String) -> String {
    format!("{} at once, then {} a second", unit(widen(rate.burst)), unit(widen(rate.per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_their_units() {
        assert_eq!((many(7), many(10_000), many(1_234_567)), ("7".into(), "10,000".into(), "1,234,567".into()));
        assert_eq!((bytes(4 * MIB), bytes(64 * KIB)), ("4 MiB".into(), "64 KiB".into()));
    }

    #[test]
    fn a_tenant_alone_never_meets_the_bounds_of_all() {
        let tenant = Bounds::default();
        assert!(tenant.objects <= tenant.records && tenant.records * 2 < RECORDS && tenant.bytes * 2 < BYTES);
        assert!(tenant.records >= RECORDS_ASSURED && tenant.bytes >= BYTES_ASSURED);
    }
}
