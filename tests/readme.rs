//! README, help texts, reasons and CI agree. A table that does not is printed as it should be.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use k3k_expose_host_api::bounds::{self, Row};
use k3k_expose_host_api::config::Plan;
use k3k_expose_host_api::inject::{AUTHORITIES, CONTAINER, DISABLED, INJECT};
use k3k_expose_host_api::name;
use k3k_expose_host_api::notice::NoticeKind;
use k3k_expose_host_api::policy::{ask, grant};
use k3k_expose_host_api::problem::Problem;
use k3k_expose_host_api::twin::{CLUSTER_NAME, MANAGED_BY, MANAGER};
use k3k_expose_process::options::OptionRow;
use k3k_expose_proto::{Outcome, Reason};
use k3k_expose_tests::traffic::how_to;
use k3k_expose_tests::{exposed, readme};

/// What a tenant, or the platform team, does about a reason.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Applied => "nothing",
        Reason::Adopting => {
            "platform team: turn k3k's own sync of that kind off (`spec.sync` of the Cluster); then wait until the host pods are labeled"
        }
        Reason::TwinTerminating => "wait; if it lasts, platform team: look for a finalizer on the host's object",
        Reason::HostUnavailable => "wait",
        Reason::WaitingForNumber | Reason::WaitingForBackend => "wait",
        Reason::Renumbering => "wait; if it lasts, read the condition's message: this cluster refuses the change",
        Reason::NameTaken => "rename the Service or Ingress",
        Reason::ClusterIPTaken => "wait, or make the Service again without asking for an address",
        Reason::ClusterIPOutOfRange => {
            "platform team: give both clusters the same Service range; then make the Service again"
        }
        Reason::NodePortTaken => "wait, or ask for another node port",
        Reason::NodePortOutOfRange => "ask for a node port of the host's range",
        Reason::IPFamilyUnavailable => "ask for a family that the host has",
        Reason::ReservedSelectorKey => "remove selector keys under `k3k.io/`",
        Reason::ExternalNameNotExposed => "nothing: there is nothing to expose",
        Reason::WrongVirtualCluster => "platform team: read the warning Event on the Cluster before you annotate it",
        Reason::Contested => "platform team: `managedFields` of the host's Service name who keeps changing it",
        Reason::NotSelected => {
            "give it the labels of `spec.sync.services.selector` (of an Ingress: `spec.sync.ingresses.selector`) of the Cluster"
        }
        Reason::QuotaExceeded => "delete what you can spare, or ask the platform team for a larger quota",
        Reason::TypeNotAdmitted => "choose a type that the platform team admits",
        Reason::NodePortNotAdmitted => "choose a node port of the band that the message names, or none",
        Reason::TooManyObjects | Reason::TooManyNodePorts | Reason::TooManyLoadBalancers => {
            "delete what you can spare, or ask the platform team for more"
        }
        Reason::LoadBalancerClassNotAdmitted => "name a class that the platform team admits, or none",
        Reason::SourceRangesRequired => "say in `loadBalancerSourceRanges` who may connect",
        Reason::SourceRangeNotAdmitted => "name source ranges that the platform team admits",
        Reason::AddressNotAdmitted => "ask for an address that the platform team admits, or for none",
        Reason::ExternalIPNotAdmitted => "name external IPs that the platform team admits, or none",
        Reason::EndpointForbidden => "remove the address that the message names: such endpoints never cross",
        Reason::EndpointNotAdmitted => "name pods of this virtual cluster, or addresses that the platform team admits",
        Reason::EndpointNameNotExposed => "name addresses instead of host names in the EndpointSlice",
        Reason::TooManyEndpoints => "keep to 100 addresses for the same ports and family, and to 4 such sets",
        Reason::AdmissionDenied => {
            "platform team: a webhook or admission policy of the host denies it; host-api's debug log has the error. With external IPs or `loadBalancerIP`, first see whether the namespace is labeled `expose.k3k.io/addresses=admitted`"
        }
        Reason::HostRefused => {
            "platform team: host-api's debug log has the error; without one, the object has a label or a word that no API server takes"
        }
        Reason::ClassNotAdmitted => {
            "name one of the classes that `kubectl get ingressclass` shows as `expose.k3k.io/host-api`"
        }
        Reason::HostNotAdmitted => {
            "choose a host name that the platform team admits for this virtual cluster; no empty one, no wildcard"
        }
        Reason::HostTaken => "choose another host name",
        Reason::BackendNotSynced => "make the Service that the Ingress names, and see to it that it is exposed",
        Reason::AnnotationNotAdmitted => "remove the annotation, or give it a value that the platform team admits",
        Reason::PathNotAdmitted => "begin each path with `/`, and use letters, digits and `/ - . _ ~ %` only",
        Reason::TlsNotAdmitted => "name a Secret that the platform team admits for this virtual cluster, or none",
        Reason::WaitingForSecret => "make the Secret that the Ingress names; if it exists, wait",
        Reason::WaitingForIngress => "nothing: said of a Secret that no exposed Ingress names, in metrics only",
        Reason::TlsSecretUnfit => {
            "make the Secret of type `kubernetes.io/tls`, from a certificate chain and its key; the message says what is wrong"
        }
        Reason::NotCarried => "read the message: it names the field",
        Reason::Unknown => "upgrade the agent",
    }
}

