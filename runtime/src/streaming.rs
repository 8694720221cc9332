//! Exec, attach and port-forward for people: an HTTP server on the loopback interface that takes one-time tokens. It
//! speaks WebSocket with the `channel.k8s.io` protocols, and for port-forward also SPDY.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::Random;
use cri::{AttachRequest, ExecRequest, PortForwardRequest};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::container::Container;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::sandbox::Sandbox;

pub(crate) mod channel;
mod forward;
mod http;
mod session;

/// How long a token waits for its use.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How many tokens may wait at once.
const TOKENS: usize = 1000;

/// How many ports one WebSocket can carry: each has two of 256 channels.
const PORTS: usize = 127;

/// What a token stands for.
pub(crate) enum Ticket {
    Exec(Arc<Container>, ExecRequest),
    Attach(Arc<Container>, AttachRequest),
    PortForward(Arc<Sandbox>, Vec<u16>),
}

/// The streaming server.
pub(crate) struct Streaming {
    address: SocketAddr,
    core: Arc<Core>,
    random: Random,
    tickets: Mutex<HashMap<String, (Instant, Ticket)>>,
}

impl Streaming {
    /// Listens on a port of the loopback interface.
    pub(crate) async fn start(core: Arc<Core>) -> Result<Arc<Self>, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.at("listen on", "127.0.0.1")?;
        let address = listener.local_addr().at("listen on", "127.0.0.1")?;
        let tasks = core.tasks.clone();
        let streaming = Arc::new(Self { address, core, random: Random::system(), tickets: Mutex::default() });
        tasks.spawn("streaming", http::serve(streaming.clone(), listener, tasks.clone()));
        Ok(streaming)
    }

    /// Where an exec can be had, once.
    pub(crate) fn exec(&self, container: Arc<Container>, request: ExecRequest) -> Result<String, Error> {
        check(request.tty, request.stdin, request.stdout, request.stderr)?;
        self.url("exec", Ticket::Exec(container, request))
    }

    /// Where an attach can be had, once.
    pub(crate) fn attach(&self, container: Arc<Container>, request: AttachRequest) -> Result<String, Error> {
        check(request.tty, request.stdin, request.stdout, request.stderr)?;
        self.url("attach", Ticket::Attach(container, request))
    }

    /// Where a port-forward can be had, once.
    pub(crate) fn port_forward(
        &self,
        sandbox: Arc<Sandbox>,
        request: &PortForwardRequest,
    ) -> Result<String, Error> {
        let port = |port: &i32| {
            let number = u16::try_from(*port).ok().filter(|port| *port > 0);
            number.ok_or_else(|| Error::Invalid(format!("{port} is not a port")))
        };
        let ports: Vec<u16> = request.port.iter().map(port).collect::<Result<_, _>>()?;
        if ports.len() > PORTS {
            return Err(Error::Invalid(format!("more than {PORTS} ports")));
        }
        self.url("portforward", Ticket::PortForward(sandbox, ports))
    }

    fn url(&self, kind: &str, ticket: Ticket) -> Result<String, Error> {
        let mut bytes = [0; 24];
        self.random.fill(&mut bytes);
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let now = Instant::now();
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (until, _)| *until > now);
        if tickets.len() >= TOKENS {
            return Err(Error::Failed("maximum number of in-flight requests exceeded".to_owned()));
        }
        tickets.insert(token.clone(), (now + TOKEN_LIFE, ticket));
        Ok(format!("http://{}/{kind}/{token}", self.address))
    }

    /// Takes what a path stands for; a second time there is nothing.
    fn redeem(&self, path: &str) -> Option<Ticket> {
        let mut words = path.strip_prefix('/')?.split('/');
        let (kind, token) = (words.next()?, words.next()?);
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let right = match (kind, &tickets.get(token)?.1) {
            ("exec", Ticket::Exec(..))
            | ("attach", Ticket::Attach(..))
            | ("portforward", Ticket::PortForward(..)) => words.next().is_none(),
            _ => false,
        };
        if !right {
            return None;
        }
        tickets.remove(token).filter(|(until, _)| *until > Instant::now()).map(|(_, ticket)| ticket)
    }
}

fn check(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(), Error> {
    match () {
        () if tty && stderr => Err(Error::Invalid("tty and stderr cannot both be true".to_owned())),
        () if !stdin && !stdout && !stderr => {
            Err(Error::Invalid("one of stdin, stdout, or stderr must be set".to_owned()))
        }
        () => Ok(()),
    }
}
