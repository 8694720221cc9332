//! The codec and whole connections from the outside.

use base::Tasks;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use spdy::codec::{Decoder, Encoder};
use spdy::frame::Setting;
use spdy::{Connection, Frame, Headers, Malformed, Reset, Role, StreamError};

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::btree_map("[a-z][a-z0-9-]{0,20}", "[ -~]{0,200}", 0..12).prop_map(|pairs| {
        pairs.into_iter().fold(Headers::new(), |headers, (name, value)| headers.with(&name, value))
    })
}

fn id() -> impl Strategy<Value = u32> {
    1..0x8000_0000u32
}

fn frame() -> impl Strategy<Value = Frame> {
    let setting = (any::<u8>(), 0..0x100_0000u32, any::<u32>());
    let setting = setting.prop_map(|(flags, id, value)| Setting { flags, id, value });
    prop_oneof![
        (id(), 0..0x8000_0000u32, 0..8u8, any::<bool>(), any::<bool>(), headers()).prop_map(
            |(id, associated, priority, fin, unidirectional, headers)| Frame::SynStream {
                id,
                associated,
                priority,
                fin,
                unidirectional,
                headers
            }
        ),
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply { id, fin, headers }),
        (id(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers { id, fin, headers }),
        (id(), any::<u32>()).prop_map(|(id, code)| Frame::RstStream { id, status: Reset::of(code) }),
        (any::<bool>(), proptest::collection::vec(setting, 0..20))
            .prop_map(|(clear, settings)| Frame::Settings { clear, settings }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (0..0x8000_0000u32, any::<u32>()).prop_map(|(last_good, status)| Frame::GoAway { last_good, status }),
        (0..0x8000_0000u32, id()).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        (id(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(id, fin, data)| Frame::Data { id, fin, data: data.into() }),
    ]
}

/// Adds a frame, and puts the pieces of one DATA frame together again.
fn push(frames: &mut Vec<Frame>, open: &mut bool, frame: Frame, lengths: &mut Vec<usize>) {
    if let Frame::Data { fin, data, .. } = &frame {
        if *open && let Some(Frame::Data { data: whole, fin: ended, .. }) = frames.last_mut() {
            *whole = [whole.clone(), data.clone()].concat().into();
            *ended = *fin;
        } else {
            frames.push(frame.clone());
        }
        let Some(Frame::Data { data: whole, .. }) = frames.last() else { return };
        *open = whole.len() < lengths[0];
        if !*open {
            lengths.remove(0);
        }
    } else {
        frames.push(frame);
    }
}

proptest! {
    #[test]
    fn frames_come_back_as_they_went_however_they_are_cut(
        frames in proptest::collection::vec(frame(), 0..12),
        cuts in proptest::collection::vec(1..400usize, 1..50),
    ) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut bytes);
        }
        let mut lengths: Vec<usize> = frames
            .iter()
            .filter_map(|frame| match frame { Frame::Data { data, .. } => Some(data.len()), _ => None })
            .collect();
        let (mut decoder, mut input, mut back) = (Decoder::new(), BytesMut::new(), Vec::new());
        let (mut cuts, mut open) = (cuts.iter().cycle(), false);
        while !bytes.is_empty() {
            let cut = bytes.len().min(*cuts.next().unwrap());
            input.unsplit(bytes.split_to(cut));
            while let Some(frame) = decoder.decode(&mut input).unwrap() {
                push(&mut back, &mut open, frame, &mut lengths);
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..2000), kind in 0..12u8) {
        // Without a right head nearly everything is data.
        let mut input = BytesMut::from(&[0x80, 3, 0, kind][..]);
        input.extend_from_slice(&bytes);
        let mut decoder = Decoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut input) {}
    }
}

