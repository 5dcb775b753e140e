//! Table tests of who gets the agent.

use super::*;

const CREATOR: &str = CREATORS[0];

fn settings() -> Settings {
    Settings {
        image: "agent@sha256:0".to_owned(),
        host_api_url: "https://host-api.k3k-expose.svc:8443".to_owned(),
        sync_ingresses: false,
        sync_ingress_tls: false,
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "k3k-mine-server-0", "namespace": "ns", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "k3k-mine-server", "uid": "set", "controller": true}]},
        "spec": {"containers": [{"name": "k3k-mine-server"}], "volumes": [{"name": "varlibkubelet"}]},
    })
}

fn set() -> Value {
    json!({
        "metadata": {"name": "k3k-mine-server", "namespace": "ns", "uid": "set", "ownerReferences": [
            {"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "cluster", "controller": true}]},
        "spec": {"replicas": 1, "serviceName": "x", "selector": {"matchLabels": {"cluster": "mine", "role": "server"}},
            "template": {}},
    })
}

fn cluster() -> Value {
    json!({"metadata": {"name": "mine", "namespace": "ns", "uid": "cluster"}, "spec": {"mode": "shared"}})
}

struct Case {
    pod: Value,
    set: Value,
    cluster: Value,
    namespace: Value,
    creator: &'static str,
}

impl Default for Case {
    fn default() -> Self {
        Self { pod: pod(), set: set(), cluster: cluster(), namespace: json!({"name": "ns"}), creator: CREATOR }
    }
}

impl Case {
    fn pod(&self) -> Pod {
        serde_json::from_value(self.pod.clone()).unwrap()
    }

    fn patch(&self) -> Value {
        self.result().unwrap().patch(&self.pod())
    }

    fn result(&self) -> Result<Addition, Left> {
        let pod = self.pod();
        let set: StatefulSet = serde_json::from_value(self.set.clone()).unwrap();
        let cluster: Cluster = serde_json::from_value(self.cluster.clone()).unwrap();
        let namespace: ObjectMeta = serde_json::from_value(self.namespace.clone()).unwrap();
        let around = Surroundings {
            set: Some(&set),
            cluster: Some(&cluster),
            namespace: Some(&namespace),
            ..Surroundings::default()
        };
        inject(&pod, self.creator, around, &settings())
    }
}

#[test]
fn a_server_pod_gets_one_sidecar_and_two_volumes_appended() {
    let patch = Case::default().patch();
    let paths: Vec<&str> = patch.as_array().unwrap().iter().map(|op| op["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/spec/initContainers", "/spec/volumes/-", "/spec/volumes/-"]);
    let container = &patch[0]["value"][0];
    assert_eq!((&container["name"], &container["restartPolicy"]), (&json!(CONTAINER), &json!("Always")));
    let mounts = container["volumeMounts"].as_array().unwrap();
    let keeps_the_host_token_out =
        mounts.iter().any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
    assert!(keeps_the_host_token_out, "{mounts:?}");
    let secret = &patch[2]["value"]["secret"];
    assert_eq!((&secret["secretName"], &secret["optional"]), (&json!("k3k-mine-kubeconfig"), &json!(true)));
}

#[test]
fn every_other_pod_stays_as_it_is() {
    let mut cases = Vec::new();
    let mut case = |word: &'static str, change: &dyn Fn(&mut Case)| {
        let mut case = Case::default();
        change(&mut case);
        cases.push((word, case));
    };
    case("Creator", &|case| case.creator = "system:serviceaccount:ns:tenant");
    case("NotAServerPod", &|case| case.pod["metadata"]["ownerReferences"] = json!([]));
    case("NotAServerPod", &|case| {
        case.pod["metadata"]["ownerReferences"] = json!([]);
        case.pod["metadata"]["labels"] = json!({"cluster": "mine", "role": "server"});
    });
    case("NotAServerPod", &|case| case.set["metadata"]["ownerReferences"] = json!([]));
    case("NotAServerPod", &|case| case.set["metadata"]["uid"] = json!("other"));
    case("NotAServerPod", &|case| case.pod["metadata"]["namespace"] = json!("elsewhere"));
    case("UnsupportedMode", &|case| case.cluster["spec"]["mode"] = json!("virtual"));
    case("UnsupportedMode", &|case| case.cluster["spec"]["mode"] = json!("hcp"));
    for place in ["labels", "annotations"] {
        case("OptedOut", &|case| case.cluster["metadata"][place] = json!({INJECT: DISABLED}));
        case("OptedOut", &|case| case.namespace[place] = json!({INJECT: DISABLED}));
    }
    case("Present", &|case| case.pod["spec"]["initContainers"] = json!([{"name": CONTAINER}]));
    for (word, case) in cases {
        assert_eq!(case.result().unwrap_err().word(), word, "{} {} {}", case.pod, case.set, case.cluster);
    }
}

#[test]
fn the_agent_speaks_of_ingresses_where_host_api_has_a_policy_for_them() {
    for sync_ingresses in [false, true] {
        let container = sidecar::container(&Settings { sync_ingresses, ..settings() }, &Default::default());
        let env = container["env"].as_array().unwrap();
        let set = env.iter().find(|entry| entry["name"] == "K3K_EXPOSE_SYNC_INGRESSES").unwrap();
        assert_eq!(set["value"], sync_ingresses.to_string());
    }
}

#[test]
fn init_containers_of_others_stay_before_the_agent() {
    let mut case = Case::default();
    case.pod["spec"]["initContainers"] = json!([{"name": "first"}]);
    assert_eq!(case.patch()[0]["path"], "/spec/initContainers/-");
    let mut applied = case.pod.clone();
    case.result().unwrap().apply(&mut applied);
    let names =
        |list: &str| applied["spec"][list].as_array().unwrap().iter().map(|it| it["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names("initContainers"), [json!("first"), json!(CONTAINER)]);
    assert_eq!(
        names("volumes"),
        [json!("varlibkubelet"), json!("k3k-expose-identity"), json!("k3k-expose-kubeconfig")]
    );
}

#[test]
fn the_command_prints_the_pod_of_a_list_with_the_agent_beside_it() {
    let list = |pod: Value| {
        let kind = |kind: &str, mut object: Value| {
            object["kind"] = kind.into();
            object
        };
        json!({"kind": "List", "items": [kind("StatefulSet", set()), kind("Cluster", cluster()), kind("Pod", pod)]})
    };
    // Every JSON text is a YAML text.
    let injected = command::injected(&list(pod()).to_string(), &settings()).unwrap();
    assert_eq!(injected["spec"]["initContainers"][0]["name"], CONTAINER);
    let mut stranger = pod();
    stranger["metadata"]["ownerReferences"] = json!([]);
    let left = command::injected(&list(stranger).to_string(), &settings()).unwrap_err();
    assert!(left.to_string().contains("NotAServerPod"), "{left}");
    assert!(matches!(command::injected("kind: Cluster", &settings()), Err(command::CommandError::NoPod)));
}
