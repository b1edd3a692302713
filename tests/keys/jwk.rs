//! The key files beside this one, as a provider publishes and uses them: JWKs of the public halves, tokens of the private.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ringgate::auth::{Grant, Signer};

fn read(file: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/keys/{file}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The JWK of the public half of `rs256`, `es256` or `eddsa`, under a name.
pub fn jwk(file: &str, kid: &str) -> String {
    let text = read(&format!("{file}_public"));
    let der = STANDARD.decode(text.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    // The number that is so many bytes long and ends so far before the end.
    let part =
        |bytes: usize, behind: usize| URL_SAFE_NO_PAD.encode(&der[der.len() - behind - bytes..der.len() - behind]);
    match file {
        // SubjectPublicKeyInfo ends with the modulus and, 02 03 01 00 01, the exponent.
        "rs256" => {
            format!(r#"{{"kty":"RSA","kid":"{kid}","use":"sig","alg":"RS256","n":"{}","e":"AQAB"}}"#, part(256, 5))
        }
        "es256" => {
            format!(r#"{{"kty":"EC","kid":"{kid}","crv":"P-256","x":"{}","y":"{}"}}"#, part(32, 32), part(32, 0))
        }
        _ => format!(r#"{{"kty":"OKP","kid":"{kid}","crv":"Ed25519","x":"{}"}}"#, part(32, 0)),
    }
}

/// A JWK Set.
pub fn set(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A token of `ada`, signed with the private half, whose header names a key or none.
pub fn token(file: &str, kid: Option<&str>) -> String {
    let signer = Signer::from_private_pem(read(&format!("{file}_private")).as_bytes()).unwrap().named(kid);
    signer.mint(&Grant { sub: "ada", ..Grant::default() })
}
