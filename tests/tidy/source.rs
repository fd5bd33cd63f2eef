//! The repository's files, and Rust code without what is not code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A text file of the repository.
pub(crate) struct File {
    /// Relative to the repository, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments blanked and literals masked, line for line.
    pub(crate) code: String,
    /// The code without its test modules.
    pub(crate) shipped: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = code_of(text);
        let shipped = without_tests(&code);
        Self { path: path.into(), text: text.into(), code, shipped }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// What ships: not tests, benchmarks or fuzz targets.
    pub(crate) fn is_product(&self) -> bool {
        self.is_rust()
            && (self.path.starts_with("src/") || self.path.starts_with("plugins/"))
            && !self.path.contains("/tests/")
    }

    /// Names of the modules from the crate's root to this file; empty for the root itself.
    pub(crate) fn module(&self) -> Vec<&str> {
        let Some(inside) = self.path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")) else {
            return Vec::new();
        };
        inside.split('/').filter(|name| !["lib", "main", "mod"].contains(name)).collect()
    }
}

/// Every text file of the repository that is not built or fetched.
pub(crate) fn house() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".gitignore")).expect("the repository has a .gitignore");
    let skipped: BTreeSet<String> =
        ignored.lines().map(|line| line.trim_matches('/').to_owned()).chain([".git".into()]).collect();
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be listed") {
            let path = entry.expect("a folder of the repository can be listed").path();
            let name =
                path.strip_prefix(root).expect("it lies below the root").to_string_lossy().into_owned();
            if skipped.contains(&name) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push(File::new(&name, &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the walk over the repository found no code");
    files
}

/// `text` with comments blanked and the insides of literals masked, line for line.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, mask) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), ' ')
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), ' ')
        } else if let Some(length) = literal(rest, code.chars().next_back()) {
            (length, '"')
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().map(|c| if c.is_whitespace() { c } else { mask }));
        rest = &rest[length..];
    }
    code
}

/// The length of the string or character literal that `rest` starts with.
fn literal(rest: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_') && before != Some('b');
    if rest.starts_with('r') && !in_word {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        let inside = rest[1 + hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(inside.find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len()));
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => return Some(index + 1),
                _ => escaped = c == '\\' && !escaped,
            }
        }
        return Some(rest.len());
    }
    let quoted = rest.strip_prefix('\'')?;
    let first = quoted.chars().next()?;
    let after = if first == '\\' { quoted.char_indices().nth(2)?.0 } else { first.len_utf8() };
    let end = quoted[after..].find('\'')?;
    // What is not closed at once is a lifetime.
    (first == '\\' || end == 0).then_some(1 + after + end + 1)
}

/// `code` with every item under `#[cfg(test)]` blanked, line for line.
fn without_tests(code: &str) -> String {
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        shipped.push_str(&rest[..start]);
        let item = &rest[start..];
        let mut depth = 0_usize;
        let mut length = item.len();
        for (index, c) in item.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                length = index + 1;
                break;
            }
        }
        shipped.extend(item[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
        rest = &item[length..];
    }
    shipped.push_str(rest);
    shipped
}
