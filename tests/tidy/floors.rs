//! Floors: who stands on which, and who imports whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::File;

pub(crate) fn imports_point_down(house: &[File]) -> Vec<String> {
    let floors = Floors::read(house);
    let mut findings = floors.unplaced.clone();
    let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in house {
        let Some(&room) = file.module().first() else { continue };
        let Some(&floor) = floors.of.get(room) else {
            findings.push(unplaced(&file.path, 1, room));
            continue;
        };
        for (line, target) in imports(file) {
            let place = format!("{}:{line}", file.path);
            match floors.of.get(target.as_str()) {
                None => findings.push(format!(
                    "{place}: imports `{target}` from the crate's root, floor 5: name its own module"
                )),
                Some(&above) if above > floor => findings
                    .push(format!("{place}: imports floor {above} (`{target}`) from floor {floor} (`{room}`)")),
                Some(&same) if same == floor && target != room && floors.siblings.contains(&floor) => findings
                    .push(format!(
                        "{place}: imports its sibling `{target}`: floor {floor} says that they do not know each other"
                    )),
                Some(_) => {}
            }
            if target != room {
                edges.entry(room).or_default().insert(target);
            }
        }
    }
    for &room in edges.keys() {
        if reachable(&edges, room).contains(room) {
            findings.push(format!("src/lib.rs:1: `{room}` imports itself in a circle"));
        }
    }
    findings
}

/// The floors as `src/lib.rs` has them: a `// Floor N` comment places the modules below it, and the
/// word "siblings" in it forbids them to import each other.
#[derive(Default)]
pub(crate) struct Floors {
    /// The floor of each module.
    pub(crate) of: BTreeMap<String, u32>,
    siblings: BTreeSet<u32>,
    unplaced: Vec<String>,
}

impl Floors {
    pub(crate) fn read(house: &[File]) -> Self {
        let mut floors = Self::default();
        let roots = house.iter().filter(|file| ["src/lib.rs", "src/main.rs"].contains(&file.path.as_str()));
        for root in roots {
            // What `main.rs` declares stands on top: nothing in the library can see it.
            let mut floor = (root.path == "src/main.rs").then_some(5);
            for (index, line) in root.text.lines().enumerate() {
                if let Some(comment) = line.strip_prefix("// Floor ") {
                    floor = comment.chars().next().and_then(|digit| digit.to_digit(10));
                    if comment.contains("siblings") {
                        floors.siblings.extend(floor);
                    }
                }
                let Some(module) = declared_module(line) else { continue };
                match floor {
                    Some(floor) => drop(floors.of.insert(module.into(), floor)),
                    None => floors.unplaced.push(unplaced(&root.path, index + 1, module)),
                }
            }
        }
        floors
    }
}

fn unplaced(path: &str, line: usize, module: &str) -> String {
    format!("{path}:{line}: `{module}` stands on no floor: put it under a `// Floor N` comment")
}

/// The `name` of a line such as `pub(crate) mod name;`.
fn declared_module(line: &str) -> Option<&str> {
    let declaration = line.strip_suffix(';')?;
    let (before, name) = declaration.rsplit_once(' ')?;
    (before == "mod" || (before.starts_with("pub") && before.ends_with(" mod"))).then_some(name)
}

/// Every module of ours that a file names by a path from the crate's root, with its line.
fn imports(file: &File) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(file.module().len());
    let mut found = Vec::new();
    for root in ["crate::", "innkeeper::", &to_root] {
        for (start, _) in file.shipped.match_indices(root) {
            let before = file.shipped[..start].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:$".contains(before) {
                continue;
            }
            let line = file.shipped[..start].matches('\n').count() + 1;
            let path = &file.shipped[start + root.len()..];
            found.extend(first_segments(path).into_iter().map(|segment| (line, segment)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        // `super::super::x` is the root's business only at the right depth.
        return Some(word(path))
            .filter(|segment| !segment.is_empty() && segment != "super")
            .into_iter()
            .collect();
    };
    let mut segments = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                segments.push(word(&group[start..index]));
                start = index + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn reachable(edges: &BTreeMap<&str, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(room) = next.pop() {
        for target in edges.get(room.as_str()).into_iter().flatten() {
            if seen.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    seen
}
