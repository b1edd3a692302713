//! The unsafe fence: `unsafe` stands only in named files, and each block or implementation there states the fact that
//! makes it sound. Tests and benchmarks are outside the product and need the fact only.

use crate::Finding;
use crate::source::Source;

/// Files of `src/` that may say `unsafe`; `ring_model` stands in for rtrb's ring under the model checker only.
const FILES: &[&str] = &[
    "src/frame.rs",
    "src/router/mailbox.rs",
    "src/router/ring_model.rs",
    "src/shard/driver/uring.rs",
    "src/shard/driver/syscall.rs",
];
/// A folder whose files may.
const FOLDER: &str = "src/shard/driver/uring/";
/// How far above the word its `// SAFETY:` may stand, in lines.
const REACH: usize = 6;

/// Checks one file.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let fenced = source.path.starts_with("src/");
    let allowed = FILES.contains(&source.path) || source.path.starts_with(FOLDER);
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.is("unsafe")) {
        if fenced && !allowed {
            findings.push(Finding::new(
                source,
                token.line,
                "`unsafe` outside the fence".into(),
                "put the call behind a safe function of src/shard/driver/syscall.rs",
            ));
            continue;
        }
        let acts = ["{", "impl", "extern"].iter().any(|next| source.reads(at + 1, &[next]));
        let stated = source.comments.iter().any(|(line, text)| {
            text.contains("SAFETY:") && (token.line.saturating_sub(REACH)..=token.line).contains(line)
        });
        if acts && !stated {
            findings.push(Finding::new(
                source,
                token.line,
                "`unsafe` without its fact".into(),
                "say in a `// SAFETY:` comment right above what makes it sound",
            ));
        }
    }
}

/// `unsafe` outside the named files, or inside without a fact close by, is found; the word in text is not.
#[test]
fn the_fence_bites() {
    let count = |path: &str, text: &str| {
        let mut findings = Vec::new();
        check(&Source::parse(path, text), &mut findings);
        findings.len()
    };
    assert_eq!(count("src/id.rs", "// SAFETY: no\nfn f() { unsafe { g() } }"), 1);
    assert_eq!(count("src/shard/driver/monoio.rs", "unsafe fn f() {}"), 1);
    assert_eq!(count("src/id.rs", "#![forbid(unsafe_code)] // unsafe\nconst A: &str = \"unsafe {\";"), 0);
    for path in ["src/frame.rs", "src/shard/driver/uring/ring.rs", "tests/real.rs", "benches/limit/main.rs"] {
        assert_eq!(count(path, "// SAFETY: the buffer outlives it\nlet a = unsafe { g() };"), 0, "{path}");
        assert_eq!(count(path, "let a = unsafe { g() };"), 1, "{path}");
        assert_eq!(count(path, "// SAFETY: far\n\n\n\n\n\n\nunsafe impl Send for A {}"), 1, "{path}");
        assert_eq!(count(path, "unsafe fn f();"), 0, "{path}");
    }
}
