//! Which keys of labels and annotations are meant, and which values. Pure.
//!
//! A rule that cannot be used admits nothing and denies everything: a mistake never widens what a tenant may do.

use regex_lite::{Regex, RegexBuilder};

use super::resource::{DeniedKey, KeyRule};

/// Largest pattern of values, compiled, in bytes.
const PATTERN: usize = 64 * 1024;
/// Longest value of an annotation that crosses, in bytes: it is matched by a pattern while others wait.
pub const VALUE: usize = 4096;

/// Keys, and the values that they may have.
#[derive(Clone, Debug)]
pub struct Keys {
    name: Name,
    text: Option<String>,
    values: Values,
}

/// Keys alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// One key.
    Exact(String),
    /// All keys that begin so.
    Prefix(String),
    /// Neither was said, or both.
    Unusable,
}

#[derive(Clone, Debug)]
enum Values {
    Any,
    Like(Regex),
    None,
}

impl Keys {
    /// Reads a rule. Gives besides what is wrong with it.
    #[must_use]
    pub fn parse(rule: &KeyRule) -> (Self, Option<String>) {
        let name = Name::parse(rule.key.as_deref(), rule.prefix.as_deref());
        let values = match rule.value.as_deref().map(whole) {
            None => Ok(Values::Any),
            Some(Ok(regex)) => Ok(Values::Like(regex)),
            Some(Err(error)) => Err(format!("the pattern of {} is none: {error}", name.shown())),
        };
        let mistake = match (&name, &values) {
            (Name::Unusable, _) => Some("a rule has neither key nor prefix, or both".to_owned()),
            (_, Err(mistake)) => Some(mistake.clone()),
            _ => None,
        };
        (Self { name, text: rule.value.clone(), values: values.unwrap_or(Values::None) }, mistake)
    }

    /// Which keys are meant.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Whether the value is one that is admitted.
    #[must_use]
    pub fn admits(&self, value: &str) -> bool {
        value.len() <= VALUE
            && match &self.values {
                Values::Any => true,
                Values::Like(regex) => regex.is_match(value),
                Values::None => false,
            }
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Name {
    fn parse(key: Option<&str>, prefix: Option<&str>) -> Self {
        match (key, prefix) {
            (Some(key), None) if !key.is_empty() => Self::Exact(key.to_owned()),
            (None, Some(prefix)) if !prefix.is_empty() => Self::Prefix(prefix.to_owned()),
            _ => Self::Unusable,
        }
    }

    /// Reads what is denied.
    #[must_use]
    pub fn denied(denied: &DeniedKey) -> Self {
        Self::parse(denied.key.as_deref(), denied.prefix.as_deref())
    }

    /// Whether a rule that admits means this key.
    #[must_use]
    pub fn admits(&self, key: &str) -> bool {
        match self {
            // Some controllers read keys without regard to case, so that another spelling must not come under another rule.
            Self::Exact(exact) => exact.eq_ignore_ascii_case(key),
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Unusable => false,
        }
    }

    /// Whether a rule that denies means this key, in whatever case.
    #[must_use]
    pub fn denies(&self, key: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(key),
            Self::Prefix(prefix) => {
                key.as_bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::Unusable => true,
        }
    }

    /// As agents are told it: a prefix ends in a star, which no key has.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Exact(key) => key.clone(),
            Self::Prefix(prefix) => format!("{prefix}*"),
            Self::Unusable => String::new(),
        }
    }
}

/// A pattern of the whole value. By itself first: no unbalanced bracket may undo the anchors.
fn whole(pattern: &str) -> Result<Regex, regex_lite::Error> {
    Regex::new(pattern).and_then(|_| RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(key: Option<&str>, prefix: Option<&str>, value: Option<&str>) -> (Keys, bool) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (keys, mistake) = Keys::parse(&KeyRule { key: owned(key), prefix: owned(prefix), value: owned(value) });
        (keys, mistake.is_some())
    }

    #[test]
    fn another_case_of_a_key_comes_under_no_other_rule() {
        let exact = Name::parse(Some("a.example/router"), None);
        let prefix = Name::parse(None, Some("a.example/"));
        for key in ["a.example/router", "a.example/Router"] {
            assert!(exact.admits(key) && exact.denies(key) && prefix.denies(key), "{key}");
        }
        assert!(prefix.denies("A.example/x") && !prefix.admits("A.example/x"));
        assert!(!exact.denies("a.example/route") && !prefix.denies("a.exampl"));
    }

    #[test]
    fn keys_are_meant_exactly_or_by_their_beginning() {
        let (exact, _) = keys(Some("example.com/a"), None, None);
        assert!(exact.name().admits("example.com/a") && !exact.name().admits("example.com/ab"));
        let (prefix, _) = keys(None, Some("example.com/"), None);
        assert!(prefix.name().admits("example.com/ab") && !prefix.name().admits("example.org/a"));
        assert_eq!(
            (exact.name().shown(), prefix.name().shown()),
            ("example.com/a".to_owned(), "example.com/*".to_owned())
        );
    }

    #[test]
    fn a_pattern_is_of_the_whole_value() {
        let (seconds, mistaken) = keys(Some("a"), None, Some("[0-9]{1,3}s"));
        assert!(!mistaken && seconds.admits("30s"));
        for value in ["30s; evil", "x30s", "30s\nevil", ""] {
            assert!(!seconds.admits(value), "{value:?}");
        }
        assert!(!keys(Some("a"), None, None).0.admits(&"x".repeat(VALUE + 1)));
    }

    #[test]
    fn a_mistake_admits_nothing_and_denies_everything() {
        for (pattern, key, prefix) in [
            (Some("("), Some("a"), None),
            (Some("x)|(y"), Some("a"), None),
            (None, None, None),
            (None, Some("a"), Some("a")),
            (None, None, Some("")),
        ] {
            let (rule, mistaken) = keys(key, prefix, pattern);
            assert!(mistaken && !(rule.name().admits("a") && rule.admits("x")), "{rule:?}");
        }
        assert!(Name::denied(&DeniedKey::default()).denies("anything"));
    }
}
