//! Token keys that a provider publishes: rotated, withdrawn and unreachable under living connections.

use std::path::PathBuf;

use ringgate::message::ErrorCode;
use ringgate::protocol::frames::json::Hello;
use ringgate::protocol::frames::{client, types};

use crate::client::Client;
use crate::node::{DRIVERS, Gateway, command, until};

#[cfg(feature = "jwks-url")]
#[path = "../keys/provider.rs"]
mod provider;
#[path = "../keys/jwk.rs"]
mod published;

use published::{jwk, set, token};

/// A gateway whose keys are there.
fn start(place: &str, interval_s: &str, driver: &str) -> Gateway {
    let mut command = command(&["--driver", driver, "--jwt-jwks", place, "--jwt-jwks-interval-s", interval_s]);
    command.env_remove("JWT_SECRET");
    Gateway::spawn(command)
}

/// What a client with this token comes to: welcome, or the code of its error and whether the connection was closed to
/// come again.
fn attempt(gateway: &Gateway, token: &str) -> Outcome {
    let mut client = Client::open(gateway);
    client.send(|out| client::hello(out, &Hello { token: Some(token), ..Hello::default() }));
    let frame = client.read();
    match frame.header.frame_type {
        types::WELCOME => Outcome::Welcome,
        types::ERROR if frame.header.kind == ErrorCode::AuthFailed.index() => Outcome::Refused,
        types::ERROR if frame.header.kind == ErrorCode::Unavailable.index() => {
            assert_eq!(client.closed().0, 1013);
            Outcome::ComeAgain
        }
        _ => panic!("{frame:?}"),
    }
}

#[derive(PartialEq, Debug)]
enum Outcome {
    Welcome,
    Refused,
    ComeAgain,
}

