//! What is wrong with a policy: every finding at once, each with its place, snippet and a way out.

use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use super::Expectation;
use super::source::{Place, Sources};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used.
    #[default]
    Error,
    /// The policy can be used, but hardly as meant.
    Warning,
    /// A file cannot be used, and what it held before goes on.
    #[serde(rename = "held back")]
    HeldBack,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::HeldBack => "held back",
        })
    }
}

/// One finding. The field names are what scripts read from `check --format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub at: Excerpt,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Other places that have to do with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Another place that has to do with a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub at: Excerpt,
}

/// A place with its line, in which secrets are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The file, as its path was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters are meant.
    pub length: u32,
    /// The line's text, with secrets masked; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snippet: Option<String>,
    /// Where the marked part starts in the snippet, after masking: characters before it and its own.
    #[serde(skip)]
    pub(super) mark: (usize, usize),
}

/// All findings on one policy, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// The findings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|one| one.severity == Severity::Error).count()
    }

    /// Adds more findings, such as those of inline tests.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(more);
    }

    /// All findings as text for people, with ANSI colours if asked.
    pub fn render(&self, colours: bool) -> String {
        self.0.iter().map(|one| one.render(colours)).collect::<Vec<_>>().join("\n")
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(list: Vec<Diagnostic>) -> Self {
        Self(list)
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const GREEN: &str = "\x1b[1;32m";
const PLAIN: &str = "\x1b[0m";

impl Diagnostic {
    /// An inline test that failed, and why.
    pub fn failed_test(test: &Expectation, reason: &str) -> Self {
        Self {
            severity: Severity::Error,
            message: format!("the test `{}` failed: {reason}", test.name),
            at: test.at.clone(),
            help: None,
            related: Vec::new(),
        }
    }

    /// An error at a place, found after the policy was parsed.
    pub fn error(at: Excerpt, message: String) -> Self {
        Self { severity: Severity::Error, message, at, help: None, related: Vec::new() }
    }

    /// A warning at a place, found after the policy was parsed.
    pub fn warning(at: Excerpt, message: String) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, message) }
    }

    /// The finding as text for people, with ANSI colours if asked.
    pub fn render(&self, colours: bool) -> String {
        let paint = |code, text: &str| match colours {
            true => format!("{code}{text}{PLAIN}"),
            false => text.to_owned(),
        };
        let severity = match self.severity {
            Severity::Error | Severity::HeldBack => RED,
            Severity::Warning => YELLOW,
        };
        let widest = self.related.iter().map(|related| related.at.line).max().unwrap_or(0).max(self.at.line);
        let margin = widest.to_string().len();
        let mut text = String::new();
        let mut line = |content: String| {
            let _ = writeln!(text, "{}", content.trim_end());
        };
        line(format!(
            "{}{}",
            paint(severity, &self.severity.to_string()),
            paint(BOLD, &format!(": {}", visible(&self.message)))
        ));
        let places = std::iter::once((&self.at, "-->", "", '^', severity))
            .chain(self.related.iter().map(|one| (&one.at, ":::", one.message.as_str(), '-', BLUE)));
        for (at, arrow, label, mark, colour) in places {
            let file = visible(&at.file);
            line(format!("{:margin$}{} {file}:{}:{}", "", paint(BLUE, arrow), at.line, at.column));
            let Some(snippet) = &at.snippet else { continue };
            let number = paint(BLUE, &format!("{:>margin$} |", at.line));
            let bar = paint(BLUE, &format!("{:>margin$} |", ""));
            let marks: String = std::iter::repeat_n(mark, at.mark.1).collect();
            line(bar.clone());
            line(format!("{number} {}", visible(snippet)));
            let label = visible(label);
            line(format!("{bar} {:indent$}{} {label}", "", paint(colour, &marks), indent = at.mark.0));
        }
        if let Some(help) = &self.help {
            line(format!("{:margin$} = {} {}", "", paint(GREEN, "help:"), visible(help)));
        }
        text
    }
}

/// A text without what a terminal would obey, or would show in another order than it stands in the file.
/// Each such character becomes one other, so that marks stay under what they mean.
fn visible(text: &str) -> String {
    let obeyed = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    let reorders = |character: char| matches!(character, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let shown = |character| {
        if obeyed(character) || reorders(character) { char::REPLACEMENT_CHARACTER } else { character }
    };
    text.chars().map(shown).collect()
}

/// A finding under way, before its place is looked up in the sources.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    severity: Severity,
    place: Place,
    message: String,
    help: Option<String>,
    also: Vec<(Place, String)>,
}

