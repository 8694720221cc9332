//! Making and reading single certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use base::{Clock, Random};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{AUTHORITY_LIFE, CLOCK_SKEW, Error, LEAF_LIFE};

/// The longest certificate signing request that is read.
const MOST_REQUEST: usize = 16 * 1024;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// Host names and addresses; for a serving certificate.
    pub names: Vec<String>,
    server: bool,
}

impl Profile {
    /// Proves that its holder is the user `common_name` in the groups `organizations`.
    pub fn client(common_name: &str, organizations: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|&group| group.to_owned()).collect(),
            names: Vec::new(),
            server: false,
        }
    }

    /// Proves that its holder answers under `names`.
    pub fn server(common_name: &str, organizations: &[&str], names: Vec<String>) -> Self {
        Self { names, server: true, ..Self::client(common_name, organizations) }
    }
}

/// Whom a client certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// Reads whom a certificate names. The caller has verified it; `None` if it names nobody.
pub fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let certificate = parse(certificate)?;
    let common_name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = certificate
        .subject()
        .iter_organization()
        .map(|name| name.as_str().map(str::to_owned))
        .collect::<Result<_, _>>();
    Some(Identity { common_name, organizations: organizations.ok()? })
        .filter(|identity| !identity.common_name.is_empty())
}

/// A request to have a new key certified, for a node that joins: the request and the key, both PEM.
pub fn signing_request(profile: &Profile) -> Result<(String, String), Error> {
    let key = new_key()?;
    let failed = |error: rcgen::Error| Error::Issue {
        subject: profile.common_name.clone(),
        reason: error.to_string(),
    };
    let mut params = CertificateParams::new(profile.names.clone()).map_err(failed)?;
    params.distinguished_name = subject(profile);
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
    Ok((request, key.serialize_pem()))
}

/// Checks that the sender of a request holds the key, and that the request is for the subject of `profile`.
pub(super) fn verify_request(pem: &str, profile: &Profile) -> Result<rcgen::PublicKey, Error> {
    if pem.len() > MOST_REQUEST {
        return Err(Error::Request(format!("longer than {MOST_REQUEST} bytes")));
    }
    let request =
        CertificateSigningRequestParams::from_pem(pem).map_err(|error| Error::Request(error.to_string()))?;
    let asked = &request.params.distinguished_name;
    let text = |value: &DnValue| match value {
        DnValue::Utf8String(text) => Some(text.clone()),
        DnValue::PrintableString(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    let fits = asked.iter().count() == 1 + profile.organizations.len()
        && asked.iter().all(|(kind, value)| match kind {
            DnType::CommonName => text(value).as_ref() == Some(&profile.common_name),
            DnType::OrganizationName => text(value).is_some_and(|name| profile.organizations.contains(&name)),
            _ => false,
        });
    if !fits {
        return Err(Error::Request(format!(
            "the subject must be exactly CN={}, O={}",
            profile.common_name,
            profile.organizations.join(",")
        )));
    }
    Ok(request.public_key)
}

/// A new ECDSA P-256 key.
pub(super) fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate()
        .map_err(|error| Error::Issue { subject: "a new key".to_owned(), reason: error.to_string() })
}

/// The authority's own certificate, PEM.
pub(super) fn authority(key: &KeyPair, random: &Random, clock: &Clock) -> Result<String, Error> {
    // A name of its own, because some clients tell authorities apart by name alone.
    let name = format!("skiff-ca-{:08x}", random.u64() as u32);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&Profile::client(&name, &[]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    limit(&mut params, random, clock, AUTHORITY_LIFE);
    let certificate =
        params.self_signed(key).map_err(|error| Error::Issue { subject: name, reason: error.to_string() })?;
    Ok(certificate.pem())
}

/// A certificate for `key` as `profile` says, PEM.
pub(super) fn leaf(
    profile: &Profile,
    key: &impl PublicKeyData,
    authority: &Issuer<'_, KeyPair>,
    random: &Random,
    clock: &Clock,
) -> Result<String, Error> {
    let failed = |error: rcgen::Error| Error::Issue {
        subject: profile.common_name.clone(),
        reason: error.to_string(),
    };
    let mut params = CertificateParams::new(profile.names.clone()).map_err(failed)?;
    params.distinguished_name = subject(profile);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![if profile.server {
        ExtendedKeyUsagePurpose::ServerAuth
    } else {
        ExtendedKeyUsagePurpose::ClientAuth
    }];
    params.use_authority_key_identifier_extension = true;
    limit(&mut params, random, clock, LEAF_LIFE);
    Ok(params.signed_by(key, authority).map_err(failed)?.pem())
}

fn subject(profile: &Profile) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in &profile.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, profile.common_name.as_str());
    name
}

fn limit(params: &mut CertificateParams, random: &Random, clock: &Clock, life: Duration) {
    let now = Duration::from_secs(clock.now().as_second().try_into().unwrap_or_default());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + life;
    let mut serial = [0u8; 16];
    random.fill(&mut serial);
    // Positive and of fixed length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(certificate.as_ref()).ok().map(|(_, certificate)| certificate)
}

/// From when to when the certificate is valid, in Unix time.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(i64, i64), String> {
    let certificate = parse(certificate).ok_or("not a certificate")?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// True if the certificate certifies `key`.
pub(super) fn belongs_to(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    parse(certificate)
        .is_some_and(|certificate| certificate.public_key().raw == key.subject_public_key_info())
}

/// True if the certificate says what `profile` says and `authority` signed it.
pub(super) fn fits(
    certificate: &CertificateDer<'_>,
    profile: &Profile,
    authority: &CertificateDer<'_>,
) -> bool {
    let Some(identity) = identity(certificate) else { return false };
    let (Some(certificate), Some(authority)) = (parse(certificate), parse(authority)) else { return false };
    let mut names = BTreeSet::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.insert((*name).to_owned()),
                GeneralName::IPAddress(bytes) => match address(bytes) {
                    Some(address) => names.insert(address.to_string()),
                    None => return false,
                },
                _ => return false,
            };
        }
    }
    let wanted: BTreeSet<String> = profile.names.iter().cloned().collect();
    identity.common_name == profile.common_name
        && identity.organizations.iter().collect::<BTreeSet<_>>() == profile.organizations.iter().collect()
        && names == wanted
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
