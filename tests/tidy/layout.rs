//! The top level of the repository is fixed: what is not in the table has a better place, what is missing is missed.

use crate::Finding;

/// Entries that must be there.
const REQUIRED: &[&str] = &[
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "src",
    "tests",
    "tuning",
];
/// Entries that may be there.
const OPTIONAL: &[&str] = &[".git", "LICENSE"];

/// Checks the names at the top level against the table; what `.gitignore` names is not part of the repository.
pub fn check(names: &[String], gitignore: &str, findings: &mut Vec<Finding>) {
    for name in names {
        let known = REQUIRED.contains(&name.as_str()) || OPTIONAL.contains(&name.as_str());
        if !known && !gitignore.lines().any(|pattern| ignores(pattern, name)) {
            findings.push(Finding {
                path: name.clone(),
                line: 1,
                what: "it has no place at the top level".into(),
                remedy: "move it under src, benches, tests or tuning",
            });
        }
    }
    for required in REQUIRED {
        if !names.iter().any(|name| name == required) {
            findings.push(Finding {
                path: (*required).into(),
                line: 1,
                what: "it is missing from the top level".into(),
                remedy: "add it",
            });
        }
    }
}

/// Git's patterns as far as top-level names need them: an optional leading `/`, at most one `*` at either end.
fn ignores(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim().trim_start_matches('/').trim_end_matches('/');
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        _ if pattern.is_empty() => false,
        (Some(end), _) => name.ends_with(end),
        (_, Some(start)) => name.starts_with(start),
        _ => name == pattern,
    }
}

/// A stray entry and a missing one are found; what git ignores is not looked at.
#[test]
fn the_layout_bites() {
    let count = |change: fn(&mut Vec<String>)| {
        let mut names: Vec<String> = REQUIRED.iter().map(|name| (*name).to_owned()).collect();
        change(&mut names);
        let mut findings = Vec::new();
        check(&names, "/target\n*.profraw\nperf.data*\n", &mut findings);
        findings.len()
    };
    assert_eq!(count(|_| {}), 0);
    assert_eq!(count(|names| names.extend([".git", "target", "a.profraw", "perf.data.old"].map(String::from))), 0);
    assert_eq!(count(|names| names.push("docs".into())), 1);
    assert_eq!(count(|names| names.push("scripts".into())), 1);
    assert_eq!(count(|names| names.retain(|name| name != "README.md")), 1);
}
