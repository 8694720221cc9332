//! Task ownership: the one home of `tokio::spawn`.
//!
//! Whoever starts a task owns it through a [`Tasks`]: it has a name, a cancellation token and a drain
//! deadline. Dropping the last handle of a group cancels what still runs in it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error_span};

/// A group of named tasks with one owner.
#[derive(Clone)]
pub struct Tasks {
    group: Arc<Group>,
}

struct Group {
    name: String,
    token: CancellationToken,
    tracker: TaskTracker,
    /// Names of what runs now, with how many of each.
    running: Arc<Mutex<HashMap<String, usize>>>,
    /// Whoever holds a part of a group holds the group.
    _parent: Option<Arc<Group>>,
}

/// Tasks that did not end within the drain deadline.
#[derive(Debug)]
pub struct StillRunning(pub Vec<String>);

impl Tasks {
    /// A group of its own, cancelled by [`Tasks::shutdown`] or by dropping its last handle.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with_token(name.into(), CancellationToken::new(), None)
    }

    fn with_token(name: String, token: CancellationToken, parent: Option<Arc<Group>>) -> Self {
        let (tracker, running) = (TaskTracker::new(), Arc::default());
        Self { group: Arc::new(Group { name, token, tracker, running, _parent: parent }) }
    }

    /// A group that is cancelled with this one, and can be shut down alone. It counts as a handle of this one.
    pub fn child(&self, name: &str) -> Self {
        let name = format!("{}/{name}", self.group.name);
        Self::with_token(name, self.group.token.child_token(), Some(self.group.clone()))
    }

    /// Cancelled when the group is to end. Tasks that must finish something select on it;
    /// all others are dropped at their next await point by [`Tasks::spawn`].
    pub fn token(&self) -> CancellationToken {
        self.group.token.clone()
    }

    /// Starts a task that is dropped at its next await point when the group is cancelled.
    pub fn spawn<F>(&self, name: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.group.token.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Starts a task that watches [`Tasks::token`] itself and ends soon after it is cancelled.
    #[expect(clippy::disallowed_methods, reason = "the one home of tokio::spawn")]
    pub fn spawn_draining<F>(&self, name: &str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let registration = Registration::new(&self.group.running, name);
        let span = error_span!("task", name = %format_args!("{}/{name}", self.group.name));
        let tracked = self.group.tracker.track_future(async move {
            future.await;
            drop(registration);
        });
        tokio::spawn(tracked.instrument(span));
    }

    /// Runs blocking code on tokio's blocking pool, owned by this group. It can't be cancelled.
    pub async fn blocking<T, F>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.group.tracker.spawn_blocking(f).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: the caller is about to be dropped too.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Cancels the group and waits for its tasks until `deadline` has passed.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), StillRunning> {
        self.group.token.cancel();
        self.group.tracker.close();
        if tokio::time::timeout(deadline, self.group.tracker.wait()).await.is_ok() {
            debug!(group = %self.group.name, "all tasks ended");
            return Ok(());
        }
        let running = self.group.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> =
            running.keys().map(|name| format!("{}/{name}", self.group.name)).collect();
        names.sort();
        Err(StillRunning(names))
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("name", &self.group.name)
            .field("running", &self.group.tracker.len())
            .finish()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still running after the drain deadline: {}", self.0.join(", "))
    }
}

impl std::error::Error for StillRunning {}

/// Counts a task as running for as long as it lives, also when it is dropped or panics.
struct Registration {
    running: Arc<Mutex<HashMap<String, usize>>>,
    name: String,
}

impl Registration {
    fn new(running: &Arc<Mutex<HashMap<String, usize>>>, name: &str) -> Self {
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() += 1;
        Self { running: running.clone(), name: name.to_owned() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_every_task_of_the_group() {
        let tasks = Tasks::new("test");
        tasks.spawn("forever", std::future::pending());
        tasks.shutdown(Duration::from_secs(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_names_the_task_that_does_not_end() {
        let tasks = Tasks::new("test");
        tasks.spawn_draining("stubborn", std::future::pending());
        let error = tasks.shutdown(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.0, ["test/stubborn"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_ends_with_its_parent() {
        let parent = Tasks::new("parent");
        let child = parent.child("child");
        child.spawn("forever", std::future::pending());
        parent.shutdown(Duration::from_secs(1)).await.unwrap();
        child.shutdown(Duration::from_secs(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_outlives_the_handle_that_it_was_made_from() {
        let parent = Tasks::new("parent");
        let child = parent.child("child");
        drop(parent);
        assert!(!child.token().is_cancelled());
        let token = child.token();
        drop(child);
        assert!(token.is_cancelled());
    }
}
