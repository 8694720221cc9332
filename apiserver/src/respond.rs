//! Answers: how objects, statuses and warnings become HTTP responses.

use api::cbor;
use api::schema::protobuf;
use api::status::{Reason, Status};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::Body;
use crate::context::Warnings;
use crate::negotiate::{Accept, Media};

/// A response with a body of this content type.
pub fn with(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Nothing that was authorized for one may be kept for another.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with(code, "text/plain; charset=utf-8", body.into())
}

/// A JSON value.
pub fn json(value: &Value) -> Response<Body> {
    with(StatusCode::OK, "application/json", value.to_string())
}

/// An object's JSON, as the client wants to see it. Plain JSON is passed on as it is.
pub fn object(code: StatusCode, accept: Accept, bytes: Bytes) -> Result<Response<Body>, Status> {
    Ok(with(code, accept.media.content_type(), encode(accept, bytes)?))
}

/// JSON bytes in the representation that the client asked for.
pub fn encode(accept: Accept, bytes: Bytes) -> Result<Bytes, Status> {
    if accept.media == Media::Json && !accept.pretty {
        return Ok(bytes);
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
    let text = match accept.media {
        Media::Protobuf => return protobuf::object(&value).map(Into::into).map_err(not_marshalable),
        Media::Cbor => return Ok(cbor::object(&value).into()),
        Media::Json => serde_json::to_string_pretty(&value).map_err(Status::internal)? + "\n",
        Media::Yaml => serde_saphyr::to_string(&value).map_err(Status::internal)?,
    };
    Ok(text.into())
}

/// What a client is told of an object that protobuf can't carry.
pub fn not_marshalable(error: protobuf::Error) -> Status {
    match error {
        protobuf::Error::NotMarshalable(_) => Status::failure(406, Reason::NotAcceptable, error.to_string()),
        error => Status::internal(error),
    }
}

/// A failure.
pub fn status(media: Media, status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let encoded = match media {
        Media::Protobuf => protobuf::object(&status.to_value()).ok(),
        Media::Cbor => Some(cbor::object(&status.to_value())),
        Media::Json | Media::Yaml => None,
    };
    let (media, bytes) = match encoded {
        Some(bytes) => (media, bytes),
        None => (Media::Json, status.to_bytes()),
    };
    let mut response = with(code, media.content_type(), bytes);
    if let Some(seconds) =
        status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0)
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"skiff\""));
    }
    response
}

/// Adds the warnings as headers.
pub fn warn(response: &mut Response<Body>, warnings: &Warnings) {
    for text in warnings.take() {
        let mut quoted = String::with_capacity(text.len() + 10);
        quoted.push_str("299 - \"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
