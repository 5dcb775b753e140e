//! What a plan says, document by document.

use k3k_expose_proto::Uid;
use proptest::prelude::*;

use super::*;
use crate::cluster::Mode;
use crate::endpoints::address::{Holder, Source};

const POLICIES: &str = "
apiVersion: expose.k3k.io/v1alpha1
kind: ExposurePolicy
metadata: {name: team}
spec:
  clusterSelector: {matchLabels: {tier: gold}}
  allow:
    serviceTypes: [ClusterIP, LoadBalancer]
    annotations: [{prefix: metallb.io/}]
---
apiVersion: expose.k3k.io/v1alpha1
kind: ExposurePolicy
metadata: {name: everybody}
spec:
  deny: {serviceTypes: [NodePort]}
";

fn around(labels: &[(&str, &str)]) -> Around {
    let mut cluster = Cluster::default();
    cluster.metadata.name = Some("mine".to_owned());
    cluster.metadata.namespace = Some("team".to_owned());
    cluster.metadata.labels = Some(labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect());
    Around { cluster, namespace: Labels::new(), policies: policies(POLICIES).unwrap(), host: None }
}

fn plan(text: &str, around: &Around) -> Result<Planned, PlanError> {
    planned(&Documents::parse("the file", text)?, around)
}

const BALANCER: &str = "
kind: Service
metadata:
  name: web
  annotations: {metallb.io/address-pool: public, example.com/x: kept}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
";

#[test]
fn a_cluster_whose_mode_is_not_supported_or_that_k3k_syncs_is_told() {
    let mut around = around(&[]);
    let told = "# not yet: Adopting: waiting for k3k's own Service sync to be off";
    let plain = plan(BALANCER, &around).unwrap();
    assert!(!plain.refused && plain.text.contains(told), "{}", plain.text);
    around.cluster.spec.sync.services.enabled = false;
    assert!(!plan(BALANCER, &around).unwrap().text.contains(told));
    around.cluster.spec.mode = Mode::Virtual;
    let refused = plan(BALANCER, &around).unwrap();
    assert!(refused.refused && !refused.text.contains("---"), "{}", refused.text);
    for words in
        ["# refused: exposure is not available for a Cluster in virtual mode", "# decided by: the Cluster, spec.mode"]
    {
        assert!(refused.text.contains(words), "{words} in {}", refused.text);
    }
}

#[test]
fn a_plan_shows_the_twin_and_what_stays_behind_with_the_rule() {
    let gold = plan(BALANCER, &around(&[("tier", "gold")])).unwrap();
    assert!(!gold.refused, "{}", gold.text);
    for words in [
        "# admitted by: ExposurePolicy team",
        "# left behind: annotation example.com/x (ExposurePolicy team, spec.allow.annotations)",
        "# counts: 1 of 10 load balancers (the safe default of spec.allow.loadBalancers)",
        "metallb.io/address-pool: public",
        "k3k.io/clusterName: mine",
    ] {
        assert!(gold.text.contains(words), "{words} in {}", gold.text);
    }
    let plain = plan(BALANCER, &around(&[])).unwrap();
    assert!(plain.text.contains("# admitted by: the safe defaults"), "{}", plain.text);
    assert!(!plain.text.contains("metallb.io/address-pool: public"), "{}", plain.text);
}

#[test]
fn a_plan_counts_what_there_may_be_only_so_much_of() {
    let of = |allow: &str| {
        let policy = format!("kind: ExposurePolicy\nmetadata: {{name: few}}\nspec: {{allow: {allow}}}");
        let around = Around { policies: policies(&policy).unwrap(), ..around(&[]) };
        plan(BALANCER, &around).unwrap()
    };
    let some = of("{limits: {objects: 7}}").text;
    let words = "# counts: 1 of 7 Services, Ingresses and certificates (ExposurePolicy few, spec.allow.limits.objects)";
    assert!(some.contains(words), "{some}");
    for (allow, words) in [
        ("{limits: {objects: 0}}", "# decided by: ExposurePolicy few, spec.allow.limits.objects"),
        ("{loadBalancers: {most: 0}}", "# refused: TooManyLoadBalancers"),
        ("{nodePorts: {most: 0}}", "# decided by: ExposurePolicy few, spec.allow.nodePorts.most"),
    ] {
        let none = of(allow);
        assert!(none.refused && none.text.contains(words), "{}", none.text);
    }
}