impl Finding {
    /// Adds what to do about it.
    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a suggestion: the known name that `given` resembles most, else all of them if few.
    pub(crate) fn suggest<'a>(&mut self, given: &str, known: impl IntoIterator<Item = &'a str>) -> &mut Self {
        let known: Vec<&str> = known.into_iter().collect();
        if let Some(nearest) = nearest(given, &known) {
            return self.help(format!("did you mean `{nearest}`?"));
        }
        match known.as_slice() {
            [] => self,
            [only] => self.help(format!("the only one is `{only}`")),
            few if few.len() <= 12 => self.help(format!("known here: `{}`", few.join("`, `"))),
            _ => self,
        }
    }

    /// Adds another place that has to do with it.
    pub(crate) fn also(&mut self, place: Place, message: impl Into<String>) -> &mut Self {
        self.also.push((place, message.into()));
        self
    }
}

/// The known name that a misspelt one most likely meant.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = given.to_ascii_lowercase().replace('-', "_");
    let distance =
        |name: &str| strsim::damerau_levenshtein(&folded, &name.to_ascii_lowercase().replace('-', "_"));
    let (name, distance) = known.iter().map(|name| (*name, distance(name))).min_by_key(|(_, far)| *far)?;
    // A third of the letters may be wrong: `upstrems` is `upstreams`, `foo` is nothing.
    (distance <= (given.chars().count().max(3) / 3)).then_some(name)
}

/// Most findings that are shown: more is a file of another kind, and nobody reads them.
const MAX_FINDINGS: usize = 200;

/// Gathers findings while a policy is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
    errors: usize,
    count: usize,
    secrets: Vec<Place>,
    discarded: Finding,
}

impl Report {
    /// Adds an error.
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Error, place, message.into())
    }

    /// Adds a warning.
    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, place, message.into())
    }

    /// Takes what was found apart.
    pub(crate) fn take(&mut self, found: Self) {
        self.count += found.count;
        self.errors += found.errors;
        self.secrets.extend(found.secrets);
        let room = MAX_FINDINGS.saturating_sub(self.findings.len());
        self.findings.extend(found.findings.into_iter().take(room));
    }

    /// Takes what was found apart, of files that are held back: it is no error of the policy.
    pub(crate) fn take_held_back(&mut self, mut found: Self, help: &str) {
        found.errors = 0;
        for finding in &mut found.findings {
            finding.severity = Severity::HeldBack;
            finding.help(help);
        }
        self.take(found);
    }

    /// A finding that nobody sees, about what was reported before.
    pub(crate) fn silent(&mut self) -> &mut Finding {
        self.discarded = Finding::default();
        &mut self.discarded
    }

    fn add(&mut self, severity: Severity, place: Place, message: String) -> &mut Finding {
        self.count += 1;
        self.errors += usize::from(severity == Severity::Error);
        if self.findings.len() >= MAX_FINDINGS {
            return self.silent();
        }
        self.findings.push(Finding { severity, place, message, help: None, also: Vec::new() });
        self.findings.last_mut().expect("one was just added")
    }

    /// Whether an error was found so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How much was found so far.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Marks a stretch of the source that no snippet may show.
    pub(crate) fn conceal(&mut self, place: Place) {
        self.secrets.push(place);
    }

    /// Looks every place up: the findings as they are shown, by file and line.
    pub(crate) fn finish(mut self, sources: &Sources) -> Diagnostics {
        self.findings.sort_by_key(|finding| finding.place);
        let unseen = self.count - self.findings.len();
        if unseen > 0 {
            let last = self.findings.last().map(|finding| finding.place).unwrap_or_default();
            self.findings.push(Finding {
                place: last,
                message: format!("{unseen} more findings are not shown"),
                help: Some("correct these first".into()),
                ..Finding::default()
            });
        }
        let excerpt = |place| Excerpt::of(place, sources, &self.secrets);
        let list = self.findings.iter().map(|finding| Diagnostic {
            severity: finding.severity,
            message: finding.message.clone(),
            at: excerpt(finding.place),
            help: finding.help.clone(),
            related: finding
                .also
                .iter()
                .map(|(place, message)| Related { message: message.clone(), at: excerpt(*place) })
                .collect(),
        });
        Diagnostics(list.collect())
    }
}
