//! A real Kafka by TLS and with SASL, and what is said of settings that do not fit its listeners.
//!
//! With the feature `kafka-tls` all of it; without, what a binary has that knows no TLS.

use std::process::Command;

use ringgate::bus::kafka::KafkaBus;
use ringgate::message::Append;
use serde_json::json;

use super::broker::Broker;
use super::gateway::{Client, Gateway, ringgate};
use super::suite::{append, put_as};

/// Values of the section `kafka`, by key.
type Settings = Vec<(&'static str, String)>;

const PASSWORD: &str = "secret of the tests";

fn set(settings: &[(&'static str, &str)]) -> Settings {
    settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

fn user(mechanism: &str, password: &str) -> Settings {
    set(&[("username", "ringgate"), ("password", password), ("sasl-mechanism", mechanism)])
}

/// What `ringgate config check --connect` says of these settings for this listener; it must not let them pass.
fn complaint(listener: &str, settings: &[Settings]) -> String {
    let (host, port) = listener.split_once(':').unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    check.env_clear().args(["config", "check", "--connect"]).env("KAFKA_HOST", host).env("KAFKA_PORT", port);
    check.env("RINGGATE_KAFKA_CONNECT_TIMEOUT_MS", "2500");
    for (key, value) in settings.iter().flatten() {
        check.env(format!("RINGGATE_KAFKA_{}", key.to_uppercase().replace('-', "_")), value);
    }
    let output = check.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.code() == Some(1) && !said.contains(PASSWORD), "{said}");
    said
}

/// The gateway's whole way over this listener: a start, a command to the bus, an event from it.
fn serves(broker: &Broker, listener: &str, settings: &[Settings]) {
    let flags: Vec<_> = settings.iter().flatten().map(|(key, value)| format!("--kafka-{key}={value}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let gateway = Gateway::start_with(&broker.listener(listener), &flags);
    let mut client = Client::open(&gateway, json!({}));
    client.send(&json!({"type": "games.command.list_rooms", "correlation_id": listener}));
    assert_eq!(client.until("system.ack")["correlation_id"], listener);
    let mut backend = KafkaBus::open(&broker.config(&["games.events"])).unwrap();
    let event = json!({"event_type": "games.event.error", "target": {"user_id": "ann"},
        "payload": {"code": "forbidden", "message": listener}});
    let key = b"ann".as_slice().into();
    put_as(&mut backend, &Append { key, ..append("games.events", event.to_string().as_bytes()) }).unwrap();
    assert_eq!(client.until("system.error")["message"], listener);
    gateway.stop();
}

/// By SASL alone a gateway serves; a password that is wrong or missing, a listener that asks for a user and is given none,
/// one that is given one and asks for none, one that speaks TLS: each is said with the key that mends it.
#[test]
fn kafka_asks_who_is_there() {
    let broker = Broker::secure();
    let (fine, _, complaints) = ringgate(broker.address(), &["topics", "create", "--partitions", "2"]);
    assert!(fine, "{complaints}");
    serves(&broker, "sasl", &[user("PLAIN", PASSWORD)]);
    let [plain, sasl, tls] = [broker.address().to_owned(), broker.listener("sasl"), broker.listener("tls")];
    let expected: [(&str, &[Settings], &str); 5] = [
        (&sasl, &[user("PLAIN", "wrong")], "set kafka.username, kafka.password"),
        (&sasl, &[set(&[("username", "ringgate")])], "kafka.password: kafka.username is set, and no password"),
        (&sasl, &[], "if it asks for a user, kafka.username"),
        (&plain, &[user("PLAIN", PASSWORD)], "wants kafka.username unset"),
        (&tls, &[], "if it speaks TLS only, kafka.tls = true"),
    ];
    for (listener, settings, words) in expected {
        let complaint = complaint(listener, settings);
        assert!(complaint.contains(words), "{words}: {complaint}");
    }
}

#[cfg(feature = "kafka-tls")]
mod tls {
    use ringgate::bus::kafka::{KafkaConfig, Security};

    use super::super::suite::{take, until};
    use super::*;

    /// Those of a client that trusts this authority.
    fn trusting(authority: &str) -> Settings {
        set(&[("tls", "true"), ("ca-path", authority)])
    }

    /// By TLS with a certificate of its own, and by SASL over TLS with every mechanism, a gateway serves; records are those that
    /// other listeners give.
    #[test]
    fn kafka_by_tls() {
        let broker = Broker::secure();
        let (fine, _, complaints) = ringgate(broker.address(), &["topics", "create", "--partitions", "2"]);
        assert!(fine, "{complaints}");
        let (certificate, key) = (broker.file("client.crt"), broker.file("client.key"));
        let own = set(&[("certificate-path", &certificate), ("key-path", &key)]);
        serves(&broker, "tls", &[trusting(&broker.file("ca.crt")), own]);
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            serves(&broker, "sasl-tls", &[trusting(&broker.file("ca.crt")), user(mechanism, PASSWORD)]);
        }
        serves(&broker, "sasl", &[user("SCRAM-SHA-512", PASSWORD)]);

        broker.create("t", 1);
        let security = Security {
            tls: true,
            ca_path: Some(broker.file("ca.crt")),
            username: Some("ringgate".to_owned()),
            password: Some(PASSWORD.to_owned()),
            mechanism: "SCRAM-SHA-256".to_owned(),
            ..Security::default()
        };
        let config = KafkaConfig { brokers: broker.listener("sasl-tls"), security, ..broker.config(&["t"]) };
        let mut bus = KafkaBus::open(&config).unwrap();
        (0..20u8).for_each(|n| put_as(&mut bus, &append("t", &[n])).unwrap());
        let mut plain = KafkaBus::open(&broker.config(&["t"])).unwrap();
        for bus in [&mut bus, &mut plain] {
            let (records, _) = take(bus, "t", 0, 20);
            assert!(records.iter().map(|record| record.value[0]).eq(0..20));
        }
        // A broker that is restarted is met again, with all that it asks.
        broker.stop();
        broker.again();
        until("it is written again", || put_as(&mut bus, &append("t", b"again")).is_ok());
        take(&mut bus, "t", 20, 1);
    }

    /// A listener without TLS, an authority that signed nothing, none at all, no certificate where one is asked for, a wrong
    /// password behind TLS, files that are not there: each is said with the key that mends it.
    #[test]
    fn tls_that_does_not_fit_is_said() {
        let (broker, other) = (Broker::secure(), Broker::secure());
        let [plain, tls, both] = [broker.address().to_owned(), broker.listener("tls"), broker.listener("sasl-tls")];
        let (ours, theirs) = (trusting(&broker.file("ca.crt")), trusting(&other.file("ca.crt")));
        let half = set(&[("certificate-path", &broker.file("client.crt"))]);
        let expected: [(&str, &[Settings], &[&str]); 8] = [
            (&plain, std::slice::from_ref(&ours), &["SSL", "does this listener speak TLS?"]),
            (&both, &[theirs, user("PLAIN", PASSWORD)], &["certificate verify failed", "kafka.ca_path"]),
            (
                &both,
                &[set(&[("tls", "true")]), user("PLAIN", PASSWORD)],
                &["certificate verify failed", "kafka.ca_path"],
            ),
            (&tls, std::slice::from_ref(&ours), &["kafka.certificate_path, kafka.key_path"]),
            (&tls, &[ours.clone(), half], &["one is set without the other"]),
            (&both, &[ours.clone(), user("SCRAM-SHA-256", "wrong")], &["SASL", "kafka.password"]),
            (&both, std::slice::from_ref(&ours), &["or for a user (kafka.username)"]),
            (&both, &[trusting("/nowhere/ca.crt"), user("PLAIN", PASSWORD)], &["ssl.ca.location failed"]),
        ];
        for (listener, settings, words) in expected {
            let complaint = complaint(listener, settings);
            assert!(words.iter().all(|words| complaint.contains(words)), "{words:?}: {complaint}");
        }
    }
}
