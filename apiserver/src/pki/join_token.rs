//! The token that lets a machine join: `skiff.<SHA-256 of the CA's certificate>.<id>.<secret>`.
//!
//! Its first part lets the joining machine know the cluster before it sends the secret: it fetches the CA's
//! certificate from `/skiff/ca` over an unverified connection, checks it with [`JoinToken::verify`], and from
//! then on trusts that certificate alone. The other two parts are a bootstrap token as kubeadm has them.

use std::fmt;
use std::str::FromStr;

use base::Random;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// A parsed join token. `Display` shows the whole token; `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA's certificate in DER, as 64 hex digits.
    pub fingerprint: String,
    pub id: String,
    secret: String,
}

/// The text is not a join token. Does not repeat it, as it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: expected skiff.<64 hex digits>.<6 letters or digits>.<16 letters or digits>; get one with `skiff token create`"
)]
pub struct Malformed;

impl JoinToken {
    /// A new token for the cluster with this fingerprint.
    pub fn generate(fingerprint: String, random: &Random) -> Self {
        let text = |length| {
            (0..length).map(|_| char::from(LETTERS[random.below(LETTERS.len() as u64) as usize])).collect()
        };
        Self { fingerprint, id: text(ID_LENGTH), secret: text(SECRET_LENGTH) }
    }

    /// The secret part, for the Secret that makes the token valid.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What is sent as bearer token: `<id>.<secret>`.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// True if `ca_pem` is the certificate that the token names.
    pub fn verify(&self, ca_pem: &str) -> bool {
        CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .is_ok_and(|der| super::fingerprint(&der) == self.fingerprint)
    }
}

/// Splits `<id>.<secret>`, checking its form.
pub fn split_bearer(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |text: &str, length| text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte));
    (fits(id, ID_LENGTH) && fits(secret, SECRET_LENGTH)).then_some((id, secret))
}

impl FromStr for JoinToken {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (fingerprint, bearer) =
            text.trim().strip_prefix("skiff.").and_then(|rest| rest.split_once('.')).ok_or(Malformed)?;
        let (id, secret) = split_bearer(bearer).ok_or(Malformed)?;
        let hex = fingerprint.len() == 64
            && fingerprint.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex {
            return Err(Malformed);
        }
        Ok(Self { fingerprint: fingerprint.to_owned(), id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skiff.{}.{}.{}", self.fingerprint, self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skiff.{}.{}.…", self.fingerprint, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written_and_read() {
        let token = JoinToken::generate("ab".repeat(32), &Random::seeded(1));
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert_eq!(split_bearer(&token.bearer()), Some((token.id.as_str(), token.secret())));
        assert!(!format!("{token:?}").contains(token.secret()));
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        for text in [
            "",
            "skiff",
            "skiff.x.abcdef.0123456789abcdef",
            "kubeadm.abcdef.0123456789abcdef",
            "skiff..abcdef.0123456789abcdef",
        ] {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(!error.contains("0123456789abcdef"), "{text}");
        }
        assert_eq!(split_bearer("ABCDEF.0123456789abcdef"), None);
    }
}
