//! TLS handshakes, and the certificate that was shown in them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k3k_expose_tests::tls;
use reqwest::tls::TlsInfo;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A handshake on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// The certificate that a port shows to those who trust this bundle.
pub(super) async fn handshake(url: &str, bundle: &str) -> Result<Vec<u8>> {
    let authorities = reqwest::Certificate::from_pem_bundle(bundle.as_bytes())?;
    shown(url, client().tls_certs_only(authorities)).await
}

/// For how many seconds the certificate is valid that a port shows to those who take any; nothing when it shows none.
pub(super) async fn shown_to_anybody(url: &str) -> Result<Option<i64>> {
    let Ok(der) = shown(url, client().danger_accept_invalid_certs(true)).await else {
        return Ok(None);
    };
    let (_, certificate) = X509Certificate::from_der(&der).context("a certificate")?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    Ok(Some(certificate.validity().not_after.timestamp() - now))
}

fn client() -> reqwest::ClientBuilder {
    tls::install_provider();
    // Each look is a handshake of its own.
    reqwest::Client::builder().tls_info(true).no_proxy().pool_max_idle_per_host(0).timeout(DEADLINE)
}

async fn shown(url: &str, client: reqwest::ClientBuilder) -> Result<Vec<u8>> {
    let answer = client.build()?.get(url).send().await?;
    let info = answer.extensions().get::<TlsInfo>().context("it was TLS")?;
    Ok(info.peer_certificate().context("a certificate")?.to_vec())
}
