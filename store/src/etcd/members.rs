//! The members of an etcd cluster: all requests go to one of them until it fails, then to the next.

use std::error::Error as StdError;
use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::{Client, ConnectOptions};

/// Which requests are sent again when a member fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Those that change nothing, or that change nothing more the second time.
    Always,
    /// Those that never left: whether another one was carried out, nobody knows.
    IfNotSent,
}

/// A client for each member.
pub(super) struct Members {
    clients: Vec<Client>,
    current: AtomicUsize,
}

impl Members {
    /// Sends nothing yet: a connection is opened when it is needed, and again when it is lost.
    pub(super) async fn new(
        endpoints: &[String],
        options: &ConnectOptions,
    ) -> Result<Self, etcd_client::Error> {
        let mut clients = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            clients.push(Client::connect([endpoint], Some(options.clone())).await?);
        }
        Ok(Self { clients, current: AtomicUsize::new(0) })
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// The member to ask, and its number.
    pub(super) fn current(&self) -> Option<(usize, &Client)> {
        let number = self.current.load(Ordering::Relaxed);
        Some((number, self.clients.get(number)?))
    }

    /// Turns away from a member that failed, unless somebody has done so meanwhile.
    pub(super) fn turn_from(&self, failed: usize) {
        let next = (failed + 1) % self.len().max(1);
        // Lost the race: another request has turned to the next one.
        let _ = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Why no connection could be made for a request, in the system's words. Such a request was certainly not sent.
pub(super) fn no_connection(error: &etcd_client::Error) -> Option<String> {
    let etcd_client::Error::GRpcStatus(status) = error else { return None };
    let connect = causes(status.source()?).find(|error| error.is::<tonic::ConnectError>())?;
    Some(causes(connect).last()?.to_string())
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_that_is_told_late_does_not_turn_away_from_a_good_member() {
        let endpoints = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        let members = Members::new(&endpoints, &ConnectOptions::new()).await.unwrap();
        let number = || members.current().map(|(number, _)| number);
        members.turn_from(0);
        members.turn_from(0);
        assert_eq!(number(), Some(1));
        members.turn_from(1);
        assert_eq!(number(), Some(0), "after the last comes the first");
    }
}
