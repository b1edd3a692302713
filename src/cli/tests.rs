//! Tests of the command line as functions of arguments and environment.

use super::*;

const NOW: WallMillis = WallMillis(1_700_000_000_000);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn cli(args: &[&str], env: &[(&str, &str)]) -> Result<String, Failure> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let matches = command().try_get_matches_from([&["ringgate"], args].concat()).unwrap();
    dispatch(&matches, &Surroundings { env, now: NOW })
}

fn usage(args: &[&str]) -> String {
    let error = command().try_get_matches_from([&["ringgate"], args].concat()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

/// The grammar is free of contradictions.
#[test]
fn the_grammar_is_sound() {
    command().debug_assert();
}

/// Every key of the table is a flag of `serve` and of the bare program, and reaches the configuration.
#[test]
fn flags_reach_the_configuration() {
    for prefix in [&[] as &[&str], &["serve"]] {
        let args = [&["ringgate"], prefix, &["--port", "1234", "--dev", "--pin=false", "--origins", "*"]].concat();
        let matches = command().try_get_matches_from(args).unwrap();
        let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        let config = flags::Reading::new(matches, &Surroundings::default()).load().unwrap().config;
        assert_eq!((config.server.port, config.server.dev, config.server.pin), (1234, true, false));
        assert_eq!(config.server.origins, ["*"]);
    }
    let known: Vec<String> = command().get_arguments().map(|arg| arg.get_id().to_string()).collect();
    assert!(crate::config::KEYS.iter().all(|key| known.contains(&key.name.to_owned())));
}

/// A bad value of a flag is one line with flag, key and remedy, and exit code 2; so is a missing file.
#[test]
fn bad_values_are_one_line_each() {
    let failure = cli(&["--port", "-1"], &[]).unwrap_err();
    assert_eq!(failure.code, 2);
    assert_eq!(failure.lines, ["--port -1: server.port: expected a port 1–65535 (0 = any free one); give --port 9998"]);
    let failure = cli(&["--config", "/no/such/file"], &[]).unwrap_err();
    assert!(failure.code == 2 && failure.lines[0].starts_with("/no/such/file: "), "{failure:?}");
    let failure = cli(&["serve"], &[("RINGGATE_CONFIG", "/no/such/file")]).unwrap_err();
    assert!(failure.lines[0].starts_with("/no/such/file: "), "{failure:?}");
}

/// A wrong flag or command is named together with the nearest right one.
#[test]
fn wrong_usage_is_explained() {
    assert!(usage(&["--prot", "1"]).contains("--port"));
    assert!(usage(&["tokn"]).contains("token"));
    assert!(usage(&["token", "mint"]).contains("--sub"));
    let both = usage(&["token", "mint", "--sub", "1", "--secret", "a", "--key-file", "b"]);
    assert!(both.contains("cannot be used with"), "{both}");
}

/// A minted token is checked with its claims; another key, another time or another audience refuses it.
#[test]
fn minted_tokens_check() {
    let mint = [
        "token",
        "mint",
        "--secret",
        SECRET,
        "--sub",
        "42",
        "--username",
        "Ada",
        "--role",
        "user",
        "--role",
        "publisher",
    ];
    let token = cli(&[&mint[..], &["--ttl", "60s", "--audience", "game"]].concat(), &[]).unwrap();
    let check = |args: &[&str], env: &[(&str, &str)]| cli(&[&["token", "check", token.trim()], args].concat(), env);
    let text = check(&["--secret", SECRET, "--audience", "game"], &[]).unwrap();
    assert_eq!(
        text,
        "valid      HS256\nuser       42\nusername   Ada\nroles      user, publisher\nexpires    2023-11-14T22:14:20.000Z, in 60 s\n"
    );
    assert!(check(&[], &[("JWT_SECRET", SECRET)]).is_ok());
    let refused = check(&["--secret", "another"], &[]).unwrap_err();
    assert_eq!((refused.code, refused.lines.len()), (1, 1));
    assert!(refused.lines[0].contains("signature"), "{refused:?}");
    assert!(check(&["--secret", SECRET, "--audience", "web"], &[]).unwrap_err().lines[0].contains("aud"));
    assert_eq!(check(&[], &[]).unwrap_err().code, 2);
    let forever = cli(&["token", "mint", "--sub", "1", "--ttl", "never"], &[("JWT_SECRET", SECRET)]).unwrap();
    assert!(cli(&["token", "check", forever.trim()], &[("JWT_SECRET", SECRET)]).unwrap().contains("expires    never"));
}

/// Key files sign with their private and check with their public half; mistakes are named.
#[test]
fn key_files_sign_and_check() {
    let key = |name: &str| format!("{}/tests/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    for name in ["rs256", "es256", "eddsa"] {
        let (private, public) = (key(&format!("{name}_private")), key(&format!("{name}_public")));
        let token = cli(&["token", "mint", "--key-file", &private, "--sub", "1"], &[]).unwrap();
        let text = cli(&["token", "check", token.trim()], &[("JWT_PUBLIC_KEY_PATH", &public)]).unwrap();
        assert!(text.to_lowercase().contains(name), "{text}");
        assert_eq!(cli(&["token", "check", "x", "--key-file", &private], &[]).unwrap_err().code, 2);
        assert_eq!(cli(&["token", "mint", "--sub", "1", "--key-file", &public], &[]).unwrap_err().code, 2);
    }
    for bad in [["--sub", "", "--ttl", "1h"], ["--sub", "1", "--ttl", "soon"], ["--sub", "1", "--role", "a\nb"]] {
        let failure = cli(&[&["token", "mint", "--secret", SECRET], &bad[..]].concat(), &[]).unwrap_err();
        assert!(failure.code == 2 && failure.lines.len() == 1, "{failure:?}");
    }
}

/// Topics are made where Kafka is configured only; a component that cannot be reached fails the check, and says why.
#[test]
fn kafka_is_reached_on_request_only() {
    let refused = cli(&["topics", "create"], &[]).unwrap_err();
    assert!(refused.code == 1 && refused.lines[0].contains("set KAFKA_HOST"), "{refused:?}");
    assert!(usage(&["topics", "create", "--partitions", "0"]).contains("partitions"));
    // Nobody listens on port 1.
    let env = [("KAFKA_HOST", "127.0.0.1:1"), ("RINGGATE_KAFKA_CONNECT_TIMEOUT_MS", "200")];
    assert!(cli(&["config", "check"], &env).unwrap().contains("# valid: "));
    let refused = cli(&["config", "check", "--connect"], &env).unwrap_err();
    assert!(refused.code == 1 && refused.lines[0].to_lowercase().contains("kafka"), "{refused:?}");
    assert!(cli(&["config", "check", "--connect"], &[]).unwrap().contains("# valid: "));
}
