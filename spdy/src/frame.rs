//! The frames of SPDY/3.1.

use bytes::Bytes;

use crate::headers::Headers;

/// One frame. A decoder may give the data of one DATA frame in several pieces, of which only the last has `fin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream { id: u32, associated: u32, priority: u8, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { id: u32, fin: bool, headers: Headers },
    RstStream { id: u32, status: Reset },
    Settings { clear: bool, settings: Vec<Setting> },
    Ping { id: u32 },
    GoAway { last_good: u32, status: u32 },
    Headers { id: u32, fin: bool, headers: Headers },
    WindowUpdate { id: u32, delta: u32 },
    Data { id: u32, fin: bool, data: Bytes },
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub flags: u8,
    pub id: u32,
    pub value: u32,
}

/// The setting that tells how much a stream may send before it is told to go on.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    ProtocolError,
    InvalidStream,
    RefusedStream,
    Cancel,
    InternalError,
    FlowControlError,
    StreamInUse,
    StreamAlreadyClosed,
    /// A number that has no name here.
    Other(u32),
}

/// Numbers of the control frames.
pub(crate) mod kind {
    pub(crate) const SYN_STREAM: u16 = 1;
    pub(crate) const SYN_REPLY: u16 = 2;
    pub(crate) const RST_STREAM: u16 = 3;
    pub(crate) const SETTINGS: u16 = 4;
    pub(crate) const PING: u16 = 6;
    pub(crate) const GOAWAY: u16 = 7;
    pub(crate) const HEADERS: u16 = 8;
    pub(crate) const WINDOW_UPDATE: u16 = 9;
}

/// The flag that ends a stream's sending side.
pub(crate) const FIN: u8 = 1;
/// The flag of a stream that only its opener sends on.
pub(crate) const UNIDIRECTIONAL: u8 = 2;
/// The flag of settings that replace those remembered.
pub(crate) const CLEAR: u8 = 1;

const NAMED: [(u32, Reset); 8] = [
    (1, Reset::ProtocolError),
    (2, Reset::InvalidStream),
    (3, Reset::RefusedStream),
    (5, Reset::Cancel),
    (6, Reset::InternalError),
    (7, Reset::FlowControlError),
    (8, Reset::StreamInUse),
    (9, Reset::StreamAlreadyClosed),
];

impl Reset {
    /// The status with this number.
    pub fn of(code: u32) -> Self {
        NAMED.iter().find(|(number, _)| *number == code).map_or(Self::Other(code), |(_, reset)| *reset)
    }

    /// Its number.
    pub fn code(self) -> u32 {
        match self {
            Self::Other(code) => code,
            named => NAMED.iter().find(|(_, reset)| *reset == named).map_or(0, |(code, _)| *code),
        }
    }
}
