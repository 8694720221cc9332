//! The working copy of a deployment and its replica sets.

use std::sync::Arc;

use client::Reference;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::set::{DESIRED_REPLICAS, REVISION, Set};
use super::template::{self, HASH_LABEL};
use super::{Situation, amounts, status};
use crate::claim::controller_reference;
use crate::harness::{Plan, Write};

/// What is being changed.
pub(super) struct Rollout<'a> {
    situation: &'a Situation,
    pub deployment: Deployment,
    /// The set with the deployment's template.
    pub new: Option<Set>,
    /// The others, the oldest first.
    pub old: Vec<Set>,
    pub now: Timestamp,
    superfluous: Vec<Arc<ReplicaSet>>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(situation: &'a Situation) -> Self {
        let deployment = (*situation.deployment).clone();
        let mut sets: Vec<&Arc<ReplicaSet>> = situation.sets.all().collect();
        sets.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
        });
        let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
        let is_new = |set: &ReplicaSet| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.zip(wanted).is_some_and(|(own, wanted)| template::same(own, wanted))
        };
        let found = sets.iter().position(|set| is_new(set));
        let new = found.map(|at| Set::read(sets.remove(at)));
        let old = sets.into_iter().map(Set::read).collect();
        Self { situation, deployment, new, old, now: situation.now, superfluous: Vec::new() }
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// Wanted pods of all sets together.
    pub(super) fn total(&self) -> i32 {
        self.sets().map(Set::replicas).sum()
    }

    pub(super) fn paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
    }

    /// The deployment's size differs from the one that its sets were scaled for.
    pub(super) fn was_scaled(&self) -> bool {
        let wanted = i64::from(amounts::wanted(&self.deployment));
        let mut active = self.sets().filter(|set| set.replicas() > 0);
        active.any(|set| set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != wanted))
    }

    /// Brings the new set's revision, annotations and `minReadySeconds` up to date, if there is one.
    pub(super) fn adjust_new(&mut self) {
        let revision = self.next_revision();
        let Some(new) = &mut self.new else { return };
        new.make_newest(&self.deployment, revision);
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let spec = new.set.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            spec.min_ready_seconds = min_ready;
        }
        let (name, revision) = (new.name().to_owned(), new.annotation(REVISION).map(str::to_owned));
        self.note_revision(revision);
        self.note_found(&name);
    }

    /// As [`Rollout::adjust_new`], and creates the set if there is none. False if its name was taken: then
    /// the deployment must be planned again with another.
    pub(super) fn ensure_new(&mut self) -> bool {
        if self.new.is_some() {
            self.adjust_new();
            return true;
        }
        let status = self.deployment.status.get_or_insert_default();
        let collisions = status.collision_count.unwrap_or(0);
        let Some(spec) = &self.deployment.spec else { return false };
        let hash = template::hash(&spec.template, collisions);
        let name = format!("{}-{hash}", self.deployment.metadata.name.as_deref().unwrap_or_default());
        if self.situation.taken.contains(&name) {
            status.collision_count = Some(collisions + 1);
            return false;
        }
        let mut new = Set::created(make_set(&self.deployment, name.clone(), &hash));
        let revision = self.next_revision();
        new.make_newest(&self.deployment, revision);
        self.new = Some(new);
        let size = self.new_size();
        if let Some(new) = &mut self.new {
            new.scale(size, &self.deployment);
        }
        self.note_revision(Some(revision.to_string()));
        self.note_created(&name);
        true
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().filter_map(|set| set.number(REVISION)).max().unwrap_or(0) + 1
    }

    fn note_revision(&mut self, revision: Option<String>) {
        if let Some(revision) = revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.to_owned(), revision);
        }
    }

    /// How large the new set may be now: what is wanted, as far as the surge leaves room beside the old sets.
    pub(super) fn new_size(&self) -> i32 {
        let wanted = amounts::wanted(&self.deployment);
        let current = self.new.as_ref().map_or(0, Set::replicas);
        if amounts::recreates(&self.deployment) {
            return wanted;
        }
        let room = wanted + amounts::max_surge(&self.deployment) - self.total();
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    /// Deletes the oldest sets without pods beyond the history limit.
    pub(super) fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return };
        let mut history: Vec<(Option<i64>, Arc<ReplicaSet>)> = self
            .old
            .iter()
            .filter(|set| set.set.metadata.deletion_timestamp.is_none())
            .filter_map(|old| {
                let read = self.situation.sets.all().find(|set| set.metadata.uid == old.set.metadata.uid)?;
                Some((old.number(REVISION), Arc::clone(read)))
            })
            .collect();
        let surplus = history.len().saturating_sub(limit);
        history.sort_by_key(|(revision, _)| *revision);
        let unused = |set: &ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == 0
                && set.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
                && status.observed_generation >= set.metadata.generation
        };
        let surplus = history.into_iter().take(surplus).map(|(_, set)| set);
        self.superfluous = surplus.filter(|set| unused(set)).collect();
    }

    /// Scales a set among the old ones, or the new one for `None`. True if that changes its size.
    pub(super) fn resize(&mut self, old: Option<usize>, replicas: i32) -> bool {
        let set = match old {
            Some(at) => self.old.get_mut(at),
            None => self.new.as_mut(),
        };
        let Some(set) = set.filter(|set| set.replicas() != replicas) else { return false };
        set.scale(replicas, &self.deployment);
        true
    }

    /// Adds the differences to what was read.
    pub(super) fn into_plan(self, mut plan: Plan) -> Plan {
        let read = &*self.situation.deployment;
        let about = Reference::to(read);
        plan.then_all(self.sets().filter_map(|set| set.write(&about)).collect());
        plan.then_all(self.superfluous.iter().map(|set| Write::delete(&**set)).collect());
        if let Some(delay) = self.stuck_in() {
            plan.look_again(delay);
        }
        let revised = self.deployment.metadata.annotations != read.metadata.annotations;
        if revised || !status::same(self.deployment.status.as_ref(), read.status.as_ref()) {
            plan.then(Write::replace_status(&self.deployment));
        }
        plan
    }
}

fn make_set(deployment: &Deployment, name: String, hash: &str) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let with_hash = |labels: Option<std::collections::BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
        Some(labels)
    };
    let mut meta = spec.template.metadata.clone().unwrap_or_default();
    meta.labels = with_hash(meta.labels);
    let mut selector = spec.selector;
    selector.match_labels = with_hash(selector.match_labels);
    ReplicaSet {
        metadata: ObjectMeta {
            namespace: deployment.metadata.namespace.clone(),
            name: Some(name),
            labels: meta.labels.clone(),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(PodTemplateSpec { metadata: Some(meta), spec: spec.template.spec }),
        }),
        status: None,
    }
}
