//! Text of others to text for a log line: short, and without characters that command a terminal or hide others. Pure.

use std::error::Error;

/// Most characters of it that are shown.
const SHOWN: usize = 300;

/// Makes text harmless and short.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for character in text.chars().take(SHOWN) {
        if character.is_control() || is_hidden(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        quoted.push('…');
    }
    quoted
}

/// Whether a character shows nothing itself and changes how others are shown: marks of direction (Unicode's UAX #9), joiners,
/// spaces without width, and what separates lines and paragraphs.
const fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An error with its causes. Some libraries name only the outermost, others repeat the next one.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    quote(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::fmt::Error);

    #[test]
    fn causes_are_named_once() {
        let cause = std::fmt::Error.to_string();
        assert_eq!(causes(&Outer("outer", std::fmt::Error)), format!("outer: {cause}"));
        let repeating = String::leak(format!("outer: {cause}"));
        assert_eq!(causes(&Outer(repeating, std::fmt::Error)), format!("outer: {cause}"));
    }

    #[test]
    fn control_characters_are_spelled_out_and_length_is_capped() {
        assert_eq!(quote("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(quote("a\u{202e}b\u{2066}c\u{200b}"), "a\\u{202e}b\\u{2066}c\\u{200b}");
        assert_eq!(quote(&"é".repeat(400)).chars().count(), SHOWN + 1);
    }
}
