//! `ringgate token`: mint and check tokens by hand.

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, Surroundings, flags};
use crate::auth::{Claims, Grant, KeyError, Signer, Verifier, is_user_id};
use crate::keys::Source;

/// The grammar.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let secret = option("secret", "TEXT", "HS256 secret [environment: JWT_SECRET]").conflicts_with("key-file");
    let issuer = option("issuer", "TEXT", "The iss claim");
    let audience = option("audience", "TEXT", "The aud claim");
    Command::new("token")
        .about("Mints and checks tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("mint")
                .about("Prints a signed token")
                .arg(secret.clone())
                .arg(option("key-file", "FILE", "PEM private key: RSA, EC P-256 or Ed25519"))
                .arg(option("sub", "ID", "User id").required(true))
                .arg(option("username", "NAME", "Display name; without it the user id"))
                .arg(option("role", "ROLE", "A role; may be repeated").action(ArgAction::Append))
                .arg(option("ttl", "TIME", "How long it is valid: 90s, 15m, 12h, 30d or never").default_value("1h"))
                .arg(option("key-id", "KID", "The key's name in a JWK Set, for the token's header"))
                .arg(issuer.clone())
                .arg(audience.clone()),
        )
        .subcommand(
            Command::new("check")
                .about("Prints a token's claims, or why it is refused")
                .arg(secret)
                .arg(option("key-file", "FILE", "PEM public key [environment: JWT_PUBLIC_KEY_PATH]"))
                .arg(
                    option("jwks", "FILE|URL", "JWK Set of public keys [environment: JWT_JWKS]")
                        .conflicts_with_all(["key-file", "secret"]),
                )
                .arg(issuer)
                .arg(audience)
                .arg(Arg::new("token").value_name("TOKEN").help("The token, - for stdin").default_value("-")),
        )
}

/// Carries it out.
pub(super) fn run(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    match matches.subcommand() {
        Some(("mint", matches)) => mint(matches, surroundings),
        Some(("check", matches)) => check(matches, surroundings),
        _ => Err(Failure::usage("token: give mint or check; see `ringgate token --help`".to_owned())),
    }
}

fn mint(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    let signer = if let Some(path) = value(matches, "key-file") {
        Signer::from_private_pem(flags::read(path)?.as_bytes()).map_err(|error| key_error(path, error))?
    } else if let Some(secret) = value(matches, "secret").or_else(|| surroundings.env("JWT_SECRET")) {
        Signer::from_secret(secret.as_bytes()).map_err(|error| key_error("--secret", error))?
    } else {
        return Err(Failure::usage("no key to sign with; give --secret or --key-file, or set JWT_SECRET".to_owned()));
    };
    let roles: Vec<&str> = matches.get_many::<String>("role").unwrap_or_default().map(String::as_str).collect();
    let named = ["sub", "username"].into_iter().filter_map(|name| value(matches, name).map(|text| (name, text)));
    for (name, text) in named.chain(roles.iter().map(|role| ("role", *role))) {
        if !is_user_id(text) {
            return Err(Failure::usage(format!(
                "--{name} {text:?}: expected 1–{} bytes without control characters",
                crate::limits::USER_ID_BYTES_MAX
            )));
        }
    }
    let ttl = value(matches, "ttl").unwrap_or_default();
    let ttl_s = parse_ttl(ttl).ok_or_else(|| {
        Failure::usage(format!("--ttl {ttl:?}: expected a number of s, m, h or d, or never; give e.g. --ttl 12h"))
    })?;
    let grant = Grant {
        sub: value(matches, "sub").unwrap_or_default(),
        username: value(matches, "username"),
        roles: &roles,
        exp: ttl_s.map(|ttl_s| surroundings.now.seconds().saturating_add(ttl_s)),
        nbf: None,
        iss: value(matches, "issuer"),
        aud: value(matches, "audience"),
    };
    Ok(format!("{}\n", signer.named(value(matches, "key-id")).mint(&grant)))
}

