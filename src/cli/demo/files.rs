//! The demo's policy and plugin as files, which it rewrites to show a reload.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const POLICY: &str = include_str!("../../../policies/demo.yaml");
const PLUGIN: &[u8] = include_bytes!("../../../plugins/legacy-keys.wasm");

/// The policy is published in two editions, which differ in what a request can see: the word in
/// each row, and the tenant that the key `k-moving` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    /// The first.
    Blue,
    /// The second.
    Green,
}

impl Edition {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// The word that its statement puts into each row.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// The tenant that `k-moving` belongs to in it.
    pub(super) fn moving(self) -> &'static str {
        match self {
            Self::Blue => "acme",
            Self::Green => "globex",
        }
    }

    /// The one that follows.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

/// Where the demo's parts are, and what else its policy leaves open.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The gateway's listener.
    pub(super) listen: String,
    /// The admin listener.
    pub(super) admin: String,
    /// The database's URL.
    pub(super) database: String,
    /// The old application's URL.
    pub(super) legacy: String,
    /// Whether requests are recorded.
    pub(super) access_log: bool,
}

/// The demo's directory with its policy and its plugin.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    surroundings: Surroundings,
}

impl Files {
    /// Writes the first edition and the plugin into `directory`, over nobody's work.
    pub(super) fn create(directory: &Path, surroundings: Surroundings) -> io::Result<Self> {
        let files = Self { directory: directory.to_owned(), surroundings };
        if files.policy().exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already: name another directory", files.policy().display()),
            ));
        }
        fs::create_dir_all(directory.join("policies"))?;
        fs::create_dir_all(directory.join("plugins"))?;
        files.write_plugin(0)?;
        files.write_policy(Edition::Blue)?;
        Ok(files)
    }

    /// The policy's file.
    pub(super) fn policy(&self) -> PathBuf {
        self.directory.join("policies/demo.yaml")
    }

    /// Publishes an edition of the policy.
    pub(super) fn write_policy(&self, edition: Edition) -> io::Result<()> {
        let access_log = if self.surroundings.access_log { "on" } else { "off" };
        let policy = fill(
            &POLICY.replace("access_log: on", &format!("access_log: {access_log}")),
            &[
                ("DEMO_LISTEN", &self.surroundings.listen),
                ("DEMO_ADMIN", &self.surroundings.admin),
                ("DEMO_DATABASE_URL", &self.surroundings.database),
                ("DEMO_LEGACY", &self.surroundings.legacy),
                ("DEMO_MOVING", edition.moving()),
                ("DEMO_EDITION", edition.word()),
            ],
        );
        replace(&self.policy(), policy.as_bytes())
    }

    /// Publishes a policy with a mistake, which must change nothing.
    pub(super) fn write_broken_policy(&self) -> io::Result<()> {
        let policy = fill(POLICY, &[]).replace("forward: legacy", "forward: nowhere");
        replace(&self.policy(), policy.as_bytes())
    }

    /// Publishes another build of the plugin: the same code with another note in it, and so
    /// another content, which has to be compiled and configured anew.
    pub(super) fn write_plugin(&self, build: u32) -> io::Result<()> {
        let mut plugin = PLUGIN.to_vec();
        if build > 0 {
            plugin.extend(custom_section("demo-build", &build.to_le_bytes()));
        }
        replace(&self.directory.join("plugins/legacy-keys.wasm"), &plugin)
    }
}

/// Replaces a file as a careful editor does: readers see the old content or the new.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, content)?;
    fs::rename(&beside, path)
}

/// Puts values in place of `${NAME:-default}`. What is not named keeps its variable.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = text.to_owned();
    for (name, value) in values {
        let opening = format!("${{{name}:-");
        while let Some(start) = filled.find(&opening) {
            let end = filled[start..].find('}').expect("the demo's policy closes its variables");
            filled.replace_range(start..=start + end, value);
        }
    }
    filled
}

/// A custom section, which a component may carry anywhere and which says nothing to its host
/// (WebAssembly core specification, section 5.5.3).
fn custom_section(name: &str, content: &[u8]) -> Vec<u8> {
    let length = |length: usize| u8::try_from(length).ok().filter(|byte| *byte < 0x80);
    let name_length = length(name.len()).expect("a section's name fits one byte of LEB128");
    let section_length =
        length(1 + name.len() + content.len()).expect("a section's length fits one byte of LEB128");
    [&[0, section_length, name_length], name.as_bytes(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_and_others_kept() {
        let text = "a: ${X:-1}${X:-2}\nb: ${Y:-3}\n";
        assert_eq!(fill(text, &[("X", "v")]), "a: vv\nb: ${Y:-3}\n");
    }

    #[test]
    fn editions_differ_where_a_request_can_see_it() {
        let directory = tempfile::tempdir().unwrap();
        let surroundings = || Surroundings {
            listen: "127.0.0.1:1".into(),
            admin: "127.0.0.1:2".into(),
            database: "postgres://db".into(),
            legacy: "http://127.0.0.1:3".into(),
            access_log: false,
        };
        let files = Files::create(directory.path(), surroundings()).unwrap();
        assert!(Files::create(directory.path(), surroundings()).is_err(), "it would overwrite the first");
        let read = || fs::read_to_string(files.policy()).unwrap();
        let blue = read();
        files.write_policy(Edition::Green).unwrap();
        let green = read();
        assert!(!blue.contains("${DEMO") && blue.contains("access_log: off"), "{blue}");
        let seen = |policy: &str, edition: Edition| {
            policy.contains(&format!("'{}' as edition", edition.word()))
                && policy.contains(&format!("k-moving: {}", edition.moving()))
        };
        assert!(seen(&blue, Edition::Blue) && !seen(&blue, Edition::Green));
        assert!(seen(&green, Edition::Green) && !seen(&green, Edition::Blue));
    }
}
