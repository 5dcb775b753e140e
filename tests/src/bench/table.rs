//! A report as tables for people, every figure beside what is promised of it. Pure.

use std::fmt::Write;

use super::Part;
use super::report::{Attack, Crowded, Percentiles, Report};

/// The changes, in the order in which they are measured.
const CHANGES: [&str; 3] = ["create", "update", "delete"];

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = sync(&mut text, report);
    let _ = latency(&mut text, report);
    let _ = status(&mut text, report);
    let _ = webhook(&mut text, report);
    let _ = conflicts(&mut text, report);
    let _ = writes(&mut text, report);
    let _ = cost(&mut text, report);
    let _ = ingresses(&mut text, report);
    let _ = attacks(&mut text, report);
    text
}

/// The section of one part.
pub(super) fn part(part: Part, report: &Report) -> String {
    let mut text = String::new();
    let _ = match part {
        Part::Sync => sync(&mut text, report).and_then(|()| cost(&mut text, report)),
        Part::Ingresses => ingresses(&mut text, report),
        Part::Load => attacks(&mut text, report),
        Part::Status => status(&mut text, report),
        Part::Webhook => webhook(&mut text, report),
    };
    text
}

fn ingresses(text: &mut String, report: &Report) -> std::fmt::Result {
    let Some(report) = &report.ingresses else { return Ok(()) };
    let n = report.n;
    writeln!(text, "\nInitial sync of {n} Ingresses, the median of rounds")?;
    line(text, "plain client", &format!("{:.2} s", report.limit_s), "")?;
    line(text, "plain client within the fence", &format!("{:.2} s", report.fenced_s), "")?;
    line(text, "agent start to last twin", &format!("{:.2} s", report.initial_s), "")?;
    line(text, "sync / plain client", &format!("{:.2}", report.initial_to_limit), "at most 1.5")?;
    line(text, "sync / plain client within the fence", &format!("{:.2}", report.initial_to_fenced), "")?;
    let promise = format!("{}: each, its Service, twice what the policy reaches", n + 3);
    line(text, "writes on the host", &report.host_writes_initial.to_string(), &promise)?;
    let promise = format!("{} exactly: each, its Service, the class", n + 2);
    line(text, "writes in the virtual cluster", &report.virtual_writes_initial.to_string(), &promise)?;
    line(text, "writes of both restarts", &report.writes_restarts.to_string(), "0")?;
    line(text, "MiB, agent", &format!("{:.1}", report.rss_mib.agent), "at most 1.5 times that of Services")?;
    line(text, "MiB, host-api", &format!("{:.1}", report.rss_mib.host_api), "at most 1.5 times that of Services")
}

fn attacks(text: &mut String, report: &Report) -> std::fmt::Result {
    if report.attacks.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\nCreates of a tenant, until the host's watch tells of it, beside another that says all it can (ms)"
    )?;
    columns(text)?;
    for attack in &report.attacks {
        compared(text, &attack.name, [&attack.disturbed_ms, &attack.undisturbed_ms, &attack.disturbed_to_undisturbed])?;
    }
    writeln!(text, "  promised: ratio99 at most 1.5 (direct is undisturbed)")?;
    for Attack { name, lines, host_api_peak_rss_mib, rest_s, .. } in &report.attacks {
        line(text, &format!("{name}: lines taken in"), &lines.to_string(), "")?;
        line(text, "  MiB, host-api at most", &format!("{host_api_peak_rss_mib:.1}"), "below 100")?;
        line(text, "  at rest again after", &format!("{rest_s:.1} s"), "10 s")?;
    }
    Ok(())
}

fn sync(text: &mut String, report: &Report) -> std::fmt::Result {
    let n = report.n;
    writeln!(text, "\nInitial sync of {n} Services")?;
    line(text, "load of the machine before the run", &format!("{:.2}", report.load_before), "below 0.5, or rerun")?;
    for (workers, seconds) in &report.limit_s_by_workers {
        line(text, &format!("plain client, {workers} workers"), &format!("{seconds:.2} s"), "")?;
    }
    line(text, "limit (the best of them)", &format!("{:.2} s", report.limit_s), "")?;
    line(text, "agent start to last twin", &format!("{:.2} s", report.initial_s), "")?;
    line(text, "sync / limit", &format!("{:.2}", report.initial_to_limit), "at most 1.5, aim 1.1")?;
    line(text, "twins stored as the plain objects", &report.twins_as_plain.to_string(), &format!("{n}"))
}

fn latency(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "\nOne change, until the host's watch tells of it (ms)")?;
    columns(text)?;
    for rate in [5, 50] {
        for change in CHANGES {
            let suffix = if rate == 50 { String::new() } else { format!("_{rate}") };
            let ours = of(&report.latency_ms, &format!("{change}_{rate}"));
            let direct = of(&report.direct_ms, &format!("{change}{suffix}"));
            let ratio = ours.over(direct);
            compared(text, &format!("{change} {rate}/s"), [&ours, &direct, &ratio])?;
        }
    }
    writeln!(text, "  promised at 50/s: ratio50 at most 2.5; aim for ratio99: 4")
}