#[test]
fn a_service_without_a_selector_is_told_which_endpoints_it_may_have() {
    let bare = "kind: Service\nmetadata: {name: db}\nspec: {ports: [{port: 5432}]}";
    let words = "own pods (the safe default of spec.allow.endpoints)";
    assert!(plan(bare, &around(&[("tier", "gold")])).unwrap().text.contains(words));
    assert!(!plan(BALANCER, &around(&[])).unwrap().text.contains("endpoints made by hand"));
}

#[test]
fn a_refusal_names_the_rule_that_decided() {
    let node_port = "kind: Service\nmetadata: {name: web}\nspec: {type: NodePort, ports: [{port: 80}]}";
    let denied = plan(node_port, &around(&[("tier", "gold")])).unwrap();
    assert!(denied.refused);
    assert!(denied.text.contains("# refused: TypeNotAdmitted: Services of type NodePort are not admitted"));
    assert!(denied.text.contains("# decided by: ExposurePolicy everybody, spec.deny.serviceTypes"));
    let alias = "kind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: example.com}";
    assert!(plan(alias, &around(&[])).unwrap().text.contains("# refused: ExternalNameNotExposed"));
    assert!(matches!(plan("kind: Pod", &around(&[])), Err(PlanError::Nothing)));
}

/// What is decided for a file under one policy that allows this.
fn under(allow: &str, text: &str) -> Planned {
    let policy = format!("kind: ExposurePolicy\nmetadata: {{name: only}}\nspec: {{allow: {allow}}}");
    plan(text, &Around { policies: policies(&policy).unwrap(), ..around(&[]) }).unwrap()
}

/// The documents in an answer, which is YAML whatever it is about.
fn objects(planned: &Planned) -> Vec<Value> {
    let text = &planned.text;
    let objects = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    objects.into_iter().filter(|object: &Value| !object.is_null()).collect()
}

fn assert_says(planned: &Planned, lines: &[&str]) {
    for line in lines {
        assert!(planned.text.lines().any(|said| said == format!("# {line}")), "{line} in {}", planned.text);
    }
}

const SHOPS: &str =
    "{ingresses: {classes: [public], hostSuffixes: [a.example], annotations: [{key: example.com/t, value: '[0-9]s'}],
    tlsSecrets: [wildcard], ownSecrets: true}}";
const SHOP: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: front
  labels: {app: shop, k3k.io/clusterName: other}
  annotations: {example.com/t: 1s, meta.helm.sh/release-name: shop}
spec:
  ingressClassName: public
  tls: [{hosts: [shop.a.example], secretName: own}, {secretName: wildcard}]
  rules:
  - host: shop.a.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

