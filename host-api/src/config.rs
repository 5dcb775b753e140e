//! Settings: raw strings from flags and environment to a [`Config`] that cannot be wrong.
//!
//! [`Config::try_from`] is pure and reports every mistake at once. The trap: clap itself stops at the first mistake, so
//! it is given strings only.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use k3k_expose_process::log;
use k3k_expose_process::options::{self, Mistakes, OptionRow};

use crate::certificates::Source;
use crate::certificates::files::Paths;
use crate::certificates::plan::Lifetimes;
use crate::inject::Settings;
use crate::numbers::Conflict;

/// The name of this pod, which no other replica ever has.
const POD_NAME: &str = "POD_NAME";

/// Where agents reach host-api as the manifests install it.
const HOST_API_URL: &str = "https://k3k-expose-host-api.k3k-expose.svc:8443";

/// Makes and keeps the host twins of the Services of virtual clusters.
#[derive(Clone, Debug, Parser)]
#[command(name = "k3k-expose-host-api", version, args_conflicts_with_subcommands = true)]
pub struct Raw {
    /// IP address and port on which agents connect: a port from 1 to 65535
    #[arg(long, env = "K3K_EXPOSE_LISTEN_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen_address: String,
    /// PEM file of the certificate that agents and the API server see, with its chain; read again when it changes. Without one host-api makes its own
    #[arg(long, env = "K3K_EXPOSE_TLS_CERT_FILE", value_name = "PATH")]
    tls_cert_file: Option<String>,
    /// PEM file of the certificate's private key
    #[arg(long, env = "K3K_EXPOSE_TLS_KEY_FILE", value_name = "PATH")]
    tls_key_file: Option<String>,
    /// PEM file of the authorities that agents trust, beside such a certificate: published into the namespaces of shared-mode Clusters. Without one nothing is published
    #[arg(long, env = "K3K_EXPOSE_TLS_CA_FILE", value_name = "PATH")]
    tls_ca_file: Option<String>,
    /// Seconds that a certificate of host-api's own lives, from 10 to 31536000; it is renewed at two thirds
    #[arg(long, env = "K3K_EXPOSE_CERTIFICATE_SECONDS", value_name = "SECONDS", default_value = "7776000")]
    certificate_seconds: String,
    /// Seconds that an authority of host-api's own lives, from 60 to 315360000 and at least three lives of a certificate; it is renewed at two thirds
    #[arg(long, env = "K3K_EXPOSE_AUTHORITY_SECONDS", value_name = "SECONDS", default_value = "31536000")]
    authority_seconds: String,
    /// Whether replicas elect by a Lease the one that serves sessions and writes: true or false. Only a host-api without others can do without
    #[arg(long, env = "K3K_EXPOSE_LEADER_ELECTION", value_name = "WHETHER", default_value = "true")]
    leader_election: String,
    /// Seconds after which a Lease that is not renewed is another replica's, from 3 to 60; its holder steps down at two thirds
    #[arg(long, env = "K3K_EXPOSE_LEASE_SECONDS", value_name = "SECONDS", default_value = "15")]
    lease_seconds: String,
    /// IP address and port on which the API server asks about pods: a port from 1 to 65535
    #[arg(long, env = "K3K_EXPOSE_ADMISSION_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:9443")]
    admission_address: String,
    /// Image of the agent. Without one no agent is injected
    #[arg(long, env = "K3K_EXPOSE_AGENT_IMAGE", value_name = "IMAGE")]
    agent_image: Option<String>,
    /// URL under which injected agents reach host-api, as https://HOST:PORT
    #[arg(long, env = "K3K_EXPOSE_HOST_API_URL", value_name = "URL", default_value = HOST_API_URL)]
    host_api_url: String,
    /// Kubeconfig of the host. Without one the pod's own ServiceAccount is used
    #[arg(long, env = "K3K_EXPOSE_KUBECONFIG", value_name = "PATH")]
    kubeconfig: Option<String>,
    /// IP address and port of probes and metrics: a port from 1 to 65535
    #[arg(long, env = "K3K_EXPOSE_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:9464")]
    admin_address: String,
    /// What happens when a cluster IP is held on the host: renumber (both sides move to another one) or report (no twin until it is free)
    #[arg(long, env = "K3K_EXPOSE_CLUSTER_IP_CONFLICT", value_name = "HOW", default_value = "renumber")]
    cluster_ip_conflict: String,
    /// Most Services, Ingresses and certificates of one virtual cluster on the host, from 1 to 50000; further ones are refused
    #[arg(long, env = "K3K_EXPOSE_TENANT_OBJECTS", value_name = "NUMBER", default_value = "5000")]
    tenant_objects: String,
    /// Whether injected agents speak for Ingresses: true or false. Which are admitted, ExposurePolicies say
    #[arg(long, env = "K3K_EXPOSE_SYNC_INGRESSES", value_name = "WHETHER", default_value = "false")]
    sync_ingresses: String,
    /// Whether injected agents that speak for Ingresses speak for the certificates they name, too: true or false. Which may cross, ExposurePolicies say
    #[arg(long, env = "K3K_EXPOSE_SYNC_INGRESS_TLS", value_name = "BOOL", default_value = "false")]
    sync_ingress_tls: String,
    /// What is logged: error, warn, info, debug, trace or off, also by module, separated by commas
    #[arg(long, env = "K3K_EXPOSE_LOG", value_name = "LEVELS", default_value = "info")]
    log: String,
    /// How it is logged: json, text, or auto (text on a terminal, else json)
    #[arg(long, env = "K3K_EXPOSE_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    log_format: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Print a server pod as it is with the agent beside it, from files
    Inject(Inject),
    /// Print what the host would get for Services, Ingresses and EndpointSlices of a tenant, or the rule that refuses them
    Plan(Plan),
}

