//! The data of config maps and secrets, from literals and files.

use std::path::Path;

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value};

use crate::Failure;
use crate::failure::Because;

#[derive(Args, Clone, Debug, Default)]
pub(super) struct Sources {
    /// Specify a key and literal value (i.e. mykey=somevalue)
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// Key files can be specified using their file path, in which case a default name will be given to them, or with a
    /// name: NAME=FILE. A directory gives each of its files
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// Specify the path to a file to read lines of key=val pairs
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

type Entries = Vec<(String, Vec<u8>)>;

impl Sources {
    /// All entries; a key that comes twice is an error.
    pub(super) fn read(&self) -> Result<Entries, Failure> {
        let mut entries: Entries = Vec::new();
        let mut add = |key: &str, value: Vec<u8>| {
            let wrong = api::name::config_map_key(key);
            if let Some(why) = wrong.first() {
                return Err(Failure::new(format!("error: {key:?} is not a valid key name: {why}")));
            }
            if entries.iter().any(|(other, _)| other == key) {
                return Err(Failure::new(format!(
                    "error: cannot add key {key}, another key by that name already exists"
                )));
            }
            entries.push((key.to_owned(), value));
            Ok(())
        };
        for source in &self.from_file {
            let (key, path) =
                source.split_once('=').map_or((None, source.as_str()), |(key, path)| (Some(key), path));
            if key.is_some_and(str::is_empty) || path.is_empty() {
                return Err(Failure::new(format!("error: key name or file path for file {source} missing")));
            }
            let base = |path: &Path| {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            };
            if Path::new(path).is_dir() {
                if key.is_some() {
                    return Err(Failure::new("error: cannot give a key name for a directory path"));
                }
                let mut names = Vec::new();
                for entry in std::fs::read_dir(path).because(format!("error: {path}"))? {
                    let entry = entry.because(format!("error: {path}"))?.path();
                    if entry.is_file() {
                        names.push(entry);
                    }
                }
                names.sort();
                for entry in names {
                    add(&base(&entry), file(&entry.display().to_string())?)?;
                }
            } else {
                let own = base(Path::new(path));
                add(key.unwrap_or(&own), file(path)?)?;
            }
        }
        for source in &self.from_literal {
            let Some((key, value)) = source.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(Failure::new(format!(
                    "error: invalid literal source {source}, expected key=value"
                )));
            };
            // A shell would have taken quotes around the value away.
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            add(key, value.as_bytes().to_vec())?;
        }
        for path in &self.from_env_file {
            let content = String::from_utf8(file(path)?).because(format!("error: {path}"))?;
            for line in
                content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                match line.split_once('=') {
                    Some((key, value)) => add(key, value.as_bytes().to_vec())?,
                    // A name alone takes its value from the environment.
                    None => {
                        let value = std::env::var(line).unwrap_or_default();
                        add(line, value.into_bytes())?;
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// The content of a file.
pub(super) fn file(path: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format!("error: error reading {path}: no such file or directory"))
        }
        _ => Failure::new(format!("error: error reading {path}: {error}")),
    })
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Entries as a secret has them.
pub(super) fn encoded(entries: Entries) -> Value {
    entries.into_iter().map(|(key, value)| (key, base64(&value).into())).collect::<Map<_, Value>>().into()
}

/// Puts entries into a config map: text as text, anything else encoded.
pub(super) fn into_config_map(entries: Entries, object: &mut Value) {
    for (key, value) in entries {
        match String::from_utf8(value) {
            Ok(text) => object["data"][key] = text.into(),
            Err(error) => object["binaryData"][key] = base64(error.as_bytes()).into(),
        }
    }
}
