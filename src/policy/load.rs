//! The way from files to a policy: read, interpolate, decode, merge what is included, resolve.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::attached::Attached;
use super::decode::{Decode, Located, Named};
use super::diagnostic::{Diagnostic, Diagnostics, Report};
use super::document;
use super::interpolate::Interpolator;
use super::source::{Place, Sources};
use super::yaml::{self, Node, Value};
use super::{Policy, resolve};

/// Where a policy's files and variables come from. The policy room itself reads nothing.
pub trait Surroundings {
    /// The text of the file at `path`.
    ///
    /// # Errors
    /// Whatever kept the file from being read.
    fn read(&self, path: &Path) -> std::io::Result<String>;

    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

impl Policy {
    /// Reads the policy whose main file is `main`, with everything it includes, and resolves every
    /// name in it. Gives the policy and the warnings about it.
    ///
    /// # Errors
    /// Every mistake that was found, warnings among them, if one of them is an error.
    pub fn parse(
        main: &Path,
        surroundings: &dyn Surroundings,
    ) -> Result<(Self, Vec<Diagnostic>), Diagnostics> {
        Self::parse_after(None, main, surroundings)
    }

    /// The same with a policy in force: a certificate of it goes on where its files are named still
    /// and what they hold now is no better. Among the warnings is then what was
    /// [held back](super::Severity::HeldBack).
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_after(
        in_force: Option<&Self>,
        main: &Path,
        surroundings: &dyn Surroundings,
    ) -> Result<(Self, Vec<Diagnostic>), Diagnostics> {
        let variable = |name: &str| surroundings.variable(name);
        let mut loader = Loader {
            surroundings,
            sources: Sources::default(),
            report: Report::default(),
            interpolator: Interpolator { variable: &variable, asked: BTreeMap::new() },
            readable: true,
        };
        let policy = loader.load(main, in_force);
        let diagnostics = loader.report.finish(&loader.sources);
        match policy {
            Some(policy) if !diagnostics.has_errors() => Ok((policy, diagnostics.into_iter().collect())),
            _ => Err(diagnostics),
        }
    }
}

/// All documents of a policy as one.
#[derive(Default)]
pub(crate) struct Whole {
    pub server: Option<document::Server>,
    pub databases: Named<document::Database>,
    pub tenants: Option<document::Tenants>,
    pub overrides_source: Option<document::Overrides>,
    /// The overrides, wherever they are written.
    pub overrides: Vec<document::Override>,
    pub keys: Named<document::Keys>,
    pub plugins: Named<document::Plugin>,
    pub upstreams: Named<document::Upstream>,
    pub routes: Vec<document::Route>,
    pub tests: Vec<document::Test>,
}

struct Loader<'a> {
    surroundings: &'a dyn Surroundings,
    sources: Sources,
    report: Report,
    interpolator: Interpolator<'a>,
    /// Whether every file could be read as YAML: names defined in an unread one must not be
    /// reported as unknown.
    readable: bool,
}

