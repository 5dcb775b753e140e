//! Both the certificate and its authority change under open sessions.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k3k_expose_proto::message::AgentBeat;
use k3k_expose_proto::{FromAgent, FromHost};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::HostApi;
use k3k_expose_tests::wire::{WireSession, hello, tally};
use kube::Client;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::handshake::handshake;
use super::{authorities, bare_host, bundle, own};
use crate::observe::metric;

const SESSIONS: u32 = 20;
/// A sixth of a certificate's life: so long may a bundle be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
/// An authority is renewed after 40 s, and the former one trusted for another 23 s.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was seen of rotations.
#[derive(Debug, Default)]
struct Seen {
    certificates: BTreeSet<Vec<u8>>,
    /// How many authorities the bundle had, change by change.
    bundles: Vec<usize>,
    failed: Vec<String>,
    handshakes: usize,
}

#[tokio::test]
async fn no_session_drops_and_no_handshake_fails_while_certificate_and_authority_are_rotated() -> Result<()> {
    let host = bare_host("rotation").await?;
    let client = host.client().await?;
    let lives = [("K3K_EXPOSE_CERTIFICATE_SECONDS", "20"), ("K3K_EXPOSE_AUTHORITY_SECONDS", "60")];
    let host_api = HostApi::start(&host, own(&lives)).await?;
    host_api.trust(&client).await?;
    let options = TenantOptions { servers: SESSIONS, ..TenantOptions::default() };
    let tenant = Tenant::create(&client, "host-rotation", "mine", options).await?;
    let mut sessions = Vec::new();
    for ordinal in 0..SESSIONS {
        let token = tenant.server_pod_token(ordinal).await?;
        sessions.push(WireSession::open(&host_api, &token, hello("vc", &[])?).await?.0);
    }
    sessions[0].send_snapshot(&[]).await?;

    let over = CancellationToken::new();
    let held = try_join_all(sessions.iter_mut().map(|session| hold(session, &over)));
    let watched = async {
        let seen = rotated(&client, &host_api).await;
        over.cancel();
        seen
    };
    let (held, seen) = tokio::join!(held, watched);
    let seen = seen?;
    assert_eq!(seen.failed, Vec::<String>::new(), "of {} handshakes", seen.handshakes);
    assert_eq!(held?.len(), SESSIONS as usize);
    let ended = "k3k_expose_host_api_sessions_ended_total";
    assert_eq!(host_api.metric(ended).await?.unwrap_or_default(), 0.0);
    assert!((metric(&host_api, "k3k_expose_host_api_sessions").await? - f64::from(SESSIONS)).abs() < 0.5);
    Ok(())
}

/// Keeps a session open as an agent does; fails when host-api ends it.
async fn hold(session: &mut WireSession, over: &CancellationToken) -> Result<()> {
    let tally = tally(&[]);
    let mut beats = interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            () = over.cancelled() => return Ok(()),
            _ = beats.tick() => {
                let beat = AgentBeat { count: tally.count, root: tally.root, ready: true };
                session.send(&FromAgent::Beat(beat)).await?;
            }
            line = session.next() => if let FromHost::Bye(bye) = line?.context("host-api closed a session")? {
                bail!("host-api ended a session: {bye:?}");
            }
        }
    }
}

/// Opens connections until an authority was followed by a new one and is trusted no more; each by the bundle of that moment, and by
/// one that was on its way.
async fn rotated(client: &Client, host_api: &HostApi) -> Result<Seen> {
    let (mut seen, mut told) = (Seen::default(), VecDeque::<(Instant, String)>::new());
    let first = bundle(client).await?;
    eventually("a rotation of the authority", PATIENCE, async || {
        let present = bundle(client).await?;
        let now = Instant::now();
        if told.back().is_none_or(|(_, last)| *last != present) {
            seen.bundles.push(authorities(&present));
            told.push_back((now, present.clone()));
        }
        // The newest one that has had time to arrive.
        while told.get(1).is_some_and(|(at, _)| now - *at >= ON_ITS_WAY - Duration::from_secs(1)) {
            told.pop_front();
        }
        let late = told.front().map(|(_, bundle)| bundle.clone()).context("there is one")?;
        for port in [host_api.url(), host_api.admission_url()] {
            for (age, bundle) in [("present", &present), ("late", &late)] {
                seen.handshakes += 1;
                match handshake(&port, bundle).await {
                    Ok(certificate) => drop(seen.certificates.insert(certificate)),
                    Err(error) => seen.failed.push(format!("{age}: {error:#}")),
                }
            }
        }
        ensure!(authorities(&present) == 1 && !present.contains(&first), "{} authorities", authorities(&present));
        anyhow::Ok(())
    })
    .await
    .with_context(|| format!("{:?}, failed {:?}", seen.bundles, seen.failed))?;
    assert_eq!(seen.bundles, [1, 2, 1], "the authorities overlap");
    assert!(seen.certificates.len() >= 4, "{} certificates", seen.certificates.len());
    Ok(seen)
}
