//! Certificates of a tenant, shown to a client by the host's controller.

use std::path::Path;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::stage::Stage;
use super::center::{Center, Crew, NAMESPACE, SOON, Side};
use super::checks::{check, names_of};
use super::ingress::{create, status};
use crate::eventually::eventually;
use crate::scratch;
use crate::tls::{Authority, Leaf};
use crate::traffic::{Namespace, curl};

const HOSTS: [&str; 2] = ["one.a.example.com", "two.a.example.com"];

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Certificates by the host's controller",
        "Secrets of the virtual cluster that its Ingresses name are shown to clients, each for its host name (SNI), and a new \
         certificate soon takes the place of the old one.",
    );
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let pods = names_of(&crew.alpha, "web").await?;
    let authority = Authority::new("tenant")?;
    let roots = scratch::folder("tenant-roots")?.join("ca.pem");
    scratch::replace_file(&roots, &authority.pem())?;
    let leaves = [authority.server_leaf(HOSTS[0])?, authority.server_leaf(HOSTS[1])?];
    let mut at = String::new();
    check(stage, "TLS: https://<host>/<path> leads to the tenant's pod", async {
        for (host, leaf) in HOSTS.iter().zip(&leaves) {
            let name = name_of(host);
            keep(alpha, name, leaf).await?;
            create(alpha, name, "public", host, "web").await?;
            let tls = json!({"spec": {"tls": [{"hosts": [host], "secretName": name}]}});
            alpha.ingresses().patch(name, &PatchParams::default(), &Patch::Merge(tls)).await?;
            at = status(alpha, name).await?;
        }
        for host in HOSTS {
            eventually(&format!("https://{host}"), SOON, async || {
                let name = curl::get_secure(client, &at, host, "/hostname", &roots).await?;
                ensure!(pods.contains(&name), "{name} answered");
                Ok(())
            })
            .await?;
        }
        Ok(format!("{} and {}, trusted by the tenant's authority", HOSTS[0], HOSTS[1]))
    })
    .await;
    check(stage, "TLS: each host name has its own certificate (SNI)", async {
        for (host, leaf) in HOSTS.iter().zip(&leaves) {
            ensure!(shown(client, &at, host, &roots).await? == leaf.certificate, "{host} shows another certificate");
        }
        Ok("what is shown is what is in the Secrets, byte by byte".to_owned())
    })
    .await;
    check(stage, "TLS: a renewed certificate is shown, and the other host's stays", async {
        let renewed = authority.server_leaf(HOSTS[0])?;
        let body = json!({"stringData": {"tls.crt": renewed.certificate, "tls.key": renewed.key}});
        let began = Instant::now();
        alpha.secrets().patch(name_of(HOSTS[0]), &PatchParams::default(), &Patch::Merge(body)).await?;
        eventually("the renewed certificate", SOON, async || {
            ensure!(shown(client, &at, HOSTS[0], &roots).await? == renewed.certificate, "the old one is shown");
            Ok(())
        })
        .await?;
        let took = began.elapsed();
        let other = shown(client, &at, HOSTS[1], &roots).await?;
        ensure!(other == leaves[1].certificate, "the other host's has changed");
        Ok(format!("after {} ms", took.as_millis()))
    })
    .await;
    check(stage, "TLS: with its Ingresses no key is left on the host", async {
        for host in HOSTS {
            alpha.ingresses().delete(name_of(host), &DeleteParams::default()).await?;
        }
        let twins: Api<Secret> = Api::namespaced(center.host_client.clone(), &alpha.tenant.namespace);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=k3k-expose");
        eventually("no twin of a Secret", SOON, async || {
            let left = twins.list_metadata(&ours).await?.items.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await?;
        Ok("the Secrets themselves stay in the virtual cluster".to_owned())
    })
    .await;
    Ok(())
}

/// The certificate that is shown for a host, as PEM.
async fn shown(client: &Namespace, at: &str, host: &str, roots: &Path) -> anyhow::Result<String> {
    let chain = curl::certificates(client, at, host, roots).await?;
    let (from, to) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\n");
    let start = chain.find(from).context("no certificate is shown")?;
    let end = chain[start..].find(to).context("half a certificate is shown")?;
    Ok(chain[start..start + end + to.len()].to_owned())
}

async fn keep(side: &Side, name: &str, leaf: &Leaf) -> anyhow::Result<()> {
    let secret: Value = json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf.certificate, "tls.key": leaf.key},
    });
    side.secrets().create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

fn name_of(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}
