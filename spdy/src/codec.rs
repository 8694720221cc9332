//! Bytes to frames and back.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Malformed;
use crate::frame::{CLEAR, FIN, Frame, Reset, Setting, UNIDIRECTIONAL, kind};
use crate::headers::{Compressor, Decompressor, Headers};

/// The most that a control frame may be long. Headers have a limit of their own, and nothing else is long.
const MOST_CONTROL: usize = 64 * 1024;
/// The most settings in a frame: each can only be there once.
const MOST_SETTINGS: usize = 64;
const VERSION: u16 = 3;
const HEAD: usize = 8;

/// Reads frames.
#[derive(Debug)]
pub struct Decoder {
    inflate: Decompressor,
    /// The DATA frame of which some bytes are still to come.
    data: Option<Partial>,
    /// Bytes of a control frame to skip, because its type means nothing.
    skip: usize,
}

#[derive(Clone, Copy, Debug)]
struct Partial {
    id: u32,
    fin: bool,
    left: usize,
}

/// Writes frames.
#[derive(Debug, Default)]
pub struct Encoder {
    deflate: Compressor,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self { inflate: Decompressor::new(), data: None, skip: 0 }
    }

    /// Takes the next frame off `input`; `None` if more bytes must come first. Data comes in pieces, as it is there.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            let skipped = self.skip.min(input.len());
            input.advance(skipped);
            self.skip -= skipped;
            if let Some(partial) = &mut self.data {
                if input.is_empty() && partial.left > 0 {
                    return Ok(None);
                }
                let data = input.split_to(partial.left.min(input.len())).freeze();
                partial.left -= data.len();
                let (id, is_last) = (partial.id, partial.left == 0);
                let fin = partial.fin && is_last;
                if is_last {
                    self.data = None;
                }
                return Ok(Some(Frame::Data { id, fin, data }));
            }
            let Some(head) = input.first_chunk::<HEAD>().copied() else { return Ok(None) };
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if first >> 31 == 0 {
                if first == 0 {
                    return Err(Malformed::Stream(0));
                }
                input.advance(HEAD);
                self.data = Some(Partial { id: first, fin: flags & FIN != 0, left: length });
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(Malformed::Version(version));
            }
            if !is_known(kind) {
                // The protocol may have grown; what is not known is passed over.
                input.advance(HEAD);
                self.skip = length;
                continue;
            }
            if length > MOST_CONTROL {
                return Err(Malformed::Length { kind, length });
            }
            if input.len() < HEAD + length {
                return Ok(None);
            }
            input.advance(HEAD);
            let body = input.split_to(length).freeze();
            return self.control(kind, flags, body).map(Some);
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Frame, Malformed> {
        let length = body.len();
        let wrong_length = Malformed::Length { kind, length };
        let (known_flags, least, is_exact) = match kind {
            kind::SYN_STREAM => (FIN | UNIDIRECTIONAL, 10, false),
            kind::SYN_REPLY | kind::HEADERS => (FIN, 4, false),
            kind::SETTINGS => (CLEAR, 4, false),
            kind::PING => (0, 4, true),
            _ => (0, 8, true),
        };
        if flags & !known_flags != 0 {
            return Err(Malformed::Flags { kind, flags });
        }
        if length < least || is_exact && length != least {
            return Err(wrong_length);
        }
        let first = body.get_u32();
        let (id, fin) = (first & 0x7fff_ffff, flags & FIN != 0);
        Ok(match kind {
            kind::SYN_STREAM => {
                let associated = body.get_u32() & 0x7fff_ffff;
                let priority = body.get_u16().to_be_bytes()[0] >> 5;
                let headers = self.headers(&body)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { id: real(id)?, associated, priority, fin, unidirectional, headers }
            }
            kind::SYN_REPLY => {
                let headers = self.headers(&body)?;
                Frame::SynReply { id: real(id)?, fin, headers }
            }
            kind::HEADERS => {
                let headers = self.headers(&body)?;
                Frame::Headers { id: real(id)?, fin, headers }
            }
            kind::RST_STREAM => Frame::RstStream { id: real(id)?, status: Reset::of(body.get_u32()) },
            kind::SETTINGS => {
                let count = first as usize;
                if count > MOST_SETTINGS || body.len() != count * 8 {
                    return Err(wrong_length);
                }
                let mut settings = Vec::with_capacity(count);
                while body.has_remaining() {
                    let (flags, id) = (body.get_u8(), body.get_uint(3) as u32);
                    settings.push(Setting { flags, id, value: body.get_u32() });
                }
                Frame::Settings { clear: flags & CLEAR != 0, settings }
            }
            kind::PING => Frame::Ping { id: first },
            kind::GOAWAY => Frame::GoAway { last_good: id, status: body.get_u32() },
            _ => {
                let delta = body.get_u32() & 0x7fff_ffff;
                if delta == 0 {
                    return Err(Malformed::Window(0));
                }
                Frame::WindowUpdate { id, delta }
            }
        })
    }

    fn headers(&mut self, part: &[u8]) -> Result<Headers, Malformed> {
        Headers::of_block(&self.inflate.decompress(part)?)
    }
}

/// A stream's number, which is never 0.
fn real(id: u32) -> Result<u32, Malformed> {
    if id == 0 { Err(Malformed::Stream(0)) } else { Ok(id) }
}

fn is_known(kind: u16) -> bool {
    matches!(kind, kind::SYN_STREAM..=kind::SETTINGS | kind::PING..=kind::WINDOW_UPDATE)
}

impl Encoder {
    /// Writes a frame. Data must be shorter than 16 MiB.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let mut body = BytesMut::new();
        let (kind, flags) = match frame {
            Frame::Data { id, fin, data } => {
                out.put_u32(*id);
                out.put_u32(u32::from(flag(*fin, FIN)) << 24 | data.len() as u32);
                out.extend_from_slice(data);
                return;
            }
            Frame::SynStream { id, associated, priority, fin, unidirectional, headers } => {
                body.put_u32(*id);
                body.put_u32(*associated);
                body.put_u8(priority << 5);
                body.put_u8(0);
                body.extend(self.deflate.compress(&headers.to_block()));
                (kind::SYN_STREAM, flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL))
            }
            Frame::SynReply { id, fin, headers } => {
                body.put_u32(*id);
                body.extend(self.deflate.compress(&headers.to_block()));
                (kind::SYN_REPLY, flag(*fin, FIN))
            }
            Frame::Headers { id, fin, headers } => {
                body.put_u32(*id);
                body.extend(self.deflate.compress(&headers.to_block()));
                (kind::HEADERS, flag(*fin, FIN))
            }
            Frame::RstStream { id, status } => {
                body.put_u32(*id);
                body.put_u32(status.code());
                (kind::RST_STREAM, 0)
            }
            Frame::Settings { clear, settings } => {
                body.put_u32(settings.len() as u32);
                for setting in settings {
                    body.put_u8(setting.flags);
                    body.put_uint(u64::from(setting.id), 3);
                    body.put_u32(setting.value);
                }
                (kind::SETTINGS, flag(*clear, CLEAR))
            }
            Frame::Ping { id } => {
                body.put_u32(*id);
                (kind::PING, 0)
            }
            Frame::GoAway { last_good, status } => {
                body.put_u32(*last_good);
                body.put_u32(*status);
                (kind::GOAWAY, 0)
            }
            Frame::WindowUpdate { id, delta } => {
                body.put_u32(*id);
                body.put_u32(*delta);
                (kind::WINDOW_UPDATE, 0)
            }
        };
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        out.put_u32(u32::from(flags) << 24 | body.len() as u32);
        out.extend_from_slice(&body);
    }
}
