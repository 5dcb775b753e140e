//! Host-api away for an hour, on paused time; the sockets are real.

use std::cell::Cell;
use std::net::TcpListener as Bound;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use clap::Parser;
use k3k_expose_proto::{Resource, Uid};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::*;
use crate::admin;
use crate::config::Raw;

const HOUR: Duration = Duration::from_secs(3600);
/// Longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(3);

/// Settings that lead to nobody: a port that was free a moment ago.
fn config(folder: &std::path::Path, address: std::net::SocketAddr) -> Config {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let flags = [
        ("--host-api-url", format!("https://{address}")),
        ("--token-file", file("token", "token")),
        // No authority is needed where nobody answers.
        ("--host-api-ca-file", file("ca.crt", "")),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    Config::try_from(Raw::try_parse_from(["k3k-expose-agent".to_owned()].into_iter().chain(flags)).unwrap()).unwrap()
}

async fn status(agent: &Arc<Agent>, path: &str) -> StatusCode {
    let request = Request::get(path).body(Body::empty()).unwrap();
    admin::router(Arc::clone(agent)).oneshot(request).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_host_api_leaves_the_pod_alive_and_ready_and_the_agent_knocks_on() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let free = Bound::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let folder = std::env::temp_dir().join(format!("k3k-expose-agent-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (config, stop) = (config(&folder, address), CancellationToken::new());
    let agent = Arc::new(Agent::new(&[Resource::Services]));
    agent.change(|outbox| outbox.replace(Resource::Services, &Uid::parse("c").unwrap(), Vec::new()));
    let sessions = Sessions::new(&agent, &config, &stop);

    let (began, looks) = (Instant::now(), Cell::new(0));
    let watched = async {
        while began.elapsed() < HOUR {
            for path in ["/startupz", "/livez", "/readyz"] {
                assert_eq!(status(&agent, path).await, StatusCode::OK, "{path} after {:?}", began.elapsed());
            }
            assert_eq!(status(&agent, "/syncz").await, StatusCode::SERVICE_UNAVAILABLE);
            looks.set(looks.get() + 1);
            sleep(Duration::from_secs(60)).await;
        }
        // It is back: the next try comes by itself.
        let back = (TcpListener::bind(address).await.unwrap(), Instant::now());
        back.0.accept().await.unwrap();
        back.1.elapsed()
    };
    let knocked = tokio::select! {
        () = sessions.run() => panic!("the sessions ended"),
        knocked = watched => knocked,
    };
    assert_eq!(looks.get(), 60);
    assert!(knocked <= LONGEST, "{knocked:?}");
    let tries = agent.metrics.text(agent.snapshot()).unwrap();
    let tries =
        tries.lines().find_map(|line| line.strip_prefix("k3k_expose_agent_sessions_total{result=\"unreachable\"} "));
    let tries: u32 = tries.unwrap().parse().unwrap();
    // On the average every one and a half seconds.
    assert!((1200..6000).contains(&tries), "{tries} tries");
    std::fs::remove_dir_all(&folder).unwrap();
}
