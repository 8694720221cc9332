//! What watchers of a cache are told.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::*;

fn entry(revision: Revision) -> Arc<Entry> {
    let value =
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b","uid":"c"}}"#;
    Arc::new(Entry::new("b/a", value, revision, Box::default()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_knows_more_than_the_cache_is_not_taken_back_in_time() {
    let fields = Fields { names: Vec::new(), read: Arc::new(|_| Box::default()) };
    let global = Arc::new(AtomicI64::new(3));
    let cache = Arc::new(Cache::new("/registry/configmaps/".to_owned(), fields, global));
    // Another server, which is ahead, told it about revision 5.
    let (_, mut watch) = cache.watch(Arc::new(Selector::default()), Some(5)).unwrap();
    assert_eq!(watch.caught_up(), None, "a bookmark would be older than what the client has");
    let now = Instant::now();
    for revision in 4..=6 {
        cache.apply(revision, vec![("b/a".to_owned(), Some(entry(revision)))], now);
    }
    assert_eq!(watch.next().await.unwrap().1.revision, 6);
    assert!(watch.try_next().is_none());
    assert_eq!(watch.caught_up(), Some(6));
}
