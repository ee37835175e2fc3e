//! Fuzz targets: tokens files and JWTs.

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;

use super::*;
use domain::{Secret, Timestamp};
use fuzzing::{Edit, edit, spell};

const FILE: &[&str] = &[
    "version = 1\n",
    "[[token]]\n",
    "name = \"uss\"\n",
    "name = \"b\"\n",
    "scopes = [\"read\", \"write\"]\n",
    "scopes = []\n",
    "sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
    "sha256 = \"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B856\"\n",
    "created = \"2026-11-21T08:00:00Z\"\n",
    "expires = \"2027-11-21T08:00:00.5+01:00\"\n",
    "requests_per_second = 10\n",
    "pairs_per_second = 4294967295\n",
    "version = 2\n",
    "token = []\n",
    "\"\"\"",
    "{",
    "é",
];

/// A token that is valid but for its missing scopes, so that many inputs are valid files.
const TOKEN: &str = "version = 1\n[[token]]\nname = \"uss\"\ncreated = \"2026-11-21T08:00:00Z\"\n\
    sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n";

/// A parsed file is rendered to a file that parses to the same tokens.
#[test]
fn tokens_files() {
    bolero::check!()
        .with_type::<(Vec<u8>, bool)>()
        .for_each(|(input, begun)| {
            let mut file = if *begun {
                TOKEN.as_bytes().to_vec()
            } else {
                Vec::new()
            };
            file.extend(spell(input, FILE));
            let Ok(tokens) = Tokens::parse(&file) else {
                return;
            };
            for token in tokens.iter() {
                assert!(!token.scopes.is_empty() && !token.name.is_empty());
            }
            assert_eq!(
                Tokens::parse(tokens.render().unwrap().as_bytes()),
                Ok(tokens)
            );
        });
}

const SECRET: &str = "a secret of more than thirty-two bytes";
const NOW: i64 = 1_800_000_000;

fn sign(header: &[u8], claims: &[u8]) -> String {
    let base64url = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", base64url(signature.as_ref()))
}

fn checker() -> Jwts {
    let settings = JwtSettings {
        keys: JwtKeys::One(JwtKey::parse(&Secret::new(SECRET)).unwrap()),
        audience: Some("headcount".into()),
        issuer: None,
        max_age: None,
    };
    Jwts::open(&settings, Rates::default(), &Arc::default()).unwrap()
}

fn check(jwts: &Jwts, token: &str) -> Result<Caller, Invalid> {
    let now = Timestamp::from_second(NOW).unwrap();
    jwts.check(token, &Digest::of(token.as_bytes()), now)
}

const CLAIMS: &[&str] = &[
    "{\"aud\":\"headcount\",",
    "\"exp\":1800000001,",
    "\"exp\":1799999970.5",
    "\"exp\":1e999,",
    "\"exp\":\"1800000001\",",
    "\"nbf\":1800000030,",
    "\"nbf\":null,",
    "\"scope\":\"read write other\"}",
    "\"scope\":[\"admin\"],",
    "\"scope\":{},",
    "\"sub\":\"uss\"}",
    "\"sub\":\"\\u0000\\n\",",
    "\"aud\":[\"x\",\"headcount\"],",
    "\"iss\":[],",
    "{\"alg\":\"HS256\"}",
    "{\"alg\":\"none\"}",
    "{\"alg\":\"RS256\",\"crit\":[\"exp\"]}",
    "\"crit\":[],",
    "null",
    "}",
];

/// Arbitrary claims with a valid signature: only tokens with valid claims are accepted.
#[test]
fn signed_claims() {
    let jwts = checker();
    let jwts = std::panic::AssertUnwindSafe(&jwts);
    bolero::check!()
        .with_type::<(Vec<u8>, Option<Vec<u8>>)>()
        .for_each(move |(claims, header)| {
            let claims = spell(claims, CLAIMS);
            let header = header
                .as_ref()
                .map_or(b"{\"alg\":\"HS256\"}".to_vec(), |header| {
                    spell(header, CLAIMS)
                });
            let Ok(caller) = check(&jwts, &sign(&header, &claims)) else {
                return;
            };
            let header: Value = serde_json::from_slice(&header).unwrap();
            assert_eq!(header["alg"], "HS256");
            assert!(header["crit"].is_null(), "{header}");
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            assert!(claims["exp"].as_f64().unwrap() > NOW as f64 - 30.0);
            assert!(
                claims["nbf"]
                    .as_f64()
                    .is_none_or(|from| from <= NOW as f64 + 30.0)
            );
            let mut audiences = claims["aud"]
                .as_array()
                .cloned()
                .unwrap_or_else(|| vec![claims["aud"].clone()]);
            audiences.retain(|audience| audience == "headcount");
            assert!(!audiences.is_empty());
            let scopes = match &claims["scope"] {
                Value::String(text) => text.split(' ').map(str::to_owned).collect(),
                Value::Array(list) => list
                    .iter()
                    .filter_map(|scope| Some(scope.as_str()?.to_owned()))
                    .collect(),
                _ => Vec::new(),
            };
            for scope in Scope::ALL {
                assert_eq!(
                    caller.scopes.contains(scope),
                    scopes.iter().any(|name| name == scope.as_str())
                );
            }
            assert!(!caller.name.contains(char::is_control));
        });
}

/// No string but the signed token is accepted.
#[test]
fn tampered_tokens() {
    let jwts = checker();
    let claims = format!(
        "{{\"aud\":\"headcount\",\"exp\":{},\"scope\":\"read\"}}",
        NOW + 60
    );
    let token = sign(b"{\"alg\":\"HS256\"}", claims.as_bytes());
    assert!(check(&jwts, &token).is_ok());
    let shared = std::panic::AssertUnwindSafe((&jwts, &token));
    bolero::check!()
        .with_type::<(Vec<Edit>, Vec<u8>)>()
        .for_each(move |(edits, other)| {
            let (jwts, token) = *shared;
            let mut tampered = token.clone().into_bytes();
            edit(&mut tampered, edits);
            for text in [
                tampered,
                spell(other, &["eyJhbGciOiJIUzI1NiJ9", ".", "e30", "=", "é"]),
            ] {
                let Ok(text) = String::from_utf8(text) else {
                    continue;
                };
                assert_eq!(check(jwts, &text).is_ok(), text == *token, "{text}");
            }
        });
}
