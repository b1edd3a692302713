//! The JavaScript of `src/page`: `tests/page` passes on Node, which `tests/services/page.sh` equips.

use std::process::Command;

/// The client keeps its promises against scripted gateways, the page makes the right state of what it receives.
#[test]
fn the_pages_tests_pass() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/page.sh");
    let output = Command::new(script).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
