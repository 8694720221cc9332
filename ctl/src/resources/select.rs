//! Which objects the arguments mean: `TYPE`, `TYPE NAME...`, `TYPE/NAME...`, files, selectors.

use clap::Args;
use serde_json::Value;

use super::call::{ApiError, Call};
use super::files::{FileArgs, Manifest};
use super::mapping::Mapping;
use super::session::Session;
use crate::Failure;

/// How many objects are asked for at once.
pub(crate) const CHUNK: &str = "500";

/// Which objects of a type.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Selector (field query) to filter on, supports '=', '==', and '!='
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) field_selector: Option<String>,
    /// If present, list the requested object(s) across all namespaces
    #[arg(long, short = 'A')]
    pub(crate) all_namespaces: bool,
}

impl Selectors {
    pub(crate) fn is_empty(&self) -> bool {
        self.selector.is_none() && self.field_selector.is_none()
    }

    /// The query for a list of these.
    pub(crate) fn on(&self, call: Call) -> Call {
        call.query_if("labelSelector", self.selector.as_ref())
            .query_if("fieldSelector", self.field_selector.as_ref())
    }
}

/// What the arguments mean, before the server was asked.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The objects of a type that the selectors choose.
    All(Mapping),
    /// One object.
    One { mapping: Mapping, namespace: String, name: String, manifest: Option<Manifest> },
}

/// The targets, and whether a person named one object only.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) list: Vec<Target>,
    /// More than one type was asked for, so the type must be told.
    pub(crate) several_types: bool,
    /// One object was asked for, by its name.
    pub(crate) single: bool,
}

/// An object of the server.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) mapping: Mapping,
    pub(crate) value: Value,
}

impl Object {
    pub(crate) fn name(&self) -> &str {
        super::name(&self.value)
    }

    pub(crate) fn namespace(&self) -> &str {
        super::namespace(&self.value)
    }

    pub(crate) fn path(&self) -> String {
        self.mapping.object(self.namespace(), self.name())
    }

    /// `deployment.apps/x`
    pub(crate) fn label(&self) -> String {
        self.mapping.named(self.name())
    }
}

impl Session {
    /// Reads arguments and files as targets.
    pub(crate) async fn targets(&self, words: &[String], files: &FileArgs) -> Result<Targets, Failure> {
        if !files.is_empty() {
            if !words.is_empty() {
                return Err(Failure::new(
                    "error: when paths, URLs, or stdin is provided as input, you may not specify resource arguments \
                     as well",
                ));
            }
            let mut list = Vec::new();
            for manifest in files.read()? {
                list.push(self.manifest_target(manifest).await?);
            }
            let several_types = several(&list);
            return Ok(Targets { single: list.len() == 1, several_types, list });
        }
        let Some((first, rest)) = words.split_first() else {
            return Ok(Targets { list: Vec::new(), several_types: false, single: false });
        };
        let mut list = Vec::new();
        if first.contains('/') {
            for word in words {
                let (kind, name) = word.split_once('/').ok_or_else(|| {
                    Failure::new(
                        "error: there is no need to specify a resource type as a separate argument when passing \
                         arguments in resource/name form (e.g. 'skiff get resource/<resource_name>' instead of \
                         'skiff get resource resource/<resource_name>'",
                    )
                })?;
                if kind.is_empty() || name.is_empty() || name.contains('/') {
                    return Err(Failure::new(
                        "error: arguments in resource/name form must have a single resource and name",
                    ));
                }
                let mapping = self.resource(kind).await?;
                list.push(self.one(mapping, name));
            }
            let several_types = several(&list);
            return Ok(Targets { single: list.len() == 1, several_types, list });
        }
        let mappings = self.resources(first).await?;
        if rest.iter().any(|word| word.contains('/')) {
            return Err(Failure::new(
                "error: there is no need to specify a resource type as a separate argument when passing arguments in \
                 resource/name form (e.g. 'skiff get resource/<resource_name>' instead of 'skiff get resource \
                 resource/<resource_name>'",
            ));
        }
        let several_types = mappings.len() > 1;
        for mapping in mappings {
            if rest.is_empty() {
                list.push(Target::All(mapping));
            } else {
                list.extend(rest.iter().map(|name| self.one(mapping.clone(), name)));
            }
        }
        Ok(Targets { single: list.len() == 1 && rest.len() == 1, several_types, list })
    }