impl Loader<'_> {
    fn load(&mut self, main: &Path, in_force: Option<&Policy>) -> Option<Policy> {
        let mut whole = Whole::default();
        self.add_file(main, None, &mut vec![], &mut whole);
        let tenants = whole.tenants.take();
        let (entries, tenants) = self.read_tenants(tenants);
        whole.overrides = self.read_overrides(whole.overrides_source.take());
        self.read_key_tables(&mut whole.keys);
        if !self.readable {
            return None;
        }
        let attached = self.attached(&whole, in_force);
        let (sources, report) = (&self.sources, &mut self.report);
        let resolved = resolve::resolve(&whole, tenants.as_ref(), entries, sources, &attached, report)?;
        if resolved.routes.is_empty() && !may_have_no_routes(in_force, report) {
            return None;
        }
        let files = self.sources.iter().map(|source| &source.path).chain(attached.paths());
        Some(Policy { hash: self.hash(&attached), files: files.cloned().collect(), ..resolved })
    }

    /// Reads one file and what it includes into `whole`. `named` is where it is included, and
    /// `chain` holds the files that led there.
    fn add_file(
        &mut self,
        path: &Path,
        named: Option<&Located<String>>,
        chain: &mut Vec<PathBuf>,
        whole: &mut Whole,
    ) {
        let Some(root) = self.read(path, named) else { return };
        let file = root.place.file;
        let Some(document) = document::Policy::decode(&root, &mut self.report) else {
            self.readable = false;
            return;
        };
        if named.is_none() && !has_key(&root, "version") {
            self.report
                .error(Place::start_of(file), "the policy needs the key `version`")
                .help("start the file with `version: 1`");
        }
        chain.push(plain(path));
        let includes = document.include.clone().unwrap_or_default();
        whole.take(document, &mut self.report);
        for include in includes {
            let included = self.sources.beside(include.place, &include.value);
            if chain.contains(&plain(&included)) {
                self.report
                    .error(include.place, format!("`{}` includes itself in the end", include.shown()))
                    .help("remove this include: the file is read already");
            } else if let Some(earlier) = self.sources.iter().find(|one| plain(&one.path) == plain(&included))
            {
                let shown = earlier.shown.to_string();
                self.report
                    .error(include.place, format!("`{shown}` is included twice"))
                    .help("include it once, in the main file");
            } else {
                self.add_file(&included, Some(&include), chain, whole);
            }
        }
        chain.pop();
    }

    /// Reads one file as YAML, with its variables replaced.
    fn read(&mut self, path: &Path, named: Option<&Located<String>>) -> Option<Node> {
        let named_at = named.map(|name| name.place);
        let read = self.surroundings.read(path);
        let text = read.as_deref().unwrap_or_default();
        let file = match (named_at, &read) {
            (Some(_), Err(_)) => 0,
            _ => self.sources.add(path, text.into()),
        };
        let node = match &read {
            Err(error) => {
                let place = named_at.unwrap_or(Place::start_of(file));
                let shown = match named {
                    Some(name) if name.is_from_environment() => name.shown().to_owned(),
                    _ => path.display().to_string(),
                };
                let what = format!("cannot read `{shown}`: {}", reason(error));
                let finding = self.report.error(place, what);
                if named_at.is_some() {
                    finding.help("paths are relative to the file that names them");
                }
                None
            }
            Ok(text) if yaml::is_blank(text) => {
                self.report
                    .error(Place::start_of(file), "the file is empty")
                    .help("the smallest policy is `version: 1`, an upstream and a route to it");
                None
            }
            Ok(text) => yaml::parse(text, file, &mut self.report),
        };
        let Some(mut node) = node else {
            self.readable = false;
            return None;
        };
        self.interpolator.replace(&mut node, &self.sources, &mut self.report);
        Some(node)
    }

    /// The tenants that are written out, here or in a file of their own.
    fn read_tenants(
        &mut self,
        tenants: Option<document::Tenants>,
    ) -> (Vec<document::TenantEntry>, Option<document::Tenants>) {
        let Some(mut tenants) = tenants else { return (Vec::new(), None) };
        let mut entries = tenants.list.take();
        if entries.is_none()
            && let Some(file) = &tenants.file
        {
            let path = self.sources.beside(file.place, &file.value);
            if let Some(node) = self.read(&path, Some(file)) {
                entries = Some(decode_tenants(&node, &mut self.report));
            }
        } else if entries.is_some() {
            tenants.list = Some(Vec::new());
        }
        (entries.unwrap_or_default(), Some(tenants))
    }

    /// The tables of keys that are in files of their own take their place.
    fn read_key_tables(&mut self, keys: &mut Named<document::Keys>) {
        for keys in keys.0.iter_mut().filter_map(|(_, keys)| keys.as_mut()) {
            let document::Keys::Table(table) = keys else { continue };
            if let (Some(_), Some(file)) = (&table.list, &table.file) {
                self.report.error(file.place, "a table of keys is either a `list` or a `file`, not both");
            } else if let Some(file) = &table.file {
                let path = self.sources.beside(file.place, &file.value);
                let entries = self.read(&path, Some(file));
                table.list = entries.and_then(|node| Vec::decode(&node, &mut self.report));
            }
        }
    }

    /// The overrides that are written out, here or in a file of their own.
    fn read_overrides(&mut self, written: Option<document::Overrides>) -> Vec<document::Override> {
        let Some(written) = written else { return Vec::new() };
        match (written.list, &written.file) {
            (Some(list), None) => list,
            (None, Some(file)) => {
                let path = self.sources.beside(file.place, &file.value);
                let node = self.read(&path, Some(file));
                node.map(|node| decode_overrides(&node, &mut self.report)).unwrap_or_default()
            }
            (Some(_), Some(file)) => {
                self.report.error(file.place, "`overrides` has either `list` or `file`, not both");
                Vec::new()
            }
            (None, None) => Vec::new(),
        }
    }

    /// What the policy names besides its own text.
    fn attached(&self, whole: &Whole, in_force: Option<&Policy>) -> Attached {
        let mut attached = Attached::beside(in_force);
        let listeners = whole.server.iter().filter_map(|server| server.listen.as_ref());
        let asserted = whole.server.iter().filter_map(|server| server.assertion_key.as_ref());
        let keys = whole.keys.0.iter().filter_map(|(_, keys)| keys.as_ref());
        let upstreams = whole.upstreams.0.iter().filter_map(|(_, upstream)| upstream.as_ref());
        let names = (listeners.flat_map(|many| &many.0).flat_map(document::Listener::files))
            .chain(asserted.flat_map(|many| &many.0).filter_map(document::AssertionKey::file))
            .chain(keys.flat_map(document::Keys::files))
            .chain(upstreams.flat_map(document::Upstream::files));
        for name in names {
            attached.add(name, &self.sources, |path| self.surroundings.read(path));
        }
        attached
    }

    /// SHA-256 over everything that the policy was made of.
    fn hash(&self, attached: &Attached) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        for source in self.sources.iter() {
            add(&source.text);
        }
        // A renewed certificate is a changed policy; its key, too, goes in through the hash only.
        attached.texts().for_each(&mut add);
        // Values go in through the hash only: a changed password is a changed policy.
        for (name, value) in &self.interpolator.asked {
            add(name);
            add(value.as_deref().map_or("unset", |_| "set"));
            add(value.as_deref().unwrap_or_default());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn decode_tenants(node: &Node, report: &mut Report) -> Vec<document::TenantEntry> {
    if let Value::Map(_) = node.value {
        let Some(file) = document::TenantFile::decode(node, report) else { return Vec::new() };
        return match (file.list, file.tenants) {
            (Some(list), None) | (None, Some(list)) => list,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => {
                report.error(node.place, "a tenants file has either `list` or `tenants`, not both");
                Vec::new()
            }
        };
    }
    Vec::decode(node, report).unwrap_or_default()
}

fn decode_overrides(node: &Node, report: &mut Report) -> Vec<document::Override> {
    if let Value::Map(_) = node.value {
        let Some(file) = document::OverrideFile::decode(node, report) else { return Vec::new() };
        return match (file.list, file.overrides) {
            (Some(list), None) | (None, Some(list)) => list,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => {
                report.error(node.place, "an overrides file has either `list` or `overrides`, not both");
                Vec::new()
            }
        };
    }
    Vec::decode(node, report).unwrap_or_default()
}

impl Whole {
    /// Takes one document in: maps merge, lists append, what is one of a kind must not come twice.
    fn take(&mut self, document: document::Policy, report: &mut Report) {
        take_one(&mut self.server, document.server, "server", |server| server.place, report);
        take_one(&mut self.tenants, document.tenants, "tenants", |tenants| tenants.place, report);
        let place = |overrides: &document::Overrides| overrides.place;
        take_one(&mut self.overrides_source, document.overrides, "overrides", place, report);
        take_named(&mut self.databases, document.databases, "database", report);
        take_named(&mut self.keys, document.keys, "name of keys", report);
        take_named(&mut self.plugins, document.plugins, "plugin", report);
        take_named(&mut self.upstreams, document.upstreams, "upstream", report);
        self.routes.extend(document.routes.unwrap_or_default());
        self.tests.extend(document.tests.unwrap_or_default());
    }
}

fn take_one<T>(
    whole: &mut Option<T>,
    part: Option<T>,
    what: &str,
    place: impl Fn(&T) -> Place,
    report: &mut Report,
) {
    match (&whole, part) {
        (_, None) => {}
        (None, part) => *whole = part,
        (Some(first), Some(second)) => {
            report
                .error(place(&second), format!("`{what}` is given in two files"))
                .also(place(first), "first given here")
                .help("keep it in one of them");
        }
    }
}

fn take_named<T>(whole: &mut Named<T>, part: Option<Named<T>>, what: &str, report: &mut Report) {
    let first_places: HashMap<String, Place> =
        whole.0.iter().map(|(key, _)| (key.text.clone(), key.place)).collect();
    for (key, value) in part.unwrap_or_default().0 {
        match first_places.get(&key.text) {
            None => whole.0.push((key, value)),
            Some(first) => {
                report
                    .error(key.place, format!("the {what} `{}` is given in two files", key.text))
                    .also(*first, "first given here")
                    .help("rename one of them");
            }
        }
    }
}

/// Whether a policy may be one without routes, and a word on it. What was cut off behind its first line is
/// such a policy, and must not take the place of a whole one.
fn may_have_no_routes(in_force: Option<&Policy>, report: &mut Report) -> bool {
    const MESSAGE: &str = "the policy has no routes: every request would be answered with 404";
    let takes_routes_away = in_force.is_some_and(|in_force| !in_force.routes.is_empty());
    let start = Place::start_of(0);
    let finding =
        if takes_routes_away { report.error(start, MESSAGE) } else { report.warning(start, MESSAGE) };
    finding.help("add `routes`; where the file was cut off, write it whole: beside, then rename it over");
    !takes_routes_away
}

fn has_key(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == name))
}

/// A path without `.` and `..`, to compare by.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// Why a file could not be read, in few words.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}
