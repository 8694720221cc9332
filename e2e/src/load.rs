//! Constant requests to a service, and what becomes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::pause;
use crate::web;

/// Asks addresses all the time, from threads in the calling thread's network namespace.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts two clients per address.
    pub fn start(addresses: &[SocketAddr]) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |address: SocketAddr| {
            let (stop, asked) = (stop.clone(), asked.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match web::get(address, "/", Duration::from_secs(5)) {
                        Ok((200, _)) => {}
                        Ok((code, body)) => failures.push(format!("{address}: {code} {body}")),
                        Err(error) => failures.push(format!("{address}: {error}")),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                    pause();
                }
                failures
            })
        };
        let threads = addresses.iter().flat_map(|&address| [client(address), client(address)]).collect();
        Self { stop, asked, threads }
    }

    /// How many requests were made until now.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many requests were made, and what went wrong with any.
    pub fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures =
            self.threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect();
        (self.asked.load(Ordering::Relaxed), failures)
    }

    /// Ends, and panics if any request failed. Returns how many were made.
    pub fn end_without_failure(self, when: &str) -> u64 {
        let (asked, failures) = self.end();
        assert!(failures.is_empty(), "{} of {asked} requests failed {when}: {failures:?}", failures.len());
        assert!(asked > 0, "nothing was asked {when}");
        asked
    }
}
