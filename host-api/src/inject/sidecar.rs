//! The agent's container and its volumes, for one pod. Pure.
//!
//! The trap: after our patch the API server runs ServiceAccount admission once more, which mounts the host's token into
//! every container that has nothing mounted where that token goes. So our own volume is mounted right there.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use crate::name;

/// Name of the container.
pub const CONTAINER: &str = "k3k-expose-agent";
/// ConfigMap in the pod's namespace with the authorities that may vouch for host-api.
pub const AUTHORITIES: &str = "k3k-expose-ca";
/// Where ServiceAccount admission would mount the host's token.
const IDENTITY_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const IDENTITY: &str = "k3k-expose-identity";
const KUBECONFIG_PATH: &str = "/var/run/k3k-expose/kubeconfig";
const KUBECONFIG: &str = "k3k-expose-kubeconfig";
/// The agent's default port for probes; k3s takes none near it in the shared network namespace.
const ADMIN_PORT: u16 = 9464;
/// Nobody in particular, as distroless images have it.
const USER: u32 = 65_532;

/// What every sidecar has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The agent's image.
    pub image: String,
    /// URL under which agents reach host-api.
    pub host_api_url: String,
    /// Whether agents are to speak of Ingresses, too.
    pub sync_ingresses: bool,
    /// Whether they are to send the certificates that Ingresses name.
    pub sync_ingress_tls: bool,
}

/// The container, as a native sidecar: an init container that is restarted always (KEP-753). A second plain container
/// would break k3k, which execs into the pod without naming one.
#[must_use]
pub(super) fn container(settings: &Settings, resources: &ResourceRequirements) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({"httpGet": {"path": path, "port": ADMIN_PORT}, "periodSeconds": period, "timeoutSeconds": 5,
            "failureThreshold": failures})
    };
    json!({
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": [
            {"name": "K3K_EXPOSE_HOST_API_URL", "value": settings.host_api_url},
            {"name": "K3K_EXPOSE_SYNC_INGRESSES", "value": settings.sync_ingresses.to_string()},
            {"name": "K3K_EXPOSE_SYNC_INGRESS_TLS", "value": settings.sync_ingress_tls.to_string()},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": "expose-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
        "startupProbe": probe("/startupz", 1, 60),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 10, 3),
        "resources": resources,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "privileged": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": IDENTITY, "mountPath": IDENTITY_PATH, "readOnly": true},
            {"name": KUBECONFIG, "mountPath": KUBECONFIG_PATH, "readOnly": true},
        ],
    })
}

/// The volumes: the pod's token for host-api beside the authorities, and the kubeconfig, which k3k writes only after the
/// server is up.
#[must_use]
pub(super) fn volumes(cluster: &str) -> [Value; 2] {
    [
        json!({"name": IDENTITY, "projected": {"defaultMode": 0o444, "sources": [
            {"serviceAccountToken": {"audience": crate::authenticate::AUDIENCE, "expirationSeconds": 3600, "path": "token"}},
            {"configMap": {"name": AUTHORITIES, "optional": true, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]}}),
        json!({"name": KUBECONFIG, "secret": {"secretName": name::kubeconfig(cluster), "optional": true,
            "defaultMode": 0o444, "items": [{"key": "kubeconfig.yaml", "path": "kubeconfig.yaml"}]}}),
    ]
}
