//! The last words of a container: the file it may write them to, or the end of its log.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use base::Tasks;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::context::Context;
use crate::pod::{self, ObservedContainer, sandbox};

/// Upstream's limits.
const MESSAGE_LIMIT: u64 = 4096;
const LOG_LIMIT: usize = 2048;
const LOG_LINES: usize = 80;
/// A log line in CRI's form is longer than what it says; so much of the file is looked at.
const LOG_WINDOW: u64 = 16 * 1024;

/// The termination message of a container that has ended.
pub(super) async fn read(
    context: &Context,
    pod: &Pod,
    container: &Container,
    ended: &ObservedContainer,
) -> String {
    let file = context.host.termination_log(pod::uid(pod), &ended.name, ended.attempt);
    let log = context.host.log_directory(pod).join(sandbox::log_path(&ended.name, ended.attempt));
    let from_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
        && ended.exit_code != 0;
    on_disk(&context.tasks, file, log, from_log).await
}

async fn on_disk(tasks: &Tasks, file: std::path::PathBuf, log: std::path::PathBuf, from_log: bool) -> String {
    tasks
        .blocking(move || {
            let said = String::from_utf8_lossy(&tail(&file, MESSAGE_LIMIT)).into_owned();
            if said.is_empty() && from_log { last_lines(&tail(&log, LOG_WINDOW)) } else { said }
        })
        .await
}

/// The end of a file; nothing if it can't be read.
fn tail(path: &Path, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut read = || -> std::io::Result<()> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(())
    };
    // Most containers have not written anything.
    let _ = read();
    bytes
}

/// What the last lines of a log in CRI's form say: `time stream F text`.
fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    let lines = &lines[lines.len().saturating_sub(LOG_LINES)..];
    let mut said = String::new();
    for line in lines {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some(_), Some(tag), Some(words)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        said.push_str(words);
        if tag.starts_with('F') {
            said.push('\n');
        }
    }
    let cut = said.len().saturating_sub(LOG_LIMIT);
    let start = said.ceil_char_boundary(cut);
    said.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_told_without_its_form() {
        let log = b"cut off 1\n2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:01Z stdout F line\n2026-01-01T00:00:02Z stderr F bad\n";
        assert_eq!(last_lines(log), "one line\nbad\n");
        let long = format!("2026-01-01T00:00:00Z stdout F {}\n", "x".repeat(5000));
        assert_eq!(last_lines(long.as_bytes()).len(), LOG_LIMIT);
        assert!(tail(Path::new("/nonexistent"), 10).is_empty());
    }
}
