//! Overload protection with real tasks, on virtual time.

use super::plan::{bootstrap_levels, bootstrap_schemas};
use super::*;

const PATIENCE: Duration = Duration::from_secs(15);

fn flow(total: u32) -> Arc<Flow> {
    let flow = Flow::new(Clock::system(), total);
    flow.configure(&bootstrap_levels(), &bootstrap_schemas());
    Arc::new(flow)
}

fn asks(path: &str) -> RequestInfo {
    RequestInfo::new(&http::Method::GET, path, "")
}

async fn enter(flow: &Arc<Flow>, user: &UserInfo, path: &str) -> Result<Seat, TurnedAway> {
    let info = asks(path);
    let Sort(schema) = flow.sort(&info, user);
    if schema.exempt {
        return Ok(flow.seat(&schema, None, 1, flow.clock.instant(), Duration::ZERO));
    }
    flow.enter_with(&schema, schema.flow(&info, user), 1, PATIENCE).await
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_user_starves_neither_nodes_nor_leader_election_nor_other_users() {
    let flow = flow(60);
    let tasks = base::Tasks::new("test");
    let flooder = UserInfo::new("flooder", &[]);
    // None of them ever ends.
    let (seats, mut held) = tokio::sync::mpsc::channel(10_000);
    for _ in 0..10_000 {
        let (flow, flooder, seats) = (flow.clone(), flooder.clone(), seats.clone());
        tasks.spawn("flood", async move {
            let result = enter(&flow, &flooder, "/api/v1/pods").await;
            let _ = seats.send(result).await;
        });
    }
    tokio::task::yield_now().await;
    for (user, path) in [
        (UserInfo::node("n1"), "/api/v1/nodes/n1"),
        (UserInfo::node("n1"), "/api/v1/pods"),
        (UserInfo::new("system:kube-scheduler", &[]), "/apis/coordination.k8s.io/v1/namespaces/a/leases/x"),
        (UserInfo::new("system:kube-controller-manager", &[]), "/api/v1/pods"),
        (UserInfo::service_account("kube-system", "dns"), "/api/v1/services"),
        (UserInfo::new("admin", &["system:masters"]), "/api/v1/pods"),
    ] {
        let started = flow.clock.instant();
        drop(enter(&flow, &user, path).await.unwrap());
        assert_eq!(flow.clock.instant(), started, "{} waited", user.name);
    }
    // Another user of the same level has got nothing yet, so it is among the first who get a seat that comes free. Before
    // it may come who waits in another queue of the flooder's hand.
    let other = UserInfo::new("jane", &[]);
    let waiting = tokio::time::timeout(PATIENCE / 3, enter(&flow, &other, "/api/v1/pods"));
    let releasing = async {
        flow.clock.wait(Duration::from_secs(1)).await;
        let results = std::iter::from_fn(|| held.try_recv().ok());
        let mut seats: Vec<Seat> = results.filter_map(Result::ok).collect();
        seats.truncate(6);
        drop(seats);
    };
    let (waited, ()) = tokio::join!(waiting, releasing);
    drop(waited.unwrap().unwrap());
    tasks.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_when_to_come_again() {
    let flow = flow(4);
    let user = UserInfo::new("jane", &[]);
    let mut seats = Vec::new();
    let refused = loop {
        match tokio::time::timeout(PATIENCE * 2, enter(&flow, &user, "/api/v1/pods")).await.unwrap() {
            Ok(seat) => seats.push(seat),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, TurnedAway { seconds: 1 });
    // A place in the queue that nobody wants any more is free again, and so are the seats.
    let abandoned = tokio::time::timeout(PATIENCE / 5, enter(&flow, &user, "/api/v1/pods")).await;
    assert!(abandoned.is_err());
    drop(seats);
    let held = flow.held();
    assert!(held.seats.levels().all(|level| level.executing == 0 && level.waiting == 0));
    assert!(held.wakes.is_empty());
}
