//! The two text formats in which `/metrics` is read. Pure.
//!
//! Metrics are encoded as OpenMetrics 1.0. Who does not ask for that gets the older text format (version 0.0.4), which
//! `promtool check metrics` and most people with curl expect. The trap: there the type of a counter stands under its full
//! name, with `_total`, and there is no mark at the end.

use std::fmt::Write;

/// Media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Content type and body for a request with this `Accept` header, from metrics as OpenMetrics.
#[must_use]
pub fn answer(accept: Option<&str>, open_metrics: String) -> (&'static str, String) {
    if accept.is_some_and(|accept| accept.contains(OPEN_METRICS)) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", open_metrics)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", text(&open_metrics))
    }
}

/// OpenMetrics in the older text format.
#[must_use]
pub fn text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "# HELP a_up Whether it is.\n# TYPE a_up gauge\na_up 1\n# HELP a_writes Writes, all.\n\
        # TYPE a_writes counter\na_writes_total{verb=\"create\"} 3\n# EOF\n";

    #[test]
    fn the_older_format_names_counters_in_full() {
        let expected = "# HELP a_up Whether it is.\n# TYPE a_up gauge\na_up 1\n# HELP a_writes_total Writes, all.\n\
            # TYPE a_writes_total counter\na_writes_total{verb=\"create\"} 3\n";
        assert_eq!(text(OPEN), expected);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        let (content_type, text) = answer(Some(prometheus), OPEN.to_owned());
        assert!(content_type.starts_with(OPEN_METRICS) && text == OPEN);
        for accept in [None, Some("*/*"), Some("text/plain")] {
            let (content_type, text) = answer(accept, OPEN.to_owned());
            assert!(content_type.starts_with("text/plain; version=0.0.4") && !text.contains("# EOF"));
        }
    }
}
