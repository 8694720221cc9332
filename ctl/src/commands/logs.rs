//! `skiff logs`

use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use serde_json::Value;

use super::pods::{container, containers, pods_of, subject};
use super::{duration, print_bytes};
use crate::Failure;
use crate::resources::select::Selectors;
use crate::resources::{Call, Mapping, Session, name, namespace};

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME", required_unless_present = "selector")]
    pod: Option<String>,
    /// The container, as with -c
    #[arg(value_name = "CONTAINER")]
    positional_container: Option<String>,
    /// Print the logs of this container
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Get all containers' logs in the pod(s)
    #[arg(long)]
    all_containers: bool,
    /// Get logs from all pod(s) of a workload
    #[arg(long)]
    all_pods: bool,
    /// Specify if the logs should be streamed
    #[arg(long, short = 'f')]
    follow: bool,
    /// If true, print the logs for the previous instance of the container in a pod if it exists
    #[arg(long, short = 'p')]
    previous: bool,
    /// Lines of recent log file to display; -1 shows all
    #[arg(long, allow_negative_numbers = true, value_name = "LINES")]
    tail: Option<i64>,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only return logs after a specific date (RFC3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<String>,
    /// Include timestamps on each line in the log output
    #[arg(long)]
    timestamps: bool,
    /// Maximum bytes of logs to return
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Selector (label query) to filter on
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Prefix each log line with the log source (pod name and container name)
    #[arg(long)]
    prefix: bool,
    /// If watching / following pod logs, allow for any errors that occur to be non-fatal
    #[arg(long)]
    ignore_errors: bool,
    /// Maximum number of concurrent logs to follow when using a selector
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
}

/// One container's log.
struct Source {
    call: Call,
    prefix: String,
}

impl Logs {
    pub(crate) async fn run(mut self, session: &Session) -> Result<(), Failure> {
        if self.container.is_some() && self.positional_container.is_some() {
            return Err(Failure::new("error: only one of -c or an inline [CONTAINER] arg is allowed"));
        }
        self.container = self.container.take().or_else(|| self.positional_container.take());
        if self.all_containers && self.container.is_some() {
            return Err(Failure::new(
                "error: --all-containers=true should not be specified with container name",
            ));
        }
        if self.selector.is_some() && self.pod.is_some() {
            return Err(Failure::new("error: only a selector (-l) or a POD name is allowed"));
        }
        if self.tail.is_some_and(|tail| tail < -1) {
            return Err(Failure::new("error: --tail must be greater than or equal to -1"));
        }
        let pods = self.pods(session).await?;
        let mut sources = Vec::new();
        for pod in &pods {
            if self.all_containers {
                let mut all = containers(pod);
                // As they start: init containers first.
                all.sort_by_key(|(_, kind)| *kind != " (init)");
                sources.extend(all.iter().map(|(container, _)| self.source(pod, container)));
            } else {
                let container = container(pod, self.container.as_deref(), self.selector.is_some())?;
                sources.push(self.source(pod, &container));
            }
        }
        if self.follow && sources.len() > 1 {
            if sources.len() > self.max_log_requests {
                return Err(Failure::new(format!(
                    "error: you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
                     --max-log-requests to increase the limit",
                    sources.len(),
                    self.max_log_requests
                )));
            }
            try_join_all(sources.iter().map(|source| self.copy(session, source))).await?;
            return Ok(());
        }
        for source in &sources {
            self.copy(session, source).await?;
        }
        Ok(())
    }

    async fn pods(&self, session: &Session) -> Result<Vec<Value>, Failure> {
        if let Some(selector) = &self.selector {
            let selectors = Selectors { selector: Some(selector.clone()), ..Selectors::default() };
            let mapping = Mapping::builtin("", "pods")?;
            let pods = session.list(&mapping, Some(session.namespace()), &selectors).await?;
            if pods.is_empty() {
                eprintln!("No resources found in {} namespace.", session.namespace());
            }
            return Ok(pods);
        }
        let word = self.pod.as_deref().unwrap_or_default();
        let (mapping, object) = subject(session, word).await.map_err(|failure| {
            // As kubectl words it.
            let text = failure.to_string();
            match text.strip_prefix("Error from server (NotFound): ") {
                Some(rest) => Failure::new(format!(
                    "error: error from server (NotFound): {rest} in namespace {:?}",
                    session.namespace()
                )),
                None => failure,
            }
        })?;
        let mut pods = pods_of(session, &mapping, &object).await?;
        if pods.is_empty() {
            return Err(Failure::new(format!("error: no pods found for {}", mapping.named(name(&object)))));
        }
        if pods.len() > 1 && !self.all_pods {
            eprintln!("Found {} pods, using pod/{}", pods.len(), name(&pods[0]));
            pods.truncate(1);
        }
        Ok(pods)
    }

    fn source(&self, pod: &Value, container: &str) -> Source {
        let path = format!("/api/v1/namespaces/{}/pods/{}/log", namespace(pod), name(pod));
        let flag = |on: bool| on.then_some("true");
        // Of a single pod everything is shown, of a selection only the end.
        let tail = self.tail.or(self.selector.as_ref().map(|_| 10)).filter(|tail| *tail >= 0);
        let call = Call::get(path)
            .query("container", container)
            .query_if("follow", flag(self.follow))
            .query_if("previous", flag(self.previous))
            .query_if("timestamps", flag(self.timestamps))
            .query_if("tailLines", tail.map(|tail| tail.to_string()))
            .query_if("sinceSeconds", self.since.map(|since| since.as_secs().max(1).to_string()))
            .query_if("sinceTime", self.since_time.as_ref())
            .query_if("limitBytes", self.limit_bytes.map(|limit| limit.to_string()))
            .accept("*/*");
        let prefix = if self.prefix || self.all_pods {
            format!("[pod/{}/{container}] ", name(pod))
        } else {
            String::new()
        };
        Source { call, prefix }
    }

    async fn copy(&self, session: &Session, source: &Source) -> Result<(), Failure> {
        let copied = self.stream(session, source).await;
        match copied {
            Err(failure) if self.ignore_errors => {
                eprintln!("{failure}");
                Ok(())
            }
            other => other,
        }
    }

    async fn stream(&self, session: &Session, source: &Source) -> Result<(), Failure> {
        let mut lines = session.lines(source.call.clone()).await?;
        if source.prefix.is_empty() {
            while let Some(chunk) = lines.chunk().await? {
                print_bytes(&chunk)?;
            }
            return Ok(());
        }
        while let Some(mut line) = lines.next().await? {
            let mut out = source.prefix.clone().into_bytes();
            out.append(&mut line);
            out.push(b'\n');
            print_bytes(&out)?;
        }
        Ok(())
    }
}
