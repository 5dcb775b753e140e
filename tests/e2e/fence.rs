//! What the API server refuses to host-api's own account, and that the account can still do its work. All other tests run
//! host-api behind the same fence.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HOST_API_ACCOUNT, HOST_API_NAMESPACE, apply_rbac};
use k3k_expose_tests::{ControlPlane, PlaneOptions, manifest, rig};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// What is said of whatever is no twin of a Service or an Ingress, for any reason.
const NO_TWIN: &str = "writes twins of k3k-expose alone";

/// A fence is compiled and takes effect about a second after it was applied.
const EFFECTIVE: Duration = Duration::from_secs(30);

/// A host behind the fence, and a tenant on it.
struct Fenced {
    admin: Client,
    host_api: Client,
    tenant: Tenant,
}

impl Fenced {
    async fn new(namespace: &str) -> Result<Self> {
        // Not the shared one: it must not ask a webhook that nobody serves.
        static HOST: OnceCell<ControlPlane> = OnceCell::const_new();
        let host = HOST.get_or_try_init(|| rig::host(PlaneOptions::new("fence").without_controllers())).await?;
        let admin = host.client().await?;
        apply_rbac(&admin).await?;
        let host_api = host.client_for_service_account(HOST_API_NAMESPACE, HOST_API_ACCOUNT).await?;
        let tenant = Tenant::create(&admin, namespace, "mine", TenantOptions::default()).await?;
        let fenced = Self { admin, host_api, tenant };
        eventually("the fence", EFFECTIVE, || fenced.stands()).await?;
        Ok(fenced)
    }

