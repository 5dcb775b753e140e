//! Runs what README.md tells people to type, and holds what comes out against what it says.
//!
//! Commands stand in blocks of language `console`, each after a `$`, their output below; `…` in it stands for anything on that line.
//! A block `console host` goes to the host cluster, others to the virtual one. `curl` runs outside, and `kubectl exec`, for which
//! there is no kubelet to ask, in the network namespace of the pod.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::Namespace;
use super::needs::{PATH, program};
use crate::eventually::eventually;
use crate::scratch;

/// What a reader would wait for before trying again; rules follow Services within a second.
const SOON: Duration = Duration::from_secs(30);

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The heading above.
    pub heading: String,
    /// Whether it goes to the host cluster.
    pub host: bool,
    /// Its commands.
    pub steps: Vec<Step>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// As it is typed, over several lines where they end in a backslash.
    pub command: String,
    /// The lines that come out.
    pub output: Vec<String>,
}

/// The blocks below a heading of the second level, with their nearest headings.
#[must_use]
pub fn blocks(markdown: &str, section: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut in_section, mut in_block, mut heading) = (false, false, String::new());
    for line in markdown.lines() {
        if in_block {
            in_block = line.trim() != "```";
            if in_block && let Some(block) = blocks.last_mut() {
                take(block, line);
            }
        } else if let Some(title) = line.strip_prefix("## ") {
            in_section = title == section;
        } else if let Some(title) = line.strip_prefix("### ") {
            title.clone_into(&mut heading);
        } else if in_section && (line == "```console" || line == "```console host") {
            in_block = true;
            blocks.push(Block { heading: heading.clone(), host: line.ends_with(" host"), steps: Vec::new() });
        }
    }
    blocks
}

fn take(block: &mut Block, line: &str) {
    if let Some(command) = line.strip_prefix("$ ") {
        block.steps.push(Step { command: command.to_owned(), output: Vec::new() });
    } else if let Some(step) = block.steps.last_mut() {
        if step.command.ends_with('\\') && step.output.is_empty() {
            step.command.push('\n');
            step.command.push_str(line);
        } else {
            step.output.push(line.to_owned());
        }
    }
}

impl Step {
    /// Whether this came out.
    ///
    /// # Errors
    /// With what came out instead.
    pub fn accepts(&self, output: &str) -> anyhow::Result<()> {
        let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
        let fits = lines.len() == self.output.len()
            && lines.iter().zip(&self.output).all(|(line, expected)| is_like(line, expected));
        ensure!(fits, "`{}` gave {output:?} and not {:?}", self.command, self.output.join("\n"));
        Ok(())
    }

    /// The variable that it sets for the commands after it, if it does.
    fn assigned(&self) -> Option<&str> {
        let (name, _) = self.command.split_once('=')?;
        name.chars().all(|letter| letter.is_ascii_lowercase()).then_some(name)
    }

    /// What may be done again without doing something else.
    fn is_question(&self) -> bool {
        ["curl ", "kubectl get ", "kubectl exec ", "kubectl wait "].iter().any(|word| self.command.starts_with(word))
    }
}

