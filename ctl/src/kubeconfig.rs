//! Kubeconfig files: the administrator's own, and the user's, into which it is merged.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::failure::Because;
use crate::resources::files;

/// Name of cluster, user and context.
const NAME: &str = "skiff";

/// What it takes to reach a cluster.
#[derive(Clone)]
pub(crate) struct Access<'a> {
    pub(crate) server: String,
    pub(crate) authority_pem: &'a str,
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a str,
}

/// A kubeconfig with one context.
pub(crate) fn single(access: &Access<'_>) -> Value {
    let data = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {
            "server": access.server, "certificate-authority-data": data(access.authority_pem),
        }}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": data(access.certificate_pem), "client-key-data": data(access.key_pem),
        }}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
    })
}

/// Writes a kubeconfig that only its owner can read.
pub(crate) fn write(path: &Path, config: &Value) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(config).because(path.display())?;
    write_private(path, text.as_bytes())
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let about = path.display();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).because(&about)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&new).because(&about)?;
    file.write_all(content).and_then(|()| file.sync_all()).because(&about)?;
    fs::rename(&new, path).because(&about)
}

/// The server that the first cluster of a kubeconfig leads to.
pub(crate) fn server(path: &Path) -> Result<Option<String>, Failure> {
    let config = read(path)?;
    Ok(config["clusters"][0]["cluster"]["server"].as_str().map(str::to_owned))
}

/// The user's own kubeconfig.
pub(crate) fn user_file() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"))
}

fn read(path: &Path) -> Result<Value, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).because(path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))),
    }
}

/// Reads the text of a kubeconfig.
pub(crate) fn parse(text: &str) -> Result<Value, files::Malformed> {
    if text.trim().is_empty() { Ok(json!({})) } else { files::yaml(text, 0) }
}

/// Puts the context `skiff` of `config` into a kubeconfig, replacing an earlier one, and makes it the current
/// context if there is none. Everything else in the file stays.
pub(crate) fn merge(path: &Path, config: &Value) -> Result<(), Failure> {
    let mut file = read(path)?;
    let Some(map) = file.as_object_mut() else {
        return Err(Failure::new(format!("{}: not a kubeconfig", path.display())));
    };
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        map.entry(key).or_insert_with(|| value.into());
    }
    for list in ["clusters", "users", "contexts"] {
        without(map, list);
        if let (Some(entries), Some(new)) = (map[list].as_array_mut(), config[list].as_array()) {
            entries.extend(new.iter().cloned());
        }
    }
    let current = map.get("current-context").and_then(Value::as_str).unwrap_or_default();
    if current.is_empty() {
        map.insert("current-context".to_owned(), NAME.into());
    }
    write(path, &file)
}

/// Takes the context `skiff` out of a kubeconfig, if it leads to `server`.
pub(crate) fn unmerge(path: &Path, server: &str) -> Result<(), Failure> {
    let mut file = read(path)?;
    let Some(map) = file.as_object_mut() else { return Ok(()) };
    let ours = map.get("clusters").and_then(Value::as_array).is_some_and(|clusters| {
        clusters.iter().any(|entry| entry["name"] == NAME && entry["cluster"]["server"] == server)
    });
    if !ours {
        return Ok(());
    }
    for list in ["clusters", "users", "contexts"] {
        without(map, list);
    }
    if map.get("current-context").is_some_and(|current| current == NAME) {
        map.insert("current-context".to_owned(), "".into());
    }
    write(path, &file)
}

/// Leaves a list of the file without the entry of ours.
fn without(map: &mut Map<String, Value>, list: &str) {
    let entries = map.entry(list).or_insert_with(|| json!([]));
    match entries.as_array_mut() {
        Some(entries) => entries.retain(|entry| entry["name"] != NAME),
        None => *entries = json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(server: &str) -> Value {
        single(&Access {
            server: server.to_owned(),
            authority_pem: "CA",
            certificate_pem: "CERT",
            key_pem: "KEY",
        })
    }

    #[test]
    fn a_context_is_merged_and_taken_out_again_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let other = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "work",
            "clusters": [{"name": "work", "cluster": {"server": "https://work"}}],
            "users": [], "contexts": [{"name": "work", "context": {"cluster": "work", "user": ""}}],
        });
        write(&path, &other).unwrap();
        merge(&path, &config("https://a")).unwrap();
        merge(&path, &config("https://b")).unwrap();
        let merged = read(&path).unwrap();
        assert_eq!(merged["current-context"], "work");
        assert_eq!(merged["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(merged["clusters"][1]["cluster"]["server"], "https://b");
        unmerge(&path, "https://a").unwrap();
        assert_eq!(read(&path).unwrap(), merged, "another cluster's context stays");
        unmerge(&path, "https://b").unwrap();
        assert_eq!(read(&path).unwrap()["clusters"], other["clusters"]);
    }

    #[test]
    fn a_missing_file_becomes_one_with_the_context_as_current() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".kube/config");
        merge(&path, &config("https://a")).unwrap();
        assert_eq!(read(&path).unwrap()["current-context"], "skiff");
    }
}
