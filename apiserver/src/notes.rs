//! What becomes known of a request on its way, for those who tell of it afterwards: response headers, metrics, audit.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use api::resource::Resource;
use api::status::Status;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::audit::{Recorder, Stage};
use crate::context::Warnings;
use crate::flow::Sort;
use crate::metrics::{Lasting, Running, Series, What};
use crate::negotiate::{self, Media};
use crate::server::Server;
use crate::{Body, Connection, RequestInfo, UserInfo, routes};

/// The number of a request, which the client may choose.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What becomes known of a request.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) warnings: Warnings,
    pub(crate) stay: Arc<Stay>,
    sort: OnceLock<Sort>,
    recorder: OnceLock<Recorder>,
    id: Option<HeaderValue>,
}

impl Notes {
    /// Nothing is known yet but the number of the request. Components of the same process, of which nobody asks, have
    /// none unless they are recorded.
    pub(crate) fn new(server: &Server, connection: &Connection, headers: &HeaderMap) -> Self {
        let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
        let wanted = connection.identity.is_none() || server.audit.is_some();
        let new = || HeaderValue::from_str(&server.config.random.uuid()).ok();
        let id = given.or_else(|| if wanted { new() } else { None });
        Self {
            warnings: Warnings::new(server.audit.is_some()),
            stay: Arc::default(),
            sort: OnceLock::new(),
            recorder: OnceLock::new(),
            id,
        }
    }

    /// Keeps the sort that the request is of.
    pub(crate) fn sort(&self, sort: Sort) -> &Sort {
        self.sort.get_or_init(|| sort)
    }

    /// What is recorded of the request, if anything.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.get()
    }

    /// From here on the request is recorded, if the policy wants it.
    pub(crate) fn begin_audit(
        &self,
        server: &Server,
        info: &RequestInfo,
        parts: &Parts,
        connection: &Connection,
        user: &Arc<UserInfo>,
    ) {
        if let Some(recorder) = self.new_recorder(server, info, parts, connection, user) {
            recorder.stage(Stage::RequestReceived);
        }
    }

    /// A request of somebody who could not say who it is.
    pub(crate) fn refused(
        &self,
        server: &Server,
        info: &RequestInfo,
        parts: &Parts,
        connection: &Connection,
    ) {
        let nobody = Arc::new(UserInfo::default());
        let Some(recorder) = self.new_recorder(server, info, parts, connection, &nobody) else { return };
        let tried = match parts.headers.get(http::header::AUTHORIZATION) {
            Some(value) if value.as_bytes().to_ascii_lowercase().starts_with(b"bearer ") => {
                "attempted: bearer"
            }
            Some(value) if value.as_bytes().to_ascii_lowercase().starts_with(b"basic ") => "attempted: basic",
            _ if !connection.peer_certificates.is_empty() => "attempted: x509",
            _ => "no credentials provided",
        };
        recorder.failed(&Status::unauthorized(&format!("Authentication failed, {tried}")));
    }

    fn new_recorder(
        &self,
        server: &Server,
        info: &RequestInfo,
        parts: &Parts,
        connection: &Connection,
        user: &Arc<UserInfo>,
    ) -> Option<&Recorder> {
        let audit = server.audit.as_ref()?;
        let id = self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let recorder = audit.begin(info, parts, connection, user.clone(), id)?;
        Some(self.recorder.get_or_init(|| recorder))
    }

    /// Why the request failed.
    pub(crate) fn failed(&self, status: &Status) {
        if let Some(recorder) = self.recorder() {
            recorder.failed(status);
        }
    }

    /// Tells the client what sort its request was of, and under which number it is known.
    pub(crate) fn tell(&self, response: &mut Response<Body>) {
        if let Some(sort) = self.sort.get() {
            sort.tell(response.headers_mut());
        }
        if let Some(id) = &self.id {
            response.headers_mut().insert(AUDIT_ID, id.clone());
        }
    }
}

