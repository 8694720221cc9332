//! Comparing pod templates, and naming replica sets after them.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Label that tells apart the pods of a deployment's replica sets.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// No vowels and nothing that looks like one, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// True if the templates differ in nothing but the hash label.
pub(super) fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    plain(a) == plain(b)
}

fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    // Neither the empty map nor the moment of creation is part of what was asked for.
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
    meta.creation_timestamp = None;
    template
}

/// A short name for a template. `collisions` tells apart templates that would get the same.
pub(super) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(&plain(template)).unwrap_or_default();
    let mut hash = fnv1a(0x811c_9dc5, &text);
    if collisions > 0 {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    let letter = |digit: u8| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]);
    hash.to_string().bytes().map(letter).collect()
}

fn fnv1a(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
