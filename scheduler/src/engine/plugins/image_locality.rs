//! ImageLocality: prefers nodes that already hold the pod's images.

use std::collections::HashMap;

use crate::engine::cluster::{Cluster, NodeState};
use crate::engine::framework::{MAX_SCORE, Plugin, Score, as_they_are};
use crate::engine::types::PodSpec;

pub(super) const PLUGIN: Plugin =
    Plugin { name: "ImageLocality", gate: None, filter: None, score: Some((1, score)), events: &[] };

/// Images smaller than this, in bytes per container, don't matter; beyond the other, more doesn't.
const LOW: i64 = 23 << 20;
const HIGH: i64 = 1000 << 20;

fn score<'a>(pod: &'a PodSpec, cluster: &'a Cluster, feasible: &[&'a NodeState]) -> Score<'a> {
    let images: Vec<String> = pod.images.iter().map(|image| normalized(image)).collect();
    let holds = |node: &&NodeState| images.iter().any(|image| node.spec.images.contains_key(image));
    if !feasible.iter().any(holds) {
        return Score::Skip;
    }
    // An image that is on few nodes counts less, so that pods don't pile up where it happens to be.
    let nodes = cluster.nodes().len().max(1) as i64;
    let spread: HashMap<&String, i64> = images
        .iter()
        .map(|image| {
            (image, cluster.nodes().iter().filter(|node| node.spec.images.contains_key(image)).count() as i64)
        })
        .collect();
    let weights: Vec<(String, i64)> = images.iter().map(|image| (image.clone(), spread[image])).collect();
    let containers = pod.images.len().max(1) as i64;
    let locality = move |node: &NodeState| {
        let held = weights.iter().filter_map(|(image, on)| Some(node.spec.images.get(image)? * on / nodes));
        let high = HIGH * containers;
        (held.sum::<i64>().clamp(LOW, high) - LOW) * MAX_SCORE / (high - LOW)
    };
    Score::Nodes { score: Box::new(locality), normalize: as_they_are }
}

/// The name under which nodes report an image: with a tag.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
