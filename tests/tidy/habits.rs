//! Habits of the code: nothing unfinished, no unexplained panic, tests that say what they prove and wait for conditions
//! instead of time, modules that begin with their purpose.

use crate::Finding;
use crate::source::{Kind, Source};

/// Marks of unfinished work in comments; built so that this file does not hold them as words.
const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Checks one file.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let mut found = |line, what: &str, remedy| findings.push(Finding::new(source, line, what.into(), remedy));
    if !source.text.starts_with("//!") {
        found(1, "the file does not start with `//!`", "say its purpose, its invariants and what it never does");
    }
    for &(line, text) in &source.comments {
        if MARKS.iter().any(|mark| text.contains(mark)) {
            found(line, "a comment marks unfinished work", "finish it, or say what holds today");
        }
    }
    for (at, token) in source.tokens.iter().enumerate() {
        let called = source.follows(at, ".") || source.follows(at, "::");
        if token.is("unwrap") && called && !token.test {
            found(token.line, "`unwrap` outside tests", "return the error, or `expect` the invariant that excludes it");
        } else if ["todo", "unimplemented", "dbg"].iter().any(|name| token.is(name)) && source.reads(at + 1, &["!"]) {
            found(token.line, "a macro of unfinished work", "finish it");
        } else if token.test && sleeps(source, at) {
            found(token.line, "a test sleeps", "wait for the condition: block on it, or poll it with a deadline");
        } else if source.reads(at, &["#", "[", "ignore"]) {
            found(token.line, "an ignored test", "make it run, or put it behind a feature that CI turns on");
        } else if source.reads(at, &["#", "["]) && is_test(source, at) && !has_doc(source, at) {
            found(token.line, "a test without a doc comment", "say in its first line what it proves");
        }
    }
}

/// `thread::sleep`, `time::sleep`, or a call of an imported `sleep`; not a method and not a function of the file's own.
fn sleeps(source: &Source, at: usize) -> bool {
    if !source.tokens[at].is("sleep") {
        return false;
    }
    let before = at.checked_sub(2).map(|i| &source.tokens[i]);
    let path = source.follows(at, "::") && before.is_some_and(|token| token.is("thread") || token.is("time"));
    let bare = !["::", ".", "fn"].iter().any(|word| source.follows(at, word)) && source.reads(at + 1, &["("]);
    path || (bare && !(0..source.tokens.len()).any(|i| source.reads(i, &["fn", "sleep"])))
}

/// Whether the attribute at `at` makes a test: `#[test]`, `#[x::test]`, with or without arguments.
fn is_test(source: &Source, at: usize) -> bool {
    let mut path = source.tokens[at + 2..].iter().take_while(|token| token.kind == Kind::Word || token.is("::"));
    path.by_ref().last().is_some_and(|token| token.is("test"))
}

/// Whether documentation stands among the attributes around the one at `at`; in a macro, `$(#[$doc])*` hands it on.
fn has_doc(source: &Source, at: usize) -> bool {
    let tokens = &source.tokens;
    let (mut first, mut behind) = (at, source.behind_bracket(at + 1));
    while let Some(before) = first.checked_sub(1) {
        if before > 0 && tokens[before].is("*") && tokens[before - 1].is(")") {
            return (0..before).rev().take(10).any(|i| source.reads(i, &["#", "[", "$"]));
        } else if tokens[before].is("]") {
            let open = (0..before).rev().find(|&i| tokens[i].is("[") && source.behind_bracket(i) == first);
            let Some(hash) = open.and_then(|open| open.checked_sub(1)).filter(|&i| tokens[i].is("#")) else { break };
            first = hash;
        } else if tokens[before].kind == Kind::Doc {
            first = before;
        } else {
            break;
        }
    }
    while let Some(token) = tokens.get(behind) {
        match token.kind {
            Kind::Doc => behind += 1,
            _ if source.reads(behind, &["#", "["]) => behind = source.behind_bracket(behind + 1),
            _ => break,
        }
    }
    tokens[first..behind].iter().any(|token| {
        let words = token.text.strip_prefix("///").or(token.text.strip_prefix("/**"));
        token.kind == Kind::Doc && words.is_some_and(|words| words.contains(char::is_alphanumeric))
    })
}

#[cfg(test)]
fn count(path: &str, text: &str) -> usize {
    let mut findings = Vec::new();
    check(&Source::parse(path, &format!("//! Purpose.\n{text}")), &mut findings);
    findings.len()
}

/// Each bad habit is found where it counts.
#[test]
fn the_habits_bite() {
    for text in [
        "fn f() { a.unwrap(); }",
        "fn f() { a.map(Option::unwrap) }",
        "fn f() { todo!() }",
        "fn f() { unimplemented!() }",
        "#[cfg(test)] mod t { fn f() { dbg!(a); } }",
        "#[cfg(test)] mod t { fn f() { std::thread::sleep(a); } }",
        "/// Proves.\n#[test]\n#[ignore = \"slow\"]\nfn f() {}",
        "#[test]\nfn f() {}",
        "///\n#[test]\nfn f() {}",
        "/// Of another.\nfn g() {}\n#[test]\nfn f() {}",
        "proptest! { #[test] fn f(a in 0..1) {} }",
        "macro_rules! m { ($($name:ident)*) => { $($other)* #[test] fn $name() {} } }",
    ] {
        assert_eq!(count("src/id.rs", text), 1, "{text}");
    }
    for call in ["thread::sleep(a)", "sleep(a)", "tokio::time::sleep(a)", "use std::thread::sleep"] {
        assert_eq!(count("tests/x.rs", &format!("fn f() {{ {call}; }}")), 1, "{call}");
    }
    for mark in MARKS {
        assert_eq!(count("src/id.rs", &format!("// {mark}: later")), 1);
    }
    let mut findings = Vec::new();
    check(&Source::parse("src/id.rs", "use a;\n//! Late.\n"), &mut findings);
    assert_eq!(findings.len(), 1);
}

/// What tests may do, and words in text, pass.
#[test]
fn the_habits_let_good_code_pass() {
    for text in [
        "#[cfg(test)] mod t { fn f() { a.unwrap(); } }",
        "fn f() { a.unwrap_or(b); a.expect(\"held\"); }",
        "const A: &str = \"todo!() .unwrap()\"; // dbg!()",
        "/// Proves.\n#[test]\nfn f() { ring.sleep(a) }",
        "#[test]\n/// Proves.\nfn f() {}",
        "macro_rules! m { ($(#[$doc:meta])* $name:ident) => { $(#[$doc])* #[test] fn $name() {} } }",
        "#[cfg(test)] mod t { fn f() { sleep(bell); } fn sleep(bell: u8) {} }",
        "/// Proves.\n#[cfg(all(unix, a = \"b\"))]\n#[test]\n#[should_panic(expected = \"c, d\")]\nfn f() {}",
        "/// Proves.\n#[cfg(unix)]\n#[test]\nfn f() {}",
        "#[test_log] fn sleep(a: u8) {}",
        "fn f() { std::thread::sleep(a) }",
    ] {
        assert_eq!(count("src/id.rs", text), 0, "{text}");
    }
}
