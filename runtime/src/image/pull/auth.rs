//! Credentials as CRI gives them, for the client that speaks to registries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;

use crate::image::document::sha256;
use crate::image::error::ImageError;
use crate::image::reference::Reference;

/// What to show to a registry.
pub(super) type Credentials = RegistryAuth;

/// The names under which Docker's own registry is logged in to.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// The credentials for an image, if these are for its registry; none otherwise.
pub(super) fn credentials(
    name: &Reference,
    auth: Option<cri::AuthConfig>,
) -> Result<Credentials, ImageError> {
    let Some(auth) = auth else { return Ok(RegistryAuth::Anonymous) };
    if !auth.server_address.is_empty() && !is_for(&auth.server_address, &name.domain) {
        return Ok(RegistryAuth::Anonymous);
    }
    if !auth.username.is_empty() {
        return Ok(RegistryAuth::Basic(auth.username, auth.password));
    }
    if !auth.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(auth.registry_token));
    }
    if !auth.auth.is_empty() {
        let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
        let (user, password) =
            pair.ok_or_else(|| ImageError::Request("invalid decoded auth: not user:password".to_owned()))?;
        return Ok(RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned()));
    }
    if !auth.identity_token.is_empty() {
        return Err(ImageError::Request(
            "identity tokens are not supported: give the registry a user and password".to_owned(),
        ));
    }
    Ok(RegistryAuth::Anonymous)
}

/// Tells credentials apart without showing them.
pub(super) fn fingerprint(credentials: &Credentials) -> String {
    match credentials {
        RegistryAuth::Anonymous => String::new(),
        RegistryAuth::Basic(user, password) => sha256(format!("basic\0{user}\0{password}")),
        RegistryAuth::Bearer(token) => sha256(format!("bearer\0{token}")),
    }
}

fn is_for(server: &str, domain: &str) -> bool {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    // A pattern was matched by whoever keeps the credentials.
    host == domain || host.contains('*') || (DOCKER_HUB.contains(&host) && DOCKER_HUB.contains(&domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(auth: cri::AuthConfig) -> RegistryAuth {
        credentials(&Reference::parse("nginx").unwrap(), Some(auth)).unwrap()
    }

    #[test]
    fn the_forms_of_credentials_are_understood() {
        let basic = RegistryAuth::Basic("u".to_owned(), "p:w".to_owned());
        let with = |username: &str, password: &str, auth: &str| cri::AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
            auth: auth.to_owned(),
            ..Default::default()
        };
        assert_eq!(given(with("u", "p:w", "")), basic);
        assert_eq!(given(with("", "", &STANDARD.encode("u:p:w"))), basic);
        assert_eq!(given(with("", "", "")), RegistryAuth::Anonymous);
        let token = cri::AuthConfig { registry_token: "t".to_owned(), ..Default::default() };
        assert_eq!(given(token), RegistryAuth::Bearer("t".to_owned()));
        let bad = credentials(&Reference::parse("a").unwrap(), Some(with("", "", "%")));
        assert!(bad.unwrap_err().to_string().contains("invalid decoded auth"));
    }

    #[test]
    fn credentials_of_another_registry_are_not_shown() {
        let with = |server: &str| cri::AuthConfig {
            username: "u".to_owned(),
            server_address: server.to_owned(),
            ..Default::default()
        };
        assert_eq!(given(with("https://registry.example")), RegistryAuth::Anonymous);
        assert_ne!(given(with("https://index.docker.io/v1/")), RegistryAuth::Anonymous);
    }
}
