//! Frames of a connection that is shared by streams.

use bytes::{Bytes, BytesMut};

pub(super) fn spdy(data: &[u8]) {
    let (mut whole, mut decoder) = (BytesMut::from(data), ::spdy::codec::Decoder::new());
    let mut frames = 0;
    while let Ok(Some(_)) = decoder.decode(&mut whole) {
        frames += 1;
    }
    // The same bytes one by one are the same frames, but for data, which comes in pieces.
    let (mut input, mut decoder, mut pieces) = (BytesMut::new(), ::spdy::codec::Decoder::new(), 0);
    for byte in data {
        input.extend_from_slice(&[*byte]);
        while let Ok(Some(_)) = decoder.decode(&mut input) {
            pieces += 1;
        }
    }
    assert!(pieces >= frames, "{pieces} pieces of {frames} frames");
}

pub(super) fn spdy_seeds() -> Vec<Vec<u8>> {
    use ::spdy::Frame;
    let headers = || ::spdy::Headers::new().with("streamtype", "data").with("port", "80");
    let mut encoder = ::spdy::codec::Encoder::default();
    let mut all = BytesMut::new();
    for frame in [
        Frame::SynStream {
            id: 1,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers: headers(),
        },
        Frame::SynReply { id: 1, fin: false, headers: headers() },
        Frame::Data { id: 1, fin: true, data: Bytes::from_static(b"data") },
        Frame::Ping { id: 2 },
        Frame::RstStream { id: 1, status: ::spdy::Reset::Cancel },
        Frame::GoAway { last_good: 1, status: 0 },
        Frame::WindowUpdate { id: 1, delta: 5 },
    ] {
        encoder.encode(&frame, &mut all);
    }
    vec![all.to_vec()]
}
