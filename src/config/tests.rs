//! Tests of the configuration: precedence, error texts, cross-checks, dev mode.

use super::*;
use std::collections::BTreeSet;
use std::time::Duration;

fn file(text: &str) -> Result<Loaded, Vec<String>> {
    load(&Sources { file: Some(("ringgate.toml", text)), ..Sources::default() })
}

fn error(text: &str) -> String {
    let errors = file(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!errors[0].contains('\n'));
    errors[0].clone()
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    load(&Sources { env: &env(pairs), ..Sources::default() })
}

/// Names, flags and environment names are unique, sections stand together, flags derive from the key.
#[test]
fn the_key_table_is_consistent() {
    let (mut names, mut sections) = (BTreeSet::new(), Vec::new());
    for key in KEYS {
        for name in [key.name.to_owned(), format!("--{}", key.flag), key.env_name()]
            .into_iter()
            .chain(key.env.map(str::to_owned))
        {
            assert!(names.insert(name.clone()), "{name} twice");
        }
        let (short, full) = (key.key().replace('_', "-"), key.name.replace(['_', '.'], "-"));
        assert!(key.flag == short || key.flag == full, "{}", key.flag);
        assert!(key.meaning.ends_with('.'), "{}", key.name);
        if sections.last() != Some(&key.section()) {
            assert!(!sections.contains(&key.section()), "[{}] twice", key.section());
            sections.push(key.section());
        }
    }
    let expected = ["server", "auth", "admin", "delivery", "timeouts", "kafka", "bus", "redis", "store", "mesh", "log"];
    assert_eq!(sections, expected);
}

/// Defaults are within their own ranges, and what is read back is what was written.
#[test]
fn every_key_reads_what_it_writes() {
    for key in KEYS {
        let mut config = Config::default();
        match &key.kind {
            Kind::Number { min, max, read, write, .. } => {
                assert!((*min..=*max).contains(&read(&config)), "{}", key.name);
                for value in [*min, *max] {
                    write(&mut config, value);
                    assert_eq!(read(&config), value, "{}", key.name);
                }
            }
            Kind::Bool { read, write } => {
                let other = !read(&config);
                write(&mut config, other);
                assert_eq!(read(&config), other, "{}", key.name);
            }
            Kind::Text { example, read, write, .. } => {
                assert!(write(&mut config, example), "{}", key.name);
                assert_eq!(read(&config).as_deref(), Some(*example), "{}", key.name);
                assert!(!write(&mut config, ""), "{}", key.name);
            }
            Kind::List { example, read, write, .. } => {
                assert!(write(&mut config, &[(*example).to_owned()]), "{}", key.name);
                assert_eq!(read(&config), [*example], "{}", key.name);
                assert!(!write(&mut config, &["no such".to_owned()]), "{}", key.name);
            }
        }
    }
}

/// The printed default file changes nothing as it is, and every line of it is valid without its comment sign.
#[test]
fn the_default_file_is_valid() {
    let text = default_file();
    let nothing = load(&Sources::default()).unwrap();
    assert_eq!(file(&text).unwrap().config, nothing.config);
    assert!(file(&text).unwrap().rows.is_empty());
    for key in KEYS {
        assert!(text.contains(&format!("\n#{} = ", key.key())), "{}", key.name);
    }
    let active: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        // Two keys would be one too many.
        .filter(|line| !line.starts_with("jwt_secret") && !line.starts_with("jwt_jwks ="))
        .collect();
    let loaded = file(&active.join("\n")).unwrap();
    assert_eq!(loaded.origins.iter().filter(|origin| **origin == Origin::Default).count(), 2);
    assert_eq!(loaded.config.delivery, nothing.config.delivery);
    assert_eq!(loaded.config.timeouts, nothing.config.timeouts);
    assert_eq!(loaded.config.routes, nothing.config.routes, "the printed table is the built-in one");
    assert_eq!(loaded.rows.len(), nothing.config.routes.commands().len() + nothing.config.routes.events().len());
}

