//! What one end knows of a connection: its streams, what is buffered for each, and who may send how much.
//!
//! Bounds, all of them per connection: [`MOST_STREAMS`] streams, [`WINDOW`] bytes received and not read per stream,
//! [`TOTAL`] over all streams, [`OUTBOX`] bytes (and one piece) written and not sent per stream, and [`MOST_CONTROL`]
//! control frames that wait to be sent. A peer that knows windows never reaches the bounds of what is received. For
//! the sake of others nothing more is read from the connection while one of the bounds is passed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::Malformed;
use crate::codec::{Decoder, Encoder};
use crate::frame::{Frame, INITIAL_WINDOW_SIZE, Reset, Setting};
use crate::headers::Headers;

/// What a stream may hold that was received and not read.
const WINDOW: usize = 256 * 1024;
/// What all streams together may hold.
const TOTAL: usize = 8 << 20;
/// A stream takes no more to send when it has this much.
const OUTBOX: usize = 64 * 1024;
/// The most streams that the peer may have open.
const MOST_STREAMS: usize = 1024;
/// The most control frames that wait to be sent.
const MOST_CONTROL: usize = 256;
/// The most data in a frame that is sent, so that streams take turns.
const PIECE: usize = 16 * 1024;
/// As much is written at once.
const BATCH: usize = 64 * 1024;
/// What the protocol lets a stream, and a connection, send before anything was said about it.
const DEFAULT_WINDOW: i64 = 64 * 1024;
const LARGEST_ID: u32 = 0x7fff_ffff;
const LARGEST_WINDOW: i64 = 0x7fff_ffff;

/// Which end of a connection this is. The client opens the streams with odd numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Why a stream can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("the stream was reset: {0:?}")]
    Reset(Reset),
    #[error("the stream was written to after its end")]
    Finished,
    #[error("the connection is over")]
    Ended,
    #[error("too many streams")]
    TooMany,
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Data(Bytes),
    End,
    /// Nothing yet.
    Wait,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    headers: Headers,
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    /// Read and not yet given back to the peer's window.
    owed: usize,
    remote_end: bool,
    outbox: VecDeque<Bytes>,
    outbox_bytes: usize,
    /// Nothing more will be written.
    local_end: bool,
    /// The peer knows that.
    end_sent: bool,
    replied: bool,
    reset: Option<Reset>,
    /// What the peer has granted beyond its initial window, less what was sent.
    credit: i64,
    /// Somebody has it in hand.
    held: bool,
    readable: Arc<Notify>,
    writable: Arc<Notify>,
}

#[derive(Debug)]
pub(crate) struct Session {
    decoder: Decoder,
    encoder: Encoder,
    streams: BTreeMap<u32, Entry>,
    next_id: u32,
    last_of_peer: u32,
    /// Opened by the peer, and not accepted yet.
    incoming: VecDeque<u32>,
    control: VecDeque<Frame>,
    /// The stream that sent last.
    turn: u32,
    /// The peer's initial window, once it has spoken of windows at all.
    window: Option<i64>,
    initial_window: i64,
    /// The same for the whole connection.
    whole: Option<i64>,
    whole_credit: i64,
    inbox_bytes: usize,
    owed: usize,
    /// Streams that hold more than their window.
    full: usize,
    /// We take no new streams, and end the connection when all is sent.
    closing: bool,
    /// The peer takes no new streams, and ends the connection.
    leaving: bool,
    ended: bool,
}

impl Entry {
    fn new(headers: Headers) -> Self {
        Self {
            headers,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            owed: 0,
            remote_end: false,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            local_end: false,
            end_sent: false,
            replied: false,
            reset: None,
            credit: 0,
            held: true,
            readable: Arc::default(),
            writable: Arc::default(),
        }
    }

    fn wake(&self) {
        self.readable.notify_one();
        self.writable.notify_one();
    }

    fn is_over(&self) -> bool {
        self.reset.is_some() || self.remote_end && self.end_sent
    }
}

impl Session {
    pub(crate) fn new(role: Role) -> Self {
        let settings = vec![Setting { flags: 0, id: INITIAL_WINDOW_SIZE, value: WINDOW as u32 }];
        let more = TOTAL as u32 - DEFAULT_WINDOW as u32;
        Self {
            decoder: Decoder::new(),
            encoder: Encoder::default(),
            streams: BTreeMap::new(),
            next_id: if role == Role::Client { 1 } else { 2 },
            last_of_peer: 0,
            incoming: VecDeque::new(),
            control: VecDeque::from([
                Frame::Settings { clear: false, settings },
                Frame::WindowUpdate { id: 0, delta: more },
            ]),
            turn: 0,
            window: None,
            initial_window: DEFAULT_WINDOW,
            whole: None,
            whole_credit: 0,
            inbox_bytes: 0,
            owed: 0,
            full: 0,
            closing: false,
            leaving: false,
            ended: false,
        }
    }

