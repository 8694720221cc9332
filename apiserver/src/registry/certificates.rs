//! What the server adds to requests for certificates, and what it must read to know that they are sound: the `api`
//! crate knows nothing of certificates.

use api::field::{BadValue, Errors, FieldError, Path};
use api::object::Object;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::UserInfo;

/// Notes who asks, whoever the request says it is from.
pub(super) fn prepare(object: &mut dyn Object, user: &UserInfo) {
    let Some(request) = object.downcast_mut::<CertificateSigningRequest>() else { return };
    let user = user.clone();
    let spec = &mut request.spec;
    *spec = CertificateSigningRequestSpec {
        username: Some(user.name),
        uid: Some(user.uid).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra).filter(|extra| !extra.is_empty()),
        ..std::mem::take(spec)
    };
}

/// Whether a new request and a new certificate can be read; what is wrong is put where upstream says it.
pub(super) fn validate(object: &dyn Object, old: Option<&dyn Object>, errors: &mut Errors) {
    let Some(request) = object.downcast_ref::<CertificateSigningRequest>() else { return };
    let Some(old) = old else {
        let bytes = &request.spec.request;
        if let Err(why) = parse_request(&bytes.0, |_| Ok(())) {
            let value = if bytes.0.is_empty() { BadValue::of(&()) } else { BadValue::of(bytes) };
            let error = FieldError::invalid(&Path::new("spec").child("request"), value, why);
            // Right after what is wrong with the metadata.
            let metadata = |error: &FieldError| error.field.as_str().starts_with("metadata");
            let place = errors.iter().position(|error| !metadata(error)).unwrap_or(errors.len());
            errors.insert(place, error);
        }
        return;
    };
    let certificate = |request: &CertificateSigningRequest| {
        request.status.as_ref().and_then(|status| status.certificate.clone()).unwrap_or_default()
    };
    let (new, before) = (certificate(request), old.downcast_ref().map(certificate));
    if before.as_ref() == Some(&new) {
        return;
    }
    if let Err(why) = check_certificates(&new.0) {
        let place = Path::new("status").child("certificate");
        errors.push(FieldError::invalid(&place, "<certificate data>", why));
    }
}

/// The groups that a request asks to be in.
pub(crate) fn organizations(pem: &[u8]) -> Result<Vec<String>, String> {
    parse_request(pem, |request| {
        let names = request.certification_request_info.subject.iter_organization();
        // What is no text can't be a group either.
        Ok(names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect())
    })
}