/// What an Event that is no refusal means.
fn meaning(event: &str) -> &'static str {
    match event {
        "Renumbered" => "the host held a number of the Service and gave another, which the Service has now, too",
        "StatusContested" => "find who else writes this Service's status, and stop it",
        "LoadBalancerNotReady" => {
            "the host's load-balancer controller reports a problem; ask the platform team if it lasts"
        }
        other => panic!("what does the Event {other} mean?"),
    }
}

fn readme() -> String {
    readme::text().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The text between a marker and its end.
fn section(name: &str) -> String {
    let readme = readme();
    let (_, rest) = readme.split_once(&format!("<!-- {name} -->\n")).expect("a marker");
    rest.split_once("<!-- end -->").expect("an end").0.to_owned()
}

fn table(rows: &[OptionRow]) -> String {
    let mut table = "\n| variable | flag | default | meaning |\n|---|---|---|---|\n".to_owned();
    for row in rows {
        let default = if row.default.is_empty() { "".to_owned() } else { format!("`{}`", row.default) };
        writeln!(table, "| `{}` | `{}` | {default} | {} |", row.env, row.flag, row.help).unwrap();
    }
    table + "\n"
}

fn assert_section(name: &str, expected: &str) {
    assert_eq!(section(name), expected, "section {name} of README.md must read:\n{expected}");
}

#[test]
fn the_tables_of_settings_are_those_of_the_code() {
    assert_section("agent", &table(&k3k_expose_agent::config::options()));
    assert_section("host-api", &table(&k3k_expose_host_api::config::options()));
}

#[test]
fn every_reason_is_told_with_what_to_do() {
    let mut table = "\n| reason | outcome | what to do |\n|---|---|---|\n".to_owned();
    for &reason in Reason::ALL {
        let outcome = match reason.outcome() {
            Outcome::Applied => "applied",
            Outcome::Pending => "pending",
            Outcome::Rejected => "rejected",
        };
        writeln!(table, "| `{}` | {outcome} | {} |", reason.as_str(), advice(reason)).unwrap();
    }
    assert_section("reasons", &(table + "\n"));
}

#[test]
fn every_bound_is_told_with_what_happens_beyond() {
    let mut table = "\n| what | at most | beyond |\n|---|---|---|\n".to_owned();
    for Row { what, most, beyond } in bounds::table() {
        writeln!(table, "| {what} | {most} | {beyond} |").unwrap();
    }
    assert_section("bounds", &(table + "\n"));
}

#[test]
fn the_safe_defaults_are_those_of_the_code() {
    let mut expected = String::from("\n| field of `spec.allow` | without it |\n|---|---|\n");
    for (field, default) in grant::defaults() {
        writeln!(expected, "| `{field}` | {default} |").unwrap();
    }
    expected.push('\n');
    assert_section("defaults", &expected);
}

/// The first block of that language in a text, without its fences.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0
}

#[tokio::test]
async fn a_plan_says_of_the_file_what_is_printed_here() {
    let (section, folder) = (section("plan"), k3k_expose_tests::scratch::folder("readme-plan").unwrap());
    let (file, policy) = (folder.join("shop.yaml"), folder.join("gold.yaml"));
    std::fs::write(&file, block(&section, "yaml")).unwrap();
    let readme = readme();
    let (_, tenants) = readme.split_once("\n### What tenants may expose\n").expect("a heading");
    std::fs::write(&policy, block(tenants, "yaml")).unwrap();
    let asked = Plan { file, cluster: "team-a/mine".to_owned(), policies: vec![policy], kubeconfig: None };
    let planned = ask::plan(&asked).await.unwrap();
    assert!(planned.refused);
    let expected: String =
        planned.text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let (_, printed) = block(&section, "console").split_once('\n').unwrap();
    assert_eq!(printed, expected, "section plan of README.md must read:\n{expected}");
}

#[test]
fn every_event_that_is_no_refusal_is_told_with_its_meaning() {
    let mut table = "\n| Event | meaning |\n|---|---|\n".to_owned();
    for event in k3k_expose_agent::EVENT_REASONS {
        writeln!(table, "| `{event}` | {} |", meaning(event)).unwrap();
    }
    assert_section("events", &(table + "\n"));
}

