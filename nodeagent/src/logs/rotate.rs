//! Keeps logs at a bounded size: a log that has grown too large is renamed, and the runtime opens a new one.
//!
//! The kernel tells which logs were written, and keeps that word until it is asked again: so a node on which nothing
//! is logged does nothing, and one on which much is logged looks at sizes every ten seconds.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Tasks};
use nix::sys::inotify::AddWatchFlags;

use super::files::rotated;
use super::notify::{Notify, Watch};
use crate::runtime::Runtime;

const PAUSE: Duration = Duration::from_secs(10);

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A log larger than this is rotated.
    pub size: u64,
    /// How many files a container has, the one being written included.
    pub files: usize,
}

/// Rotates the logs that it was told of.
pub struct Rotator {
    shared: Arc<Shared>,
    /// The work ends with this.
    _tasks: Tasks,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    clock: Clock,
    limits: Limits,
    notify: Notify,
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    /// By container id.
    paths: HashMap<String, (PathBuf, Option<Watch>)>,
    ids: HashMap<Watch, String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 10 * 1024 * 1024, files: 5 }
    }
}

impl Rotator {
    /// Begins to work; nothing is rotated before [`Rotator::add`].
    pub fn start(
        runtime: Arc<dyn Runtime>,
        clock: Clock,
        tasks: &Tasks,
        limits: Limits,
    ) -> Result<Self, io::Error> {
        let shared =
            Arc::new(Shared { runtime, clock, limits, notify: Notify::new()?, logs: Mutex::default() });
        let tasks = tasks.child("log rotation");
        let this = shared.clone();
        tasks.spawn("rotate", async move {
            if let Err(error) = this.run().await {
                tracing::error!(%error, "logs are not rotated any more");
            }
        });
        Ok(Self { shared, _tasks: tasks })
    }

    /// A container writes its log here: call it when it has been started, and for those found running.
    pub fn add(&self, container_id: &str, log: &Path) {
        self.shared.add(container_id, log);
    }

    /// The container has ended; its log stays as it is.
    pub fn remove(&self, container_id: &str) {
        self.shared.remove(container_id);
    }
}

impl fmt::Debug for Rotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotator").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: &str, path: &Path) {
        self.remove(id);
        let watch = match self.notify.watch(path, AddWatchFlags::IN_MODIFY) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "a log is not watched");
                None
            }
        };
        let mut logs = self.lock();
        logs.paths.insert(id.to_owned(), (path.to_owned(), watch));
        if let Some(watch) = watch {
            logs.ids.insert(watch, id.to_owned());
        }
    }

    fn remove(&self, id: &str) {
        let mut logs = self.lock();
        if let Some((_, Some(watch))) = logs.paths.remove(id) {
            logs.ids.remove(&watch);
            self.notify.forget(watch);
        }
    }

    async fn run(&self) -> io::Result<()> {
        loop {
            let mut written: Vec<(String, PathBuf)> = Vec::new();
            for event in self.notify.events().await? {
                let logs = self.lock();
                let all = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                for (id, (path, _)) in &logs.paths {
                    if all || logs.ids.get(&event.wd) == Some(id) {
                        written.push((id.clone(), path.clone()));
                    }
                }
            }
            written.sort_unstable();
            written.dedup();
            for (id, path) in written {
                let size = std::fs::metadata(&path).map_or(0, |found| found.len());
                if size > self.limits.size
                    && let Err(error) = self.rotate(&id, &path).await
                {
                    tracing::warn!(path = %path.display(), %error, "a log was not rotated");
                }
            }
            // Deliberate: the kernel collects meanwhile what was written.
            self.clock.wait(PAUSE).await;
        }
    }

    async fn rotate(&self, id: &str, path: &Path) -> Result<(), RotateError> {
        let older = rotated(path);
        let spare = (older.len() + 2).saturating_sub(self.limits.files.max(1));
        for old in older.iter().take(spare) {
            std::fs::remove_file(old)?;
        }
        let stamp = self.clock.now().strftime("%Y%m%d-%H%M%S").to_string();
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{stamp}"));
        let moved = PathBuf::from(name);
        std::fs::rename(path, &moved)?;
        if let Err(error) = self.runtime.reopen_log(id).await {
            // The runtime goes on in the old file: it is the log again.
            std::fs::rename(&moved, path)?;
            return Err(RotateError::Runtime(error));
        }
        self.add(id, path);
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Runtime(crate::runtime::RuntimeError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::FakeRuntime;

    #[tokio::test]
    async fn a_log_that_has_grown_is_rotated_and_old_files_go() {
        let base = tempfile::tempdir().unwrap();
        let log = base.path().join("0.log");
        for day in 1..=3 {
            std::fs::write(base.path().join(format!("0.log.2026010{day}-000000")), "old").unwrap();
        }
        std::fs::write(&log, "").unwrap();
        let runtime = Arc::new(FakeRuntime { log: Some(log.clone()), ..FakeRuntime::default() });
        let tasks = Tasks::new("test");
        let limits = Limits { size: 10, files: 3 };
        let rotator = Rotator::start(runtime.clone(), Clock::system(), &tasks, limits).unwrap();
        rotator.add("id-1", &log);
        // Waits for the runtime's new file as a reader does.
        let notify = Notify::new().unwrap();
        notify.watch(base.path(), AddWatchFlags::IN_CREATE).unwrap();
        std::fs::write(&log, "more than ten bytes").unwrap();
        tokio::time::timeout(Duration::from_secs(10), notify.events()).await.unwrap().unwrap();
        assert_eq!(*runtime.calls.lock().unwrap(), ["reopen id-1"]);
        let kept = rotated(&log);
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(&kept[1]).unwrap(), "more than ten bytes");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    }

    #[tokio::test]
    async fn a_runtime_that_can_not_reopen_keeps_its_log() {
        let base = tempfile::tempdir().unwrap();
        let log = base.path().join("0.log");
        std::fs::write(&log, "text").unwrap();
        let runtime = Arc::new(FakeRuntime::default());
        let tasks = Tasks::new("test");
        let rotator = Rotator::start(runtime, Clock::system(), &tasks, Limits::default()).unwrap();
        rotator.shared.rotate("id-1", &log).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "text");
        assert!(rotated(&log).is_empty());
    }
}
