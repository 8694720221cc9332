//! Sessions that talk to each other, or to a peer that is written by hand, without a connection.

use super::*;

/// A peer that sends what the test says.
struct Peer {
    encoder: Encoder,
    decoder: Decoder,
}

impl Peer {
    fn new() -> Self {
        Self { encoder: Encoder::default(), decoder: Decoder::new() }
    }

    /// Sends a frame; what is left of it unread.
    fn send(&mut self, session: &mut Session, frame: &Frame) -> Result<usize, Malformed> {
        let mut bytes = BytesMut::new();
        self.encoder.encode(frame, &mut bytes);
        session.receive(&mut bytes)?;
        Ok(bytes.len())
    }

    /// Everything that the session has to send.
    fn hear(&mut self, session: &mut Session) -> Vec<Frame> {
        let (mut bytes, mut frames) = (BytesMut::new(), Vec::new());
        loop {
            session.produce(&mut bytes);
            if bytes.is_empty() {
                return frames;
            }
            while let Some(frame) = self.decoder.decode(&mut bytes).unwrap() {
                frames.push(frame);
            }
        }
    }

    /// How much data each stream was sent.
    fn data(&mut self, session: &mut Session) -> BTreeMap<u32, usize> {
        let mut sums = BTreeMap::new();
        for frame in self.hear(session) {
            if let Frame::Data { id, data, .. } = frame {
                *sums.entry(id).or_default() += data.len();
            }
        }
        sums
    }
}

fn syn(id: u32) -> Frame {
    let headers = Headers::new().with("port", "80");
    Frame::SynStream { id, associated: 0, priority: 0, fin: false, unidirectional: false, headers }
}

fn data(id: u32, length: usize) -> Frame {
    Frame::Data { id, fin: false, data: vec![1; length].into() }
}

/// Writes as much as is taken.
fn fill(session: &mut Session, id: u32) -> usize {
    let mut written = 0;
    while session.write(id, &mut Bytes::from(vec![2; 1000])).unwrap() {
        written += 1000;
    }
    written
}

#[test]
fn a_peer_that_does_not_speak_of_windows_is_not_held_to_them() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    peer.send(&mut server, &syn(1)).unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        let written = fill(&mut server, 1);
        assert!((OUTBOX..OUTBOX + 1000).contains(&written));
        sent += peer.data(&mut server)[&1];
    }
    assert!(sent >= 10 * OUTBOX);
}

#[test]
fn a_peer_that_speaks_of_windows_is_sent_no_more_than_they_allow() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    let window = |value| {
        let settings = vec![Setting { flags: 0, id: INITIAL_WINDOW_SIZE, value }];
        Frame::Settings { clear: false, settings }
    };
    peer.send(&mut server, &window(5000)).unwrap();
    peer.send(&mut server, &syn(1)).unwrap();
    peer.send(&mut server, &syn(3)).unwrap();
    fill(&mut server, 1);
    assert_eq!(peer.data(&mut server), BTreeMap::from([(1, 5000)]));
    // Another stream is not held up by it.
    fill(&mut server, 3);
    assert_eq!(peer.data(&mut server), BTreeMap::from([(3, 5000)]));
    peer.send(&mut server, &Frame::WindowUpdate { id: 1, delta: 700 }).unwrap();
    assert_eq!(peer.data(&mut server), BTreeMap::from([(1, 700)]));
    peer.send(&mut server, &window(6000)).unwrap();
    assert_eq!(peer.data(&mut server), BTreeMap::from([(1, 1000), (3, 1000)]));
    // The window of the whole connection: 64 KiB, of which 12700 bytes are gone.
    peer.send(&mut server, &Frame::WindowUpdate { id: 0, delta: 1 }).unwrap();
    peer.send(&mut server, &Frame::WindowUpdate { id: 1, delta: 100_000 }).unwrap();
    fill(&mut server, 1);
    assert_eq!(peer.data(&mut server), BTreeMap::from([(1, 64 * 1024 + 1 - 12_700)]));
}

#[test]
fn nothing_more_is_read_while_a_stream_holds_more_than_its_window() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    peer.send(&mut server, &syn(1)).unwrap();
    assert_eq!(server.accept(), Some(1));
    let mut sent = 0;
    while peer.send(&mut server, &data(1, 1000)).unwrap() == 0 {
        sent += 1000;
    }
    assert!(!server.wants_input());
    assert!(sent > WINDOW && sent <= WINDOW + 2000, "{sent}");
    while !server.wants_input() {
        assert!(matches!(server.read(1), Ok(Next::Data(_))));
    }
    // What was read is given back to the window.
    for _ in 0..WINDOW / 1000 {
        assert!(matches!(server.read(1), Ok(Next::Data(_))));
    }
    let back: u32 = peer
        .hear(&mut server)
        .iter()
        .map(|frame| match frame {
            Frame::WindowUpdate { id: 1, delta } => *delta,
            _ => 0,
        })
        .sum();
    assert!(back as usize > WINDOW / 2);
}

