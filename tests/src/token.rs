//! ServiceAccount tokens: asked for from a real API server, read, and signed by ourselves where it would refuse.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::plane::ControlPlane;
use crate::scratch;
use crate::toolchain::ControlPlaneBinaries;

/// The audience by which host-api knows that a token was meant for it.
pub const AUDIENCE: &str = "k3k-expose";

/// Long enough for any test run, for tokens that the rig itself depends on.
const LONG: i64 = 24 * 60 * 60;

/// A pod that a token is bound to.
#[derive(Clone, Debug)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What to ask for.
#[derive(Clone, Debug)]
pub struct TokenWish {
    /// Who accepts it; empty means the API server itself.
    pub audiences: Vec<String>,
    /// Life time in seconds; the API server refuses less than 600.
    pub seconds: i64,
    /// The pod, if bound to one.
    pub pod: Option<BoundPod>,
}

/// Asks for a token of a ServiceAccount.
///
/// # Errors
/// When the account or the pod does not exist.
pub async fn request(client: &Client, namespace: &str, account: &str, wish: TokenWish) -> anyhow::Result<String> {
    let spec = TokenRequestSpec {
        audiences: wish.audiences,
        expiration_seconds: Some(wish.seconds),
        bound_object_ref: wish.pod.map(|pod| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name),
            uid: Some(pod.uid),
        }),
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &TokenRequest { spec, ..TokenRequest::default() })
        .await
        .with_context(|| format!("a token for {namespace}/{account}"))?;
    Ok(answer.status.context("a TokenRequest without status")?.token)
}

/// A token of a ServiceAccount that the API server itself accepts, for a day.
///
/// # Errors
/// As [`request`].
pub async fn for_api_server(client: &Client, namespace: &str, account: &str) -> anyhow::Result<String> {
    request(client, namespace, account, TokenWish { audiences: Vec::new(), seconds: LONG, pod: None }).await
}

/// The payload of a token, unchecked.
///
/// # Errors
/// When it is no token of three parts with JSON inside.
pub fn claims(token: &str) -> anyhow::Result<Value> {
    part(token, 1)
}

fn part(token: &str, index: usize) -> anyhow::Result<Value> {
    let encoded = token.split('.').nth(index).context("a token has three parts")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(encoded)?)?)
}

/// The same token as if it had been asked for two hours ago, for one hour: validly signed and expired.
///
/// # Errors
/// When the signer fails.
pub async fn expired(plane: &ControlPlane, token: &str) -> anyhow::Result<String> {
    let mut claims = claims(token)?;
    let now = claims["iat"].as_i64().context("a token says when it was issued")?;
    claims["iat"] = json!(now - 7200);
    claims["nbf"] = json!(now - 7200);
    claims["exp"] = json!(now - 3600);
    // The cache of the API server goes by this, and the original may be in it.
    claims["jti"] = json!(format!("{:016x}", fastrand::u64(..)));
    let header = part(token, 0)?;
    let key_id = header["kid"].as_str().context("a token names its key")?;
    sign(plane.service_account_key_path(), key_id, &claims).await
}

/// Signs any claims with the ServiceAccount key of a plane.
///
/// # Errors
/// When the signer fails.
pub async fn sign(key: &Path, key_id: &str, claims: &Value) -> anyhow::Result<String> {
    let mut signer = Command::new(ControlPlaneBinaries::ensure()?.control_plane())
        .args(["sign-token", "--key-id", key_id, "--key-file"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = signer.stdin.take().context("a piped input")?;
    input.write_all(claims.to_string().as_bytes()).await?;
    drop(input);
    let output = signer.wait_with_output().await?;
    if !output.status.success() {
        bail!("sign-token: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A token file as kubelet keeps it for a projected volume: readers never see half a token.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// A file with this token, in a folder of its own.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(token: &str) -> anyhow::Result<Self> {
        let file = Self { path: scratch::folder("token")?.join("token") };
        file.write(token)?;
        Ok(file)
    }

    /// Replaces the token.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, token: &str) -> anyhow::Result<()> {
        scratch::replace_file(&self.path, token)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
