//! One call of `grpc.health.v1.Health/Check`. Both messages have one field, so no code is generated for them.

use std::time::Duration;

use base::Tasks;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::http::{authority, dial};
use crate::pod::go_duration;
use crate::pod::probe::Outcome;

/// An answer holds one small number.
const ANSWER_LIMIT: usize = 1024;
const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";

/// Asks for the health of a service. Failures are in upstream's words.
pub(super) async fn check(tasks: &Tasks, host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = authority(host, port);
    match tokio::time::timeout(timeout, ask(tasks, host, port, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service \"{address}\" within {}: context deadline exceeded",
            go_duration(timeout)
        )),
    }
}

async fn ask(tasks: &Tasks, host: &str, port: u16, service: &str) -> Outcome {
    let address = authority(host, port);
    let stream = match dial(host, port).await {
        Ok(stream) => stream,
        Err(why) => {
            return Outcome::Failure(format!("error: failed to connect service at \"{address}\": {why}"));
        }
    };
    match call(tasks, stream, &address, service).await {
        Ok((Some(SERVING), _)) => Outcome::Success,
        Ok((None, code)) if code == UNIMPLEMENTED => Outcome::Failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                .to_owned(),
        ),
        Ok((None, code)) if code != "0" => {
            Outcome::Failure(format!("error: health rpc probe failed: rpc error: code = {code}"))
        }
        Ok((status, _)) => {
            let word = match status.unwrap_or(0) {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                _ => "SERVICE_UNKNOWN",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{word}\")"))
        }
        Err(error) => Outcome::Failure(format!("error: health rpc probe failed: {error}")),
    }
}

/// The status in the answer, if there is one, and the code of the call.
async fn call(
    tasks: &Tasks,
    stream: tokio::net::TcpStream,
    address: &str,
    service: &str,
) -> Result<(Option<u64>, String), String> {
    let executor = Owned(tasks.child("grpc probe"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor.clone(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    executor.0.spawn("connection", async move {
        // What goes wrong is seen by the request.
        let _ = connection.await;
    });
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", super::USER_AGENT)
        .body(Full::new(message(service)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let mut code = code_in(response.headers());
    let mut answer = BytesMut::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(trailers) = frame.trailers_ref() {
            code = code.or_else(|| code_in(trailers));
        } else if let Some(data) = frame.data_ref() {
            if answer.len() + data.len() > ANSWER_LIMIT {
                return Err("the answer is too long".to_owned());
            }
            answer.extend_from_slice(data);
        }
    }
    let code = code.unwrap_or_default();
    // An empty message is one whose status is zero; no message at all is an error.
    let status = (code == "0").then(|| answer.get(5..).map_or(0, status_in));
    Ok((status, code))
}

fn code_in(headers: &HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `HealthCheckRequest { service = 1 }` in its gRPC frame. Names are shorter than 128 bytes by validation, longer
/// ones are told with two bytes of length.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            field.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        field.put_u8(u8::try_from(length).unwrap_or_default());
        field.extend_from_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(field.len()).unwrap_or_default());
    frame.extend_from_slice(&field);
    frame.freeze()
}

/// `HealthCheckResponse { status = 1 }`: a varint below 128.
fn status_in(message: &[u8]) -> u64 {
    match message {
        [0x08, value, ..] => u64::from(*value),
        _ => 0,
    }
}

/// Runs the tasks of one HTTP/2 connection, and ends them with it.
#[derive(Clone, Debug)]
struct Owned(Tasks);

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("stream", future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_the_service() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&message(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!((status_in(&[8, 1]), status_in(&[])), (1, 0));
    }
}
