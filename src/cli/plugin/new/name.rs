//! A name that every language, package manager and policy takes.

use std::fmt;
use std::str::FromStr;

/// The longest name: that of a crate or of an npm package may be longer, a line in a policy is not.
const LONGEST: usize = 64;

/// Names that mean something else to a compiler or to our own template.
const TAKEN: &[&str] = &[
    // Crates that the template or the compiler brings.
    "alloc",
    "core",
    "innkeeper-plugin",
    "proc-macro",
    "serde",
    "std",
    "test",
    "wit-bindgen",
    // Words of the Rust language.
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "struct",
    "super",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// A plugin's name: `[a-z][a-z0-9]*(-[a-z0-9]+)*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectName(String);

/// Why a text is no name for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAName(String);

impl ProjectName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let shaped = text.starts_with(|first: char| first.is_ascii_lowercase()) && text.split('-').all(plain);
        if !shaped || text.len() > LONGEST {
            return Err(NotAName(format!(
                "a plugin's name has at most {LONGEST} small letters, digits and single hyphens, and starts \
                 with a letter, such as `api-keys`; got `{text}`"
            )));
        }
        if TAKEN.contains(&text) {
            return Err(NotAName(format!(
                "`{text}` means something else to a compiler: choose another name"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "api-keys", "by2-regions-3"] {
            assert_eq!(good.parse::<ProjectName>().unwrap().as_str(), good);
        }
        for bad in
            ["", "Api", "9lives", "a--b", "-a", "a-", "a_b", "a/b", "../a", "a.b", "ä", &"a".repeat(65)]
        {
            assert!(bad.parse::<ProjectName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_compilers_know_are_refused() {
        for taken in ["fn", "test", "std", "serde", "innkeeper-plugin"] {
            assert!(taken.parse::<ProjectName>().unwrap_err().to_string().contains(taken));
        }
    }
}
