//! What is said when waiting does not help: by the store, by `config check --connect`, by a worker's start.

use std::process::{Command, Output};

use ringgate::store::{PostgresSettings, PostgresStore};

use super::server::Server;

/// What keeps the store from being opened, which says so at once, with the remedy and without the password.
fn refusal(url: &str) -> String {
    let settings = PostgresSettings::parse(url, None, 10).unwrap();
    let error = PostgresStore::open(&settings).unwrap_err().to_string();
    let checked = settings.check().unwrap_err();
    assert!(checked.refused && error.ends_with(&checked.text), "{error} / {checked}");
    assert!(!error.contains("sesame") && !error.contains("hunter2"), "{error}");
    error
}

/// A wrong password, user or database, a user that may make no tables, tables of somebody else's, and an encoding that
/// cannot hold what players say are refused with the remedy.
#[test]
fn what_does_not_mend_is_refused() {
    let server = Server::with(&["--password", "sesame"]);
    let all = |words: &str| words.to_owned();
    server.ask("CREATE ROLE reader LOGIN PASSWORD 'sesame'");
    for (name, options) in [("theirs", ""), ("latin", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")] {
        server.ask(&format!("CREATE DATABASE {name} OWNER ringgate {options}"));
    }
    server.ask_in("theirs", "CREATE TABLE rooms (id BIGINT PRIMARY KEY, name TEXT)");
    for (user, password, database, told) in [
        ("ringgate", "hunter2", "ringgate", all("28P01); set user and password in POSTGRES_URL")),
        ("nobody", "sesame", "ringgate", all("set user and password in POSTGRES_URL")),
        ("ringgate", "sesame", "none", all("3D000); make it with createdb, or name another in POSTGRES_URL")),
        ("reader", "sesame", "ringgate", all("42501); let the user of POSTGRES_URL make tables (GRANT CREATE")),
        ("ringgate", "sesame", "theirs", all("its tables are not ringgate's: give ringgate a database of its own")),
        ("ringgate", "sesame", "latin", all("encoding is LATIN1")),
    ] {
        let error = refusal(&server.url_of(user, password, database));
        assert!(error.contains(&told), "{user} {database}: {error}");
    }
    let without = format!("postgres://ringgate@{}", server.url().split('@').nth(1).unwrap());
    assert!(refusal(&without).contains("password missing; set user and password in POSTGRES_URL"));
    let tls = format!("{}?sslmode=require", server.url());
    assert!(refusal(&tls).contains("is it set up for TLS"));
}

/// A user that may write tables which somebody else made needs no right to make any.
#[test]
fn a_user_may_do_without_making_tables() {
    let server = Server::start();
    drop(super::open(&server));
    server
        .ask("CREATE ROLE writer LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer");
    let settings = PostgresSettings::parse(&server.url_of("writer", "any", "ringgate"), None, 10).unwrap();
    PostgresStore::open(&settings).unwrap();
    server.ask("REVOKE UPDATE ON rooms FROM writer");
    assert!(PostgresStore::open(&settings).unwrap_err().cause.contains("and write those that are there"));
}

/// `config check --connect` says what is there and leaves nothing, or says what is wrong, by its exit code too.
#[test]
fn config_check_connects() {
    let server = Server::with(&["--password", "sesame"]);
    let check = |url: &str| -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env_clear().args(["config", "check", "--connect"]).env("POSTGRES_URL", url);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    };
    let (code, said, complaints) = check(&server.url());
    assert_eq!(code, Some(0), "{complaints}");
    assert!(said.contains("reached, version 15") && said.contains("the first worker will make its tables"), "{said}");
    assert!(said.contains("warning: store.postgres_url is not used without Kafka"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    assert_eq!(server.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), ["0"]);
    let mut store = super::open(&server);
    assert!(check(&server.url()).1.contains("its tables are there"));
    ringgate::ports::Store::write(&mut store, &[super::message(1, "r")]).expect("the check takes no term");
    let (code, _, complaints) = check(&server.url_of("ringgate", "hunter2", "ringgate"));
    assert_eq!(code, Some(1));
    assert!(complaints.contains("POSTGRES_URL") && !complaints.contains("hunter2"), "{complaints}");
    server.stop();
    let (code, _, complaints) = check(&server.url());
    assert_eq!(code, Some(1));
    assert!(complaints.contains("is PostgreSQL running there, as POSTGRES_URL says?"), "{complaints}");
}
