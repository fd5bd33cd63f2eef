//! `innkeeper plugin new`: a project that builds, tests and serves with nothing left to fill in.

mod files;
mod name;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use self::files::files;
pub use self::name::{NotAName, ProjectName};
use super::language::Language;

/// Begins a plugin.
#[derive(Debug, Clone, clap::Args)]
pub struct NewArgs {
    /// The plugin's name: small letters, digits and hyphens
    pub name: ProjectName,
    /// The language to write it in
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: Language,
    /// Where to put the project [default: ./NAME]
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Somebody's work is there already.
    #[error("nothing was written, because these files exist: {}", shown(.0))]
    Exists(Vec<PathBuf>),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Writes the project, and tells on standard output what there is and what to do next.
///
/// # Errors
/// As [`create`].
pub fn run(args: &NewArgs) -> Result<(), NewError> {
    let written = create(args)?;
    let mut text = String::new();
    for path in &written {
        let _ = writeln!(text, "wrote {}", path.display());
    }
    let _ = writeln!(text, "\nnext, as README.md says:\n  cd {}", directory(args).display());
    for step in files::preparation(args.lang).into_iter().chain(["innkeeper plugin build"]) {
        let _ = writeln!(text, "  {step}");
    }
    // A closed pipe is not a failed start.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Writes the project's files, none of which was there before.
///
/// # Errors
/// When one of them exists, before anything is written; or when one cannot be written.
pub fn create(args: &NewArgs) -> Result<Vec<PathBuf>, NewError> {
    let dir = directory(args);
    let files = files(&args.name, args.lang);
    let there: Vec<PathBuf> =
        files.iter().map(|(path, _)| dir.join(path)).filter(|path| path.symlink_metadata().is_ok()).collect();
    if !there.is_empty() {
        return Err(NewError::Exists(there));
    }
    files.into_iter().map(|(path, text)| write_new(dir.join(path), &text)).collect()
}

fn directory(args: &NewArgs) -> PathBuf {
    args.dir.clone().unwrap_or_else(|| PathBuf::from(args.name.as_str()))
}

/// Writes a file that is still not there: somebody else may write too.
fn write_new(path: PathBuf, text: &str) -> Result<PathBuf, NewError> {
    let written = fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
        .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(NewError::Exists(vec![path])),
        Err(source) => Err(NewError::File { path, source }),
    }
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(lang: Language, dir: &Path) -> NewArgs {
        NewArgs { name: "api-keys".parse().unwrap(), lang, dir: Some(dir.into()) }
    }

    #[test]
    fn a_project_is_of_the_language_that_was_asked_for() {
        for lang in Language::ALL {
            let dir = tempfile::tempdir().unwrap();
            let project = dir.path().join("deep/api-keys");
            let written = create(&args(lang, &project)).unwrap();
            assert_eq!(Language::detect(&project), Ok(lang));
            for path in &written {
                let text = fs::read_to_string(path).unwrap();
                assert!(!text.contains("{{"), "{}: something was not filled in", path.display());
            }
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plugin.py"), "mine").unwrap();
        let error = create(&args(Language::Python, dir.path())).unwrap_err().to_string();
        assert!(error.contains("plugin.py"), "{error}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing else was written");
        assert_eq!(fs::read_to_string(dir.path().join("plugin.py")).unwrap(), "mine");
    }
}
