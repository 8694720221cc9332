//! Field validation: what an object has that its kind has not, and what it has twice.

use serde_json::{Value, json};

use crate::common::Answer;
use crate::walk::{Made, Walk, merged};

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

pub(crate) async fn unknown_and_twice(walk: &mut Walk<'_>) {
    walk.step("strict").await;
    let Some(made) = walk.make().await else { return };
    let object = walk.next();
    let unknown = merged(&object, &json!({"walkUnknown": 1, "metadata": {"walkNested": 2}}));
    // JSON values can't have a key twice: the text can.
    let twice = object.to_string().replacen("\"metadata\":{", "\"metadata\":{\"uid\":\"\",\"uid\":\"\",", 1);
    let (version, kind) = (&walk.served.version, walk.served.kind.clone());
    let version = version.rsplit('/').next().unwrap_or_default();
    let cannot = |why: &str| {
        format!("{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {why}")
    };
    for (what, text, complaints) in [
        (
            "unknown",
            unknown.to_string(),
            vec!["unknown field \"metadata.walkNested\"", "unknown field \"walkUnknown\""],
        ),
        ("twice", twice, vec!["duplicate field \"metadata.uid\""]),
    ] {
        for validation in ["Strict", "Warn", "Ignore", ""] {
            let all = format!("{}?dryRun=All&fieldValidation={validation}", walk.all());
            let answer = walk.api.send("POST", &all, &[], text.clone()).await;
            let what = format!("create, {what}, {validation}");
            judge(walk, &what, validation, &answer, 201, &complaints, &cannot(&complaints.join(", ")));
        }
    }
    updates(walk, &made, &cannot("unknown field \"walkUnknown\"")).await;
    let other = walk.api.post(&format!("{}?fieldValidation=Sometimes", walk.all()), &object).await;
    walk.is("another sort of validation", other.code == 422, &other.text);
}

fn judge(
    walk: &mut Walk<'_>,
    what: &str,
    validation: &str,
    answer: &Answer,
    good: u16,
    complaints: &[&str],
    refusal: &str,
) {
    let given: Vec<String> = warnings(answer)
        .into_iter()
        .filter(|text| text.contains("unknown field") || text.contains("duplicate field"))
        .collect();
    let said = |complaint: &&str| format!("299 - \"{}\"", complaint.replace('"', "\\\""));
    match validation {
        "Strict" => walk.refused(what, 400, "BadRequest", refusal, answer),
        _ => {
            walk.is(what, answer.code == good, &answer.text);
            let want: Vec<String> =
                if validation == "Ignore" { Vec::new() } else { complaints.iter().map(said).collect() };
            walk.same(&format!("{what}: warnings"), &json!(given), &json!(want));
        }
    }
}

async fn updates(walk: &mut Walk<'_>, made: &Made, refusal: &str) {
    let patch = json!({"walkUnknown": 1});
    let mut object = merged(&made.object, &patch);
    object["metadata"]["managedFields"] = Value::Null;
    let complaints = ["unknown field \"walkUnknown\""];
    for validation in ["Strict", "Warn", "Ignore", ""] {
        let path = format!("{}?dryRun=All&fieldValidation={validation}", made.path);
        let answer = walk.api.put(&path, &object).await;
        judge(walk, &format!("update, {validation}"), validation, &answer, 200, &complaints, refusal);
        for kind in ["merge-patch", "strategic-merge-patch", "json-patch"] {
            let patch = match kind {
                "json-patch" => json!([{"op": "add", "path": "/walkUnknown", "value": 1}]),
                _ => patch.clone(),
            };
            let answer = walk.api.patch(kind, &path, &patch).await;
            let what = format!("{kind}, {validation}");
            match validation {
                "Strict" => {
                    let said = answer.code == 422
                        && answer.message().contains("strict decoding error: unknown field \"walkUnknown\"");
                    walk.is(&what, said, &answer.text);
                }
                _ => judge(walk, &what, validation, &answer, 200, &complaints, ""),
            }
        }
    }
}