/// A flag goes before the environment, that before the file, that before the default; `explain` says which it was.
#[test]
fn precedence_is_flag_environment_file_default() {
    let text = "[server]\nport = 1001\nhealth_port = 1002\nshards = 3\n";
    let env = env(&[("WS_PORT", "2001"), ("RINGGATE_SERVER_HEALTH_PORT", "2002"), ("GATEWAY_ID", "")]);
    let flags = [("server.port", "3001".to_owned())];
    let loaded = load(&Sources { file: Some(("f.toml", text)), env: &env, flags: &flags }).unwrap();
    let server = &loaded.config.server;
    assert_eq!((server.port, server.health_port, server.shards), (3001, 2002, 3));
    assert_eq!(server.gateway_id, None);
    assert_eq!(server.gateway_id("box"), "box:3001");
    let explained = explain(&loaded);
    for line in [
        "server.port = 3001  # flag",
        "server.health_port = 2002  # environment RINGGATE_SERVER_HEALTH_PORT",
        "server.shards = 3  # f.toml:4",
        "delivery.queue_frames = 256  # default",
    ] {
        assert!(explained.lines().any(|other| other == line), "{line}\n{explained}");
    }
    let both = from_env(&[("WS_PORT", "1"), ("RINGGATE_SERVER_PORT", "2")]).unwrap();
    assert_eq!(both.config.server.port, 2);
}

/// Every error of the file names file, line, key, value and remedy.
#[test]
fn file_errors_name_place_value_and_remedy() {
    assert_eq!(
        error("\n\n\n\n\n[server]\nport = \"abc\"\n"),
        "ringgate.toml:7: server.port = \"abc\": expected a port 1–65535 (0 = any free one); write port = 9998"
    );
    for (text, expected) in [
        ("[server]\nport = 65536", "ringgate.toml:2: server.port = 65536: expected a port"),
        ("[server]\nport = -1", "ringgate.toml:2: server.port = -1: expected"),
        ("[server]\nport = 1.5", "ringgate.toml:2: server.port = 1.5: expected"),
        ("[server]\npin = 1", "ringgate.toml:2: server.pin = 1: expected true or false; write pin = true"),
        (
            "[server]\nhost = \"example.com\"",
            "server.host = \"example.com\": expected an IP address; write host = \"0.0.0.0\"",
        ),
        ("[server]\ndriver = \"epoll\"", "expected auto, uring or monoio; write driver = \"auto\""),
        ("[server]\norigins = [\"a.example\"]", "expected a list of origins"),
        ("[server]\norigins = \"*\"", "write origins = [\"https://app.example.com\"]"),
        (
            "[server]\norigins = [\n\"10.0.0.0/40\",\n]",
            "ringgate.toml:2: server.origins = [ \"10.0.0.0/40\", ]: expected",
        ),
        ("[log]\nlevel = \"loud\"", "ringgate.toml:2: log.level = \"loud\": expected error, warn"),
        ("[server]\nprot = 1", "ringgate.toml:2: server.prot: unknown key; did you mean port?"),
        ("[server]\nsomething = 1", "unknown key; [server] has host, port,"),
        ("\n[sever]\nport = 1", "ringgate.toml:2: [sever]: unknown section; did you mean [server]?"),
        ("[nats]\nhost = \"k\"", "ringgate.toml:1: [nats]: unknown section; the sections are server, auth"),
        ("port = 1", "ringgate.toml:1: port: a key without a section; write it below [server]"),
        ("[server]\n\nport = = 1", "ringgate.toml:3: not TOML: "),
        ("[server]\nport = 1\nport = 2", "ringgate.toml:3: not TOML: duplicate key"),
    ] {
        assert!(error(text).contains(expected), "{text}\n{}\n{expected}", error(text));
    }
    assert_eq!(file("[server]\nport = 70000\nprot = 1").unwrap_err().len(), 2, "form and values at once");
    assert_eq!(file("[server]\nport = 70000\nshards = 65").unwrap_err().len(), 2, "all values at once");
    assert_eq!(file("[server]\nport = 0x1f90\nmax_connections = 1_000").unwrap().config.server.port, 8080);
}

