//! A set behind a URL, by HTTP/1.1, over TLS with rustls.
//!
//! Bounded in time, length and redirects; an https URL never leads to an http one. Connections are not kept: between two
//! readings lie minutes. `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` count, as for other programs.

use std::sync::Arc;
use std::time::Duration;

use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::limits;

/// Reads what is there.
///
/// # Errors
/// What is wrong, with a remedy where there is one.
pub fn get(url: &str, ca_path: Option<&str>, timeout: Duration) -> Result<Vec<u8>, String> {
    let is_tls = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    let mut config = Config::builder()
        .timeout_global(Some(timeout))
        .max_redirects(REDIRECTS)
        .https_only(is_tls)
        .max_idle_connections(0)
        .accept("application/jwk-set+json, application/json")
        .user_agent(concat!("ringgate/", env!("CARGO_PKG_VERSION")));
    if is_tls {
        config = config.tls_config(tls(ca_path)?);
    }
    let agent = config.build().new_agent();
    let explain = |error: ureq::Error| format!("{}; {}", words(&error), remedy(&error, timeout));
    let mut response = agent.get(url).call().map_err(explain)?;
    // One byte more shows the parser that it is too long.
    let most = limits::KEY_SET_BYTES_MAX as u64 + 1;
    let mut body = Vec::new();
    let mut reader = std::io::Read::take(response.body_mut().as_reader(), most);
    std::io::Read::read_to_end(&mut reader, &mut body).map_err(|error| explain(error.into()))?;
    Ok(body)
}

/// Who vouches for the server: the system's authorities, or those of one file.
fn tls(ca_path: Option<&str>) -> Result<TlsConfig, String> {
    let certificates: Vec<Certificate<'static>> = match ca_path {
        Some(path) => {
            let refused = |error| format!("auth.jwt_jwks_ca_path = {path:?}: {error}; give a readable PEM file");
            let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
            let mut found = Vec::new();
            for item in parse_pem(&pem) {
                match item {
                    Ok(PemItem::Certificate(certificate)) => found.push(certificate),
                    Ok(_) => {}
                    Err(error) => return Err(refused(error.to_string())),
                }
            }
            if found.is_empty() {
                return Err(refused("it has no certificate".to_owned()));
            }
            found
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            if found.is_empty() {
                return Err("this system has no certificate authorities; install its package ca-certificates, or set \
                            auth.jwt_jwks_ca_path"
                    .to_owned());
            }
            found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&certificates))
        .build())
}

fn words(error: &ureq::Error) -> String {
    match error {
        _ if let Some(error) = of_tls(error) => error.to_string(),
        ureq::Error::StatusCode(status) => format!("it answers {status}"),
        ureq::Error::Timeout(_) => "it takes too long to answer".to_owned(),
        error => error.to_string(),
    }
}

/// What TLS has against the server; it comes as an error of reading or writing, too.
fn of_tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|error| error.downcast_ref()),
        _ => None,
    }
}

fn remedy(error: &ureq::Error, timeout: Duration) -> String {
    use ureq::Error as E;
    match error {
        _ if of_tls(error).is_some() => CA_REMEDY.to_owned(),
        E::StatusCode(_) | E::BadUri(_) | E::TooManyRedirects => {
            "set JWT_JWKS to the provider's jwks_uri, which its /.well-known/openid-configuration names".to_owned()
        }
        E::RequireHttpsOnly(_) => "an https URL must not lead to one without TLS: set JWT_JWKS to where it leads, by \
                                   https"
            .to_owned(),
        E::Timeout(_) => format!("it has {} s; can this machine reach it?", timeout.as_secs()),
        E::HostNotFound => "is the host's name right, and can this machine look it up?".to_owned(),
        E::Tls(_) | E::Pem(_) => CA_REMEDY.to_owned(),
        _ => "is it running there, and can this machine reach it?".to_owned(),
    }
}

const CA_REMEDY: &str = "if an authority of your own has signed its certificate, give that by auth.jwt_jwks_ca_path";
/// A provider may have moved its set; more is a loop.
const REDIRECTS: u32 = 3;
