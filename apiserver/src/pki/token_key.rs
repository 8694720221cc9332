//! The key that signs service account tokens (ES256), and its public half as a JSON Web Key.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::KeyPair as _;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// No token of ours comes near this.
const MOST_TOKEN: usize = 16 * 1024;

/// Signs and verifies JSON Web Tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    id: String,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Reads an ECDSA P-256 key in PKCS #8.
    pub(super) fn from_pem(pem: &str) -> Result<Self, String> {
        let pair = KeyPair::from_pem(pem).map_err(|error| error.to_string())?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            pair.serialized_der(),
            &SystemRandom::new(),
        )
        .map_err(|error| format!("not an ECDSA P-256 key: {error}"))?;
        Ok(Self { key, id: BASE64.encode(Sha256::digest(pair.subject_public_key_info())) })
    }

    /// A signed token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let mut token = BASE64.encode(header.to_string());
        token.push('.');
        BASE64.encode_string(claims.to_string(), &mut token);
        let signature =
            self.key.sign(&SystemRandom::new(), token.as_bytes()).map_err(|error| error.to_string())?;
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// The claims of a token that this key signed. Says nothing about its time and audience.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > MOST_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        // The algorithm is ours, not the sender's choice.
        if header.get("alg")? != "ES256" {
            return None;
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// The public key set, as `/openid/v1/jwks` serves it.
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let half = |range: std::ops::Range<usize>| {
            point.get(range).map(|part| BASE64.encode(part)).unwrap_or_default()
        };
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": half(1..33), "y": half(33..65),
        }]})
    }
}
