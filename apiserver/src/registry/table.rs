//! Tables and partial metadata: what `kubectl get` shows.

use std::sync::Arc;

use api::resource::Resource;
use api::status::Status;
use api::table::{IncludeObject, column_definitions};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::negotiate::{Accept, Form};
use crate::registry::Registry;
use crate::request::Query;

/// Makes the representation that a client asked for out of cached objects.
#[derive(Clone, Debug)]
pub struct Shape {
    registry: Arc<Registry>,
    row: Arc<Resource>,
    form: Form,
    include: IncludeObject,
    version: &'static str,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

impl Shape {
    /// The shape for a request.
    pub fn new(
        registry: &Arc<Registry>,
        row: &Arc<Resource>,
        accept: Accept,
        query: &Query,
    ) -> Result<Self, Status> {
        let given = query.get("includeObject").unwrap_or_default();
        let include = IncludeObject::parse(given).ok_or_else(|| {
            let path = api::field::Path::new("includeObject");
            let error = api::field::FieldError::not_supported(&path, given, &["Metadata", "None", "Object"]);
            Status::invalid("meta.k8s.io", "TableOptions", "", &[error])
        })?;
        let version = if accept.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
        Ok(Self { registry: registry.clone(), row: row.clone(), form: accept.form, include, version })
    }

    /// True if objects are shown as they are, so that bytes can be copied.
    pub fn is_whole(&self) -> bool {
        self.form == Form::Whole && matches!(self.row.backing, api::resource::Backing::Stored { .. })
    }

    /// One object, as the answer to a get or in a watch event. `headers` says whether a Table names its columns.
    pub fn one(&self, entry: &Entry, headers: bool) -> Result<Bytes, Status> {
        match self.form {
            Form::Whole => self.registry.bytes(&self.row, entry),
            Form::Partial => {
                let mut out = BytesMut::new();
                self.put_partial(&mut out, entry)?;
                Ok(out.freeze())
            }
            Form::Table => {
                let mut out = BytesMut::new();
                let version = (entry.revision() != 0).then(|| entry.revision().to_string());
                let metadata =
                    version.map_or_else(|| json!({}), |version| json!({"resourceVersion": version}));
                self.put_head(&mut out, &metadata, headers);
                self.put_item(&mut out, entry)?;
                out.put_slice(b"]}");
                Ok(out.freeze())
            }
        }
    }

    /// Whether the kind has an order of its own for what is shown.
    pub fn is_ranked(&self) -> bool {
        self.form == Form::Table && self.row.rules.is_ranked()
    }

    /// Puts entries into that order.
    pub fn rank(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        let rank = |entry: Arc<Entry>| {
            let object = self.registry.decode(&self.row, &entry)?;
            Ok((self.row.rules.table_rank(&*object), entry))
        };
        let mut ranked: Vec<(i64, Arc<Entry>)> =
            entries.into_iter().map(rank).collect::<Result<_, Status>>()?;
        ranked.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.name().cmp(other.name())));
        Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Kind and apiVersion of a list.
    pub fn list_kind(&self) -> (String, String) {
        match self.form {
            Form::Whole => (self.row.list_kind.to_string(), self.row.api_version()),
            Form::Partial => ("PartialObjectMetadataList".to_owned(), self.version.to_owned()),
            Form::Table => ("Table".to_owned(), self.version.to_owned()),
        }
    }

    /// Everything of a list before its first item.
    pub fn put_head(&self, out: &mut BytesMut, metadata: &Value, headers: bool) {
        let (kind, version) = self.list_kind();
        let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},");
        out.put_slice(head.as_bytes());
        if self.form != Form::Table {
            return out.put_slice(b"\"items\":[");
        }
        out.put_slice(b"\"columnDefinitions\":");
        if headers {
            out.put_slice(column_definitions(self.row.rules.columns()).to_string().as_bytes());
        } else {
            out.put_slice(b"null");
        }
        out.put_slice(b",\"rows\":[");
    }

    /// One item of a list.
    pub fn put_item(&self, out: &mut BytesMut, entry: &Entry) -> Result<(), Status> {
        match self.form {
            Form::Whole if self.is_whole() => {
                out.put_u8(b'{');
                out.put_slice(entry.item());
            }
            Form::Whole => {
                let mut object = self.registry.view(&self.row, entry.bytes())?;
                // Items don't repeat what the list says of them.
                for field in ["apiVersion", "kind"] {
                    object.as_object_mut().and_then(|fields| fields.remove(field));
                }
                out.put_slice(object.to_string().as_bytes());
            }
            Form::Partial => self.put_partial(out, entry)?,
            Form::Table => {
                let object = self.registry.decode(&self.row, entry)?;
                let cells = self.row.rules.cells(&*object, self.registry.clock.now());
                out.put_slice(b"{\"cells\":");
                out.put_slice(Value::from(cells).to_string().as_bytes());
                match self.include {
                    IncludeObject::None => {}
                    IncludeObject::Metadata => {
                        out.put_slice(b",\"object\":");
                        self.put_partial(out, entry)?;
                    }
                    IncludeObject::Object => {
                        out.put_slice(b",\"object\":");
                        out.put_slice(&self.registry.bytes(&self.row, entry)?);
                    }
                }
                out.put_u8(b'}');
            }
        }
        Ok(())
    }

    /// An object of the watched kind that says nothing but its metadata.
    pub fn bookmark(&self, row: &Resource, metadata: Value) -> Value {
        match self.form {
            Form::Whole => json!({"kind": row.kind, "apiVersion": row.api_version(), "metadata": metadata}),
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": self.version, "metadata": metadata})
            }
            Form::Table => json!({
                "kind": "Table", "apiVersion": self.version, "columnDefinitions": null,
                "metadata": {"resourceVersion": metadata["resourceVersion"]},
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": self.version, "metadata": metadata,
                }}],
            }),
        }
    }

    fn put_partial(&self, out: &mut BytesMut, entry: &Entry) -> Result<(), Status> {
        let envelope: Envelope = serde_json::from_slice(entry.bytes()).map_err(Status::internal)?;
        let head =
            format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":", self.version);
        out.put_slice(head.as_bytes());
        if self.row.rules.converted_annotations().is_empty() {
            out.put_slice(envelope.metadata.get().as_bytes());
        } else {
            let mut metadata = serde_json::from_str(envelope.metadata.get()).map_err(Status::internal)?;
            api::table::alone(&*self.row.rules, &mut metadata);
            out.put_slice(metadata.to_string().as_bytes());
        }
        out.put_u8(b'}');
        Ok(())
    }
}
