//! Tests of key sets: published vectors, rotation by name, what is left out and what is refused.

use super::*;
use crate::auth::published::{self, jwk, token};
use crate::auth::{Grant, Signer, TokenError, Verifier};
use crate::time::WallMillis;
use proptest::prelude::*;

const NOW: WallMillis = WallMillis(1_700_000_000_000);
/// RFC 7515 appendix A.2.1, the public members.
const RSA: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB""#;
/// RFC 7515 appendix A.3.1.
const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
/// RFC 8037 appendix A.2.
const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

fn set(keys: &[String]) -> Result<KeySet, KeySetError> {
    KeySet::parse(published::set(keys).as_bytes())
}

fn with(key: &str, more: &str) -> String {
    format!("{key}{more}}}")
}

/// The RFCs' own keys check the RFCs' own signatures: the claims of RFC 7515 are reached (they name no sub), and a
/// changed signature is not believed.
#[test]
fn the_vectors_of_the_rfcs_hold() {
    // RFC 7515 A.2.1 and A.3.1; the payload is {"iss":"joe", "exp":1300819380, "http://example.com/is_root":true}.
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rsa = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let ec = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let verifier = Verifier::from_set(set(&[with(RSA, ""), with(EC, ""), with(ED, "")]).unwrap());
    let before = WallMillis(1_300_000_000_000);
    for (header, signature) in [("eyJhbGciOiJSUzI1NiJ9", rsa), ("eyJhbGciOiJFUzI1NiJ9", ec)] {
        let token = format!("{header}.{payload}.{signature}");
        assert_eq!(verifier.verify(&token, before), Err(TokenError::BadClaim("sub")));
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Expired));
        let changed = format!("{header}.{payload}.{}", signature.replacen(&signature[3..4], "_", 1));
        assert_eq!(verifier.verify(&changed, before), Err(TokenError::BadSignature));
    }
    // RFC 8037 A.4 signs no claims; that it is found malformed and not badly signed shows that the signature holds.
    let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(verifier.verify(signed, NOW), Err(TokenError::Malformed));
    let changed = signed.replace(".hgyY", ".hgyZ");
    assert_eq!(verifier.verify(&changed, NOW), Err(TokenError::BadSignature));
}

