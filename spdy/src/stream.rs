//! One stream of a connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::connection::Shared;
use crate::frame::Reset;
use crate::headers::Headers;
use crate::session::{Next, StreamError};

/// As much is read at once from what a stream is joined with.
const PIECE: usize = 32 * 1024;

/// A stream: one task may read from it while another writes to it. A stream that is dropped before [`Stream::finish`]
/// is reset.
pub struct Stream {
    id: u32,
    headers: Headers,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, id: u32) -> Result<Self, StreamError> {
        let (headers, readable, writable) = shared.session().parts(id).ok_or(StreamError::Ended)?;
        Ok(Self { id, headers, readable, writable, shared })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it was opened with.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Confirms a stream that the peer opened. Go's peers drop what comes before that.
    pub fn reply(&self) {
        self.shared.session().reply(self.id);
        self.shared.has_work();
    }

    /// Waits until the peer confirms a stream that was opened here.
    pub async fn replied(&self) -> Result<(), StreamError> {
        while !self.shared.session().is_replied(self.id)? {
            self.writable.notified().await;
        }
        Ok(())
    }

    /// The next data; `None` at its end.
    pub async fn read(&self) -> Result<Option<Bytes>, StreamError> {
        loop {
            let next = self.shared.session().read(self.id)?;
            match next {
                Next::Data(data) => {
                    self.shared.has_room();
                    return Ok(Some(data));
                }
                Next::End => return Ok(None),
                Next::Wait => self.readable.notified().await,
            }
        }
    }

    /// Everything up to the end of the data; no more than `limit` bytes, what comes after them is dropped. A reset ends
    /// the data too: Go's servers reset their streams when they have said what there is to say.
    pub async fn read_all(&self, limit: usize) -> Result<Vec<u8>, StreamError> {
        let mut all = Vec::new();
        loop {
            match self.read().await {
                Ok(Some(data)) => all.extend_from_slice(&data[..data.len().min(limit - all.len())]),
                Ok(None) => return Ok(all),
                Err(error) => return if all.is_empty() { Err(error) } else { Ok(all) },
            }
        }
    }

    /// Sends data, as soon as what was written before has gone out far enough.
    pub async fn write(&self, mut data: Bytes) -> Result<(), StreamError> {
        loop {
            let taken = self.shared.session().write(self.id, &mut data)?;
            if taken {
                self.shared.has_work();
                return Ok(());
            }
            self.writable.notified().await;
        }
    }

    /// Carries bytes both ways between the stream and another connection, each side's end included. Ends when both
    /// have ended, or one of them is broken. `done` is called when nothing more comes from the other connection.
    pub async fn join<R, W>(&self, mut reader: R, mut writer: W, done: impl FnOnce())
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let out = async {
            loop {
                match self.read().await {
                    Ok(Some(data)) => writer.write_all(&data).await.ok()?,
                    Ok(None) => return writer.shutdown().await.ok(),
                    Err(_) => return None,
                }
            }
        };
        let back = async {
            let mut buffer = BytesMut::with_capacity(PIECE);
            while reader.read_buf(&mut buffer).await.ok()? > 0 {
                self.write(buffer.split().freeze()).await.ok()?;
                buffer.reserve(PIECE);
            }
            self.finish();
            done();
            Some(())
        };
        // Nobody needs to hear why: a broken side is one that is gone.
        let _ = tokio::try_join!(async { out.await.ok_or(()) }, async { back.await.ok_or(()) });
    }

    /// Nothing more will be written. Reading goes on.
    pub fn finish(&self) {
        self.shared.session().finish(self.id);
        self.shared.has_work();
    }

    /// Ends the stream in both directions at once.
    pub fn reset(&self, status: Reset) {
        self.shared.session().reset(self.id, status);
        self.shared.has_room();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.session().release(self.id);
        self.shared.has_room();
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("headers", &self.headers).finish()
    }
}
