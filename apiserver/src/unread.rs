//! What a client still sends when its request is answered already: too large a body, or one that nobody asked for.
//!
//! A server that stops reading in the middle resets the stream, and many clients then report the reset instead of the
//! answer. So what is left is read and dropped first, as long as it is not much.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::{BoxError, RequestBody, boxed};

/// No more than this is read for nothing, in bytes.
const MOST: usize = 16 << 20;
/// Nor for longer than this.
const LONGEST: Duration = Duration::from_secs(5);

/// The rest of a request's body, once its handler has dropped it; nothing for a request without one.
#[derive(Debug)]
pub(crate) struct Unread(Option<Arc<Mutex<Option<Incoming>>>>);

/// A body that is given back when it is dropped before its end.
struct Lent {
    inner: Option<Incoming>,
    back: Arc<Mutex<Option<Incoming>>>,
    /// The client sends nothing before the body is asked for.
    silent: bool,
}

/// The request for its handler, and what will be left of its body.
pub(crate) fn lend(request: Request<Incoming>) -> (Request<RequestBody>, Unread) {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return (Request::from_parts(parts, boxed(body)), Unread(None));
    }
    let (back, silent) = (Arc::default(), parts.headers.contains_key(EXPECT));
    let lent = Lent { inner: Some(body), back: Arc::clone(&back), silent };
    (Request::from_parts(parts, boxed(lent)), Unread(Some(back)))
}

impl Unread {
    /// Reads what is left.
    pub(crate) async fn drop_rest(self) {
        let Some(back) = self.0 else { return };
        let rest = back.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut rest) = rest.filter(|rest| rest.size_hint().lower() <= MOST as u64) else { return };
        let reading = async {
            let mut seen = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > MOST {
                    return;
                }
            }
        };
        // A slow client gets its answer all the same.
        let _ = tokio::time::timeout(LONGEST, reading).await;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let left = self.inner.take().filter(|inner| !self.silent && !inner.is_end_stream());
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.silent = false;
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_frame(context).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
