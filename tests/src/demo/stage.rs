//! What the reader sees: numbered steps, ticks with their time, tables. Colors only on a terminal that wants them.
//!
//! A closed standard output is nobody's failure, so the results of writes are dropped.

use std::io::{IsTerminal, Write};
use std::path::Path;

use tokio::time::Instant;

/// Text is wrapped here; tables may be wider, because a name cannot be wrapped.
const WIDTH: usize = 92;
/// Where text stands below the title of its step.
const INDENT: &str = "    ";

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const CYAN: &str = "36";

/// The printed page.
pub(super) struct Stage {
    color: bool,
    step: usize,
    since: Instant,
    /// A table stands above, so that the next tick needs a gap.
    below_table: bool,
    checks: usize,
    failures: usize,
}

/// One line of a table: what it is about, the tenant's side, how the sides relate, the host's side.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) left: String,
    pub(super) relation: Relation,
    pub(super) right: String,
}

/// How the twin's value comes from the tenant's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It is the same.
    Same,
    /// It is made from it by a rule.
    Derived,
    /// It is on the twin only.
    Added,
}

impl Stage {
    pub(super) fn on_standard_output() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|terminal| terminal == "dumb");
        Self {
            color: std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb,
            step: 0,
            since: Instant::now(),
            below_table: false,
            checks: 0,
            failures: 0,
        }
    }

    /// The page goes on after so many steps, which another process has printed.
    pub(super) fn after(self, steps: usize) -> Self {
        Self { step: steps, ..self }
    }

    pub(super) fn title(&self, title: &str, text: &str) {
        print("");
        print(&format!("  {}", self.paint(BOLD, title)));
        print("");
        for line in wrap(text, WIDTH - 2) {
            print(&format!("  {line}"));
        }
    }

    /// Opens a step: its name, and in one sentence why it matters.
    pub(super) fn begin(&mut self, title: &str, why: &str) {
        self.step += 1;
        print("");
        print(&format!("{:>2}  {}", self.step, self.paint(BOLD, title)));
        for line in wrap(why, WIDTH - INDENT.len()) {
            print(&format!("{INDENT}{}", self.paint(DIM, &line)));
        }
        self.since = Instant::now();
        self.below_table = false;
    }

    /// Something was done and checked; the time is that since the tick before.
    pub(super) fn tick(&mut self, text: &str) {
        if std::mem::take(&mut self.below_table) {
            print("");
        }
        let time = format!("{:>6.2} s", self.since.elapsed().as_secs_f64());
        print(&format!("{INDENT}{} {}  {text}", self.paint(GREEN, "✓"), self.paint(DIM, &time)));
        self.since = Instant::now();
    }

    /// A named check held; the figure is what it saw.
    pub(super) fn check(&mut self, name: &str, figure: &str) {
        self.checks += 1;
        let figure = if figure.is_empty() { String::new() } else { self.paint(DIM, &format!("  {figure}")) };
        self.tick(&format!("{name}{figure}"));
    }

    /// A named check, or a whole step, did not hold; the story goes on, and ends badly.
    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        self.failures += 1;
        self.cross(error);
        self.since = Instant::now();
    }

    /// A step that broke off before its end.
    pub(super) fn note(&mut self, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    /// How many checks held, and how many things did not.
    pub(super) fn checks(&self) -> (usize, usize) {
        (self.checks, self.failures)
    }

    /// A step failed.
    pub(super) fn cross(&self, error: &anyhow::Error) {
        for (index, line) in format!("{error:#}").lines().enumerate() {
            let mark = if index == 0 { "✗" } else { " " };
            print(&format!("{INDENT}{} {line}", self.paint(RED, mark)));
        }
    }

    /// More on the tick above.
    pub(super) fn detail(&self, text: &str) {
        for line in wrap(text, WIDTH - INDENT.len() - 12) {
            print(&format!("{INDENT}{:12}{}", "", self.paint(DIM, &line)));
        }
    }

    pub(super) fn table(&mut self, rows: &[Row]) {
        let names = width(rows.iter().map(|row| row.name));
        let lefts = width(rows.iter().map(|row| row.left.as_str())).max("in the virtual cluster".len());
        let heads = format!("{:names$}  {:lefts$}   {}", "", "in the virtual cluster", "on the host");
        print("");
        print(&format!("{INDENT}  {}", self.paint(DIM, &heads)));
        for row in rows {
            let sign = match row.relation {
                Relation::Same => self.paint(DIM, "="),
                Relation::Derived => self.paint(CYAN, "→"),
                Relation::Added => self.paint(CYAN, "+"),
            };
            let name = self.paint(DIM, &format!("{:names$}", row.name));
            let left = pad(&row.left, lefts);
            print(&format!("{INDENT}  {name}  {left} {sign} {}", row.right));
        }
        self.below_table = true;
    }

    /// A way into one cluster, ready to paste.
    pub(super) fn shell(&self, whose: &str, kubeconfig: &Path, commands: &[&str]) {
        print("");
        print(&format!("{INDENT}{}", self.paint(BOLD, whose)));
        print(&format!("{INDENT}  export KUBECONFIG={}", kubeconfig.display()));
        for command in commands {
            print(&format!("{INDENT}  {}", self.paint(DIM, command)));
        }
    }

    /// A line at the level of a step's text.
    pub(super) fn line(&self, text: &str) {
        print(&format!("{INDENT}{}", self.paint(DIM, text)));
    }

    /// Room between two things.
    pub(super) fn gap(&self) {
        print("");
    }

    /// The last line.
    pub(super) fn close(&self, good: bool, text: &str) {
        let color = if good { GREEN } else { RED };
        print("");
        print(&format!("  {}", self.paint(color, text)));
        print("");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or_default()
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())))
}

/// Breaks at spaces; a word that is longer than a line gets one of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_spaces_only() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcdefghij", "k"]);
        assert!(wrap("", 4).is_empty());
    }
}
