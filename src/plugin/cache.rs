//! Compiled code on disk: a file is compiled once for its content, and not again at the next start.
//!
//! Code that is loaded runs as our own, so nothing is loaded that we did not write. An entry counts
//! only if its directory and itself belong to us and nobody else may write to them, and if it says
//! of itself, with a digest, which file it was compiled from, for which engine, into what. Whatever
//! is off is not an error: the file is compiled, and the entry written anew.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    self, AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// What an entry starts with. The last byte counts up when the layout changes.
const MAGIC: &[u8; 16] = b"innkeeper code\0\x01";

/// The magic, the key, and the SHA-256 of the code that follows.
const HEADER_BYTES: usize = MAGIC.len() + 32 + 32;

/// Entries that are kept; a plugin has two.
const MAX_ENTRIES: usize = 64;

/// Bytes of all entries together. A whole Python compiles into 60 MiB.
const MAX_BYTES: u64 = 1 << 30;

/// Age after which an unfinished entry surely has no writer any more, seconds.
const ABANDONED_SECONDS: i64 = 3600;

/// How names of unfinished entries begin.
const UNFINISHED: &str = "new-";

/// Who may write to what we trust: nobody but its owner.
const WRITABLE_BY_OTHERS: RawMode = 0o022;

/// A directory with compiled code, for one engine.
pub(super) struct CodeCache {
    // Every entry is reached through it, so that no rename of a parent leads elsewhere.
    directory: OwnedFd,
    engine: Engine,
    compatibility: u64,
}

impl CodeCache {
    /// Opens a directory, and makes it if it is not there.
    pub(super) fn open(path: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::open(path, flags, Mode::empty())?;
        check_owner(&fs::fstat(&directory)?)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { directory, engine: engine.clone(), compatibility: hasher.finish() })
    }

    /// What was compiled from this file before.
    ///
    /// # Errors
    /// When there is an entry that must not be trusted.
    #[expect(unsafe_code, reason = "compiled code is loaded: that only we wrote it is argued below")]
    pub(super) fn find(&self, wasm: &[u8]) -> io::Result<Option<Component>> {
        let key = self.key(wasm);
        let entry = match self.read(&name_of(&key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let code = unseal(&entry, &key).map_err(io::Error::other)?;
        // SAFETY: these bytes must be what `Component::serialize` gave, for an engine like ours.
        // - Only `keep` writes entries, and only what `serialize` gave. That nobody else wrote this
        //   one: its directory and itself belong to our effective user, and no other may write to
        //   either (`open`, `read`). Links are not followed. Whoever can act as our user, or as
        //   root, needs no forged entry to run code as us.
        // - For an engine like ours: `key` holds the engine's compatibility hash, and `unseal` found
        //   the same key in the entry. wasmtime compares version and settings once more.
        // - Unharmed: `unseal` compared the digest of the code, which a torn or decayed entry fails.
        // - `entry` is our own copy in memory, read once: what was checked is what is loaded, and no
        //   later change of the file reaches it.
        let component = unsafe { Component::deserialize(&self.engine, code) };
        component.map(Some).map_err(|error| io::Error::other(format!("{error:#}")))
    }

    /// Keeps what was compiled from this file, and lets go of what was used least lately.
    pub(super) fn keep(&self, wasm: &[u8], component: &Component) -> io::Result<()> {
        let key = self.key(wasm);
        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        self.write(&name_of(&key), &seal(&key, &code))?;
        self.trim()
    }

    /// What an entry's code depends on: the file, the engine, and our layout.
    fn key(&self, wasm: &[u8]) -> [u8; 32] {
        let digest = Sha256::new().chain_update(MAGIC).chain_update(self.compatibility.to_le_bytes());
        digest.chain_update(Sha256::digest(wasm)).finalize().into()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        // Not blocking: a pipe in its place would keep us waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.directory, name, flags, Mode::empty())?);
        let status = fs::fstat(&file)?;
        if !FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        check_owner(&status)?;
        let mut entry = Vec::new();
        (&file).take(MAX_BYTES).read_to_end(&mut entry)?;
        // When it was used last. A cache that we may only read is none the worse without.
        let now = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        };
        let _ = fs::futimens(&file, &now);
        Ok(entry)
    }

    /// Writes an entry beside its place and renames it there, so that no reader sees half of it.
    fn write(&self, name: &str, entry: &[u8]) -> io::Result<()> {
        let unfinished = format!("{UNFINISHED}{}", uuid::Uuid::new_v4());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
        let written = File::from(file)
            .write_all(entry)
            .and_then(|()| Ok(fs::renameat(&self.directory, &unfinished, &self.directory, name)?));
        if written.is_err() {
            let _ = fs::unlinkat(&self.directory, &unfinished, AtFlags::empty());
        }
        written
    }

    fn trim(&self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let abandoned = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(ABANDONED_SECONDS);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_owned();
            // It may be gone by now: others trim too.
            let Ok(status) = fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let text = name.to_str().unwrap_or_default();
            if text.starts_with(UNFINISHED) && status.st_mtime < abandoned {
                let _ = fs::unlinkat(&self.directory, &name, AtFlags::empty());
            } else if is_name(text) {
                entries.push((status.st_mtime, u64::try_from(status.st_size).unwrap_or(u64::MAX), name));
            }
        }
        entries.sort_by(|one, other| other.cmp(one));
        let mut bytes: u64 = 0;
        for (index, (_, size, name)) in entries.iter().enumerate() {
            bytes = bytes.saturating_add(*size);
            if index >= MAX_ENTRIES || bytes > MAX_BYTES {
                let _ = fs::unlinkat(&self.directory, name, AtFlags::empty());
            }
        }
        Ok(())
    }
}

fn check_owner(status: &Stat) -> io::Result<()> {
    if status.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if status.st_mode & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::other("others may write to it: `chmod go-w` it, if it is yours alone"));
    }
    Ok(())
}

fn seal(key: &[u8; 32], code: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(code);
    [&MAGIC[..], key, &digest, code].concat()
}

/// The code in an entry, if all of it is what [`seal`] made under this key.
fn unseal<'a>(entry: &'a [u8], key: &[u8; 32]) -> Result<&'a [u8], &'static str> {
    let (header, code) = entry.split_at_checked(HEADER_BYTES).ok_or("it is cut short")?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (its_key, digest) = rest.split_at(key.len());
    if magic != MAGIC {
        return Err("it is not ours");
    }
    if its_key != key {
        return Err("it was made for something else");
    }
    if digest != &*Sha256::digest(code) {
        return Err("it is damaged");
    }
    Ok(code)
}

fn name_of(key: &[u8; 32]) -> String {
    key.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

fn is_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
