//! The contract of a store, as cases that every implementation passes. Each case has a key prefix of its
//! own and assumes nothing about the revision at which it starts.

use std::time::Duration;

use futures::future::BoxFuture;
use store::{
    Compare, Error, Event, EventKind, MAX_REQUEST_BYTES, Op, OpResult, Range, Store, Txn, Watch, WatchMessage,
};

pub(crate) type Case = for<'a> fn(&'a dyn Store, String) -> BoxFuture<'a, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[(&str, Case)] = &[$((stringify!($name), |store, prefix| Box::pin($name(store, prefix)))),*];
    };
}

cases![
    a_write_makes_the_next_revision,
    a_failed_comparison_writes_nothing,
    a_transaction_sees_its_own_writes_and_has_one_revision,
    pages_cover_a_range_exactly_once,
    the_past_can_be_read,
    a_watch_delivers_each_revision_once_and_whole,
    a_watch_from_the_past_goes_on_live,
    a_watch_tells_what_was_replaced,
    compacted_history_is_an_error_and_not_an_empty_answer,
    a_lease_that_ends_takes_its_keys_along,
    progress_covers_every_write_before_it,
    too_large_a_request_is_refused,
    deleting_nothing_makes_no_revision,
    concurrent_increments_are_all_counted,
    a_slow_watcher_misses_nothing,
];

async fn put(store: &dyn Store, key: &str, value: &str) -> i64 {
    store.txn(Txn::of([Op::put(key, value.to_owned())])).await.unwrap().revision
}

async fn get(store: &dyn Store, key: &str) -> Option<store::KeyValue> {
    store.range(Range::key(key)).await.unwrap().kvs.pop()
}

async fn watch(store: &dyn Store, prefix: &str, from: i64) -> Watch {
    let range = Range::prefix(prefix);
    store.watch(range.start, range.end, from, true).await.unwrap()
}

async fn events(watch: &mut Watch) -> (i64, Vec<Event>) {
    loop {
        let next =
            tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("an event in time");
        if let WatchMessage::Events { revision, events } = next.unwrap().unwrap() {
            return (revision, events);
        }
    }
}

async fn a_write_makes_the_next_revision(store: &dyn Store, p: String) {
    let before = store.revision().await.unwrap();
    let first = put(store, &p, "one").await;
    assert_eq!(first, before + 1);
    let second = put(store, &p, "two").await;
    let kv = get(store, &p).await.unwrap();
    assert_eq!(
        (kv.create_revision, kv.mod_revision, kv.version, &kv.value[..]),
        (first, second, 2, &b"two"[..])
    );
    assert_eq!(store.revision().await.unwrap(), second);
    let deleted = store.txn(Txn::of([Op::delete(&p)])).await.unwrap();
    assert_eq!((deleted.revision, deleted.results), (second + 1, vec![OpResult::Deleted(1)]));
    assert_eq!(get(store, &p).await, None);
}

async fn a_failed_comparison_writes_nothing(store: &dyn Store, p: String) {
    let create = Txn::of([Op::put(&p, "v")]).when(Compare::mod_revision(&p, 0)).or_else(Op::get(&p));
    let created = store.txn(create.clone()).await.unwrap();
    assert!(created.succeeded);
    let again = store.txn(create).await.unwrap();
    assert!(!again.succeeded);
    assert_eq!(again.revision, created.revision);
    let [OpResult::Get(found)] = &again.results[..] else { panic!("{again:?}") };
    assert_eq!(found.kvs[0].mod_revision, created.revision);
    let stale = Txn::of([Op::put(&p, "w")]).when(Compare::mod_revision(&p, created.revision - 1));
    assert!(!store.txn(stale).await.unwrap().succeeded);
    let fresh = Txn::of([Op::put(&p, "w")])
        .when(Compare::mod_revision(&p, created.revision))
        .when(Compare::Version { key: p.clone(), equals: 1 })
        .when(Compare::CreateRevision { key: p.clone(), equals: created.revision });
    assert!(store.txn(fresh).await.unwrap().succeeded);
}

async fn a_transaction_sees_its_own_writes_and_has_one_revision(store: &dyn Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let answer =
        store.txn(Txn::of([Op::put(&a, "1"), Op::put(&b, "2"), Op::Get(Range::prefix(&p))])).await.unwrap();
    let OpResult::Get(seen) = &answer.results[2] else { panic!("{answer:?}") };
    assert_eq!(seen.kvs.len(), 2);
    assert!(seen.kvs.iter().all(|kv| kv.mod_revision == answer.revision));
}

