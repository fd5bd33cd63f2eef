//! The process's own files and environment, as the policy room is lent them.

use std::io::{self, Read as _};
use std::path::Path;

use crate::files::open_regular;
use crate::policy::Surroundings;

/// Largest file that is read as part of a policy. What is larger was named by mistake, and the
/// parser would refuse it anyway.
const MAX_BYTES: u64 = 32 << 20;

/// Reads a regular file of at most so many bytes.
///
/// # Errors
/// Why it cannot be read, in words for whoever named it.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_large(most));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // It may grow meanwhile.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// The error of whatever is larger than so many bytes.
pub fn too_large(most: u64) -> io::Error {
    let most = match most >> 20 {
        0 => format!("{} KiB", most >> 10),
        mebibytes => format!("{mebibytes} MiB"),
    };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {most}"))
}

/// Reads from the file system and the environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSurroundings;

impl Surroundings for ProcessSurroundings {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = String::from_utf8(read_file(path, MAX_BYTES)?);
        text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
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
    fn what_never_ends_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = read_file(path, MAX_BYTES).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_file(&path, 100).unwrap(), [7; 100]);
        assert_eq!(read_file(&path, 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
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
