//! Which part of an object is a pod, and which changes of one are looked at.

use std::sync::LazyLock;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{kinds::list, object::Object};

/// What an object makes pods of. None for objects that make none.
pub fn pod_of(object: &dyn Object) -> Option<(&ObjectMeta, &PodSpec)> {
    fn parts(template: &PodTemplateSpec) -> Option<(&ObjectMeta, &PodSpec)> {
        static NONE: LazyLock<ObjectMeta> = LazyLock::new(ObjectMeta::default);
        Some((template.metadata.as_ref().unwrap_or(&NONE), template.spec.as_ref()?))
    }
    if let Some(pod) = object.downcast_ref::<Pod>() {
        return Some((&pod.metadata, pod.spec.as_ref()?));
    }
    if let Some(template) = object.downcast_ref::<PodTemplate>() {
        return parts(template.template.as_ref()?);
    }
    if let Some(controller) = object.downcast_ref::<ReplicationController>() {
        return parts(controller.spec.as_ref()?.template.as_ref()?);
    }
    if let Some(set) = object.downcast_ref::<ReplicaSet>() {
        return parts(set.spec.as_ref()?.template.as_ref()?);
    }
    if let Some(deployment) = object.downcast_ref::<Deployment>() {
        return parts(&deployment.spec.as_ref()?.template);
    }
    if let Some(set) = object.downcast_ref::<DaemonSet>() {
        return parts(&set.spec.as_ref()?.template);
    }
    if let Some(set) = object.downcast_ref::<StatefulSet>() {
        return parts(&set.spec.as_ref()?.template);
    }
    if let Some(job) = object.downcast_ref::<Job>() {
        return parts(&job.spec.as_ref()?.template);
    }
    let job = object.downcast_ref::<CronJob>()?;
    parts(&job.spec.job_template.spec.as_ref()?.template)
}

/// Whether an update changes what the standards are about: the containers and their images.
pub fn is_significant(new: &Pod, old: &Pod) -> bool {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return true };
    let differs = |new: &[_], old: &[_]| {
        let image = |container: &k8s_openapi::api::core::v1::Container| container.image.clone();
        new.len() != old.len() || new.iter().map(image).ne(old.iter().map(image))
    };
    if differs(&new.containers, &old.containers)
        || differs(list(&new.init_containers), list(&old.init_containers))
    {
        return true;
    }
    list(&new.ephemeral_containers).iter().any(|container| {
        let before = list(&old.ephemeral_containers).iter().find(|other| other.name == container.name);
        before.is_none_or(|before| before.image != container.image)
    })
}