    fn is_ours(&self, id: u32) -> bool {
        id % 2 == self.next_id % 2
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// The headers that a stream was opened with, and what wakes its reader and its writer.
    pub(crate) fn parts(&self, id: u32) -> Option<(Headers, Arc<Notify>, Arc<Notify>)> {
        let entry = self.streams.get(&id)?;
        Some((entry.headers.clone(), entry.readable.clone(), entry.writable.clone()))
    }

    // === what the owner of the streams asks for ===

    /// Opens a stream.
    pub(crate) fn open(&mut self, headers: Headers) -> Result<u32, StreamError> {
        if self.ended || self.closing || self.leaving {
            return Err(StreamError::Ended);
        }
        if self.streams.len() >= MOST_STREAMS * 2 || self.next_id > LARGEST_ID {
            return Err(StreamError::TooMany);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.control.push_back(Frame::SynStream {
            id,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers: headers.clone(),
        });
        self.streams.insert(id, Entry::new(headers));
        Ok(id)
    }

    /// The next stream that the peer opened.
    pub(crate) fn accept(&mut self) -> Option<u32> {
        self.incoming.pop_front()
    }

    /// Confirms a stream of the peer.
    pub(crate) fn reply(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.replied && entry.reset.is_none())
        {
            entry.replied = true;
            self.control.push_back(Frame::SynReply { id, fin: false, headers: Headers::new() });
        }
    }

    /// Whether the peer has confirmed a stream of ours.
    pub(crate) fn is_replied(&self, id: u32) -> Result<bool, StreamError> {
        match self.streams.get(&id) {
            Some(Entry { reset: Some(reset), .. }) => Err(StreamError::Reset(*reset)),
            Some(entry) if entry.replied => Ok(true),
            Some(_) if !self.ended => Ok(false),
            _ => Err(StreamError::Ended),
        }
    }

    /// What was received on a stream.
    pub(crate) fn read(&mut self, id: u32) -> Result<Next, StreamError> {
        let Some(entry) = self.streams.get_mut(&id) else { return Err(StreamError::Ended) };
        if let Some(data) = entry.inbox.pop_front() {
            self.consumed(id, data.len());
            return Ok(Next::Data(data));
        }
        match entry.reset {
            Some(reset) => Err(StreamError::Reset(reset)),
            None if entry.remote_end => Ok(Next::End),
            None if self.ended => Err(StreamError::Ended),
            None => Ok(Next::Wait),
        }
    }

    /// Takes the data to be sent, unless there is no room for it yet.
    pub(crate) fn write(&mut self, id: u32, data: &mut Bytes) -> Result<bool, StreamError> {
        let entry = self.streams.get_mut(&id).filter(|_| !self.ended).ok_or(StreamError::Ended)?;
        match entry.reset {
            Some(reset) => return Err(StreamError::Reset(reset)),
            None if entry.local_end => return Err(StreamError::Finished),
            None if entry.outbox_bytes >= OUTBOX => return Ok(false),
            None => {}
        }
        if !data.is_empty() {
            entry.outbox_bytes += data.len();
            entry.outbox.push_back(std::mem::take(data));
        }
        Ok(true)
    }

    /// Ends the sending side of a stream, after what was written.
    pub(crate) fn finish(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.local_end = true;
        }
    }

