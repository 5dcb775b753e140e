//! Settings: raw strings from flags and environment to a [`Config`] that cannot be wrong.
//!
//! [`Config::try_from`] is pure and reports every mistake at once. The trap: clap itself stops at the first mistake, so
//! it is given strings only.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};
use k3k_expose_process::log;
use k3k_expose_process::options::{self, Mistakes, OptionRow};
use k3k_expose_proto::Resource;

/// Address of the admin server when none, or none that can be parsed, is given.
const DEFAULT_ADMIN_ADDRESS: &str = "0.0.0.0:9464";
/// Set in every pod that runs the agent; decides whether a mistake ends the process.
const POD_NAME: &str = "POD_NAME";

/// Streams the Services of one virtual cluster to host-api.
#[derive(Clone, Debug, Parser)]
#[command(name = "k3k-expose-agent", version)]
pub struct Raw {
    /// URL of host-api, as https://HOST:PORT without a path. Required
    #[arg(long, env = "K3K_EXPOSE_HOST_API_URL", value_name = "URL")]
    host_api_url: Option<String>,
    /// PEM file of the certificate authorities that may vouch for host-api. No other is trusted
    #[arg(
        long,
        env = "K3K_EXPOSE_HOST_API_CA_FILE",
        value_name = "PATH",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )]
    host_api_ca_file: String,
    /// File of the token with audience k3k-expose that is shown to host-api. Read again for each session
    #[arg(
        long,
        env = "K3K_EXPOSE_TOKEN_FILE",
        value_name = "PATH",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    token_file: String,
    /// Kubeconfig of the virtual cluster's administrator. May be missing at first, and is read again when it changes
    #[arg(
        long,
        env = "K3K_EXPOSE_KUBECONFIG",
        value_name = "PATH",
        default_value = "/var/run/k3k-expose/kubeconfig/kubeconfig.yaml"
    )]
    kubeconfig: String,
    /// URL of the virtual cluster's API server, as https://HOST:PORT. Used instead of the one in the kubeconfig
    #[arg(long, env = "K3K_EXPOSE_VIRTUAL_SERVER", value_name = "URL", default_value = "https://127.0.0.1:6443")]
    virtual_server: String,
    /// Whether Ingresses are synchronized too: true or false
    #[arg(long, env = "K3K_EXPOSE_SYNC_INGRESSES", value_name = "BOOL", default_value = "false")]
    sync_ingresses: String,
    /// Whether the certificates that Ingresses name cross to the host too: true or false. Counts where Ingresses are synchronized
    #[arg(long, env = "K3K_EXPOSE_SYNC_INGRESS_TLS", value_name = "BOOL", default_value = "false")]
    sync_ingress_tls: String,
    /// IP address and port of probes and metrics: a port from 1 to 65535
    #[arg(long, env = "K3K_EXPOSE_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = DEFAULT_ADMIN_ADDRESS)]
    admin_address: String,
    /// What is logged: error, warn, info, debug, trace or off, also by module, separated by commas
    #[arg(long, env = "K3K_EXPOSE_LOG", value_name = "LEVELS", default_value = "info")]
    log: String,
    /// How it is logged: json, text, or auto (text on a terminal, else json)
    #[arg(long, env = "K3K_EXPOSE_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    log_format: String,
}

/// Every setting, parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where sessions are opened.
    pub session_url: reqwest::Url,
    /// Certificate authorities of host-api.
    pub host_api_ca_file: PathBuf,
    /// Token for host-api.
    pub token_file: PathBuf,
    /// Kubeconfig of the virtual cluster's administrator.
    pub kubeconfig: PathBuf,
    /// API server of the virtual cluster.
    pub virtual_server: http::Uri,
    /// Whether Ingresses are synchronized too.
    pub sync_ingresses: bool,
    /// Whether the certificates that they name are, too.
    pub sync_ingress_tls: bool,
    /// Where probes and metrics are served.
    pub admin_address: SocketAddr,
    /// What is logged.
    pub log: log::Levels,
    /// How it is logged.
    pub log_format: log::Format,
}

