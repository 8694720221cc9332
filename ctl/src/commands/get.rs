//! `skiff get`

use api::table::age;
use base::Clock;
use clap::Args;
use serde_json::{Value, json};

use super::print;
use crate::Failure;
use crate::output::table::{Aligner, View, fallback};
use crate::output::{Format, OutputArgs, columns, drop_managed_fields, list};
use crate::resources::call::TABLE;
use crate::resources::files::FileArgs;
use crate::resources::select::{CHUNK, Selectors, ended};
use crate::resources::{ApiError, Call, Mapping, Session, Target, Targets, items, text};

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// TYPE, TYPE NAME..., TYPE/NAME..., TYPE,TYPE
    #[arg(value_name = "TYPE[/NAME]")]
    resources: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    output: OutputArgs,
    /// After listing/getting the requested object, watch for changes
    #[arg(long, short = 'w')]
    watch: bool,
    /// Watch for changes to the requested object(s), without listing/getting first
    #[arg(long)]
    watch_only: bool,
    /// Output watch event objects when --watch or --watch-only is used
    #[arg(long)]
    output_watch_events: bool,
    /// When printing, show all labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// Labels that are going to be presented as columns
    #[arg(long, short = 'L', value_delimiter = ',', value_name = "LABEL")]
    label_columns: Vec<String>,
    /// If present, list the resource type for the requested object(s)
    #[arg(long)]
    show_kind: bool,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    no_headers: bool,
    /// Sort list types using this field specification, such as '{.metadata.name}'
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
    /// If set to true, suppresses NotFound error for specific objects that do not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Raw URI to request from the server
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
    /// If specified, get the subresource of the requested object
    #[arg(long, value_name = "NAME")]
    subresource: Option<String>,
}

/// The answer about one target: a Table, or objects.
struct Answer {
    mapping: Mapping,
    value: Value,
}

impl Get {
    pub(crate) async fn run(mut self, session: &Session) -> Result<(), Failure> {
        if let Some(path) = &self.raw {
            return print(session.text(Call::get(path.as_str())).await?);
        }
        if self.resources.is_empty() && self.files.is_empty() {
            return Err(Failure::new(
                "You must specify the type of resource to get. Use \"skiff api-resources\" for a complete list of \
                 supported resources.\n\nerror: Required resource not specified.\nUse \"skiff \
                 explain <resource>\" for a detailed description of that resource (e.g. skiff explain pods).\nSee 'skiff get -h' for help and \
                 examples",
            ));
        }
        let format = self.output.format()?;
        let targets = session.targets(&self.resources, &self.files).await?;
        if targets.list.iter().any(|target| matches!(target, Target::One { .. })) {
            if self.selectors.all_namespaces {
                return Err(Failure::new(
                    "error: a resource cannot be retrieved by name across all namespaces",
                ));
            }
            if self.selectors.selector.is_some() {
                return Err(Failure::new("error: name cannot be provided when a selector is specified"));
            }
        }
        self.show_kind |= targets.several_types;
        if self.watch || self.watch_only {
            return self.follow(session, targets, &format).await;
        }
        let single = targets.single;
        let (answers, errors) = self.ask(session, &targets, &format).await?;
        if format.is_table() {
            self.show_tables(session, &answers, &format, errors.is_empty())?;
        } else {
            self.show_objects(answers, &format, single)?;
        }
        ended(errors)
    }

    fn call(&self, target: &Target, session: &Session, format: &Format) -> Call {
        let (call, all) = match target {
            Target::All(mapping) => {
                let namespace = (!self.selectors.all_namespaces).then(|| session.namespace());
                (self.selectors.on(Call::get(mapping.collection(namespace)).query("limit", CHUNK)), true)
            }
            Target::One { mapping, namespace, name, .. } => {
                let mut path = mapping.object(namespace, name);
                if let Some(sub) = &self.subresource {
                    path = format!("{path}/{sub}");
                }
                (Call::get(path), false)
            }
        };
        if !format.is_table() {
            return call;
        }
        let call = call.accept(TABLE);
        // Sorting needs the objects, not just their metadata.
        if self.sort_by.is_some() && all { call.query("includeObject", "Object") } else { call }
    }

    async fn ask(
        &self,
        session: &Session,
        targets: &Targets,
        format: &Format,
    ) -> Result<(Vec<Answer>, Vec<ApiError>), Failure> {
        let (mut answers, mut errors): (Vec<Answer>, Vec<ApiError>) = (Vec::new(), Vec::new());
        for target in &targets.list {
            let (Target::All(mapping) | Target::One { mapping, .. }) = target;
            match self.whole(session, self.call(target, session, format)).await {
                Ok(value) => answers.push(Answer { mapping: mapping.clone(), value }),
                Err(error) if error.is_not_found() && self.ignore_not_found => {}
                // A bad selector: kubectl says which.
                Err(ApiError::Refused(mut refusal))
                    if refusal.reason == "BadRequest" && matches!(target, Target::All(_)) =>
                {
                    let [selector, field] = [&self.selectors.selector, &self.selectors.field_selector]
                        .map(|text| text.as_deref().unwrap_or_default());
                    let what = format!("/{}, Resource={}", mapping.api_version(), mapping.plural);
                    let what = if mapping.group.is_empty() { what } else { what[1..].to_owned() };
                    refusal.message = if selector.is_empty() && field.is_empty() {
                        format!("Unable to list {what:?}: {}", refusal.message)
                    } else {
                        format!(
                            "Unable to find {what:?} that match label selector {selector:?}, field selector {field:?}: {}",
                            refusal.message
                        )
                    };
                    errors.push(ApiError::Refused(refusal));
                }
                // A category may name what this user may not see; the rest is still of use.
                Err(error) => errors.push(error),
            }
        }
        for answer in &mut answers {
            self.sort(&mut answer.value)?;
        }
        Ok((answers, errors))
    }

