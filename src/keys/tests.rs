//! Tests of reading sets: files, URLs that answer anything, TLS, and when a watch reads.

use super::*;
use crate::auth::{Verifier, published};
use crate::time::WallMillis;

#[cfg(feature = "jwks-url")]
#[path = "../../tests/keys/provider.rs"]
mod provider;

/// Paths are paths and URLs URLs; what looks like a URL and is none is refused, and which ones anybody may change is known.
#[test]
fn sources_are_paths_or_urls() {
    let kind = |text: &str| Source::of(text, None).map(|source| (source.is_url(), source.is_open_to_all()));
    for (text, expected) in [
        ("/etc/keys.json", Some((false, false))),
        ("keys with spaces.json", Some((false, false))),
        ("https://login.example.com/keys", Some((true, false))),
        ("HTTPS://[::1]:8443", Some((true, false))),
        ("http://login/keys?a=b", Some((true, true))),
        ("http://127.0.0.1:1/keys", Some((true, false))),
        ("http://LocalHost/keys", Some((true, false))),
        ("http://[::1]/keys", Some((true, false))),
        ("http://localhost.example.com/keys", Some((true, true))),
        ("http://127.0.0.1.example.com:80/keys", Some((true, true))),
        ("http://[::2]:1?keys", Some((true, true))),
        ("", None),
        ("https://", None),
        ("https:///keys", None),
        ("https://:443/keys", None),
        ("https://ada:secret@login/keys", None),
        ("https://login/a b", None),
        ("ftp://login/keys", None),
        ("file:///etc/keys.json", None),
    ] {
        assert_eq!(kind(text), expected, "{text:?}");
    }
}

