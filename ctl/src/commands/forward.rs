//! `skiff port-forward`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use futures::StreamExt;
use futures::stream::{FuturesUnordered, select_all, unfold};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use spdy::{Connection, Headers, Role, StreamError};
use tokio::net::{TcpListener, TcpStream};

use super::pods::{pods_of, subject};
use super::print;
use crate::Failure;
use crate::failure::Because;
use crate::resources::{Call, Session, items, name, namespace, text};

/// What SPDY's streams are for.
const PROTOCOL: &str = "portforward.k8s.io";
/// What is read of an error.
const MOST_ERROR: usize = 16 * 1024;

#[derive(Args, Debug)]
pub(crate) struct PortForward {
    /// POD or TYPE/NAME
    #[arg(value_name = "TYPE/NAME")]
    target: Option<String>,
    /// Ports: here and in the pod; 0 or nothing before the colon takes a free one
    #[arg(value_name = "[LOCAL_PORT:]REMOTE_PORT")]
    ports: Vec<String>,
    /// Addresses to listen on (comma separated): IP addresses, or localhost
    #[arg(long, value_delimiter = ',', default_value = "localhost", value_name = "ADDRESSES")]
    address: Vec<String>,
}

/// A port here, and the one in the pod that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    local: u16,
    remote: u16,
}

impl PortForward {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (Some(target), false) = (&self.target, self.ports.is_empty()) else {
            return Err(Failure::new(
                "error: TYPE/NAME and list of ports are required for port-forward\nSee 'skiff port-forward --help' for help and examples",
            ));
        };
        let (mapping, object) = subject(session, target).await?;
        let pods = pods_of(session, &mapping, &object).await?;
        let pod = pods.into_iter().next().ok_or_else(|| {
            let named = mapping.named(name(&object));
            Failure::new(format!("error: timed out waiting for the condition: no pods for {named}"))
        })?;
        let service = (mapping.kind == "Service").then_some(&object);
        let pairs: Result<Vec<Pair>, String> =
            self.ports.iter().map(|ports| pair(ports, &pod, service)).collect();
        let pairs = pairs.map_err(|why| Failure::new(format!("error: {why}")))?;
        let phase = text(&pod, "status.phase");
        if phase != "Running" {
            return Err(Failure::new(format!(
                "error: unable to forward port because pod is not running. Current status={phase}"
            )));
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}/portforward", namespace(&pod), name(&pod));
        let io =
            session.upgrade(Call::post(path, &Value::Null).accept("*/*"), spdy::PROTOCOL, PROTOCOL).await?;
        let listeners = listen(&self.address, &pairs).await?;
        forward(io, listeners).await
    }
}

/// Reads `LOCAL:REMOTE`, `:REMOTE` or `PORT`, with the names and numbers that the pod and the service give.
fn pair(ports: &str, pod: &Value, service: Option<&Value>) -> Result<Pair, String> {
    let parts: Vec<&str> = ports.split(':').collect();
    let (local, remote) = match parts.as_slice() {
        [port] => (None, *port),
        [local, remote] => (Some(if local.is_empty() { "0" } else { *local }), *remote),
        _ => return Err(format!("invalid port format '{ports}'")),
    };
    let (asked, remote) = match service {
        Some(service) => of_service(service, pod, remote)?,
        None => {
            let port = of_pod(pod, remote)?;
            (port, port)
        }
    };
    if remote == 0 {
        return Err("remote port must be > 0".to_owned());
    }
    let local = match local {
        Some(local) => {
            local.parse().map_err(|_| format!("error parsing local port '{local}': it is no port"))
        }
        None => Ok(asked),
    };
    Ok(Pair { local: local?, remote })
}

/// The number of a pod's port, which may have a name.
fn of_pod(pod: &Value, port: &str) -> Result<u16, String> {
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        return port.parse().map_err(|_| format!("error parsing remote port '{port}': it is no port"));
    }
    let containers = items(pod, "spec.containers").iter().chain(items(pod, "spec.initContainers"));
    let mut ports = containers.flat_map(|container| items(container, "ports"));
    let named =
        ports.find(|known| text(known, "name") == port).and_then(|known| number(&known["containerPort"]));
    named.ok_or_else(|| format!("Pod '{}' does not have a named port '{port}'", name(pod)))
}

