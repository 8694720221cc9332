//! Prints puts per second of the embedded store for 1, 16 and 256 writers.
//!
//! `cargo run --release -p skiff-store --example bench [DIR]`; without DIR in a temporary directory.

use std::time::{Duration, Instant};

use base::{Clock, Tasks};
use store::{Embedded, Op, Store, Txn};

const SECONDS: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    let tasks = Tasks::new("bench");
    let store = Embedded::open(&dir, Clock::system(), tasks.clone())?;
    println!("{:>8} {:>10} {:>9} {:>9}", "writers", "puts/s", "p50 ms", "p99 ms");
    for writers in [1, 16, 256] {
        let end = Instant::now() + Duration::from_secs(SECONDS);
        let writer = |writer: usize| {
            let store = &store;
            async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    let key = format!("/registry/bench/{writer}/{}", times.len() % 100);
                    store.txn(Txn::of([Op::put(key, vec![b'x'; 3000])])).await?;
                    times.push(start.elapsed());
                }
                Ok::<_, store::Error>(times)
            }
        };
        let all = futures::future::try_join_all((0..writers).map(writer)).await?;
        let mut times: Vec<Duration> = all.into_iter().flatten().collect();
        times.sort();
        let at =
            |share: usize| times.get(times.len() * share / 100).map_or(0.0, Duration::as_secs_f64) * 1000.0;
        println!("{writers:>8} {:>10} {:>9.2} {:>9.2}", times.len() as u64 / SECONDS, at(50), at(99));
    }
    Ok(())
}
