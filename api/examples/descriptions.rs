//! Makes `api/src/schema/descriptions.zst`, upstream's words for its types and fields, from the source of k8s-openapi:
//!
//! ```text
//! cargo run -p skiff-api --example descriptions -- k8s-openapi-0.29.0/src/v1_36 api/src/schema/descriptions.zst
//! ```
//!
//! The texts are in that crate's `JsonSchema` implementations. They are read from the source because its feature
//! `schemars` would have to be on in every build of the tests, and because nobody could list all types then.
//! The format is read by `api/src/schema/descriptions.rs` and described there.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use api::schema::{Shape, Types};

/// What the source says of a type.
#[derive(Default)]
struct About {
    text: String,
    fields: BTreeMap<String, String>,
    required: Vec<String>,
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// A Rust string literal at the start of a text. Those of the crate are JSON strings as well.
fn literal(text: &str) -> String {
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    strings.next().expect("a literal").expect("a literal that is JSON")
}

/// Reads the `json_schema!` of a type, of which each line says one thing.
fn read(lines: &mut std::str::Lines<'_>) -> About {
    let mut about = About::default();
    let (mut field, mut required) = (String::new(), false);
    for line in lines.by_ref() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        let described = text.strip_prefix("\"description\": ");
        match depth {
            8 if text.starts_with("})") => break,
            12 => {
                required = text.starts_with("\"required\"");
                if let Some(text) = described {
                    about.text = literal(text);
                }
            }
            16 if required => about.required.push(literal(text)),
            16 if text.starts_with('"') => field = literal(text),
            20 => {
                let beside = "schema_obj.ensure_object().insert(\"description\".into(), ";
                if let Some(text) = described.or_else(|| text.strip_prefix(beside)) {
                    about.fields.insert(field.clone(), literal(text));
                }
            }
            _ => {}
        }
    }
    about
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}

/// The crate has one generic list, without a schema: what upstream says of each is said in the same words of all.
fn add_lists(types: &Types, all: &mut BTreeMap<String, About>) {
    let meta = &all["apimachinery.pkg.apis.meta.v1.Status"].fields;
    let mut common = BTreeMap::new();
    for field in ["apiVersion", "kind"] {
        common.insert(field.to_owned(), meta[field].clone());
    }
    let more = "Standard list metadata. More info: \
                https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    common.insert("metadata".to_owned(), more.to_owned());
    for (_, ty) in types.iter() {
        let Shape::Struct(list) = &ty.shape else { continue };
        let Some(items) = list.field("items").filter(|_| list.type_meta) else { continue };
        let Shape::List(item) = types.get(items.ty).shape else { continue };
        let item = types.get(item).name.replace('/', ".");
        let name = ty.name.replace('/', ".");
        if all.contains_key(&name) || !all.contains_key(&item) {
            continue;
        }
        let kind = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let mut fields = common.clone();
        fields.insert("items".to_owned(), format!("Items is the list of {} objects.", kind(&item)));
        let text = format!("{} is a list of {} objects.", kind(&name), kind(&item));
        all.insert(name, About { text, fields, required: Vec::new() });
    }
}

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().expect("the folder of a version in the source of k8s-openapi");
    let target = arguments.next().expect("the file to write");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    let mut all: BTreeMap<String, About> = BTreeMap::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a readable file");
        let mut lines = source.lines();
        let mut name = String::new();
        while let Some(line) = lines.next() {
            if line.contains("fn schema_name()") {
                name = literal(lines.next().unwrap_or_default().trim_start());
            } else if line.contains("json_schema!({") {
                let name = name.strip_prefix("io.k8s.").expect("a name of Kubernetes");
                all.insert(name.to_owned(), read(&mut lines));
            }
        }
    }
    let types = Types::builtin();
    add_lists(&types, &mut all);
    let mut out =
        String::from("# The texts of Kubernetes' OpenAPI document, Apache-2.0, the Kubernetes authors.\n");
    for (name, about) in &all {
        let known = types.iter().find(|(_, ty)| ty.name.replace('/', ".") == *name);
        let _ = writeln!(out, "{name}\t{}", escaped(&about.text));
        for (field, text) in &about.fields {
            let fact = known.and_then(|(_, ty)| match &ty.shape {
                Shape::Struct(fields) => fields.field(field),
                _ => None,
            });
            // The crate also says so of fields that upstream leaves optional, where it has a default for the type.
            let must = about.required.contains(field)
                && field != "metadata"
                && fact.is_some_and(|fact| fact.omit_empty && !fact.optional);
            let _ = writeln!(out, "\t{}{field}\t{}", if must { "*" } else { "" }, escaped(text));
        }
    }
    let packed = zstd::bulk::compress(out.as_bytes(), 19).expect("compressible");
    eprintln!("{} types, {} bytes, packed {}", all.len(), out.len(), packed.len());
    fs::write(target, packed).expect("a writable file");
}