/// Whether a line is as expected, with `…` for anything.
fn is_like(line: &str, expected: &str) -> bool {
    let parts: Vec<&str> = expected.trim_end().split('…').collect();
    let [first, rest @ ..] = parts.as_slice() else {
        return false;
    };
    let Some(mut left) = line.strip_prefix(first) else {
        return false;
    };
    let Some((last, middle)) = rest.split_last() else {
        return left.is_empty();
    };
    for part in middle {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(last)
}

/// A shell in front of one cluster.
#[derive(Clone, Debug)]
pub struct Shell {
    kubeconfig: PathBuf,
    folder: PathBuf,
    assignments: String,
}

impl Shell {
    /// One that reaches this cluster, with the client's curl; `pods` is the folder of [`super::pods::Pods`].
    ///
    /// # Errors
    /// When the programs cannot be written.
    pub fn new(kubeconfig: &Path, client: &Namespace, pods: &Path) -> anyhow::Result<Self> {
        let folder = scratch::folder("shell")?;
        let nsenter = program("nsenter")?;
        let nsenter = nsenter.display();
        let curl = program("curl")?;
        let curl = format!("#!/bin/sh\nexec {nsenter} --net={} -- {} \"$@\"\n", client.path(), curl.display());
        let kubectl = program("kubectl")?;
        let kubectl = kubectl.display();
        let pods = pods.display();
        let kubectl = format!(
            "#!/bin/bash\n\
             if [ \"$1\" != exec ]; then exec {kubectl} \"$@\"; fi\n\
             app=${{2#deployment/}}; shift 3\n\
             pod=$({kubectl} get pods --selector \"app=$app\" --output 'jsonpath={{.items[0].metadata.name}}') || exit 1\n\
             PATH={PATH} exec {nsenter} --net=\"$(cat {pods}/default.\"$pod\")\" -- \"$@\"\n"
        );
        for (name, text) in [("curl", curl), ("kubectl", kubectl)] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        // No terminal is there to be spared the progress of curl.
        fs::write(folder.join(".curlrc"), "silent\nshow-error\nmax-time = 5\n")?;
        Ok(Self { kubeconfig: kubeconfig.to_owned(), folder, assignments: String::new() })
    }

    /// Types one command, and questions again until they are answered as expected.
    ///
    /// # Errors
    /// When something else comes out.
    pub async fn run(&mut self, step: &Step) -> anyhow::Result<()> {
        if let Some(name) = step.assigned() {
            let value = self.type_in(&format!("{}\nprintf %s \"${name}\"", step.command)).await?;
            ensure!(!value.is_empty() && !value.contains('\''), "`{}` gave {value:?}", step.command);
            self.assignments.push_str(&format!("{name}='{value}'\n"));
            return Ok(());
        }
        if step.is_question() {
            return eventually(&step.command, SOON, async || step.accepts(&self.type_in(&step.command).await?)).await;
        }
        step.accepts(&self.type_in(&step.command).await?)
    }

    async fn type_in(&self, command: &str) -> anyhow::Result<String> {
        let script = format!("exec 2>&1\n{}{command}", self.assignments);
        let output = Command::new(program("bash")?)
            .args(["-c", &script])
            .env_clear()
            .env("PATH", format!("{}:{PATH}", self.folder.display()))
            .env("HOME", &self.folder)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(&self.folder)
            .kill_on_drop(true)
            .output()
            .await
            .context("running bash")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("`{command}` failed: {}", text.trim());
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_output_and_their_place() {
        let text = "## A\n### One\n```console\n$ ls \\\n  -l\na\nb\n$ x=$(y)\n```\n### Two\n```console host\n$ true\n```\n\
            ```sh\nnot this\n```\n## B\n```console\n$ nor this\n```\n";
        let read = blocks(text, "A");
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].heading.as_str(), read[0].host), ("One", false));
        assert_eq!(read[0].steps[0], Step { command: "ls \\\n  -l".to_owned(), output: vec!["a".into(), "b".into()] });
        assert!(read[0].steps[1].assigned() == Some("x") && read[0].steps[0].assigned().is_none());
        assert_eq!((read[1].heading.as_str(), read[1].host), ("Two", true));
    }

    #[test]
    fn an_ellipsis_stands_for_anything_on_its_line() {
        for (line, expected, like) in [
            ("web-1-a", "web-…", true),
            ("web-1-a", "web-…-a", true),
            ("web-1-a", "web-…-b", false),
            ("web", "web", true),
            ("webs", "web", false),
            ("a b c d", "a …c…", true),
        ] {
            assert_eq!(is_like(line, expected), like, "{line} {expected}");
        }
    }
}