fn status(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { status_ms: ours, direct_status_ms: direct, status_to_direct: ratio, .. } = report;
    writeln!(text, "\nLoad-balancer status of a twin, until the virtual cluster's watch tells of it (ms)")?;
    columns(text)?;
    compared(text, "status 20/s", [ours, direct, ratio])?;
    writeln!(text, "  promised: ratio50 at most 2.5; aim for ratio99: 4")
}

fn webhook(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { webhook_ms: asked, webhook_plain_ms: plain, webhook_to_plain: ratio, .. } = report;
    writeln!(text, "\nCreate of a server pod, with the webhook and without (ms)")?;
    columns(text)?;
    compared(text, "create 20/s", [asked, plain, ratio])?;
    writeln!(text, "  promised: ratio50 at most 1.5")
}

fn conflicts(text: &mut String, report: &Report) -> std::fmt::Result {
    let n = report.n;
    let Crowded { synced, same_cluster_ip, s } = report.crowded;
    writeln!(text, "\nNumbers that others hold on the host")?;
    line(text, "all cluster IPs taken: synced", &synced.to_string(), &format!("{n}"))?;
    line(text, "  one cluster IP on both sides", &same_cluster_ip.to_string(), &format!("{n}"))?;
    line(text, "  agent start to last synced", &s.map_or_else(|| "-".to_owned(), |s| format!("{s:.2} s")), "")?;
    line(text, "a taken node port heals in", &format!("{:.1} ms", report.conflict_heal_ms.node_port), "")?;
    line(text, "a taken cluster IP heals in", &format!("{:.1} ms", report.conflict_heal_ms.cluster_ip), "")
}

fn writes(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "\nWrites (audit log)                         host   virtual")?;
    let mut row = |name: &str, host: usize, virtual_cluster: usize, promise: &str| {
        writeln!(text, "  {name:<38} {host:>6} {virtual_cluster:>9}   {promise}")
    };
    row(
        "initial sync",
        report.host_writes_initial,
        report.virtual_writes_initial,
        &format!("{} exactly on each side", report.n),
    )?;
    row("restart of the agent", report.host_writes_agent_restart, report.virtual_writes_agent_restart, "0")?;
    row("restart of host-api", report.host_writes_host_api_restart, report.virtual_writes_host_api_restart, "0")?;
    line(text, "60 s at rest, both", &report.idle_writes_60s.to_string(), "0")
}

fn cost(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "\nCost                                      agent  host-api")?;
    for (at, name) in
        [("0", "no Service".to_owned()), ("1000", "1,000 Services".to_owned()), ("n", format!("{} Services", report.n))]
    {
        let [agent, host_api] = ["agent", "host_api"].map(|program| {
            let value = report.rss_mib.get(&format!("{program}_{at}")).copied().flatten();
            value.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.1}"))
        });
        let promise = if at == "1000" { "at most 15 and 25 MB" } else { "" };
        writeln!(text, "  {:<36} {agent:>8} {host_api:>9}   {promise}", format!("MiB, {name}"))?;
    }
    let cpu = |key: &str| report.cpu_s.get(key).copied().flatten().unwrap_or(f64::NAN);
    writeln!(text, "  {:<36} {:>8.2} {:>9.2}", "CPU s, start and sync", cpu("agent"), cpu("host_api"))?;
    writeln!(
        text,
        "  {:<36} {:>8.2} {:>9.2}   at most 0.05 each",
        "CPU s, 60 s at rest", report.idle_cpu_s.agent, report.idle_cpu_s.host_api
    )?;
    line(text, "bytes to reconnect, nothing changed", &report.reconnect_bytes.to_string(), "at most 1000")
}

fn columns(text: &mut String) -> std::fmt::Result {
    let [p50, p99] = ["p50", "p99"];
    writeln!(
        text,
        "  {:<12} {p50:>8} {p99:>8}   {:>8} {:>8}   {:>8} {:>8}",
        "", "direct50", "direct99", "ratio50", "ratio99"
    )
}

/// Ours, the direct one, and the ratio of the two.
fn compared(text: &mut String, name: &str, figures: [&Percentiles; 3]) -> std::fmt::Result {
    let [ours, direct, ratio] = figures.map(|Percentiles { p50, p99 }| format!("{p50:>8.2} {p99:>8.2}"));
    writeln!(text, "  {name:<12} {ours}   {direct}   {ratio}")
}

fn line(text: &mut String, name: &str, value: &str, promise: &str) -> std::fmt::Result {
    writeln!(text, "  {name:<36} {value:>8}   {promise}")
}

fn of(map: &std::collections::BTreeMap<String, Percentiles>, key: &str) -> Percentiles {
    map.get(key).copied().unwrap_or_default()
}
