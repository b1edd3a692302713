//! Imports point down only: the layers of the crate as a table, and every `crate::…` path held against it.
//! Code that only tests compile may look anywhere.

use crate::Finding;
use crate::source::{Kind, Source};

/// Vocabulary: plain data; `mutant` is the switchboard of the broken policies.
const L0: &[&str] =
    &["class", "close", "frame", "id", "limits", "message", "mutant", "packed", "ports", "stats", "time"];
/// Core: deterministic, sans-IO; no part knows a sibling.
const L1: &[&str] = &["websocket", "protocol", "delivery", "streams", "auth", "services", "world", "log"];
/// Peers on their own threads, the core parts each serves; no peer knows a shard or another peer.
const L3: &[(&str, &[&str])] = &[
    ("bus", &["protocol", "log"]),
    ("presence", &[]),
    ("store", &[]),
    ("keys", &["auth"]),
    ("workers", &["protocol", "services", "world"]),
    ("admin", &["protocol"]),
];
/// Assembly: may use everything.
const L4: &[&str] = &["config", "server", "cli", "page", "main", "lib"];

/// Checks one file of `src/`.
pub fn check(source: &Source, findings: &mut Vec<Finding>) {
    let Some(modules) = module_path(source.path) else { return };
    let own = modules.first().map_or("lib", String::as_str);
    if !is_known(own) {
        let what = format!("module `{own}` has no layer");
        findings.push(Finding::new(source, 1, what, "add it to the table in tests/tidy/imports.rs"));
        return;
    }
    for (line, target) in root_paths(source, modules.len()) {
        if target == own || may_import(own, target) {
            continue;
        }
        let (what, remedy) = if is_known(target) {
            (format!("`{own}` imports `{target}`"), "imports point down only; move what two modules share to L0")
        } else {
            (
                format!("`crate::{target}` has no layer"),
                "name the module it lives in, or add it to tests/tidy/imports.rs",
            )
        };
        findings.push(Finding::new(source, line, what, remedy));
    }
}

/// The law of the layers.
fn may_import(own: &str, target: &str) -> bool {
    let (down, core) = (L0.contains(&target), L1.contains(&target));
    match own {
        "session" => down || core,
        "router" => down,
        "shard" => down || core || matches!(target, "session" | "router"),
        _ if L4.contains(&own) => is_known(target),
        _ => match L3.iter().find(|(peer, _)| *peer == own) {
            Some((_, serves)) => down || target == "router" || serves.contains(&target),
            None => down,
        },
    }
}

fn is_known(module: &str) -> bool {
    matches!(module, "session" | "router" | "shard")
        || [L0, L1, L4].concat().contains(&module)
        || L3.iter().any(|(peer, _)| *peer == module)
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `[a, b]`, `src/lib.rs` is empty; `None` outside `src/`.
fn module_path(path: &str) -> Option<Vec<String>> {
    let mut modules: Vec<_> = path.strip_prefix("src/")?.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if modules == ["main"] {
        return Some(modules);
    }
    if modules.last().is_some_and(|last| last == "mod" || last == "lib") {
        modules.pop();
    }
    Some(modules)
}

/// Every first segment behind the crate's root, spelled `crate::` or with as many `super::` as the module is deep.
fn root_paths<'a>(source: &Source<'a>, file_depth: usize) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let mut inline_ends: Vec<usize> = Vec::new();
    for at in 0..source.tokens.len() {
        inline_ends.retain(|&end| at < end);
        if source.tokens[at].test {
            continue;
        }
        if source.tokens[at].is("mod") && source.reads(at + 2, &["{"]) {
            inline_ends.push(source.behind_bracket(at + 2));
        } else if source.reads(at, &["crate", "::"]) {
            heads(source, at + 2, &mut found);
        } else if source.reads(at, &["super", "::"]) && !source.follows(at, "::") {
            let supers = (0..).take_while(|n| source.reads(at + 2 * n, &["super", "::"])).count();
            if supers >= file_depth + inline_ends.len() {
                heads(source, at + 2 * supers, &mut found);
            }
        }
    }
    found
}

