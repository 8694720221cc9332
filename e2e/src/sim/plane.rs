//! A control plane: API server, scheduler and controllers, each of which may crash and start again.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pki;
use apiserver::{ApiServer, UserInfo};
use base::{Random, Tasks};
use client::{ElectionConfig, LeaderElection};
use scheduler::{Scheduler, SchedulerConfig, SharedClient};
use store::{Faults, Faulty};
use tokio::sync::{mpsc, watch};

use super::World;
use super::log::Role;
use super::network::{Gate, Link};
use super::record::Recorder;

const SCHEDULER: &str = "kube-scheduler";
const CONTROLLERS: &str = "kube-controller-manager";

/// A part that can crash.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Api,
    Scheduler,
    Controllers,
}

/// One control plane.
pub(crate) struct Plane {
    number: u64,
    store: Arc<Faulty>,
    parts: [Supervisor; 3],
    pub(crate) gates: [Gate; 2],
    ready: watch::Receiver<bool>,
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a part again whenever it ended or crashed.
struct Supervisor(mpsc::Sender<Duration>);

impl Supervisor {
    fn start(world: &World, name: &str, start: impl Fn(Tasks) -> Running + Send + 'static) -> Self {
        let (crash, mut crashes) = mpsc::channel::<Duration>(4);
        let (clock, title) = (world.clock.clone(), name.to_owned());
        world.tasks.spawn(name, async move {
            loop {
                let tasks = Tasks::new(title.clone());
                let down = tokio::select! {
                    biased;
                    Some(down) = crashes.recv() => down,
                    () = start(tasks.clone()) => Duration::from_secs(1),
                };
                tasks.token().cancel();
                drop(tasks);
                clock.wait(down).await;
            }
        });
        Self(crash)
    }

    fn crash(&self, down: Duration) {
        // Full only if it was told to crash several times at the same instant.
        let _ = self.0.try_send(down);
    }
}

/// Marks the server as dead when it is dropped at whatever await it was at.
struct Mortal {
    world: World,
    number: u64,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.world.network.down(self.number);
    }
}

impl Plane {
    pub(crate) fn start(world: &World, number: u64, store: Arc<Recorder>, pki: &Arc<Pki>) -> Self {
        let chance = |part: &str| world.random(&format!("{part} {number}"));
        let store = Arc::new(Faulty::new(store, world.clock.clone(), chance("store"), Faults::default()));
        let (tell, ready) = watch::channel(false);
        let api = api(world, number, (store.clone(), pki.clone()), chance("api server"), tell);
        let gates = [Gate::new(), Gate::new()];
        let link = move |world: &World, gate: &Gate, election, user| Link {
            network: world.network.clone(),
            gate: gate.clone(),
            role: Role::Elected { election, instance: format!("plane-{number}") },
            user,
            server: Some(number),
        };
        let parts = [
            Supervisor::start(world, &format!("api server {number}"), api),
            Supervisor::start(world, &format!("scheduler {number}"), {
                let (world, random, gate) = (world.clone(), chance("scheduler"), gates[0].clone());
                move |tasks| {
                    let user = UserInfo::new("system:kube-scheduler", &[]);
                    let client = link(&world, &gate, SCHEDULER, user).client();
                    let config = SchedulerConfig {
                        client: SharedClient(client.clone()),
                        clock: world.clock.clone(),
                        random: random.clone(),
                    };
                    elected(&world, number, SCHEDULER, client, random.clone(), tasks, move |tasks| {
                        Scheduler::start(&tasks, config.clone());
                    })
                }
            }),
            Supervisor::start(world, &format!("controllers {number}"), {
                let (world, random, gate) = (world.clone(), chance("controllers"), gates[1].clone());
                move |tasks| {
                    let user = UserInfo::new("system:kube-controller-manager", &[]);
                    let client = link(&world, &gate, CONTROLLERS, user).client();
                    let (of, at) = (world.clone(), gate.clone());
                    let config = controller::Config {
                        caches: client.clone(),
                        client_as: Arc::new(move |account| {
                            let user = UserInfo::service_account("kube-system", account);
                            link(&of, &at, CONTROLLERS, user).client()
                        }),
                        clock: world.clock.clone(),
                        random: random.clone(),
                        root_ca: "PEM".to_owned(),
                        queues: controller::Queues::default(),
                        cluster_cidr: "10.244.0.0/16".to_owned(),
                    };
                    elected(&world, number, CONTROLLERS, client, random.clone(), tasks, move |tasks| {
                        controller::start(&tasks, config.clone());
                    })
                }
            }),
        ];
        Self { number, store, parts, gates, ready }
    }

    /// Returns once the API server has answered for the first time.
    pub(crate) async fn up(&self) {
        let mut ready = self.ready.clone();
        let _ = ready.wait_for(|ready| *ready).await;
    }

    pub(crate) fn crash(&self, part: Part, down: Duration) {
        self.parts[part as usize].crash(down);
    }

    /// How the store treats this plane's API server from now on.
    pub(crate) fn set_store(&self, faults: Faults) {
        self.store.set(faults);
    }

    /// This plane's way to the store.
    pub(crate) fn store(&self) -> Arc<Faulty> {
        self.store.clone()
    }

    /// Faults injected into the store.
    pub(crate) fn faults(&self) -> u64 {
        self.store.injected()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

fn api(
    world: &World,
    number: u64,
    (store, pki): (Arc<Faulty>, Arc<Pki>),
    random: Random,
    ready: watch::Sender<bool>,
) -> impl Fn(Tasks) -> Running + Send + 'static {
    let world = world.clone();
    let ready = Arc::new(ready);
    move |tasks| {
        let (world, ready) = (world.clone(), ready.clone());
        let (store, pki, random) = (store.clone(), pki.clone(), random.clone());
        Box::pin(async move {
            let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(number).unwrap_or(0) + 1));
            let config = apiserver::Config::new(world.clock.clone(), random, tasks.clone(), pki, address);
            let _mortal = Mortal { world: world.clone(), number };
            match ApiServer::start(store, config).await {
                Ok(server) => {
                    world.network.up(number, server, tasks.token());
                    ready.send_replace(true);
                    std::future::pending().await
                }
                Err(error) => tracing::info!(number, %error, "the API server does not start"),
            }
        })
    }
}

fn elected(
    world: &World,
    number: u64,
    name: &'static str,
    client: client::Client,
    random: Random,
    tasks: Tasks,
    lead: impl Fn(Tasks) + Send + Sync + 'static,
) -> Running {
    let config = ElectionConfig::component(name, format!("plane-{number}"));
    let election = LeaderElection::new(client, world.clock.clone(), random, config);
    Box::pin(async move { election.run(&tasks, lead).await })
}
