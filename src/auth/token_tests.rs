//! Tests of tokens: algorithms, keys, claims, times.

use super::*;
use crate::auth::{Grant, Signer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const RSA: &[u8] = include_bytes!("../../tests/keys/rs256_public.pem");
const NOW: WallMillis = WallMillis(1_700_000_000_000);
const NOW_S: u64 = NOW.0 / 1000;

fn verifier() -> Verifier {
    Verifier::from_secret(SECRET).unwrap()
}

fn grant() -> Grant<'static> {
    Grant { sub: "42", username: Some("Ada"), roles: &["user", "publisher"], exp: Some(NOW_S + 60), ..Grant::default() }
}

fn mint(grant: &Grant<'_>) -> String {
    Signer::from_secret(SECRET).unwrap().mint(grant)
}

/// A token with exactly these header and claims, properly signed with HS256 and the secret.
fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn claims(json: &str) -> Result<Claims, TokenError> {
    verifier().verify(&signed(r#"{"alg":"HS256"}"#, json, SECRET), NOW)
}

/// Each kind of key verifies what its private half signed, and no other key's tokens.
#[test]
fn every_algorithm_verifies_its_own_tokens_only() {
    let pairs: [(Signer, Verifier); 4] = [
        (Signer::from_secret(SECRET).unwrap(), verifier()),
        (
            Signer::from_private_pem(include_bytes!("../../tests/keys/rs256_private.pem")).unwrap(),
            Verifier::from_public_pem(RSA).unwrap(),
        ),
        (
            Signer::from_private_pem(include_bytes!("../../tests/keys/es256_private.pem")).unwrap(),
            Verifier::from_public_pem(include_bytes!("../../tests/keys/es256_public.pem")).unwrap(),
        ),
        (
            Signer::from_private_pem(include_bytes!("../../tests/keys/eddsa_private.pem")).unwrap(),
            Verifier::from_public_pem(include_bytes!("../../tests/keys/eddsa_public.pem")).unwrap(),
        ),
    ];
    for (i, (signer, _)) in pairs.iter().enumerate() {
        let token = signer.mint(&grant());
        for (j, (_, verifier)) in pairs.iter().enumerate() {
            let outcome = verifier.verify(&token, NOW);
            if i == j {
                let claims = outcome.unwrap();
                assert_eq!((&*claims.user, &*claims.username), ("42", "Ada"));
                assert_eq!(claims.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["user", "publisher"]);
                assert_eq!(claims.expires_at, NOW_S + 60);
            } else {
                assert_eq!(outcome, Err(TokenError::WrongAlgorithm), "{:?}", signer.algorithm());
            }
        }
    }
    let pkcs1 = Verifier::from_public_pem(include_bytes!("../../tests/keys/rs256_public_pkcs1.pem")).unwrap();
    assert!(pkcs1.verify(&pairs[1].0.mint(&grant()), NOW).is_ok());
}

/// The token cannot choose the algorithm: not `none`, not HS256 with the RSA public key as the secret, not HS512.
#[test]
fn algorithm_confusion_is_refused() {
    let body = r#"{"sub":"1"}"#;
    let rsa = Verifier::from_public_pem(RSA).unwrap();
    assert_eq!(rsa.verify(&signed(r#"{"alg":"HS256"}"#, body, RSA), NOW), Err(TokenError::WrongAlgorithm));
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(body));
        for token in [unsigned, signed(&header, body, SECRET)] {
            assert_eq!(verifier().verify(&token, NOW), Err(TokenError::Malformed), "{none}");
            assert_eq!(rsa.verify(&token, NOW), Err(TokenError::Malformed), "{none}");
        }
    }
    for other in ["HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        let token = signed(&format!(r#"{{"alg":"{other}"}}"#), body, SECRET);
        assert_eq!(verifier().verify(&token, NOW), Err(TokenError::WrongAlgorithm), "{other}");
    }
    assert_eq!(Verifier::from_secret(RSA).unwrap_err(), KeyError::PemAsSecret);
}

/// A username that is the user id is kept in the same memory: most sessions have such a pair.
#[test]
fn equal_names_are_kept_once() {
    let same = claims(r#"{"sub":"ada","username":"ada"}"#).unwrap();
    assert!(std::sync::Arc::ptr_eq(&same.user, &same.username));
    assert_eq!(&*claims(r#"{"sub":"ada","username":"Ada"}"#).unwrap().username, "Ada");
}

/// A required header extension that nobody here knows is refused, though the signature holds.
#[test]
fn critical_extensions_are_refused() {
    let token = signed(r#"{"alg":"HS256","crit":["b64"],"b64":"no"}"#, r#"{"sub":"1"}"#, SECRET);
    assert_eq!(verifier().verify(&token, NOW), Err(TokenError::UnknownExtension));
}

/// `exp` ends and `nbf` begins a token at that very second, without leeway.
#[test]
fn time_bounds_are_exact() {
    let with = |exp, nbf| mint(&Grant { sub: "1", exp, nbf, ..Grant::default() });
    let verify = |token: &str, ms| verifier().verify(token, WallMillis(ms)).map(|claims| claims.expires_at);
    let expiring = with(Some(NOW_S), None);
    assert_eq!(verify(&expiring, NOW.0 - 1), Ok(NOW_S));
    assert_eq!(verify(&expiring, NOW.0), Err(TokenError::Expired));
    let beginning = with(None, Some(NOW_S));
    assert_eq!(verify(&beginning, NOW.0 - 1), Err(TokenError::NotYetValid));
    assert_eq!(verify(&beginning, NOW.0), Ok(u64::MAX));
    assert_eq!(verify(&with(Some(u64::MAX), None), NOW.0), Ok(u64::MAX));
    assert_eq!(verify(&with(Some(0), None), 0), Err(TokenError::Expired));
    assert_eq!(claims(r#"{"sub":"1","exp":1700000000.9}"#).unwrap_err(), TokenError::Expired);
    assert_eq!(claims(r#"{"sub":"1","exp":-5}"#).unwrap_err(), TokenError::Expired);
    for bad in [r#""1800000000""#, "null", "[]", "true"] {
        assert_eq!(claims(&format!(r#"{{"sub":"1","exp":{bad}}}"#)).unwrap_err(), TokenError::BadClaim("exp"), "{bad}");
        assert_eq!(claims(&format!(r#"{{"sub":"1","nbf":{bad}}}"#)).unwrap_err(), TokenError::BadClaim("nbf"), "{bad}");
    }
}

/// The user id is a text or a whole number in bounds; the name falls back to it; roles to none.
#[test]
fn claims_are_bounded_and_have_defaults() {
    let user = |json: &str| claims(json).map(|claims| (claims.user.to_string(), claims.username.to_string()));
    let both = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(user(r#"{"sub":"u1"}"#), both("u1", "u1"));
    assert_eq!(user(r#"{"sub":123,"name":"N"}"#), both("123", "N"));
    assert_eq!(user(r#"{"sub":-7,"username":"U","name":"N"}"#), both("-7", "U"));
    assert_eq!(user(r#"{"sub":18446744073709551615,"username":null,"name":""}"#), {
        both("18446744073709551615", "18446744073709551615")
    });
    assert!(claims(r#"{"sub":"1","roles":null}"#).unwrap().roles.is_empty());
    let longest = "x".repeat(limits::USER_ID_BYTES_MAX);
    assert!(user(&format!(r#"{{"sub":"{longest}"}}"#)).is_ok());
    for sub in [r#""""#, r#""a\nb""#, r#""a\u0000""#, r#""\u0085""#, "1.5", "null", "true", &format!(r#""{longest}x""#)]
    {
        assert_eq!(user(&format!(r#"{{"sub":{sub}}}"#)), Err(TokenError::BadClaim("sub")), "{sub:.30}");
    }
    assert_eq!(user("{}"), Err(TokenError::BadClaim("sub")));
    assert_eq!(user(r#"{"sub":"1","username":"a\tb"}"#), Err(TokenError::BadClaim("username")));
    assert_eq!(user(r#"{"sub":"1","name":7}"#), Err(TokenError::BadClaim("name")));
    let many = vec![r#""r""#; limits::ROLES_MAX + 1].join(",");
    for roles in [r#""admin""#, "[1]", r#"[""]"#, r#"["a\nb"]"#, "{}", &format!("[{many}]")] {
        let outcome = claims(&format!(r#"{{"sub":"1","roles":{roles}}}"#));
        assert_eq!(outcome.unwrap_err(), TokenError::BadClaim("roles"), "{roles:.30}");
    }
    assert_eq!(user(r#"{"sub":"1","sub":"2"}"#), Err(TokenError::Malformed));
}

/// Issuer and audience count only if the verifier requires them, and then must be there.
#[test]
fn issuer_and_audience_are_checked_when_required() {
    let token = |json: &str| signed(r#"{"alg":"HS256"}"#, json, SECRET);
    let strict = verifier().requiring(Some("me"), Some("game"));
    let outcome = |json: &str| strict.verify(&token(json), NOW).map(|_| ());
    assert_eq!(outcome(r#"{"sub":"1","iss":"me","aud":"game"}"#), Ok(()));
    assert_eq!(outcome(r#"{"sub":"1","iss":"me","aud":["web","game"]}"#), Ok(()));
    assert_eq!(outcome(r#"{"sub":"1","aud":"game"}"#), Err(TokenError::WrongIssuer));
    assert_eq!(outcome(r#"{"sub":"1","iss":"you","aud":"game"}"#), Err(TokenError::WrongIssuer));
    assert_eq!(outcome(r#"{"sub":"1","iss":"me"}"#), Err(TokenError::WrongAudience));
    assert_eq!(outcome(r#"{"sub":"1","iss":"me","aud":["web"]}"#), Err(TokenError::WrongAudience));
    assert_eq!(outcome(r#"{"sub":"1","iss":"me","aud":7}"#), Err(TokenError::BadClaim("aud")));
    assert!(claims(r#"{"sub":"1","iss":"anyone","aud":"anything"}"#).is_ok());
}

/// Changed, truncated, misencoded and huge tokens are refused with the fitting reason.
#[test]
fn damaged_tokens_are_refused() {
    let token = mint(&grant());
    let parts: Vec<&str> = token.split('.').collect();
    let forged = URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#);
    let verify = |token: &str| verifier().verify(token, NOW).map(|_| ());
    assert_eq!(verify(&format!("{}.{forged}.{}", parts[0], parts[2])), Err(TokenError::BadSignature));
    assert_eq!(verify(&format!("{}.{}.", parts[0], parts[1])), Err(TokenError::BadSignature));
    assert_eq!(
        verify(&signed(r#"{"alg":"HS256"}"#, r#"{"sub":"1"}"#, b"another secret")),
        Err(TokenError::BadSignature)
    );
    for bad in
        ["", ".", "..", "a.b.c", "a.b", &format!("{token}=="), &format!("{token}.x"), &format!(" {token}"), "ä.ö.ü"]
    {
        assert_eq!(verify(bad), Err(TokenError::Malformed), "{bad}");
    }
    assert_eq!(verify(&signed(r#"{"alg":"HS256"}"#, "[1]", SECRET)), Err(TokenError::Malformed));
    assert_eq!(verify(&signed(r#"{"alg":"HS256"}"#, "not json", SECRET)), Err(TokenError::Malformed));
    assert_eq!(verify(&"x".repeat(limits::TOKEN_BYTES_MAX + 1)), Err(TokenError::TooLong));
    let deep = "[".repeat(limits::TOKEN_BYTES_MAX / 2);
    assert_eq!(verify(&format!("{}.e30.e30", URL_SAFE_NO_PAD.encode(&deep))), Err(TokenError::Malformed));
    let nested = signed(r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":"1","x":{deep}"#), SECRET);
    assert_eq!(verify(&nested), Err(TokenError::Malformed));
}

/// Key material that cannot be used is refused when it is loaded, with the reason.
#[test]
fn unfit_keys_are_refused_at_once() {
    let public = |pem: &[u8]| Verifier::from_public_pem(pem).unwrap_err();
    assert_eq!(public(include_bytes!("../../tests/keys/rs256_private.pem")), KeyError::PrivateKey);
    assert_eq!(public(include_bytes!("../../tests/keys/es384_public.pem")), KeyError::Unsupported);
    assert_eq!(public(include_bytes!("../../tests/keys/rs256_short_public.pem")), KeyError::ShortRsa);
    assert_eq!(public(b"secret"), KeyError::Unsupported);
    assert_eq!(public(&[0xff, 0xfe]), KeyError::Unsupported);
    // An Ed25519 key cut to 2 bytes, which the library would index out of bounds.
    assert_eq!(
        public(b"-----BEGIN PUBLIC KEY-----\nMAwwBQYDK2VwAwMAAQI=\n-----END PUBLIC KEY-----\n"),
        KeyError::Unsupported
    );
    assert_eq!(Verifier::from_secret(b"").unwrap_err(), KeyError::EmptySecret);
    assert_eq!(Signer::from_private_pem(RSA).unwrap_err(), KeyError::PublicKey);
    assert_eq!(Signer::from_private_pem(b"x").unwrap_err(), KeyError::Unsupported);
}

/// Neither errors nor debug forms show the key.
#[test]
fn keys_are_never_printed() {
    let shown = format!("{:?} {:?}", verifier(), Signer::from_secret(SECRET).unwrap());
    assert!(!shown.contains("0123") && !shown.contains("48, 49"), "{shown}");
}

proptest! {
    /// Nothing a peer sends as a token panics, and nothing but the signer's tokens passes.
    #[test]
    fn random_tokens_never_pass(a in ".{0,40}", b in prop::collection::vec(any::<u8>(), 0..60), c in ".{0,40}") {
        let verifier = verifier();
        prop_assert!(verifier.verify(&a, NOW).is_err());
        let framed = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(&b), c);
        prop_assert!(verifier.verify(&framed, NOW).is_err());
    }

    /// A token with one byte changed never says something else than before.
    #[test]
    fn a_changed_byte_never_passes_as_another_claim(at in 0usize..200, with in 0u8..128) {
        let token = mint(&grant());
        let mut changed = token.clone().into_bytes();
        let at = at % changed.len();
        changed[at] = with;
        let changed = String::from_utf8(changed).unwrap();
        if changed != token {
            prop_assert!(verifier().verify(&changed, NOW).is_err());
        }
    }

    /// Signed claims of any shape never panic; those that pass are in bounds.
    #[test]
    fn signed_claims_stay_in_bounds(sub in ".{0,300}", exp: Option<u64>, now: u64) {
        let token = mint(&Grant { sub: &sub, exp, ..Grant::default() });
        if let Ok(claims) = verifier().verify(&token, WallMillis(now)) {
            prop_assert!(!claims.user.is_empty() && claims.user.len() <= limits::USER_ID_BYTES_MAX);
            prop_assert!(claims.expires_at.saturating_mul(1000) > now);
        }
    }
}