/// Reads a request, and checks that its sender holds the key.
fn parse_request<T>(
    pem: &[u8],
    read: impl FnOnce(&X509CertificationRequest<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let block = Block::first(pem).filter(|(block, _)| block.label == "CERTIFICATE REQUEST");
    let (block, _) = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (rest, request) = X509CertificationRequest::from_der(&block.bytes)
        .map_err(|error| format!("asn1: structure error: {error}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    request.verify_signature().map_err(|_| "x509: the signature of the request is not valid")?;
    read(&request)
}

/// Checks that there is nothing but certificates.
pub(crate) fn check_certificates(certificate: &[u8]) -> Result<(), String> {
    let mut rest = certificate;
    if rest.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    while let Some((block, after)) = Block::first(rest) {
        if block.label != "CERTIFICATE" {
            let label = api::field::quote(&block.label);
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {label}"));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        let mut bytes = block.bytes.as_slice();
        if bytes.is_empty() {
            return Err("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        while !bytes.is_empty() {
            (bytes, _) = X509Certificate::from_der(bytes)
                .map_err(|error| format!("x509: malformed certificate: {error}"))?;
        }
        (blocks, rest) = (blocks + 1, after);
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    Ok(())
}

/// One block of a PEM file.
struct Block {
    label: String,
    has_headers: bool,
    bytes: Vec<u8>,
}

impl Block {
    /// The first block that can be read, and what comes after it. Anything may be between blocks.
    fn first(text: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = text;
        loop {
            let (line, after) = next_line(rest)?;
            if let Some(label) = label(line, "-----BEGIN ")
                && let Some(found) = Self::body(label, after)
            {
                return Some(found);
            }
            rest = after;
        }
    }

    fn body<'a>(label: &str, text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (mut rest, mut headers, mut encoded) = (text, 0, Vec::new());
        loop {
            let (line, after) = next_line(rest)?;
            rest = after;
            // No line of a body looks so. To look for the end behind it would cost as much for each block that has none.
            if line.starts_with(b"-----BEGIN ") {
                return None;
            }
            if self::label(line, "-----END ") == Some(label) {
                let bytes = STANDARD.decode(&encoded).ok()?;
                return Some((Self { label: label.to_owned(), has_headers: headers > 0, bytes }, rest));
            }
            if encoded.is_empty() && line.contains(&b':') {
                headers += 1;
            } else {
                encoded.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
    }
}

fn next_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let end = text.iter().position(|byte| *byte == b'\n');
    let (line, rest) = end.map_or((text, &text[text.len()..]), |end| (&text[..end], &text[end + 1..]));
    Some((line.trim_ascii_end(), rest))
}

/// The label of a line that begins or ends a block.
fn label<'a>(line: &'a [u8], begin: &str) -> Option<&'a str> {
    std::str::from_utf8(line).ok()?.strip_prefix(begin)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus;

    use super::*;
    use crate::pki::{Profile, signing_request};

    fn request(pem: &str) -> CertificateSigningRequest {
        let spec = CertificateSigningRequestSpec {
            request: ByteString(pem.as_bytes().to_vec()),
            signer_name: "example.com/signer".to_owned(),
            ..CertificateSigningRequestSpec::default()
        };
        CertificateSigningRequest { spec, ..CertificateSigningRequest::default() }
    }

    fn errors(new: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> Vec<String> {
        let mut errors = Errors::new();
        validate(new, old.map(|old| old as &dyn Object), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_request_must_be_one_and_be_signed_by_its_key() {
        let (pem, _) = signing_request(&Profile::client("anna", &["system:masters"])).unwrap();
        assert_eq!(errors(&request(&pem), None), Vec::<String>::new());
        assert_eq!(organizations(pem.as_bytes()).unwrap(), ["system:masters"]);
        let why = "PEM block type must be CERTIFICATE REQUEST";
        assert_eq!(errors(&request(""), None), [format!("spec.request: Invalid value: null: {why}")]);
        assert_eq!(errors(&request("x"), None), [format!("spec.request: Invalid value: \"eA==\": {why}")]);
        let key = pem.replace("CERTIFICATE REQUEST", "PRIVATE KEY");
        assert!(errors(&request(&key), None)[0].ends_with(why));
        let (block, _) = Block::first(pem.as_bytes()).unwrap();
        let wrap = |bytes: &[u8]| {
            let text = STANDARD.encode(bytes);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        assert_eq!(errors(&request(&wrap(&block.bytes)), None), Vec::<String>::new());
        let mut forged = block.bytes.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(errors(&request(&wrap(&forged)), None)[0].contains("x509: "));
        assert!(errors(&request(&wrap(b"nothing")), None)[0].contains("asn1: "));
    }

    #[test]
    fn only_certificates_are_given_out() {
        let pki = crate::pki::Pki::in_memory(base::Clock::system(), base::Random::seeded(1)).unwrap();
        let certificate = pki.authority_pem();
        let with = |text: &str| {
            let mut request = request("");
            let certificate = Some(ByteString(text.as_bytes().to_vec()));
            request.status = Some(CertificateSigningRequestStatus {
                certificate,
                ..CertificateSigningRequestStatus::default()
            });
            request
        };
        let old = request("");
        for (text, why) in [
            (certificate.to_owned(), None),
            (format!("hello\n{certificate}\nbetween\n{certificate}"), None),
            (String::new(), None),
            ("nothing".to_owned(), Some("must contain at least one CERTIFICATE PEM block")),
            (
                certificate.replace("CERTIFICATE", "X"),
                Some("only CERTIFICATE PEM blocks are allowed, found \"X\""),
            ),
            (
                certificate.replacen("-----\n", "-----\nA: b\n\n", 1),
                Some("no PEM block headers are permitted"),
            ),
        ] {
            let expect: Vec<String> = why
                .map(|why| format!("status.certificate: Invalid value: \"<certificate data>\": {why}"))
                .into_iter()
                .collect();
            assert_eq!(errors(&with(&text), Some(&old)), expect, "{text}");
        }
        let wrong = with("nothing");
        assert_eq!(errors(&wrong, Some(&wrong)), Vec::<String>::new());
    }

    #[test]
    fn who_asks_is_not_what_the_request_says() {
        let mut request = request("");
        request.spec.username = Some("root".to_owned());
        request.spec.uid = Some("0".to_owned());
        request.spec.extra = Some([("a".to_owned(), Vec::new())].into());
        prepare(&mut request, &UserInfo::new("anna", &["b"]));
        let spec = request.spec;
        assert_eq!(spec.username.as_deref(), Some("anna"));
        assert_eq!((spec.uid, spec.extra), (None, None));
        assert_eq!(spec.groups.unwrap(), ["b", "system:authenticated"]);
        assert_eq!(spec.signer_name, "example.com/signer");
    }

    #[test]
    fn blocks_without_an_end_cost_what_their_text_costs() {
        // Looking for the end of each of them in all that follows would take minutes.
        let begins = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n".repeat(100_000);
        assert!(organizations(begins.as_bytes()).is_err() && check_certificates(begins.as_bytes()).is_err());
        let (whole, _) = crate::pki::signing_request(&Profile::client("u", &["g"])).unwrap();
        assert_eq!(organizations(format!("{begins}{whole}").as_bytes()), Ok(vec!["g".to_owned()]));
    }
}
