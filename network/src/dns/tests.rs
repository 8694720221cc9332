//! The whole server over real sockets, with services from an API and an upstream server of its own.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use base::Tasks;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;
use crate::testing::{self, FakeApi};

const TIMEOUT: Duration = Duration::from_secs(5);

struct Lab {
    api: FakeApi,
    dns: Dns,
    /// Removed with its resolv.conf at the end.
    _state: tempfile::TempDir,
    _tasks: Tasks,
}

/// A server whose upstream servers are a dead one and one that knows every name as 1.2.3.4.
async fn lab() -> Lab {
    let api = FakeApi::new();
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]})),
        ("db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        ("away", json!({"type": "ExternalName", "externalName": "example.com"})),
    ] {
        api.append(
            "/api/v1/services",
            "ADDED",
            json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": spec}),
        );
    }
    endpoints(&api, "ADDED", 3);
    let tasks = Tasks::new("test");
    let state = tempfile::tempdir().unwrap();
    let mut config = testing::config(&api, &tasks, "a", Ipv4Addr::LOCALHOST, state.path().to_owned());
    config.resolv_conf = state.path().join("resolv.conf");
    let mut resolv_conf = std::fs::File::create(&config.resolv_conf).unwrap();
    writeln!(resolv_conf, "nameserver 127.0.0.9\nnameserver 127.0.0.1").unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tasks.spawn("upstream", async move {
        let mut buffer = [0; 1024];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let mut answer = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let name = answer.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(1, 2, 3, 4))));
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    let upstream =
        Upstream::new(config.resolv_conf.clone(), Vec::new(), config.clock.clone(), config.random.clone());
    let caches = ServiceCaches::start(&config);
    let dns =
        Dns::serve(&config, caches, "127.0.0.1:0".parse().unwrap(), upstream.at_port(port)).await.unwrap();
    let lab = Lab { api, dns, _state: state, _tasks: tasks };
    lab.until("web.shop.svc.cluster.local", |answer| answer.metadata.response_code == ResponseCode::NoError)
        .await;
    lab
}

/// The endpoints of `db`.
fn endpoints(api: &FakeApi, event: &'static str, count: u8) {
    let endpoint = |n: u8| json!({"addresses": [format!("10.244.0.{n}")], "hostname": format!("db-{n}")});
    api.append("/apis/discovery.k8s.io/v1/endpointslices", event, json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "db-x", "namespace": "shop", "uid": "x", "labels": {"kubernetes.io/service-name": "db"}},
        "ports": [{"name": "sql", "port": 5432}], "endpoints": (1..=count).map(endpoint).collect::<Vec<_>>(),
    }));
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut name = Name::from_str(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message
}

async fn ask(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(TIMEOUT, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    answer
}

async fn ask_stream(server: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = question.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn show(answer: &Message) -> Vec<String> {
    let mut records: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    records.sort();
    records
}

impl Lab {
    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        ask(self.dns.address(), &question(name, kind)).await
    }

    /// Asks until the answer is as wanted: the index follows the API.
    async fn until(&self, name: &str, wanted: impl Fn(&Message) -> bool) {
        let asking = async { while !wanted(&self.ask(name, RecordType::A).await) {} };
        timeout(TIMEOUT, asking).await.expect("the index follows");
    }
}

#[tokio::test]
async fn services_are_answered_over_datagrams_and_streams() {
    let lab = lab().await;
    let question = question("Web.Shop.svc.cluster.local", RecordType::A);
    for answer in [ask(lab.dns.address(), &question).await, ask_stream(lab.dns.address(), &question).await] {
        assert_eq!(show(&answer), ["10.96.0.7"]);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(answer.queries, question.queries);
    }
    let answer = lab.ask("_sql._tcp.db.shop.svc.cluster.local", RecordType::SRV).await;
    assert_eq!(show(&answer)[0], "0 33 5432 db-1.db.shop.svc.cluster.local.");
    assert_eq!((answer.answers.len(), answer.additionals.len()), (3, 3));
    let answer = lab.ask("1.0.244.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(show(&answer), ["db-1.db.shop.svc.cluster.local."]);
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart_from_what_has_no_such_record() {
    let lab = lab().await;
    let cases = [
        ("web.shop.svc.cluster.local", RecordType::AAAA, ResponseCode::NoError),
        ("nobody.shop.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
        ("example.com.shop.svc.cluster.local", RecordType::A, ResponseCode::NXDomain),
    ];
    for (name, kind, code) in cases {
        let answer = lab.ask(name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test]
async fn answers_follow_the_api() {
    let lab = lab().await;
    endpoints(&lab.api, "MODIFIED", 1);
    lab.until("db.shop.svc.cluster.local", |answer| show(answer) == ["10.244.0.1"]).await;
    endpoints(&lab.api, "MODIFIED", 0);
    lab.until("db.shop.svc.cluster.local", |answer| answer.metadata.response_code == ResponseCode::NXDomain)
        .await;
}

#[tokio::test]
async fn other_names_are_asked_upstream_past_a_dead_server() {
    let lab = lab().await;
    let answer = lab.ask("kubernetes.io", RecordType::A).await;
    assert_eq!(show(&answer), ["1.2.3.4"]);
    let answer = lab.ask("away.shop.svc.cluster.local", RecordType::A).await;
    assert_eq!(show(&answer), ["1.2.3.4", "example.com."]);
}

#[tokio::test]
async fn a_long_answer_is_truncated_for_datagrams_only() {
    let lab = lab().await;
    endpoints(&lab.api, "MODIFIED", 120);
    let name = "db.shop.svc.cluster.local";
    lab.until(name, |answer| answer.metadata.truncation).await;
    let answer = ask_stream(lab.dns.address(), &question(name, RecordType::A)).await;
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (120, false));
    endpoints(&lab.api, "MODIFIED", 40);
    lab.until("db-120.db.shop.svc.cluster.local", |answer| answer.answers.is_empty()).await;
    let mut question = question(name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    question.set_edns(edns);
    let answer = ask(lab.dns.address(), &question).await;
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (40, false));
}
