//! API server, scheduler and controllers in this process.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::bootstrap_token;
use apiserver::pki::Pki;
use apiserver::pki::join_token::JoinToken;
use apiserver::{ApiServer, UserInfo};
use base::metrics::Source;
use base::{Clock, Random, Tasks};
use clap::{Args, ValueEnum};
use client::{Client, ElectionConfig, LeaderElection};
use scheduler::{Scheduler, SchedulerConfig, SharedClient};
use store::{Embedded, Etcd, EtcdConfig, Store};
use tokio::net::TcpListener;

use super::facts;
use super::node::Cluster;
use crate::Failure;
use crate::failure::Because;
use crate::kubeconfig::{self, Access};

/// How long a revision of etcd's history is kept.
const HISTORY: Duration = Duration::from_secs(300);
const DRAIN: Duration = Duration::from_secs(10);

/// Where desired state is kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// Where the cluster's state is kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded, env = "SKIFF_STORE")]
    store: StoreKind,
    /// Endpoints of etcd, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "URL", env = "SKIFF_ETCD_ENDPOINTS")]
    etcd_endpoints: Vec<String>,
    /// PEM file of the authority that signed etcd's certificates.
    #[arg(long, value_name = "FILE", env = "SKIFF_ETCD_CAFILE")]
    etcd_cafile: Option<PathBuf>,
    /// PEM file of the client certificate for etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile", env = "SKIFF_ETCD_CERTFILE")]
    etcd_certfile: Option<PathBuf>,
    /// PEM file of the key of --etcd-certfile.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile", env = "SKIFF_ETCD_KEYFILE")]
    etcd_keyfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// SQLite in the data directory.
    Embedded,
    /// etcd 3.4 or newer.
    Etcd,
}

/// What a control plane is started with.
pub(crate) struct ControlPlaneConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) store: StoreArgs,
    /// Where clients of this machine connect.
    pub(crate) bind: SocketAddr,
    /// Where nodes and pods connect; served on the port of `bind`.
    pub(crate) address: IpAddr,
    /// Further names for the server's certificate.
    pub(crate) names: Vec<String>,
    /// The port of the node agents' own API.
    pub(crate) node_agent_port: u16,
    /// Admission plugins that are asked though they are off by default.
    pub(crate) enabled_admission: Vec<String>,
    /// Admission plugins that are left out.
    pub(crate) disabled_admission: Vec<String>,
    /// What is recorded of requests, and where.
    pub(crate) audit: Option<apiserver::audit::Settings>,
    /// How long the API is served after it began to say that it ends.
    pub(crate) shutdown_delay: Duration,
}

/// A running control plane.
pub(crate) struct ControlPlane {
    api: ApiServer,
    pki: Arc<Pki>,
    clock: Clock,
    elections: Vec<(Client, ElectionConfig)>,
    /// What the controllers' queues have counted, whoever leads.
    queues: controller::Queues,
    tasks: Tasks,
    bind: SocketAddr,
    cluster: Cluster,
    /// Closed last: whatever else ends may still have something to write.
    _store: Arc<dyn Store>,
}

impl StoreArgs {
    /// Says what doesn't fit, before anything is started.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match (self.store, self.etcd_endpoints.is_empty()) {
            (StoreKind::Etcd, true) => {
                Err(Failure::usage("--store etcd needs --etcd-endpoints, for example http://127.0.0.1:2379"))
            }
            (StoreKind::Embedded, false) => Err(Failure::usage("--etcd-endpoints needs --store etcd")),
            _ => Ok(()),
        }
    }

    async fn open(&self, dir: &Path, clock: &Clock, tasks: &Tasks) -> Result<Arc<dyn Store>, Failure> {
        if self.store == StoreKind::Embedded {
            let store = Embedded::open(&dir.join("store"), clock.clone(), tasks.clone());
            return Ok(Arc::new(store.because("store")?));
        }
        let mut config = EtcdConfig::new(self.etcd_endpoints.iter().cloned());
        config.ca.clone_from(&self.etcd_cafile);
        config.cert.clone_from(&self.etcd_certfile);
        config.key.clone_from(&self.etcd_keyfile);
        let store = Etcd::connect(config, tasks.clone()).await.because("store")?;
        let store: Arc<dyn Store> = Arc::new(store);
        tasks.spawn("compaction", compact(store.clone(), clock.clone()));
        Ok(store)
    }
}