    /// The answer with all its chunks.
    async fn whole(&self, session: &Session, call: Call) -> Result<Value, ApiError> {
        let mut value = session.json(call.clone()).await?;
        let key = if value["kind"] == "Table" { "rows" } else { "items" };
        loop {
            let more = text(&value, "metadata.continue").to_owned();
            if more.is_empty() {
                return Ok(value);
            }
            let mut next = session.json(call.clone().query("continue", more)).await?;
            value["metadata"] = next["metadata"].take();
            if let (Value::Array(all), Value::Array(next)) = (&mut value[key], next[key].take()) {
                all.extend(next);
            }
        }
    }

    fn sort(&self, value: &mut Value) -> Result<(), Failure> {
        let Some(spec) = &self.sort_by else { return Ok(()) };
        let path = columns::field(spec)?;
        let table = value["kind"] == "Table";
        let key = if table { "rows" } else { "items" };
        let Some(list) = value.get_mut(key).and_then(Value::as_array_mut) else { return Ok(()) };
        let mut keyed = Vec::new();
        for item in list.drain(..) {
            let object = if table { &item["object"] } else { &item };
            let found = path.values(object).map_err(|why| Failure::new(format!("error: {why}")))?;
            let key = found.first().map(|value| SortKey::of(value));
            keyed.push((key, item));
        }
        keyed.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        list.extend(keyed.into_iter().map(|(_, item)| item));
        Ok(())
    }

    fn view(&self, mapping: &Mapping, wide: bool) -> View {
        View {
            wide,
            headers: !self.no_headers,
            with_namespace: self.selectors.all_namespaces && mapping.namespaced,
            labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            kind_prefix: if self.show_kind { format!("{}/", mapping.short()) } else { String::new() },
            events: self.output_watch_events && (self.watch || self.watch_only),
        }
    }

    fn show_tables(
        &self,
        session: &Session,
        answers: &[Answer],
        format: &Format,
        complete: bool,
    ) -> Result<(), Failure> {
        let wide = *format == Format::Table { wide: true };
        let mut blocks: Vec<(&Mapping, Vec<Vec<String>>)> = Vec::new();
        for answer in answers {
            let table = as_table(&answer.value);
            let (columns, rows) = (items(&table, "columnDefinitions"), items(&table, "rows"));
            if rows.is_empty() {
                continue;
            }
            let view = self.view(&answer.mapping, wide);
            let same =
                blocks.last_mut().filter(|(mapping, _)| mapping.resource() == answer.mapping.resource());
            let lines = rows.iter().map(|row| view.row(columns, row, ""));
            match same {
                Some((_, block)) => block.extend(lines),
                None => {
                    let mut block: Vec<Vec<String>> = Vec::new();
                    if view.headers {
                        block.push(view.header(columns));
                    }
                    block.extend(lines);
                    blocks.push((&answer.mapping, block));
                }
            }
        }
        if blocks.is_empty() {
            if complete && !self.ignore_not_found {
                let namespaced = answers.iter().any(|answer| answer.mapping.namespaced);
                if namespaced && !self.selectors.all_namespaces {
                    eprintln!("No resources found in {} namespace.", session.namespace());
                } else {
                    eprintln!("No resources found");
                }
            }
            return Ok(());
        }
        let texts: Vec<String> = blocks.iter().map(|(_, block)| Aligner::default().lines(block)).collect();
        print(texts.join("\n"))
    }

    fn show_objects(&self, answers: Vec<Answer>, format: &Format, single: bool) -> Result<(), Failure> {
        let mut mappings = Vec::new();
        let mut objects = Vec::new();
        for Answer { mapping, mut value } in answers {
            if !self.output.show_managed_fields {
                drop_managed_fields(&mut value);
            }
            match value["items"].take() {
                Value::Array(found) if text(&value, "kind").ends_with("List") => {
                    for mut item in found {
                        if let Some(item) = item.as_object_mut() {
                            item.entry("apiVersion").or_insert_with(|| mapping.api_version().into());
                            item.entry("kind").or_insert_with(|| mapping.kind.clone().into());
                        }
                        objects.push(item);
                        mappings.push(mapping.clone());
                    }
                }
                _ => {
                    if let Some(object) = value.as_object_mut() {
                        object.remove("items");
                    }
                    objects.push(value);
                    mappings.push(mapping);
                }
            }
        }
        match format {
            Format::Name => {
                let lines = objects
                    .iter()
                    .zip(&mappings)
                    .map(|(object, mapping)| format!("{}\n", mapping.named(crate::resources::name(object))));
                print(lines.collect::<String>())
            }
            Format::Columns(columns) => print(columns.table(&objects, !self.no_headers)?),
            _ => {
                let whole = match (single, objects.pop()) {
                    (true, Some(object)) => object,
                    (true, None) => return Ok(()),
                    (false, last) => {
                        objects.extend(last);
                        list(objects)
                    }
                };
                let unnamed = Mapping::builtin("", "pods")?;
                print(format.whole(mappings.first().unwrap_or(&unnamed), &whole)?)
            }
        }
    }

