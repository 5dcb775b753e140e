//! The processes as their operators meet them: settings, probes, signals, logs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions, HostApi, HostApiOptions};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::supervisor::Exit;
use k3k_expose_tests::toolchain::product_binaries;
use serde_json::Value;

use crate::world::World;

/// A process has this long to end after its first signal.
const GRACE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn both_processes_end_cleanly_at_the_first_signal() -> Result<()> {
    let rig = Rig::shared();
    let host = rig.sliced().host().await?;
    let host_api = HostApi::start(host, HostApiOptions::default()).await?;
    let plane = rig.virtual_cluster("process").await?;
    let world = World::on(host, &host_api, plane, "process", TenantOptions::default()).await?;
    world.agent.wait_ok("/syncz", GRACE).await?;
    assert_eq!(world.agent.terminate(GRACE).await?, Exit::Code(0));
    assert_eq!(host_api.terminate(GRACE).await?, Exit::Code(0));
    for process in [world.agent.log_lines()?, host_api.log_lines()?] {
        for line in process {
            let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
            assert!(!line.to_string().contains("eyJhbGciOi"), "a token in a log: {line}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_probe_lists_its_checks() -> Result<()> {
    let host_api = Rig::shared().host_api().await?;
    for (path, check) in [("startupz", "ping"), ("livez", "ping"), ("readyz", "services"), ("syncz", "writer")] {
        let (_, text) = host_api.get(&format!("/{path}?verbose")).await?;
        assert!(text.contains(&format!("]{check} ")), "{path}: {text}");
    }
    let metrics = host_api.metrics().await?;
    assert!(metrics.contains("k3k_expose_host_api_build_info{version="), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn outside_a_pod_every_mistake_is_reported_at_once() -> Result<()> {
    let programs = product_binaries()?;
    let mistakes = BTreeMap::from([("K3K_EXPOSE_LOG", "loud"), ("K3K_EXPOSE_ADMIN_ADDRESS", "nowhere")]);
    for program in [&programs.agent, &programs.host_api] {
        let output = tokio::process::Command::new(program).env_clear().envs(&mistakes).output().await?;
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr)?;
        for variable in mistakes.keys() {
            assert!(said.contains(variable), "{said}");
        }
        assert!(said.contains("--help"), "{said}");
        // host-api goes without any setting of its own.
        assert_eq!(said.contains(" is required"), *program == programs.agent, "{said}");

        let help = tokio::process::Command::new(program).arg("--help").output().await?;
        let help = String::from_utf8(help.stdout)?;
        assert!(help.contains("--log-format") && help.contains("K3K_EXPOSE_LOG_FORMAT"), "{help}");
    }
    Ok(())
}

#[tokio::test]
async fn in_a_pod_a_misconfigured_agent_stays_up_and_says_why() -> Result<()> {
    let rig = Rig::shared();
    let plane = rig.virtual_cluster("process").await?;
    let client = rig.host().await?.client().await?;
    let tenant = Tenant::create(&client, "host-misconfigured", "mine", TenantOptions::default()).await?;
    let mut options = AgentOptions::in_pod(&tenant.server_pod_name(0));
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    options.env.push(set("K3K_EXPOSE_HOST_API_URL", "http://host-api"));
    options.env.push(set("K3K_EXPOSE_LOG_FORMAT", "xml"));
    options.env.push(set("K3K_EXPOSE_TOKEN", "secret"));
    let token = tenant.server_pod_token(0).await?;
    let agent = Agent::start(&plane, rig.host_api().await?, &token, options).await?;
    agent.wait_ready().await?;
    for path in ["/startupz", "/livez", "/readyz"] {
        assert_eq!(agent.get(path).await?.0, 200, "{path}");
    }
    let (status, text) = agent.get("/syncz").await?;
    assert_eq!(status, 503);
    for mistake in ["K3K_EXPOSE_HOST_API_URL", "K3K_EXPOSE_LOG_FORMAT"] {
        assert!(text.contains(mistake), "{text}");
    }
    let log = agent.log_lines()?.join("\n");
    assert!(log.contains("K3K_EXPOSE_TOKEN") && !log.contains("secret"), "{log}");
    assert_eq!(agent.terminate(GRACE).await?, Exit::Code(0));
    Ok(())
}
