//! What pods run: plays `agnhost netexec`, the web server of Kubernetes' own network tests, as far as it is asked here.
//!
//! `/hostname` says who answers, `/clientip` whom it sees, `/echo?msg=` repeats; over UDP the same words without the slash.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// Heads of requests are short here; whoever sends more is cut off.
const LINES: usize = 100;

/// Its ports, by the flags of the original.
#[derive(Args, Debug)]
pub struct Flags {
    /// TCP port of the web server
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// UDP port, or -1
    #[arg(long, default_value_t = 8081, allow_hyphen_values = true)]
    udp_port: i32,
}

/// Serves until it is killed; `HOSTNAME` is who it is.
///
/// # Errors
/// When a port is taken.
pub async fn serve(flags: &Flags) -> anyhow::Result<()> {
    let name = std::env::var_os("HOSTNAME").and_then(|name| name.into_string().ok()).context("no HOSTNAME")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, flags.http_port)).await.context("the TCP port")?;
    let mut tasks = JoinSet::new();
    if let Ok(port) = u16::try_from(flags.udp_port) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await.context("the UDP port")?;
        tasks.spawn(datagrams(socket, name.clone()));
    }
    loop {
        tokio::select! {
            Ok((stream, peer)) = listener.accept() => {
                tasks.spawn(connection(stream, peer, name.clone()));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn datagrams(socket: UdpSocket, name: String) {
    let mut buffer = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let word = String::from_utf8_lossy(&buffer[..length]);
        let _ = socket.send_to(answer(word.trim(), peer, &name).as_bytes(), peer).await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, name: String) {
    // A client that goes away is no failure of the server.
    let _ = requests(stream, peer, &name).await;
}

async fn requests(stream: TcpStream, peer: SocketAddr, name: &str) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some((path, close)) = head(&mut stream).await? {
        let body = answer(path.trim_start_matches('/'), peer, name);
        let end = if close { "Connection: close\r\n" } else { "" };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{end}\r\n{body}", body.len());
        stream.get_mut().write_all(text.as_bytes()).await?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}

/// Path, and whether the client wants the connection closed; nothing at the end of the connection.
async fn head(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Option<(String, bool)>> {
    let mut first = String::new();
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    let path = first.split(' ').nth(1).context("a request line has a path")?.to_owned();
    let mut close = false;
    for _ in 0..LINES {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            return Ok(Some((path, close)));
        }
        close |= line.trim().eq_ignore_ascii_case("connection: close");
    }
    anyhow::bail!("a head without end")
}

fn answer(word: &str, peer: SocketAddr, name: &str) -> String {
    match word.split('?').next() {
        // Over UDP the original takes any case.
        Some(path) if path.eq_ignore_ascii_case("hostname") => name.to_owned(),
        Some(path) if path.eq_ignore_ascii_case("clientip") => peer.to_string(),
        _ => word.strip_prefix("echo?msg=").or(word.strip_prefix("echo ")).unwrap_or("NOW").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_answered_as_the_original_does() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!(answer("hostname", peer, "web-0"), "web-0");
        assert_eq!(answer("hostname?request=1", peer, "web-0"), "web-0");
        assert_eq!(answer("clientip", peer, "web-0"), "192.0.2.1:80");
        assert_eq!(answer("echo?msg=hello", peer, "web-0"), "hello");
        assert_eq!(answer("echo hello", peer, "web-0"), "hello");
    }
}
