//! The API server and the agent's server together: both sides of logs, exec and attach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::pki::{Pki, tls};
use apiserver::{ApiServer, UserInfo};
use base::Random;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::Embedded;
use tower::Service;

use super::testing::FakeRuntime;
use super::*;

struct Directory(Vec<Arc<Pod>>, ContainerRef);

impl PodDirectory for Directory {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.0.clone()
    }
    fn container(&self, _: &str, _: &str, _: &str, previous: bool) -> Option<ContainerRef> {
        (!previous).then(|| self.1.clone())
    }
}

#[tokio::test]
async fn the_api_server_gets_logs_and_refusals_from_the_agent() {
    let (clock, random, tasks) = (Clock::system(), Random::seeded(1), Tasks::new("test"));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let config = apiserver::Config::new(clock.clone(), random, tasks.clone(), pki.clone(), local);
    let store = Arc::new(Embedded::in_memory(clock.clone(), tasks.clone()));
    let server = ApiServer::start(store, config).await.unwrap();
    let admin = UserInfo::new("admin", &["system:masters"]);
    let call = async |method: &str, target: &str, body: Value| {
        server.call(&admin, method, target, Some(&body)).await.unwrap()
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
        "spec": { "nodeName": "n1", "automountServiceAccountToken": false,
            "containers": [{ "name": "c", "image": "i" }] },
    });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    call("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    call("POST", "/api/v1/nodes", node).await;
    let pod: Pod =
        serde_json::from_value(call("POST", "/api/v1/namespaces/default/pods", pod).await).unwrap();

    let logs = tempfile::tempdir().unwrap();
    let log_path = logs.path().join("0.log");
    let line = |text: &str| format!("2026-01-01T00:00:01.5Z stdout F {text}\n");
    std::fs::write(&log_path, line("one") + &line("two")).unwrap();
    let run = ContainerRef {
        id: "id-1".into(),
        pod_uid: crate::pod::uid(&pod).into(),
        attempt: 0,
        log_path,
        running: true,
    };
    let serving = pki.node_serving("n1", &[local]).unwrap();
    let tls = tls::node_agent(pki.authority_pem(), &serving.certificate_pem, serving.key_pem()).unwrap();
    let client = client::in_process(server.in_process(UserInfo::new("system:node:n1", &["system:nodes"])));
    let config = ServerConfig {
        address: SocketAddr::new(local, 0),
        tls,
        tasks: tasks.clone(),
        clock,
        client,
        // Nobody listens there.
        runtime: Arc::new(FakeRuntime { url: "http://127.0.0.1:1".into(), ..FakeRuntime::default() }),
        node_name: "n1".into(),
    };
    let agent = Server::start(config, Arc::new(Directory(vec![Arc::new(pod)], run))).await.unwrap();
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": agent.port() } },
    } });
    call("PATCH", "/api/v1/nodes/n1/status", status).await;

    let get = async |target: &str| {
        let request = Request::get(target).body(Full::new(Bytes::new())).unwrap();
        let response = server.in_process(admin.clone()).call(request).await.unwrap();
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    };
    let log = "/api/v1/namespaces/default/pods/web/log";
    assert_eq!(get(log).await, (StatusCode::OK, "one\ntwo\n".to_owned()));
    let some = format!("{log}?tailLines=1&timestamps=true&limitBytes=100&sinceTime=2025-12-31T23:00:00Z");
    assert_eq!(get(&some).await.1, "2026-01-01T00:00:01.5Z two\n");
    let (code, text) = get(&format!("{log}?previous=true")).await;
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(status["message"], "previous terminated container \"c\" in pod \"web\" not found");
}
