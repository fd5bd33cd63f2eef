//! The process's own files and environment, as the policy room is lent them.

use std::io;
use std::path::Path;

use crate::policy::Surroundings;

/// Largest file that is read as part of a policy. What is larger was named by mistake, and the
/// parser would refuse it anyway.
const MAX_BYTES: u64 = 32 << 20;

/// Reads from the file system and the environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSurroundings;

impl Surroundings for ProcessSurroundings {
    fn read(&self, path: &Path) -> io::Result<String> {
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
        }
        if metadata.len() > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {} MiB", MAX_BYTES >> 20),
            ));
        }
        std::fs::read_to_string(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_not_a_policy() {
        let directory = tempfile::tempdir().unwrap();
        let error = ProcessSurroundings.read(directory.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn files_are_read_as_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        std::fs::write(&path, "version: 1\n").unwrap();
        assert_eq!(ProcessSurroundings.read(&path).unwrap(), "version: 1\n");
        std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
        assert_eq!(ProcessSurroundings.read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
