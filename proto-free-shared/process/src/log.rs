//! Log lines to standard error: which ones, and in which form.

use std::io::{IsTerminal, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Modules whose own words about failed requests repeat, at a wrong level, what this crate logs itself.
const QUIET: [&str; 2] = ["kube_client", "tower_http"];

/// Levels by module, as `info,k3k_expose_agent=debug`.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels(Targets);

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For human eyes.
    Text,
}

impl Levels {
    /// Parses levels. Modules that say twice what this crate says are off unless they are named.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut levels = Targets::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            // Targets takes any lone word for a module, which turns a misspelled level into silence.
            levels = match part.split_once('=') {
                Some((module, level)) => levels.with_target(module, parse_level(level)?),
                None => levels.with_default(parse_level(part)?),
            };
        }
        for module in QUIET {
            if !text.contains(module) {
                levels = levels.with_target(module, LevelFilter::OFF);
            }
        }
        Ok(Self(levels))
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::INFO))
    }
}

impl Format {
    /// Parses a form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("must be auto, json or text"),
        }
    }
}

/// Starts the log of this process. A second call changes nothing.
pub fn start(levels: Levels, format: Format) {
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Json => true,
        Format::Text => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let registry = tracing_subscriber::registry().with(levels.0);
    let started =
        if json { registry.with(layer.json().flatten_event(true)).try_init() } else { registry.with(layer).try_init() };
    debug_assert!(started.is_ok() || cfg!(test));
}

/// Says on standard error what went wrong before there could be a log.
pub fn complain(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn parse_level(text: &str) -> Result<LevelFilter, &'static str> {
    // Left to itself the parser takes an empty word for `error`, and numbers too.
    let known = ["error", "warn", "info", "debug", "trace", "off"].contains(&text);
    let level = if known { text.parse().ok() } else { None };
    level.ok_or("must name levels among error, warn, info, debug, trace and off")
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_apply_by_module_and_kube_is_quiet_unless_named() {
        let Levels(levels) = Levels::parse("warn, k3k_expose_agent=debug").unwrap();
        assert!(levels.would_enable("k3k_expose_agent::watch", &Level::DEBUG));
        assert!(!levels.would_enable("hyper", &Level::INFO));
        assert!(!levels.would_enable("kube_client::client", &Level::ERROR));
        let Levels(levels) = Levels::parse("info,kube_client=warn").unwrap();
        assert!(levels.would_enable("kube_client::client", &Level::WARN));
    }

    #[test]
    fn a_misspelled_level_is_a_mistake() {
        assert!(Levels::parse("inof").is_err());
        assert!(Levels::parse("hyper=").is_err());
        assert!(Format::parse("JSON").is_err());
    }
}
