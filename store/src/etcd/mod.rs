//! The store on etcd 3.4 or newer.

mod members;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Tasks;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, CompareOp, ConnectOptions, DeleteOptions, GetOptions, GetResponse, Identity,
    KvClient, PutOptions, TlsOptions, TxnOp, TxnOpResponse, WatchOptions,
};

use self::members::{Members, Repeat, no_connection};
use crate::Store;
use crate::error::Error;
use crate::types::{
    Compare, KeyValue, Op, OpResult, Range, RangeResponse, Revision, TO_THE_END, Txn, TxnResponse,
    check_range,
};
use crate::watch::Watch;

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of the members, e.g. `https://10.0.0.1:2379`. Requests fail over between them.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signed the servers' certificates; `None` with `http://` endpoints.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key: Option<PathBuf>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for an answer.
    pub request_timeout: Duration,
}

impl EtcdConfig {
    /// Without TLS, and with default timeouts.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ca: None,
            cert: None,
            key: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// The store on etcd.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<Members>,
    request_timeout: Duration,
    /// Whether the server's progress messages are in order with its events.
    ordered_progress: bool,
}

/// Larger than the largest answer: a list has no limit of its own.
const MAX_ANSWER: usize = i32::MAX as usize;

impl Etcd {
    /// Connects, and asks the server for its version.
    pub async fn connect(config: EtcdConfig, _tasks: Tasks) -> Result<Self, Error> {
        let names = config.endpoints.join(", ");
        let open = |text: String| Error::Open(format!("can't use etcd at {names}: {text}"));
        if config.endpoints.is_empty() {
            return Err(Error::Open("no etcd endpoint given".to_owned()));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(config.connect_timeout)
            // Finds dead connections under watches, which may be silent for long.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = tls(&config).map_err(&open)? {
            options = options.with_tls(tls);
        }
        let members =
            Members::new(&config.endpoints, &options).await.map_err(|error| open(error.to_string()))?;
        let mut this = Self {
            members: Arc::new(members),
            request_timeout: config.connect_timeout,
            ordered_progress: false,
        };
        let status = this.ask(Repeat::Always, |client| {
            let mut client = client.clone();
            async move { client.status().await }
        });
        let status = status.await.map_err(|error| open(error.to_string()))?;
        let version = parse_version(status.version());
        if version < (3, 4, 0) {
            return Err(open(format!(
                "version {} is too old; 3.4 is the oldest supported",
                status.version()
            )));
        }
        this.ordered_progress = has_ordered_progress(version);
        this.request_timeout = config.request_timeout;
        Ok(this)
    }

    /// Asks one member after the other, until one answers or it is not certain that the request may be repeated.
    async fn ask<T, F>(&self, repeat: Repeat, request: impl Fn(&Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let mut last = Error::Unavailable("etcd was not asked".to_owned());
        for _ in 0..self.members.len() {
            let Some((member, client)) = self.members.current() else { break };
            let (error, sent) = match tokio::time::timeout(self.request_timeout, request(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match no_connection(&error) {
                    Some(why) => (Error::Unavailable(format!("no connection: {why}")), false),
                    None => (translate(&error), true),
                },
                Err(_) => (self.no_answer(), true),
            };
            if !matches!(error, Error::Unavailable(_)) {
                return Err(error);
            }
            self.members.turn_from(member);
            last = error;
            if sent && repeat == Repeat::IfNotSent {
                break;
            }
        }
        Err(last)
    }

    /// Waits for more of an answer that has begun.
    async fn call<T>(
        &self,
        future: impl Future<Output = Result<T, etcd_client::Error>> + Send,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.request_timeout, future).await {
            Ok(result) => result.map_err(|error| translate(&error)),
            Err(_) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> Error {
        Error::Unavailable(format!("no answer from etcd within {:?}", self.request_timeout))
    }

    /// For reads and transactions.
    async fn ask_kv<T, F>(&self, repeat: Repeat, request: impl Fn(KvClient) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let request = |client: &Client| request(client.kv_client().max_decoding_message_size(MAX_ANSWER));
        self.ask(repeat, request).await
    }

    /// Adds what etcd's own error does not say.
    async fn explain(&self, error: Error, requested: Revision) -> Error {
        match error {
            Error::Compacted { .. } => match watch::compacted_revision(self).await {
                Ok(revision) => Error::Compacted { revision },
                Err(error) => error,
            },
            Error::FutureRevision { .. } => {
                let current = self.revision().await.unwrap_or(0);
                Error::FutureRevision { requested, current }
            }
            other => other,
        }
    }
}

fn tls(config: &EtcdConfig) -> Result<Option<TlsOptions>, String> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()));
    if config.ca.is_none() && config.cert.is_none() {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    if let Some(ca) = &config.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => return Err("a client certificate and its key go together; give both or none".to_owned()),
    }
    Ok(Some(tls))
}

