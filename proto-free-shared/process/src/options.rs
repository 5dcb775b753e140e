//! Options of a process, each a flag and an environment variable: listing them, and noting what is wrong with them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What all variables of the project begin with.
const PREFIX: &str = "K3K_EXPOSE_";

/// One option, for documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionRow {
    /// The flag with its dashes.
    pub flag: String,
    /// The environment variable.
    pub env: String,
    /// The default, empty when there is none.
    pub default: String,
    /// What it means.
    pub help: String,
}

/// Every option of a command that is also a variable, in the order of `--help`.
#[must_use]
pub fn rows(command: &clap::Command) -> Vec<OptionRow> {
    let row = |argument: &clap::Arg| {
        let default = argument.get_default_values().first();
        Some(OptionRow {
            flag: format!("--{}", argument.get_long()?),
            env: argument.get_env()?.to_string_lossy().into_owned(),
            default: default.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default(),
            help: argument.get_help()?.to_string(),
        })
    };
    command.get_arguments().filter_map(row).collect()
}

/// Those of the variables that look like settings and are none of the command's.
#[must_use]
pub fn unknown(command: &clap::Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = rows(command).into_iter().map(|option| option.env).collect();
    let names = names.filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort_unstable();
    unknown
}

/// Every mistake in the options of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl Mistakes {
    /// Gives a value through, or notes the mistake under both names of the option.
    pub fn take<T>(&mut self, name: &str, parsed: Result<T, &'static str>) -> Option<T> {
        parsed
            .map_err(|why| {
                let variable = name.replace('-', "_").to_uppercase();
                self.0.push(format!("{PREFIX}{variable} (--{name}) {why}"));
            })
            .ok()
    }
}

/// Parses a path.
///
/// # Errors
/// What is wrong with it.
pub fn path(raw: String) -> Result<PathBuf, &'static str> {
    if raw.is_empty() { Err("is empty") } else { Ok(PathBuf::from(raw)) }
}

/// Parses an address to listen on.
///
/// # Errors
/// What is wrong with it.
pub fn address(raw: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = raw.parse().map_err(|_| "is no address with a port")?;
    if address.port() == 0 { Err("must have a port from 1 to 65535") } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> clap::Command {
        let log = clap::Arg::new("log").long("log").env("K3K_EXPOSE_LOG").default_value("info").help("What is logged");
        clap::Command::new("test").arg(log).arg(clap::Arg::new("other").long("other"))
    }

    #[test]
    fn only_variables_of_our_own_prefix_can_be_unknown() {
        let names = ["K3K_EXPOSE_TOKEN", "K3K_EXPOSE_LOG", "PATH", "K3K_EXPOSE_ADMIN_ADRESS"];
        let unknown = unknown(&command(), names.iter().map(OsString::from));
        assert_eq!(unknown, ["K3K_EXPOSE_ADMIN_ADRESS", "K3K_EXPOSE_TOKEN"]);
    }

    #[test]
    fn an_option_is_listed_with_both_names() {
        let row = OptionRow {
            flag: "--log".to_owned(),
            env: "K3K_EXPOSE_LOG".to_owned(),
            default: "info".to_owned(),
            help: "What is logged".to_owned(),
        };
        assert_eq!(rows(&command()), [row]);
    }

    #[test]
    fn an_address_has_a_port_of_its_own() {
        assert!(address("127.0.0.1:9464").is_ok());
        for text in ["", "9464", "localhost:9464", "127.0.0.1:0", "127.0.0.1:70000"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
