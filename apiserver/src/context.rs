//! What one request carries through the pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use api::status::Status;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::body::RequestBody;
use crate::negotiate::Accept;
use crate::{Connection, RequestInfo, UserInfo};

/// Advice for the client, which comes back as `Warning` headers.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

/// All warnings together are cut here, as upstream does, to stay below limits of proxies.
const MOST_WARNING_BYTES: usize = 4 * 1024;

impl Warnings {
    /// Adds advice; each text once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = all.iter().map(String::len).sum();
        if !text.is_empty() && !all.contains(&text) && bytes + text.len() <= MOST_WARNING_BYTES {
            all.push(text);
        }
    }

    /// What was added.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
