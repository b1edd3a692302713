//! The demo page and its JavaScript client: static files that are compiled into the binary and served in dev mode
//! ([`crate::session`]). `ringgate.js` with `ringgate.d.ts` is the client of dialect A for pages of one's own.
//!
//! It never serves anything that is not named in [`ASSETS`].

use crate::session::Asset;

/// The files, by the path they are served at.
pub static ASSETS: &[Asset] = &[
    asset("/", HTML, include_bytes!("index.html")),
    asset("/style.css", CSS, include_bytes!("style.css")),
    asset("/icon.svg", SVG, include_bytes!("icon.svg")),
    asset("/ringgate.js", SCRIPT, include_bytes!("ringgate.js")),
    asset("/ringgate.d.ts", TYPES, include_bytes!("ringgate.d.ts")),
    asset("/app.js", SCRIPT, include_bytes!("app.js")),
    asset("/app/chat.js", SCRIPT, include_bytes!("app/chat.js")),
    asset("/app/connection.js", SCRIPT, include_bytes!("app/connection.js")),
    asset("/app/dice.js", SCRIPT, include_bytes!("app/dice.js")),
    asset("/app/dom.js", SCRIPT, include_bytes!("app/dom.js")),
    asset("/app/lobby.js", SCRIPT, include_bytes!("app/lobby.js")),
    asset("/app/ring.js", SCRIPT, include_bytes!("app/ring.js")),
    asset("/app/signin.js", SCRIPT, include_bytes!("app/signin.js")),
    asset("/app/state.js", SCRIPT, include_bytes!("app/state.js")),
    asset("/app/table.js", SCRIPT, include_bytes!("app/table.js")),
];

const fn asset(path: &'static str, content_type: &'static str, body: &'static [u8]) -> Asset {
    Asset { path, content_type, body }
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// TypeScript has no media type of its own; a browser shows it.
const TYPES: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::limits;

    /// Every file of the page's folder is served, byte for byte, and an answer of the largest fits a connection's share.
    #[test]
    fn every_file_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page");
        let mut files = BTreeMap::new();
        for entry in ["", "app"].iter().flat_map(|name| std::fs::read_dir(folder.join(name)).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_file() && path.extension().is_some_and(|extension| extension != "rs") {
                let name = format!("/{}", path.strip_prefix(&folder).unwrap().display());
                let name = if name == "/index.html" { "/".to_owned() } else { name };
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        let served: BTreeMap<_, _> = ASSETS.iter().map(|asset| (asset.path.to_owned(), asset.body.to_vec())).collect();
        assert_eq!(served.len(), ASSETS.len(), "a path twice");
        assert!(served == files, "served {:?}, there are {:?}", served.keys(), files.keys());
        assert!(ASSETS.iter().all(|asset| asset.body.len() + 1024 < limits::ANSWER_BYTES / 2));
    }
}