#[test]
fn an_ingress_is_shown_as_its_twin_with_all_that_no_file_tells() {
    let planned = under(SHOPS, SHOP);
    assert!(!planned.refused, "{}", planned.text);
    assert_says(
        &planned,
        &[
            "Ingress front/shop of Cluster team/mine",
            "admitted by: ExposurePolicy only",
            "left behind: annotation meta.helm.sh/release-name (ExposurePolicy only, spec.allow.ingresses.annotations)",
            "left behind: label k3k.io/clusterName, whatever policies say",
            "not known here: whether another Ingress of the host has shop.a.example already",
            "not known here: whether Service front/web is exposed",
            "not known here: whether Secret front/own exists and is fit, what its twin is called, and whether the agent \
             speaks of it (K3K_EXPOSE_SYNC_INGRESS_TLS) (ExposurePolicy only, spec.allow.ingresses.ownSecrets)",
            "not known here: whether Secret team/wildcard of the host exists, which is named as it is (ExposurePolicy only, \
             spec.allow.ingresses.tlsSecrets)",
        ],
    );
    let objects = objects(&planned);
    let [twin] = objects.as_slice() else { panic!("{}", planned.text) };
    assert_eq!(twin["metadata"]["namespace"], "team");
    assert_eq!(twin["metadata"]["labels"]["k3k.io/clusterName"], "mine");
    assert_eq!(twin["metadata"]["annotations"]["example.com/t"], "1s");
    let path = &twin["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!(path["backend"]["service"]["name"], crate::name::twin("web", "front", "mine"));
    assert_eq!(twin["spec"]["tls"], json!([{"hosts": ["shop.a.example"]}, {"secretName": "wildcard"}]));
}

#[test]
fn a_refused_ingress_names_the_field_that_decided() {
    let of = |spec: &str, annotations: &str| {
        format!("kind: Ingress\nmetadata: {{name: shop, annotations: {annotations}}}\nspec: {spec}")
    };
    let host = |rest: &str| format!("{{ingressClassName: public, rules: [{{host: shop.a.example}}]{rest}}}");
    let closed = SHOPS.replace("ownSecrets: true", "ownSecrets: false");
    for (allow, ingress, refused, decided) in [
        (SHOPS, of("{ingressClassName: internal}", "{}"), "ClassNotAdmitted", Some("classes")),
        (SHOPS, of("{}", "{}"), "ClassNotAdmitted", None),
        (
            SHOPS,
            of("{ingressClassName: public, rules: [{host: b.example}]}", "{}"),
            "HostNotAdmitted",
            Some("hostSuffixes"),
        ),
        (SHOPS, of("{ingressClassName: public, rules: [{host: '*.a.example'}]}", "{}"), "HostNotAdmitted", None),
        (
            SHOPS,
            of(&host(", defaultBackend: {service: {name: web, port: {number: 80}}}"), "{}"),
            "HostNotAdmitted",
            Some("defaultBackend"),
        ),
        (SHOPS, of(&host(""), "{example.com/t: soon}"), "AnnotationNotAdmitted", Some("annotations")),
        (SHOPS, of(&host(""), "{kubernetes.io/ingress.class: internal}"), "AnnotationNotAdmitted", Some("annotations")),
        (&closed, of(&host(", tls: [{secretName: own}]"), "{}"), "TlsNotAdmitted", Some("ownSecrets")),
        (SHOPS, of("{ingressClassName: public, defaultBackend: {service: {name: web}}}", "{}"), "NotCarried", None),
    ] {
        let planned = under(allow, &ingress);
        assert!(planned.refused && objects(&planned).is_empty(), "{}", planned.text);
        let said = |begins: &str| planned.text.lines().any(|line| line.starts_with(begins));
        match decided {
            Some(field) => {
                assert!(said(&format!("# refused: {refused}: ")), "{}", planned.text);
                assert_says(&planned, &[&format!("decided by: ExposurePolicy only, spec.allow.ingresses.{field}")]);
            }
            None => assert!(said(&format!("# refused: {refused}, whatever policies say: ")), "{}", planned.text),
        }
    }
    let nothing = under("{}", SHOP);
    assert_says(&nothing, &["decided by: the safe default of spec.allow.ingresses.classes"]);
    let full = under(&format!("{}, limits: {{objects: 0}}}}", SHOPS.strip_suffix('}').unwrap()), SHOP);
    assert_says(&full, &["decided by: ExposurePolicy only, spec.allow.limits.objects"]);
}

#[test]
fn an_ingress_goes_with_the_services_of_its_file() {
    let service =
        |spec: &str| format!("{SHOP}---\nkind: Service\nmetadata: {{name: web, namespace: front}}\nspec: {spec}");
    let exposed = under(SHOPS, &service("{ports: [{port: 80}]}"));
    assert!(!exposed.refused && !exposed.text.contains("Service front/web is exposed"), "{}", exposed.text);
    let kinds: Vec<_> = objects(&exposed).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["Ingress", "Service"], "in the order of the file");
    let refused = under(SHOPS, &service("{type: ExternalName, externalName: example.com}"));
    assert_says(&refused, &["decided by: Service front/web, which this file has and which is refused"]);
    assert_eq!(objects(&refused), Vec::<Value>::new());
}

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.7]}, {addresses: [10.42.0.1]}, {addresses: [127.0.0.1]}]
ports: [{name: sql, port: 5432}]
";
const BARE: &str = "\n---\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{name: sql, port: 5432}]}\n";
const NAMED: &str = "{endpoints: [192.0.2.0/24]}";