/// The first segments of the path or group at `at`: `a::b` gives `a`; `{a::b, c as d}` gives `a` and `c`.
fn heads<'a>(source: &Source<'a>, at: usize, found: &mut Vec<(usize, &'a str)>) {
    let Some(token) = source.tokens.get(at) else { return };
    if token.kind == Kind::Word || token.is("*") {
        found.push((token.line, token.text));
    } else if token.is("{") {
        let end = source.behind_bracket(at) - 1;
        let mut i = at + 1;
        while i < end {
            heads(source, i, found);
            while i < end && !source.tokens[i].is(",") {
                i = if source.tokens[i].is("{") { source.behind_bracket(i) } else { i + 1 };
            }
            i += 1;
        }
    }
}

#[cfg(test)]
fn targets(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    check(&Source::parse(path, text), &mut findings);
    findings.into_iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
}

/// Every layer's breach is found: up, sideways, to another peer, however the path is spelled.
#[test]
fn the_table_bites() {
    let up = |path, text| assert_eq!(targets(path, text).len(), 1, "{path}: {text}");
    up("src/id.rs", "use crate::websocket::Decoder;");
    up("src/time/wheel.rs", "fn f() { crate::router::ring() }");
    up("src/delivery/mod.rs", "use crate::streams::Cursor;");
    up("src/delivery/queue.rs", "use crate::session;");
    up("src/session/mod.rs", "use crate::router::Mesh;");
    up("src/router/mesh.rs", "use crate::delivery::Queue;");
    up("src/shard/run.rs", "use crate::bus::Embedded;");
    up("src/presence/mod.rs", "use crate::bus::Embedded;");
    up("src/presence/mod.rs", "use crate::auth::Token;");
    up("src/bus/kafka.rs", "use crate::shard::Shard;");
    up("src/workers/mod.rs", "use crate::auth::Verifier;");
    up("src/services/chat.rs", "use crate::{id, services::{rooms, dice}, limits as l, streams::{a, b}};");
    up("src/streams/mod.rs", "use super::delivery::Policy;");
    up("src/streams/home.rs", "use super::super::{delivery, id};");
    up("src/streams/home.rs", "mod inner { use super::super::super::delivery; }");
    up("src/streams/home.rs", "use crate::*;");
    up("src/streams/home.rs", "macro_rules! m { () => { $crate::session::f() } }");
    up("src/gossip/mod.rs", "");
    up("src/config/mod.rs", "use crate::gossip::Peer;");
    assert_eq!(targets("src/session/mod.rs", "\nuse crate::{\n  id,\n  shard,\n};"), ["4: `session` imports `shard`"]);
}

/// What the layers allow passes: down, the own module, tests, documentation.
#[test]
fn the_table_lets_downward_imports_pass() {
    let fine = |path, text| assert_eq!(targets(path, text), [""; 0], "{path}: {text}");
    fine("src/stats.rs", "use crate::class::Class;");
    fine("src/delivery/queue.rs", "use crate::{frame::{Run, Shared}, limits, delivery::policy};");
    fine("src/delivery/queue.rs", "use super::policy::Policy; mod inner { use super::super::policy; }");
    fine("src/session/mod.rs", "use crate::{websocket, protocol, auth, delivery, id};");
    fine("src/shard/run.rs", "use crate::{session, router, streams, stats};");
    fine("src/bus/embedded.rs", "use crate::{log, protocol, router, ports};");
    fine("src/workers/mod.rs", "use crate::{services, world, router, ports};");
    fine("src/cli/serve.rs", "use crate::{shard, bus, server, config};");
    fine("src/main.rs", "use ringgate::cli;");
    fine("src/delivery/mod.rs", "#[cfg(test)] mod tests { use crate::streams::Cursor; }");
    fine(
        "src/delivery/mod.rs",
        "//! See [`crate::streams`].\n// crate::streams\nfn f(crate_: &str) { \"crate::streams\"; }",
    );
    fine("src/delivery/mod.rs", "pub(crate) struct S; pub(in crate::delivery) struct T;");
}
