//! The keys that JWTs are verified with. The key alone determines the algorithm.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaParameters};
use jsonwebtoken::{Algorithm, DecodingKey};

use domain::Secret;

/// The length of the digest of HS256 (RFC 7518, section 3.2), in bytes.
const SHORTEST_SECRET: usize = 32;

/// The accepted keys; completes "give ...".
const EXPECTED: &str = "a PEM public key, RSA of at least 2048 bits or Ed25519, or a secret for HS256 of at least 32 bytes";

/// A key and its only algorithm.
///
/// The header of a token names an algorithm too, but an attacker chooses it. Trust in that header is what made `none` and
/// "the public key as HMAC secret" attacks.
#[derive(Debug, Clone)]
pub struct JwtKey {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl JwtKey {
    /// Parses a PEM public key; any other string is a secret of its bytes. The error completes "give ...".
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let text = text.reveal();
        if text.contains("-----BEGIN ") {
            return public_key(text);
        }
        Self::secret(text.as_bytes()).ok_or_else(|| EXPECTED.into())
    }

    /// A secret for HS256, if it is long enough.
    pub(super) fn secret(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SHORTEST_SECRET).then(|| Self {
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(bytes),
        })
    }

    /// A public key for EdDSA, if the bytes are valid.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ED25519, bytes).ok()?;
        Some(Self {
            algorithm: Algorithm::EdDSA,
            decoding: DecodingKey::from_ed_der(bytes),
        })
    }

    /// A public key for RS256, if its length is supported and its exponent is safe.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let significant = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes[zeros..].to_vec()
        };
        let (modulus, exponent) = (significant(modulus), significant(exponent));
        let first = modulus.first()?;
        let bits = u32::try_from(modulus.len()).ok()? * 8 - first.leading_zeros();
        let rs256 = &RSA_PKCS1_2048_8192_SHA256;
        let lengths = rs256.min_modulus_len()..=rs256.max_modulus_len();
        // In practice 65537. With 1, anyone could sign.
        let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
        let is_usable = lengths.contains(&bits) && is_odd && exponent.len() >= 3;
        is_usable.then(|| Self {
            algorithm: Algorithm::RS256,
            decoding: DecodingKey::from_rsa_raw_components(&modulus, &exponent),
        })
    }

    /// The algorithm that tokens must be signed with.
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
            "the public key: only the issuer of the tokens may have the private key".into(),
        );
    }
    // Certificates are refused, because their issuer and validity would not be checked.
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
    // A key that is too short or not RSA fails here, at the start, and not with every token.
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
