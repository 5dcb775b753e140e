//! What k3k has a server pod look like, as far as it costs an API server: every kind of field that it sets, with its names.

use serde_json::{Value, json};

/// Where k3k mounts what, and the volume behind it.
const MOUNTS: [(&str, &str); 8] = [
    ("config", "/opt/rancher/k3s/server"),
    ("initconfig", "/opt/rancher/k3s/init"),
    ("run", "/run"),
    ("varrun", "/var/run"),
    ("varlibcni", "/var/lib/cni"),
    ("varlibkubelet", "/var/lib/kubelet"),
    ("varlibrancherk3s", "/var/lib/rancher/k3s"),
    ("varlog", "/var/log"),
];

/// The spec of a server pod in shared mode without persistence. `name` is that of the StatefulSet, and of the one container.
#[must_use]
pub fn server_pod_spec(name: &str) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mounts: Vec<Value> = MOUNTS.iter().map(|(volume, path)| json!({"name": volume, "mountPath": path})).collect();
    let volumes = MOUNTS.iter().map(|(volume, _)| {
        let items = json!([{"key": "config.yaml", "path": "config.yaml"}]);
        match *volume {
            "config" => json!({"name": volume, "secret": {"secretName": format!("{name}-config"), "items": items}}),
            "initconfig" => {
                json!({"name": volume, "secret": {"secretName": format!("{name}-init-config"), "items": items}})
            }
            _ => json!({"name": volume, "emptyDir": {}}),
        }
    });
    json!({
        "containers": [{
            "name": name, "image": "example.com/none",
            "command": ["/bin/sh", "-c", "exec k3s server --config /opt/rancher/k3s/server/config.yaml"],
            "env": [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")],
            "volumeMounts": mounts,
            "readinessProbe": {
                "tcpSocket": {"port": 6443}, "initialDelaySeconds": 60, "failureThreshold": 5, "timeoutSeconds": 10,
            },
        }],
        "volumes": volumes.collect::<Vec<_>>(),
    })
}
