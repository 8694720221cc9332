//! PURE: which credentials of a pod's pull secrets fit an image.

use std::collections::BTreeMap;

use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::name;

/// Credentials by registry and path, the most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    entries: Vec<(String, Credential)>,
}

/// One login. It has no `Debug` that could show it.
#[derive(Clone)]
struct Credential(cri::AuthConfig);

#[derive(Deserialize)]
struct DockerConfig {
    auths: BTreeMap<String, Login>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Keyring {
    /// Adds what a secret of one of the two docker types holds; what can't be read is left out.
    pub(crate) fn add(&mut self, secret: &Secret) {
        let Some(data) = &secret.data else { return };
        let logins = if let Some(file) = data.get(".dockerconfigjson") {
            serde_json::from_slice::<DockerConfig>(&file.0).map(|config| config.auths).unwrap_or_default()
        } else if let Some(file) = data.get(".dockercfg") {
            serde_json::from_slice(&file.0).unwrap_or_default()
        } else {
            return;
        };
        for (registry, login) in logins {
            let place = registry.split_once("://").map_or(registry.as_str(), |(_, place)| place);
            let place = place.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
            let place = if place == "index.docker.io" { "docker.io" } else { place };
            self.entries.push((place.to_owned(), credential(login, place)));
        }
        self.entries.sort_by(|a, b| b.0.cmp(&a.0));
    }

    /// The credentials to try for an image.
    pub(crate) fn matching(&self, image: &str) -> Vec<cri::AuthConfig> {
        let (host, path) = name::registry(image);
        let fits = |place: &str| {
            let (wanted, prefix) = place.split_once('/').unwrap_or((place, ""));
            host_fits(wanted, host) && path.starts_with(prefix)
        };
        let fitting = self.entries.iter().filter(|(place, _)| fits(place));
        fitting.map(|(_, credential)| credential.0.clone()).collect()
    }
}

fn credential(login: Login, place: &str) -> Credential {
    let (mut username, mut password) = (login.username, login.password);
    if username.is_empty()
        && let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(&login.auth)
        && let Ok(text) = String::from_utf8(decoded)
        && let Some((name, secret)) = text.split_once(':')
    {
        username = name.to_owned();
        password = secret.trim_end_matches('\0').to_owned();
    }
    Credential(cri::AuthConfig {
        username,
        password,
        server_address: place.to_owned(),
        identity_token: login.identitytoken,
        registry_token: login.registrytoken,
        ..Default::default()
    })
}

/// `*` stands for a part of one label of the host name.
fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len()
        && pattern.iter().zip(&host).all(|(pattern, label)| label_fits(pattern, label))
}

fn label_fits(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((start, end)) => {
            label.len() >= start.len() + end.len() && label.starts_with(start) && label.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn the_most_specific_credential_comes_first() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"username": "hub", "password": "1"},
            "registry.example.com": {"auth": "aG9zdDoy"},
            "registry.example.com/team": {"username": "team", "password": "3"},
            "*.corp.example": {"username": "corp", "password": "4"}
        }}"#;
        let data = Some([(".dockerconfigjson".to_owned(), ByteString(config.into()))].into());
        let secret = Secret { data, ..Secret::default() };
        let mut keyring = Keyring::default();
        keyring.add(&secret);
        let users = |image: &str| -> Vec<String> {
            keyring.matching(image).into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("nginx:1"), ["hub"]);
        assert_eq!(users("registry.example.com/team/app:1"), ["team", "host"]);
        assert_eq!(users("registry.example.com/other:1"), ["host"]);
        assert_eq!(users("eu.corp.example/a"), ["corp"]);
        assert!(users("a.eu.corp.example/a").is_empty());
    }
}