fn parse_version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Older servers may send a progress message before events that it covers (etcd issue 15220).
fn has_ordered_progress(version: (u32, u32, u32)) -> bool {
    match version {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        version => version >= (3, 6, 0),
    }
}

/// etcd's error in the store's words. Revisions are filled in by [`Etcd::explain`].
fn translate(error: &etcd_client::Error) -> Error {
    const INVALID_ARGUMENT: i32 = 3;
    let etcd_client::Error::GRpcStatus(status) = error else {
        return match error {
            etcd_client::Error::InvalidArgs(text) => Error::Invalid(text.clone()),
            other => Error::Unavailable(other.to_string()),
        };
    };
    let text = status.message();
    if text.contains("has been compacted") {
        Error::Compacted { revision: 0 }
    } else if text.contains("future revision") {
        Error::FutureRevision { requested: 0, current: 0 }
    } else if text.contains("lease not found") {
        Error::LeaseNotFound(0)
    } else if text.contains("space exceeded") {
        Error::NoSpace(text.to_owned())
    } else if text.contains("request is too large") || text.contains("larger than max") {
        Error::TooLarge(text.to_owned())
    } else if i32::from(status.code()) == INVALID_ARGUMENT {
        Error::Invalid(text.to_owned())
    } else {
        Error::Unavailable(format!("{}: {text}", status.code()))
    }
}

/// The first key of a range as etcd wants it: never empty.
fn first(start: &str) -> Vec<u8> {
    if start.is_empty() { vec![0] } else { start.as_bytes().to_vec() }
}

fn get_options(range: &Range) -> GetOptions {
    let mut options = GetOptions::new().with_revision(range.revision);
    if let Some(end) = &range.end {
        options = options.with_range(end.as_bytes());
    }
    // etcd returns no keys for count_only, and ranges are in key order by themselves.
    if range.count_only {
        return options.with_count_only();
    }
    options = options.with_limit(i64::try_from(range.limit).unwrap_or(i64::MAX));
    if range.keys_only { options.with_keys_only() } else { options }
}

/// An end at or before the start is an empty range to us; etcd is not asked, as it would refuse some.
fn is_empty(start: &str, end: Option<&str>) -> bool {
    end.is_some_and(|end| end != TO_THE_END && end <= start)
}

fn key_value(kv: &etcd_client::KeyValue) -> Result<KeyValue, Error> {
    let key = kv.key_str().map_err(|_| Error::Damaged(format!("a key is not UTF-8: {:?}", kv.key())))?;
    Ok(KeyValue {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    })
}

fn range_response(response: &GetResponse, revision: Revision) -> Result<RangeResponse, Error> {
    Ok(RangeResponse {
        revision: response.header().map_or(revision, |header| header.revision()),
        kvs: response.kvs().iter().map(key_value).collect::<Result<_, _>>()?,
        more: response.more(),
        count: response.count(),
    })
}

fn txn_op(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease, .. } => {
            TxnOp::put(key.as_bytes(), value.to_vec(), Some(PutOptions::new().with_lease(*lease)))
        }
        Op::Delete { key } => TxnOp::delete(key.as_bytes(), None),
        Op::DeleteRange { start, end } => {
            let options = end.as_ref().map(|end| DeleteOptions::new().with_range(end.as_bytes()));
            TxnOp::delete(first(start), options)
        }
        Op::Get(range) => TxnOp::get(first(&range.start), Some(get_options(range))),
    }
}

fn requested_revision(ops: &[Op]) -> Revision {
    ops.iter().map(|op| if let Op::Get(range) = op { range.revision } else { 0 }).max().unwrap_or(0)
}

