//! A client with one connection that it never lets go: a line for each answer, and an end with an error when it breaks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use super::Namespace;
use super::fabric::Fabric;
use crate::supervisor::{Launch, Process, Rank};

/// The rhythm of its requests.
const RHYTHM: Duration = Duration::from_millis(20);
/// A request that takes longer has met a broken connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it connects to.
#[derive(Args, Debug)]
pub struct Flags {
    /// IP address and port
    address: SocketAddr,
}

/// Asks until it is killed.
///
/// # Errors
/// When the connection breaks.
pub async fn ask(flags: &Flags) -> anyhow::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(flags.address).await.context("connecting")?);
    let mut ticks = interval(RHYTHM);
    loop {
        ticks.tick().await;
        let answer = timeout(PATIENCE, exchange(&mut stream)).await.context("no answer")??;
        println!("{answer}");
    }
}

async fn exchange(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    stream.get_mut().write_all(b"GET /hostname HTTP/1.1\r\nHost: steady\r\n\r\n").await?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            bail!("the connection ended");
        }
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8(body)?)
}

/// Such a client at work in a namespace.
#[derive(Debug)]
pub struct Steady {
    process: Process,
}

impl Steady {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(fabric: &Fabric, namespace: &Namespace, address: SocketAddr) -> anyhow::Result<Self> {
        let launch = Launch {
            name: format!("a connection to {address}"),
            rank: Rank::Product,
            program: std::env::current_exe()?,
            args: vec!["steady".to_owned(), address.to_string()],
            env: Vec::new(),
            log: fabric.folder().join(format!("steady-{address}.log")),
        };
        Ok(Self { process: namespace.inside(launch)?.start().await? })
    }

    /// How many answers it has had until now, all over its one connection and from one pod.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn answers(&self) -> anyhow::Result<usize> {
        if let Some(exit) = self.process.exit() {
            bail!("the connection broke ({exit:?}): {}", self.process.log_tail(3));
        }
        let text = std::fs::read_to_string(self.process.log())?;
        let first = text.lines().next().unwrap_or_default();
        if let Some(other) = text.lines().find(|line| *line != first) {
            bail!("{first} and {other} answered on one connection");
        }
        Ok(text.lines().count())
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.process.signal(crate::supervisor::Signal::Kill);
    }
}
