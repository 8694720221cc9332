//! Probes: one task per container that has any. It waits, tries, counts, and tells the pod's worker when the
//! probe's word changes.

mod grpc;
pub(crate) mod http;

use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use client::Reference;
use futures::future;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, container_reference};
use crate::pod::probe::{Counter, Outcome};
use crate::pod::{ProbeKind, ProbeResults, Role};
use crate::worker::Inbox;
use http::Get;

/// How probes call themselves.
pub(crate) const USER_AGENT: &str = "kube-probe/1.36";
/// Of a command's output this much is kept for messages.
const OUTPUT_LIMIT: usize = 10 * 1024;

/// The probes of one running container; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Prober {
    liveness: CancellationToken,
    _tasks: Tasks,
}

/// A container to be probed.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) container: Container,
    pub(crate) role: Role,
    pub(crate) pod: Arc<Pod>,
    pub(crate) pod_ip: String,
    pub(crate) started_at: Timestamp,
}

struct Job {
    context: Arc<Context>,
    inbox: Arc<Inbox>,
    target: Target,
    about: Reference,
    tasks: Tasks,
}

// === impl Prober ===

impl Prober {
    /// What to say of a container before any probe has answered.
    pub(crate) fn first_results(container: &Container) -> ProbeResults {
        let started = container.startup_probe.is_none();
        ProbeResults { started, ready: started && container.readiness_probe.is_none(), failed: None }
    }

    /// Starts the probes of a container. `known` is what is said of it now. `None` if it has no probes.
    pub(crate) fn start(
        context: &Arc<Context>,
        inbox: &Arc<Inbox>,
        target: Target,
        known: ProbeResults,
    ) -> Option<Self> {
        let container = &target.container;
        if container.startup_probe.is_none()
            && container.liveness_probe.is_none()
            && container.readiness_probe.is_none()
        {
            return None;
        }
        let tasks = context.tasks.child("probes");
        let about = container_reference(&target.pod, target.role, &container.name);
        let liveness = CancellationToken::new();
        let name = format!("probes of {}", container.name);
        let job = Job { context: context.clone(), inbox: inbox.clone(), target, about, tasks: tasks.clone() };
        tasks.spawn(&name, job.run(known, liveness.clone()));
        Some(Self { liveness, _tasks: tasks })
    }

    /// The pod ends: only its readiness still matters.
    pub(crate) fn stop_liveness(&self) {
        self.liveness.cancel();
    }
}

// === impl Job ===