/// What is done when a request comes to its end: when the last byte of the answer is written, or nobody wants it.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    server: &'a Server,
    started: Instant,
    apply: bool,
    _running: Option<Running<'a>>,
    lasting: Option<(Lasting, Arc<Series>)>,
}

/// Where the end of a request waits for the end of its stream, for as long as somebody holds it.
#[derive(Debug, Default)]
pub(crate) struct Stay(Mutex<Option<End>>);

/// The end of an answer. Comes when it is dropped.
#[derive(Debug)]
struct End {
    clock: base::Clock,
    started: Instant,
    series: Arc<Series>,
    code: StatusCode,
    media: Media,
    recorder: Option<Recorder>,
    _lasting: Option<Lasting>,
}

impl<'a> Ending<'a> {
    /// A request begins.
    pub(crate) fn begin(
        server: &'a Server,
        info: &RequestInfo,
        headers: &HeaderMap,
        started: Instant,
    ) -> Self {
        let apply = info.verb == "patch" && negotiate::content_type(headers).contains("apply-patch");
        let lasting = info.is_long().then(|| {
            let series = server.metrics.requests.series(&what(server, info), info, apply);
            (Lasting::new(series.clone()), series)
        });
        let running = lasting.is_none().then(|| server.metrics.running(info));
        Self { server, started, apply, _running: running, lasting }
    }

    /// Comes with the end of this answer.
    pub(crate) fn attach(self, response: Response<Body>, info: &RequestInfo, notes: Notes) -> Response<Body> {
        let (lasting, series) = match self.lasting {
            Some((lasting, series)) => (Some(lasting), series),
            None => (None, self.server.metrics.requests.series(&what(self.server, info), info, self.apply)),
        };
        let code = response.status();
        let recorder = notes.recorder.into_inner();
        if let Some(recorder) = &recorder {
            for (key, value) in notes.warnings.take_remarks() {
                recorder.annotate(key, value);
            }
            recorder.answered(code.as_u16());
            if info.is_long() || code == StatusCode::UNAUTHORIZED {
                recorder.stage(Stage::ResponseStarted);
            }
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = Media::of(content_type.unwrap_or_default());
        let clock = self.server.config.clock.clone();
        let recorder = recorder.filter(|_| code != StatusCode::UNAUTHORIZED);
        let end = End { clock, started: self.started, series, code, media, recorder, _lasting: lasting };
        if code == StatusCode::SWITCHING_PROTOCOLS {
            *notes.stay.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
            return response;
        }
        response.map(|body| end.after(body, info.is_long()))
    }
}

impl End {
    /// The body, with this at its end.
    fn after(self, body: Body, lasts: bool) -> Body {
        let record = !lasts && self.recorder.as_ref().is_some_and(Recorder::wants_answer);
        match body {
            Body::Bytes(bytes) => {
                if let (true, Some(recorder), Some(bytes)) = (record, &self.recorder, &bytes) {
                    recorder.chunk(bytes);
                }
                Body::Bytes(bytes)
            }
            Body::Stream(stream) => Body::stream(stream.inspect(move |bytes| {
                if let Some(recorder) = self.recorder.as_ref().filter(|_| record) {
                    recorder.chunk(bytes);
                }
            })),
            // What a backend answers is not recorded.
            Body::Fallible(stream) => Body::Fallible(Box::pin(stream.inspect(move |_| {
                let _ = &self;
            }))),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.series.ended(self.code, self.clock.instant() - self.started);
        if let Some(recorder) = &self.recorder {
            if recorder.wants_answer() {
                recorder.whole(self.media);
            }
            recorder.stage(Stage::ResponseComplete);
        }
    }
}

/// What a request is for, as far as the table knows it.
fn what(server: &Server, info: &RequestInfo) -> What {
    if !info.resource_request {
        return routes::find(&info.path).map_or(What::Unknown, |route| What::Path(route.path));
    }
    let table = server.registry.table();
    let row: Option<&Arc<Resource>> = table.resource(&info.group, &info.version, &info.resource);
    row.map_or(What::Unknown, |row| What::Resource(row.clone()))
}
