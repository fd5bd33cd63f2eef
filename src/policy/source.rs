//! The texts that a policy was read from, and places in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stretch of a source file, for diagnostics: small, copied freely, and never shown by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Place {
    /// Index of the file in [`Sources`].
    pub file: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Length in characters.
    pub length: u32,
}

impl Place {
    /// The first character of a file: for what is wrong with the file as a whole.
    pub(crate) fn start_of(file: u32) -> Self {
        Self { file, line: 1, column: 1, length: 0 }
    }
}

/// One file as it was read.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path by which it was read.
    pub path: PathBuf,
    /// The path as diagnostics show it.
    pub shown: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Where each line starts, in bytes: a diagnostic must not read the file from its beginning.
    line_starts: Vec<usize>,
}

/// Every file of a policy, the main one first.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<Source>);

impl Sources {
    /// Adds a file and says which number it got.
    pub(crate) fn add(&mut self, path: &Path, text: Arc<str>) -> u32 {
        let number = u32::try_from(self.0.len()).expect("a policy has fewer files than four milliards");
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect();
        let shown = path.display().to_string().into();
        self.0.push(Source { path: path.to_owned(), shown, text, line_starts });
        number
    }

    /// The file with this number.
    pub(crate) fn get(&self, file: u32) -> &Source {
        &self.0[file as usize]
    }

    /// The text of one line, where the file has it.
    pub(crate) fn line(&self, place: Place) -> Option<&str> {
        let source = self.get(place.file);
        let start = *source.line_starts.get((place.line as usize).checked_sub(1)?)?;
        source.text[start..].lines().next()
    }

    /// `path` as the file at `place` means it: relative to that file's own directory.
    pub(crate) fn beside(&self, place: Place, path: &str) -> PathBuf {
        self.get(place.file).path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// All files in the order in which they were read.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}