/// Forgets old history of etcd, which does not do so itself. Several API servers may do it at the same time.
async fn compact(store: Arc<dyn Store>, clock: Clock) {
    let mut old = None;
    loop {
        match store.revision().await {
            Ok(revision) => {
                if let Some(old) = old.replace(revision) {
                    match store.compact(old).await {
                        Ok(()) | Err(store::Error::Compacted { .. }) => {}
                        Err(error) => {
                            tracing::warn!(%error, revision = old, "etcd's history is not compacted")
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "etcd's history is not compacted"),
        }
        clock.wait(HISTORY).await;
    }
}

impl ControlPlane {
    /// API server, scheduler and controllers.
    pub(crate) async fn start(
        config: ControlPlaneConfig,
        tasks: &Tasks,
        clock: &Clock,
        random: &Random,
    ) -> Result<Self, Failure> {
        let data_dir = config.data_dir.clone();
        let mut this = Self::start_api(config, tasks, clock, random).await?;
        this.elect(&data_dir, random)?;
        Ok(this)
    }

    /// The API server alone.
    pub(crate) async fn start_api(
        config: ControlPlaneConfig,
        tasks: &Tasks,
        clock: &Clock,
        random: &Random,
    ) -> Result<Self, Failure> {
        let tasks = tasks.child("control plane");
        let listeners = listen(config.bind, config.address).await?;
        let bind = listeners[0].local_addr().because("listener")?;
        let pki = Pki::open(&config.data_dir.join("pki"), clock.clone(), random.clone());
        let pki = Arc::new(pki.because("certificates")?);
        let store = config.store.open(&config.data_dir, clock, &tasks).await?;
        let mut settings =
            apiserver::Config::new(clock.clone(), random.clone(), tasks.clone(), pki.clone(), config.address);
        settings.advertise_port = bind.port();
        settings.node_agent_port = config.node_agent_port;
        settings.enabled_admission = config.enabled_admission;
        settings.disabled_admission = config.disabled_admission;
        settings.audit = config.audit;
        let queues = controller::Queues::default();
        let counted = queues.clone();
        settings.more_metrics.push(Source::new(move |text| counted.write(text)));
        settings.shutdown_delay = config.shutdown_delay;
        settings.server_names.push(config.bind.ip().to_string());
        settings.server_names.extend(config.names);
        let dns = apiserver::bootstrap::dns_address(&settings.service_cidr).ok_or_else(|| {
            Failure::usage(format!("the service network {} is too small", settings.service_cidr))
        })?;
        let cluster = Cluster {
            cluster_cidr: settings.cluster_cidr.clone(),
            service_cidr: settings.service_cidr.clone(),
            dns: dns.to_string(),
            domain: settings.cluster_domain.clone(),
        };
        let api = ApiServer::start(store.clone(), settings).await.because("API server")?;
        for listener in listeners {
            let api = api.clone();
            tasks.spawn_draining("API listener", async move {
                if let Err(error) = api.serve(listener).await {
                    tracing::error!(%error, "the API is no longer served");
                }
            });
        }
        Ok(Self {
            api,
            pki,
            clock: clock.clone(),
            queues,
            elections: Vec::new(),
            tasks,
            bind,
            cluster,
            _store: store,
        })
    }

    /// Scheduler and controllers act while they hold their leases.
    fn elect(&mut self, data_dir: &Path, random: &Random) -> Result<(), Failure> {
        // The lock of the data directory makes this unique among living processes, and after a crash the next
        // process need not wait until the lease of the last one expires.
        let identity = format!("{}_{}", facts::host_name()?, facts::id(data_dir));

        let client = self.client(UserInfo::new("system:kube-scheduler", &[]));
        let config = SchedulerConfig {
            client: SharedClient(client.clone()),
            clock: self.clock.clone(),
            random: random.clone(),
        };
        self.run_elected(
            ElectionConfig::component("kube-scheduler", &identity),
            client,
            random,
            move |tasks| {
                Scheduler::start(&tasks, config.clone());
            },
        );

        let client = self.client(UserInfo::new("system:kube-controller-manager", &[]));
        let api = self.api.clone();
        let config = controller::Config {
            caches: client.clone(),
            client_as: Arc::new(move |account| {
                client::in_process(api.in_process(UserInfo::service_account("kube-system", account)))
            }),
            clock: self.clock.clone(),
            random: random.clone(),
            root_ca: self.pki.authority_pem().to_owned(),
            queues: self.queues.clone(),
            cluster_cidr: self.cluster.cluster_cidr.clone(),
        };
        let election = ElectionConfig::component("kube-controller-manager", &identity);
        self.run_elected(election, client, random, move |tasks| controller::start(&tasks, config.clone()));
        Ok(())
    }

    fn run_elected(
        &mut self,
        config: ElectionConfig,
        client: Client,
        random: &Random,
        lead: impl Fn(Tasks) + Send + Sync + 'static,
    ) {
        let election =
            LeaderElection::new(client.clone(), self.clock.clone(), random.clone(), config.clone());
        let name = config.name.clone();
        self.elections.push((client, config));
        let tasks = self.tasks.clone();
        self.tasks.spawn(&name, async move { election.run(&tasks, lead).await });
    }

    /// A client of this API server under an identity of its own.
    pub(crate) fn client(&self, user: UserInfo) -> Client {
        client::in_process(self.api.in_process(user))
    }

    pub(crate) fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// What nodes are told.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where clients of this machine connect.
    pub(crate) fn url(&self) -> String {
        let ip = match self.bind.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        format!("https://{}", SocketAddr::new(ip, self.bind.port()))
    }

    /// The port the API is served on.
    pub(crate) fn port(&self) -> u16 {
        self.bind.port()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> Result<serde_json::Value, Failure> {
        let admin = self.pki.admin().because("administrator's certificate")?;
        Ok(kubeconfig::single(&Access {
            server: self.url(),
            authority_pem: self.pki.authority_pem(),
            certificate_pem: &admin.certificate_pem,
            key_pem: admin.key_pem(),
        }))
    }

    /// A token with which machines can join until `lifetime` is over.
    pub(crate) async fn join_token(
        &self,
        lifetime: Duration,
        description: &str,
        random: &Random,
    ) -> Result<JoinToken, Failure> {
        let token = JoinToken::generate(self.pki.fingerprint(), random);
        let secret = bootstrap_token::secret(&token, Some(self.clock.now() + lifetime), description);
        let path = "/api/v1/namespaces/kube-system/secrets";
        self.api.call(&UserInfo::api_server(), "POST", path, Some(&secret)).await.because("join token")?;
        Ok(token)
    }

    /// Gives up the leadership, lets running requests come to their end, and closes the store.
    pub(crate) async fn shutdown(self) {
        for (client, config) in &self.elections {
            if let Err(error) = LeaderElection::release(client.clone(), &self.clock, config).await {
                tracing::debug!(%error, election = %config.name, "the lease stays until it expires");
            }
        }
        for ended in [self.api.shutdown().await, self.tasks.shutdown(DRAIN).await] {
            if let Err(still_running) = ended {
                tracing::warn!(%still_running, "a task of the control plane does not end");
            }
        }
    }
}

/// Says why a port can't be listened on, and by which flag another is taken.
pub(crate) fn no_listener(who: &str, address: SocketAddr, error: &io::Error, flag: &str) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "; another process listens on port {}: end it, or take another with {flag}",
                address.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address".to_owned(),
        _ => String::new(),
    };
    Failure::new(format!("{who} at {address}: {error}{advice}"))
}

/// Listens where the user said, and where nodes and pods come from, on the same port.
async fn listen(bind: SocketAddr, address: IpAddr) -> Result<Vec<TcpListener>, Failure> {
    let at = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|error| no_listener("API server", address, &error, "--bind"))
    };
    let first = at(bind).await?;
    let port = first.local_addr().because("listener")?.port();
    let mut listeners = vec![first];
    if !bind.ip().is_unspecified() && bind.ip() != address {
        listeners.push(at(SocketAddr::new(address, port)).await?);
    }
    Ok(listeners)
}
