//! Rules for probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, SleepAction,
    TCPSocketAction,
};

use crate::{
    field::{Errors, FieldError, Path},
    kinds::check::{list, nonnegative, one_of, port_number, port_or_name, problems, required, text},
    name,
};

/// A liveness or startup probe.
pub(super) fn validate_liveness(errors: &mut Errors, probe: Option<&Probe>, grace: Option<i64>, path: &Path) {
    let Some(probe) = probe else { return };
    validate(errors, probe, grace, path);
    let threshold = probe.success_threshold.unwrap_or_default();
    if threshold != 1 {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

/// A readiness probe.
pub(super) fn validate_readiness(
    errors: &mut Errors,
    probe: Option<&Probe>,
    grace: Option<i64>,
    path: &Path,
) {
    let Some(probe) = probe else { return };
    validate(errors, probe, grace, path);
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(&at, seconds, "must not be set for readinessProbes"));
    }
}

fn validate(errors: &mut Errors, probe: &Probe, grace: Option<i64>, path: &Path) {
    let actions = Actions {
        exec: probe.exec.as_ref(),
        http: probe.http_get.as_ref(),
        tcp: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    actions.validate(errors, grace, path);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        nonnegative(errors, &path.child(field), value);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(&at, seconds, "must be greater than 0"));
    }
}

/// The hooks of a container.
pub(super) fn validate_lifecycle(
    errors: &mut Errors,
    lifecycle: &Lifecycle,
    grace: Option<i64>,
    spec: &PodSpec,
    path: &Path,
) {
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            hook(handler).validate(errors, grace, &path.child(field));
        }
    }
    if let Some(signal) = lifecycle.stop_signal.as_deref() {
        stop_signal(errors, signal, spec, &path.child("stopSignal"));
    }
}

fn stop_signal(errors: &mut Errors, signal: &str, spec: &PodSpec, path: &Path) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None | Some("") => {
            errors
                .push(FieldError::forbidden(path, "may not be set for containers with empty `spec.os.name`"));
        }
        Some("windows") => one_of(errors, path, signal, &["SIGKILL", "SIGTERM"]),
        Some(_) => one_of(errors, path, signal, LINUX_SIGNALS),
    }
}

const LINUX_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn hook(handler: &LifecycleHandler) -> Actions<'_> {
    Actions {
        exec: handler.exec.as_ref(),
        http: handler.http_get.as_ref(),
        tcp: handler.tcp_socket.as_ref(),
        grpc: None,
        sleep: handler.sleep.as_ref(),
    }
}

/// What a probe or hook does; exactly one is given.
struct Actions<'a> {
    exec: Option<&'a ExecAction>,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Actions<'_> {
    fn validate(&self, errors: &mut Errors, grace: Option<i64>, path: &Path) {
        let mut given = 0;
        // True for the first that is given; the others are refused.
        let mut first = |errors: &mut Errors, at: &Path| {
            given += 1;
            if given > 1 {
                errors.push(FieldError::forbidden(at, "may not specify more than 1 handler type"));
            }
            given == 1
        };
        if let Some(exec) = self.exec {
            let at = path.child("exec");
            if first(errors, &at) && list(&exec.command).is_empty() {
                errors.push(FieldError::required(&at.child("command"), ""));
            }
        }
        if let Some(http) = self.http {
            let at = path.child("httpGet");
            if first(errors, &at) {
                http_get(errors, http, &at);
            }
        }
        if let Some(tcp) = self.tcp {
            let at = path.child("tcpSocket");
            if first(errors, &at) {
                port_or_name(errors, &at.child("port"), &tcp.port);
            }
        }
        if let Some(grpc) = self.grpc {
            let at = path.child("grpc");
            if first(errors, &at) {
                port_number(errors, &at.child("port"), grpc.port);
            }
        }
        if let Some(sleep) = self.sleep {
            let at = path.child("sleep");
            // A missing grace period is reported where it belongs.
            if first(errors, &at)
                && let Some(grace) = grace
                && (sleep.seconds < 0 || sleep.seconds > grace)
            {
                let detail =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(&at, sleep.seconds, detail));
            }
        }
        if given == 0 {
            errors.push(FieldError::required(path, "must specify a handler type"));
        }
    }
}

fn http_get(errors: &mut Errors, http: &HTTPGetAction, path: &Path) {
    required(errors, &path.child("path"), text(&http.path));
    port_or_name(errors, &path.child("port"), &http.port);
    one_of(errors, &path.child("scheme"), text(&http.scheme), &["HTTP", "HTTPS"]);
    for header in list(&http.http_headers) {
        problems(errors, &path.child("httpHeaders"), &header.name, name::http_header_name(&header.name));
    }
}