/// What `plan` is asked.
#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// YAML file with Services, Ingresses, EndpointSlices and Endpoints as their tenant writes them; - reads standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: PathBuf,
    /// Whose they are, as NAMESPACE/NAME of the Cluster
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: String,
    /// YAML file with ExposurePolicies, instead of those of the host; then Cluster and Namespace, with their labels, are read from the first file too, and nothing from the host
    #[arg(long = "policy", value_name = "FILE")]
    pub policies: Vec<PathBuf>,
    /// Kubeconfig of the host. Without one it is the one that kubectl takes
    #[arg(long, env = "K3K_EXPOSE_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

/// What `inject` is asked.
#[derive(Clone, Debug, Args)]
pub struct Inject {
    /// YAML file with the pod, its StatefulSet and its Cluster, as kubectl get prints them; - reads standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: PathBuf,
    /// Image of the agent
    #[arg(long, env = "K3K_EXPOSE_AGENT_IMAGE", value_name = "IMAGE")]
    pub agent_image: String,
    /// URL under which agents reach host-api
    #[arg(long, env = "K3K_EXPOSE_HOST_API_URL", value_name = "URL", default_value = HOST_API_URL)]
    pub host_api_url: String,
    /// With Ingresses, as host-api injects it where K3K_EXPOSE_SYNC_INGRESSES is true
    #[arg(long)]
    pub sync_ingresses: bool,
    /// With the certificates that Ingresses name, as host-api injects it where K3K_EXPOSE_SYNC_INGRESS_TLS is true
    #[arg(long)]
    pub sync_ingress_tls: bool,
}

/// What the process is to do.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Serve, with these settings.
    Serve(Box<Config>),
    /// Print a pod with the agent beside it.
    Inject(Inject),
    /// Print what becomes of Services.
    Plan(Plan),
}

/// Every setting, parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where sessions are served.
    pub listen_address: SocketAddr,
    /// Who makes certificates.
    pub certificates: Source,
    /// How long the Lease lasts by which replicas elect; without one this replica is alone.
    pub lease: Option<Duration>,
    /// Where the API server asks about pods.
    pub admission_address: SocketAddr,
    /// Where agents reach host-api.
    pub host_api_url: String,
    /// What a sidecar looks like; without it nothing is injected.
    pub sidecar: Option<Settings>,
    /// Kubeconfig of the host, or the pod's ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// Where probes and metrics are served.
    pub admin_address: SocketAddr,
    /// What happens when a cluster IP is held on the host.
    pub cluster_ip_conflict: Conflict,
    /// Most twins of one tenant.
    pub tenant_objects: usize,
    /// What is logged.
    pub log: log::Levels,
    /// How it is logged.
    pub log_format: log::Format,
}

