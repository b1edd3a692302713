//! The lint of the tree that is a test: layers, the unsafe fence, size caps, habits, the top level. Each rule lives in
//! a file of its own with a table at its top and tests that feed it broken code, so that a rule that no longer bites
//! fails too. It reads files and changes none.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

#[path = "tidy/caps.rs"]
mod caps;
#[path = "tidy/fence.rs"]
mod fence;
#[path = "tidy/habits.rs"]
mod habits;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/layout.rs"]
mod layout;
#[path = "tidy/source.rs"]
mod source;

/// A breach of a rule and the way out.
#[derive(Debug)]
pub struct Finding {
    path: String,
    /// From 1.
    line: usize,
    what: String,
    remedy: &'static str,
}

impl Finding {
    fn new(source: &Source, line: usize, what: String, remedy: &'static str) -> Self {
        Self { path: source.path.into(), line, what, remedy }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.what, self.remedy)
    }
}

/// Modules import downwards only, as the table of layers says.
#[test]
fn imports_point_down() {
    check_tree(imports::check);
}

/// `unsafe` stays in the named files, each use with its fact.
#[test]
fn unsafe_code_stays_behind_its_fence() {
    check_tree(fence::check);
}

/// No file and no function is over its cap.
#[test]
fn files_and_functions_are_within_their_caps() {
    check_tree(caps::check);
}

/// Nothing is unfinished, nothing unwraps, every test says what it proves, every file what it is for.
#[test]
fn the_habits_are_kept() {
    check_tree(habits::check);
}

/// The top level of the repository holds what it should and nothing else.
#[test]
fn the_top_level_is_as_designed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: Vec<String> = fs::read_dir(root)
        .expect("the repository is readable")
        .map(|entry| entry.expect("the repository is readable").file_name().to_string_lossy().into_owned())
        .collect();
    let gitignore = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let mut findings = Vec::new();
    layout::check(&names, &gitignore, &mut findings);
    report(&findings);
}

/// Runs a rule over every Rust file of `src`, `tests` and `benches`.
fn check_tree(rule: fn(&Source, &mut Vec<Finding>)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches"] {
        walk(&root.join(folder), &mut paths);
    }
    assert!(paths.len() > 10, "only {} files found under {}", paths.len(), root.display());
    let files: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(root).expect("walked from the root").to_string_lossy().into_owned();
            (relative, fs::read_to_string(path).expect("sources are UTF-8"))
        })
        .collect();
    let mut sources: Vec<Source> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
    let test_modules: Vec<PathBuf> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    let mut findings = Vec::new();
    for source in &mut sources {
        let module = Path::new(source.path).with_extension("");
        if test_modules.iter().any(|tests| module.starts_with(tests)) {
            source.mark_all();
        }
        rule(source, &mut findings);
    }
    report(&findings);
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the tree is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
}

fn report(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n{}\n", findings.len(), lines.join("\n"));
}