    /// That every part of the fence is in effect but the one around webhooks.
    async fn stands(&self) -> Result<()> {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let mut twin = self.twin("probe");
        twin["spec"]["externalIPs"] = json!(["203.0.113.1"]);
        let services = self.services(&self.host_api);
        refused(services.create(&dry, &serde_json::from_value(twin)?).await, "own choice")?;
        let bare = json!({"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]}});
        refused(services.create(&dry, &serde_json::from_value(bare)?).await, NO_TWIN)?;
        let slices: Api<EndpointSlice> = Api::namespaced(self.host_api.clone(), &self.tenant.namespace);
        let slice = json!({"metadata": {"name": "probe"}, "addressType": "IPv4", "endpoints": []});
        refused(slices.create(&dry, &serde_json::from_value(slice)?).await, "marks")?;
        let label = Patch::Merge(json!({"metadata": {"labels": {"probe": ""}}}));
        let server = self.tenant.server_pod_name(0);
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        refused(self.pods(&self.host_api).patch(&server, &params, &label).await, "only the labels")?;
        let leases: Api<Lease> = Api::namespaced(self.host_api.clone(), HOST_API_NAMESPACE);
        let lease = serde_json::from_value(json!({"metadata": {"name": "probe"}}))?;
        refused(leases.create(&dry, &lease).await, "known by name")
    }

    fn services(&self, client: &Client) -> Api<Service> {
        Api::namespaced(client.clone(), &self.tenant.namespace)
    }

    fn pods(&self, client: &Client) -> Api<Pod> {
        Api::namespaced(client.clone(), &self.tenant.namespace)
    }

    /// A twin with all our marks.
    fn twin(&self, name: &str) -> Value {
        json!({
            "metadata": {
                "name": self.tenant.twin_name(name, "shop"),
                "labels": {"k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose"},
                "annotations": {
                    "k3k.io/name": name, "k3k.io/namespace": "shop",
                    "expose.k3k.io/uid": "uid", "expose.k3k.io/virtual-cluster": "vc",
                },
                "ownerReferences": [self.tenant.owner_reference(false)],
            },
            "spec": spec(),
        })
    }
}

fn spec() -> Value {
    json!({
        "selector": {"app": "web", "k3k.io/clusterName": "mine", "k3k.io/namespace": "shop"},
        "ports": [{"port": 80}],
    })
}

async fn create<K>(api: &Api<K>, object: &Value) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(object.clone()).map_err(Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await
}

/// That the API server refused, in these words.
fn refused<T>(outcome: kube::Result<T>, words: &str) -> Result<()> {
    match outcome {
        Err(Error::Api(status)) if matches!(status.code, 403 | 422) && status.message.contains(words) => Ok(()),
        Err(other) => bail!("refused otherwise: {other}"),
        Ok(_) => bail!("allowed, not refused for: {words}"),
    }
}

#[tokio::test]
async fn host_api_makes_nothing_but_twins_with_its_marks() -> Result<()> {
    let fenced = Fenced::new("fence-services").await?;
    let services = fenced.services(&fenced.host_api);
    let good = fenced.twin("good");
    create(&services, &good).await.context("a twin")?;
    // Each differs in one thing alone from the twin that is let in after them.
    for (what, words, pointer, value) in [
        ("no mark", NO_TWIN, "/metadata/labels/app.kubernetes.io~1managed-by", Value::Null),
        ("no uid", NO_TWIN, "/metadata/annotations/expose.k3k.io~1uid", Value::Null),
        ("no virtual cluster", NO_TWIN, "/metadata/annotations/expose.k3k.io~1virtual-cluster", Value::Null),
        ("no name", NO_TWIN, "/metadata/annotations/k3k.io~1name", Value::Null),
        ("no Cluster", NO_TWIN, "/metadata/labels/k3k.io~1clusterName", Value::Null),
        ("no owner", NO_TWIN, "/metadata/ownerReferences", json!([])),
        ("another owner", NO_TWIN, "/metadata/ownerReferences/0/kind", json!("Pod")),
        ("another Cluster", NO_TWIN, "/metadata/ownerReferences/0/name", json!("other")),
        ("control", NO_TWIN, "/metadata/ownerReferences/0/controller", json!(true)),
        ("another name", NO_TWIN, "/metadata/name", json!("web")),
        ("another's twin", NO_TWIN, "/metadata/annotations/k3k.io~1name", json!("web")),
        ("external IPs", "own choice", "/spec/externalIPs", json!(["203.0.113.1"])),
        ("a load-balancer IP", "own choice", "/spec/loadBalancerIP", json!("203.0.113.1")),
        ("a selector without its cluster", NO_TWIN, "/spec/selector", json!({"role": "server"})),
        ("another cluster's pods", NO_TWIN, "/spec/selector/k3k.io~1clusterName", json!("other")),
        ("another namespace's pods", NO_TWIN, "/spec/selector/k3k.io~1namespace", json!("bank")),
        ("a name elsewhere", NO_TWIN, "/spec", json!({"type": "ExternalName", "externalName": "example.com"})),
    ] {
        let mut twin = fenced.twin("bad");
        set(&mut twin, pointer, value);
        refused(create(&services, &twin).await, words).context(what)?;
    }
    create(&services, &fenced.twin("bad")).await.context("the same with nothing changed")?;
    let mut cut = fenced.twin(&format!("{}x", "long-".repeat(12)));
    create(&services, &cut).await.context("a twin with a cut name")?;
    let mut name = cut["metadata"]["name"].as_str().context("a name")?.to_owned();
    name.replace_range(56..57, "z");
    set(&mut cut, "/metadata/name", json!(name));
    refused(create(&services, &cut).await, NO_TWIN).context("the last character before the hash")?;
    let name = fenced.tenant.twin_name("good", "shop");
    for change in [
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"spec": {"selector": {"k3k.io/namespace": "bank"}}}),
    ] {
        refused(services.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await, NO_TWIN)?;
    }
    let address = Patch::Merge(json!({"spec": {"externalIPs": ["203.0.113.1"]}}));
    let take = async || services.patch(&name, &PatchParams::default(), &address).await;
    refused(take().await, "own choice").context("an address that is added")?;
    let namespaces: Api<Namespace> = Api::all(fenced.admin.clone());
    let admit = Patch::Merge(json!({"metadata": {"labels": {"expose.k3k.io/addresses": "admitted"}}}));
    namespaces.patch(&fenced.tenant.namespace, &PatchParams::default(), &admit).await?;
    let taken = async || take().await.map(drop).context("refused");
    eventually("an address where they are admitted", EFFECTIVE, taken).await?;
    let walk = json!({"spec": {"type": "ExternalName", "externalName": "walk.expose.k3k.io.invalid", "clusterIP": null,
        "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null, "internalTrafficPolicy": null, "externalIPs": null}});
    services.patch(&name, &PatchParams::default(), &Patch::Merge(walk)).await.context("a walk")?;
    services.delete(&name, &DeleteParams::default()).await.context("deleting a twin")?;
    Ok(())
}

#[tokio::test]
async fn host_api_makes_no_ingress_but_twins_with_its_marks() -> Result<()> {
    let fenced = Fenced::new("fence-ingresses").await?;
    let ingresses: Api<Ingress> = Api::namespaced(fenced.host_api.clone(), &fenced.tenant.namespace);
    let service = json!({"name": fenced.tenant.twin_name("web", "shop"), "port": {"number": 80}});
    let mut good = fenced.twin("good");
    good["spec"] = json!({"defaultBackend": {"service": service}});
    for (what, pointer, value) in [
        ("no mark", "/metadata/labels/app.kubernetes.io~1managed-by", Value::Null),
        ("no owner", "/metadata/ownerReferences", json!([])),
        ("control", "/metadata/ownerReferences/0/controller", json!(true)),
        ("another name", "/metadata/name", json!("web")),
    ] {
        let mut twin = good.clone();
        set(&mut twin, pointer, value);
        refused(create(&ingresses, &twin).await, NO_TWIN).context(what)?;
    }
    let twin = create(&ingresses, &good).await.context("a twin")?;
    let admin: Api<Ingress> = Api::namespaced(fenced.admin.clone(), &fenced.tenant.namespace);
    create(&admin, &json!({"metadata": {"name": "web"}, "spec": good["spec"]})).await?;
    refused(ingresses.delete("web", &DeleteParams::default()).await, NO_TWIN)?;
    ingresses.delete(&twin.name_any(), &DeleteParams::default()).await.context("deleting a twin")?;
    Ok(())
}

#[tokio::test]
async fn host_api_makes_no_slices_but_those_of_its_twins_with_addresses_alone() -> Result<()> {
    let fenced = Fenced::new("fence-slices").await?;
    let services = fenced.services(&fenced.host_api);
    let slices: Api<EndpointSlice> = Api::namespaced(fenced.host_api.clone(), &fenced.tenant.namespace);
    // One with the marks of an object, beside the twin of this name.
    let beside = |object: &str, name: &str, uid: Option<String>| {
        let mut slice = fenced.twin(object);
        slice.as_object_mut().map(|fields| fields.remove("spec"));
        slice["metadata"]["name"] = json!(format!("{name}-0123abcd"));
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!(name);
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("k3k-expose");
        slice["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid}]);
        slice["addressType"] = json!("IPv4");
        slice["endpoints"] = json!([{"addresses": ["10.42.0.1"], "conditions": {"ready": true}}]);
        slice
    };
    let twin = create(&services, &fenced.twin("db")).await?;
    let name = twin.name_any();
    let good = beside("db", &name, twin.uid());
    for (what, words, pointer, value) in [
        ("no mark", "marks", "/metadata/labels/app.kubernetes.io~1managed-by", Value::Null),
        ("no uid", "marks", "/metadata/annotations/expose.k3k.io~1uid", Value::Null),
        ("no owner", "owned", "/metadata/ownerReferences", json!([])),
        ("a Cluster as owner", "owned", "/metadata/ownerReferences", json!([fenced.tenant.owner_reference(false)])),
        ("the name of its twin", "owned", "/metadata/name", json!(name)),
        ("another name", "owned", "/metadata/name", json!("kubernetes-0123abcd")),
        ("another's twin", "derives", "/metadata/annotations/k3k.io~1name", json!("web")),
        ("another Service", "owned", "/metadata/labels/kubernetes.io~1service-name", json!("kubernetes")),
        ("another maker", "marks", "/metadata/labels/endpointslice.kubernetes.io~1managed-by", json!("else")),
        ("names", "addresses of endpoints", "/addressType", json!("FQDN")),
        ("a node", "addresses of endpoints", "/endpoints/0/nodeName", json!("n")),
        ("a zone", "addresses of endpoints", "/endpoints/0/zone", json!("z")),
        ("a hint", "addresses of endpoints", "/endpoints/0/hints", json!({"forZones": [{"name": "z"}]})),
        ("a pod", "addresses of endpoints", "/endpoints/0/targetRef", json!({"kind": "Pod", "name": "p"})),
    ] {
        let mut slice = good.clone();
        set(&mut slice, pointer, value);
        if what == "names" {
            set(&mut slice, "/endpoints/0/addresses", json!(["db.example.com"]));
        }
        refused(create(&slices, &slice).await, words).context(what)?;
    }
    create(&slices, &good).await.context("a slice")?;
    let long = format!("{}x", "long-".repeat(12));
    let cut = create(&services, &fenced.twin(&long)).await?;
    create(&slices, &beside(&long, &cut.name_any(), cut.uid())).await.context("one beside a twin with a cut name")?;
    let mut other = cut.name_any();
    other.replace_range(56..57, "z");
    let misnamed = create(&slices, &beside(&long, &other, cut.uid())).await;
    refused(misnamed, "derives").context("the last character before the hash")?;
    let params = PatchParams::default();
    let name = format!("{name}-0123abcd");
    let more = json!({"endpoints": [{"addresses": ["10.42.0.2"]}]});
    slices.patch(&name, &params, &Patch::Merge(more)).await.context("a change of addresses")?;
    let node = json!({"endpoints": [{"addresses": ["10.42.0.2"], "nodeName": "n"}]});
    refused(slices.patch(&name, &params, &Patch::Merge(node)).await, "addresses of endpoints")?;
    let others: Api<EndpointSlice> = Api::namespaced(fenced.host_api.clone(), "default");
    refused(others.delete("kubernetes", &DeleteParams::default()).await, "no slice")?;
    slices.delete(&name, &DeleteParams::default()).await.context("deleting a slice")?;
    Ok(())
}

#[tokio::test]
async fn host_api_takes_over_the_twins_of_k3k_and_touches_no_other_service() -> Result<()> {
    let fenced = Fenced::new("fence-takeover").await?;
    let services = fenced.services(&fenced.host_api);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }))?;
    let theirs = fenced.tenant.create_twin_as_k3k(&service).await?;
    let ours = fenced.twin("web");
    let marks = json!({"metadata": ours["metadata"], "spec": {"selector": ours["spec"]["selector"]}});
    services.patch(&theirs.name_any(), &PatchParams::default(), &Patch::Merge(marks)).await.context("take-over")?;

    for name in ["k3k-mine-service", "k3k-mine-kubelet"] {
        let own: Service = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"k3k.io/clusterName": "mine"},
                "ownerReferences": [fenced.tenant.owner_reference(true)]},
            "spec": {"selector": {"cluster": "mine", "role": "server"}, "ports": [{"port": 443}]},
        }))?;
        fenced.services(&fenced.admin).create(&PostParams::default(), &own).await?;
        let marked = json!({"labels": ours["metadata"]["labels"], "annotations": ours["metadata"]["annotations"]});
        let patch = Patch::Merge(json!({"metadata": marked, "spec": spec()}));
        refused(services.patch(name, &PatchParams::default(), &patch).await, NO_TWIN)?;
        refused(services.delete(name, &DeleteParams::default()).await, NO_TWIN)?;
    }
    Ok(())
}

