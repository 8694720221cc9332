//! PURE: the names of images.

/// The name with the tag `latest` if it has neither tag nor digest; an error in upstream's words if it is no
/// image name.
pub(crate) fn with_tag(image: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("couldn't parse image name \"{image}\": {why}");
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(wrong("invalid reference format"));
    }
    let (repository, tag) = split_tag(rest);
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(wrong("invalid reference format"));
    }
    let path = match repository.split_once('/') {
        Some((host, path)) if is_host(host) => path,
        _ => repository,
    };
    if path.is_empty() || !path.split('/').all(|part| is_component(&part.to_ascii_lowercase())) {
        return Err(wrong("invalid reference format"));
    }
    if path.bytes().any(|letter| letter.is_ascii_uppercase()) {
        return Err(wrong("invalid reference format: repository name must be lowercase"));
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The registry of an image, `docker.io` if the name doesn't tell, and the path there.
pub(super) fn registry(image: &str) -> (&str, &str) {
    match image.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path),
        _ => ("docker.io", image),
    }
}

fn split_tag(name: &str) -> (&str, Option<&str>) {
    // A colon before a slash belongs to the port of the registry.
    match name.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
        _ => (name, None),
    }
}

fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
}

fn is_tag(tag: &str) -> bool {
    let first = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(first)
        && tag.bytes().all(|letter| first(letter) || letter == b'.' || letter == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|letter| letter.is_ascii_hexdigit())
    })
}

/// Letters and digits with single separators between them.
fn is_component(part: &str) -> bool {
    let is_edge = |letter: Option<u8>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    let mut bytes = part.bytes();
    is_edge(bytes.next())
        && is_edge(part.bytes().next_back())
        && part.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"._-".contains(&letter))
        && !part.contains("..")
        && !part.contains("___")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_tag_and_digest_gets_the_tag_latest() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (name, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            (digest.as_str(), digest.as_str()),
        ] {
            assert_eq!(with_tag(name).unwrap(), expected);
        }
        assert_eq!(with_tag("!x").unwrap_err(), "couldn't parse image name \"!x\": invalid reference format");
        assert!(with_tag("Nginx").unwrap_err().ends_with("repository name must be lowercase"));
        for name in ["", "a:", "a//b", "a@x", "a b", ":1", "a:b c"] {
            with_tag(name).unwrap_err();
        }
    }
}