    async fn follow(&self, session: &Session, targets: Targets, format: &Format) -> Result<(), Failure> {
        let [target] = targets.list.as_slice() else {
            return Err(Failure::new("error: you may only specify a single resource type"));
        };
        let (Target::All(mapping) | Target::One { mapping, .. }) = target;
        let view = self.view(mapping, *format == Format::Table { wide: true });
        let mut screen =
            Screen { aligner: Aligner::default(), columns: Vec::new(), headed: false, documents: 0 };
        let first = match self.whole(session, self.call(target, session, format)).await {
            Ok(value) => value,
            Err(error) => return Err(error.into()),
        };
        let mut revision = text(&first, "metadata.resourceVersion").to_owned();
        if !self.watch_only {
            let objects = match (&first["kind"], first["items"].as_array()) {
                (kind, _) if kind == "Table" => vec![first.clone()],
                (_, Some(objects)) => objects.clone(),
                (_, None) => vec![first.clone()],
            };
            for object in objects {
                self.show_event(&view, &mut screen, mapping, "ADDED", object, format)?;
            }
        }
        let path = match target {
            Target::All(_) => {
                let namespace = (!self.selectors.all_namespaces).then(|| session.namespace());
                self.selectors.on(Call::get(mapping.collection(namespace)))
            }
            Target::One { namespace, name, .. } => Call::get(mapping.collection(Some(namespace)))
                .query("fieldSelector", format!("metadata.name={name}")),
        };
        loop {
            let mut call = path.clone().query("watch", "true").query("resourceVersion", &revision);
            if format.is_table() {
                call = call.accept(TABLE);
            }
            let mut events = session.lines(call).await?;
            while let Some((kind, object)) = events.event().await? {
                let of = if object["kind"] == "Table" { &object["rows"][0]["object"] } else { &object };
                let seen = text(of, "metadata.resourceVersion");
                if !seen.is_empty() {
                    revision = seen.to_owned();
                }
                if kind != "BOOKMARK" {
                    self.show_event(&view, &mut screen, mapping, &kind, object, format)?;
                }
            }
        }
    }

    fn show_event(
        &self,
        view: &View,
        screen: &mut Screen,
        mapping: &Mapping,
        kind: &str,
        mut object: Value,
        format: &Format,
    ) -> Result<(), Failure> {
        if format.is_table() {
            let table = as_table(&object);
            let columns = items(&table, "columnDefinitions");
            if !columns.is_empty() {
                screen.columns = columns.to_vec();
            }
            let mut rows = Vec::new();
            let shown = items(&table, "rows");
            if !screen.headed && view.headers && !shown.is_empty() {
                screen.headed = true;
                rows.push(view.header(&screen.columns));
            }
            rows.extend(shown.iter().map(|row| view.row(&screen.columns, row, kind)));
            return print(screen.aligner.lines(&rows));
        }
        if !self.output.show_managed_fields {
            drop_managed_fields(&mut object);
        }
        if let Some(fields) = object.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| mapping.api_version().into());
            fields.entry("kind").or_insert_with(|| mapping.kind.clone().into());
        }
        let text = match format {
            Format::Columns(columns) => {
                let headers = screen.documents == 0 && !self.no_headers;
                columns.table(&[object], headers)?
            }
            _ if self.output_watch_events => {
                format.whole(mapping, &json!({"type": kind, "object": object}))?
            }
            _ => format.whole(mapping, &object)?,
        };
        let separator = if *format == Format::Yaml && screen.documents > 0 { "---\n" } else { "" };
        screen.documents += 1;
        print(format!("{separator}{text}"))
    }
}

/// What a watch has shown so far.
struct Screen {
    aligner: Aligner,
    columns: Vec<Value>,
    headed: bool,
    documents: usize,
}

fn as_table(value: &Value) -> Value {
    if value["kind"] == "Table" {
        return value.clone();
    }
    let objects = match value["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![value.clone()],
    };
    let now = Clock::system().now();
    fallback(&objects, |object| age(text(object, "metadata.creationTimestamp").parse().ok(), now))
}

/// What rows are sorted by.
#[derive(Debug, PartialEq, PartialOrd)]
enum SortKey {
    Number(f64),
    Text(String),
}

impl SortKey {
    fn of(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or_default()),
            Value::String(text) => Self::Text(text.clone()),
            other => Self::Text(other.to_string()),
        }
    }
}
