//! Files that a policy names.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Opens a regular file. A pipe or a device is none: reading it may never end, and a pipe without a writer
/// is waited for as soon as it is opened.
///
/// # Errors
/// Why it cannot be opened, in words for whoever named it.
pub fn open_regular(path: &Path) -> Result<File> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(Error::new(ErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(path)
}