fn addresses(slice: &Value) -> Vec<&str> {
    slice["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["addresses"][0].as_str().unwrap()).collect()
}

#[test]
fn without_a_host_an_address_of_nobody_knows_whom_is_left_open() {
    let planned = under(NAMED, &format!("{SLICE}{BARE}"));
    assert!(planned.refused);
    assert_says(
        &planned,
        &[
            "EndpointSlice db-1, of Service default/db of Cluster team/mine",
            "crosses: 192.0.2.7 (ExposurePolicy only, spec.allow.endpoints)",
            "crosses only if it is a pod of this virtual cluster's own: 10.42.0.1 (ExposurePolicy only, spec.allow.endpoints)",
            "refused: EndpointForbidden, whatever policies say: endpoint 127.0.0.1 is a loopback address, which never crosses",
            "not known here: whether one of these is an address of a node, of the API server or for Services, which never cross",
        ],
    );
    let objects = objects(&planned);
    let [service, slice] = objects.as_slice() else { panic!("{}", planned.text) };
    assert_eq!(
        (service["kind"].as_str(), addresses(slice)),
        (Some("Service"), vec!["192.0.2.7"]),
        "behind its Service"
    );
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], service["metadata"]["name"]);
    let plain = SLICE.replace(", {addresses: [127.0.0.1]}", "");
    assert!(!under(NAMED, &plain).refused, "what is open is not refused");
    assert_says(&under(NAMED, &plain), &["not known here: whether Service default/db is exposed, and has no selector"]);
    let denied = "kind: ExposurePolicy\nmetadata: {name: not}\nspec: {deny: {addresses: [10.0.0.0/8]}}";
    let denied = plan(&plain, &Around { policies: policies(denied).unwrap(), ..around(&[]) }).unwrap();
    assert_says(&denied, &["decided by: ExposurePolicy not, spec.deny.addresses"]);
}

#[test]
fn a_host_tells_whose_pod_an_address_is() {
    let with = |pod: &str, range: Option<&str>| {
        let mut host = Host::default();
        let pod = (Holder::Pod(Uid::parse(pod).unwrap()), ["10.42.0.1".parse().unwrap()].into());
        host.addresses.set(Source::Pods, "pod", Some(pod));
        host.addresses.set(Source::Nodes, "node", Some((Holder::Node, ["192.0.2.7".parse().unwrap()].into())));
        host.ranges.set("kubernetes", range.map(|range| vec![range.to_owned()]).as_deref());
        let policy = format!("kind: ExposurePolicy\nmetadata: {{name: only}}\nspec: {{allow: {NAMED}}}");
        let mut around = Around { policies: policies(&policy).unwrap(), host: Some(host), ..around(&[]) };
        around.cluster.metadata.uid = Some("mine".to_owned());
        plan(&format!("{SLICE}{BARE}"), &around).unwrap()
    };
    let own = with("mine", Some("10.43.0.0/16"));
    assert_says(
        &own,
        &[
            "crosses: 10.42.0.1, a pod of this virtual cluster's own",
            "refused: EndpointForbidden, whatever policies say: endpoint 192.0.2.7 is an address of a node, which never crosses",
        ],
    );
    assert!(!own.text.contains("not known here"), "{}", own.text);
    assert_eq!(addresses(&objects(&own)[1]), ["10.42.0.1"]);
    let other = with("other", Some("10.43.0.0/16"));
    assert_says(&other, &["decided by: ExposurePolicy only, spec.allow.endpoints"]);
    assert_eq!(objects(&other).len(), 1, "the Service alone: {}", other.text);
    let old = with("mine", None);
    assert_says(&old, &["nothing crosses yet: the host does not tell its ranges for Services"]);
}

