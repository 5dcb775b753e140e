//! Floods of HTTP/2 frames and of connections: they end their own connection, and nobody else notices.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k3k_expose_proto::line;
use k3k_expose_proto::message::FromAgent;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, Target, frame_into, header_into,
    session_headers,
};
use k3k_expose_tests::progress::say;
use k3k_expose_tests::took;
use k3k_expose_tests::wire::hello;
use tokio::time::Instant;

use super::stage::Stage;
use crate::observe::metric;
use crate::world::SOON;

/// Connections of the crowd, and how many of them do their handshakes at the same time.
const CROWD: usize = 2_000;
const AT_ONCE: usize = 50;
/// Initial window of streams towards us (RFC 9113, section 6.5.2).
const INITIAL_WINDOW: u16 = 4;
/// What a host-api may hold, in KiB.
const MEMORY: u64 = 100 * 1024;
const PIECES: u32 = 20_000;

#[tokio::test]
async fn a_flood_of_frames_ends_its_own_connection_and_nothing_else() -> Result<()> {
    let mut stage = Stage::start("host-frames").await?;
    let target = Target::of(&stage.host_api)?;
    let headers = session_headers(&stage.token);
    let opened = line::encode(&FromAgent::Hello(hello("hostile-cluster", &stage.said)?))?;
    let before = stage.host_api.rss_kib().await?;

    let resets = (0..PIECES).map(|number| {
        let (stream, mut bytes) = (2 * number + 1, Vec::new());
        frame_into(&mut bytes, HEADERS, END_HEADERS, stream, &headers);
        frame_into(&mut bytes, RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        bytes
    });
    ends(&mut stage, &target, "rapid resets", resets).await?;

    let mut padding = Vec::new();
    header_into(&mut padding, "x-padding", &"x".repeat(1_000));
    let begun = std::iter::once(frame(HEADERS, 0, 1, &headers));
    let more = (0..PIECES).map(|_| frame(CONTINUATION, 0, 1, &padding));
    ends(&mut stage, &target, "headers that never end", begun.chain(more)).await?;

    let begun = [frame(HEADERS, END_HEADERS, 1, &headers), frame(DATA, 0, 1, &opened)];
    let more = (0..PIECES).map(|_| frame(DATA, 0, 1, &[]));
    ends(&mut stage, &target, "empty pieces of a body", begun.into_iter().chain(more)).await?;

    let begun = std::iter::once(frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers));
    let more = (0..PIECES).map(|_| frame(DATA, 0, 1, b"x"));
    ends(&mut stage, &target, "a body after its end", begun.chain(more)).await?;

    let after = stage.host_api.rss_kib().await?;
    say(&format!("floods of frames: host-api went from {before} KiB to {after} KiB"));
    assert!(after < MEMORY, "{after} KiB");
    Ok(())
}

#[tokio::test]
async fn a_compressed_body_and_headers_beyond_their_bound_are_refused() -> Result<()> {
    let mut stage = Stage::start("host-compressed").await?;
    let authorities = reqwest::Certificate::from_pem_bundle(stage.host_api.ca_pem().as_bytes())?;
    let client = reqwest::Client::builder().tls_certs_only(authorities).http2_prior_knowledge().no_proxy().build()?;
    let url = format!("{}/v1/session", stage.host_api.url());
    // The first bytes of any gzip stream; nothing behind them is ever unpacked.
    let packed = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 4096], b"\n"].concat();
    let request = client.post(&url).bearer_auth(&stage.token).header("content-encoding", "gzip").body(packed);
    let answer = request.send().await?;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await?.contains("BadHello"));
    let request = client.post(&url).bearer_auth(&stage.token).header("x-padding", "x".repeat(20_000)).body("");
    if let Ok(answer) = request.send().await {
        assert_eq!(answer.status(), 431);
    }
    stage.unharmed("a compressed body and long headers").await
}

