//! SPDY/3.1, which is what kubectl speaks for exec, attach and port-forward when it does not speak WebSocket, and
//! inside the WebSocket for every port-forward.
//!
//! - [`frame`], [`headers`], [`codec`]: bytes to frames and back. No IO, bounded memory, every malformed byte an error.
//! - `session`: what both ends know of one connection: its streams, their buffers and windows. No IO either.
//! - [`connection`]: the session over a byte stream, with [`Connection`] and [`Stream`] to talk to.
//!
//! Go's implementation, the one at the other end most of the time, knows no windows. So a peer is held to its windows
//! only when it speaks of windows itself. A peer that doesn't is slowed down by not being read from.

pub mod codec;
pub mod connection;
mod dictionary;
pub mod frame;
pub mod headers;
mod session;
mod stream;

pub use connection::Connection;
pub use frame::{Frame, Reset};
pub use headers::Headers;
pub use session::{Role, StreamError};
pub use stream::Stream;

/// What `Upgrade` names.
pub const PROTOCOL: &str = "SPDY/3.1";

/// What a peer sent that it must not send. The connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a control frame of version {0}")]
    Version(u16),
    #[error("a frame of type {kind} of {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("a frame of type {kind} with flags {flags:#04x}")]
    Flags { kind: u16, flags: u8 },
    #[error("a frame for stream {0}")]
    Stream(u32),
    #[error("headers that can't be decompressed")]
    Compression,
    #[error("headers that are not name and value pairs: {0}")]
    Headers(&'static str),
    #[error("headers of more than {0} bytes")]
    HeadersTooLarge(usize),
    #[error("a window that grows by {0}")]
    Window(u32),
    #[error("a setting with id {0} and value {1}")]
    Setting(u32, u32),
}
