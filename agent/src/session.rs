//! The agent's side of one session: what each line of host-api means, and how a session ends. Pure.

use std::time::Duration;

use k3k_expose_proto::message::{ByeReason, HostBeat, Role, Welcome};
use k3k_expose_proto::{FromAgent, FromHost, Uid, version};

use crate::outbox::{News, Outbox};
use crate::reconnect::Failure;

/// A session, from `hello` on.
#[derive(Debug, Default)]
pub struct Session {
    generation: Option<u64>,
    role: Option<Role>,
}

/// What a line of host-api leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing beyond the outbox.
    Nothing,
    /// The session is open.
    Opened(Opened),
    /// This agent's objects count from now on.
    Promoted,
    /// A new answer.
    Answered(Box<News>),
    /// Host-api lives, and says what is the case there.
    Beat(HostBeat),
    /// The session is over.
    Over(Over),
}

/// A session that has just been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its name.
    pub session: Uid,
    /// Whether this agent's objects count.
    pub role: Role,
    /// When host-api will end it.
    pub ends_in: Duration,
    /// What a beat would have said.
    pub host: HostBeat,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// A newer session of this process has taken over.
    #[error("a newer session took over")]
    TakenOver,
    /// Host-api said so.
    #[error("host-api ended the session ({reason}): {message}")]
    Bye {
        /// Why, as a word.
        reason: &'static str,
        /// Why, in words.
        message: String,
        /// How soon the next try makes sense.
        failure: Failure,
    },
    /// The admitted annotation keys changed, so everything is projected anew first.
    #[error("host-api admits other annotations, so that everything is projected anew")]
    Reproject,
    /// Objects vanished without a word, so that only a new `hello` tells the truth.
    #[error("the list of objects changed without events")]
    Relisted,
    /// Host-api said something that is no message, or out of turn.
    #[error("host-api broke the protocol: {0}")]
    Malformed(String),
    /// Nothing was heard for too long.
    #[error("host-api was silent for too long")]
    Silent,
    /// Nothing was taken for too long.
    #[error("host-api took no line for too long")]
    Stalled,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Lost(String),
    /// This process is stopping.
    #[error("the agent is stopping")]
    Stopped,
}

impl Session {
    /// The session's place in the outbox, once it is open.
    #[must_use]
    pub const fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Takes in a line.
    pub fn hear(&mut self, outbox: &mut Outbox, line: FromHost) -> Heard {
        match (self.generation, line) {
            (_, FromHost::Bye(bye)) => Heard::Over(Over::Bye {
                reason: reason(bye.reason),
                failure: failure(bye.reason, bye.retry_after_s),
                message: bye.message,
            }),
            (None, FromHost::Welcome(welcome)) => self.open(outbox, welcome),
            (None, _) => Heard::Over(Over::Malformed("a line before the welcome".to_owned())),
            (Some(generation), FromHost::Welcome(welcome)) if self.role == Some(Role::Standby) => {
                self.promote(outbox, generation, &welcome)
            }
            (Some(_), FromHost::Welcome(_)) => Heard::Over(Over::Malformed("a second welcome".to_owned())),
            (Some(generation), FromHost::Answer(answer)) => {
                outbox.answer(generation, *answer).map_or(Heard::Nothing, |news| Heard::Answered(Box::new(news)))
            }
            (Some(generation), FromHost::Want(want)) => {
                outbox.want(generation, &want);
                Heard::Nothing
            }
            (Some(_), FromHost::Beat(beat)) => Heard::Beat(beat),
        }
    }

    /// Whether there is a line to say, or why there will be none again.
    ///
    /// # Errors
    /// [`Over`] when the session was taken over or can no longer say the truth.
    pub fn has_next(&self, outbox: &Outbox) -> Result<bool, Over> {
        let Some(generation) = self.generation else {
            return Ok(false);
        };
        if !outbox.is_current(generation) {
            return Err(Over::TakenOver);
        }
        if outbox.is_broken(generation) {
            return Err(Over::Relisted);
        }
        Ok(outbox.has_next(generation))
    }

    /// The next line.
    pub fn next(&self, outbox: &mut Outbox) -> Option<FromAgent> {
        outbox.next(self.generation?)
    }

    /// A sign of life.
    #[must_use]
    pub fn beat(&self, outbox: &Outbox, ready: bool) -> Option<FromAgent> {
        outbox.beat(self.generation?, ready)
    }

    /// The agent that spoke for the tenant is gone, and this one takes its place within its session.
    fn promote(&mut self, outbox: &mut Outbox, generation: u64, welcome: &Welcome) -> Heard {
        if outbox.admit(&welcome.limits.annotations) {
            return Heard::Over(Over::Reproject);
        }
        self.generation = outbox.promote(generation, welcome);
        self.role = Some(welcome.role);
        if self.generation.is_some() { Heard::Promoted } else { Heard::Over(Over::TakenOver) }
    }

    fn open(&mut self, outbox: &mut Outbox, welcome: Welcome) -> Heard {
        if !version::SUPPORTED.contains(&welcome.version) {
            return Heard::Over(Over::Malformed("a welcome of an unknown version".to_owned()));
        }
        if outbox.admit(&welcome.limits.annotations) {
            outbox.withdraw();
            return Heard::Over(Over::Reproject);
        }
        self.generation = Some(outbox.welcome(&welcome));
        self.role = Some(welcome.role);
        Heard::Opened(Opened {
            session: welcome.session,
            role: welcome.role,
            ends_in: Duration::from_secs(u64::from(welcome.ends_in_s)),
            host: HostBeat {
                k3k_syncs: welcome.k3k_syncs,
                k3k_syncs_ingresses: welcome.k3k_syncs_ingresses,
                ingress_classes: welcome.ingress_classes,
            },
            warnings: welcome.warnings,
        })
    }
}

