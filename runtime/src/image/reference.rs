//! Image names, parsed and completed as Docker does: `nginx` is `docker.io/library/nginx:latest`.

use std::fmt;

use super::error::ImageError;

const DEFAULT_DOMAIN: &str = "docker.io";
const NAME_LIMIT: usize = 255;

/// A complete image name: a repository with a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// Host, with port if one is given.
    pub(crate) domain: String,
    /// Path of the repository at the host.
    pub(crate) path: String,
    /// What is meant in the repository.
    pub(crate) object: Object,
}

/// A version of a repository's image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    /// A movable name.
    Tag(String),
    /// The digest of a manifest or index. A name that has both a tag and a digest means the digest.
    Digest(String),
}

impl Reference {
    /// Parses and completes a name.
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let fail =
            |reason: &str| ImageError::Reference { reference: text.to_owned(), reason: reason.to_owned() };
        let invalid = || fail("invalid reference format");
        if is_hex_digest(text) {
            return Err(fail("invalid repository name, cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to the port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(colon) => (&rest[..name_start + colon], Some(&rest[name_start + colon + 1..])),
            None => (rest, None),
        };
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(fail(&format!(
                "invalid reference format: repository name ({path}) must be lowercase"
            )));
        }
        if !is_domain(&domain) || !path.split('/').all(is_path_component) {
            return Err(invalid());
        }
        if domain.len() + 1 + path.len() > NAME_LIMIT {
            return Err(fail("repository name must not be more than 255 characters"));
        }
        if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) {
            return Err(invalid());
        }
        let object = match (digest, tag) {
            (Some(digest), _) => Object::Digest(digest.to_owned()),
            (None, tag) => Object::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { domain, path, object })
    }

    /// Host and path.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.object {
            Object::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.path),
            Object::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.path),
        }
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let library = domain == DEFAULT_DOMAIN && !path.contains('/');
    (domain.to_owned(), if library { format!("library/{path}") } else { path.to_owned() })
}

fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[') {
        let Some((address, port)) = literal.split_once(']') else { return false };
        return !address.is_empty()
            && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.len() <= 5 && port.chars().all(|c| c.is_ascii_digit())
}

/// Lower-case letters and digits, between them single dots, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Whether this is a digest this store can check: `sha256:` and 64 lower-case hexadecimal digits.
pub(crate) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(is_hex_digest)
}

/// Whether this is the hexadecimal part of a digest.
pub(crate) fn is_hex_digest(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether all of it is lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_short_name_is_completed() {
        let digest = format!("sha256:{HEX}");
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.25", "docker.io/library/nginx:1.25".to_owned()),
            ("grafana/grafana", "docker.io/grafana/grafana:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (
                "registry.k8s.io/e2e-test-images/agnhost:2.47",
                "registry.k8s.io/e2e-test-images/agnhost:2.47".to_owned(),
            ),
            ("a.b/c__d--e.f", "a.b/c__d--e.f:latest".to_owned()),
            (&format!("nginx:1@{digest}"), format!("docker.io/library/nginx@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn a_bad_name_is_refused_in_dockers_words() {
        for (text, reason) in [
            ("", "invalid reference format"),
            ("Nginx", "repository name (library/Nginx) must be lowercase"),
            ("a..b", "invalid reference format"),
            ("a/", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b c", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("../../etc/passwd", "invalid reference format"),
            ("invalid.com/-a", "invalid reference format"),
            (HEX, "cannot specify 64-byte hexadecimal strings"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("failed to parse image reference {text:?}: ")), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        let long = format!("docker.io/{}", "a".repeat(250));
        assert!(Reference::parse(&long).unwrap_err().to_string().contains("255 characters"));
    }
}