#[test]
fn endpoints_cross_for_services_without_a_selector_only() {
    let selecting = BARE.replace("spec: {", "spec: {selector: {app: db}, ");
    let planned = under(NAMED, &format!("{SLICE}{selecting}"));
    assert_says(&planned, &["nothing crosses: the Service has a selector, and the pods that it selects"]);
    assert!(!planned.refused && objects(&planned).len() == 1, "{}", planned.text);
    let alias = "\n---\nkind: Service\nmetadata: {name: db}\nspec: {type: ExternalName, externalName: a.b}";
    assert_says(&under(NAMED, &format!("{SLICE}{alias}")), &["nothing crosses: the Service is refused"]);
    let endpoints =
        "kind: Endpoints\nmetadata: {name: db}\nsubsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 80}]}]";
    let mirrored = under(NAMED, &format!("{endpoints}{BARE}"));
    assert_says(&mirrored, &["Endpoints db, of Service default/db of Cluster team/mine"]);
    assert_eq!(addresses(&objects(&mirrored)[1]), ["192.0.2.7"]);
    let names = SLICE.replace("IPv4", "FQDN");
    assert!(under(NAMED, &names).text.contains("# refused: EndpointNameNotExposed, whatever policies say: "));
    for made in [
        "{}",
        "{kubernetes.io/service-name: db, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}",
    ] {
        let skipped = under(NAMED, &SLICE.replace("{kubernetes.io/service-name: db}", made));
        assert!(
            !skipped.refused && skipped.text.starts_with("# not looked at: EndpointSlice db-1, "),
            "{}",
            skipped.text
        );
    }
}

#[test]
fn each_document_has_its_own_result_and_one_refusal_is_told_of_all() {
    let knative = "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: fn}\n";
    let planned = under(SHOPS, &format!("{SHOP}{knative}---{}", SHOP.replace("a.example", "b.example")));
    assert!(planned.refused);
    assert_eq!(objects(&planned).len(), 1, "{}", planned.text);
    assert_says(&planned, &["not looked at: a Service of \"serving.knative.dev/v1\""]);
}

#[test]
fn what_the_cluster_does_not_select_is_refused_by_the_cluster() {
    let mut around = around(&[]);
    around.cluster.spec.sync.services.selector.insert("tier".to_owned(), "front".to_owned());
    let planned = plan(BARE, &around).unwrap();
    assert_says(&planned, &["decided by: the Cluster, spec.sync.services.selector"]);
    let labeled = BARE.replace("{name: db}", "{name: db, labels: {tier: front}}");
    assert!(!plan(&labeled, &around).unwrap().refused);
}

#[test]
fn a_hostile_file_is_refused_or_shown_harmless() {
    let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x]".to_owned(), |text, n| {
        format!("{text}\na{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 8].join(","))
    });
    let deep = format!("kind: Ingress\nspec: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in [bomb.as_str(), deep.as_str(), "kind: [", "\u{0}"] {
        assert!(matches!(plan(text, &around(&[])), Err(PlanError::NoYaml(..) | PlanError::Nothing)));
    }
    for text in [
        "kind: Ingress\nmetadata: {name: x, labels: 3}",
        "kind: EndpointSlice\nmetadata: {name: x}\naddressType: [a]",
        "kind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 0}]}",
    ] {
        assert!(matches!(plan(text, &around(&[])), Err(PlanError::Unreadable(..))), "{text}");
    }
    let escape = "kind: Service\nmetadata: {name: x}\nspec: {type: \"Foo\\e[2J\\n# admitted\"}";
    let told = plan(escape, &around(&[])).map(|planned| planned.text).unwrap_or_else(|error| error.to_string());
    assert!(!told.chars().any(|char| char == '\u{1b}'), "{told:?}");
    assert!(matches!(policies("kind: Pod"), Err(PlanError::NoPolicy)));
    for text in [
        "kind: Ingress\nspec: {}",
        "kind: Ingress\nmetadata: {name: '../x'}",
        "kind: Service\nmetadata: {name: x, namespace: A}",
    ] {
        assert!(matches!(plan(text, &around(&[])), Err(PlanError::NoName(_))), "{text}");
    }
    let forged = r#"{"meta.helm.sh/\n---\nkind: Pod\n#": x}"#;
    let planned = under(SHOPS, &SHOP.replace("{example.com/t: 1s, meta.helm.sh/release-name: shop}", forged));
    assert_eq!(objects(&planned), Vec::<Value>::new(), "{}", planned.text);
    let planned = under(SHOPS, "apiVersion: \"v2\\nkind: Pod\"\nkind: Service");
    assert_eq!(objects(&planned), Vec::<Value>::new());
}

proptest! {
    #[test]
    fn nothing_in_a_file_makes_plan_panic(change in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
        let mut bytes = format!("{SLICE}{BARE}---{SHOP}").into_bytes();
        for (at, byte) in change {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(planned) = plan(&String::from_utf8_lossy(&bytes), &around(&[])) {
            objects(&planned);
        }
    }
}
