//! What upstream says of its types and fields, for `explain`.
//!
//! The texts are those of Kubernetes' OpenAPI document as the crate k8s-openapi carries them (Apache-2.0, the Kubernetes
//! authors). They are in `descriptions.zst`, 0.1 MB that nobody reads until a document is asked for: unpacked they are
//! 0.9 MB, so whoever makes documents unpacks them, and drops them when it is done. `api/examples/descriptions.rs` makes
//! the file.
//!
//! Unpacked it is text in lines, columns between tabs:
//! - `# …` a remark.
//! - `name  text` a type, without `io.k8s.` in front. They are sorted by name.
//! - `(tab)[*]field  text` a field of it; `*` for one that upstream requires although it is left out when empty, which
//!   the schema table doesn't know.
//!
//! In a text, `\n`, `\t` and `\\` stand for the line feed, the tab and the backslash.

static PACKED: &[u8] = include_bytes!("descriptions.zst");

/// More than it takes, by far: what the file says of its own size is believed up to here.
const MAX_UNPACKED: usize = 8 << 20;

/// The texts, unpacked.
#[derive(Debug)]
pub(crate) struct Descriptions {
    text: String,
    /// Where the lines of types start.
    types: Vec<usize>,
}

/// What is said of one type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About<'a> {
    text: &'a str,
    fields: &'a str,
}

/// What is said of one field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AboutField<'a> {
    text: &'a str,
    pub(crate) required: bool,
}

impl Descriptions {
    /// Unpacks the texts.
    pub(crate) fn unpack() -> Self {
        let unpacked = zstd::bulk::decompress(PACKED, MAX_UNPACKED).unwrap_or_default();
        Self::new(String::from_utf8(unpacked).unwrap_or_default())
    }

    fn new(text: String) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let types = std::iter::once(0).chain(starts).filter(|at| !text[*at..].starts_with(['\t', '#']));
        let types = types.filter(|at| *at < text.len()).collect();
        Self { text, types }
    }

    /// What is said of a type by its name in OpenAPI; nothing if the type is unknown.
    pub(crate) fn of(&self, name: &str) -> About<'_> {
        let name = name.strip_prefix("io.k8s.").unwrap_or(name);
        let head = |at: usize| self.text[at..].split(['\t', '\n']).next().unwrap_or_default();
        let Ok(found) = self.types.binary_search_by(|at| head(*at).cmp(name)) else {
            return About::default();
        };
        let end = self.types.get(found + 1).copied().unwrap_or(self.text.len());
        let (first, fields) = self.text[self.types[found]..end].split_once('\n').unwrap_or_default();
        About { text: first.split_once('\t').unwrap_or_default().1, fields }
    }
}

impl<'a> About<'a> {
    /// What is said of the type itself; empty if nothing is.
    pub(crate) fn text(self) -> String {
        unescaped(self.text)
    }

    /// What is said of a field.
    pub(crate) fn field(self, name: &str) -> AboutField<'a> {
        for line in self.fields.lines() {
            let Some((head, text)) = line.trim_start().split_once('\t') else { continue };
            let (required, head) = head.strip_prefix('*').map_or((false, head), |head| (true, head));
            if head == name {
                return AboutField { text, required };
            }
        }
        AboutField::default()
    }
}

impl AboutField<'_> {
    /// What is said of the field; empty if nothing is.
    pub(crate) fn text(self) -> String {
        unescaped(self.text)
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                other => out.extend(other),
            },
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Shape, Types};

    #[test]
    fn a_text_is_found_by_type_and_field() {
        let texts = "# of a test\na.B\tone\\ntwo\n\tx\t\\\\ and \\t\n\t*y\tneeded\na.BC\t\nb.A\tlast\n";
        let texts = Descriptions::new(texts.to_owned());
        let found = texts.of("io.k8s.a.B");
        assert_eq!(found.text(), "one\ntwo");
        assert_eq!((found.field("x").text().as_str(), found.field("x").required), ("\\ and \t", false));
        assert_eq!((found.field("y").text().as_str(), found.field("y").required), ("needed", true));
        assert_eq!(found.field("z").text(), "");
        assert_eq!(texts.of("io.k8s.a.BC").text(), "");
        assert_eq!(texts.of("io.k8s.b.A").text(), "last");
        assert_eq!(texts.of("io.k8s.c").text(), "");
    }

    #[test]
    fn every_published_type_and_field_is_described() {
        let texts = Descriptions::unpack();
        let (mut described, mut bare) = (0, Vec::new());
        for (_, ty) in Types::builtin().iter() {
            let Shape::Struct(fields) = &ty.shape else { continue };
            let about = texts.of(&ty.name.replace('/', "."));
            // Not in upstream's document either: types of requests, of older versions, and parts that are flattened.
            if about.text.is_empty() && about.fields.is_empty() {
                continue;
            }
            described += 1;
            let of_type = about.text.is_empty().then(|| ty.name.to_string());
            let names = fields.fields.iter().map(|field| field.name.as_ref());
            let names = names.chain(fields.type_meta.then_some(["apiVersion", "kind"]).into_iter().flatten());
            let of_fields = names.filter(|name| about.field(name).text.is_empty());
            bare.extend(of_type.into_iter().chain(of_fields.map(|name| format!("{}.{name}", ty.name))));
        }
        // Upstream says nothing of these.
        bare.retain(|name| {
            !name.contains("v1.JSONSchemaProps.") && !name.contains("v1.ExternalDocumentation.")
        });
        assert_eq!(
            bare,
            [
                "api/certificates/v1.CertificateSigningRequest.metadata",
                "api/networking/v1.IngressRule.http",
                "apimachinery/pkg/apis/meta/v1.GroupResource.group",
                "apimachinery/pkg/apis/meta/v1.GroupResource.resource",
                "apimachinery/pkg/apis/meta/v1.WatchEvent.type",
                "apimachinery/pkg/apis/meta/v1.WatchEvent.object",
            ]
        );
        assert!(described > 700, "{described}");
    }
}
