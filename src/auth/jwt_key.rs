//! The key that JWTs are checked with. It alone says by which algorithm.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaParameters};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::config::Secret;

/// As long as the digest of HS256 (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// What a right key is, to complete "give ...".
const EXPECTED: &str = "a PEM public key, RSA of at least 2048 bits or Ed25519, or a secret for HS256 of at least 32 bytes";

/// A key, and the one algorithm that goes with it.
///
/// A token names its algorithm too, but who made a bad token chose that name. Taking it at its word is how `none`
/// and "the public key as HMAC secret" became attacks.
#[derive(Debug, Clone)]
pub struct JwtKey {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl JwtKey {
    /// The key in `text`: PEM, else a secret whose bytes are those of the text. The error completes "give ...".
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let text = text.reveal();
        if text.contains("-----BEGIN ") {
            return public_key(text);
        }
        if text.len() < SHORTEST_SECRET {
            return Err(EXPECTED.into());
        }
        Ok(Self {
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(text.as_bytes()),
        })
    }

    /// The algorithm that tokens must be signed by.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

fn public_key(pem: &str) -> Result<JwtKey, String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(
            "the public key: the private one belongs to who issues the tokens alone".into(),
        );
    }
    // Of a certificate nobody would check who signed it and how long it is valid.
    if !pem.contains("PUBLIC KEY-----") {
        return Err(EXPECTED.into());
    }
    if let Ok(decoding) = DecodingKey::from_ed_pem(pem.as_bytes()) {
        let usable = decoding
            .try_get_as_bytes()
            .is_ok_and(|key| ParsedPublicKey::new(&ED25519, key).is_ok());
        return match usable {
            true => Ok(JwtKey {
                algorithm: Algorithm::EdDSA,
                decoding,
            }),
            false => Err(EXPECTED.into()),
        };
    }
    let decoding = DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| EXPECTED.to_owned())?;
    // Known now rather than by every token being refused: the key may be short, or not RSA at all.
    let rs256 = &RSA_PKCS1_2048_8192_SHA256;
    let lengths = rs256.min_modulus_len()..=rs256.max_modulus_len();
    let usable = decoding.try_get_as_bytes().is_ok_and(|key| {
        RsaParameters::public_modulus_len(key).is_ok_and(|bits| lengths.contains(&bits))
    });
    match usable {
        true => Ok(JwtKey {
            algorithm: Algorithm::RS256,
            decoding,
        }),
        false => Err(EXPECTED.into()),
    }
}