#[async_trait::async_trait]
impl Store for Etcd {
    async fn range(&self, range: Range) -> Result<RangeResponse, Error> {
        check_range(&range)?;
        if is_empty(&range.start, range.end.as_deref()) {
            return Ok(RangeResponse { revision: self.revision().await?, ..RangeResponse::default() });
        }
        let get = |mut kv: KvClient| {
            let (key, options) = (first(&range.start), get_options(&range));
            async move { kv.get(key, Some(options)).await }
        };
        match self.ask_kv(Repeat::Always, get).await {
            Ok(response) => range_response(&response, 0),
            Err(error) => Err(self.explain(error, range.revision).await),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        txn.validate()?;
        let requested = requested_revision(&txn.success).max(requested_revision(&txn.failure));
        let lease = txn.success.iter().chain(&txn.failure).find_map(|op| match op {
            Op::Put { lease, .. } if *lease != 0 => Some(*lease),
            _ => None,
        });
        let compares: Vec<_> = txn
            .compare
            .iter()
            .map(|compare| match compare {
                Compare::ModRevision { key, equals } => {
                    etcd_client::Compare::mod_revision(key.as_bytes(), CompareOp::Equal, *equals)
                }
                Compare::CreateRevision { key, equals } => {
                    etcd_client::Compare::create_revision(key.as_bytes(), CompareOp::Equal, *equals)
                }
                Compare::Version { key, equals } => {
                    etcd_client::Compare::version(key.as_bytes(), CompareOp::Equal, *equals)
                }
            })
            .collect();
        let ops = |ops: &[Op]| ops.iter().map(txn_op).collect::<Vec<_>>();
        let request =
            etcd_client::Txn::new().when(compares).and_then(ops(&txn.success)).or_else(ops(&txn.failure));
        let commit = |mut kv: KvClient| {
            let request = request.clone();
            async move { kv.txn(request).await }
        };
        let response = match self.ask_kv(Repeat::IfNotSent, commit).await {
            Ok(response) => response,
            Err(Error::LeaseNotFound(_)) => return Err(Error::LeaseNotFound(lease.unwrap_or(0))),
            Err(error) => return Err(self.explain(error, requested).await),
        };
        let revision = response.header().map_or(0, |header| header.revision());
        let results = response
            .op_responses()
            .iter()
            .map(|result| match result {
                TxnOpResponse::Put(_) => Ok(OpResult::Put),
                TxnOpResponse::Delete(response) => Ok(OpResult::Deleted(response.deleted())),
                TxnOpResponse::Get(response) => range_response(response, revision).map(OpResult::Get),
                TxnOpResponse::Txn(_) => Err(Error::Damaged("etcd answered a nested transaction".to_owned())),
            })
            .collect::<Result<_, _>>()?;
        Ok(TxnResponse { succeeded: response.succeeded(), revision, results })
    }

    async fn watch(
        &self,
        start: String,
        end: Option<String>,
        from: Revision,
        prev: bool,
    ) -> Result<Watch, Error> {
        let range = Range { start, end, revision: from, ..Range::default() };
        check_range(&range)?;
        watch::open(self, range.start, range.end, from, prev).await.map(Watch::new)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let compact = |mut kv: KvClient| async move { kv.compact(revision, None).await };
        match self.ask_kv(Repeat::IfNotSent, compact).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, revision).await),
        }
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let grant = |client: &Client| {
            let mut lease = client.lease_client();
            async move { lease.grant(seconds, None).await }
        };
        Ok(self.ask(Repeat::IfNotSent, grant).await?.id())
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<(), Error> {
        let keep_alive = |client: &Client| {
            let mut lease = client.lease_client();
            // The client sends the first beat by itself, and reports a lease without time left as an error.
            async move { lease.keep_alive(id).await }
        };
        match self.ask(Repeat::Always, keep_alive).await {
            Ok(_) => Ok(()),
            Err(Error::LeaseNotFound(_)) => Err(Error::LeaseNotFound(id)),
            Err(Error::Unavailable(text)) if text.contains("lease") => Err(Error::LeaseNotFound(id)),
            Err(error) => Err(error),
        }
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        let revoke = |client: &Client| {
            let mut lease = client.lease_client();
            async move { lease.revoke(id).await }
        };
        match self.ask(Repeat::IfNotSent, revoke).await {
            Ok(_) => Ok(()),
            Err(Error::LeaseNotFound(_)) => Err(Error::LeaseNotFound(id)),
            Err(error) => Err(error),
        }
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.range(Range::key("\0").count_only()).await?.revision)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("request_timeout", &self.request_timeout).finish_non_exhaustive()
    }
}

/// The options of a watch on `start..end`.
fn watch_options(end: Option<&str>, from: Revision, prev: bool) -> WatchOptions {
    let mut options = WatchOptions::new().with_start_revision(from);
    if let Some(end) = end {
        options = options.with_range(end.as_bytes());
    }
    if prev { options.with_prev_key() } else { options }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_without_the_progress_bug_are_trusted() {
        for (version, trusted) in
            [("3.4.23", false), ("3.4.25", true), ("3.5.7", false), ("3.5.8", true), ("3.6.0-rc.1", true)]
        {
            assert_eq!(has_ordered_progress(parse_version(version)), trusted, "{version}");
        }
    }
}
