//! `skiff edit`: an object in the user's editor, and what was changed there sent to the server.

use std::io::Write;
use std::process::Stdio;

use api::patch::{merge_diff, strategic};
use clap::Args;
use serde_json::Value;
use tokio::process::Command;

use super::print;
use crate::Failure;
use crate::failure::Because;
use crate::output::{drop_managed_fields, yaml};
use crate::resources::files::{FileArgs, yaml as parse_yaml};
use crate::resources::select::{Object, Selectors};
use crate::resources::{Call, Patch, Session};

const HEADER: &str = "\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

#[derive(Args, Debug)]
pub(crate) struct Edit {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
}

impl Edit {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let targets = session.targets(&self.resources, &self.files).await?;
        if targets.list.is_empty() {
            return Err(Failure::new("error: must specify one of -f and -k, or a resource"));
        }
        for object in session.fetch_all(targets, &Selectors::default()).await? {
            edit(session, object).await?;
        }
        Ok(())
    }
}

async fn edit(session: &Session, object: Object) -> Result<(), Failure> {
    let mut before = object.value.clone();
    drop_managed_fields(&mut before);
    let mut shown = yaml::to_string(&before);
    let mut complaint = String::new();
    loop {
        let edited = in_editor(&format!("{HEADER}{complaint}{shown}")).await?;
        let body: String =
            edited.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        if body.trim().is_empty() {
            return Err(Failure::new("Edit cancelled, saved file was empty."));
        }
        // Nothing was changed since it was shown, be it at first or after a complaint.
        if body == shown {
            if complaint.is_empty() {
                return cancelled();
            }
            return Err(Failure::new(format!("error: edit cancelled\n{complaint}")));
        }
        let sent = match parse_yaml(&body, 0) {
            Ok(after) if after == before => return cancelled(),
            Ok(after) => send(session, &object, &before, &after).await,
            Err(why) => Err(Failure::new(why.to_string())),
        };
        match sent {
            Ok(()) => return print(format!("{} edited\n", object.label())),
            Err(failure) => {
                complaint =
                    failure.to_string().lines().map(|line| format!("# {line}\n")).collect::<String>() + "#\n";
                shown = body;
            }
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is how an edit ends")]
fn cancelled() -> Result<(), Failure> {
    eprintln!("Edit cancelled, no changes made.");
    Ok(())
}

async fn send(session: &Session, object: &Object, before: &Value, after: &Value) -> Result<(), Failure> {
    let (Some(from), Some(to)) = (before.as_object(), after.as_object()) else {
        return Err(Failure::new("error: not an object"));
    };
    let (kind, patch) = match object.mapping.strategic() {
        Some(ty) => (Patch::Strategic, strategic::diff(ty, from, to).because("error")?),
        None => (Patch::Merge, merge_diff(from, to)),
    };
    session
        .json(Call::patch(object.path(), kind, &patch.into()).query("fieldManager", "kubectl-edit"))
        .await?;
    Ok(())
}

/// The text as the user's editor leaves it.
async fn in_editor(text: &str) -> Result<String, Failure> {
    let mut file =
        tempfile::Builder::new().prefix("skiff-edit-").suffix(".yaml").tempfile().because("error")?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).because("error")?;
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = set("KUBE_EDITOR").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // Through a shell, since editors are given with flags.
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file.path());
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let status = command.status().await.because(format!("error: editor {editor:?}"))?;
    if !status.success() {
        return Err(Failure::new(format!("error: there was a problem with the editor {editor:?}")));
    }
    std::fs::read_to_string(file.path()).because("error")
}
