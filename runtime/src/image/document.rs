//! The JSON documents of images (OCI image spec, and Docker's, which differ only in names), read leniently:
//! registries hold images of many makers, and what is not needed here is not looked at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ImageError;
use super::reference::is_digest;

/// Media type of an OCI manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image config.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed layer.
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Docker's manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The largest manifest, index or config that is read.
pub(crate) const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Points at content.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: String, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, ..Self::default() }
    }
}

/// What an image runs on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == architecture()
    }
}

/// This machine's architecture in Go's words, which images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A manifest or an index: which of the two shows in what is present.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Vec<Descriptor>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Parses a manifest or index; `what` names it in the error.
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| ImageError::content(what, e))?;
        if manifest.schema_version != 2 {
            let version = manifest.schema_version;
            return Err(ImageError::content(what, format!("schema version {version} is not supported")));
        }
        let referred = manifest.config.iter().chain(manifest.layers.iter().flatten());
        for descriptor in referred.chain(manifest.manifests.iter().flatten()) {
            if !is_digest(&descriptor.digest) {
                return Err(ImageError::content(what, format!("unsupported digest {:?}", descriptor.digest)));
            }
        }
        Ok(manifest)
    }

    /// The entry of an index that runs here: its own platform, or the only one when it names none.
    pub(crate) fn for_this_machine(&self) -> Option<&Descriptor> {
        let manifests = self.manifests.as_deref()?;
        let ours = manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(Platform::is_ours));
        ours.or_else(|| manifests.iter().find(|entry| entry.platform.is_none()))
    }
}

/// An image config: what its author wrote, and the layers that make it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigFile {
    pub(crate) config: Option<Process>,
    pub(crate) rootfs: Rootfs,
}

/// The default process of an image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Process {
    pub(crate) user: Option<String>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub(crate) stop_signal: Option<String>,
}

/// The layers by the digests of their uncompressed archives, bottom first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rootfs {
    pub(crate) diff_ids: Vec<String>,
}

impl ConfigFile {
    /// Parses a config; `what` names it in the error.
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let config: Self = serde_json::from_slice(bytes).map_err(|e| ImageError::content(what, e))?;
        match config.rootfs.diff_ids.iter().find(|id| !is_digest(id)) {
            Some(id) => Err(ImageError::content(what, format!("unsupported diff id {id:?}"))),
            None => Ok(config),
        }
    }
}

/// Digest of bytes in its text form.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    digest_text(Sha256::digest(bytes))
}

/// The text form of a finished digest.
pub(crate) fn digest_text(digest: impl AsRef<[u8]>) -> String {
    use std::fmt::Write;
    digest.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Chain ids, bottom first: each names a layer on top of all those below it.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}")),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_gives_the_manifest_of_this_machine() {
        let (a, b) = (sha256("a"), sha256("b"));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"{a}","platform":{{"os":"windows","architecture":"{arch}"}}}},
                {{"digest":"{b}","platform":{{"os":"linux","architecture":"{arch}"}}}}]}}"#,
            arch = architecture()
        );
        let index = Manifest::parse("index", text.as_bytes()).unwrap();
        assert_eq!(index.for_this_machine().unwrap().digest, b);
    }

    #[test]
    fn a_digest_that_could_be_a_path_is_refused() {
        let text = r#"{"schemaVersion":2,"config":{"digest":"sha256:../../etc/passwd"},"layers":[]}"#;
        assert!(
            Manifest::parse("m", text.as_bytes()).unwrap_err().to_string().contains("unsupported digest")
        );
    }

    #[test]
    fn null_fields_of_a_config_are_as_absent() {
        let text = r#"{"config":{"Env":null,"Cmd":["a"],"Volumes":{"/v":{}}},"rootfs":{"diff_ids":[]}}"#;
        let config = ConfigFile::parse("c", text.as_bytes()).unwrap().config.unwrap();
        assert_eq!((config.env, config.cmd), (None, Some(vec!["a".to_owned()])));
    }
}
