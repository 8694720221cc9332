//! Which representation a client asks for, and which one it sent.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use api::status::Status;

/// Kubernetes' protobuf.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// One item of CBOR.
const CBOR: &str = "application/cbor";
/// Any number of them: what a watch in CBOR is.
const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// What upstream lists when it can't serve or read a media type.
const KNOWN: &[&str] = &["application/json", "application/yaml", PROTOBUF];

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    #[default]
    Json,
    Yaml,
    /// The built-in kinds only.
    Protobuf,
    Cbor,
}

/// What an answer shows of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Whole,
    Table,
    /// Metadata only.
    Partial,
}

/// The representation that a client asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub form: Form,
    pub pretty: bool,
    /// `v=v1beta1` of a Table or of partial metadata: answered under that version.
    pub beta: bool,
}

impl Media {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => PROTOBUF,
            Self::Cbor => CBOR,
        }
    }

    /// The media type of a watch; none for what can't be cut into events.
    pub fn watch_type(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("application/json"),
            Self::Yaml => None,
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Cbor => Some(CBOR_SEQUENCE),
        }
    }

    /// The form that a media type names; JSON for what is not known, as patches have names of their own.
    pub(crate) fn of(content_type: &str) -> Self {
        match content_type.split(';').next().unwrap_or_default().trim() {
            PROTOBUF => Self::Protobuf,
            yaml if yaml.ends_with("yaml") => Self::Yaml,
            cbor if cbor.ends_with("cbor") => Self::Cbor,
            _ => Self::Json,
        }
    }
}

impl Accept {
    /// Reads the Accept header; 406 if nothing in it can be served. `transforms` says whether Table and
    /// partial metadata can be asked for here, `protobuf` whether the kind has that form.
    pub fn read(
        headers: &HeaderMap,
        pretty: Option<&str>,
        transforms: bool,
        protobuf: bool,
    ) -> Result<Self, Status> {
        let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if values.peek().is_none() {
            return Ok(Self { pretty: wants_pretty(headers, pretty), ..Self::default() });
        }
        let mut clauses: Vec<(u32, Self)> = values
            .flat_map(|value| value.split(','))
            .filter_map(|clause| Self::clause(clause, transforms))
            .filter(|(_, accept)| accept.media != Media::Protobuf || protobuf && accept.form != Form::Table)
            .collect();
        // Stable: of equal quality, the first one wins.
        clauses.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
        match clauses.first() {
            Some((_, accept)) => Ok(Self { pretty: wants_pretty(headers, pretty), ..*accept }),
            None => Err(Status::not_acceptable(KNOWN)),
        }
    }

    /// One clause, with its quality in thousandths; `None` if it can't be served.
    fn clause(clause: &str, transforms: bool) -> Option<(u32, Self)> {
        let mut parts = clause.split(';').map(str::trim);
        let media = match parts.next()? {
            "application/json" | "application/*" | "*/*" => Media::Json,
            "application/yaml" => Media::Yaml,
            PROTOBUF => Media::Protobuf,
            CBOR | CBOR_SEQUENCE => Media::Cbor,
            _ => return None,
        };
        let mut accept = Self { media, ..Self::default() };
        let (mut quality, mut group, mut version) = (1000, "", "");
        let mut form = None;
        for parameter in parts {
            match parameter.split_once('=')? {
                ("as", name) => form = Some(name),
                ("g", value) => group = value,
                ("v", value) => version = value,
                // 0.0 to 1.000 by the grammar; whatever else is there counts as 0.
                ("q", value) => {
                    quality = (value.parse::<f64>().unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32
                }
                _ => {}
            }
        }
        if let Some(form) = form {
            if !transforms || group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
                return None;
            }
            accept.beta = version == "v1beta1";
            accept.form = match form {
                "Table" => Form::Table,
                "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Partial,
                _ => return None,
            };
        }
        (quality > 0).then_some((quality, accept))
    }
}

/// The form of a failure: protobuf or CBOR for those who prefer it, else JSON.
pub fn failure_media(headers: &HeaderMap) -> Media {
    let named = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|text| [PROTOBUF, CBOR].iter().any(|media| text.contains(media)))
    };
    if !headers.get_all(ACCEPT).iter().any(named) {
        return Media::Json;
    }
    match Accept::read(headers, None, true, true) {
        Ok(Accept { media: media @ (Media::Protobuf | Media::Cbor), .. }) => media,
        _ => Media::Json,
    }
}

/// The media type of a request's body, without parameters; JSON if there is no header.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let media = value.split(';').next().unwrap_or(value).trim();
    if media.is_empty() { "application/json" } else { media }
}

/// The media type of an object in a request's body; 415 if it can't be read.
pub fn object_media(headers: &HeaderMap) -> Result<Media, Status> {
    match content_type(headers) {
        "application/json" | "*/*" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        CBOR => Ok(Media::Cbor),
        _ => Err(Status::unsupported_media_type(KNOWN)),
    }
}

/// Pretty by request, or for people who look at it with a command line tool or a browser.
fn wants_pretty(headers: &HeaderMap, parameter: Option<&str>) -> bool {
    match parameter {
        Some(value) => matches!(value, "1" | "true"),
        None => headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).is_some_and(|agent| {
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(accept: &str) -> Option<(Media, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Accept::read(&headers, None, true, true).ok().map(|accept| (accept.media, accept.form))
    }

    #[test]
    fn the_best_representation_that_can_be_served_is_chosen() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (accept, expect) in [
            ("application/json", Some((Media::Json, Form::Whole))),
            ("*/*", Some((Media::Json, Form::Whole))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Media::Protobuf, Form::Whole))),
            ("application/vnd.kubernetes.protobuf;stream=watch", Some((Media::Protobuf, Form::Whole))),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some((Media::Json, Form::Whole)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some((Media::Protobuf, Form::Partial)),
            ),
            ("application/json;q=0.5,application/yaml", Some((Media::Yaml, Form::Whole))),
            (&format!("{table},application/json"), Some((Media::Json, Form::Table))),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
                Some((Media::Json, Form::Whole)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                Some((Media::Json, Form::Partial)),
            ),
            ("application/cbor,application/json", Some((Media::Cbor, Form::Whole))),
            ("application/cbor-seq", Some((Media::Cbor, Form::Whole))),
            ("application/cbor;as=Table;v=v1;g=meta.k8s.io", Some((Media::Cbor, Form::Table))),
            ("text/html", None),
        ] {
            assert_eq!(read(accept), expect, "{accept}");
        }
    }

    #[test]
    fn kinds_without_a_protobuf_form_are_answered_in_the_next_best() {
        let read = |accept: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            Accept::read(&headers, None, true, false).ok().map(|accept| accept.media)
        };
        assert_eq!(read("application/vnd.kubernetes.protobuf,application/json"), Some(Media::Json));
        assert_eq!(read("application/vnd.kubernetes.protobuf"), None);
    }
}
