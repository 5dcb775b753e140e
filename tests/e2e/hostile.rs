//! What a broken or hostile agent can say, and that nobody else notices: spoken by hand to a host-api of its own.

mod floods;
mod replayed;
mod stage;
mod texts;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use k3k_expose_proto::message::{ByeReason, End, FromAgent, Resume};
use k3k_expose_proto::{FromHost, Root, line};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::HostApi;
use k3k_expose_tests::progress::say;
use k3k_expose_tests::wire::{WireSession, end};
use tokio::time::timeout;

use crate::observe::{headless, twins};
use crate::world::SOON;
use stage::Stage;

/// What the memory of host-api may grow by, in KiB.
const GROWTH: u64 = 16 * 1024;
const MIB: usize = 1 << 20;

#[tokio::test]
async fn what_is_no_message_ends_the_session_with_a_reason_and_nothing_else() -> Result<()> {
    let mut stage = Stage::start("host-broken").await?;
    let good = String::from_utf8(line::encode(&FromAgent::Put(headless("new")?))?)?;
    let duplicate_field = good.replacen("\"uid\":", "\"uid\":\"other\",\"uid\":", 1);
    let duplicate_key = good.replacen("\"app\":", "\"app\":\"other\",\"app\":", 1);
    assert!(duplicate_field != good && duplicate_key != good, "{good}");
    let table: [(&str, Vec<u8>, ByeReason); 9] = [
        ("a broken line", b"{\"put\":{\n".to_vec(), ByeReason::Malformed),
        ("half a put", format!("{}\n", &good[..good.len() / 2]).into(), ByeReason::Malformed),
        ("an empty line", b"\n".to_vec(), ByeReason::Malformed),
        ("nested brackets", format!("{}\n", "[".repeat(10_000)).into(), ByeReason::Malformed),
        ("invalid utf-8", b"{\"put\":\"\xff\xfe\"}\n".to_vec(), ByeReason::Malformed),
        ("a duplicate field", duplicate_field.into(), ByeReason::Malformed),
        ("a duplicate selector key", duplicate_key.into(), ByeReason::Malformed),
        ("an unknown message", b"{\"obey\":{}}\n".to_vec(), ByeReason::Unsupported),
        ("a line of 64 KiB and a byte", format!("{}\n", "x".repeat(64 * 1024 + 1)).into(), ByeReason::Malformed),
    ];
    for (name, bytes, reason) in table {
        let mut session = stage.session(Resume::Nothing).await?;
        session.send_raw(bytes).await?;
        let bye = session.bye().await.context(name)?;
        assert_eq!(bye.reason, reason, "{name}: {bye:?}");
        assert!(!bye.message.is_empty(), "{name}");
        stage.unharmed(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_snapshot_that_is_cut_or_does_not_add_up_deletes_nothing() -> Result<()> {
    let mut stage = Stage::start("host-cut").await?;
    let session = stage.session(Resume::Snapshot).await?;
    session.send(&FromAgent::Put(stage.said[0].clone())).await?;
    session.send_raw("{\"put\":".as_bytes()).await?;
    stage.unharmed("the middle of a line in the middle of a snapshot").await?;
    drop(session);
    stage.unharmed("a snapshot cut in half").await?;

    let mut session = stage.session(Resume::Snapshot).await?;
    session.send(&FromAgent::Put(stage.said[0].clone())).await?;
    session.close();
    while session.next().await?.is_some() {}
    stage.unharmed("a snapshot that just ends").await?;

    let ends = [
        ("an end that counts too many", end(&stage.said)),
        ("an end of another root", End { root: Root::default(), ..end(&stage.said[..1]) }),
    ];
    for (name, end) in ends {
        let mut session = stage.session(Resume::Snapshot).await?;
        session.send(&FromAgent::Put(stage.said[0].clone())).await?;
        session.send(&FromAgent::End(end)).await?;
        assert_eq!(session.bye().await?.reason, ByeReason::Malformed, "{name}");
        stage.unharmed(name).await?;
    }

    // The same said completely takes the rest away, which shows that the cuts above were what kept it.
    let session = stage.session(Resume::Snapshot).await?;
    session.send_snapshot(&stage.said[..1]).await?;
    eventually("one twin", SOON, async || {
        let left = twins(&stage.hostile).await?.len();
        anyhow::ensure!(left == 1, "{left}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn a_line_without_an_end_costs_host_api_no_memory() -> Result<()> {
    let mut stage = Stage::start("host-long").await?;
    let before = stage.host_api.rss_kib().await?;
    let mut most = before;
    for _ in 0..3 {
        let session = stage.session(Resume::Nothing).await?;
        let sent = push(session, &stage.host_api, &mut most).await?;
        say(&format!("of a line without an end {} MiB were taken", sent / MIB));
        assert!(sent < 1024 * MIB, "a GiB was taken");
    }
    say(&format!("host-api grew by at most {} KiB", most.saturating_sub(before)));
    assert!(most < before + GROWTH, "host-api grew from {before} KiB to {most} KiB");
    stage.unharmed("lines without an end").await?;

    // Before the first line is complete nobody has been let in, and the bound is the same.
    let first = Bytes::from(vec![b'x'; 64 * 1024 + 1]);
    match WireSession::open_raw(&stage.host_api, &stage.token, first).await {
        Err(problem) => assert_eq!((problem.status, problem.reason.as_str()), (400, "BadHello"), "{problem}"),
        Ok(_) => bail!("a first line without an end was welcomed"),
    }
    assert!(stage.host_api.process().await.exit().is_none());
    stage.unharmed("a first line without an end").await
}

/// Pushes up to a GiB without a newline, as fast as it is taken, until the session ends. Gives the bytes taken.
async fn push(mut session: WireSession, host_api: &HostApi, most: &mut u64) -> Result<usize> {
    let chunk = Bytes::from(vec![b'x'; MIB]);
    let mut sent = 0;
    while sent < 1024 * MIB {
        // Once host-api reads no more, the next piece is either refused or never taken.
        match timeout(Duration::from_secs(1), session.send_raw(chunk.clone())).await {
            Ok(Ok(())) => sent += MIB,
            Ok(Err(_)) | Err(_) => break,
        }
        *most = (*most).max(host_api.rss_kib().await?);
    }
    match session.bye().await {
        Ok(bye) => assert_eq!(bye.reason, ByeReason::Malformed, "{bye:?}"),
        Err(error) => bail!("the session ended without a reason after {sent} bytes: {error:#}"),
    }
    let rest = session.next().await;
    assert!(!matches!(rest, Ok(Some(FromHost::Answer(_)))), "{rest:?}");
    *most = (*most).max(host_api.rss_kib().await?);
    Ok(sent)
}