/// Errors of environment and flags name the name to set and a valid value; unknown names are only warned of.
#[test]
fn environment_and_flag_errors_name_their_source() {
    let errors = from_env(&[("WS_PORT", "abc")]).unwrap_err();
    assert_eq!(errors, ["WS_PORT=abc: server.port: expected a port 1–65535 (0 = any free one); set WS_PORT=9998"]);
    let flags = [("server.origins", "x".to_owned())];
    let errors = load(&Sources { flags: &flags, ..Sources::default() }).unwrap_err();
    assert!(errors[0].starts_with("--origins x: server.origins: expected a list"), "{errors:?}");
    assert!(errors[0].ends_with("give --origins https://app.example.com"), "{errors:?}");
    let loaded = from_env(&[("RINGGATE_PORT_9998_TCP", "x"), ("RINGGATE_CONFIG", "f")]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("RINGGATE_PORT_9998_TCP"));
    let lists = from_env(&[("RINGGATE_SERVER_ORIGINS", "https://a.example, https://b.example,")]).unwrap();
    assert_eq!(lists.config.server.origins.len(), 2);
}

/// Values that contradict each other are refused, naming the one that was set.
#[test]
fn relations_between_values_are_checked() {
    for (text, expected) in [
        (
            "[delivery]\nqueue_bytes = 100000",
            "ringgate.toml:2: delivery.queue_bytes = 100000: must be at least 2 × (max_frame + 64) = 131200; change",
        ),
        ("[delivery]\nmax_frame = 262144", "(delivery.max_frame is set by ringgate.toml:2)"),
        ("[delivery]\nanswer_bytes = 65536", "must be at least max_frame + 64 = 65600"),
        ("[timeouts]\nping_ms = 30000", "timeouts.ping_ms = 30000: must be less than half of idle_ms = 60000"),
        ("[delivery]\nqueue_frames = 1025", "must be at most history_events = 1024"),
        (
            "[delivery]\nhistory_bytes = 1000000",
            "delivery.queue_bytes = 1048576 (default): must be at most history_bytes",
        ),
        ("[delivery]\nhistory_total_bytes = 2000", "must be at most history_total_bytes = 2000"),
        ("[timeouts]\ndrain_ms = 1000", "must be at most drain_ms = 1000"),
        ("[server]\nport = 9997", "must differ from port = 9997"),
    ] {
        let errors = file(text).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expected)), "{text}\n{errors:?}");
    }
    assert!(file("[server]\nport = 0\nhealth_port = 0").is_ok());
}

/// Without key and host: dev mode on loopback. A host needs a key, or dev mode by name. A key listens everywhere.
#[test]
fn dev_mode_is_chosen_safely() {
    let host = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let chosen = |pairs: &[(&str, &str)]| from_env(pairs).map(|l| (l.config.server.host, l.config.server.dev));
    assert_eq!(chosen(&[]), Ok((host("127.0.0.1"), true)));
    assert_eq!(chosen(&[("JWT_SECRET", "s")]), Ok((host("0.0.0.0"), false)));
    assert_eq!(chosen(&[("JWT_PUBLIC_KEY_PATH", "k"), ("WS_HOST", "10.0.0.1")]), Ok((host("10.0.0.1"), false)));
    assert_eq!(chosen(&[("WS_HOST", "0.0.0.0"), ("RINGGATE_SERVER_DEV", "true")]), Ok((host("0.0.0.0"), true)));
    assert_eq!(chosen(&[("JWT_SECRET", "s"), ("RINGGATE_SERVER_DEV", "true")]), Ok((host("127.0.0.1"), true)));
    let errors = chosen(&[("WS_HOST", "0.0.0.0")]).unwrap_err();
    assert!(errors[0].starts_with("WS_HOST=0.0.0.0: server.host: without a token key"), "{errors:?}");
    assert!(errors[0].contains("JWT_PUBLIC_KEY_PATH"));
    let errors = chosen(&[("RINGGATE_SERVER_DEV", "false")]).unwrap_err();
    assert!(errors[0].starts_with("RINGGATE_SERVER_DEV=false: server.dev: outside dev mode"), "{errors:?}");
    let errors = chosen(&[("JWT_SECRET", "hidden"), ("JWT_PUBLIC_KEY_PATH", "k")]).unwrap_err();
    assert!(errors[0].contains("unset one") && !errors[0].contains("hidden"), "{errors:?}");
}

