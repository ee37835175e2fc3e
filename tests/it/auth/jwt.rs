//! JWTs, their keys and their claims.

use super::*;

fn claims() -> Value {
    json!({"sub": "uss", "scope": "openid read", "exp": NOON + 3600, "nbf": NOON - 3600, "iss": "https://id.example", "aud": ["headcount", "other"]})
}

/// The valid claims with one claim changed, or removed if the value is null.
fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    match value {
        Value::Null => members.remove(name),
        value => members.insert(name.to_owned(), value),
    };
    claims
}

async fn app_for(signer: &Signer) -> App {
    let key = signer.verifying_key();
    App::start_with(&[
        ("jwt_key", key.as_str()),
        ("jwt_audience", "headcount"),
        ("jwt_issuer", "https://id.example"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn jwts_are_verified_by_key_regardless_of_the_header() {
    let (hmac, rsa, ed) = (Signer::hs256(SECRET), Signer::rs256(), Signer::eddsa());
    for signer in [&hmac, &rsa, &ed] {
        let app = app_for(signer).await;
        let status = async |token: &str| {
            let response = send_as(
                &app,
                "GET",
                "/v1/segments",
                Some(&format!("Bearer {token}")),
            )
            .await;
            if response.status == 401 {
                assert_eq!(response.problem().1, "invalid_token");
            }
            response.status
        };
        assert_eq!(status(&signer.token(&claims())).await, 200);
        // The second request uses the cached verification.
        assert_eq!(status(&signer.token(&claims())).await, 200);

        // Signatures by other keys, whatever algorithm the header names.
        for other in [
            &hmac,
            &rsa,
            &ed,
            &Signer::rs256(),
            &Signer::eddsa(),
            &Signer::hs256(&SECRET.to_uppercase()),
        ] {
            if std::ptr::eq(other, signer) {
                continue;
            }
            assert_eq!(status(&other.token(&claims())).await, 401);
            for alg in ["HS256", "RS256", "EdDSA"] {
                assert_eq!(
                    status(&other.token_with(&json!({"alg": alg}), &claims())).await,
                    401,
                    "{alg}"
                );
            }
        }
        // The public key as the secret of HS256: a verifier that trusts the header would accept it.
        let confusing = Signer::Hs256(signer.verifying_key().into_bytes());
        if !std::ptr::eq(signer, &hmac) {
            assert_eq!(status(&confusing.token(&claims())).await, 401);
            let trimmed = Signer::hs256(signer.verifying_key().trim_end());
            assert_eq!(status(&trimmed.token(&claims())).await, 401);
        }
        // No signature, and a valid signature under another algorithm name.
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let message = unsigned(&json!({"alg": alg, "typ": "JWT"}), &claims());
            assert_eq!(status(&format!("{message}.")).await, 401, "{alg}");
            assert_eq!(
                status(&signer.token_with(&json!({"alg": alg}), &claims())).await,
                401
            );
        }
        for alg in ["HS384", "HS512", "RS384", "PS256", "ES256"] {
            assert_eq!(
                status(&signer.token_with(&json!({"alg": alg}), &claims())).await,
                401,
                "{alg}"
            );
        }
        // A modified token is rejected even if the original was just verified.
        let good = signer.token(&claims());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let admin = unsigned(&json!({"alg": "HS256"}), &changed("scope", json!("admin")));
        for bad in [
            format!("{admin}.{signature}"),
            format!("{signed}."),
            signed.to_owned(),
            format!("{signed}.{}", "A".repeat(signature.len())),
            format!("{good}."),
            format!("{good}A"),
            ".".into(),
            "..".into(),
            "...".into(),
        ] {
            assert_eq!(status(&bad).await, 401, "{bad}");
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_checked_on_each_request() {
    let signer = Signer::hs256(SECRET);
    let app = app_for(&signer).await;
    let send = async |claims: &Value| {
        let bearer = format!("Bearer {}", signer.token(claims));
        let response = send_as(&app, "GET", "/v1/segments", Some(&bearer)).await;
        let detail = response.json["detail"].as_str().unwrap_or("").to_owned();
        (response.status, detail)
    };
    for (name, value, status, detail) in [
        ("exp", Value::Null, 401, "`exp`"),
        ("exp", json!("tomorrow"), 401, "wrong type"),
        ("exp", json!(-1), 401, "`exp`"),
        ("exp", json!(0), 401, "expired"),
        ("exp", json!(NOON - 31), 401, "expired"),
        ("exp", json!(NOON - 30), 401, "expired"),
        // Within the allowed clock skew of 30 s.
        ("exp", json!(NOON - 29), 200, ""),
        ("exp", json!(NOON as f64 + 0.5), 200, ""),
        ("exp", json!(1e300), 401, "`exp`"),
        ("nbf", Value::Null, 200, ""),
        ("nbf", json!(NOON + 30), 200, ""),
        ("nbf", json!(NOON + 31), 401, "not valid yet"),
        ("nbf", json!("soon"), 401, "wrong type"),
        ("aud", json!("headcount"), 200, ""),
        ("aud", json!("another"), 401, "audience"),
        ("aud", json!(["another"]), 401, "audience"),
        ("aud", json!([]), 401, "audience"),
        ("aud", Value::Null, 401, "`aud`"),
        ("aud", json!(7), 401, "`aud`"),
        ("iss", json!("https://id.example/"), 401, "issuer"),
        ("iss", Value::Null, 401, "`iss`"),
        ("iss", json!({}), 401, "`iss`"),
        ("scope", Value::Null, 403, "scope read"),
        ("scope", json!(""), 403, "scope read"),
        ("scope", json!("reader READ write admin"), 403, "scope read"),
        ("scope", json!(["write", "read"]), 200, ""),
        ("scope", json!(7), 401, "wrong type"),
        ("sub", Value::Null, 200, ""),
    ] {
        let (given, message) = send(&changed(name, value.clone())).await;
        assert_eq!(given, status, "{name} {value}: {message}");
        assert!(message.contains(detail), "{name} {value}: {message}");
    }
    let critical = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let critical = format!("Bearer {}", signer.token_with(&critical, &claims()));
    assert_eq!(
        send_as(&app, "GET", "/v1/segments", Some(&critical))
            .await
            .status,
        401
    );

    // A cached token expires as well.
    assert_eq!(send(&claims()).await.0, 200);
    app.advance(3600 + 31);
    assert_eq!(send(&claims()).await.0, 401);
    app.stop().await;

    // A service without a configured audience rejects tokens with an audience (RFC 7519, section 4.1.3).
    let app = App::start_with(&[("jwt_key", SECRET)]).await;
    for (claims, status) in [(claims(), 401), (changed("aud", Value::Null), 200)] {
        let bearer = format!("Bearer {}", signer.token(&claims));
        assert_eq!(
            send_as(&app, "GET", "/v1/segments", Some(&bearer))
                .await
                .status,
            status
        );
    }
    app.stop().await;
}

#[test]
fn weak_keys_and_invalid_auth_settings_are_rejected() {
    let rsa = Signer::rs256().verifying_key();
    let ed = Signer::eddsa().verifying_key();
    for good in [SECRET, rsa.as_str(), ed.as_str()] {
        assert!(Settings::with([("jwt_key", good)]).is_ok(), "{good}");
    }
    // An RSA key of 1024 bits is too short.
    let short_rsa = pem("RSA PUBLIC KEY", &der_of_short_rsa());
    for bad in [
        "too short",
        "-----BEGIN PUBLIC KEY-----\nnonsense that is long enough\n-----END PUBLIC KEY-----\n",
        short_rsa.as_str(),
        &rsa.replace("PUBLIC KEY", "PRIVATE KEY"),
        &rsa.replace("PUBLIC KEY", "CERTIFICATE"),
        &rsa.replace("PUBLIC KEY", "EC PUBLIC KEY"),
    ] {
        let error = Settings::with([("jwt_key", bad)]).unwrap_err().to_string();
        assert!(
            error.starts_with("setting `jwt_key` is *** (program): give "),
            "{error}"
        );
        assert!(!error.contains(bad), "{error}");
    }
    for (given, name) in [
        (&[("jwt_audience", "x")][..], "jwt_audience"),
        (&[("jwt_issuer", "x")], "jwt_issuer"),
        (&[("limit_pairs", "5")], "limit_pairs"),
        (&[("jwt_key", SECRET), ("limit_pairs", "0")], "limit_pairs"),
        (
            &[("jwt_key", SECRET), ("limit_requests", "10000001")],
            "limit_requests",
        ),
        (&[("jwt_key", SECRET), ("auth", "off")], "auth"),
        (&[("tokens_file", "x"), ("auth", "off")], "auth"),
        (&[("auth", "on")], "auth"),
        (&[("cors_origins", "app.example")], "cors_origins"),
        (&[("cors_origins", "https://app.example/")], "cors_origins"),
        (&[("cors_origins", "https://App.example")], "cors_origins"),
        (&[("cors_origins", "null")], "cors_origins"),
        (&[("cors_origins", "*,https://app.example")], "cors_origins"),
        (&[("cors_origins", "file:///x")], "cors_origins"),
        (&[("cors_origins", "*")], "cors_origins"),
    ] {
        let error = Settings::with(given.iter().copied())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("setting `{name}` is ")),
            "{error}"
        );
    }
}

/// A DER SEQUENCE of a modulus of 1024 bits and the exponent 65537.
fn der_of_short_rsa() -> Vec<u8> {
    let mut modulus = vec![0xc5; 128];
    modulus[127] |= 1;
    let integer =
        |bytes: &[u8]| [&[0x02, 0x81, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let body = [
        integer(&[&[0][..], &modulus].concat()),
        vec![0x02, 0x03, 0x01, 0x00, 0x01],
    ]
    .concat();
    [&[0x30, 0x81, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}
