//! Watches on etcd.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::{
    Client, EventType, GetOptions, KvClient, TxnOp, TxnOpResponse, WatchRequestSender, WatchResponse,
    WatchResponseStream,
};
use tokio::sync::Notify;

use crate::Store;
use crate::error::Error;
use crate::etcd::members::Repeat;
use crate::etcd::{Etcd, MAX_ANSWER, first, get_options, is_empty, key_value, translate, watch_options};
use crate::types::{Range, Revision};
use crate::watch::{Event, EventKind, WatchMessage, WatchSource};

/// A watch on its own stream.
pub(super) struct EtcdWatch {
    etcd: Etcd,
    range: Range,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    prev: bool,
    /// Everything up to here was delivered or is in `queue`.
    position: Revision,
    /// How many keys the range has at `position`; `None` if that isn't known.
    keys: Option<i64>,
    queue: VecDeque<WatchMessage>,
    /// How many progress messages were asked for, and how many of them from the server.
    asked: AtomicU64,
    forwarded: u64,
    wake: Notify,
    ended: bool,
}

/// Starts a watch; `from` as in [`Store::watch`].
pub(super) async fn open(
    etcd: &Etcd,
    start: String,
    end: Option<String>,
    from: Revision,
    prev: bool,
) -> Result<EtcdWatch, Error> {
    let range = Range { start, end, ..Range::default() };
    if is_empty(&range.start, range.end.as_deref()) {
        return Err(Error::Invalid(format!("empty range {:?}..{:?} to watch", range.start, range.end)));
    }
    // Reading at the revision before the first one wanted proves that no history is missing, deletions and
    // previous values included. etcd itself would start a watch at the compacted revision.
    let (position, keys) = match from {
        0 => {
            let now = etcd.range(range.clone().count_only()).await?;
            (now.revision, Some(now.count))
        }
        // Before the first revision that there can be.
        1 => match etcd.range(range.clone().at(1).count_only()).await {
            Ok(_) => (0, Some(0)),
            Err(error) => return Err(error),
        },
        from => match etcd.range(range.clone().at(from - 1).count_only()).await {
            Ok(answer) => (from - 1, Some(answer.count)),
            Err(Error::FutureRevision { .. }) => (from - 1, None),
            Err(error) => return Err(error),
        },
    };
    let (requests, responses) = start_stream(etcd, &range, position + 1, prev).await?;
    Ok(EtcdWatch {
        etcd: etcd.clone(),
        range,
        requests,
        responses,
        prev,
        position,
        keys,
        queue: VecDeque::new(),
        asked: AtomicU64::new(0),
        forwarded: 0,
        wake: Notify::new(),
        ended: false,
    })
}

async fn start_stream(
    etcd: &Etcd,
    range: &Range,
    from: Revision,
    prev: bool,
) -> Result<(WatchRequestSender, WatchResponseStream), Error> {
    let watch = |client: &Client| {
        let mut client = client.watch_client().max_decoding_message_size(MAX_ANSWER);
        let (key, options) = (first(&range.start), watch_options(range.end.as_deref(), from, prev));
        async move { client.watch(key, Some(options)).await }
    };
    let stream = etcd.ask(Repeat::Always, watch).await?;
    let (requests, mut responses) = stream.split();
    match etcd.call(responses.message()).await? {
        Some(created) if created.canceled() => Err(cancelled(&created)),
        Some(_) => Ok((requests, responses)),
        None => Err(Error::Unavailable("etcd ended the watch at once".to_owned())),
    }
}

/// Asks etcd for the oldest revision it still has, which only its watches tell.
pub(super) async fn compacted_revision(etcd: &Etcd) -> Result<Revision, Error> {
    let range = Range::key("\0");
    let (_requests, mut responses) = match start_stream(etcd, &range, 1, false).await {
        Ok(stream) => stream,
        Err(Error::Compacted { revision }) => return Ok(revision),
        Err(error) => return Err(error),
    };
    match etcd.call(responses.message()).await? {
        Some(response) if response.compact_revision() > 0 => Ok(response.compact_revision()),
        _ => Err(Error::Unavailable("etcd does not say what it has compacted".to_owned())),
    }
}

fn cancelled(response: &WatchResponse) -> Error {
    if response.compact_revision() > 0 {
        Error::Compacted { revision: response.compact_revision() }
    } else {
        Error::Unavailable(format!("etcd cancelled the watch: {}", response.cancel_reason()))
    }
}

