//! Text of others to text for a log line: short, and without control characters. Pure.

/// Most characters of it that are shown.
const SHOWN: usize = 300;

/// Makes text harmless and short.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::new();
    for character in text.chars().take(SHOWN) {
        if character.is_control() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out_and_length_is_capped() {
        assert_eq!(quote("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(quote(&"é".repeat(400)).chars().count(), SHOWN + 1);
    }
}