/// Keys in a file are read again by themselves: a new one lets in, a withdrawn one no longer, and a file that cannot be
/// used is told of and changes nothing; who is in stays in.
#[test]
fn keys_in_a_file_are_read_again() {
    for driver in DRIVERS {
        let file = std::env::temp_dir().join(format!("ringgate-jwks-{driver}-{}", std::process::id()));
        let write = |text: &str| {
            // As those do who write files that others read: never half a one.
            let new = file.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        let _removed = Removed(file.clone());
        write(&set(&[jwk("rs256", "one")]));
        let gateway = start(file.to_str().unwrap(), "1", driver);
        let (one, two) = (token("rs256", Some("one")), token("es256", Some("two")));
        let mut early = Client::open(&gateway);
        early.hello(&Hello { token: Some(&one), ..Hello::default() });
        write(&set(&[jwk("es256", "two")]));
        until("the new key lets in", || attempt(&gateway, &two) == Outcome::Welcome);
        until("the withdrawn key lets nobody in", || attempt(&gateway, &one) == Outcome::Refused);
        write("{\"keys\":[]}");
        until("the fault is told", || gateway.log().contains("it has no keys; the keys from before stay"));
        assert_eq!(attempt(&gateway, &two), Outcome::Welcome);
        early.send(|out| client::ping(out, b"still here"));
        assert_eq!(early.expect(types::PONG).payload, b"still here");
    }
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(feature = "jwks-url")]
mod urls {
    use rustix::process::Signal;
    use serde_json::json;

    use super::provider::{Answer, Provider};
    use super::*;
    use crate::json::Json;

    fn keys(keys: &[String]) -> Answer {
        Answer::Body(set(keys))
    }

    /// A provider that signs with a key it has not shown before costs nobody the way in: the first token with it has the
    /// keys read and is told to come again, in both dialects, and a session is refreshed with it. What is withdrawn ends
    /// with SIGHUP, and strangers' keys cause no reading after the one that did not bring them.
    #[test]
    fn keys_rotate_under_living_connections() {
        for driver in DRIVERS {
            let provider = Provider::start(keys(&[jwk("rs256", "one")]));
            let gateway = start(&provider.url(), "86400", driver);
            let (one, two) = (token("rs256", Some("one")), token("es256", Some("two")));
            let mut early = Json::with_token(&gateway, &one);
            provider.answers(keys(&[jwk("rs256", "one"), jwk("es256", "two")]));
            early.send(&json!({"type": "system.authenticate", "token": two, "correlation_id": "r"}));
            let (code, _, correlation_id) = early.error();
            assert_eq!((code.as_str(), correlation_id.as_deref()), ("unavailable", Some("r")));
            until("the new key lets in", || match attempt(&gateway, &two) {
                Outcome::Refused => panic!("a key that was published is unknown"),
                outcome => outcome == Outcome::Welcome,
            });
            early.authenticate(&json!({"token": two}));
            assert_eq!(attempt(&gateway, &one), Outcome::Welcome, "both are good while both are published");

            provider.answers(keys(&[jwk("es256", "two")]));
            gateway.signal(Signal::HUP);
            until("the withdrawn key lets nobody in", || attempt(&gateway, &one) == Outcome::Refused);
            let (asked, began) = (provider.asked(), std::time::Instant::now());
            for stranger in 0..200 {
                let stranger = token("es256", Some(&format!("stranger {stranger}")));
                assert_ne!(attempt(&gateway, &stranger), Outcome::Welcome);
            }
            let rests = began.elapsed().as_secs() / ringgate::limits::KEY_WISH_REST.as_secs();
            assert!(provider.asked() <= asked + 1 + rests, "{} readings for 200 strangers", provider.asked() - asked);
            assert_eq!(attempt(&gateway, &two), Outcome::Welcome);
            early.is_alive();
        }
    }

    /// While the provider is away the known keys go on, a token with a new one is told to come again and not that it is
    /// refused, and when the provider is back it is let in; the counters tell of it.
    #[test]
    fn a_provider_that_is_away_is_waited_for() {
        let provider = Provider::start(keys(&[jwk("rs256", "one")]));
        let gateway = start(&provider.url(), "86400", "uring");
        let (one, two) = (token("rs256", Some("one")), token("eddsa", Some("two")));
        let faults = [
            (Answer::Status(503), "it answers 503"),
            (Answer::Elsewhere(provider.url()), "redirects"),
            (Answer::Endless, "it is longer than"),
            (Answer::Silence, "it takes too long to answer"),
        ];
        for (answer, told) in faults {
            provider.answers(answer);
            gateway.signal(Signal::HUP);
            // Of a silent one it is known late; that it is asked holds nobody up.
            assert_eq!(attempt(&gateway, &one), Outcome::Welcome);
            until("the failure is told", || gateway.log().contains(told));
            assert_eq!(attempt(&gateway, &two), Outcome::ComeAgain);
            assert_eq!(attempt(&gateway, &one), Outcome::Welcome);
        }
        assert!(gateway.page("/metrics").contains("\nringgate_token_key_failures_total 4\n"));
        provider.answers(keys(&[jwk("rs256", "one"), jwk("eddsa", "two")]));
        gateway.signal(Signal::HUP);
        until("the new key lets in", || attempt(&gateway, &two) == Outcome::Welcome);
        assert!(gateway.page("/metrics").contains("\nringgate_token_keys 2\n"));
    }

    /// A start without its keys fails in one line that names key, URL and remedy; `config check` finds it out with
    /// `--connect`, and without it asks nobody; `token check` takes a set.
    #[test]
    fn a_start_without_keys_says_so() {
        let provider = Provider::start(Answer::Status(404));
        let url = provider.url();
        let run = |args: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringgate"));
            let output = command.env_clear().env("JWT_JWKS", &url).args(args).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
        };
        let told = format!("auth.jwt_jwks = {url}: it answers 404; set JWT_JWKS to the provider's jwks_uri");
        let (code, _, errors) = run(&["--port", "0", "--health-port", "0"]);
        assert!(code == 1 && errors.contains(&told), "{code} {errors}");
        let (code, _, errors) = run(&["config", "check", "--connect"]);
        assert!(code != 0 && errors.contains(&told), "{code} {errors}");
        let asked = provider.asked();
        assert_eq!(run(&["config", "check"]).0, 0);
        assert_eq!(provider.asked(), asked);
        let secret = r#"{"kty":"oct","kid":"s","k":"AAAA"}"#.to_owned();
        provider.answers(keys(&[jwk("eddsa", "one"), secret]));
        let (code, said, errors) = run(&["config", "check", "--connect"]);
        assert_eq!(code, 0, "{errors}");
        assert!(said.contains(&format!("# keys of {url}: EdDSA \"one\"\n")), "{said}");
        assert!(
            said.contains("# warning: auth.jwt_jwks: key 1 (kid \"s\"): a secret that is published is none"),
            "{said}"
        );
        let (code, said, errors) = run(&["token", "check", &token("eddsa", Some("one"))]);
        assert!(code == 0 && said.contains("EdDSA") && said.contains("ada"), "{said} {errors}");
        let (code, _, errors) = run(&["token", "check", &token("eddsa", Some("two"))]);
        assert!(code == 1 && errors.contains("that this gateway does not have"), "{code} {errors}");
    }
}
