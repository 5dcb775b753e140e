//! Texts of a tenant that forge, command or hide: what is logged stays one JSON object a line, and what is told readable.

use anyhow::{Context, Result};
use k3k_expose_proto::message::{ByeReason, FromAgent, Put, Resume};
use k3k_expose_proto::service::{ClusterIps, Service, ServiceType};
use k3k_expose_proto::{Outcome, line};
use k3k_expose_tests::wire::{WireSession, hello, put};
use serde_json::Value;

use super::stage::Stage;

/// Control characters, ANSI escapes, marks of direction, joiners, quotes and line ends.
const TEXTS: [&str; 6] = [
    "a\u{1b}[2J\u{1b}]0;owned\u{7}",
    "a\r\n{\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}",
    "a\u{202e}txt.exe\u{2066}\u{200b}",
    "a\u{0}\u{8}\u{7f}",
    "\"}],\"x\":[{\"",
    "%s%n${jndi:ldap://x}",
];

#[tokio::test]
async fn hostile_texts_leave_log_lines_whole_and_answers_readable() -> Result<()> {
    let mut stage = Stage::start("host-texts").await?;
    let long = "x".repeat(10_000);
    let mut session = stage.session(Resume::Nothing).await?;
    for (number, text) in TEXTS.into_iter().chain([long.as_str()]).enumerate() {
        for (field, service) in
            [("label", label(text)), ("key", key(text)), ("selector", selector(text)), ("word", word(text))]
        {
            let put: Put = put("default", &format!("{field}-{number}"), "uid", service)?;
            session.send(&FromAgent::Put(put.clone())).await?;
            let answer = session.settled(&put).await.with_context(|| format!("{field} {text:?}"))?;
            assert_eq!(answer.outcome, Outcome::Rejected, "{field} {text:?}");
            let shown =
                |text: &str| text.chars().all(|char| !char.is_control() && char != '\u{202e}') && text.len() < 1024;
            assert!(shown(&answer.message) && !answer.message.is_empty(), "{:?}", answer.message);
        }
    }
    drop(session);

    // The same in places that are read before anybody knows what they mean.
    for text in TEXTS {
        let said = line::encode(&FromAgent::Put(put("default", "web", "uid", label("x"))?))?;
        let said = String::from_utf8(said)?;
        for place in ["\"services/default/web\"", "\"uid\":\"uid\""] {
            let forged = said.replacen(
                place,
                &place.replacen("web", &escaped(text), 1).replacen(
                    "\"uid\":\"uid\"",
                    &format!("\"uid\":\"{}\"", escaped(text)),
                    1,
                ),
                1,
            );
            let mut session = stage.session(Resume::Snapshot).await?;
            session.send_raw(forged).await?;
            let bye = session.bye().await?;
            assert_eq!(bye.reason, ByeReason::Malformed, "{text:?}");
            assert!(!bye.message.contains("owned") && !bye.message.contains("forged"), "{bye:?}");
        }
        let mut named = hello("hostile-cluster", &[])?;
        named.agent = text.to_owned();
        let refused = WireSession::open(&stage.host_api, &stage.token, named).await.err();
        // What can be seen is a version, if an odd one.
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let reason = refused.map(|problem| problem.reason).unwrap_or_default();
        assert!(plain || reason == "BadHello", "{text:?}: {reason}");
    }
    stage.unharmed("hostile texts").await?;

    let lines = stage.host_api.log_lines()?;
    assert!(lines.len() > 30, "debug says more than {} lines", lines.len());
    for line in &lines {
        let whole: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        assert!(whole.is_object() && whole["level"].is_string(), "{line}");
        let hidden = |char: char| char != '…' && ('\u{200b}'..='\u{206f}').contains(&char);
        assert!(!line.chars().any(|char| char.is_control() || hidden(char)), "{line:?}");
        assert!(line.len() < 4096, "{} bytes", line.len());
        assert!(!line.contains(&stage.token), "the token is in the log");
    }
    Ok(())
}

fn label(text: &str) -> Service {
    let mut service = word("PreferClose");
    service.labels.insert("label".to_owned(), text.to_owned());
    service
}

fn key(text: &str) -> Service {
    let mut service = word("PreferClose");
    service.labels.insert(text.to_owned(), "x".to_owned());
    service
}

fn selector(text: &str) -> Service {
    let mut service = word("PreferClose");
    service.selector.insert("app".to_owned(), text.to_owned());
    service
}

fn word(text: &str) -> Service {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.cluster_ips = ClusterIps::Headless;
    service.traffic_distribution = Some(text.to_owned());
    service
}

/// As it stands inside a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a string can be written");
    quoted[1..quoted.len() - 1].to_owned()
}
