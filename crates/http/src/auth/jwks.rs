//! JSON Web Key Sets (RFC 7517): the keys of a set that can verify tokens.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::Deserialize;
use serde_json::Value;

use super::jwt_key::JwtKey;
use super::keyring::NamedKey;

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// The members of a key that are used here. Which of them are present depends on `kty`.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    k: Option<String>,
}

/// The usable keys of a set, with their `kid`, and the number of other keys: issuers also publish keys for encryption and
/// keys of other algorithms. The error completes "the file, which ...".
pub(super) fn parse(text: &[u8]) -> Result<(Vec<NamedKey>, usize), String> {
    let document: JwkSet =
        serde_json::from_slice(text).map_err(|error| format!("is not a JWK set: {error}"))?;
    let all = document.keys.len();
    let usable: Vec<_> = document.keys.into_iter().filter_map(usable).collect();
    let others = all - usable.len();
    if usable.is_empty() {
        return Err(format!(
            "has no usable key among {all}: RSA of at least 2048 bits, Ed25519, or `oct` of at least 32 bytes"
        ));
    }
    Ok((usable, others))
}

fn usable(key: Value) -> Option<NamedKey> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let verifies = jwk
        .key_ops
        .as_ref()
        .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !signs || !verifies {
        return None;
    }
    let is_for = |alg: &str| jwk.alg.as_deref().is_none_or(|given| given == alg);
    let decode = |member: Option<String>| BASE64_URL_SAFE_NO_PAD.decode(member?).ok();
    let key = match jwk.kty.as_str() {
        "RSA" if is_for("RS256") => JwtKey::rsa(&decode(jwk.n)?, &decode(jwk.e)?),
        "OKP" if is_for("EdDSA") && jwk.crv.as_deref() == Some("Ed25519") => {
            JwtKey::ed25519(&decode(jwk.x)?)
        }
        "oct" if is_for("HS256") => JwtKey::secret(&decode(jwk.k)?),
        _ => None,
    }?;
    Some((jwk.kid, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn usable_keys_are_found_among_others() {
        // The modulus of a key that is too short: 1024 bits.
        let short = "x".repeat(170) + "w";
        let long = "x".repeat(341) + "w";
        let secret = "c".repeat(43);
        for (keys, usable) in [
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}"}}"#),
                true,
            ),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}","use":"sig","alg":"EdDSA"}}"#),
                true,
            ),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}","use":"enc"}}"#),
                false,
            ),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}","alg":"HS256"}}"#),
                false,
            ),
            (
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED}","key_ops":["sign"]}}"#),
                false,
            ),
            (
                format!(r#"{{"kty":"OKP","crv":"X25519","x":"{ED}"}}"#),
                false,
            ),
            (
                r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
                false,
            ),
            (format!(r#"{{"kty":"RSA","n":"{long}","e":"AQAB"}}"#), true),
            (
                format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#),
                false,
            ),
            (format!(r#"{{"kty":"RSA","n":"{long}","e":"AQ"}}"#), false),
            (
                format!(r#"{{"kty":"RSA","n":"{long}","e":"AQAB","alg":"PS256"}}"#),
                false,
            ),
            (format!(r#"{{"kty":"oct","k":"{secret}"}}"#), true),
            (r#"{"kty":"oct","k":"c2hvcnQ"}"#.to_owned(), false),
            (
                r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.to_owned(),
                false,
            ),
            ("7".to_owned(), false),
        ] {
            let alone = parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes());
            assert_eq!(alone.is_ok(), usable, "{keys}");
            let beside = format!(r#"{{"keys":[{keys},{{"kty":"oct","kid":"k","k":"{secret}"}}]}}"#);
            let (found, others) = parse(beside.as_bytes()).unwrap();
            assert_eq!((found.len(), others), if usable { (2, 0) } else { (1, 1) });
            assert_eq!(found.last().unwrap().0.as_deref(), Some("k"));
        }
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_have_one_spelling() {
        let parsed = |x: &str| {
            let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
            parse(set.as_bytes())
        };
        assert!(parsed(ED).is_ok());
        for bad in [
            // The bits of the last digit that belong to no byte must be zero.
            &ED.replace("URo", "URp"),
            &ED.replace('_', "/"),
            &ED.replace('_', " "),
            &format!("{ED}="),
            &format!("{ED}A"),
            &format!("{ED} "),
            &format!("{ED}\u{e9}"),
            &ED[1..],
            "",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