/// A token is checked with the key it names, whatever else the set has; one that names none only where there is no
/// choice; and one that names a stranger is told apart from a forged one.
#[test]
fn a_token_is_checked_with_the_key_it_names() {
    let old_and_new = [jwk("rs256", "old"), with(RSA, r#","kid":"new""#), jwk("es256", "e"), jwk("eddsa", "d")];
    let verifier = Verifier::from_set(set(&old_and_new).unwrap());
    for (file, kid) in [("rs256", "old"), ("es256", "e"), ("eddsa", "d")] {
        assert_eq!(&*verifier.verify(&token(file, Some(kid)), NOW).unwrap().user, "ada", "{file}");
    }
    assert_eq!(verifier.verify(&token("rs256", Some("new")), NOW), Err(TokenError::BadSignature));
    assert_eq!(verifier.verify(&token("rs256", Some("e")), NOW), Err(TokenError::WrongAlgorithm));
    assert_eq!(verifier.verify(&token("rs256", Some("newest")), NOW), Err(TokenError::UnknownKey));
    assert_eq!(verifier.verify(&token("rs256", None), NOW), Err(TokenError::UnnamedKey));
    assert!(verifier.verify(&token("es256", None), NOW).is_ok(), "there is no other of its algorithm");
    // The secret of HS256 can be no public key, whatever the token says.
    let forged = Signer::from_secret(b"0123456789abcdef0123456789abcdef").unwrap().named(Some("old"));
    let forged = forged.mint(&Grant { sub: "ada", ..Grant::default() });
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::WrongAlgorithm));
    // A set without names, as some are: names in tokens mean nothing to it.
    let unnamed = Verifier::from_set(set(&[jwk("rs256", "x").replace(r#""kid":"x","#, "")]).unwrap());
    assert!(unnamed.verify(&token("rs256", Some("any")), NOW).is_ok());
    assert!(unnamed.verify(&token("rs256", None), NOW).is_ok());
}

/// What cannot be used is left out with its reason, and the rest is used.
#[test]
fn what_cannot_be_used_is_left_out() {
    let short = with(r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTY","e":"AQAB""#, "");
    let rows = [
        (short, "shorter than 2048"),
        (with(RSA, r#","alg":"RS512""#), "\"RS512\""),
        (with(RSA, r#","use":"enc""#), "its use is \"enc\""),
        (with(RSA, r#","key_ops":["encrypt"]"#), "without verify"),
        (with(RSA, "").replace("AQAB", "AQ"), "make no key"),
        (with(EC, "").replace("P-256", "P-384"), "\"P-384\" is not"),
        // A point that is not on the curve.
        (with(EC, "").replace("x_FE", "x_FF"), "make no key"),
        (with(EC, "").replace("\"y\"", "\"z\""), "no \"y\""),
        (with(ED, "").replace("11qY", "1!qY"), "no base64url"),
        (with(ED, "").replace("11qY", ""), "make no key"),
        (with(ED, "").replace("Ed25519", "X25519"), "\"X25519\" is not"),
        (r#"{"kty":"oct","k":"AAAA"}"#.to_owned(), "JWT_SECRET"),
        (r#"{"kty":"post-quantum","x":"AA"}"#.to_owned(), "\"post-quantum\" is not"),
        (r#"{"kty":7}"#.to_owned(), "is none"),
        (r#""kty""#.to_owned(), "is none"),
        (jwk("eddsa", "good"), "an earlier key has its name"),
    ];
    let mut keys = vec![jwk("eddsa", "good")];
    keys.extend(rows.iter().map(|(key, _)| key.clone()));
    let set = set(&keys).unwrap();
    assert_eq!((set.len(), set.words().as_str()), (1, "EdDSA \"good\""));
    assert_eq!(set.skipped().len(), rows.len());
    for (skipped, (key, reason)) in set.skipped().iter().zip(&rows) {
        assert!(skipped.contains(reason), "{key}: {skipped}");
    }
}

/// What is no set, shows private halves, has nothing to use or is endless is refused in words; padding and leading zeros
/// of careless publishers are not.
#[test]
fn sets_that_cannot_be_used_are_refused() {
    for text in ["", "[]", "{}", "null", r#"{"keys":{}}"#, "-----BEGIN PUBLIC KEY-----", "\u{feff}{}", "{\"keys\":[1}"]
    {
        assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), KeySetError::Malformed, "{text:?}");
    }
    assert_eq!(KeySet::parse(&[0xff; 9]).unwrap_err(), KeySetError::Malformed);
    assert_eq!(set(&[]).unwrap_err().to_string(), "it has no keys");
    assert!(set(&[r#"{"kty":"oct","k":"AA"}"#.into()]).unwrap_err().to_string().contains("JWT_SECRET"));
    let private = set(&[jwk("rs256", "a"), with(ED, r#","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#)]);
    assert_eq!(private.unwrap_err(), KeySetError::PrivateKey(1));
    let long = " ".repeat(limits::KEY_SET_BYTES_MAX) + "{}";
    assert_eq!(KeySet::parse(long.as_bytes()).unwrap_err(), KeySetError::TooLong);
    let n = URL_SAFE_NO_PAD.decode(&RSA[RSA.find("ofgW").unwrap()..RSA.find("\",\"e\"").unwrap()]).unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([vec![0, 0], n].concat());
    assert!(set(&[format!(r#"{{"kty":"RSA","n":"{zeros}==","e":"AAEAAQ=="}}"#)]).is_ok());
    let many: Vec<_> = (0..=limits::KEY_SET_KEYS_MAX).map(|n| jwk("eddsa", &n.to_string())).collect();
    let many = set(&many).unwrap();
    assert_eq!((many.len(), many.skipped().len()), (limits::KEY_SET_KEYS_MAX, 1));
}

/// However deep a provider nests, where its keys are or where nobody looks, it is refused, and what the brackets of a text
/// say is no depth.
#[test]
fn depth_is_bounded() {
    let good = jwk("eddsa", "a");
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth| format!("{}0{}", open.repeat(depth), close.repeat(depth));
        for depth in [limits::JSON_DEPTH_MAX + 1, 20_000, 80_000] {
            let deep = nested(depth);
            for text in [format!(r#"{{"keys":[{deep},{good}]}}"#), format!(r#"{{"x":{deep},"keys":[{good}]}}"#), deep] {
                assert_eq!(KeySet::parse(text.as_bytes()).unwrap_err(), KeySetError::Malformed, "{open} {depth}");
            }
        }
        let flat = format!(r#"{{"x":{},"y":"\"{}","keys":[{good}]}}"#, nested(20), "[".repeat(100));
        assert_eq!(KeySet::parse(flat.as_bytes()).unwrap().len(), 1);
    }
}

proptest! {
    /// Nothing a provider sends makes it panic, and what it makes of a set is never more than the set.
    #[test]
    fn any_bytes_are_a_set_or_refused(text in r#"\{"keys":\[(\{("(kty|kid|n|e|x|y|d|crv|use|alg)":("(RSA|EC|OKP|AQAB|P-256|Ed25519|sig)"|[0-9]|null|\[\]),){0,6}"kty":"(RSA|EC|OKP)"\},?){0,3}\]\}"#, cut in 0..64usize) {
        for text in [&text[..], text.get(..text.len().saturating_sub(cut)).unwrap_or("")] {
            if let Ok(set) = KeySet::parse(text.as_bytes()) {
                prop_assert!((1..=3).contains(&set.len()));
            }
        }
    }
}
