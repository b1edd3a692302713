//! Sizes that a reader can hold: files and functions have caps, tests included.

use crate::Finding;
use crate::source::{Kind, Source};

/// Lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Checks one file.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("the file has {lines} lines, the cap is {FILE_LINES_MAX}");
        findings.push(Finding::new(source, lines, what, "split it along its types"));
    }
    for at in 0..source.tokens.len() {
        let Some((name, end)) = function(source, at) else { continue };
        let lines = source.tokens[end - 1].line + 1 - source.tokens[at].line;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("`fn {name}` has {lines} lines, the cap is {FUNCTION_LINES_MAX}");
            findings.push(Finding::new(source, source.tokens[at].line, what, "give its parts names of their own"));
        }
    }
}

/// The name and the end of the function whose `fn` stands at `at`; `None` for function types and bodiless signatures.
fn function<'a>(source: &Source<'a>, at: usize) -> Option<(&'a str, usize)> {
    let name = source.tokens.get(at + 1)?;
    if !source.tokens[at].is("fn") || name.kind != Kind::Word {
        return None;
    }
    let mut i = at + 2;
    loop {
        let token = source.tokens.get(i)?;
        if token.is("{") {
            return Some((name.text, source.behind_bracket(i)));
        } else if token.is(";") {
            return None;
        }
        i = if token.is("(") || token.is("[") { source.behind_bracket(i) } else { i + 1 };
    }
}

/// One line over a cap is found, the cap itself is not; braces in literals do not end a function.
#[test]
fn the_caps_bite() {
    let count = |text: String| {
        let mut findings = Vec::new();
        check(&Source::parse("src/id.rs", &text), &mut findings);
        findings.len()
    };
    assert_eq!(count("\n".repeat(FILE_LINES_MAX)), 0);
    assert_eq!(count("\n".repeat(FILE_LINES_MAX + 1)), 1);
    let function = |newlines| {
        format!("impl A {{ fn f(a: [u8; 2]) -> X where A: B {{ '}}'; \"}}\" {} }} }}", "\n".repeat(newlines))
    };
    assert_eq!(count(function(FUNCTION_LINES_MAX - 1)), 0);
    assert_eq!(count(function(FUNCTION_LINES_MAX)), 1);
    assert_eq!(count(format!("type F = fn(u8); trait T {{ fn f(); {} }}", "\n".repeat(100))), 0);
}
