//! The README as text, and the anchors of its headings.

use std::path::Path;

use anyhow::Context;

/// The README of the repository.
///
/// # Errors
/// When it cannot be read.
pub fn text() -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Anchors of the headings of a Markdown text, as GitHub makes them.
#[must_use]
pub fn anchors(markdown: &str) -> Vec<String> {
    let mut in_code = false;
    let mut anchors = Vec::new();
    for line in markdown.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if !in_code && heading.len() < line.len() && heading.starts_with(' ') {
            let kept = heading.trim().to_lowercase();
            let kept = kept.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
            anchors.push(kept.map(|char| if char == ' ' { '-' } else { char }).collect());
        }
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_those_of_headings_and_not_of_comments_in_code() {
        let markdown = "# k3k's own, here\n```sh\n# none\n```\ntext\n### Two  writers-b\n#none";
        assert_eq!(anchors(markdown), ["k3ks-own-here", "two--writers-b"]);
    }
}