#[test]
fn every_metric_is_told_with_its_labels() {
    for (name, metrics) in ["metrics of the agent", "metrics of host-api"].into_iter().zip(exposed::by_both().unwrap())
    {
        let mut table = "\n| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
        for (metric, exposed::Metric { help, kind, labels }) in metrics {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(table, "| `{metric}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
        }
        assert_section(name, &(table + "\n"));
    }
}

#[test]
fn the_how_tos_name_things_as_the_code_does() {
    let readme = readme();
    for told in [
        format!("mycluster --namespace team {INJECT}={DISABLED}"),
        format!("namespace team {INJECT}={DISABLED}"),
        format!("`{INJECT}-`"),
        format!("metadata.name={AUTHORITIES}"),
        format!("--container {CONTAINER}"),
        format!("--selector {MANAGED_BY}={MANAGER}"),
        format!("--selector {CLUSTER_NAME}=mine"),
        format!("kubectl delete pod {}-0", name::server("mycluster")),
    ] {
        assert!(readme.contains(&told), "{told}");
    }
    let cluster = |kind: NoticeKind| kind.reason();
    for reason in [
        cluster(NoticeKind::TwoWriters),
        cluster(NoticeKind::NotInjected { why: String::new() }),
        cluster(NoticeKind::Uninjected { namespace: String::new(), pods: Vec::new() }),
    ] {
        assert!(readme.contains(&format!("--field-selector reason={reason}\n")), "{reason}");
    }
}

#[test]
fn every_reason_for_which_host_api_refuses_a_session_is_told_with_what_to_do() {
    let text = String::new;
    let told = section("refusals");
    for problem in [
        Problem::TokenMissing,
        Problem::TokenExpired,
        Problem::WrongAudience,
        Problem::TokenRejected,
        Problem::NotAServerPod(text()),
        Problem::PodGone,
        Problem::UnsupportedMode(text()),
        Problem::NoCommonVersion(text()),
        Problem::BadHello(text()),
        Problem::TooManyTakeovers(text()),
        Problem::TooManySessions(text()),
        Problem::TooManyTries,
        Problem::TooBusy,
        Problem::NotReady(text()),
        Problem::NotLeader,
    ] {
        assert!(told.contains(&format!("`{}`", problem.reason())), "{}", problem.reason());
    }
}

#[test]
fn every_link_within_the_readme_leads_to_a_heading() {
    let text = readme();
    let anchors = readme::anchors(&text);
    for link in text.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link} is none of {anchors:?}");
    }
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let model = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let (_, threats) = model.split_once("## Threats\n").expect("a heading");
    let (threats, _) = threats.split_once("## ").expect("another heading");
    let rows = threats.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| threat"));
    let tests = tests_in(root());
    let mut named = 0;
    for row in rows {
        let shown_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows: {row}");
        for name in names {
            assert!(tests.contains(name), "no test is called {name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

/// Names of all tests in Rust files below a folder.
fn tests_in(folder: &Path) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let skipped = path.file_name().is_some_and(|name| name == "target" || name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !skipped {
            tests.extend(tests_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, rest)) = line.split_once("fn ")
                    && std::mem::take(&mut is_test)
                {
                    tests.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
                }
            }
        }
    }
    tests
}

#[test]
fn every_file_that_the_readme_names_exists() {
    let text = readme();
    let is_path = |char: char| char.is_ascii_alphanumeric() || "/-_.".contains(char);
    let words = text.split(|char| !is_path(char)).map(|word| word.trim_end_matches(['.', '/']));
    let folders = ["manifests/", "host-api/", "agent/", "proto-free-shared/", "tests/", ".ci/"];
    let named: Vec<&str> = words.filter(|word| folders.iter().any(|folder| word.starts_with(folder))).collect();
    assert!(named.len() > 8, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_how_to_of_a_tenant_has_its_parts_in_order_and_commands_in_each() {
    let blocks = how_to::blocks(&readme(), "Expose a workload");
    assert!(blocks.iter().all(|block| !block.steps.is_empty()));
    let mut headings: Vec<&str> = blocks.iter().map(|block| block.heading.as_str()).collect();
    headings.dedup();
    let parts = [
        "Which mode?",
        "NodePort or LoadBalancer",
        "ClusterIP for internal use",
        "Ingress with a controller of your own",
        "Ingress with the host's controller",
    ];
    assert_eq!(headings, parts);
}

#[test]
fn ci_runs_the_commands_of_the_readme() {
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    let last = ci.lines().rfind(|line| !line.trim().is_empty()).unwrap();
    assert_eq!(last, "step cargo test --workspace");
    assert!(ci.contains("\nstep cargo demo -- --once\n"));
    assert!(ci.contains("\nstep .ci/traffic\n"));
    let traffic = std::fs::read_to_string(root().join(".ci/traffic")).unwrap();
    assert!(traffic.ends_with("\ncargo demo -- --traffic --once\n"));
    for command in [
        "cargo demo ",
        "cargo test --workspace ",
        "`cargo demo -- --once`",
        ".ci/traffic ",
        "`cargo demo -- --traffic --once`",
    ] {
        assert!(readme().contains(command), "{command}");
    }
}
