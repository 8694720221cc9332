//! A container runtime of the user's own in place of the embedded one: where it is, how it gets its pod network, and
//! what is left in it at the end.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use base::{Clock, Tasks};
use clap::Args;
use cri::Channel;
use cri::runtime_service_client::RuntimeServiceClient;
use futures::stream::{self, StreamExt};
use network::NodeNetwork;
use network::cni::{self, Backend, Found, Installation};
use nodeagent::runtime::{Cri, Runtime as _, RuntimeError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::place::Place;
use crate::failure::Because;
use crate::{Failure, kubeconfig};

/// Where runtimes look for their network unless they are told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";
const BIN_DIR: &str = "/opt/cni/bin";
/// How long a runtime that lives may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// What containerd answers until it has found its containers again, and when it is asked once more.
const STARTING: &str = "server is not initialized yet";
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// How many sandboxes are ended at once.
const AT_ONCE: usize = 8;

#[derive(Args, Clone, Debug)]
pub(crate) struct RuntimeArgs {
    /// Unix socket of a container runtime to use in place of the embedded one; with `skiff up` on the first node.
    #[arg(long, value_name = "SOCKET", env = "SKIFF_RUNTIME_ENDPOINT")]
    pub(crate) runtime_endpoint: Option<String>,
    /// Where that runtime reads its CNI configuration; by default where it says that it does.
    #[arg(long, value_name = "DIR", requires = "runtime_endpoint", env = "SKIFF_CNI_CONF_DIR")]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Where that runtime looks for CNI plugins; by default where it says that it does.
    #[arg(long, value_name = "DIR", requires = "runtime_endpoint", env = "SKIFF_CNI_BIN_DIR")]
    pub(crate) cni_bin_dir: Option<PathBuf>,
}

/// What a node has put into which runtime: kept from the first start until `skiff down`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) endpoint: String,
    cni_conf_dir: PathBuf,
    cni_bin_dir: PathBuf,
}

impl Record {
    fn path(place: &Place) -> PathBuf {
        place.data.join("runtime.json")
    }

    /// What an earlier start left.
    pub(crate) fn load(place: &Place) -> Result<Option<Self>, Failure> {
        let path = Self::path(place);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).because(path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))),
        }
    }

    fn store(&self, place: &Place) -> Result<(), Failure> {
        let path = Self::path(place);
        let text = serde_json::to_vec(self).because(path.display())?;
        kubeconfig::write_private(&path, &text)
    }

    fn installation(&self, place: &Place) -> Result<Installation, Failure> {
        Ok(Installation {
            conf_dir: self.cni_conf_dir.clone(),
            bin_dir: self.cni_bin_dir.clone(),
            id: place.id.clone(),
            socket: place.cni_socket(),
            executable: std::env::current_exe().because("this program")?,
        })
    }
}

/// Refuses to leave containers behind in a runtime that the node is no longer to use.
pub(crate) fn check_same(place: &Place, wanted: Option<&str>) -> Result<(), Failure> {
    match Record::load(place)? {
        Some(known) if wanted != Some(&known.endpoint) => Err(Failure::new(format!(
            "{} has pods in the runtime at {}: give --runtime-endpoint {} again, or end them first with `skiff down`",
            place.name, known.endpoint, known.endpoint
        ))),
        _ => Ok(()),
    }
}