    /// Ends a stream at once.
    pub(crate) fn reset(&mut self, id: u32, status: Reset) {
        let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.is_over()) else { return };
        entry.reset = Some(status);
        entry.outbox.clear();
        entry.outbox_bytes = 0;
        entry.wake();
        let unread = std::mem::take(&mut entry.inbox).iter().map(Bytes::len).sum();
        self.control.push_back(Frame::RstStream { id, status });
        self.consumed(id, unread);
        self.forget(id);
    }

    /// Nobody has the stream in hand any more. What was written before it was finished still goes out.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.held = false;
        let unread = std::mem::take(&mut entry.inbox).iter().map(Bytes::len).sum();
        let is_finished = entry.local_end;
        self.consumed(id, unread);
        if !is_finished {
            self.reset(id, Reset::Cancel);
        }
        self.forget(id);
    }

    /// No more streams; the connection is to end once everything is sent.
    pub(crate) fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.control.push_back(Frame::GoAway { last_good: self.last_of_peer, status: 0 });
        }
    }

    /// The connection is over.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        for entry in self.streams.values() {
            entry.wake();
        }
    }

    /// A stream that is over and that nobody holds is forgotten.
    fn forget(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|entry| !entry.held && entry.is_over()) {
            self.streams.remove(&id);
        }
    }

    /// What was received on a stream has been read.
    fn consumed(&mut self, id: u32, length: usize) {
        self.inbox_bytes -= length;
        self.owed += length;
        if self.owed >= TOTAL / 4 {
            self.control.push_back(Frame::WindowUpdate { id: 0, delta: self.owed as u32 });
            self.owed = 0;
        }
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if entry.inbox_bytes > WINDOW && entry.inbox_bytes - length <= WINDOW {
            self.full -= 1;
        }
        entry.inbox_bytes -= length;
        entry.owed += length;
        if entry.owed >= WINDOW / 4 && !entry.remote_end && entry.reset.is_none() {
            self.control.push_back(Frame::WindowUpdate { id, delta: entry.owed as u32 });
            entry.owed = 0;
        }
    }

    // === what the connection asks for ===

    /// False while what was received, or what must be answered, is to be dealt with first.
    pub(crate) fn wants_input(&self) -> bool {
        self.full == 0 && self.inbox_bytes <= TOTAL && self.control.len() < MOST_CONTROL
    }

    /// Takes frames off the input as long as there is room for what they bring. True if the peer opened a stream.
    pub(crate) fn receive(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        let before = self.incoming.len();
        while self.wants_input() {
            let Some(frame) = self.decoder.decode(input)? else { break };
            self.take(frame)?;
        }
        Ok(self.incoming.len() > before)
    }

    fn take(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers, .. } => {
                if self.is_ours(id) || id <= self.last_of_peer {
                    return Err(Malformed::Stream(id));
                }
                self.last_of_peer = id;
                if self.closing || self.streams.len() >= MOST_STREAMS {
                    self.control.push_back(Frame::RstStream { id, status: Reset::RefusedStream });
                    return Ok(());
                }
                let mut entry = Entry::new(headers);
                entry.remote_end = fin;
                (entry.local_end, entry.end_sent) = (unidirectional, unidirectional);
                self.streams.insert(id, entry);
                self.incoming.push_back(id);
            }
            Frame::SynReply { id, fin, .. } => {
                self.known(id)?;
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.replied = true;
                    entry.wake();
                }
                self.remote_end(id, fin);
            }
            Frame::Headers { id, fin, .. } => {
                self.known(id)?;
                self.remote_end(id, fin);
            }
            Frame::Data { id, fin, data } => self.take_data(id, fin, data)?,
            Frame::RstStream { id, status } => {
                self.known(id)?;
                if let Some(entry) = self.streams.get_mut(&id) {
                    entry.reset = Some(status);
                    entry.outbox.clear();
                    entry.outbox_bytes = 0;
                    entry.wake();
                }
                self.forget(id);
            }
            Frame::Ping { id } if !self.is_ours(id) => self.control.push_back(Frame::Ping { id }),
            Frame::Ping { .. } => {}
            Frame::GoAway { .. } => self.leaving = true,
            Frame::Settings { settings, .. } => {
                for setting in settings.iter().filter(|setting| setting.id == INITIAL_WINDOW_SIZE) {
                    let value = i64::from(setting.value);
                    if value > LARGEST_WINDOW {
                        return Err(Malformed::Setting(setting.id, setting.value));
                    }
                    self.initial_window = value;
                    self.window = Some(value);
                }
            }
            Frame::WindowUpdate { id: 0, delta } => {
                self.whole = Some(DEFAULT_WINDOW);
                self.whole_credit += i64::from(delta);
                if DEFAULT_WINDOW + self.whole_credit > LARGEST_WINDOW {
                    return Err(Malformed::Window(delta));
                }
            }
            Frame::WindowUpdate { id, delta } => {
                self.known(id)?;
                self.window = Some(self.initial_window);
                let Some(entry) = self.streams.get_mut(&id) else { return Ok(()) };
                entry.credit += i64::from(delta);
                if self.initial_window + entry.credit > LARGEST_WINDOW {
                    self.reset(id, Reset::FlowControlError);
                }
            }
        }
        Ok(())
    }

    fn take_data(&mut self, id: u32, fin: bool, data: Bytes) -> Result<(), Malformed> {
        self.known(id)?;
        let length = data.len();
        self.inbox_bytes += length;
        match self.streams.get_mut(&id) {
            Some(entry) if entry.held && entry.reset.is_none() && !entry.remote_end => {
                if length > 0 {
                    entry.inbox.push_back(data);
                    entry.inbox_bytes += length;
                    if entry.inbox_bytes > WINDOW && entry.inbox_bytes - length <= WINDOW {
                        self.full += 1;
                    }
                    entry.readable.notify_one();
                }
            }
            // What comes for a stream that nobody reads is dropped.
            entry => {
                let is_late = entry.as_ref().is_some_and(|entry| entry.remote_end);
                if let Some(entry) = entry {
                    entry.inbox_bytes += length;
                    if entry.inbox_bytes > WINDOW && entry.inbox_bytes - length <= WINDOW {
                        self.full += 1;
                    }
                }
                self.consumed(id, length);
                if is_late {
                    self.reset(id, Reset::StreamAlreadyClosed);
                }
            }
        }
        self.remote_end(id, fin);
        Ok(())
    }

    /// An error for a stream that never was.
    fn known(&self, id: u32) -> Result<(), Malformed> {
        let was = if self.is_ours(id) { id < self.next_id } else { id <= self.last_of_peer };
        if was { Ok(()) } else { Err(Malformed::Stream(id)) }
    }

    fn remote_end(&mut self, id: u32, fin: bool) {
        if fin && let Some(entry) = self.streams.get_mut(&id) {
            entry.remote_end = true;
            entry.readable.notify_one();
            self.forget(id);
        }
    }

    /// Writes what is to be sent next; nothing if there is nothing that may be sent now.
    pub(crate) fn produce(&mut self, out: &mut BytesMut) {
        for frame in std::mem::take(&mut self.control) {
            self.encoder.encode(&frame, out);
        }
        // In turns: after the stream that was last come those with higher numbers, then the others.
        while out.len() < BATCH {
            let after = (Bound::Excluded(self.turn), Bound::Unbounded);
            let upto = (Bound::Unbounded, Bound::Included(self.turn));
            let ids = self.streams.range(after).chain(self.streams.range(upto));
            let Some(id) = ids.filter(|(_, entry)| self.room(entry).is_some()).map(|(id, _)| *id).next()
            else {
                return;
            };
            self.turn = id;
            self.send_piece(id, out);
        }
    }

    /// How much a stream may send now; `None` if it has nothing to send, or may not.
    fn room(&self, entry: &Entry) -> Option<usize> {
        if entry.reset.is_some() || entry.end_sent {
            return None;
        }
        if entry.outbox.is_empty() {
            return entry.local_end.then_some(0);
        }
        let of_stream = self.window.map(|initial| initial + entry.credit);
        let of_whole = self.whole.map(|initial| initial + self.whole_credit);
        let allowed = of_stream.unwrap_or(LARGEST_WINDOW).min(of_whole.unwrap_or(LARGEST_WINDOW));
        usize::try_from(allowed).ok().filter(|allowed| *allowed > 0)
    }

    fn send_piece(&mut self, id: u32, out: &mut BytesMut) {
        let room = self.streams.get(&id).and_then(|entry| self.room(entry)).unwrap_or(0);
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let mut data = entry.outbox.pop_front().unwrap_or_default();
        let most = room.min(PIECE);
        if data.len() > most {
            entry.outbox.push_front(data.split_off(most));
        }
        entry.outbox_bytes -= data.len();
        entry.credit -= data.len() as i64;
        self.whole_credit -= data.len() as i64;
        let fin = entry.local_end && entry.outbox.is_empty();
        entry.end_sent = fin;
        if entry.outbox_bytes < OUTBOX {
            entry.writable.notify_one();
        }
        self.encoder.encode(&Frame::Data { id, fin, data }, out);
        self.forget(id);
    }

    /// True when the connection is to end and has nothing more to send.
    pub(crate) fn is_done(&self) -> bool {
        let sending = |entry: &Entry| {
            entry.reset.is_none() && !entry.end_sent && (entry.local_end || !entry.outbox.is_empty())
        };
        let nobody_waits = || !self.streams.values().any(|entry| entry.held);
        let wanted = self.closing || self.leaving && nobody_waits();
        wanted && self.control.is_empty() && !self.streams.values().any(sending)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
