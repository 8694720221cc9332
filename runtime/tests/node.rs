//! The runtime on the real kernel, through its socket: sandboxes, containers, streams, restarts.
//!
//! Needs root. The server is a process of its own, so that it can be killed.

use std::ffi::OsString;
use std::process::ExitCode;

#[path = "node/client.rs"]
mod client;
#[path = "node/forward.rs"]
mod forward;
#[path = "node/image.rs"]
mod image;
#[path = "node/lifecycle.rs"]
mod lifecycle;
#[path = "node/restart.rs"]
mod restart;
#[path = "node/security.rs"]
mod security;
#[path = "node/server.rs"]
mod server;
#[path = "node/streams.rs"]
mod streams;

use client::Node;

macro_rules! tests {
    ($($module:ident :: $test:ident),* $(,)?) => {
        /// Runs the tests whose name contains the filter; the number of failures.
        async fn run(node: &Node, filter: &str) -> usize {
            let mut failures = 0;
            $(
                let name = concat!(stringify!($module), "::", stringify!($test));
                if name.contains(filter) {
                    failures += one(name, $module::$test(node.clone())).await;
                }
            )*
            failures
        }
    };
}

tests! {
    lifecycle::a_container_runs_logs_and_ends_with_its_code,
    lifecycle::what_can_not_be_started_says_why,
    lifecycle::stopping_asks_first_and_then_kills,
    lifecycle::a_container_over_its_memory_limit_is_oom_killed,
    lifecycle::a_pod_can_share_its_pid_namespace,
    lifecycle::limits_can_be_changed_and_use_is_told,
    lifecycle::a_log_is_reopened_after_rotation,
    lifecycle::thirty_pods_start_at_once,
    security::a_container_has_what_it_asked_for_and_no_more,
    security::a_privileged_container_has_what_the_node_has,
    security::volumes_are_mounted_as_asked,
    streams::exec_sync_returns_output_and_code,
    streams::exec_streams_over_web_socket,
    streams::exec_has_a_terminal,
    streams::attach_carries_input_and_output,
    forward::ports_are_forwarded_over_spdy,
    forward::ports_are_forwarded_over_a_web_socket,
    restart::a_killed_server_adopts_what_ran_and_what_ended,
    restart::a_container_survives_its_shim,
}

/// Runs one test as a task, so that a panic is its failure and not ours.
#[expect(clippy::disallowed_methods, reason = "a panic must end the test, not the run")]
async fn one(name: &str, test: impl Future<Output = ()> + Send + 'static) -> usize {
    let begin = std::time::Instant::now();
    let result = tokio::time::timeout(std::time::Duration::from_secs(120), tokio::spawn(test)).await;
    let failed = !matches!(result, Ok(Ok(())));
    println!("test {name} ... {} ({:?})", if failed { "FAILED" } else { "ok" }, begin.elapsed());
    usize::from(failed)
}

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = runtime::role::main(&argv) {
        return code;
    }
    let words: Vec<String> =
        argv.iter().skip(1).filter_map(|word| word.to_str().map(str::to_owned)).collect();
    let Ok(tokio) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    match words.first().map(String::as_str) {
        Some("server") => tokio.block_on(server::serve(&words[1])),
        Some("--list") => return ExitCode::SUCCESS,
        _ => {}
    }
    let filter = words.iter().find(|word| !word.starts_with("--")).cloned().unwrap_or_default();
    let failures = tokio.block_on(async {
        let node = Node::start().await;
        let mut failures = run(&node, &filter).await;
        failures += one("cleanup_leaves_nothing", node.clone().clean_up()).await;
        failures
    });
    tokio.shutdown_background();
    println!("{failures} failed");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
