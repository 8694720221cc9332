//! Texts in URLs, headers, fields and files.

use std::sync::LazyLock;

use api::quantity::Quantity;
use api::schema::decode::{self, FieldValidation};
use api::selector::{FieldSelector, LabelSelector};
use base::fuzz::texts;
use base::{Clock, Random};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::{EVENT, POD};
use crate::audit::Policy;
use crate::negotiate::{self, Accept};
use crate::pki::join_token::{JoinToken, split_bearer};
use crate::pki::{Pki, Profile, signing_request};
use crate::registry::options::{DeleteOptions, WriteOptions};
use crate::registry::{certificates, read};
use crate::{RequestInfo, UserInfo, agents, proxy};
use api::resource::Table;

static PKI: LazyLock<Option<Pki>> = LazyLock::new(|| Pki::in_memory(Clock::system(), Random::seeded(1)).ok());

/// The input as text, whatever it is.
fn text(data: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(data)
}

pub(super) fn labels(data: &[u8]) {
    if let Ok(selector) = LabelSelector::parse(&text(data)) {
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
}

pub(super) fn fields(data: &[u8]) {
    // The terms are in the order of their texts, which `==` has another one than `=`, as which it is written.
    let again = |selector: FieldSelector| FieldSelector::parse(&selector.to_string());
    if let Ok(selector) = FieldSelector::parse(&text(data)) {
        let written = again(selector);
        assert_eq!(written.clone().and_then(again), written);
    }
}

pub(super) fn quantity(data: &[u8]) {
    // Binary amounts lose their fraction when they are written; from then on nothing changes.
    let again = |quantity: Quantity| Quantity::parse(&quantity.to_string());
    if let Ok(quantity) = Quantity::parse(&text(data)) {
        let written = again(quantity);
        assert_eq!(written.clone().and_then(again), written);
    }
}

pub(super) fn cron(data: &[u8]) {
    let _ = api::cron::parse(&text(data));
}

pub(super) fn token(data: &[u8]) {
    let text = text(data);
    let _ = PKI.as_ref().map(|pki| pki.tokens().verify(&text));
    let _ = split_bearer(&text);
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
    }
}

pub(super) fn token_seeds() -> Vec<Vec<u8>> {
    let claims = json!({"iss": "x", "sub": "y", "exp": 1});
    let signed = PKI.as_ref().and_then(|pki| pki.tokens().sign(&claims).ok());
    let join = JoinToken::generate("ab".repeat(32), &Random::seeded(1));
    let mut seeds = vec![join.to_string().into_bytes(), join.bearer().into_bytes()];
    seeds.extend(signed.map(String::into_bytes));
    seeds
}

pub(super) fn continue_token(data: &[u8]) {
    let _ = read::Token::read(&text(data));
}

/// A request: what it asks for, and its options.
pub(super) fn request_info(data: &[u8]) {
    let text = text(data);
    let (method, target) = text.split_once(' ').unwrap_or(("GET", &text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Ok(method) = method.parse::<http::Method>() else { return };
    let info = RequestInfo::new(&method, path, query);
    let _ = (WriteOptions::read(&info.query, "CreateOptions"), WriteOptions::of_patch(&info.query, true));
    let _ = read::version(&info.query);
    agents::read_options(&info);
    proxy::read_path(&info, path);
}

/// The bodies that say how to delete.
pub(super) fn options(data: &[u8]) {
    if let Ok(value) = decode::parse(data) {
        let _ = DeleteOptions::from_value(value);
    }
}

/// Times and durations, as the fields of objects have them.
pub(super) fn times(data: &[u8]) {
    let (text, table) = (text(data), Table::builtin());
    let _ = api::schema::duration(&text);
    for (row, value) in [
        (&POD, json!({"metadata": {"creationTimestamp": text, "name": "a"}})),
        (&EVENT, json!({"eventTime": text})),
    ] {
        let (strict, body) = (FieldValidation::Strict, value.to_string());
        let _ = decode::body(&table, &row.gvk(), &row.schema, body.as_bytes(), strict, row.rules.given());
    }
}

/// More headers than hyper takes in a request: 100 over HTTP/1, 16 KiB over HTTP/2.
const MOST_HEADERS: usize = 500;

/// The headers of a request, a line each.
pub(super) fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(MOST_HEADERS) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let _ = (Accept::read(&headers, None, true, true), negotiate::failure_media(&headers));
    let _ = negotiate::object_media(&headers);
    proxy::read_headers(&headers);
}

/// Certificate requests, and the certificates that signers give out.
pub(super) fn certificates(data: &[u8]) {
    let _ = (certificates::organizations(data), certificates::check_certificates(data));
    let _ = PKI.as_ref().map(|pki| pki.sign_node("a", &[], &text(data), &text(data)));
}

pub(super) fn certificate_seeds() -> Vec<Vec<u8>> {
    let profile = Profile::client("system:node:a", &["system:nodes"]);
    let made = signing_request(&profile).map(|(request, key)| [request, key]);
    let mut seeds = texts(&["-----BEGIN CERTIFICATE-----\nA: b\n\nAAAA\n-----END CERTIFICATE-----\n"]);
    seeds.extend(made.into_iter().flatten().map(String::into_bytes));
    seeds.extend(PKI.as_ref().map(|pki| pki.authority_pem().as_bytes().to_vec()));
    seeds
}

/// A policy of the audit log, and what it says of a request.
pub(super) fn audit_policy(data: &[u8]) {
    if let Ok(policy) = Policy::read(data) {
        let info = RequestInfo::new(&http::Method::GET, "/api/v1/namespaces/a/pods/b/log", "");
        let _ = policy.verdict(&info, &UserInfo::default());
    }
}

/// A page of a backend behind the proxy.
pub(super) fn page(data: &[u8]) {
    proxy::read_page(data);
}