async fn pages_cover_a_range_exactly_once(store: &dyn Store, p: String) {
    for n in 0..10 {
        put(store, &format!("{p}{n}"), "v").await;
    }
    let mut range = Range::prefix(&p).limit(4);
    let mut seen = Vec::new();
    let mut counts = Vec::new();
    loop {
        let page = store.range(range.clone()).await.unwrap();
        counts.push(page.count);
        seen.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        if !page.more {
            break;
        }
        range = range.after(seen.last().unwrap());
    }
    assert_eq!(seen, (0..10).map(|n| format!("{p}{n}")).collect::<Vec<_>>());
    assert_eq!(counts, [10, 6, 2]);
    let keys = store.range(Range::prefix(&p).keys_only()).await.unwrap();
    assert!(keys.kvs.len() == 10 && keys.kvs.iter().all(|kv| kv.value.is_empty()));
    let count = store.range(Range::prefix(&p).count_only()).await.unwrap();
    assert_eq!((count.count, count.kvs.len()), (10, 0));
    assert_eq!(store.range(Range::between(format!("{p}9"), format!("{p}1"))).await.unwrap().count, 0);
}

async fn the_past_can_be_read(store: &dyn Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let r1 = put(store, &a, "1").await;
    let r2 = put(store, &b, "2").await;
    let r3 = store.txn(Txn::of([Op::delete(&a), Op::put(&b, "3")])).await.unwrap().revision;
    let r4 = put(store, &a, "4").await;
    for (revision, expected) in
        [(r1, vec!["1"]), (r2, vec!["1", "2"]), (r3, vec!["3"]), (r4, vec!["4", "3"]), (0, vec!["4", "3"])]
    {
        let answer = store.range(Range::prefix(&p).at(revision)).await.unwrap();
        let values: Vec<_> = answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.value)).collect();
        assert_eq!(values, expected, "at {revision}");
        assert_eq!(answer.revision, r4, "an answer carries the present revision");
        assert_eq!(
            store.range(Range::prefix(&p).at(revision).limit(1)).await.unwrap().count,
            values.len() as i64
        );
    }
    assert_eq!(get(store, &a).await.unwrap().create_revision, r4);
    let future = store.range(Range::key(&a).at(r4 + 1000)).await;
    assert_eq!(future, Err(Error::FutureRevision { requested: r4 + 1000, current: r4 }));
}

async fn a_watch_delivers_each_revision_once_and_whole(store: &dyn Store, p: String) {
    let mut watch = watch(store, &p, 0).await;
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let r1 = store.txn(Txn::of([Op::put(&a, "1"), Op::put(&b, "2")])).await.unwrap().revision;
    put(store, &format!("{}!", p.trim_end_matches('/')), "outside").await;
    let r2 = store.txn(Txn::of([Op::delete(&a)])).await.unwrap().revision;
    let (revision, found) = events(&mut watch).await;
    assert_eq!((revision, found.len()), (r1, 2));
    assert_eq!((&found[0].kv.key, &found[1].kv.key), (&a, &b));
    let (revision, found) = events(&mut watch).await;
    assert_eq!((revision, found.len(), found[0].kind), (r2, 1, EventKind::Delete));
    assert_eq!((&found[0].kv.key, found[0].kv.mod_revision), (&a, r2));
}

async fn a_watch_from_the_past_goes_on_live(store: &dyn Store, p: String) {
    let key = format!("{p}k");
    let first = put(store, &key, "0").await;
    for n in 1..50 {
        put(store, &key, &n.to_string()).await;
    }
    let mut watch = watch(store, &p, first).await;
    for n in 0..100 {
        if n < 50 {
            put(store, &key, &(50 + n).to_string()).await;
        }
        let (revision, found) = events(&mut watch).await;
        assert_eq!((revision, &found[0].kv.value[..]), (first + n, n.to_string().as_bytes()));
    }
}

async fn a_watch_tells_what_was_replaced(store: &dyn Store, p: String) {
    let from = put(store, &p, "old").await + 1;
    let mut live = watch(store, &p, 0).await;
    put(store, &p, "new").await;
    store.txn(Txn::of([Op::delete(&p)])).await.unwrap();
    let mut late = watch(store, &p, from).await;
    for watch in [&mut live, &mut late] {
        for expected in ["old", "new"] {
            let (_, found) = events(watch).await;
            assert_eq!(&found[0].prev.as_ref().unwrap().value[..], expected.as_bytes());
        }
    }
}

async fn compacted_history_is_an_error_and_not_an_empty_answer(store: &dyn Store, p: String) {
    let (a, b) = (format!("{p}a"), format!("{p}b"));
    let r1 = put(store, &a, "1").await;
    put(store, &a, "2").await;
    put(store, &b, "gone").await;
    store.txn(Txn::of([Op::delete(&b)])).await.unwrap();
    let r5 = put(store, &a, "3").await;
    let r6 = put(store, &a, "4").await;
    store.compact(r5).await.unwrap();
    let compacted = Error::Compacted { revision: r5 };
    assert_eq!(store.range(Range::prefix(&p).at(r1)).await, Err(compacted.clone()));
    assert_eq!(&store.range(Range::prefix(&p).at(r5)).await.unwrap().kvs[0].value[..], b"3");
    assert_eq!(store.range(Range::prefix(&p).at(r5)).await.unwrap().count, 1);
    let range = Range::prefix(&p);
    for from in [r1, r5] {
        let error = match store.watch(range.start.clone(), range.end.clone(), from, true).await {
            Ok(mut watch) => watch.next().await.unwrap().unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error, compacted, "from {from}");
    }
    let (revision, found) = events(&mut watch(store, &p, r6).await).await;
    assert_eq!((revision, &found[0].prev.as_ref().unwrap().value[..]), (r6, &b"3"[..]));
    assert_eq!(store.compact(r1).await, Err(compacted));
    assert!(matches!(store.compact(r6 + 1000).await, Err(Error::FutureRevision { .. })));
}

