//! An API server in this process, and a small client for it.
#![allow(dead_code, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::body::RequestBody;
use apiserver::pki::Pki;
use apiserver::{ApiServer, Body, Config, InProcess, UserInfo};
use base::{Clock, Random, Tasks};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use store::{Embedded, Store};
use tower::Service;

pub struct Api {
    pub server: ApiServer,
    pub store: Arc<dyn Store>,
    pub tasks: Tasks,
    pub pki: Arc<Pki>,
    service: InProcess,
}

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub value: Value,
    pub text: String,
}

impl Answer {
    pub async fn of<B>(response: Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { code: parts.status.as_u16(), headers: parts.headers, value, text }
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
    pub fn message(&self) -> &str {
        self.value["message"].as_str().unwrap_or_default()
    }
    pub fn reason(&self) -> &str {
        self.value["reason"].as_str().unwrap_or_default()
    }
    pub fn names(&self) -> Vec<String> {
        let items = self.value["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    }
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{} {}", self.code, self.text);
        self.value
    }
    #[track_caller]
    pub fn refused(&self, code: u16, reason: &str, message: &str) {
        assert_eq!((self.code, self.reason(), self.message()), (code, reason, message));
    }
}

pub fn clock() -> Clock {
    Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap())
}

/// A server on a new store in memory.
pub async fn api() -> Api {
    let tasks = Tasks::new("test");
    let store = Arc::new(Embedded::in_memory(clock(), tasks.clone()));
    on(store, tasks).await
}

/// A server on a new store in memory, with other settings.
pub async fn with(change: impl FnOnce(&mut Config)) -> Api {
    let tasks = Tasks::new("test");
    let store = Arc::new(Embedded::in_memory(clock(), tasks.clone()));
    start(store, tasks, change).await
}

/// A server on this store.
pub async fn on(store: Arc<dyn Store>, tasks: Tasks) -> Api {
    start(store, tasks, |_| {}).await
}

async fn start(store: Arc<dyn Store>, tasks: Tasks, change: impl FnOnce(&mut Config)) -> Api {
    let (clock, random) = (clock(), Random::seeded(1));
    let pki = Arc::new(Pki::in_memory(clock.clone(), random.clone()).unwrap());
    let mut config = Config::new(clock, random, tasks.clone(), pki, IpAddr::V4(Ipv4Addr::LOCALHOST));
    change(&mut config);
    over(ApiServer::start(store.clone(), config).await.unwrap(), store, tasks)
}

/// A client of this server.
pub fn over(server: ApiServer, store: Arc<dyn Store>, tasks: Tasks) -> Api {
    let pki = server.server().config.pki.clone();
    let service = server.in_process(UserInfo::new("admin", &["system:masters"]));
    Api { server, store, tasks, pki, service }
}

impl Api {
    /// The response to a request as it comes.
    pub async fn raw(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.service.clone().call(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    /// The same server for another user.
    pub fn as_user(&self, user: UserInfo) -> Api {
        let service = self.server.in_process(user);
        Api {
            server: self.server.clone(),
            store: self.store.clone(),
            tasks: self.tasks.clone(),
            pki: self.pki.clone(),
            service,
        }
    }

    /// A request with a body of the caller's own.
    pub async fn streamed(&self, method: &str, target: &str, body: RequestBody) -> Answer {
        let request = Request::builder().method(method).uri(target).body(body).unwrap();
        Answer::of(self.service.clone().call(request).await.unwrap()).await
    }

    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        Answer::of(self.raw(method, target, headers, body).await).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], "").await
    }
    pub async fn post(&self, target: &str, body: &Value) -> Answer {
        self.send("POST", target, &[], body.to_string()).await
    }
    pub async fn put(&self, target: &str, body: &Value) -> Answer {
        self.send("PUT", target, &[], body.to_string()).await
    }
    pub async fn delete(&self, target: &str, body: Option<&Value>) -> Answer {
        self.send("DELETE", target, &[], body.map(Value::to_string).unwrap_or_default()).await
    }
    pub async fn patch(&self, kind: &str, target: &str, body: &Value) -> Answer {
        let media = format!("application/{kind}+json");
        self.send("PATCH", target, &[("content-type", &media)], body.to_string()).await
    }

    pub async fn watch(&self, target: &str) -> Watch {
        let response = self.raw("GET", target, &[], "").await;
        assert_eq!(response.status(), 200, "{target}");
        Watch::of(response)
    }
}

/// A running watch.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    pub fn of(response: Response<Body>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; `None` at the end of the watch.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// Type and name of the next event.
    pub async fn brief(&mut self) -> String {
        match self.next().await {
            None => "end".to_owned(),
            Some(event) => {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                format!("{} {name}", event["type"].as_str().unwrap_or_default()).trim_end().to_owned()
            }
        }
    }
}
