//! Prints the CRD of `ExposurePolicy`: `cargo run -p k3k-expose-tests --bin crd > manifests/base/exposure-policy.yaml`.

fn main() -> anyhow::Result<()> {
    let text = k3k_expose_host_api::policy::resource::definition()?;
    #[expect(clippy::print_stdout, reason = "the command's own output")]
    {
        print!("{text}");
    }
    Ok(())
}
