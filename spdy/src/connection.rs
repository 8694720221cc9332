//! A session over a byte stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::Malformed;
use crate::headers::Headers;
use crate::session::{Role, Session, StreamError};
use crate::stream::Stream;

/// As much is read at once.
const PIECE: usize = 32 * 1024;
/// How long a peer that sent nonsense may take to hear that the connection is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection ended otherwise than by its end.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the peer sent {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A handle of a connection, which somebody must [run](Connection::run).
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    session: Mutex<Session>,
    /// There may be something to send.
    work: Notify,
    /// There may be room for more to receive.
    room: Notify,
    /// The peer opened a stream.
    opened: Notify,
    over: Notify,
}

impl Shared {
    /// Never held across an await.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_work(&self) {
        self.work.notify_one();
    }

    /// Reading makes room, and tells the peer so.
    pub(crate) fn has_room(&self) {
        self.room.notify_one();
        self.work.notify_one();
    }
}

impl Connection {
    /// One end of a connection that begins.
    pub fn new(role: Role) -> Self {
        Self {
            shared: Arc::new(Shared {
                session: Mutex::new(Session::new(role)),
                work: Notify::new(),
                room: Notify::new(),
                opened: Notify::new(),
                over: Notify::new(),
            }),
        }
    }

    /// Carries the connection until one side ends it.
    pub async fn run<IO>(&self, io: IO) -> Result<(), ConnectionError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin,
    {
        // Also when this future is dropped, nobody waits for what can't come any more.
        let _end = End(&self.shared);
        let (mut reader, mut writer) = tokio::io::split(io);
        let ended = tokio::select! {
            ended = self.receive(&mut reader) => ended,
            ended = self.send(&mut writer) => ended,
        };
        if let Err(ConnectionError::Malformed(_)) = &ended {
            let mut last = BytesMut::new();
            {
                let mut session = self.shared.session();
                session.close();
                session.produce(&mut last);
            }
            // A peer that doesn't listen has no say in how long this takes.
            let _ = tokio::time::timeout(FAREWELL, writer.write_all(&last)).await;
        }
        ended
    }

    async fn receive<R: AsyncRead + Unpin>(&self, reader: &mut R) -> Result<(), ConnectionError> {
        let mut input = BytesMut::with_capacity(PIECE);
        loop {
            let (opened, wants) = {
                let mut session = self.shared.session();
                (session.receive(&mut input)?, session.wants_input())
            };
            if opened {
                self.shared.opened.notify_one();
            }
            self.shared.has_work();
            if !wants {
                self.shared.room.notified().await;
                continue;
            }
            input.reserve(PIECE);
            if reader.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn send<W: AsyncWrite + Unpin>(&self, writer: &mut W) -> Result<(), ConnectionError> {
        let mut out = BytesMut::new();
        loop {
            let done = {
                let mut session = self.shared.session();
                session.produce(&mut out);
                session.is_done()
            };
            if out.is_empty() {
                if done {
                    writer.shutdown().await?;
                    return Ok(());
                }
                self.shared.work.notified().await;
                continue;
            }
            writer.write_all(&out).await?;
            writer.flush().await?;
            out.clear();
            // What waited to be sent may have kept us from reading on.
            self.shared.room.notify_one();
        }
    }

    /// Opens a stream. The peer learns of it as soon as it can be told.
    pub fn open(&self, headers: Headers) -> Result<Stream, StreamError> {
        let id = self.shared.session().open(headers)?;
        self.shared.has_work();
        Stream::new(self.shared.clone(), id)
    }

    /// The next stream that the peer opens; `None` at the end of the connection. It is to be confirmed with
    /// [`Stream::reply`], or refused with [`Stream::reset`].
    pub async fn accept(&self) -> Option<Stream> {
        loop {
            let (next, ended) = {
                let mut session = self.shared.session();
                (session.accept(), session.is_ended())
            };
            match next {
                Some(id) => match Stream::new(self.shared.clone(), id) {
                    Ok(stream) => return Some(stream),
                    // It was reset before anybody looked at it.
                    Err(_) => continue,
                },
                None if ended => return None,
                None => self.shared.opened.notified().await,
            }
        }
    }

    /// Ends the connection when everything that was written has been sent.
    pub fn close(&self) {
        self.shared.session().close();
        self.shared.has_work();
    }

    /// Waits for the end of the connection.
    pub async fn ended(&self) {
        loop {
            let mut over = std::pin::pin!(self.shared.over.notified());
            over.as_mut().enable();
            if self.shared.session().is_ended() {
                return;
            }
            over.await;
        }
    }
}

/// Ends the session when the connection does.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.session().end();
        self.0.opened.notify_one();
        self.0.over.notify_waiters();
    }
}