#[test]
fn what_comes_for_a_stream_that_nobody_reads_is_dropped() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    peer.send(&mut server, &syn(1)).unwrap();
    peer.send(&mut server, &data(1, 100_000)).unwrap();
    assert_eq!(server.accept(), Some(1));
    server.finish(1);
    server.release(1);
    for _ in 0..100 {
        assert_eq!(peer.send(&mut server, &data(1, 60_000)), Ok(0));
    }
    assert_eq!(server.inbox_bytes, 0);
    peer.hear(&mut server);
    peer.send(&mut server, &Frame::Data { id: 1, fin: true, data: Bytes::new() }).unwrap();
    assert!(server.streams.is_empty(), "both sides have finished");
}

#[test]
fn what_a_peer_can_make_us_keep_is_bounded() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    peer.hear(&mut server);
    let mut pings = 0;
    while peer.send(&mut server, &Frame::Ping { id: 1 }).unwrap() == 0 {
        pings += 1;
    }
    assert_eq!(pings, MOST_CONTROL);
    assert_eq!(peer.hear(&mut server).len(), MOST_CONTROL);
    let mut refused = 0;
    for number in 0..MOST_STREAMS as u32 + 5 {
        peer.send(&mut server, &syn(number * 2 + 1)).unwrap();
        let refusals = peer.hear(&mut server);
        refused += refusals
            .iter()
            .filter(|frame| matches!(frame, Frame::RstStream { status: Reset::RefusedStream, .. }))
            .count();
    }
    assert_eq!((server.streams.len(), refused), (MOST_STREAMS, 5));
}

#[test]
fn frames_that_make_no_sense_end_the_connection() {
    let reply = |id| Frame::SynReply { id, fin: false, headers: Headers::new() };
    for (frames, expected) in [
        (vec![syn(2)], Malformed::Stream(2)),
        (vec![syn(3), syn(3)], Malformed::Stream(3)),
        (vec![syn(3), syn(1)], Malformed::Stream(1)),
        (vec![data(5, 1)], Malformed::Stream(5)),
        (vec![reply(2)], Malformed::Stream(2)),
        (vec![Frame::RstStream { id: 9, status: Reset::Cancel }], Malformed::Stream(9)),
        (vec![Frame::WindowUpdate { id: 9, delta: 1 }], Malformed::Stream(9)),
        (vec![Frame::WindowUpdate { id: 0, delta: 0x7fff_ffff }], Malformed::Window(0x7fff_ffff)),
        (
            vec![Frame::Settings {
                clear: false,
                settings: vec![Setting { flags: 0, id: INITIAL_WINDOW_SIZE, value: u32::MAX }],
            }],
            Malformed::Setting(INITIAL_WINDOW_SIZE, u32::MAX),
        ),
    ] {
        let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
        let ended = frames.iter().map(|frame| peer.send(&mut server, frame)).find_map(Result::err);
        assert_eq!(ended, Some(expected), "{frames:?}");
    }
}

#[test]
fn streams_take_turns() {
    let (mut peer, mut client) = (Peer::new(), Session::new(Role::Client));
    let ids: Vec<u32> = (0..3).map(|_| client.open(Headers::new()).unwrap()).collect();
    assert_eq!(ids, [1, 3, 5]);
    for id in &ids {
        client.write(*id, &mut Bytes::from(vec![0; 3 * PIECE])).unwrap();
        client.finish(*id);
    }
    let order: Vec<(u32, bool)> = peer
        .hear(&mut client)
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data { id, fin, .. } => Some((*id, *fin)),
            _ => None,
        })
        .collect();
    let expected: Vec<(u32, bool)> =
        [false, false, true].iter().flat_map(|fin| ids.iter().map(|id| (*id, *fin))).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_reset_stream_gives_what_came_before_and_then_the_error() {
    let (mut peer, mut server) = (Peer::new(), Session::new(Role::Server));
    peer.send(&mut server, &syn(1)).unwrap();
    peer.send(&mut server, &data(1, 10)).unwrap();
    peer.send(&mut server, &Frame::RstStream { id: 1, status: Reset::Cancel }).unwrap();
    assert_eq!(server.read(1), Ok(Next::Data(vec![1; 10].into())));
    assert_eq!(server.read(1), Err(StreamError::Reset(Reset::Cancel)));
    assert_eq!(server.write(1, &mut Bytes::from("x")), Err(StreamError::Reset(Reset::Cancel)));
    server.release(1);
    assert!(server.streams.is_empty());
}