#[test]
fn hostile_frames_are_refused() {
    let control = |kind: u8, flags: u8, body: &[u8]| {
        let mut frame = vec![0x80, 3, 0, kind, flags, 0, 0, body.len() as u8];
        frame.extend(body);
        frame
    };
    for (bytes, expected) in [
        (vec![0x80, 2, 0, 1, 0, 0, 0, 0], Malformed::Version(2)),
        (vec![0, 0, 0, 0, 0, 0, 0, 1], Malformed::Stream(0)),
        (control(1, 0, &[0; 9]), Malformed::Length { kind: 1, length: 9 }),
        (control(1, 4, &[0; 10]), Malformed::Flags { kind: 1, flags: 4 }),
        (control(1, 0, &[0; 10]), Malformed::Compression),
        (control(3, 0, &[0; 8]), Malformed::Stream(0)),
        (control(3, 1, &[0, 0, 0, 1, 0, 0, 0, 1]), Malformed::Flags { kind: 3, flags: 1 }),
        (control(3, 0, &[0; 9]), Malformed::Length { kind: 3, length: 9 }),
        (control(4, 0, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Malformed::Length { kind: 4, length: 12 }),
        (control(4, 0, &[255, 255, 255, 255]), Malformed::Length { kind: 4, length: 4 }),
        (control(6, 0, &[0; 3]), Malformed::Length { kind: 6, length: 3 }),
        (control(9, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), Malformed::Window(0)),
        // The head alone says that this is too long; nothing of it needs to come.
        (vec![0x80, 3, 0, 8, 0, 0xff, 0xff, 0xff], Malformed::Length { kind: 8, length: 0xff_ffff }),
    ] {
        let mut input = BytesMut::from(&bytes[..]);
        assert_eq!(Decoder::new().decode(&mut input), Err(expected), "{bytes:?}");
    }
    // A type that means nothing is passed over, however long it is.
    let mut input = BytesMut::from(&[0x80, 3, 0, 11, 0, 0, 0, 3, 1, 2, 3][..]);
    input.extend_from_slice(&control(6, 0, &[0, 0, 0, 5]));
    assert_eq!(Decoder::new().decode(&mut input), Ok(Some(Frame::Ping { id: 5 })));
}

/// Two ends of one connection.
fn pair(tasks: &Tasks) -> (Connection, Connection) {
    let (one, other) = tokio::io::duplex(4096);
    let (client, server) = (Connection::new(Role::Client), Connection::new(Role::Server));
    for (connection, io) in [(client.clone(), one), (server.clone(), other)] {
        tasks.spawn("connection", async move {
            connection.run(io).await.unwrap();
        });
    }
    (client, server)
}

/// Lets the others do what they can.
async fn rest() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let tasks = Tasks::new("test");
    let (client, server) = pair(&tasks);
    let stream = client.open(Headers::new().with("streamType", "data")).unwrap();
    let sent: Vec<u8> = (0..8u32 << 20).map(|number| ((number * 7) >> 3) as u8).collect();
    let bytes = Bytes::from(sent.clone());
    tasks.spawn("writer", async move {
        for piece in bytes.chunks(10_000) {
            stream.write(bytes.slice_ref(piece)).await.unwrap();
        }
        stream.finish();
        assert_eq!(stream.read().await, Ok(None));
    });
    let stream = server.accept().await.unwrap();
    assert_eq!(stream.headers().get("streamtype"), Some("data"));
    let mut got = Vec::new();
    while let Some(data) = stream.read().await.unwrap() {
        got.extend_from_slice(&data);
        rest().await;
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    stream.finish();
    drop(stream);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_hold_up_the_others() {
    let tasks = Tasks::new("test");
    let (client, server) = pair(&tasks);
    let (stuck, lively) = (client.open(Headers::new()).unwrap(), client.open(Headers::new()).unwrap());
    tasks.spawn(
        "stuck writer",
        async move { while stuck.write(Bytes::from(vec![0; 50_000])).await.is_ok() {} },
    );
    let unread = server.accept().await.unwrap();
    let echo = server.accept().await.unwrap();
    tasks.spawn("echo", async move {
        echo.reply();
        while let Some(data) = echo.read().await.unwrap() {
            echo.write(data).await.unwrap();
        }
        echo.finish();
    });
    lively.replied().await.unwrap();
    for round in 0..100u8 {
        lively.write(Bytes::from(vec![round; 3000])).await.unwrap();
        let mut back = 0;
        while back < 3000 {
            back += lively.read().await.unwrap().unwrap().len();
        }
        rest().await;
    }
    lively.finish();
    assert_eq!(lively.read().await, Ok(None));
    drop(unread);
}

#[tokio::test]
async fn resets_and_ends_are_told() {
    let tasks = Tasks::new("test");
    let (client, server) = pair(&tasks);
    let refused = client.open(Headers::new()).unwrap();
    server.accept().await.unwrap().reset(Reset::RefusedStream);
    assert_eq!(refused.replied().await, Err(StreamError::Reset(Reset::RefusedStream)));
    let dropped = client.open(Headers::new()).unwrap();
    drop(server.accept().await.unwrap());
    assert_eq!(dropped.read().await, Err(StreamError::Reset(Reset::Cancel)));
    let cut = client.open(Headers::new()).unwrap();
    let cutting = server.accept().await.unwrap();
    cutting.write(Bytes::from("wrong")).await.unwrap();
    rest().await;
    cutting.reset(Reset::Cancel);
    assert_eq!(cut.read_all(3).await.unwrap(), b"wro", "what came before a reset counts");
    let last = client.open(Headers::new()).unwrap();
    let words = server.accept().await.unwrap();
    words.write(Bytes::from("bye")).await.unwrap();
    words.finish();
    assert_eq!(words.write(Bytes::from("x")).await, Err(StreamError::Finished));
    server.close();
    assert_eq!(last.read_all(100).await.unwrap(), b"bye");
    client.ended().await;
    assert_eq!(last.write(Bytes::from("x")).await, Err(StreamError::Ended));
    assert!(client.accept().await.is_none());
    assert!(client.open(Headers::new()).is_err());
}