/// A secret appears neither in errors nor in explanations nor in debug forms.
#[test]
fn secrets_are_never_shown() {
    let loaded = from_env(&[("JWT_SECRET", "hunter2hunter2")]).unwrap();
    let shown = format!("{}{:?}{:?}", explain(&loaded), loaded, loaded.warnings);
    assert!(shown.contains("auth.jwt_secret = <not shown>  # environment JWT_SECRET"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(loaded.warnings.len(), 1, "a short secret deserves a warning");
    assert!(!error("[auth]\njwt_secret = 12345").contains("12345"));
    assert!(!error("[auth]\njwt_secret = 'hunter2' x").contains("hunter2"));
}

/// The configured key becomes a verifier; one that cannot be used is refused with key and remedy.
#[test]
fn the_verifier_comes_from_the_configured_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");
    let with = |name: &str| Auth { jwt_public_key_path: Some(format!("{path}{name}")), ..Auth::default() };
    let verifier = with("es256_public.pem").verifier().unwrap().unwrap();
    assert_eq!(verifier.algorithms().collect::<Vec<_>>(), [crate::auth::Algorithm::Es256]);
    assert!(with("es256_private.pem").verifier().unwrap_err().contains("openssl pkey"));
    assert!(with("absent.pem").verifier().unwrap_err().starts_with("auth.jwt_public_key_path = "));
    assert!(Auth::default().verifier().unwrap().is_none());
}

/// A key set is a path or URL, makes dev mode end like a key, stands alone, and deserves a warning where anybody could
/// change it on its way.
#[test]
fn a_key_set_is_a_key() {
    let loaded = from_env(&[("JWT_JWKS", "https://login/keys"), ("RINGGATE_AUTH_JWT_JWKS_INTERVAL_S", "60")]).unwrap();
    let auth = &loaded.config.auth;
    assert!(auth.has_key() && !loaded.config.server.dev && loaded.warnings.is_empty());
    assert_eq!(auth.key_source().unwrap().to_string(), "https://login/keys");
    assert_eq!(auth.jwt_jwks_interval, Duration::from_secs(60));
    assert!(auth.verifier().unwrap().is_none(), "it is read by whoever goes on reading it");
    let warned = from_env(&[("JWT_JWKS", "http://login/keys")]).unwrap().warnings;
    assert!(warned[0].contains("use an https URL"), "{warned:?}");
    let refused = from_env(&[("JWT_JWKS", "https://ada:hunter2@login/keys")]).unwrap_err();
    assert!(refused[0].contains("without a user in it"), "{refused:?}");
    let all = [("JWT_JWKS", "/keys.json"), ("JWT_SECRET", "hidden"), ("JWT_PUBLIC_KEY_PATH", "k")];
    let errors = from_env(&all).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for (error, key) in errors.iter().zip(["JWT_JWKS", "JWT_SECRET"]) {
        assert!(error.starts_with(key) && error.contains("beside JWT_PUBLIC_KEY_PATH"), "{error}");
    }
}

/// API keys come from environment, file and flag, are checked one by one, and are never shown.
#[test]
fn api_keys_are_checked_and_not_shown() {
    let (first, second) = ("0123456789abcdef", "fedcba9876543210");
    let loaded = from_env(&[("API_KEY", &format!("{first}, {second}"))]).unwrap();
    assert_eq!(loaded.config.admin.api_keys, [first, second]);
    let shown = format!("{}{:?}", explain(&loaded), loaded.config);
    assert!(!shown.contains(first) && !shown.contains(second), "{shown}");
    assert!(explain(&load(&Sources::default()).unwrap()).contains("admin.api_keys = unset"));
    for bad in ["tooshort", "0123456789abcde\u{e9}f", "0123456789 abcdef"] {
        let refused = error(&format!("[admin]\napi_keys = [\"{bad}\"]\n"));
        assert!(refused.contains("16–256") && !refused.contains(bad), "{refused}");
    }
}

/// Brokers may be several, with ports or without; what is none of that is refused.
#[test]
fn brokers_get_their_ports() {
    for (host, expected) in [
        ("kafka", "kafka:9093"),
        ("10.0.0.1:9094", "10.0.0.1:9094"),
        ("a, b:1,[::1],[::1]:2", "a:9093,b:1,[::1]:9093,[::1]:2"),
    ] {
        let loaded = from_env(&[("KAFKA_HOST", host), ("KAFKA_PORT", "9093")]).unwrap();
        assert_eq!(loaded.config.kafka.brokers().as_deref(), Some(expected));
    }
    for bad in ["kafka:", "kafka:0", "kafka:x", "a,,b", "::1", "kafka://a", "a b"] {
        assert!(from_env(&[("KAFKA_HOST", bad)]).is_err(), "{bad}");
    }
    assert_eq!(from_env(&[("KAFKA_PORT", "1")]).unwrap().config.kafka.brokers(), None);
}

/// PostgreSQL's URL is checked when it is read, never shown, and of use to workers over Kafka alone.
#[test]
fn the_url_of_postgres_is_checked_and_not_shown() {
    let url = "postgres://ringgate:hunter2@db.internal:5433/games?sslmode=require";
    let loaded = from_env(&[("POSTGRES_URL", url), ("KAFKA_HOST", "k")]).unwrap();
    let shown = format!("{}{loaded:?}{:?}", explain(&loaded), loaded.config.store.settings());
    assert!(shown.contains("store.postgres_url = <not shown>  # environment POSTGRES_URL"), "{shown}");
    assert!(shown.contains("PostgreSQL at db.internal:5433, database games"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(loaded.warnings, [] as [&str; 0]);
    for (at, is_open) in [("db.internal", true), ("127.0.0.1,db.internal", true), ("localhost,[::1]", false)] {
        let loaded =
            from_env(&[("POSTGRES_URL", &format!("postgres://u:hunter2@{at}/d")), ("KAFKA_HOST", "k")]).unwrap();
        assert_eq!(loaded.warnings.iter().any(|warning| warning.contains("add sslmode=require")), is_open, "{at}");
    }
    let words = from_env(&[("POSTGRES_URL", "host=/run/postgresql dbname=games"), ("KAFKA_HOST", "k")]).unwrap();
    assert!(words.config.store.settings().is_some());
    for bad in ["hunter2", "postgres://", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h/d?sslmode=verify-full"] {
        let refused = from_env(&[("POSTGRES_URL", bad)]).unwrap_err().join("");
        assert!(refused.contains("POSTGRES_URL=<not shown>: store.postgres_url: expected a URL"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }
    let alone = from_env(&[("POSTGRES_URL", url)]).unwrap().warnings;
    assert!(
        matches!(&alone[..], [line] if line.contains("not used without Kafka") && line.contains("memory")),
        "{alone:?}"
    );
}