#[tokio::test]
async fn host_api_changes_nothing_of_a_pod_but_two_labels() -> Result<()> {
    let fenced = Fenced::new("fence-pods").await?;
    let pod = fenced.tenant.tenant_pod("web-0", "shop", &[("app", "web")], false).await?;
    let pods = fenced.pods(&fenced.host_api);
    let patch = async |patch: Value| pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    patch(json!({"metadata": {"labels": {"k3k.io/namespace": "shop", "k3k.io/clusterName": "mine"}}})).await?;
    patch(json!({"metadata": {"labels": {"k3k.io/namespace": null, "k3k.io/clusterName": null}}})).await?;
    let only = "only the labels";
    let image = Patch::Strategic(json!({"spec": {"containers": [{"name": "main", "image": "example.com/evil"}]}}));
    refused(pods.patch(&pod.name_any(), &PatchParams::default(), &image).await, only)?;
    refused(patch(json!({"metadata": {"labels": {"app": "other"}}})).await, only)?;
    refused(patch(json!({"metadata": {"labels": {"app": null}}})).await, only)?;
    refused(patch(json!({"metadata": {"labels": {"new": ""}}})).await, only)?;
    refused(patch(json!({"metadata": {"annotations": {"k3k.io/namespace": "bank"}}})).await, only)?;
    refused(patch(json!({"metadata": {"finalizers": ["example.com/x"]}})).await, only)?;
    refused(patch(json!({"metadata": {"ownerReferences": []}})).await, only)?;
    refused(patch(json!({"metadata": {"labels": {"k3k.io/clusterName": "other"}}})).await, "controls it")?;
    let new: Pod = serde_json::from_value(json!({
        "metadata": {"name": "new"}, "spec": {"containers": [{"name": "c", "image": "example.com/evil"}]},
    }))?;
    refused(pods.create(&PostParams::default(), &new).await, "cannot create")?;
    refused(pods.delete(&pod.name_any(), &DeleteParams::default()).await, "cannot delete")?;
    Ok(())
}

