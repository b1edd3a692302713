//! Token keys that others publish: a JWK Set in a file or behind a URL, read at the start and again and again, so that a
//! provider may rotate its keys without a word to us.
//!
//! Laws: a set that cannot be read or used changes nothing; the keys of the last good one stay. A key that a provider has
//! withdrawn is believed until the next reading. Whoever wishes for a reading ([`crate::ports::KeyWish`]) gets one soon, but strangers'
//! tokens never cause more than one within `limits::KEY_WISH_REST`. Never prints a token or a key.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::auth::KeySet;

#[cfg(feature = "jwks-url")]
mod url;
mod watch;

pub use watch::Watch;

/// Where a set is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    place: Place,
    /// PEM file of the authority that vouches for the server; the system's if there is none.
    ca_path: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    File(PathBuf),
    Url(String),
}

impl Source {
    /// A URL if it begins like one, else a path; `None` for a URL that cannot be one: without host, with white space, or
    /// with a user in it, since keys are no secret and one in a URL is shown.
    #[must_use]
    pub fn of(text: &str, ca_path: Option<&str>) -> Option<Self> {
        let (is_url, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http") => {
                (true, rest)
            }
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => return None,
            _ => (false, text),
        };
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_host = !host.is_empty() && !host.starts_with(':') && !host.contains('@');
        let is_clean = rest.bytes().all(|byte| byte.is_ascii_graphic());
        let place = match is_url {
            true if is_host && is_clean => Place::Url(text.to_owned()),
            false if !text.is_empty() => Place::File(text.into()),
            _ => return None,
        };
        Some(Self { place, ca_path: ca_path.map(str::to_owned) })
    }

    /// Whether reading it needs the network.
    #[must_use]
    pub fn is_url(&self) -> bool {
        matches!(self.place, Place::Url(_))
    }

    /// Whether whoever is on the way to it may put in keys of its own.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        let Place::Url(url) = &self.place else { return false };
        let Some((scheme, rest)) = url.split_once("://") else { return false };
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = place.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(place, |(host, _)| host);
        let is_here = host.eq_ignore_ascii_case("localhost")
            || host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback());
        scheme.eq_ignore_ascii_case("http") && !is_here
    }

    /// Reads the set; takes `limits::KEY_SET_TIMEOUT` at most.
    ///
    /// # Errors
    /// One line: the place, what is wrong there, the remedy.
    pub fn read(&self) -> Result<KeySet, String> {
        let bytes = match &self.place {
            Place::File(path) => std::fs::read(path).map_err(|error| {
                format!("{self}: {error}; give the path of a readable file with a JWK Set, or its URL")
            }),
            #[cfg(feature = "jwks-url")]
            Place::Url(url) => url::get(url, self.ca_path.as_deref(), crate::limits::KEY_SET_TIMEOUT)
                .map_err(|error| format!("{self}: {error}")),
            #[cfg(not(feature = "jwks-url"))]
            Place::Url(_) => Err(format!(
                "{self}: this ringgate was built without a client for it; build it with --features jwks-url, or fetch \
                 the set into a file and give its path"
            )),
        }?;
        KeySet::parse(&bytes).map_err(|error| format!("{self}: {error}"))
    }
}

/// Logs what a set has, behind these words, and which of its keys are left out.
pub fn tell(words: &str, set: &KeySet) {
    tracing::info!("{words}: {}", set.words());
    for skipped in set.skipped() {
        tracing::warn!("auth.jwt_jwks: {skipped}; it is not used");
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Url(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests;
