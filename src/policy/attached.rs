//! Files that a policy names and that are no part of its text: certificates, keys, key sets. No
//! diagnostic shows a line of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::Located;
use super::diagnostic::Report;
use super::load::reason;
use super::source::{Place, Sources};
use super::{Certificate, CertificateFiles, Policy};

/// A file as the policy names it, relative to the file that it is named in.
#[derive(Clone, Copy)]
pub(crate) struct FileName<'a> {
    pub place: Place,
    pub path: &'a str,
    /// The path as a message may show it.
    pub shown: &'a str,
}

impl<'a> From<&'a Located<String>> for FileName<'a> {
    fn from(name: &'a Located<String>) -> Self {
        Self { place: name.place, path: &name.value, shown: name.shown() }
    }
}

/// The files, each read once, however often it is named.
#[derive(Default)]
pub(crate) struct Attached {
    /// By the path as it is written and the file that it is written in.
    paths: BTreeMap<(u32, String), PathBuf>,
    texts: BTreeMap<PathBuf, io::Result<String>>,
    /// What such files were made into for the policy in force.
    in_force: Vec<Arc<Certificate>>,
}

impl Attached {
    /// No files yet, beside those of the policy in force, if there is one.
    pub(crate) fn beside(in_force: Option<&Policy>) -> Self {
        let listeners = in_force.into_iter().flat_map(|policy| &policy.server.listen);
        let certificates = listeners.filter_map(|one| one.tls.as_ref()).flat_map(|tls| &tls.certificates);
        Self { in_force: certificates.cloned().collect(), ..Self::default() }
    }

    /// Reads the file that is named at `name`.
    pub(crate) fn add(
        &mut self,
        name: FileName<'_>,
        sources: &Sources,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) {
        let path = sources.beside(name.place, name.path);
        self.paths.insert((name.place.file, name.path.to_owned()), path.clone());
        self.texts.entry(path).or_insert_with_key(|path| read(path));
    }

    /// The text of the file that is named at `name`; one that cannot be read is reported there.
    pub(crate) fn text<'a>(&self, name: impl Into<FileName<'a>>, report: &mut Report) -> Option<&str> {
        let name = name.into();
        match self.texts.get(self.path(name)?).expect("each path was read") {
            Ok(text) => Some(text),
            Err(error) => {
                report
                    .error(name.place, format!("cannot read `{}`: {}", name.shown, reason(error)))
                    .help("paths are relative to the file that names them");
                None
            }
        }
    }

    /// The two files of a certificate, and the one in force that was made of them.
    pub(crate) fn pair<'a>(
        &self,
        certificate: impl Into<FileName<'a>>,
        key: impl Into<FileName<'a>>,
    ) -> Option<(CertificateFiles, Option<&Certificate>)> {
        let (certificate, key) = (certificate.into(), key.into());
        let name = certificate.shown.into();
        let (certificate, key) = (self.path(certificate)?.clone(), self.path(key)?.clone());
        let files = CertificateFiles { name, certificate, key };
        let in_force = self.in_force.iter().find(|one| *one.files() == files);
        Some((files, in_force.map(|one| &**one)))
    }

    /// Every path, read or not: what a watcher watches.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.texts.keys()
    }

    /// What could be read, in the order of the paths.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.values().filter_map(|text| text.as_deref().ok())
    }

    fn path(&self, name: FileName<'_>) -> Option<&PathBuf> {
        self.paths.get(&(name.place.file, name.path.to_owned()))
    }
}