/// Why there is no [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration:\n  {}", .mistakes.join("\n  "))]
pub struct Invalid {
    /// Every mistake, in the order of the options.
    pub mistakes: Vec<String>,
    /// Where the agent can still say so.
    pub admin_address: SocketAddr,
}

/// Every option, in the order of `--help`.
#[must_use]
pub fn options() -> Vec<OptionRow> {
    options::rows(&Raw::command())
}

/// Whether the process runs in a pod, where a mistake must not end it: the control plane beside it would not start.
#[must_use]
pub fn in_pod() -> bool {
    std::env::var_os(POD_NAME).is_some_and(|name| !name.is_empty())
}

/// Variables of the process that look like settings and are none.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    options::unknown(&Raw::command(), std::env::vars_os().map(|(name, _)| name))
}

/// Reads flags and environment. `--help` and `--version` print and end the process.
///
/// # Errors
/// [`Invalid`] with every mistake.
pub fn read() -> Result<Config, Invalid> {
    match Raw::try_parse() {
        Ok(raw) => Config::try_from(raw),
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => Err(Invalid {
            mistakes: vec![error.to_string().trim().to_owned()],
            admin_address: SocketAddr::from(([0, 0, 0, 0], 9464)),
        }),
    }
}

impl Config {
    /// What the agent speaks for.
    #[must_use]
    pub fn watched(&self) -> Vec<Resource> {
        let more = [(self.sync_ingresses, Resource::Ingresses), (self.sync_ingress_tls, Resource::Secrets)];
        let more = more.into_iter().filter(|(is_on, _)| *is_on).map(|(_, resource)| resource);
        std::iter::once(Resource::Services).chain(more).collect()
    }
}

fn session_url(raw: Option<&str>) -> Result<reqwest::Url, &'static str> {
    let raw = raw.ok_or("is required")?;
    let mut url = reqwest::Url::parse(raw).map_err(|_| "is no URL")?;
    if url.scheme() != "https" {
        return Err("must begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must have no user, query or fragment");
    }
    if url.path() != "/" {
        return Err("must have no path");
    }
    url.set_path("/v1/session");
    Ok(url)
}

fn virtual_server(raw: &str) -> Result<http::Uri, &'static str> {
    let uri: http::Uri = raw.parse().map_err(|_| "is no URL")?;
    if uri.scheme_str() != Some("https") {
        return Err("must begin with https://");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err("must have no path");
    }
    Ok(uri)
}

fn boolean(raw: &str) -> Result<bool, &'static str> {
    raw.parse().map_err(|_| "must be true or false")
}

impl TryFrom<Raw> for Config {
    type Error = Invalid;