    fn one(&self, mapping: Mapping, name: &str) -> Target {
        let namespace = if mapping.namespaced { self.namespace() } else { "" };
        Target::One { mapping, namespace: namespace.to_owned(), name: name.to_owned(), manifest: None }
    }

    /// The type and place of an object from a file, whose namespace is set.
    pub(crate) async fn manifest_target(&self, mut manifest: Manifest) -> Result<Target, Failure> {
        let (api_version, kind) =
            (super::text(&manifest.object, "apiVersion"), super::text(&manifest.object, "kind"));
        let name = super::name(&manifest.object).to_owned();
        let own = super::namespace(&manifest.object).to_owned();
        let Some(mapping) = self.kind(api_version, kind).await? else {
            return Err(Failure::new(format!(
                "error: resource mapping not found for name: {name:?} namespace: {own:?} from {:?}: no matches for \
                 kind {kind:?} in version {api_version:?}\nensure CRDs are installed first",
                manifest.source
            )));
        };
        let mut namespace = String::new();
        if mapping.namespaced {
            namespace = if own.is_empty() { self.namespace().to_owned() } else { own };
            if let Some(asked) = self.explicit_namespace().filter(|asked| *asked != namespace) {
                return Err(Failure::new(format!(
                    "error: the namespace from the provided object {namespace:?} does not match the namespace \
                     {asked:?}. You must pass '--namespace={namespace}' to perform this operation."
                )));
            }
            if !manifest.object["metadata"].is_object() {
                manifest.object["metadata"] = Value::Object(serde_json::Map::new());
            }
            manifest.object["metadata"]["namespace"] = namespace.clone().into();
        }
        Ok(Target::One { mapping, namespace, name, manifest: Some(manifest) })
    }

    /// Asks the server for the targets' objects. What fails doesn't keep the rest from being found.
    pub(crate) async fn fetch(
        &self,
        targets: Targets,
        selectors: &Selectors,
    ) -> Result<(Vec<Object>, Vec<ApiError>), Failure> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for target in targets.list {
            match target {
                Target::One { mapping, namespace, name, .. } => {
                    match self.json(Call::get(mapping.object(&namespace, &name))).await {
                        Ok(value) => found.push(Object { mapping, value }),
                        Err(error) => errors.push(error),
                    }
                }
                Target::All(mapping) => {
                    let namespace = (!selectors.all_namespaces).then(|| self.namespace());
                    match self.list(&mapping, namespace, selectors).await {
                        Ok(items) => found.extend(
                            items.into_iter().map(|value| Object { mapping: mapping.clone(), value }),
                        ),
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        Ok((found, errors))
    }

    /// The targets' objects, all of them.
    pub(crate) async fn fetch_all(
        &self,
        targets: Targets,
        selectors: &Selectors,
    ) -> Result<Vec<Object>, Failure> {
        let (found, errors) = self.fetch(targets, selectors).await?;
        match errors.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(found),
        }
    }

    /// All objects of a type, in chunks; each knows its kind.
    pub(crate) async fn list(
        &self,
        mapping: &Mapping,
        namespace: Option<&str>,
        selectors: &Selectors,
    ) -> Result<Vec<Value>, ApiError> {
        let mut found = Vec::new();
        let mut more = String::new();
        loop {
            let mut call = selectors.on(Call::get(mapping.collection(namespace)).query("limit", CHUNK));
            if !more.is_empty() {
                call = call.query("continue", &more);
            }
            let mut list = self.json(call).await?;
            let Value::Array(items) = list["items"].take() else { return Ok(found) };
            found.extend(items.into_iter().map(|mut item| {
                if let Some(item) = item.as_object_mut() {
                    item.entry("apiVersion").or_insert_with(|| mapping.api_version().into());
                    item.entry("kind").or_insert_with(|| mapping.kind.clone().into());
                }
                item
            }));
            more = super::text(&list, "metadata.continue").to_owned();
            if more.is_empty() {
                return Ok(found);
            }
        }
    }
}

fn several(list: &[Target]) -> bool {
    let kind = |target: &Target| match target {
        Target::All(mapping) | Target::One { mapping, .. } => mapping.resource(),
    };
    list.iter().any(|target| kind(target) != kind(&list[0]))
}

/// The rest failed after something was done: say so, each on a line.
pub(crate) fn ended(errors: Vec<ApiError>) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ApiError::text).collect();
    Err(Failure::new(lines.join("\n")))
}
