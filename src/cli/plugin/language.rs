//! The languages that a plugin can be written in.

use std::fmt;
use std::path::Path;

/// A language that `plugin new` writes and `plugin build` builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// Small and fast; the one with an SDK.
    Rust,
    /// The smallest.
    C,
    /// JavaScript. A component has its whole engine in it, 12 MB.
    Js,
    /// A component has the whole interpreter in it, 18 MB.
    Python,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 4] = [Self::Rust, Self::C, Self::Js, Self::Python];

    /// The word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Js => "js",
            Self::Python => "python",
        }
    }

    /// The language of the project in `dir`, by its files.
    ///
    /// # Errors
    /// When the files speak for none, or for several.
    pub fn detect(dir: &Path) -> Result<Self, String> {
        let spoken: Vec<Self> = Self::ALL.into_iter().filter(|language| language.is_spoken_in(dir)).collect();
        match spoken[..] {
            [language] => Ok(language),
            [] => Err(format!(
                "{} holds no plugin: there is no Cargo.toml, package.json, *.py or *.c. Begin one with \
                 `innkeeper plugin new NAME --lang rust`",
                dir.display()
            )),
            [first, second, ..] => Err(format!(
                "{} could be written in {first} or in {second}: say which with `--lang {first}`",
                dir.display()
            )),
        }
    }

    fn is_spoken_in(self, dir: &Path) -> bool {
        match self {
            Self::Rust => dir.join("Cargo.toml").is_file(),
            Self::Js => dir.join("package.json").is_file(),
            Self::Python => dir.join("pyproject.toml").is_file() || !sources(dir, "py").is_empty(),
            Self::C => !sources(dir, "c").is_empty(),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The files in `dir` itself that end in `.extension`, in the order of their names.
pub(super) fn sources(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension) && path.is_file())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_known_by_its_files() {
        for (file, language) in [
            ("Cargo.toml", Language::Rust),
            ("package.json", Language::Js),
            ("pyproject.toml", Language::Python),
            ("rule.py", Language::Python),
            ("rule.c", Language::C),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
            assert_eq!(Language::detect(dir.path()), Ok(language), "{file}");
        }
    }

    #[test]
    fn doubt_is_told_and_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Language::detect(dir.path()).unwrap_err().contains("plugin new"));
        std::fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        std::fs::write(dir.path().join("tool.py"), "").unwrap();
        assert!(Language::detect(dir.path()).unwrap_err().contains("--lang rust"));
    }
}