    fn try_from(raw: Raw) -> Result<Self, Invalid> {
        let mut mistakes = Mistakes::default();
        let session_url = mistakes.take("host-api-url", session_url(raw.host_api_url.as_deref()));
        let host_api_ca_file = mistakes.take("host-api-ca-file", options::path(raw.host_api_ca_file));
        let token_file = mistakes.take("token-file", options::path(raw.token_file));
        let kubeconfig = mistakes.take("kubeconfig", options::path(raw.kubeconfig));
        let virtual_server = mistakes.take("virtual-server", virtual_server(&raw.virtual_server));
        let sync_ingresses = mistakes.take("sync-ingresses", boolean(&raw.sync_ingresses));
        let sync_ingress_tls = mistakes.take("sync-ingress-tls", boolean(&raw.sync_ingress_tls));
        let admin_address = mistakes.take("admin-address", options::address(&raw.admin_address));
        let log = mistakes.take("log", log::Levels::parse(&raw.log));
        let log_format = mistakes.take("log-format", log::Format::parse(&raw.log_format));
        let complete = || {
            Some(Self {
                session_url: session_url?,
                host_api_ca_file: host_api_ca_file?,
                token_file: token_file?,
                kubeconfig: kubeconfig?,
                virtual_server: virtual_server?,
                sync_ingresses: sync_ingresses?,
                sync_ingress_tls: sync_ingress_tls? && sync_ingresses?,
                admin_address: admin_address?,
                log: log?,
                log_format: log_format?,
            })
        };
        complete().ok_or_else(|| Invalid {
            mistakes: mistakes.0,
            admin_address: admin_address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 9464))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(flags: &[&str]) -> Raw {
        let name = ["k3k-expose-agent"].iter();
        Raw::try_parse_from(name.chain(flags)).unwrap()
    }

    #[test]
    fn defaults_and_a_url_are_enough() {
        let config = Config::try_from(raw(&["--host-api-url", "https://host-api.k3k-expose.svc"])).unwrap();
        assert_eq!(config.session_url.as_str(), "https://host-api.k3k-expose.svc/v1/session");
        assert_eq!(config.admin_address.to_string(), DEFAULT_ADMIN_ADDRESS);
    }

    #[test]
    fn every_mistake_is_reported_at_once_under_both_names() {
        let invalid = Config::try_from(raw(&[
            "--host-api-url=http://host-api",
            "--host-api-ca-file=",
            "--token-file=",
            "--kubeconfig=",
            "--virtual-server=127.0.0.1:6443",
            "--sync-ingresses=yes",
            "--sync-ingress-tls=yes",
            "--admin-address=9464",
            "--log=loud",
            "--log-format=xml",
        ]))
        .unwrap_err();
        assert_eq!(invalid.mistakes.len(), options().len());
        for (mistake, option) in invalid.mistakes.iter().zip(options()) {
            let names = format!("{} ({}) ", option.env, option.flag);
            assert!(mistake.starts_with(&names), "{mistake}");
        }
        assert_eq!(invalid.admin_address.to_string(), DEFAULT_ADMIN_ADDRESS);
    }

    #[test]
    fn a_missing_url_is_one_mistake_and_the_given_admin_address_stays() {
        let invalid = Config::try_from(raw(&["--admin-address", "127.0.0.1:1234"])).unwrap_err();
        assert_eq!(invalid.mistakes, ["K3K_EXPOSE_HOST_API_URL (--host-api-url) is required"]);
        assert_eq!(invalid.admin_address.port(), 1234);
    }

    #[test]
    fn urls_that_could_mislead_are_refused() {
        for url in ["", "host-api", "http://a", "https://u:p@a", "https://a/b", "https://a/?q", "https://a/#f"] {
            assert!(session_url(Some(url)).is_err(), "{url}");
        }
        for url in ["", "http://a", "https://a/b", "a:1"] {
            assert!(virtual_server(url).is_err(), "{url}");
        }
    }

    #[test]
    fn flag_and_variable_of_an_option_carry_the_same_name() {
        let known = [
            ("--host-api-url", "K3K_EXPOSE_HOST_API_URL"),
            ("--host-api-ca-file", "K3K_EXPOSE_HOST_API_CA_FILE"),
            ("--token-file", "K3K_EXPOSE_TOKEN_FILE"),
            ("--kubeconfig", "K3K_EXPOSE_KUBECONFIG"),
            ("--virtual-server", "K3K_EXPOSE_VIRTUAL_SERVER"),
            ("--sync-ingresses", "K3K_EXPOSE_SYNC_INGRESSES"),
            ("--sync-ingress-tls", "K3K_EXPOSE_SYNC_INGRESS_TLS"),
            ("--admin-address", "K3K_EXPOSE_ADMIN_ADDRESS"),
            ("--log", "K3K_EXPOSE_LOG"),
            ("--log-format", "K3K_EXPOSE_LOG_FORMAT"),
        ];
        let options = options();
        assert_eq!(options.len(), known.len());
        for (option, (flag, env)) in options.iter().zip(known) {
            assert_eq!((option.flag.as_str(), option.env.as_str()), (flag, env));
            assert!(!option.help.is_empty());
        }
    }
}