#[tokio::test]
async fn host_api_widens_not_its_own_webhook() -> Result<()> {
    let fenced = Fenced::new("fence-webhook").await?;
    let mine = "k3k-expose";
    let admin: Api<MutatingWebhookConfiguration> = Api::all(fenced.admin.clone());
    manifest::apply_file(&fenced.admin, &manifest::folder().join("base/webhooks.yaml")).await?;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(fenced.host_api.clone());
    let patch = async |pointer: &str, value: Value| {
        let mut all = json!(admin.get(mine).await?.webhooks);
        set(&mut all, pointer, value);
        let patch = Patch::Merge(json!({"webhooks": all}));
        anyhow::Ok(webhooks.patch(mine, &PatchParams { dry_run: true, ..PatchParams::default() }, &patch).await)
    };
    patch("/0/clientConfig/caBundle", json!("LS0tLS1CRUdJTg==")).await?.or_else(unparsed)?;
    let only = "only caBundle";
    let fence = async || refused(patch("/0/timeoutSeconds", json!(30)).await?, only);
    eventually("the fence around webhooks", EFFECTIVE, fence).await?;
    for (pointer, value) in [
        ("/0/rules/0/resources", json!(["*"])),
        ("/0/rules/0/operations", json!(["*"])),
        ("/0/objectSelector", json!({})),
        ("/0/namespaceSelector", json!({})),
        ("/0/matchConditions", json!([])),
        ("/0/failurePolicy", json!("Fail")),
        ("/0/matchPolicy", json!("Exact")),
        ("/0/timeoutSeconds", json!(30)),
        ("/0/reinvocationPolicy", json!("Never")),
        ("/0/sideEffects", json!("NoneOnDryRun")),
        ("/0/clientConfig/service/name", json!("other")),
        ("/0/clientConfig", json!({"url": "https://example.com/"})),
    ] {
        refused(patch(pointer, value).await?, only).context(pointer.to_owned())?;
    }
    let mut more = json!(admin.get(mine).await?.webhooks);
    let mut second = more[0].clone();
    second["name"] = "second.expose.k3k.io".into();
    more.as_array_mut().context("a list")?.push(second);
    let more = Patch::Merge(json!({"webhooks": more}));
    refused(webhooks.patch(mine, &PatchParams::default(), &more).await, only)?;
    refused(webhooks.delete(mine, &DeleteParams::default()).await, "cannot delete")?;
    Ok(())
}