fn check(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    let by_file =
        |path: &str| Verifier::from_public_pem(flags::read(path)?.as_bytes()).map_err(|error| key_error(path, error));
    let by_secret =
        |secret: &str, name: &str| Verifier::from_secret(secret.as_bytes()).map_err(|error| key_error(name, error));
    let ca_path = surroundings.env("RINGGATE_AUTH_JWT_JWKS_CA_PATH");
    let by_set = |text: &str, name: &str| {
        let source = Source::of(text, ca_path)
            .ok_or_else(|| Failure::usage(format!("{name} {text:?}: expected a path, or a URL https://HOST/PATH")))?;
        source.read().map(Verifier::from_set).map_err(|error| Failure::usage(format!("{name} {error}")))
    };
    let verifier = if let Some(path) = value(matches, "key-file") {
        by_file(path)?
    } else if let Some(text) = value(matches, "jwks") {
        by_set(text, "--jwks")?
    } else if let Some(secret) = value(matches, "secret") {
        by_secret(secret, "--secret")?
    } else if let Some(path) = surroundings.env("JWT_PUBLIC_KEY_PATH") {
        by_file(path)?
    } else if let Some(text) = surroundings.env("JWT_JWKS") {
        by_set(text, "JWT_JWKS")?
    } else if let Some(secret) = surroundings.env("JWT_SECRET") {
        by_secret(secret, "JWT_SECRET")?
    } else {
        return Err(Failure::usage(
            "no key to check with; give --secret, --key-file or --jwks, or set JWT_SECRET, JWT_PUBLIC_KEY_PATH or JWT_JWKS"
                .to_owned(),
        ));
    };
    let verifier = verifier.requiring(value(matches, "issuer"), value(matches, "audience"));
    let token = match value(matches, "token") {
        Some(token) if token != "-" => token.to_owned(),
        _ => flags::read("-")?,
    };
    let claims =
        verifier.verify(token.trim(), surroundings.now).map_err(|error| Failure::new(format!("refused: {error}")))?;
    let algorithm = verifier.algorithm_of(token.trim()).expect("the token has been verified by it");
    Ok(shown(&claims, algorithm.name(), surroundings))
}

fn shown(claims: &Claims, algorithm: &str, surroundings: &Surroundings) -> String {
    let now_s = surroundings.now.seconds();
    let expires = match claims.expires_at {
        u64::MAX => "never".to_owned(),
        // A date beyond the year 9999 has no RFC 3339 form.
        at if at > YEAR_9999_S => format!("in {} s", at - now_s),
        at => format!("{}, in {} s", crate::time::WallMillis(at * 1000).rfc3339(), at.saturating_sub(now_s)),
    };
    format!(
        "valid      {algorithm}\nuser       {}\nusername   {}\nroles      {}\nexpires    {expires}\n",
        claims.user,
        claims.username,
        claims.roles.join(", ")
    )
}

fn value<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn key_error(place: &str, error: KeyError) -> Failure {
    Failure::usage(format!("{place}: {error}"))
}

/// Seconds; `Some(None)` = never. A number without a unit counts seconds.
fn parse_ttl(text: &str) -> Option<Option<u64>> {
    if text == "never" {
        return Some(None);
    }
    let (number, unit_s) = match text.char_indices().last()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], 86_400),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit_s).map(Some)
}

const YEAR_9999_S: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    /// Lifetimes are numbers with a unit; nonsense and overflow are refused.
    #[test]
    fn lifetimes_are_parsed() {
        for (text, expected) in [
            ("90s", Some(Some(90))),
            ("15m", Some(Some(900))),
            ("12h", Some(Some(43_200))),
            ("30d", Some(Some(2_592_000))),
            ("7", Some(Some(7))),
            ("never", Some(None)),
            ("", None),
            ("h", None),
            ("-1s", None),
            ("1.5h", None),
            ("1w", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(parse_ttl(text), expected, "{text}");
        }
    }
}
