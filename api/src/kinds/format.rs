//! Checks of texts that have a form of their own: addresses in their one spelling, domains with a path, names of
//! signers, conditions.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::check::{one_of, parse_cidr, parse_ip, problems, qualified_name, required};
use crate::{
    field::{Errors, FieldError, Path, quote},
    name::{self, regex_message},
};

/// What is wrong with an address that has to be in its one spelling.
pub(crate) fn canonical_ip_problems(value: &str) -> Vec<String> {
    let Some(ip) = parse_ip(value) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()];
    };
    if value.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s".to_owned()];
    }
    if is_mapped(ip) {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    if ip.to_string() == value {
        return Vec::new();
    }
    vec![format!("must be in canonical form ({})", quote(&ip.to_string()))]
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

/// A network prefix in its one spelling.
pub(crate) fn canonical_cidr(errors: &mut Errors, path: &Path, value: &str) {
    let mut refuse = |detail: String| errors.push(FieldError::invalid(path, value, detail));
    let Some((ip, length)) = parse_cidr(value) else {
        refuse("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned());
        return;
    };
    let (address, digits) = value.split_once('/').unwrap_or((value, ""));
    let canonical = format!("{}/{length}", masked(ip, length));
    if address.parse::<IpAddr>().is_err() || digits.len() > 1 && digits.starts_with('0') {
        refuse("must not have leading 0s in IP or prefix length".to_owned());
    } else if is_mapped(ip) {
        refuse("must not have an IPv4-mapped IPv6 address".to_owned());
    } else if masked(ip, length) != ip {
        refuse("must not have bits set beyond the prefix length".to_owned());
    } else if canonical != value {
        refuse(format!("must be in canonical form ({})", quote(&canonical)));
    }
}

/// The first address of a network.
fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or_default();
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or_default();
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

/// A domain of at least three parts.
pub(crate) fn fully_qualified_name(errors: &mut Errors, path: &Path, value: &str) {
    required(errors, path, value);
    if value.is_empty() {
        return;
    }
    let wrong = name::dns1123_subdomain(value);
    if !wrong.is_empty() {
        errors.push(FieldError::invalid(path, value, wrong.join(",")));
    } else if value.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, value, detail));
    }
}

/// A path behind a domain, such as `acme.io/foo`.
pub(crate) fn domain_prefixed_path(errors: &mut Errors, path: &Path, value: &str) {
    required(errors, path, value);
    if value.is_empty() {
        return;
    }
    let Some((host, rest)) =
        value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(path, value, detail));
        return;
    };
    problems(errors, path, host, name::dns1123_subdomain(host));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(allowed) {
        let detail = regex_message("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(FieldError::invalid(path, rest, detail));
    }
}

/// The name of a signer of certificates, such as `example.com/signer`.
pub(crate) fn signer_name(errors: &mut Errors, path: &Path, value: &str) {
    /// Domain, `/`, namespace, `.` and name.
    const MAX: usize = 253 + 1 + 63 + 1 + 253;
    if value.is_empty() {
        errors.push(FieldError::required(path, "signerName must be provided"));
        return;
    }
    let Some((domain, rest)) = value.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, value, detail));
        return;
    };
    if domain.len() > 253 {
        errors.push(FieldError::too_long(path, 253));
    }
    labels(errors, path, domain, name::dns1123_label);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, detail));
    }
    labels(errors, path, rest, name::dns1123_subdomain);
    if value.len() > MAX {
        errors.push(FieldError::too_long(path, MAX));
    }
}

/// Reports the first part between dots that breaks a rule.
fn labels(errors: &mut Errors, path: &Path, value: &str, rule: fn(&str) -> Vec<String>) {
    let wrong = value.split('.').map(|label| (label, rule(label))).find(|(_, wrong)| !wrong.is_empty());
    if let Some((label, wrong)) = wrong {
        for problem in wrong {
            let detail = format!("validating label {}: {problem}", quote(label));
            errors.push(FieldError::invalid(path, value, detail));
        }
    }
}

/// Conditions of the common form.
pub(crate) fn conditions(errors: &mut Errors, path: &Path, conditions: &[Condition]) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        if !seen.insert(&condition.type_) {
            errors.push(FieldError::duplicate(&at, &condition.type_));
        }
        if condition.type_.is_empty() {
            errors.push(FieldError::required(&at.child("type"), "is required"));
        } else {
            qualified_name(errors, &at.child("type"), &condition.type_);
        }
        required(errors, &at.child("status"), &condition.status);
        if !condition.status.is_empty() {
            one_of(errors, &at.child("status"), &condition.status, &["False", "True", "Unknown"]);
        }
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let detail = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&at.child("observedGeneration"), generation, detail));
        }
        if condition.last_transition_time.0 == jiff::Timestamp::default() {
            errors.push(FieldError::required(&at.child("lastTransitionTime"), ""));
        }
        reason(errors, &at.child("reason"), &condition.reason);
        if condition.message.len() > 32 * 1024 {
            errors.push(FieldError::too_long(&at.child("message"), 32 * 1024));
        }
    }
}

fn reason(errors: &mut Errors, path: &Path, value: &str) {
    required(errors, path, value);
    if value.is_empty() {
        return;
    }
    let bytes = value.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let sound = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || matches!(b, b',' | b':'));
    if !sound {
        let message = "a condition reason must start with alphabetic character, optionally followed by a string of \
                       alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
        let examples = &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        let detail = regex_message(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", examples);
        errors.push(FieldError::invalid(path, value, detail));
    }
    if value.len() > 1024 {
        errors.push(FieldError::too_long(path, 1024));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(check: fn(&mut Errors, &Path, &str), value: &str) -> Vec<String> {
        let mut errors = Errors::new();
        check(&mut errors, &Path::new("x"), value);
        errors.iter().map(FieldError::body).collect()
    }

    #[test]
    fn a_prefix_has_one_spelling() {
        for (value, said_of_it) in [
            ("10.0.0.0/8", ""),
            ("2001:db8::/64", ""),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("::ffff:1.2.3.4/128", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("2001:DB8::/64", "must be in canonical form (\"2001:db8::/64\")"),
        ] {
            let expected: Vec<String> = match said_of_it {
                "" => Vec::new(),
                detail => vec![format!("Invalid value: {}: {detail}", quote(value))],
            };
            assert_eq!(said(canonical_cidr, value), expected, "{value}");
        }
    }

    #[test]
    fn an_address_has_one_spelling() {
        for (value, problem) in [
            ("10.0.0.1", None),
            ("x", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")),
            ("010.0.0.1", Some("must not have leading 0s")),
            ("::ffff:1.2.3.4", Some("must not be an IPv4-mapped IPv6 address")),
            ("FD00::1", Some("must be in canonical form (\"fd00::1\")")),
        ] {
            assert_eq!(canonical_ip_problems(value).first().map(String::as_str), problem, "{value}");
        }
    }

    #[test]
    fn a_signer_is_a_domain_and_a_path() {
        assert!(said(signer_name, "kubernetes.io/kubelet-serving").is_empty());
        assert_eq!(said(signer_name, ""), ["Required value: signerName must be provided"]);
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        for value in ["x", "a.b/c/d"] {
            assert_eq!(said(signer_name, value), [format!("Invalid value: {}: {form}", quote(value))]);
        }
        assert_eq!(
            said(signer_name, "local/x"),
            ["Invalid value: \"local\": should be a domain with at least two segments separated by dots"]
        );
        assert!(
            said(signer_name, "a.B/c")[0]
                .starts_with("Invalid value: \"a.B\": validating label \"B\": a lowercase")
        );
    }
}