/// A file that is missing or no set says which, and what to do.
#[test]
fn files_are_read_or_explained() {
    let folder = std::env::temp_dir().join(format!("ringgate-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let read = |name: &str| Source::of(folder.join(name).to_str().unwrap(), None).unwrap().read();
    std::fs::write(folder.join("good"), published::set(&[published::jwk("es256", "a")])).unwrap();
    std::fs::write(folder.join("bad"), "{}").unwrap();
    let verifier = Verifier::from_set(read("good").unwrap());
    assert_eq!(&*verifier.verify(&published::token("es256", Some("a")), WallMillis(1)).unwrap().user, "ada");
    for (name, told) in [("none", "give the path of a readable file"), ("bad", "it is no JWK Set")] {
        let error = read(name).unwrap_err();
        assert!(error.contains(told) && error.contains(name), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[cfg(feature = "jwks-url")]
mod urls {
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::super::*;
    use super::published;
    use crate::limits;
    use crate::ports::KeyWish;
    use crate::stats::KeyStats;

    use super::provider::{Answer, Both, Provider};

    const SOON: Duration = Duration::from_secs(20);

    fn good(kid: &str) -> Answer {
        Answer::Body(published::set(&[published::jwk("eddsa", kid)]))
    }

    fn read(url: &str) -> Result<String, String> {
        Source::of(url, None).unwrap().read().map(|set| set.words())
    }

    /// A set is read over redirects; whatever else a provider answers is told in words with the URL, and neither its
    /// length nor its silence holds the reader up for ever.
    #[test]
    fn urls_are_read_or_explained() {
        let other = Provider::start(good("there"));
        let provider = Provider::start(good("here"));
        assert_eq!(read(&provider.url()).unwrap(), "EdDSA \"here\"");
        provider.answers(Answer::Elsewhere(other.url()));
        assert_eq!(read(&provider.url()).unwrap(), "EdDSA \"there\"");
        let rows = [
            (Answer::Status(404), "it answers 404; set JWT_JWKS to the provider's jwks_uri"),
            (Answer::Status(503), "it answers 503"),
            (Answer::Elsewhere(provider.url()), "redirects"),
            (Answer::Body("<html>".to_owned()), "it is no JWK Set"),
            (Answer::Endless, "it is longer than"),
        ];
        for (answer, told) in rows {
            provider.answers(answer);
            let error = read(&provider.url()).unwrap_err();
            assert!(error.contains(told) && error.starts_with(&provider.url()), "{error}");
        }
        provider.answers(Answer::Silence);
        let error = url::get(&provider.url(), None, Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("takes too long"), "{error}");
        let url = provider.url();
        drop(provider);
        assert!(read(&url).unwrap_err().contains("is it running there"), "{:?}", read(&url));
    }

    /// By TLS a server is believed that the given authority vouches for, not one that only the system's know nothing of;
    /// and an https URL does not lead to one without TLS.
    #[test]
    fn tls_servers_are_vouched_for() {
        let path = |name: &str| format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        let certificate = CertificateDer::from_pem_file(path("localhost_cert")).unwrap();
        let key = PrivateKeyDer::from_pem_file(path("localhost_private")).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
        let wrap = move |stream: TcpStream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)) as Box<dyn Both>)
        };
        let provider = Provider::wrapped(good("a"), Box::new(wrap));
        let url = format!("https://localhost:{}/keys", provider.address.port());
        let read = |ca: Option<&str>| Source::of(&url, ca).unwrap().read().map(|set| set.words());
        let ca = path("localhost_cert");
        assert_eq!(read(Some(&ca)).unwrap(), "EdDSA \"a\"");
        let error = read(None).unwrap_err();
        assert!(error.contains("auth.jwt_jwks_ca_path"), "{error}");
        for (file, told) in [("none", "give a readable PEM file"), ("es256_public", "it has no certificate")] {
            let error = read(Some(&path(file))).unwrap_err();
            assert!(error.contains(told) && error.contains(file), "{error}");
        }
        let plain = Provider::start(good("b"));
        provider.answers(Answer::Elsewhere(plain.url()));
        let error = read(Some(&ca)).unwrap_err();
        assert!(error.contains("must not lead to one without TLS"), "{error}");
        assert_eq!(plain.asked(), 0);
    }

    /// A wish has the set read at once and then, until it has rested, no other; what cannot be read keeps the wish open
    /// and is tried again by itself.
    #[test]
    fn a_wish_is_granted_once_in_a_while() {
        let provider = Provider::start(good("a"));
        let (source, wish) = (Source::of(&provider.url(), None).unwrap(), Arc::new(KeyWish::default()));
        let stats = Arc::new(KeyStats::default());
        let watch =
            Watch { source, every: Duration::from_secs(86_400), wish: Arc::clone(&wish), stats: Arc::clone(&stats) };
        let (sets, came) = channel();
        watch.start(move |_, set: KeySet| drop(sets.send(set.words()))).unwrap();
        assert!(wish.make(0) && came.recv_timeout(SOON).unwrap() == "EdDSA \"a\"");
        let answered = Instant::now();
        while wish.is_open() {
            assert!(answered.elapsed() < SOON);
            std::thread::yield_now();
        }
        let granted = (0..10_000).filter(|_| wish.make(1)).count();
        assert!(granted == 0 || answered.elapsed() >= limits::KEY_WISH_REST, "{granted}");
        assert!(wish.make(0), "the keys of the reading are on their way to this one");
        provider.answers(Answer::Status(500));
        wish.insist();
        let asked = Instant::now();
        while stats.failures_total.read() == 0 {
            assert!(asked.elapsed() < SOON);
            std::thread::yield_now();
        }
        assert!(wish.make(1), "what could not be read may have the key");
        provider.answers(good("b"));
        assert_eq!(came.recv_timeout(SOON).unwrap(), "EdDSA \"b\"");
        assert_eq!((stats.reads_total.read(), stats.failures_total.read(), stats.keys.read()), (2, 1, 1));
    }
}

/// A watch reads again after its interval without anybody's wish.
#[test]
fn a_watch_reads_again_by_itself() {
    let file = std::env::temp_dir().join(format!("ringgate-watched-{}", std::process::id()));
    let write = |kid: &str| std::fs::write(&file, published::set(&[published::jwk("eddsa", kid)])).unwrap();
    write("a");
    let (source, wish) = (Source::of(file.to_str().unwrap(), None).unwrap(), std::sync::Arc::default());
    let every = std::time::Duration::from_millis(20);
    let watch = Watch { source, every, wish, stats: std::sync::Arc::default() };
    let (sets, came) = std::sync::mpsc::channel();
    watch.start(move |_, set: KeySet| drop(sets.send(set.words()))).unwrap();
    let soon = std::time::Duration::from_secs(20);
    assert_eq!(came.recv_timeout(soon).unwrap(), "EdDSA \"a\"");
    write("b");
    while came.recv_timeout(soon).unwrap() != "EdDSA \"b\"" {}
    std::fs::remove_file(&file).unwrap();
}

/// Wishes are granted again after their rest, however often the set is read without one meanwhile.
#[test]
fn wishes_rest_only_so_long() {
    use std::time::{Duration, Instant};
    let file = std::env::temp_dir().join(format!("ringgate-wished-{}", std::process::id()));
    std::fs::write(&file, published::set(&[published::jwk("eddsa", "a")])).unwrap();
    let wish = std::sync::Arc::new(crate::ports::KeyWish::default());
    let (source, every) = (Source::of(file.to_str().unwrap(), None).unwrap(), Duration::from_millis(20));
    let watch = Watch { source, every, wish: std::sync::Arc::clone(&wish), stats: std::sync::Arc::default() };
    let (readings, came) = std::sync::mpsc::channel();
    assert!(wish.make(0));
    watch.start(move |reading, _| _ = readings.send(reading)).unwrap();
    let soon = crate::limits::KEY_WISH_REST + Duration::from_secs(20);
    let began = Instant::now();
    let mut granted = Vec::new();
    while granted.len() < 2 && began.elapsed() < soon {
        let newest = came.recv_timeout(soon).unwrap();
        // Nobody has newer keys than these, so only a wish that is granted says yes.
        if wish.make(newest + 1_000)
            && granted.last().is_none_or(|last: &Instant| last.elapsed() > crate::limits::KEY_WISH_REST / 2)
        {
            granted.push(Instant::now());
        }
    }
    assert_eq!(granted.len(), 2, "granted once and again");
    std::fs::remove_file(&file).unwrap();
}
