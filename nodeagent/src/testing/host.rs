//! A node's disk and cgroups in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};

use crate::host::{Host, HostError};
use crate::pod;

#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    /// Uids of pods with volumes.
    made: Mutex<Vec<String>>,
    pub(crate) cleaned: Mutex<Vec<String>>,
    /// Volumes can't be made for this reason.
    pub(crate) missing: Mutex<Option<String>>,
    pub(crate) config_map: Mutex<Option<Arc<ConfigMap>>>,
}

#[async_trait]
impl Host for FakeHost {
    async fn make_cgroup(&self, pod: &Arc<Pod>) -> Result<String, HostError> {
        Ok(format!("/test/pod{}", pod::uid(pod)))
    }

    async fn make_volumes(&self, pod: &Arc<Pod>, _pod_ips: &[String]) -> Result<(), HostError> {
        if let Some(why) = self.missing.lock().unwrap().clone() {
            return Err(HostError(why));
        }
        self.made.lock().unwrap().push(pod::uid(pod).to_owned());
        Ok(())
    }

    fn mounts(
        &self,
        _pod: &Pod,
        _container: &Container,
        _attempt: u32,
    ) -> Result<Vec<cri::Mount>, HostError> {
        Ok(Vec::new())
    }

    fn termination_log(&self, _pod_uid: &str, _container: &str, _attempt: u32) -> PathBuf {
        "/nonexistent/message".into()
    }

    fn log_directory(&self, pod: &Pod) -> PathBuf {
        PathBuf::from("/nonexistent/logs").join(pod::name(pod))
    }

    async fn clean_up(&self, pod: &Pod) -> Result<(), HostError> {
        self.made.lock().unwrap().retain(|uid| uid != pod::uid(pod));
        self.cleaned.lock().unwrap().push(pod::name(pod).to_owned());
        Ok(())
    }

    async fn leftovers(&self) -> Vec<Pod> {
        let made = self.made.lock().unwrap().clone();
        let pod_of = |uid: String| {
            let mut pod = Pod::default();
            pod.metadata.uid = Some(uid);
            pod
        };
        made.into_iter().map(pod_of).collect()
    }

    async fn config_map(&self, _: &str, _: &str) -> Result<Option<Arc<ConfigMap>>, HostError> {
        Ok(self.config_map.lock().unwrap().clone())
    }

    async fn secret(&self, _: &str, _: &str) -> Result<Option<Arc<Secret>>, HostError> {
        Ok(None)
    }
}