/// Gives the runtime the node's network, unless it has one of its own, and answers its requests from now on.
pub(crate) async fn connect(
    place: &Place,
    args: &RuntimeArgs,
    endpoint: &str,
    network: &NodeNetwork,
    tasks: &Tasks,
    clock: &Clock,
) -> Result<(), Failure> {
    let about = |what: &str| format!("node {}: {what}", place.name);
    let known = Record::load(place)?;
    let asked = ask(endpoint, clock).await?;
    let record = Record {
        endpoint: endpoint.to_owned(),
        cni_conf_dir: args.cni_conf_dir.clone().or(asked.conf_dir).unwrap_or(CONF_DIR.into()),
        cni_bin_dir: args.cni_bin_dir.clone().or(asked.bin_dir).unwrap_or(BIN_DIR.into()),
    };
    if let Some(known) = known.filter(|known| *known != record) {
        known.installation(place)?.remove().because(about("CNI"))?;
    }
    record.store(place)?;
    // What went without a word, for example with a reboot.
    network.retain(&asked.sandboxes).await.because(about("network"))?;
    cni::serve(&place.cni_socket(), Backend::Node(network.clone()), tasks, clock).because(about("CNI"))?;
    match record.installation(place)?.install().because(about("CNI"))? {
        Found::Ours => {}
        Found::Foreign(file) => {
            tracing::info!(file = %file.display(), "the runtime has a pod network of its own, which stays");
        }
    }
    Ok(())
}

/// Ends what a node has in its runtime, and takes the runtime's pod network away. The error says what is left.
pub(crate) async fn end(place: &Place, record: &Record, tasks: &Tasks, clock: &Clock) -> Result<(), Failure> {
    let installation = record.installation(place)?;
    let installed = installation.install();
    let ended = match &installed {
        // A runtime gives nothing back without its configuration, and not before the plugin has agreed.
        Ok(Found::Ours) => cni::serve(&place.cni_socket(), Backend::Leaving, tasks, clock)
            .because(format!("CNI of {}", place.name)),
        Ok(Found::Foreign(_)) => Ok(()),
        Err(error) => Err(Failure::new(format!("CNI of {}: {error}", place.name))),
    };
    let ended = match ended {
        Ok(()) => end_sandboxes(place, &record.endpoint, clock).await,
        failed => failed,
    };
    installation.remove().because(format!("CNI of {}", place.name))?;
    ended?;
    let path = Record::path(place);
    std::fs::remove_file(&path).because(path.display())
}

async fn end_sandboxes(place: &Place, endpoint: &str, clock: &Clock) -> Result<(), Failure> {
    let left = |why: String| Failure::new(format!("pods of {} are left behind: {why}", place.name));
    let of_runtime = |why: String| left(format!("container runtime at {endpoint}: {why}"));
    let channel = cri::dial(endpoint).await.map_err(|error| left(error.to_string()))?;
    // It has seen the configuration that may have been put there just now.
    settled(channel, clock, has_network).await.map_err(of_runtime)?;
    let runtime = Cri::connect(endpoint, &place.id).await.map_err(|error| left(error.to_string()))?;
    let sandboxes = runtime.list_sandboxes(None).await.map_err(|error| of_runtime(error.to_string()))?;
    let runtime = &runtime;
    let failures: Vec<String> = stream::iter(sandboxes)
        .map(|sandbox| async move {
            let ended = end_sandbox(runtime, &sandbox.id).await;
            ended.err().map(|error| format!("sandbox {}: {error}", sandbox.id))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |failure| failure)
        .collect()
        .await;
    if failures.is_empty() { Ok(()) } else { Err(of_runtime(failures.join("; "))) }
}

async fn end_sandbox(runtime: &Cri, id: &str) -> Result<(), RuntimeError> {
    for result in [runtime.stop_sandbox(id).await, runtime.remove_sandbox(id).await] {
        match result {
            Err(error) if error.is_not_found() => {}
            result => result?,
        }
    }
    Ok(())
}

/// What a runtime says of itself.
#[derive(Debug, Default)]
struct Asked {
    conf_dir: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    sandboxes: Vec<String>,
}

async fn ask(endpoint: &str, clock: &Clock) -> Result<Asked, Failure> {
    let about = || format!("container runtime at {endpoint}");
    let channel = cri::dial(endpoint).await.map_err(|error| Failure::new(error.to_string()))?;
    let status = settled(channel.clone(), clock, |_| true).await.because(about())?;
    let mut runtime = RuntimeServiceClient::new(channel);
    let sandboxes = runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: None }).await;
    let sandboxes = sandboxes.map_err(|status| Failure::new(format!("{}: {}", about(), status.message())))?;
    let (conf_dir, bin_dir) = directories(&status);
    let sandboxes = sandboxes.into_inner().items.into_iter().map(|sandbox| sandbox.id).collect();
    Ok(Asked { conf_dir, bin_dir, sandboxes })
}