impl Job {
    async fn run(self, known: ProbeResults, ending: CancellationToken) {
        let container = &self.target.container;
        let results = std::sync::Mutex::new(known);
        let update = |change: &dyn Fn(&mut ProbeResults)| {
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let before = results.clone();
            change(&mut results);
            if *results != before {
                let (id, results) = (self.target.id.clone(), results.clone());
                self.inbox.tell(|news| {
                    news.probes.insert(id, results);
                });
            }
        };
        let has_started = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).started;
        if let Some(probe) = container.startup_probe.as_ref().filter(|_| !has_started) {
            let started = ending.run_until_cancelled(self.follow(ProbeKind::Startup, probe, |_| true)).await;
            match started {
                Some(true) => update(&|results| {
                    results.started = true;
                    results.ready = container.readiness_probe.is_none();
                }),
                Some(false) => return update(&|results| results.failed = Some(ProbeKind::Startup)),
                None => return,
            }
        }
        let liveness = async {
            if let Some(probe) = &container.liveness_probe {
                let gave_up = self.follow(ProbeKind::Liveness, probe, |word| !word);
                if ending.run_until_cancelled(gave_up).await.is_some() {
                    update(&|results| results.failed = Some(ProbeKind::Liveness));
                }
            }
        };
        let readiness = async {
            if let Some(probe) = &container.readiness_probe {
                let never = |word| {
                    update(&|results| results.ready = word);
                    false
                };
                self.follow(ProbeKind::Readiness, probe, never).await;
            }
        };
        future::join(liveness, readiness).await;
    }

    /// Tries again and again until `is_last` says of the probe's word that it was the last.
    async fn follow(&self, kind: ProbeKind, probe: &Probe, is_last: impl Fn(bool) -> bool) -> bool {
        let clock = &self.context.clock;
        let mut counter = Counter::new(probe);
        let delay = seconds(probe.initial_delay_seconds, 0);
        let since = clock.now().duration_since(self.target.started_at);
        let since = Duration::try_from(since).unwrap_or_default();
        clock.wait(delay.saturating_sub(since)).await;
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let mut next = clock.instant();
        loop {
            let outcome = self.attempt(probe).await;
            self.report(kind, &outcome);
            if let Some(word) = counter.observe(&outcome)
                && is_last(word)
            {
                return word;
            }
            // The next try is due a period after the last one was, or at once if that took longer.
            next = (next + period).max(clock.instant());
            clock.wait_until(next).await;
        }
    }

    fn report(&self, kind: ProbeKind, outcome: &Outcome) {
        let title = kind.title();
        let message = match outcome {
            Outcome::Success => return,
            Outcome::Failure(output) => format!("{title} probe failed: {output}"),
            Outcome::Unknown(error) => {
                format!("{title} probe errored and resulted in unknown state: {error}")
            }
        };
        self.context.events.warning(&self.about, "Unhealthy", message);
    }

    async fn attempt(&self, probe: &Probe) -> Outcome {
        let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let ports = self.target.container.ports.as_deref().unwrap_or_default();
        if let Some(action) = &probe.exec {
            return self.exec(action.command.clone().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &probe.http_get {
            let port = match port(&action.port, ports) {
                Ok(port) => port,
                Err(why) => return Outcome::Unknown(why),
            };
            let get = Get {
                scheme: action.scheme.as_deref().unwrap_or("HTTP"),
                host: action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.target.pod_ip),
                port,
                path: action.path.as_deref().unwrap_or("/"),
                headers: action.http_headers.as_deref().unwrap_or_default(),
                user_agent: USER_AGENT,
                timeout,
            };
            return match get.send().await {
                Ok(answer) => self.judge(&answer),
                Err(why) => Outcome::Failure(why),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let port = match port(&action.port, ports) {
                Ok(port) => port,
                Err(why) => return Outcome::Unknown(why),
            };
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.target.pod_ip);
            return match tokio::time::timeout(timeout, http::dial(host, port)).await {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(why)) => Outcome::Failure(why),
                Err(_) => Outcome::Failure(format!("dial tcp {}: i/o timeout", http::authority(host, port))),
            };
        }
        if let Some(action) = &probe.grpc {
            let Ok(port) = u16::try_from(action.port) else {
                return Outcome::Unknown(format!("invalid port number: {}", action.port));
            };
            let service = action.service.as_deref().unwrap_or_default();
            return grpc::check(&self.tasks, &self.target.pod_ip, port, service, timeout).await;
        }
        Outcome::Unknown(format!("missing probe handler for {}", self.target.container.name))
    }

    fn judge(&self, answer: &http::Answer) -> Outcome {
        if let Some(body) = &answer.redirect {
            let message = format!("Probe terminated redirects, Response body: {body}");
            self.context.events.warning(&self.about, "ProbeWarning", message);
            return Outcome::Success;
        }
        if (200..400).contains(&answer.status.as_u16()) {
            return Outcome::Success;
        }
        Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16()))
    }

    async fn exec(&self, command: Vec<String>, timeout: Duration) -> Outcome {
        let text = command.join(" ");
        let late =
            || Outcome::Failure(format!("command timed out: \"{text}\" timed out after {}", plain(timeout)));
        let call = self.context.runtime.exec_sync(&self.target.id, command, timeout);
        match tokio::time::timeout(timeout, call).await {
            Err(_) => late(),
            Ok(Err(error)) if error.is_timeout() => late(),
            Ok(Err(error)) => Outcome::Unknown(error.rpc_text()),
            Ok(Ok(answer)) if answer.exit_code == 0 => Outcome::Success,
            Ok(Ok(answer)) => Outcome::Failure(output(&answer)),
        }
    }
}

/// What a command has written, cut to a bearable length.
pub(crate) fn output(answer: &cri::ExecSyncResponse) -> String {
    let mut text = String::from_utf8_lossy(&answer.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&answer.stderr));
    if text.len() > OUTPUT_LIMIT {
        text.truncate(text.floor_char_boundary(OUTPUT_LIMIT));
    }
    text
}

/// A port by its number or its name.
pub(crate) fn port(reference: &IntOrString, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match reference {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            match ports.iter().find(|port| port.name.as_deref() == Some(name.as_str())) {
                Some(found) => found.container_port,
                None => name.parse().map_err(|_| format!("port {name} not found"))?,
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.map_or(default, |value| u64::try_from(value).unwrap_or(0)))
}

fn plain(duration: Duration) -> String {
    crate::pod::go_duration(duration)
}
