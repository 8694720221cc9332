//! The demo application as a client: one GET, with names resolved as `/etc/resolv.conf` says.
//!
//! The binary is static, so the C library's resolver, which loads its parts at run time, is not there in a container
//! that holds nothing else.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};

use crate::Failure;
use crate::failure::Because;

const PATIENCE: Duration = Duration::from_secs(5);

/// What a URL answers.
pub(super) async fn ask(url: &Uri) -> Result<String, Failure> {
    let host = url.host().ok_or_else(|| Failure::usage(format!("{url}: no host; use http://HOST/")))?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => resolve(host).await?,
    };
    let address = SocketAddr::new(address, url.port_u16().unwrap_or(80));
    let exchange = async {
        let stream = TcpStream::connect(address).await.because(address)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.because(address)?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = http::Request::get(path).header(http::header::HOST, host);
        let request = request.body(Empty::<Bytes>::new()).because(url)?;
        let answer = async {
            let answer = sender.send_request(request).await.because(address)?;
            let status = answer.status();
            let body = answer.into_body().collect().await.because(address)?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            if status.is_success() { Ok(text) } else { Err(Failure::new(format!("{status}: {text}"))) }
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => {
                ended.because(address)?;
                Err(Failure::new(format!("{address}: the connection was closed")))
            }
        }
    };
    within(url, exchange).await
}

async fn within<T>(what: &Uri, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(format!("{what}: no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// The first IPv4 address of a name: as it is if it ends with a dot, else below each search domain and then as it is.
async fn resolve(host: &str) -> Result<IpAddr, Failure> {
    const FILE: &str = "/etc/resolv.conf";
    let text = fs::read_to_string(FILE).because(FILE)?;
    let words = |key: &str| {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key)).collect::<Vec<_>>();
        lines.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
    };
    let server: IpAddr = words("nameserver ")
        .iter()
        .find_map(|server| server.parse().ok())
        .ok_or_else(|| Failure::new(format!("{FILE}: no name server")))?;
    let mut names = Vec::new();
    if !host.ends_with('.') {
        names.extend(words("search ").iter().map(|domain| format!("{host}.{domain}.")));
    }
    names.push(format!("{}.", host.trim_end_matches('.')));
    for name in &names {
        if let Some(address) = look_up(server, name).await? {
            return Ok(address);
        }
    }
    Err(Failure::new(format!("{host}: no such name (asked {server} for {})", names.join(", "))))
}

async fn look_up(server: IpAddr, name: &str) -> Result<Option<IpAddr>, Failure> {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).because(name)?, RecordType::A));
    let id = question.metadata.id;
    let bytes = question.to_vec().because(name)?;
    let socket = UdpSocket::bind("0.0.0.0:0").await.because("socket")?;
    socket.connect((server, 53)).await.because(server)?;
    socket.send(&bytes).await.because(server)?;
    let mut buffer = [0; 4096];
    let answer = loop {
        let read = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer))
            .await
            .because(format!("name server {server}"))?
            .because(server)?;
        match Message::from_vec(&buffer[..read]) {
            Ok(message) if message.metadata.id == id => break message,
            // Not an answer to this question.
            _ => {}
        }
    };
    Ok(answer.answers.iter().find_map(|record| match record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    }))
}