impl EtcdWatch {
    /// Takes in what the server sent.
    fn take(&mut self, response: &WatchResponse) -> Result<(), Error> {
        if response.canceled() {
            return Err(cancelled(response));
        }
        if response.events().is_empty() && !response.created() {
            let revision = response.header().map_or(0, |header| header.revision());
            if self.etcd.ordered_progress && revision >= self.position {
                self.position = revision;
                self.queue.push_back(WatchMessage::Progress(revision));
            }
            return Ok(());
        }
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = kv.mod_revision();
            // Servers have been known to repeat events (etcd issues 15271, 17247, 20221).
            let queued = self.queue.back().is_some_and(
                |last| matches!(last, WatchMessage::Events { revision: last, .. } if *last == revision),
            );
            if revision <= self.position && !queued {
                tracing::warn!(revision, position = self.position, "etcd sent an event late or twice");
                continue;
            }
            let deleted = event.event_type() == EventType::Delete;
            let kv = key_value(kv)?;
            if let Some(keys) = &mut self.keys {
                *keys += match (deleted, kv.version) {
                    (true, _) => -1,
                    (false, 1) => 1,
                    _ => 0,
                };
            }
            let prev = if self.prev { event.prev_kv().map(key_value).transpose()? } else { None };
            let kind = if deleted { EventKind::Delete } else { EventKind::Put };
            let event = Event { kind, kv, prev };
            match self.queue.back_mut() {
                Some(WatchMessage::Events { revision: last, events }) if *last == revision => {
                    events.push(event)
                }
                _ => self.queue.push_back(WatchMessage::Events { revision, events: vec![event] }),
            }
            self.position = revision;
        }
        Ok(())
    }

    /// For servers whose own progress messages can't be trusted: reads whether anything in the range was
    /// written since `position`, or deleted (then the number of keys differs). If neither, the range is
    /// what was delivered, and progress is certain; otherwise the missing events are on their way.
    /// Keys that were created and deleted in between are invisible to this and are dropped when they come.
    async fn prove(&mut self) -> Result<bool, Error> {
        let newer = |revision| {
            let options = get_options(&self.range.clone().keys_only().limit(1));
            TxnOp::get(first(&self.range.start), Some(options.with_min_mod_revision(revision)))
        };
        let count: Option<GetOptions> = Some(get_options(&self.range.clone().count_only()));
        let ops = vec![newer(self.position + 1), TxnOp::get(first(&self.range.start), count)];
        let read = etcd_client::Txn::new().and_then(ops);
        let ask = |mut kv: KvClient| {
            let read = read.clone();
            async move { kv.txn(read).await }
        };
        let response = self.etcd.ask_kv(Repeat::Always, ask).await?;
        let revision = response.header().map_or(0, |header| header.revision());
        let (Some(TxnOpResponse::Get(newer)), Some(TxnOpResponse::Get(counted))) =
            (response.op_responses().first().cloned(), response.op_responses().get(1).cloned())
        else {
            return Err(Error::Damaged("etcd answered something else than two reads".to_owned()));
        };
        if revision < self.position {
            // A watch of the future.
            self.queue.push_back(WatchMessage::Progress(revision));
            return Ok(true);
        }
        let known = match self.keys {
            Some(keys) => keys,
            None => self.etcd.range(self.range.clone().at(self.position.max(1)).count_only()).await?.count,
        };
        self.keys = Some(known);
        if !newer.kvs().is_empty() || counted.count() != known {
            return Ok(false);
        }
        self.position = revision;
        self.queue.push_back(WatchMessage::Progress(revision));
        Ok(true)
    }

    /// One step: forwards a request for progress or takes in a response.
    async fn step(&mut self) -> Result<(), Error> {
        let asked = self.asked.load(Ordering::Acquire);
        if asked != self.forwarded {
            if self.etcd.ordered_progress {
                self.requests.request_progress().await.map_err(|error| translate(&error))?;
                self.forwarded = asked;
            } else if self.prove().await? {
                self.forwarded = asked;
                return Ok(());
            }
            // Not proven: the events that are on their way will bring the next try.
        }
        let response = tokio::select! {
            biased;
            response = self.responses.message() => response.map_err(|error| translate(&error))?,
            () = self.wake.notified() => return Ok(()),
        };
        match response {
            Some(response) => self.take(&response),
            None => Err(Error::Unavailable("etcd ended the watch".to_owned())),
        }
    }
}

#[async_trait::async_trait]
impl WatchSource for EtcdWatch {
    async fn next(&mut self) -> Option<Result<WatchMessage, Error>> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.step().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    fn request_progress(&self) {
        self.asked.fetch_add(1, Ordering::Release);
        self.wake.notify_one();
    }
}
