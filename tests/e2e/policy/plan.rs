//! `plan` as the platform team runs it: with policies from files, and with a host to ask.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use k3k_expose_tests::Rig;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::scratch::folder;
use k3k_expose_tests::toolchain::product_binaries;
use serde_json::json;

use super::stage::{apply, delete, of_namespace};

const SERVICE: &str = "kind: Service\nmetadata: {name: web}\nspec: {type: NodePort, ports: [{port: 80}]}\n";
const INGRESS: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: shop}\n\
    spec: {ingressClassName: public, rules: [{host: shop.a.example}]}\n";

/// Runs it. Gives its exit code and what it says.
fn plan(file: &Path, cluster: &str, with: impl FnOnce(&mut Command)) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(&product_binaries()?.host_api);
    command.arg("plan").arg("-f").arg(file).args(["--cluster", cluster]);
    with(&mut command);
    let output = command.output()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok((output.status.code(), String::from_utf8(said)?))
}

/// A slice of Service `db` with these addresses.
fn slice(addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "db"}}, "endpoints": endpoints});
    slice.to_string()
}

#[tokio::test]
async fn a_plan_says_what_the_host_will_get() -> Result<()> {
    let folder = folder("plan")?;
    let (file, policy) = (folder.join("all.yaml"), folder.join("policy.yaml"));
    std::fs::write(&file, format!("{SERVICE}---\n{INGRESS}---\n{}\n", slice(&["192.0.2.7", "10.42.0.1"])))?;
    let allow = json!({"serviceTypes": ["ClusterIP"], "endpoints": ["192.0.2.0/24"],
        "ingresses": {"classes": ["public"], "hostSuffixes": ["a.example"]}});
    let written = json!({"kind": "ExposurePolicy", "metadata": {"name": "few"}, "spec": of_namespace("team", allow)});
    std::fs::write(&policy, written.to_string())?;
    let plan = |cluster: &str| plan(&file, cluster, |command| _ = command.arg("--policy").arg(&policy));
    let (refused, text) = plan("team/mine")?;
    assert_eq!(refused, Some(1), "{text}");
    for words in [
        "# decided by: ExposurePolicy few, spec.allow.serviceTypes",
        "  - host: shop.a.example",
        "# crosses: 192.0.2.7 (ExposurePolicy few, spec.allow.endpoints)",
        "# crosses only if it is a pod of this virtual cluster's own: 10.42.0.1 (",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let (refused, text) = plan("other/mine")?;
    assert_eq!(refused, Some(1), "{text}");
    assert!(text.contains("type: NodePort") && text.contains("the safe defaults"), "{text}");
    assert!(text.contains("# decided by: the safe default of spec.allow.ingresses.classes"), "{text}");
    std::fs::write(&file, SERVICE)?;
    assert_eq!(plan("other/mine")?.0, Some(0));
    std::fs::write(&file, "kind: Ingress\nmetadata: {name: shop}\nspec: 3\n")?;
    let (failed, text) = plan("other/mine")?;
    assert!(failed == Some(2) && text.contains("plan: Ingress shop cannot be read: "), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_plan_asks_the_host_whose_pod_an_address_is() -> Result<()> {
    let rig = Rig::shared();
    rig.host_api().await?;
    let host = rig.host().await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "plan-asks", "mine", TenantOptions::default()).await?;
    let other = Tenant::create(&client, "plan-asks-other", "other", TenantOptions::default()).await?;
    let mut addresses = Vec::new();
    for tenant in [&tenant, &other] {
        let pod = tenant.tenant_pod("db-0", "shop", &[], true).await?;
        addresses.push(pod.status.and_then(|status| status.pod_ip).context("an address")?);
    }
    let [own, foreign] = addresses.as_slice() else { anyhow::bail!("two pods have two addresses") };
    apply(&client, "plan-asks", &of_namespace("plan-asks", json!({"endpoints": ["203.0.113.0/24"]}))).await?;
    let file = folder("plan-asks")?.join("slice.yaml");
    let by_flag = |path: &Path| {
        plan(&file, "plan-asks/mine", |command| _ = command.env("KUBECONFIG", "/none").arg("--kubeconfig").arg(path))
    };
    let plan = |addresses: &[&str]| {
        std::fs::write(&file, slice(addresses))?;
        plan(&file, "plan-asks/mine", |command| _ = command.env("KUBECONFIG", host.kubeconfig_path()))
    };
    let (admitted, text) = plan(&[own, "203.0.113.9"])?;
    assert_eq!(admitted, Some(0), "{text}");
    assert!(text.contains(&format!("# crosses: {own}, a pod of this virtual cluster's own\n")), "{text}");
    assert!(text.contains("# crosses: 203.0.113.9 (ExposurePolicy plan-asks, spec.allow.endpoints)\n"), "{text}");
    assert_eq!(by_flag(host.kubeconfig_path())?, (admitted, text), "the flag goes before the variable");
    let (failed, text) = by_flag(Path::new("none.yaml"))?;
    assert!(failed == Some(2) && text.contains("cannot read kubeconfig none.yaml"), "{text}");
    for (address, reason) in
        [(foreign.as_str(), "EndpointNotAdmitted"), ("10.43.0.1", "EndpointForbidden, whatever policies say")]
    {
        let (refused, text) = plan(&[own, address])?;
        assert!(refused == Some(1) && text.contains(&format!("# refused: {reason}: endpoint {address} is")), "{text}");
        assert!(text.contains(&format!("- \"{own}\"\n")) && !text.contains(&format!("- \"{address}\"\n")), "{text}");
    }
    delete(&client, "plan-asks").await
}
