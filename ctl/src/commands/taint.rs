//! `skiff taint`: marks on nodes that keep pods away.

use std::fmt;

use clap::Args;
use serde_json::{Value, json};

use super::apply::DryRun;
use super::mutate::Subjects;
use crate::Failure;
use crate::resources::{Call, Patch, Session, items, text};

#[derive(Args, Debug)]
pub(crate) struct Taint {
    /// nodes NAME..., and then KEY=VALUE:EFFECT, or KEY:EFFECT- or KEY- to remove
    #[arg(required = true, value_name = "NODE NAME KEY=VALUE:EFFECT")]
    words: Vec<String>,
    /// If true, allow taints to be overwritten
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    subjects: Subjects,
}

/// A taint as it is written on the command line.
#[derive(Clone, Debug, PartialEq)]
struct Spec {
    key: String,
    value: String,
    effect: String,
    remove: bool,
}

impl Spec {
    fn parse(word: &str) -> Result<Self, Failure> {
        let invalid = |why: &str| Failure::new(format!("error: invalid taint spec: {word}, {why}"));
        let (body, remove) = match word.strip_suffix('-') {
            Some(body) => (body, true),
            None => (word, false),
        };
        let (mark, effect) = body.split_once(':').unwrap_or((body, ""));
        let (key, value) = mark.split_once('=').unwrap_or((mark, ""));
        if effect.is_empty() && !remove {
            return Err(invalid("an effect is needed: KEY=VALUE:EFFECT"));
        }
        if !effect.is_empty() && !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
            return Err(Failure::new(format!(
                "error: invalid taint effect: {effect}, unsupported taint effect"
            )));
        }
        if let Some(why) = api::name::qualified_name(key).first() {
            return Err(invalid(why));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned(), remove })
    }

    fn is_about(&self, taint: &Value) -> bool {
        text(taint, "key") == self.key && (self.effect.is_empty() || text(taint, "effect") == self.effect)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if self.effect.is_empty() { Ok(()) } else { write!(f, ":{}", self.effect) }
    }
}

/// The taints of a node after a change, and what is to be said of the change.
fn changed(
    node: &str,
    before: &[Value],
    specs: &[Spec],
    overwrite: bool,
) -> Result<(Vec<Value>, &'static str), Failure> {
    let (remove, add): (Vec<&Spec>, Vec<&Spec>) = specs.iter().partition(|spec| spec.remove);
    let mut missing = Vec::new();
    for spec in &remove {
        if !before.iter().any(|taint| spec.is_about(taint)) {
            missing.push(format!("taint \"{spec}\" not found"));
        }
    }
    if !missing.is_empty() {
        let all = missing.join(", ");
        return Err(Failure::new(if missing.len() > 1 {
            format!("error: [{all}]")
        } else {
            format!("error: {all}")
        }));
    }
    let known: Vec<&str> = add
        .iter()
        .filter(|spec| before.iter().any(|taint| spec.is_about(taint)))
        .map(|spec| &*spec.key)
        .collect();
    if !known.is_empty() && !overwrite {
        return Err(Failure::new(format!(
            "error: node {node} already has {} taint(s) with same effect(s) and --overwrite is false",
            known.join(", ")
        )));
    }
    let stays = |taint: &&Value| !specs.iter().any(|spec| spec.is_about(taint));
    let new = add.iter().map(|spec| {
        let mut taint = json!({"key": spec.key, "effect": spec.effect});
        if !spec.value.is_empty() {
            taint["value"] = spec.value.clone().into();
        }
        taint
    });
    let after = new.chain(before.iter().filter(stays).cloned()).collect();
    let done = match (add.is_empty(), remove.is_empty()) {
        (false, true) => "tainted",
        (true, false) => "untainted",
        _ => "modified",
    };
    Ok((after, done))
}

impl Taint {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let is_spec = |word: &String| word.contains('=') || word.contains(':') || word.ends_with('-');
        let first = self.words.iter().position(is_spec).unwrap_or(self.words.len());
        let (resources, specs) = self.words.split_at(first);
        if specs.is_empty() {
            return Err(Failure::new("error: at least one taint update is required"));
        }
        let specs = specs.iter().map(|word| Spec::parse(word)).collect::<Result<Vec<_>, _>>()?;
        let mut printer = self.subjects.output.printer()?;
        for object in self.subjects.find(session, resources).await? {
            if (object.mapping.group.as_str(), object.mapping.plural.as_str()) != ("", "nodes") {
                return Err(Failure::new(format!(
                    "error: invalid resource type {}, only node types are supported",
                    object.mapping.plural
                )));
            }
            let before = items(&object.value, "spec.taints");
            let (after, done) = changed(object.name(), before, &specs, self.overwrite)?;
            let dry_run = self.subjects.dry_run;
            // The list as a whole, and only if nobody changed it meanwhile.
            let patch = json!({
                "metadata": {"resourceVersion": object.value["metadata"]["resourceVersion"]},
                "spec": {"taints": if after.is_empty() { Value::Null } else { after.into() }},
            });
            let value = if dry_run == DryRun::Client {
                object.value.clone()
            } else {
                let call = Call::patch(object.path(), Patch::Merge, &patch);
                session.json(call.query("fieldManager", "kubectl-taint").dry_run(dry_run.server())).await?
            };
            printer.done(&object.mapping, &value, &format!("{done}{}", dry_run.suffix()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_added_overwritten_and_removed() {
        let before = [
            json!({"key": "a", "value": "1", "effect": "NoSchedule"}),
            json!({"key": "b", "effect": "NoExecute"}),
        ];
        for (words, overwrite, expected) in [
            (vec!["c=1:NoSchedule"], false, Ok((vec!["c", "a", "b"], "tainted"))),
            (vec!["a=2:NoExecute"], false, Ok((vec!["a", "a", "b"], "tainted"))),
            (vec!["a-"], false, Ok((vec!["b"], "untainted"))),
            (vec!["b:NoExecute-", "c:NoExecute"], false, Ok((vec!["c", "a"], "modified"))),
            (
                vec!["a=2:NoSchedule"],
                false,
                Err("error: node n already has a taint(s) with same effect(s) and --overwrite is false"),
            ),
            (vec!["a=2:NoSchedule"], true, Ok((vec!["a", "b"], "tainted"))),
            (vec!["b:NoSchedule-"], false, Err("error: taint \"b:NoSchedule\" not found")),
        ] {
            let specs: Vec<Spec> = words.iter().map(|word| Spec::parse(word).unwrap()).collect();
            let changed = changed("n", &before, &specs, overwrite).map_err(|failure| failure.to_string());
            let told = changed
                .as_ref()
                .map(|(after, done)| (after.iter().map(|taint| text(taint, "key")).collect(), *done))
                .map_err(String::as_str);
            assert_eq!(told, expected, "{words:?}");
        }
        for word in ["a", "a=b", "a:Sometimes", "=:NoSchedule"] {
            assert!(Spec::parse(word).is_err(), "{word}");
        }
    }
}