/// The status of a runtime, once it knows of its containers: it is reached a while before. The error is in its words.
///
/// Without being `enough` by then, it is returned as it is.
async fn settled(
    channel: Channel,
    clock: &Clock,
    enough: fn(&cri::StatusResponse) -> bool,
) -> Result<cri::StatusResponse, String> {
    let mut runtime = RuntimeServiceClient::new(channel);
    let mut end = pin!(clock.wait(PATIENCE));
    let mut retry = FIRST_RETRY;
    loop {
        let answer = tokio::select! {
            answer = runtime.status(cri::StatusRequest { verbose: true }) => answer,
            () = &mut end => return Err(format!("no answer in {} s", PATIENCE.as_secs())),
        };
        let last = match answer {
            Ok(status) if enough(status.get_ref()) => return Ok(status.into_inner()),
            Ok(status) => Ok(status.into_inner()),
            Err(status) if status.message() == STARTING => Err(STARTING.to_owned()),
            Err(status) => return Err(status.message().to_owned()),
        };
        tokio::select! {
            () = clock.wait(retry) => retry = (retry * 2).min(LAST_RETRY),
            () = &mut end => return last,
        }
    }
}

fn has_network(status: &cri::StatusResponse) -> bool {
    let conditions = status.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.r#type == "NetworkReady" && condition.status)
}

/// Where containerd reads its network: it shows its configuration to who asks for details. Other runtimes don't.
fn directories(status: &cri::StatusResponse) -> (Option<PathBuf>, Option<PathBuf>) {
    let config: Value =
        status.info.get("config").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let cni = &config["cni"];
    let path = |value: &Value| {
        let text = value.as_str().filter(|text| Path::new(text).is_absolute());
        text.map(PathBuf::from)
    };
    // From 2.1 on there are several.
    let bin_dir = path(&cni["binDir"]).or_else(|| path(&cni["binDirs"][0]));
    (path(&cni["confDir"]), bin_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path) -> Place {
        Place::new(dir, "node-1")
    }

    #[test]
    fn containerd_tells_where_its_network_is() {
        let said = |config: &str| {
            let mut status = cri::StatusResponse::default();
            status.info.insert("config".into(), config.into());
            let (conf, bin) = directories(&status);
            let text =
                |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
            (text(conf), text(bin))
        };
        let pair = |conf: &str, bin: &str| (conf.to_owned(), bin.to_owned());
        for (config, expected) in [
            (
                r#"{"cni":{"binDir":"/usr/lib/cni","confDir":"/etc/cni/net.d"}}"#,
                pair("/etc/cni/net.d", "/usr/lib/cni"),
            ),
            (r#"{"cni":{"binDir":"","binDirs":["/a","/b"],"confDir":"/c"}}"#, pair("/c", "/a")),
            (r#"{"cni":{"binDir":"relative"}}"#, pair("", "")),
            ("[crio]", pair("", "")),
        ] {
            assert_eq!(said(config), expected, "{config}");
        }
    }

    #[test]
    fn a_node_does_not_change_its_runtime_while_it_has_pods_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        check_same(&place, None).unwrap();
        check_same(&place, Some("unix:///a.sock")).unwrap();
        let record = Record {
            endpoint: "unix:///a.sock".into(),
            cni_conf_dir: "/conf".into(),
            cni_bin_dir: "/bin".into(),
        };
        record.store(&place).unwrap();
        assert_eq!(Record::load(&place).unwrap(), Some(record));
        check_same(&place, Some("unix:///a.sock")).unwrap();
        for other in [None, Some("unix:///b.sock")] {
            let told = check_same(&place, other).unwrap_err().to_string();
            assert!(told.contains("give --runtime-endpoint unix:///a.sock again"), "{told}");
        }
    }
}
