//! Dev mode's HTTP: the demo page's files, and tokens for its guests. One request a connection.
//!
//! It never reads a file: what it serves is in the binary. Outside dev mode nothing of it answers.

use super::Cx;
use super::connection::Connection;
use crate::auth::{self, Grant};
use crate::close::CloseReason;
use crate::protocol::envelope::put_string;
use crate::websocket::{self, Page, Refusal, Request};

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Where it is served, from the `/`.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

impl Connection {
    /// Answers a request without upgrade in dev mode; `false` if nothing of the page is at this path.
    pub(super) fn serve_page(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
        if !cx.settings.dev || request.upgrade.is_some() {
            return false;
        }
        if let Some(asset) = cx.settings.page.iter().find(|asset| asset.path == request.path) {
            // What a page was made of is asked for anew after each start: another build may have other files.
            let page = Page { content_type: asset.content_type, cache_control: "no-cache", body: asset.body };
            self.respond(cx, &websocket::page_response(&page, request.head_only()));
            return true;
        }
        if request.path != TOKEN_PATH || cx.settings.guests.is_none() {
            return false;
        }
        match guest_token(cx, request) {
            Ok(body) => {
                let page = Page { content_type: "application/json", cache_control: "no-store", body: &body };
                self.respond(cx, &websocket::page_response(&page, request.head_only()));
            }
            Err(refusal) => self.refuse(cx, &refusal.response()),
        }
        true
    }

    fn respond(&mut self, cx: &mut Cx<'_>, response: &[u8]) {
        self.answer(cx, |out| out.extend_from_slice(response));
        self.finish(cx, CloseReason::Normal);
    }
}

/// `{"token", "user_id"}` for `?name=`; the same name is the same user. Foreign pages get none: neither those that name
/// their origin, nor those whose domain was pointed here (DNS rebinding) and which therefore need not name it.
fn guest_token(cx: &Cx<'_>, request: &Request<'_>) -> Result<Vec<u8>, Refusal> {
    const NAME: Refusal = Refusal::Malformed("name: expected 1 to 32 characters, none of them a control character");
    let Some(signer) = &cx.settings.guests else { return Err(Refusal::NotFound) };
    let origins = &cx.settings.origins;
    if !auth::is_address(request.host) || !auth::allowed(request.origin, Some(request.host), origins) {
        return Err(Refusal::Forbidden);
    }
    let name = websocket::query_parameter(request.query, "name")?.ok_or(NAME)?;
    let name = name.trim();
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(NAME);
    }
    let sub = format!("guest-{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()));
    let token = signer.mint(&Grant { sub: &sub, username: Some(name), roles: &["user"], ..Grant::default() });
    let mut body = b"{\"token\":".to_vec();
    put_string(&mut body, &token);
    body.extend_from_slice(b",\"user_id\":");
    put_string(&mut body, &sub);
    body.push(b'}');
    Ok(body)
}

const TOKEN_PATH: &str = "/dev/token";
/// Characters of a guest's name: what the page's lists have room for.
const NAME_CHARS_MAX: usize = 32;
