//! A test process that is killed leaves nothing running.
//!
//! The process to kill is this same test binary, told by a variable to play that part in one of its tests.

use std::fs;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use k3k_expose_tests::supervisor::{Exit, Launch, Rank, Signal};
use k3k_expose_tests::{eventually, scratch, usage};
use tokio::process::Command;

/// Set for the process that is going to be killed: the folder where it leaves the numbers of its children.
const PART: &str = "K3K_EXPOSE_RIG_DOOMED";

#[tokio::test]
async fn a_killed_test_process_leaves_nothing_running() -> anyhow::Result<()> {
    let folder = scratch::folder("doomed")?;
    let mut doomed = Command::new(std::env::current_exe()?)
        .args(["--exact", "rig::doomed::plays_the_killed_process_when_asked_to"])
        .env(PART, &folder)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let children = eventually("three children", Duration::from_secs(20), async || read_pids(&folder).await).await?;
    assert!(children.iter().all(|pid| usage::is_running(*pid)), "{children:?}");

    doomed.kill().await?;
    eventually("all children gone", Duration::from_secs(20), async || {
        !children.iter().any(|pid| usage::is_running(*pid))
    })
    .await?;
    let order = fs::read_to_string(folder.join("order"))?;
    assert_eq!(order, "api-server\netcd\n", "storage ends last");
    let files = PathBuf::from(fs::read_to_string(folder.join("files"))?);
    eventually("its files removed", Duration::from_secs(10), async || !files.exists()).await?;
    Ok(())
}

#[tokio::test]
async fn plays_the_killed_process_when_asked_to() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os(PART).map(PathBuf::from) else {
        return Ok(());
    };
    let order = folder.join("order");
    let noting =
        |who: &str| format!("trap 'echo {who} >> {}; exit 0' TERM; while :; do sleep 1; done", order.display());
    let stubborn = "trap '' TERM; while :; do sleep 1; done".to_owned();
    let mut pids = Vec::new();
    for (rank, script) in
        [(Rank::Etcd, noting("etcd")), (Rank::ApiServer, noting("api-server")), (Rank::Product, stubborn)]
    {
        pids.push(shell(&folder, rank, &script).start().await?.pid().to_string());
    }
    fs::write(folder.join("files"), scratch::run_folder()?.display().to_string())?;
    scratch::replace_file(&folder.join("pids"), &pids.join("\n"))?;
    pending().await
}

#[tokio::test]
async fn a_supervised_process_tells_how_it_ended_and_starts_again() -> anyhow::Result<()> {
    let folder = scratch::folder("ends")?;
    let deadline = Duration::from_secs(10);
    let launch = shell(&folder, Rank::Product, "echo hello; exit 7");
    for _ in 0..2 {
        assert_eq!(launch.start().await?.wait(deadline).await?, Exit::Code(7));
    }
    assert_eq!(fs::read_to_string(&launch.log)?, "hello\nhello\n");

    let sleeper = shell(&folder, Rank::Product, "exec sleep 1000").start().await?;
    sleeper.signal(Signal::Stop);
    assert!(sleeper.wait(Duration::from_millis(50)).await.is_err());
    assert_eq!(sleeper.kill().await?, Exit::Signal(9));
    assert!(!usage::is_running(sleeper.pid()));

    let absent = Launch { program: folder.join("absent"), ..launch };
    let error = absent.start().await.err().context("an absent program started")?;
    assert!(error.to_string().contains("no such file"), "{error}");
    Ok(())
}

fn shell(folder: &Path, rank: Rank, script: &str) -> Launch {
    Launch {
        name: "shell".to_owned(),
        rank,
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        log: folder.join("shell.log"),
    }
}

async fn read_pids(folder: &Path) -> anyhow::Result<Vec<u32>> {
    let text = fs::read_to_string(folder.join("pids"))?;
    Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
}
