//! Requests by the programs that a person would use, from a namespace: `curl` for HTTP, the shell for UDP.

use std::path::Path;

use anyhow::bail;

use super::Namespace;

/// Seconds for one request; in the data center an answer takes milliseconds.
const SECONDS: &str = "3";

/// The body at a URL; what is not an answer below 400 is an error.
///
/// # Errors
/// With what curl says.
pub async fn get(from: &Namespace, url: &str) -> anyhow::Result<String> {
    curl(from, &[url]).await
}

/// As [`get`] for a virtual host at an address that is not in the DNS.
///
/// # Errors
/// As [`get`].
pub async fn get_host(from: &Namespace, address: &str, host: &str, path: &str) -> anyhow::Result<String> {
    curl(from, &["--header", &format!("Host: {host}"), &format!("http://{address}{path}")]).await
}

/// As [`get_host`] over TLS, where nothing but an authority in `roots` is trusted.
///
/// # Errors
/// As [`get`].
pub async fn get_secure(
    from: &Namespace,
    address: &str,
    host: &str,
    path: &str,
    roots: &Path,
) -> anyhow::Result<String> {
    secure(from, address, host, roots, &[&format!("https://{host}{path}")]).await
}

/// The certificates that are shown for a host, as PEM with what curl says of each.
///
/// # Errors
/// When there are none, or none that is trusted.
pub async fn certificates(from: &Namespace, address: &str, host: &str, roots: &Path) -> anyhow::Result<String> {
    let shown = ["--output", "/dev/null", "--write-out", "%{certs}", &format!("https://{host}/hostname")];
    secure(from, address, host, roots, &shown).await
}

/// Only the number of the answer, whatever it is.
///
/// # Errors
/// When there is none.
pub async fn status(from: &Namespace, url: &str) -> anyhow::Result<u16> {
    let output = run(from, &["--output", "/dev/null", "--write-out", "%{http_code}", url]).await?;
    Ok(output.parse()?)
}

/// Whether nothing answers at a URL: refused, or silent for so long.
///
/// # Errors
/// When something answers.
pub async fn nothing(from: &Namespace, url: &str) -> anyhow::Result<()> {
    match status(from, url).await {
        Ok(status) => bail!("{url} answers {status}"),
        Err(_) => Ok(()),
    }
}

/// The lines of many requests, each over a connection of its own.
///
/// # Errors
/// When one of them is not answered.
pub async fn many(from: &Namespace, url: &str, requests: usize) -> anyhow::Result<Vec<String>> {
    let url = format!("{url}?request=[1-{requests}]");
    let args = ["--silent", "--show-error", "--fail", "--header", "Connection: close", "--write-out", "\n", &url];
    let output = from.command("curl")?.args(args).output().await?;
    if !output.status.success() {
        bail!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// The answer to one datagram.
///
/// # Errors
/// When there is none.
pub async fn datagram(from: &Namespace, address: &str, port: i32, word: &str) -> anyhow::Result<String> {
    // dd takes a datagram whole; the shell's own `read` would take its first byte and lose the rest.
    let script = format!(
        "exec 3<>/dev/udp/{address}/{port} && echo {word} >&3 && timeout {SECONDS} dd bs=512 count=1 status=none <&3"
    );
    let output = from.command("bash")?.args(["-c", &script]).output().await?;
    let answer = String::from_utf8(output.stdout)?.trim().to_owned();
    if answer.is_empty() {
        bail!("no datagram from {address}:{port}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(answer)
}

async fn secure(from: &Namespace, address: &str, host: &str, roots: &Path, args: &[&str]) -> anyhow::Result<String> {
    let (roots, resolve) = (roots.display().to_string(), format!("{host}:443:{address}"));
    let mut all = vec!["--cacert", &roots, "--resolve", &resolve];
    all.extend(args);
    curl(from, &all).await
}

async fn curl(from: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    let mut all = vec!["--fail"];
    all.extend(args);
    run(from, &all).await
}

async fn run(from: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    let mut command = from.command("curl")?;
    let output = command.args(["--silent", "--show-error", "--max-time", SECONDS]).args(args).output().await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
