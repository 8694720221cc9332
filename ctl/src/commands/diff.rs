//! `skiff diff`: what applying files would change.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use clap::Args;
use serde_json::Value;
use tokio::process::Command;

use super::apply::difference;
use crate::Failure;
use crate::failure::Because;
use crate::output::{drop_managed_fields, yaml};
use crate::resources::files::FileArgs;
use crate::resources::{Call, Mapping, Session, Target};

#[derive(Args, Debug)]
pub(crate) struct Diff {
    #[command(flatten)]
    files: FileArgs,
    /// Include managed fields in the diff
    #[arg(long)]
    show_managed_fields: bool,
}

impl Diff {
    /// Code 1 if there is a difference; more if there was an error.
    pub(crate) async fn run(self, session: &Session) -> Result<ExitCode, Failure> {
        if self.files.is_empty() {
            return Err(Failure::new("error: must specify one of -f and -k"));
        }
        let folder = tempfile::Builder::new().prefix("skiff-diff-").tempdir().because("error")?;
        let (live, merged) = (folder.path().join("LIVE"), folder.path().join("MERGED"));
        for side in [&live, &merged] {
            std::fs::create_dir(side).because("error")?;
        }
        for manifest in self.files.read()? {
            let Target::One { mapping, namespace, name, manifest: Some(manifest) } =
                session.manifest_target(manifest).await?
            else {
                continue;
            };
            let path = mapping.object(&namespace, &name);
            let mut before = session.find(Call::get(path.as_str())).await?;
            let mut after =
                merge(session, &mapping, &namespace, &path, before.as_ref(), &manifest.object).await?;
            if mapping.group.is_empty() && mapping.kind == "Secret" {
                mask(before.as_mut(), &mut after);
            }
            let version = mapping.api_version().replace('/', ".");
            let file = format!("{version}.{}.{namespace}.{name}", mapping.kind);
            if let Some(before) = before {
                self.write(&live.join(&file), before)?;
            }
            self.write(&merged.join(&file), after)?;
        }
        compare(&live, &merged).await
    }

    fn write(&self, path: &Path, mut object: Value) -> Result<(), Failure> {
        if !self.show_managed_fields {
            drop_managed_fields(&mut object);
        }
        std::fs::write(path, yaml::to_string(&object)).because(format!("error: {}", path.display()))
    }
}

/// The object as it would be: the server tries, and stores nothing.
async fn merge(
    session: &Session,
    mapping: &Mapping,
    namespace: &str,
    path: &str,
    before: Option<&Value>,
    wanted: &Value,
) -> Result<Value, Failure> {
    let call = match before {
        None => Call::post(mapping.collection(Some(namespace)), wanted),
        Some(before) => {
            let (kind, patch) = difference(mapping, wanted, before, true)?;
            Call::patch(path, kind, &Value::Object(patch))
        }
    };
    Ok(session.json(call.query("fieldManager", "kubectl-client-side-apply").dry_run(true)).await?)
}

/// Secrets are not shown, only whether they differ.
fn mask(before: Option<&mut Value>, after: &mut Value) {
    const HIDDEN: &str = "***";
    let data = |object: &Value| object["data"].as_object().cloned().unwrap_or_default();
    let old = before.as_deref().map(data).unwrap_or_default();
    let new = data(after);
    let hide = |object: &mut Value, others: &serde_json::Map<String, Value>, suffix: &str| {
        for (key, value) in object["data"].as_object_mut().into_iter().flatten() {
            let differs = others.get(key).is_some_and(|other| other != value);
            *value = if differs { format!("{HIDDEN} ({suffix})") } else { HIDDEN.to_owned() }.into();
        }
    };
    if let Some(before) = before {
        hide(before, &new, "before");
    }
    hide(after, &old, "after");
}

/// Runs the user's program for differences, or else `diff`.
async fn compare(live: &Path, merged: &Path) -> Result<ExitCode, Failure> {
    let own = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|program| !program.trim().is_empty());
    let line = own.unwrap_or_else(|| "diff -u -N".to_owned());
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words).arg(live).arg(merged).stdin(Stdio::null());
    let status = command.status().await.because(format!("error: failed to run {program:?}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_shows_only_that_it_differs() {
        let mut before = json!({"data": {"same": "YQ==", "changed": "YQ==", "gone": "YQ=="}});
        let mut after = json!({"data": {"same": "YQ==", "changed": "Yg==", "new": "YQ=="}});
        mask(Some(&mut before), &mut after);
        assert_eq!(before, json!({"data": {"same": "***", "changed": "*** (before)", "gone": "***"}}));
        assert_eq!(after, json!({"data": {"same": "***", "changed": "*** (after)", "new": "***"}}));
    }
}