/// The number of a service's port, and that of the pod's port behind it.
fn of_service(service: &Value, pod: &Value, port: &str) -> Result<(u16, u16), String> {
    let ports = items(service, "spec.ports");
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let known = ports.iter().find(|known| match is_number {
        true => port.parse().is_ok_and(|port: u16| known["port"] == port),
        false => text(known, "name") == port,
    });
    let (Some(known), Some(own)) = (known, known.and_then(|known| number(&known["port"]))) else {
        return Err(match is_number {
            true => format!("Service {} does not have a service port {port}", name(service)),
            false => format!("Service '{}' does not have a named port '{port}'", name(service)),
        });
    };
    if text(service, "spec.clusterIP") == "None" {
        return Ok((own, own));
    }
    let target = match &known["targetPort"] {
        Value::String(named) => of_pod(pod, named)?,
        target => number(target).filter(|port| *port > 0).unwrap_or(own),
    };
    Ok((own, target))
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

/// Opens the ports, and says so. Of `localhost` one of its two addresses is enough.
async fn listen(addresses: &[String], pairs: &[Pair]) -> Result<Vec<(Pair, TcpListener)>, Failure> {
    let mut listeners = Vec::new();
    for pair in pairs {
        let mut failures = Vec::new();
        let before = listeners.len();
        // A free port is the same on all addresses.
        let mut local = pair.local;
        for address in addresses {
            let ips: Vec<IpAddr> = match address.as_str() {
                "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                address => vec![address.parse().because(format!("error: {address} is not a valid IP"))?],
            };
            for ip in ips {
                let protocol = if ip.is_ipv6() { "tcp6" } else { "tcp4" };
                match TcpListener::bind((ip, local)).await {
                    Ok(listener) => {
                        local = listener.local_addr().because("error")?.port();
                        let address = SocketAddr::new(ip, local);
                        print(format!("Forwarding from {address} -> {}\n", pair.remote))?;
                        listeners.push((Pair { local, ..*pair }, listener));
                    }
                    Err(error) => failures.push(format!(
                        "unable to create listener: Error listen {protocol} {}: {error}",
                        SocketAddr::new(ip, local)
                    )),
                }
            }
        }
        if listeners.len() == before {
            let all = failures.join(" ");
            eprintln!(
                "Unable to listen on port {}: Listeners failed to create with the following errors: [{all}]",
                pair.local
            );
        }
    }
    if listeners.is_empty() {
        let all: Vec<String> =
            pairs.iter().map(|pair| format!("{{{} {}}}", pair.local, pair.remote)).collect();
        let all = all.join(" ");
        return Err(Failure::new(format!("error: unable to listen on any of the requested ports: [{all}]")));
    }
    Ok(listeners)
}

/// Forwards what connects, until the connection to the pod ends.
async fn forward(io: hyper::upgrade::Upgraded, listeners: Vec<(Pair, TcpListener)>) -> Result<(), Failure> {
    let connection = Connection::new(Role::Client);
    let accepting = listeners.into_iter().map(|(pair, listener)| {
        Box::pin(unfold(listener, move |listener| async move {
            let accepted = listener.accept().await;
            Some(((pair, accepted.map(|(stream, _)| stream)), listener))
        }))
    });
    let mut accepted = select_all(accepting);
    let mut running = FuturesUnordered::new();
    let mut carrying = std::pin::pin!(connection.run(TokioIo::new(io)));
    let mut requests = 0;
    loop {
        tokio::select! {
            _ = &mut carrying => return Err(Failure::new("error: lost connection to pod")),
            Some((pair, accepted)) = accepted.next() => match accepted {
                Ok(local) => {
                    print(format!("Handling connection for {}\n", pair.local))?;
                    requests += 1;
                    running.push(one(&connection, local, pair, requests));
                }
                Err(error) => return Err(Failure::new(format!("error: accept a connection: {error}"))),
            },
            Some(()) = running.next() => {}
        }
    }
}

/// Forwards one connection.
async fn one(connection: &Connection, local: TcpStream, pair: Pair, request: u64) {
    let forwarding = async {
        let headers =
            Headers::new().with("port", pair.remote.to_string()).with("requestID", request.to_string());
        let error = connection.open(headers.clone().with("streamType", "error"))?;
        error.replied().await?;
        // Nothing is ever written to it.
        error.finish();
        let data = connection.open(headers.with("streamType", "data"))?;
        data.replied().await?;
        // Keystrokes must not wait for company; a socket that can't have that still carries them.
        let _ = local.set_nodelay(true);
        let (reader, writer) = local.into_split();
        let (_, message) = tokio::join!(data.join(reader, writer, || {}), error.read_all(MOST_ERROR));
        Ok::<_, StreamError>(String::from_utf8_lossy(&message?).into_owned())
    };
    let message = match forwarding.await {
        Ok(message) => message,
        // Is told by whoever sees the end of it.
        Err(StreamError::Ended) => return,
        Err(error) => error.to_string(),
    };
    if !message.is_empty() {
        eprintln!("an error occurred forwarding {} -> {}: {message}", pair.local, pair.remote);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.5", "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "plain", "port": 81, "targetPort": 9000},
            {"name": "odd", "port": 82, "targetPort": "nothing"}]}});
        let mut headless = service.clone();
        headless["spec"]["clusterIP"] = "None".into();
        for (ports, service, expected) in [
            ("80", None, Ok((80, 80))),
            ("8000:80", None, Ok((8000, 80))),
            (":80", None, Ok((0, 80))),
            ("http", None, Ok((8080, 8080))),
            ("1:http", None, Ok((1, 8080))),
            ("80", Some(&service), Ok((80, 8080))),
            ("web", Some(&service), Ok((80, 8080))),
            ("5:81", Some(&service), Ok((5, 9000))),
            ("80", Some(&headless), Ok((80, 80))),
            ("0", None, Err("remote port must be > 0")),
            ("1:2:3", None, Err("invalid port format '1:2:3'")),
            ("x:80", None, Err("error parsing local port 'x': it is no port")),
            ("70000", None, Err("error parsing remote port '70000': it is no port")),
            ("ftp", None, Err("Pod 'p' does not have a named port 'ftp'")),
            ("90", Some(&service), Err("Service s does not have a service port 90")),
            ("ftp", Some(&service), Err("Service 's' does not have a named port 'ftp'")),
            ("odd", Some(&service), Err("Pod 'p' does not have a named port 'nothing'")),
        ] {
            let read = pair(ports, &pod, service).map(|pair| (pair.local, pair.remote));
            assert_eq!(read, expected.map_err(str::to_owned), "{ports}");
        }
    }
}