#[tokio::test]
async fn a_crowd_that_says_nothing_costs_bounded_memory_and_keeps_nobody_out() -> Result<()> {
    let mut stage = Stage::start("host-crowd").await?;
    for (port, target) in
        [("session", Target::of(&stage.host_api)?), ("admission", Target::admission(&stage.host_api)?)]
    {
        let before = stage.host_api.rss_kib().await?;
        let mut crowd: Vec<Frames> = Vec::new();
        let mut most = before;
        while crowd.len() < CROWD {
            let arrivals = (0..AT_ONCE).map(|_| target.connect(&[]));
            // Some give way before they have said their first words.
            let arrived = join_all(arrivals).await;
            ensure!(arrived.iter().any(Result::is_ok), "nobody was let in");
            crowd.extend(arrived.into_iter().flatten());
            most = most.max(stage.host_api.rss_kib().await?);
        }
        say(&format!(
            "{CROWD} idle connections of the {port} port: host-api went from {before} KiB to at most {most} KiB"
        ));
        assert!(most < MEMORY, "{most} KiB");
        stage.unharmed("a crowd of connections").await?;
        // Whoever comes now finds room, since the oldest gave way.
        let began = Instant::now();
        stage.renewed().await?;
        took("a new session among a crowd", began.elapsed(), Duration::from_secs(1));
        let oldest = crowd.swap_remove(0).closed(SOON).await;
        assert!(oldest.is_ok(), "the oldest did not give way");
        drop(crowd);
        stage.unharmed("a crowd that left").await?;
    }
    Ok(())
}

#[tokio::test]
async fn streams_that_stay_half_open_or_unread_end_by_themselves() -> Result<()> {
    let mut stage = Stage::start("host-half-open").await?;
    let target = Target::of(&stage.host_api)?;
    let headers = session_headers(&stage.token);
    let mut half_open = Vec::new();
    for _ in 0..20 {
        let mut frames = target.connect(&[]).await?;
        for stream in [1, 3, 5, 7] {
            frames.frame(HEADERS, END_HEADERS, stream, &headers).await?;
        }
        half_open.push(frames);
    }
    stage.unharmed("eighty streams without a hello").await?;
    let refused = async |reason: &str| {
        let series = format!("k3k_expose_host_api_sessions_refused_total{{reason=\"{reason}\"}}");
        metric(&stage.host_api, &series).await
    };
    eventually("the end of all half-open streams", SOON, async || {
        let (late, often) = (refused("BadHello").await?, refused("TooManyTries").await?);
        ensure!(late >= 1.0 && often >= 1.0 && late + often >= 79.0, "{late} without a hello, {often} too often");
        anyhow::Ok(())
    })
    .await?;
    drop(half_open);

    // One that lets host-api send nothing at all, and speaks.
    let mut unread = eventually("a session that reads nothing", SOON, async || {
        let mut frames = target.connect(&[(INITIAL_WINDOW, 0)]).await?;
        frames.frame(HEADERS, END_HEADERS, 1, &headers).await?;
        let hello = line::encode(&FromAgent::Hello(hello("hostile-cluster", &stage.said)?))?;
        frames.frame(DATA, 0, 1, &hello).await?;
        let opened = "k3k_expose_host_api_sessions";
        eventually("its session", Duration::from_secs(5), async || {
            let open = metric(&stage.host_api, opened).await?;
            ensure!(open >= 2.0, "{open}");
            anyhow::Ok(())
        })
        .await?;
        anyhow::Ok(frames)
    })
    .await?;
    let before = stage.host_api.rss_kib().await?;
    for put in &stage.said {
        let said = line::encode(&FromAgent::Put(put.clone()))?;
        for _ in 0..100 {
            unread.frame(DATA, 0, 1, &said).await.context("host-api takes no more")?;
        }
    }
    let after = stage.host_api.rss_kib().await?;
    say(&format!("an unread session: host-api went from {before} KiB to {after} KiB"));
    assert!(after < MEMORY, "{after} KiB");
    stage.unharmed("a session that reads nothing").await
}

/// Sends a flood until host-api closes the connection; the neighbor must not notice.
async fn ends(stage: &mut Stage, target: &Target, name: &str, pieces: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let mut frames = target.connect(&[]).await?;
    let sent = frames.until_closed(pieces).await.with_context(|| name.to_owned())?;
    say(&format!("{name}: closed after {sent} pieces"));
    stage.unharmed(name).await
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame_into(&mut bytes, kind, flags, stream, payload);
    bytes
}