#[tokio::test]
async fn host_api_reads_and_writes_no_secret_lease_or_config_map_but_its_own() -> Result<()> {
    let fenced = Fenced::new("fence-names").await?;
    let elsewhere: Api<Secret> = Api::namespaced(fenced.host_api.clone(), &fenced.tenant.namespace);
    refused(elsewhere.get("k3k-mine-kubeconfig").await, "cannot get")?;
    let secrets: Api<Secret> = Api::namespaced(fenced.host_api.clone(), HOST_API_NAMESPACE);
    refused(secrets.get("other").await, "cannot get")?;
    refused(secrets.list(&Default::default()).await, "cannot list")?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let secret = |name: &str, kind: &str| serde_json::from_value(json!({"metadata": {"name": name}, "type": kind}));
    let own = "known by name";
    secrets.create(&dry, &secret("k3k-expose-host-api-tls", "Opaque")?).await.context("its Secret")?;
    refused(secrets.create(&dry, &secret("other", "Opaque")?).await, own)?;
    refused(elsewhere.create(&dry, &secret("k3k-expose-host-api-tls", "Opaque")?).await, "immutable")?;
    let mut token: Secret = secret("k3k-expose-host-api-tls", "kubernetes.io/service-account-token")?;
    token.annotations_mut().insert("kubernetes.io/service-account.name".to_owned(), "default".to_owned());
    refused(secrets.create(&dry, &token).await, own)?;

    let leases: Api<Lease> = Api::namespaced(fenced.host_api.clone(), HOST_API_NAMESPACE);
    let lease = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}}));
    leases.create(&dry, &lease("k3k-expose-host-api")?).await.context("its Lease")?;
    refused(leases.create(&dry, &lease("other")?).await, own)?;

    let maps: Api<ConfigMap> = Api::namespaced(fenced.host_api.clone(), &fenced.tenant.namespace);
    let map = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}}));
    maps.create(&dry, &map("k3k-expose-ca")?).await.context("its ConfigMap")?;
    refused(maps.create(&dry, &map("kube-root-ca.crt")?).await, own)?;
    refused(maps.get("kube-root-ca.crt").await, "cannot get")?;
    Ok(())
}

