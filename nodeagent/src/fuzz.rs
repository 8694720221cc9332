//! What the agent reads of runtimes, secrets and requests, under arbitrary bytes.

use base::fuzz::{Target, texts};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::images::keyring::Keyring;
use crate::images::name;
use crate::logs::LogOptions;
use crate::logs::line::Filter;
use crate::server::routes::Query;

/// Every parser of this crate that reads what others write.
pub const TARGETS: &[Target] = &[
    Target { name: "log_lines", run: log_lines, seeds: log_seeds },
    Target { name: "pull_secret", run: pull_secret, seeds: pull_secret_seeds },
    Target {
        name: "agent_query",
        run: query,
        seeds: || texts(&["a=b&c=%41+%zz&stdin=1&command=%2Fbin%2Fsh"]),
    },
];

/// A log in any pieces is the same to its readers.
fn log_lines(data: &[u8]) {
    let plain = LogOptions::default();
    let since = "2026-01-02T03:04:05Z".parse().ok();
    let chosen = LogOptions { since, timestamps: true, limit_bytes: Some(40), ..LogOptions::default() };
    for options in [&plain, &chosen] {
        let shown = |piece: usize| {
            let (mut filter, mut out) = (Filter::new(options), Vec::new());
            data.chunks(piece).for_each(|piece| filter.feed(piece, &mut out));
            out
        };
        assert_eq!(shown(7), shown(data.len().max(1)));
    }
}

fn log_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "2026-01-02T03:04:05.678901234Z stdout F hello\n2026-01-02T03:04:06Z stderr P be\n2026-01-02T03:04:06Z stderr F gun\n",
        "2026-01-02T03:04:05+01:00 stdout F:x \n\nno line\n2026-01-02T03:04:04.000000000Z stdout P a",
    ])
}

fn pull_secret(data: &[u8]) {
    let mut keyring = Keyring::default();
    for key in [".dockerconfigjson", ".dockercfg"] {
        let data = [(key.to_owned(), ByteString(data.to_vec()))].into();
        keyring.add(&Secret { data: Some(data), ..Secret::default() });
    }
    let text = String::from_utf8_lossy(data);
    let _ = (keyring.matching("docker.io/library/nginx"), keyring.matching(&text));
    if let Ok(name) = name::with_tag(&text) {
        assert_eq!(name::with_tag(&name).as_deref(), Ok(name.as_str()));
    }
}

fn pull_secret_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"*.example.com/a":{"username":"u","password":"p"}}}"#,
        r#"{"registry.k8s.io:5000":{"auth":"dTo=","identitytoken":"t"}}"#,
        "localhost:5000/a/b-c:v1",
    ])
}

fn query(data: &[u8]) {
    let query = Query::parse(Some(&String::from_utf8_lossy(data)));
    let _ = (query.get("a"), query.flag("stdin"), query.all("command").count());
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_parser_is_harmed_by_what_it_is_given() {
        base::fuzz::hold(super::TARGETS);
    }
}