impl Over {
    /// How soon the next try makes sense.
    #[must_use]
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Bye { failure, .. } => *failure,
            Self::Malformed(_) => Failure::Busy(None),
            Self::Reproject | Self::Relisted => Failure::Anew,
            _ => Failure::Lost,
        }
    }

    /// The end as a word of a closed list, for metrics.
    #[must_use]
    pub const fn result(&self) -> &'static str {
        match self {
            Self::TakenOver => "renewed",
            Self::Bye { reason, .. } => reason,
            Self::Reproject | Self::Relisted => "restarted",
            Self::Malformed(_) => "malformed",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Lost(_) => "lost",
            Self::Stopped => "stopped",
        }
    }
}

const fn reason(reason: ByeReason) -> &'static str {
    match reason {
        ByeReason::Superseded => "superseded",
        ByeReason::Role => "role",
        ByeReason::Draining => "draining",
        ByeReason::Slow => "slow",
        ByeReason::Expired => "expired",
        ByeReason::Unsupported => "unsupported",
        ByeReason::Malformed => "malformed",
        ByeReason::Exceeded => "exceeded",
        ByeReason::Unknown => "unknown",
    }
}

fn failure(reason: ByeReason, retry_after_s: Option<u32>) -> Failure {
    let asked = retry_after_s.map(|seconds| Duration::from_secs(u64::from(seconds)));
    match reason {
        // Another process with the same identity: whoever hurries keeps both from working.
        ByeReason::Superseded | ByeReason::Unsupported | ByeReason::Malformed => Failure::Busy(asked),
        ByeReason::Role => Failure::Anew,
        _ if asked.is_some() => Failure::Busy(asked),
        _ => Failure::Lost,
    }
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::message::{Bye, Limits, Resume};

    use super::*;

    fn welcome(annotations: &[&str]) -> FromHost {
        FromHost::Welcome(Welcome {
            version: 1,
            session: Uid::parse("s").unwrap(),
            epoch: Uid::parse("e").unwrap(),
            role: Role::Active,
            limits: Limits { in_flight: 4, annotations: annotations.iter().map(|key| (*key).to_owned()).collect() },
            resume: Resume::Snapshot,
            ends_in_s: 60,
            k3k_syncs: false,
            k3k_syncs_ingresses: false,
            ingress_classes: None,
            warnings: Vec::new(),
        })
    }

    fn listed() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.replace(k3k_expose_proto::Resource::Services, &Uid::parse("c").unwrap(), Vec::new());
        outbox.hello().unwrap();
        outbox
    }

    #[test]
    fn the_first_line_is_a_welcome_or_a_bye_and_there_is_one_welcome() {
        let mut outbox = listed();
        let mut session = Session::default();
        let early = session.hear(
            &mut outbox,
            FromHost::Beat(HostBeat { k3k_syncs: false, k3k_syncs_ingresses: false, ingress_classes: None }),
        );
        assert!(matches!(early, Heard::Over(Over::Malformed(_))));
        assert!(matches!(session.hear(&mut outbox, welcome(&[])), Heard::Opened(_)));
        let second = session.hear(&mut outbox, welcome(&[]));
        assert!(matches!(second, Heard::Over(Over::Malformed(_))));
    }

    #[test]
    fn other_annotation_keys_mean_that_everything_is_projected_anew_before_anything_is_said() {
        let mut outbox = listed();
        let mut session = Session::default();
        let heard = session.hear(&mut outbox, welcome(&["example.com/a"]));
        assert_eq!(heard, Heard::Over(Over::Reproject));
        assert!(!outbox.is_ready());
        outbox.replace(k3k_expose_proto::Resource::Services, &Uid::parse("c").unwrap(), Vec::new());
        outbox.hello().unwrap();
        let heard = Session::default().hear(&mut outbox, welcome(&["example.com/a"]));
        assert!(matches!(heard, Heard::Opened(_)));
    }

    #[test]
    fn a_session_that_was_taken_over_says_nothing_more() {
        let mut outbox = listed();
        let mut old = Session::default();
        old.hear(&mut outbox, welcome(&[]));
        assert_eq!(old.has_next(&outbox), Ok(true));
        outbox.hello().unwrap();
        Session::default().hear(&mut outbox, welcome(&[]));
        assert_eq!(old.has_next(&outbox), Err(Over::TakenOver));
        assert_eq!(old.next(&mut outbox), None);
        assert_eq!(old.beat(&outbox, true), None);
    }

    #[test]
    fn a_bye_says_how_soon_to_come_back() {
        let bye = |reason, retry_after_s| {
            let bye = Bye { reason, message: String::new(), retry_after_s };
            match Session::default().hear(&mut listed(), FromHost::Bye(bye)) {
                Heard::Over(over) => over.failure(),
                other => panic!("{other:?}"),
            }
        };
        let asked = Failure::Busy(Some(Duration::from_secs(7)));
        assert_eq!(bye(ByeReason::Draining, Some(7)), asked);
        assert_eq!(bye(ByeReason::Draining, None), Failure::Lost);
        assert_eq!(bye(ByeReason::Expired, None), Failure::Lost);
        assert_eq!(bye(ByeReason::Superseded, None), Failure::Busy(None));
        assert_eq!(bye(ByeReason::Malformed, None), Failure::Busy(None));
    }
}
