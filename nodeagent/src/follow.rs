//! Follows the runtime: its events, or, where it has none, a listing once a second.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::observe::{Lister, Listing};
use crate::runtime::Events;
use crate::workers::Workers;

/// The wait before a broken stream is opened again, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often a runtime without events is listed, and when nothing has happened for a while.
const LIST_EVERY: Duration = Duration::from_secs(1);
const LIST_IDLE: Duration = Duration::from_secs(5);

/// Gets the first listing, hands it to the workers, and then tells them what changes.
pub(crate) async fn follow(workers: Arc<Workers>) {
    let mut lister = Lister::default();
    let mut adopted = false;
    let mut retry = FIRST_RETRY;
    let clock = workers.context().clock.clone();
    loop {
        // The stream is opened before the listing, so that nothing is missed between them.
        let stream = workers.context().runtime.events().await;
        let has_events = match &stream {
            Err(error) if error.is_unimplemented() => false,
            Err(error) => {
                tracing::warn!(%error, "can't follow the runtime's events");
                true
            }
            Ok(_) => true,
        };
        match lister.list(workers.context().runtime.as_ref()).await {
            Ok(listing) => {
                hand_over(&workers, &mut adopted, listing).await;
                if !has_events {
                    tracing::info!("the runtime has no events: listing its containers once a second");
                    return list(&workers, lister).await;
                }
                if let Ok(stream) = stream {
                    retry = FIRST_RETRY;
                    consume(&workers, &mut lister, stream).await;
                }
            }
            Err(error) => tracing::warn!(%error, "can't list what the runtime has"),
        }
        clock.wait(workers.context().random.jitter(retry, 0.2)).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn hand_over(workers: &Arc<Workers>, adopted: &mut bool, listing: Listing) {
    if std::mem::replace(adopted, true) {
        workers.take_in(listing);
    } else {
        workers.adopt(listing);
        let sweeping = workers.clone();
        workers.context().tasks.spawn("sweep", async move { sweeping.sweep().await });
    }
}

async fn consume(workers: &Arc<Workers>, lister: &mut Lister, mut stream: Events) {
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if let Some((uid, noted)) = lister.note(&event) {
                    workers.note(&uid, noted);
                }
            }
            Err(error) => return tracing::warn!(%error, "the runtime's events have stopped"),
        }
    }
}

/// The one place that polls, for runtimes that can't tell. The time between two listings grows while nothing
/// changes and no worker starts anything.
async fn list(workers: &Arc<Workers>, mut lister: Lister) {
    let context = workers.context();
    let mut period = LIST_EVERY;
    loop {
        tokio::select! {
            () = context.clock.wait(period) => {}
            () = context.activity.notified(), if period > LIST_EVERY => {
                period = LIST_EVERY;
                continue;
            }
        }
        match lister.list(context.runtime.as_ref()).await {
            Ok(listing) => {
                let quiet = listing.changed.is_empty() && listing.removed.is_empty();
                period = if quiet { (period + LIST_EVERY / 2).min(LIST_IDLE) } else { LIST_EVERY };
                workers.take_in(listing);
            }
            Err(error) => {
                tracing::warn!(%error, "can't list what the runtime has");
                period = LIST_IDLE;
            }
        }
    }
}
