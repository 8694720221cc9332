//! The flags that every command for users takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Failure;

/// Where the cluster is, as whom to ask it, and how patiently.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Path to the kubeconfig file to use for CLI requests
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// If present, the namespace scope for this CLI request
    #[arg(long, short = 'n', global = true, hide = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The address and port of the Kubernetes API server
    #[arg(long, short = 's', global = true, hide = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Username to impersonate for the operation
    #[arg(long = "as", global = true, hide = true, value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// Group to impersonate for the operation; can be repeated
    #[arg(long = "as-group", global = true, hide = true, value_name = "GROUP")]
    pub(crate) as_group: Vec<String>,
    /// How long to wait for one answer of the server, such as 1s, 2m, 3h; 0 waits as long as it takes
    #[arg(long, global = true, hide = true, value_name = "DURATION", value_parser = duration, default_value = "0")]
    pub(crate) request_timeout: Duration,
}

/// What `skiff options` prints.
pub(crate) const OPTIONS: &str = "\
The following options can be passed to any command that asks the cluster:

    --as='':
	Username to impersonate for the operation. User could be a regular user or a service account in a namespace.

    --as-group=[]:
	Group to impersonate for the operation, this flag can be repeated to specify multiple groups.

    --context='':
	The name of the kubeconfig context to use

    --kubeconfig='':
	Path to the kubeconfig file to use for CLI requests. Without it: $KUBECONFIG, ~/.kube/config, and then
	/var/lib/skiff/admin.kubeconfig.

    -n, --namespace='':
	If present, the namespace scope for this CLI request

    --request-timeout='0':
	The length of time to wait before giving up on a single server request. Non-zero values should contain a
	corresponding time unit (e.g. 1s, 2m, 3h). A value of zero means don't timeout requests.

    -s, --server='':
	The address and port of the Kubernetes API server
";

/// Reads a duration as Go writes it: `300ms`, `1m30s`, `2h`; a bare number counts seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration {text:?}: use a number with a unit, such as 30s, 5m or 1h");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let amount: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += amount
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// A duration as Go prints it: `1m30s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanos > 0 {
        return format!("{}ms", duration.as_millis());
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Prints to stdout. A reader that went away ends the command, as the signal would.
pub(crate) fn print(text: impl AsRef<str>) -> Result<(), Failure> {
    print_bytes(text.as_ref().as_bytes())
}

/// The same for what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::silent(141),
        _ => Failure::new(format!("error: standard output: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, millis) in
            [("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("300ms", 300), ("7", 7000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["5x", "s", "1", "-1s", "1s2"] {
            assert_eq!(duration(text).is_ok(), text == "1", "{text}");
        }
        for (seconds, text) in [(5, "5s"), (90, "1m30s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