async fn a_lease_that_ends_takes_its_keys_along(store: &dyn Store, p: String) {
    let under = |key: String, lease| Op::Put { key, value: "v".into(), lease, volatile: true };
    let mut watch = watch(store, &p, 0).await;
    for revoke in [true, false] {
        let lease = store.lease_grant(Duration::from_secs(1)).await.unwrap();
        store.lease_keep_alive(lease).await.unwrap();
        let ops = [under(format!("{p}a"), lease), under(format!("{p}b"), lease)];
        store.txn(Txn::of(ops)).await.unwrap();
        assert_eq!(events(&mut watch).await.1[0].kv.lease, lease);
        if revoke {
            store.lease_revoke(lease).await.unwrap();
        }
        let (_, found) = events(&mut watch).await;
        assert_eq!(found.len(), 2, "both keys go at one revision");
        assert!(found.iter().all(|event| event.kind == EventKind::Delete));
        assert_eq!(store.lease_keep_alive(lease).await, Err(Error::LeaseNotFound(lease)));
        assert_eq!(store.lease_revoke(lease).await, Err(Error::LeaseNotFound(lease)));
        let late = store.txn(Txn::of([under(format!("{p}a"), lease)])).await;
        assert_eq!(late, Err(Error::LeaseNotFound(lease)));
    }
}

async fn progress_covers_every_write_before_it(store: &dyn Store, p: String) {
    let mut watch = watch(store, &p, 0).await;
    for n in 0..20 {
        let written = put(store, &format!("{p}{n}"), "v").await;
        let other = put(store, &format!("/other{p}{n}"), "v").await;
        watch.request_progress();
        let mut delivered = 0;
        loop {
            let next =
                tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("progress in time");
            match next.unwrap().unwrap() {
                WatchMessage::Events { revision, .. } => delivered = revision,
                WatchMessage::Progress(revision) => {
                    assert!(
                        revision >= other && delivered == written,
                        "{revision} {other} {delivered} {written}"
                    );
                    break;
                }
            }
        }
    }
}

async fn too_large_a_request_is_refused(store: &dyn Store, p: String) {
    let before = store.revision().await.unwrap();
    let large = store.txn(Txn::of([Op::put(&p, vec![b'x'; MAX_REQUEST_BYTES + 1])])).await;
    assert!(matches!(large, Err(Error::TooLarge(_))), "{large:?}");
    assert_eq!(store.revision().await.unwrap(), before);
    store.txn(Txn::of([Op::put(&p, vec![b'x'; 1_000_000])])).await.unwrap();
    assert_eq!(get(store, &p).await.unwrap().value.len(), 1_000_000);
}

async fn deleting_nothing_makes_no_revision(store: &dyn Store, p: String) {
    let before = put(store, &format!("{p}a"), "v").await;
    let nothing = store.txn(Txn::of([Op::delete(format!("{p}b"))])).await.unwrap();
    assert_eq!((nothing.revision, nothing.results), (before, vec![OpResult::Deleted(0)]));
    put(store, &format!("{p}b"), "v").await;
    let range = Range::prefix(&p);
    let all = store.txn(Txn::of([Op::DeleteRange { start: range.start, end: range.end }])).await.unwrap();
    assert_eq!((all.revision, all.results), (before + 2, vec![OpResult::Deleted(2)]));
}

async fn concurrent_increments_are_all_counted(store: &dyn Store, p: String) {
    put(store, &p, "0").await;
    let increment = || async {
        for _ in 0..5 {
            loop {
                let kv = get(store, &p).await.unwrap();
                let value: u64 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                let txn = Txn::of([Op::put(&p, (value + 1).to_string())]);
                if store.txn(txn.when(Compare::mod_revision(&p, kv.mod_revision))).await.unwrap().succeeded {
                    break;
                }
            }
        }
    };
    futures::future::join_all((0..8).map(|_| increment())).await;
    assert_eq!(&get(store, &p).await.unwrap().value[..], b"40");
}

async fn a_slow_watcher_misses_nothing(store: &dyn Store, p: String) {
    let mut watch = watch(store, &p, 0).await;
    let key = format!("{p}k");
    let mut revisions = Vec::new();
    for n in 0..3000 {
        revisions.push(put(store, &key, &n.to_string()).await);
    }
    watch.request_progress();
    for expected in revisions {
        assert_eq!(events(&mut watch).await.0, expected);
    }
    let next = watch.next().await.unwrap().unwrap();
    assert_eq!(next, WatchMessage::Progress(store.revision().await.unwrap()));
}