/// Why there is no [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration:\n  {}", .0.join("\n  "))]
pub struct Invalid(pub Vec<String>);

/// Every option, in the order of `--help`.
#[must_use]
pub fn options() -> Vec<OptionRow> {
    options::rows(&Raw::command())
}

/// Variables of the process that look like settings and are none.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    options::unknown(&Raw::command(), std::env::vars_os().map(|(name, _)| name))
}

/// The name of this process's pod, in one.
#[must_use]
pub fn pod_name() -> Option<String> {
    std::env::var_os(POD_NAME).and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty())
}

/// Reads flags and environment. `--help`, `--version` and unknown flags print and end the process.
///
/// # Errors
/// [`Invalid`] with every mistake.
pub fn read() -> Result<Asked, Invalid> {
    let raw = Raw::parse();
    match raw.command.clone() {
        Some(Command::Inject(inject)) => Ok(Asked::Inject(inject)),
        Some(Command::Plan(plan)) => Ok(Asked::Plan(plan)),
        None => Config::try_from(raw).map(Box::new).map(Asked::Serve),
    }
}

impl TryFrom<Raw> for Config {
    type Error = Invalid;

    fn try_from(raw: Raw) -> Result<Self, Invalid> {
        let mut mistakes = Mistakes::default();
        let listen_address = mistakes.take("listen-address", options::address(&raw.listen_address));
        let by_files = raw.tls_cert_file.is_some() || raw.tls_key_file.is_some();
        let beside = |raw: Option<String>| match raw {
            Some(path) => options::path(path).map(Some),
            None if by_files => Err("must be given too: a certificate and its key go together"),
            None => Ok(None),
        };
        let authorities = |raw: Option<String>| match raw.map(options::path).transpose()? {
            Some(_) if !by_files => Err("goes with K3K_EXPOSE_TLS_CERT_FILE only"),
            path => Ok(path),
        };
        let tls_cert_file = mistakes.take("tls-cert-file", beside(raw.tls_cert_file));
        let tls_key_file = mistakes.take("tls-key-file", beside(raw.tls_key_file));
        let tls_ca_file = mistakes.take("tls-ca-file", authorities(raw.tls_ca_file));
        let certificate = number(&raw.certificate_seconds, 10..=31_536_000, "must be a number from 10 to 31536000");
        let certificate = mistakes.take("certificate-seconds", certificate);
        let authority = number(&raw.authority_seconds, 60..=315_360_000, "must be a number from 60 to 315360000")
            .and_then(|authority| match certificate {
                Some(certificate) if authority < 3 * certificate => {
                    Err("must be at least three lives of a certificate")
                }
                _ => Ok(authority),
            });
        let authority = mistakes.take("authority-seconds", authority);
        let leader_election =
            mistakes.take("leader-election", raw.leader_election.parse::<bool>().map_err(|_| "must be true or false"));
        let lease = number(&raw.lease_seconds, 3..=60, "must be a number from 3 to 60")
            .map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
        let lease = mistakes.take("lease-seconds", lease);
        let admission_address = mistakes.take("admission-address", options::address(&raw.admission_address));
        let agent_image = mistakes.take("agent-image", raw.agent_image.map(image).transpose());
        let host_api_url = mistakes.take("host-api-url", host_api_url(raw.host_api_url));
        let kubeconfig = mistakes.take("kubeconfig", raw.kubeconfig.map(options::path).transpose());
        let admin_address = mistakes.take("admin-address", options::address(&raw.admin_address));
        let cluster_ip_conflict = mistakes.take("cluster-ip-conflict", conflict(&raw.cluster_ip_conflict));
        let tenant_objects = number(&raw.tenant_objects, 1..=50_000, "must be a number from 1 to 50000")
            .and_then(|number| usize::try_from(number).map_err(|_| "must be a number from 1 to 50000"));
        let tenant_objects = mistakes.take("tenant-objects", tenant_objects);
        let sync_ingresses =
            mistakes.take("sync-ingresses", raw.sync_ingresses.parse::<bool>().map_err(|_| "must be true or false"));
        let sync_ingress_tls = mistakes
            .take("sync-ingress-tls", raw.sync_ingress_tls.parse::<bool>().map_err(|_| "must be true or false"));
        let log = mistakes.take("log", log::Levels::parse(&raw.log));
        let log_format = mistakes.take("log-format", log::Format::parse(&raw.log_format));
        let certificates = || {
            let (paths, authorities) = (tls_cert_file?.zip(tls_key_file?), tls_ca_file?);
            let lifetimes = Lifetimes { certificate: certificate?, authority: authority? };
            Some(match paths {
                Some((certificate, key)) => Source::Files(Paths { certificate, key, authorities }),
                None => Source::Own(lifetimes),
            })
        };
        let certificates = certificates();
        let lease = leader_election.zip(lease).map(|(elects, seconds)| elects.then_some(seconds));
        let sidecar = || {
            let (sync_ingresses, tls) = (sync_ingresses?, sync_ingress_tls?);
            let of = |(image, host_api_url)| Settings {
                image,
                host_api_url,
                sync_ingresses,
                sync_ingress_tls: sync_ingresses && tls,
            };
            Some(agent_image?.zip(host_api_url.clone()).map(of))
        };
        let sidecar = sidecar();
        let complete = || {
            Some(Self {
                listen_address: listen_address?,
                certificates: certificates?,
                lease: lease?,
                admission_address: admission_address?,
                sidecar: sidecar?,
                host_api_url: host_api_url?,
                kubeconfig: kubeconfig?,
                admin_address: admin_address?,
                cluster_ip_conflict: cluster_ip_conflict?,
                tenant_objects: tenant_objects?,
                log: log?,
                log_format: log_format?,
            })
        };
        complete().ok_or(Invalid(mistakes.0))
    }
}

