//! Prints every metric of both processes in the text format, as they are right after a start: what `promtool check
//! metrics` is to read.

use k3k_expose_process::exposition;

#[expect(clippy::print_stdout, reason = "the command's own output")]
fn main() -> anyhow::Result<()> {
    print!("{}", exposition::text(&k3k_expose_agent::metrics()?));
    print!("{}", exposition::text(&k3k_expose_host_api::metrics::metrics()?));
    Ok(())
}