#[tokio::test]
async fn host_api_makes_and_deletes_no_secret_of_a_tenants_namespace_but_twins_and_sees_none() -> Result<()> {
    let fenced = Fenced::new("fence-secrets").await?;
    let namespace = &fenced.tenant.namespace;
    let (admin, ours): (Api<Secret>, Api<Secret>) =
        (Api::namespaced(fenced.admin.clone(), namespace), Api::namespaced(fenced.host_api.clone(), namespace));
    let twin = |name: &str| {
        let mut twin = fenced.twin(name);
        twin.as_object_mut().map(|fields| fields.remove("spec"));
        twin["metadata"]["name"] = json!(format!("{}-{}", fenced.tenant.twin_name(name, "shop"), "0a".repeat(16)));
        twin["type"] = json!("kubernetes.io/tls");
        twin["immutable"] = json!(true);
        twin["data"] = json!({"tls.crt": "eA==", "tls.key": "eA=="});
        twin
    };
    for name in ["good", &"long-".repeat(12)] {
        let name = name.trim_end_matches('-');
        create(&ours, &twin(name)).await.with_context(|| format!("the twin of {name}"))?;
    }
    for (what, words, pointer, value) in [
        ("no mark", "marks", "/metadata/labels/app.kubernetes.io~1managed-by", Value::Null),
        ("no uid", "marks", "/metadata/annotations/expose.k3k.io~1uid", Value::Null),
        ("no owner", "owned", "/metadata/ownerReferences", json!([])),
        ("control", "owned", "/metadata/ownerReferences/0/controller", json!(true)),
        ("a name of k3k's", "follows from", "/metadata/name", json!(fenced.tenant.twin_name("bad", "shop"))),
        ("another's twin", "follows from", "/metadata/annotations/k3k.io~1name", json!("web")),
        ("another type", "immutable", "/type", json!("Opaque")),
        ("one that can change", "immutable", "/immutable", Value::Null),
        ("more than a pair", "immutable", "/data/token", json!("eA==")),
    ] {
        let mut bad = twin("bad");
        set(&mut bad, pointer, value);
        refused(create(&ours, &bad).await, words).context(what)?;
    }
    let name = twin("good")["metadata"]["name"].as_str().context("a name")?.to_owned();
    refused(ours.get(&name).await, "cannot get")?;
    refused(ours.list(&Default::default()).await, "cannot list")?;
    refused(ours.patch(&name, &PatchParams::default(), &Patch::Merge(json!({}))).await, "cannot patch")?;
    ours.delete(&name, &DeleteParams::default()).await.context("deleting a twin")?;

    // A deletion in the foreground answers with the object, even one that is only tried.
    let foreign = json!({"metadata": {"name": "foreign"}, "stringData": {"password": "x"}});
    admin.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    let look = DeleteParams { dry_run: true, ..DeleteParams::foreground() };
    for params in [DeleteParams::default(), look] {
        refused(ours.delete("foreign", &params).await, "immutable")?;
    }
    Ok(())
}

/// A bundle that is no certificate is refused by validation, which comes after the fence.
fn unparsed(error: Error) -> Result<MutatingWebhookConfiguration> {
    match error {
        Error::Api(status)
            if status.message.contains("caBundle")
                && status.code == 422
                && !status.message.contains("only caBundle") =>
        {
            Ok(MutatingWebhookConfiguration::default())
        }
        other => bail!("the fence stops caBundle: {other}"),
    }
}

/// Sets one value by its JSON pointer; `null` takes it away.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let key = key.replace("~1", "/");
    let Some(parent) = object.pointer_mut(parent) else { return };
    match parent {
        Value::Object(fields) if value.is_null() => drop(fields.remove(&key)),
        Value::Object(fields) => drop(fields.insert(key, value)),
        _ => {}
    }
}
