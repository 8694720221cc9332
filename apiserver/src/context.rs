//! What one request carries through the pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use api::status::Status;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::audit::Recorder;
use crate::body::RequestBody;
use crate::negotiate::{Accept, Media, content_type};
use crate::notes::Stay;
use crate::{Connection, RequestInfo, UserInfo};

/// Advice for the client, which comes back as `Warning` headers, and remarks for the audit log.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Mutex<Vec<String>>,
    /// Nothing if nobody would read them.
    remarks: Option<Mutex<Vec<(&'static str, String)>>>,
}

/// All warnings together are cut here, as upstream does, to stay below limits of proxies.
const MOST_WARNING_BYTES: usize = 4 * 1024;

impl Warnings {
    /// Adds advice; each text once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = all.iter().map(String::len).sum();
        if !text.is_empty() && !all.contains(&text) && bytes + text.len() <= MOST_WARNING_BYTES {
            all.push(text);
        }
    }

    /// What was added.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.texts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// With remarks, if they are wanted.
    pub(crate) fn new(remarks: bool) -> Self {
        Self { texts: Mutex::default(), remarks: remarks.then(Mutex::default) }
    }

    /// Adds an annotation of the audit event, if there is one and there is something to say.
    pub(crate) fn remark(&self, key: &'static str, value: impl FnOnce() -> Option<String>) {
        if let Some(remarks) = &self.remarks
            && let Some(value) = value()
        {
            remarks.lock().unwrap_or_else(PoisonError::into_inner).push((key, value));
        }
    }

    /// The annotations that were added.
    pub(crate) fn take_remarks(&self) -> Vec<(&'static str, String)> {
        let Some(remarks) = &self.remarks else { return Vec::new() };
        std::mem::take(&mut remarks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one request carries through the pipeline.
#[derive(Debug)]
pub struct Context<'a> {
    pub info: &'a RequestInfo,
    pub user: &'a Arc<UserInfo>,
    pub headers: &'a HeaderMap,
    pub connection: &'a Connection,
    pub accept: Accept,
    pub warnings: &'a Warnings,
    /// What is recorded of the request, if anything.
    pub(crate) audit: Option<&'a Recorder>,
    /// Held by what carries the request on when the connection is no longer HTTP: with it the request ends.
    pub(crate) stay: &'a Arc<Stay>,
}

impl Context<'_> {
    /// Reads the whole body of the request, as [`read_body`], and records it if it is to be recorded.
    pub(crate) async fn read_body(&self, body: RequestBody, limit: usize) -> Result<Bytes, Status> {
        let bytes = read_body(body, limit).await?;
        if let Some(recorder) = self.audit {
            recorder.request(Media::of(content_type(self.headers)), &bytes);
        }
        Ok(bytes)
    }
}

/// Reads a request's whole body; 413 beyond `limit` bytes, without reading on.
pub async fn read_body(mut body: RequestBody, limit: usize) -> Result<Bytes, Status> {
    let too_large = || Status::request_entity_too_large(format_args!("limit is {limit}"));
    if http_body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Status::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large());
        }
        // Most bodies are one frame: those are not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