fn number(raw: &str, bounds: RangeInclusive<i64>, mistake: &'static str) -> Result<i64, &'static str> {
    raw.parse().ok().filter(|number| bounds.contains(number)).ok_or(mistake)
}

fn image(raw: String) -> Result<String, &'static str> {
    if raw.is_empty() || raw.contains(char::is_whitespace) { Err("is no image") } else { Ok(raw) }
}

/// The agent parses it, and says in the pod what is wrong with it; a mistake that is plain is better told here.
fn host_api_url(raw: String) -> Result<String, &'static str> {
    let uri: http::Uri = raw.parse().map_err(|_| "is no URL")?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    // The parser drops a fragment, which would stay in the text that agents are given.
    if uri.scheme_str() != Some("https") || uri.path() != "/" || uri.query().is_some() || has_user || raw.contains('#')
    {
        return Err("must be https://HOST:PORT");
    }
    Ok(raw)
}

fn conflict(raw: &str) -> Result<Conflict, &'static str> {
    match raw {
        "renumber" => Ok(Conflict::Renumber),
        "report" => Ok(Conflict::Report),
        _ => Err("must be renumber or report"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(flags: &[&str]) -> Raw {
        Raw::try_parse_from(["k3k-expose-host-api"].iter().chain(flags)).unwrap()
    }

    #[test]
    fn nothing_has_to_be_set() {
        assert_eq!(Config::try_from(raw(&[])).unwrap().tenant_objects, crate::bounds::Bounds::default().objects);
        let config = Config::try_from(raw(&[])).unwrap();
        assert_eq!(config.certificates, Source::Own(Lifetimes { certificate: 7_776_000, authority: 31_536_000 }));
        assert_eq!(config.lease, Some(Duration::from_secs(15)));
        assert_eq!(config.listen_address.port(), 8443);
        assert_eq!(config.kubeconfig, None);
        assert_eq!(config.sidecar, None, "nobody said which image");
        assert_eq!(config.cluster_ip_conflict, Conflict::Renumber);
    }

    #[test]
    fn no_setting_is_passed_over() {
        let asked = ["plan", "-f=a.yaml", "--cluster=a/b", "--kubeconfig=host.yaml"];
        let Some(Command::Plan(plan)) = raw(&asked).command else { panic!("asked to plan") };
        assert_eq!(plan.kubeconfig, Some("host.yaml".into()));
        let before = ["k3k-expose-host-api", "--kubeconfig=host.yaml"];
        assert!(Raw::try_parse_from(before.iter().chain(&asked)).is_err(), "of serving, not of the command");
    }

    #[test]
    fn a_certificate_of_somebody_else_comes_with_its_key() {
        let with = |flags: &[&str]| Config::try_from(raw(flags)).map(|config| config.certificates);
        let paths =
            |authorities| Source::Files(Paths { certificate: "c.pem".into(), key: "k.pem".into(), authorities });
        assert_eq!(with(&["--tls-cert-file=c.pem", "--tls-key-file=k.pem"]), Ok(paths(None)));
        let all = with(&["--tls-cert-file=c.pem", "--tls-key-file=k.pem", "--tls-ca-file=a.pem"]);
        assert_eq!(all, Ok(paths(Some("a.pem".into()))));
        for alone in ["--tls-cert-file=c.pem", "--tls-key-file=k.pem", "--tls-ca-file=a.pem"] {
            assert_eq!(with(&[alone]).unwrap_err().0.len(), 1, "{alone}");
        }
    }

    #[test]
    fn an_authority_outlives_what_it_signs() {
        let with = |flags: &[&str]| Config::try_from(raw(flags)).is_ok();
        assert!(with(&["--certificate-seconds=20", "--authority-seconds=60"]));
        assert!(!with(&["--certificate-seconds=21", "--authority-seconds=60"]));
        assert!(!with(&["--certificate-seconds=9"]) && !with(&["--lease-seconds=2"]));
    }

    #[test]
    fn whoever_is_alone_needs_no_lease() {
        assert_eq!(Config::try_from(raw(&["--leader-election=false"])).unwrap().lease, None);
    }

    #[test]
    fn injected_agents_speak_for_certificates_only_where_they_speak_for_ingresses() {
        let speaks = |flags: &[&str]| {
            let sidecar = Config::try_from(raw(&[&["--agent-image=a"], flags].concat())).unwrap().sidecar.unwrap();
            (sidecar.sync_ingresses, sidecar.sync_ingress_tls)
        };
        assert_eq!(speaks(&["--sync-ingress-tls=true"]), (false, false));
        assert_eq!(speaks(&["--sync-ingress-tls=true", "--sync-ingresses=true"]), (true, true));
        assert_eq!(speaks(&["--sync-ingresses=true"]), (true, false));
    }

    #[test]
    fn urls_that_agents_would_refuse_are_refused() {
        for url in [
            "a",
            "http://a",
            "https://u:p@a",
            "https://u@a:1",
            "https://a/b",
            "https://a/?q",
            "https://a/#f",
            "https://a#f",
        ] {
            assert!(host_api_url(url.to_owned()).is_err(), "{url}");
        }
        for url in ["https://a", "https://a:8443/", "https://[::1]:8443"] {
            assert_eq!(host_api_url(url.to_owned()).as_deref(), Ok(url));
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once_under_both_names() {
        let invalid = Config::try_from(raw(&[
            "--listen-address=8443",
            "--tls-cert-file=",
            "--tls-ca-file=",
            "--certificate-seconds=1d",
            "--authority-seconds=-1",
            "--leader-election=maybe",
            "--lease-seconds=61",
            "--admission-address=9443",
            "--agent-image=",
            "--host-api-url=http://a",
            "--kubeconfig=",
            "--admin-address=localhost",
            "--cluster-ip-conflict=fight",
            "--tenant-objects=0",
            "--sync-ingresses=maybe",
            "--sync-ingress-tls=maybe",
            "--log=loud",
            "--log-format=xml",
        ]))
        .unwrap_err();
        assert_eq!(invalid.0.len(), options().len());
        for (mistake, option) in invalid.0.iter().zip(options()) {
            assert!(mistake.starts_with(&format!("{} ({}) ", option.env, option.flag)), "{mistake}");
        }
    }
}
