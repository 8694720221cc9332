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

/// An object of a namespace with labels `app` and, if there is one, `tier`.
fn labelled(key: &str, revision: Revision, labels: &str, node: &str) -> Arc<Entry> {
    let (namespace, name) = key.split_once('/').unwrap();
    let value = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{labels}}}}}"#
    );
    Arc::new(Entry::new(key, value.as_bytes(), revision, Box::new([node.into()])).unwrap())
}

#[test]
fn the_index_finds_what_a_scan_finds_after_any_change() {
    let fields = Fields { names: vec!["spec.nodeName"], read: Arc::new(|_| Box::default()) };
    let cache = Cache::new("/registry/pods/".to_owned(), fields, Arc::default());
    let selector = |labels: &str, node: Option<&str>, namespace: Option<&str>| Selector {
        namespace: namespace.map(str::to_owned),
        labels: api::selector::LabelSelector::parse(labels).unwrap(),
        fields: node
            .map(|node| FieldTerm { field: Field::Row(0), equals: true, value: node.to_owned() })
            .into_iter()
            .collect(),
        ..Selector::default()
    };
    let selectors = [
        selector("app=a", None, None),
        selector("app=a,tier=web", None, Some("one")),
        selector("app in (b)", Some("n1"), None),
        selector("app in (a, b)", Some("n1"), None),
        selector("app!=a", None, None),
        selector("app=a,app=b", None, None),
        selector("app=none", None, None),
        selector("", Some("n2"), Some("two")),
    ];
    let mut chance = 7_u64;
    let mut next = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let (mut used, now) = (0, Instant::now());
    for revision in 1..400 {
        let key = format!("{}/p{}", ["one", "two"][next(2) as usize], next(30));
        let labels =
            [r#"{"app":"a"}"#, r#"{"app":"a","tier":"web"}"#, r#"{"app":"b"}"#, "{}"][next(4) as usize];
        let entry = labelled(&key, revision, labels, ["", "n1", "n2"][next(3) as usize]);
        cache.apply(revision, vec![(key, (next(5) > 0).then_some(entry))], now);
        if revision == 200 {
            let all = cache.snapshot().scan(&Selector::default(), None).cloned().collect();
            cache.replace(all, revision);
        }
        for selector in &selectors {
            let (snapshot, found) = cache.present(selector);
            let scanned: Vec<&str> = snapshot.scan(selector, None).map(|entry| entry.key()).collect();
            used += usize::from(found.is_some());
            if let Some(found) = found {
                assert_eq!(
                    found.iter().map(|entry| entry.key()).collect::<Vec<_>>(),
                    scanned,
                    "{selector:?}"
                );
            }
        }
    }
    assert!(used > 400, "the index was used {used} times");
    let everything: Vec<String> =
        cache.list(&Selector::default()).iter().map(|entry| entry.key().to_owned()).collect();
    cache.apply(400, everything.into_iter().map(|key| (key, None)).collect(), now);
    assert!(cache.state().index.is_empty(), "nothing is kept of objects that are gone");
}
