//! Output for whoever is attached. A client that does not keep up is dropped: it never holds up the log.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::protocol::Frame;

/// How many pieces a client may be behind.
const BEHIND: usize = 256;

/// The attached clients.
#[derive(Debug, Default)]
pub(super) struct Fanout(Mutex<Clients>);

#[derive(Debug, Default)]
struct Clients {
    senders: Vec<mpsc::Sender<Frame>>,
    closed: bool,
}

impl Fanout {
    /// Output from now on; ends with the container's output, or early if the receiver is too slow.
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Frame> {
        let (sender, receiver) = mpsc::channel(BEHIND);
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.closed {
            clients.senders.push(sender);
        }
        receiver
    }

    pub(super) fn wanted(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).senders.is_empty()
    }

    pub(super) fn send(&self, frame: &Frame) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.senders.retain(|client| client.try_send(frame.clone()).is_ok());
    }

    /// No more output will come.
    pub(super) fn close(&self) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.closed = true;
        clients.senders.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_slow_client_is_dropped_and_the_others_go_on() {
        let fanout = Fanout::default();
        let (slow, mut quick) = (fanout.subscribe(), fanout.subscribe());
        let frame = Frame::Stdout(Bytes::from_static(b"x"));
        for _ in 0..BEHIND + 1 {
            fanout.send(&frame);
            assert!(quick.try_recv().is_ok());
        }
        assert_eq!(slow.len(), BEHIND);
        assert!(slow.is_closed());
        fanout.close();
        assert!(quick.is_closed());
        assert!(fanout.subscribe().is_closed());
    }
}
