//! The audit log: who did what, and what came of it, as the administrator's policy asks for.
//!
//! - [`policy`]: what is recorded of which request; [`event`]: a line; [`log`]: the file
//!
//! A request that the policy is about has a [`Recorder`], which gathers what the stages of its way find out. Without a
//! policy there is none, and nothing is spent.

mod event;
mod log;
mod policy;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::resource::GroupVersionKind;
use api::status::Status;
use base::{Clock, Tasks};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Value, json};

use self::event::{Event, ObjectRef, User, micros};
use self::log::Log;
pub use self::log::LogSettings;
pub use self::policy::{Level, Policy, Stage};
use crate::negotiate::Media;
use crate::registry::decode;
use crate::{Connection, RequestInfo, UserInfo};

/// A larger answer is left out of its event.
const MOST_ANSWER: usize = 4 << 20;

/// What an API server is told to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub policy: Policy,
    pub log: LogSettings,
}

/// The audit log of one API server.
#[derive(Debug)]
pub(crate) struct Audit {
    policy: Policy,
    log: Log,
    clock: Clock,
    events: AtomicU64,
}

/// What is recorded of one request.
#[derive(Debug)]
pub(crate) struct Recorder {
    audit: Arc<Audit>,
    level: Level,
    omit: std::collections::BTreeSet<Stage>,
    omit_managed_fields: bool,
    id: String,
    uri: String,
    verb: &'static str,
    user: Arc<UserInfo>,
    agent: String,
    ips: Vec<IpAddr>,
    received: Timestamp,
    gathered: Mutex<Gathered>,
}

/// What becomes known on the way.
#[derive(Debug, Default)]
struct Gathered {
    impersonated: Option<Arc<UserInfo>>,
    object: Option<ObjectRef>,
    status: Option<Value>,
    request: Option<Value>,
    response: Option<Value>,
    /// The parts of an answer that comes in parts.
    chunks: BytesMut,
    truncated: bool,
    panicked: bool,
    annotations: BTreeMap<String, String>,
}

impl Audit {
    /// Opens the log.
    pub(crate) fn open(settings: &Settings, clock: Clock, tasks: &Tasks) -> io::Result<Self> {
        let log = Log::open(settings.log.clone(), clock.clone(), tasks)?;
        Ok(Self { policy: settings.policy.clone(), log, clock, events: AtomicU64::new(0) })
    }

    /// The recorder of a request, if the policy wants one.
    pub(crate) fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        parts: &Parts,
        connection: &Connection,
        user: Arc<UserInfo>,
        id: &str,
    ) -> Option<Recorder> {
        let verdict = self.policy.verdict(info, &user);
        if verdict.level == Level::None {
            return None;
        }
        let uri = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |whole| whole.as_str());
        let gathered = Gathered { object: ObjectRef::of(info), ..Gathered::default() };
        Some(Recorder {
            audit: self.clone(),
            level: verdict.level,
            omit: verdict.omit.clone(),
            omit_managed_fields: verdict.omit_managed_fields,
            id: id.to_owned(),
            uri: uri.to_owned(),
            verb: info.verb,
            user,
            agent: event::user_agent(&parts.headers),
            ips: event::source_ips(&parts.headers, connection.remote.map(|remote| remote.ip())),
            received: self.clock.now(),
            gathered: Mutex::new(gathered),
        })
    }

    /// How many events there were, and how many of them were lost.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.events.load(Relaxed), self.log.lost())
    }
}

impl Recorder {
    /// As whom the user acts.
    pub(crate) fn impersonated(&self, user: &Arc<UserInfo>) {
        self.gathered().impersonated = Some(user.clone());
    }

    /// What a stage says of the request.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        self.gathered().annotations.entry(key.to_owned()).or_insert_with(|| value.into());
    }

    /// The body of the request, in whatever form.
    pub(crate) fn request(&self, media: Media, body: &Bytes) {
        if body.is_empty() {
            return;
        }
        // What can't be read is refused; the event says so.
        let Ok(mut object) = decode::value(media, body, &GroupVersionKind::fixed("", "", "")) else { return };
        if self.omit_managed_fields {
            event::without_managed_fields(&mut object);
        }
        let mut gathered = self.gathered();
        if let Some(about) = &mut gathered.object {
            about.complete(&object);
        }
        if self.level >= Level::Request {
            gathered.request = Some(object);
        }
    }

    /// Why the request failed.
    pub(crate) fn failed(&self, status: &Status) {
        self.gathered().status = Some(status.to_value());
    }

    /// The code of the answer.
    pub(crate) fn answered(&self, code: u16) {
        let new = || json!({"metadata": {}, "code": code});
        self.gathered().status.get_or_insert_with(new);
    }

    /// True if the answer itself is recorded.
    pub(crate) fn wants_answer(&self) -> bool {
        self.level == Level::RequestResponse
    }

    /// A part of the answer.
    pub(crate) fn chunk(&self, bytes: &[u8]) {
        let mut gathered = self.gathered();
        if gathered.chunks.len() + bytes.len() > MOST_ANSWER {
            gathered.truncated = true;
            gathered.chunks = BytesMut::new();
        }
        if !gathered.truncated {
            gathered.chunks.extend_from_slice(bytes);
        }
    }

    /// The answer is whole; it was written in this form.
    pub(crate) fn whole(&self, media: Media) {
        let (bytes, truncated) = {
            let mut gathered = self.gathered();
            (std::mem::take(&mut gathered.chunks).freeze(), gathered.truncated)
        };
        if truncated {
            return self.annotate("audit.k8s.io/truncated", "true");
        }
        let mut object = decode::value(media, &bytes, &GroupVersionKind::fixed("", "", "")).ok();
        if let Some(object) = object.as_mut().filter(|_| self.omit_managed_fields) {
            event::without_managed_fields(object);
        }
        self.gathered().response = object;
    }

    /// Writes the event of a stage, unless it is to be left out. A panic is the last one.
    pub(crate) fn stage(&self, stage: Stage) {
        let now = if stage == Stage::RequestReceived { self.received } else { self.audit.clock.now() };
        let mut gathered = self.gathered();
        if std::mem::replace(&mut gathered.panicked, stage == Stage::Panic) || self.omit.contains(&stage) {
            return;
        }
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.level.word(),
            audit_id: &self.id,
            stage: stage.word(),
            request_uri: &self.uri,
            verb: self.verb,
            user: User::of(&self.user),
            impersonated_user: gathered.impersonated.as_deref().map(User::of),
            source_ips: &self.ips,
            user_agent: &self.agent,
            object_ref: gathered.object.as_ref(),
            response_status: gathered.status.as_ref(),
            request_object: gathered.request.as_ref(),
            response_object: gathered.response.as_ref(),
            request_received_timestamp: micros(self.received),
            stage_timestamp: micros(now),
            annotations: &gathered.annotations,
        };
        self.audit.events.fetch_add(1, Relaxed);
        // An event is made of texts and JSON: it can be written.
        if let Ok(line) = serde_json::to_vec(&event) {
            self.audit.log.add(line);
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
