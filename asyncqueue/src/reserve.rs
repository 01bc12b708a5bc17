//! Reserves room in the store for what ends calls.
//!
//! A store that is full of calls drains by ending them, and their results, tombstones and dead
//! letters need room. So fill streams occupy some of the store. They are purged as soon as one of
//! those records, or a call, is refused for lack of space ([`release`]). They are filled again when
//! there is room for twice as much ([`keep_full`]). While they are not full, gateways refuse new
//! calls (`is_short`), which would otherwise take the freed room.
//!
//! In a cluster, there is one fill stream for each copy of the queues' streams, each on a single
//! server. A server over its limit accepts no more entries of replicated streams, not even a purge
//! (nats-server 2.15.1). It continues as soon as its own fill stream is purged.
//!
//! The JetStream account does not show the limit of its server. So the reserve records how much was
//! stored when the store was full. If that is not recorded, filling shows whether there is room.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    message::PublishMessage,
    stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::{
    task::unconstrained,
    time::{Instant, sleep},
};

use crate::{
    jetstream::{NatsError, find_stream, last_message},
    publish_failure::PublishFailure,
};

/// The first stream, and the subject of its messages. The others have a number appended:
/// `asyncqueue-reserve-2`.
pub const STREAM: &str = "asyncqueue-reserve";

/// Maximum number of fill streams: as many as a stream can have copies.
const MAX_STREAMS: usize = 5;

/// Header of a message in a reserve that was released: how many bytes the account held when the
/// store was full.
pub const H_FULL_AT: &str = "Async-Full-At";

/// Core NATS subject: a message is published when the reserve is released, so that gateways notice
/// at once. No payload, no reply.
pub(crate) const RELEASED_SUBJECT: &str = "asyncqueue.reserve.released";

/// Metadata key: how many bytes the reserve holds when it is full.
const META_BYTES: &str = "asyncqueue.io/reserve-bytes";

/// Minimum size of the reserve in bytes, unless that would be a large part of a small store.
const MIN_BYTES: u64 = 16 * 1024 * 1024;

/// Divides the account's limit: the quotient is the size of the reserve, within its bounds.
const ACCOUNT_DIVISOR: u64 = 20;

/// Divides the size of a store: the quotient is the maximum size of the reserve.
const MAX_SIZE_DIVISOR: u64 = 4;

/// Size of a fill message in bytes, if the server accepts that size.
const MAX_FILL_MESSAGE: usize = 256 * 1024;

/// Interval at which a gateway checks whether the reserve is full.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How long a failed release is retried: a cluster elects a leader in less time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two attempts.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(250);

/// The outcome of an attempt to keep the reserve full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOutcome {
    /// The reserve was full.
    Full,
    /// The reserve was filled now.
    Filled,
    /// There is no room for the reserve yet.
    NoSpace,
}

/// One stream of the reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reserve {
    name: String,
    /// Number of bytes that it holds.
    held: u64,
    /// Number of bytes that it holds when it is full. 0: it was never full.
    full: u64,
    /// Number of bytes that the account held when the store was full, if that was recorded.
    full_at: Option<u64>,
}

/// Fills the reserve if there is room for it, and creates it if it is missing: one stream for each
/// of `replicas` copies.
///
/// A new reserve takes the room that the store has, up to a quarter. One that was released is
/// filled again when there is room for twice as much, so that it is not released again at once. If
/// there is no room for one of the streams, all are released: a server that is over its limit and
/// still holds its fill stream would never deliver anything.
pub async fn keep_full(js: &Context, replicas: usize) -> Result<FillOutcome, NatsError> {
    let account =
        js.query_account().await.map_err(NatsError::during("read the limits of the account"))?;
    let limit = account.limits.max_storage.and_then(|limit| u64::try_from(limit).ok());
    let wanted = wanted_bytes(limit.filter(|limit| *limit > 0));
    let mut streams = Vec::new();
    for number in 1..=replicas.clamp(1, MAX_STREAMS) {
        streams.push(read_or_create(js, name(number), wanted).await?);
    }
    if streams.iter().any(|stream| stream.has_no_space(account.storage)) {
        release(js).await?;
        return Ok(FillOutcome::NoSpace);
    }
    let mut kept = FillOutcome::Full;
    for stream in &streams {
        match fill_again(js, stream, wanted).await? {
            FillOutcome::Full => {}
            FillOutcome::Filled => kept = FillOutcome::Filled,
            FillOutcome::NoSpace => {
                record_full_at(js, &stream.name, account.storage).await;
                release(js).await?;
                return Ok(FillOutcome::NoSpace);
            }
        }
    }
    Ok(kept)
}

/// Releases the room of the reserve. Returns whether it held any.
///
/// When a store is full, a cluster may have no leader, because a server over its limit resigns as
/// leader. So a failed release is retried for a while. [`keep_full`] releases the streams that
/// remain after that.
pub async fn release(js: &Context) -> Result<bool, NatsError> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    // Read before the purge, which frees some of it.
    let used = js.query_account().await.ok().map(|account| account.storage);
    let mut held_any = false;
    loop {
        let Released { held, failure } = release_each(js, used).await;
        if held {
            held_any = true;
            // Gateways that do not receive it check for themselves.
            let _ = js.client().publish(RELEASED_SUBJECT, Bytes::new()).await;
        }
        match failure {
            Some(_) if Instant::now() < deadline => sleep(RELEASE_RETRY_DELAY).await,
            Some(error) if !held_any => return Err(error),
            _ => return Ok(held_any),
        }
    }
}

/// The outcome of releasing all streams once.
struct Released {
    /// Whether one of them held any room.
    held: bool,
    /// Why at least one of them could not be released.
    failure: Option<NatsError>,
}

/// Releases each stream, even if others fail.
async fn release_each(js: &Context, used: Option<u64>) -> Released {
    let mut released = Released { held: false, failure: None };
    for number in 1..=MAX_STREAMS {
        match release_one(js, &name(number), used).await {
            Ok(Some(held)) => released.held |= held,
            Ok(None) => break,
            Err(error) => released.failure = Some(error),
        }
    }
    released
}

/// Releases one stream. Returns whether it held any room; `None` if the stream does not exist.
async fn release_one(
    js: &Context,
    stream: &str,
    used: Option<u64>,
) -> Result<Option<bool>, NatsError> {
    let Some(before) = info(js, stream).await? else { return Ok(None) };
    if before.state.bytes < chunk(js) as u64 {
        return Ok(Some(false));
    }
    purge(js, stream, 0).await?;
    if let Some(used) = used {
        record_full_at(js, stream, used).await;
    }
    Ok(Some(true))
}

/// Stores what ends a call. If the store has no room for it, releases the reserve and stores it
/// again.
pub async fn with_space<T, F>(js: &Context, store: impl Fn() -> F) -> Result<T, NatsError>
where
    F: Future<Output = Result<T, NatsError>>,
{
    match store().await {
        Err(error)
            if PublishFailure::from_error(&error) == PublishFailure::NoSpace
                && release(js).await? =>
        {
            store().await
        }
        result => result,
    }
}

/// Returns whether the reserve is not full, so that no calls should be stored. `false` if there is
/// no reserve.
pub(crate) async fn is_short(js: &Context) -> Result<bool, NatsError> {
    for number in 1..=MAX_STREAMS {
        match info(js, &name(number)).await? {
            Some(info) if info.state.bytes < full_bytes(&info) => return Ok(true),
            Some(_) => {}
            None => break,
        }
    }
    Ok(false)
}

/// Calls `set` with whether the reserve is short, whenever that may have changed, for as long as
/// the future is polled.
pub async fn watch(js: &Context, set: impl Fn(bool)) {
    loop {
        // Without a subscription, the interval stays the same.
        let mut released = js.client().subscribe(RELEASED_SUBJECT).await.ok();
        loop {
            if let Ok(is_short) = is_short(js).await {
                set(is_short);
            }
            let Some(released) = &mut released else {
                sleep(POLL_INTERVAL).await;
                break;
            };
            if let Ok(None) = tokio::time::timeout(POLL_INTERVAL, released.next()).await {
                break;
            }
            // One check is enough for all that came since, however many a client invents.
            while let Some(Some(_)) = unconstrained(released.next()).now_or_never() {}
        }
    }
}

// === impl Reserve ===

impl Reserve {
    /// Returns whether the reserve was released and there is no room yet to fill it again: its
    /// server would be full of calls again at once. `used` is what the account holds, in bytes.
    fn has_no_space(&self, used: u64) -> bool {
        self.held < self.full
            && self.full_at.is_some_and(|full_at| used.saturating_add(self.full * 2) > full_at)
    }
}

/// Returns how many bytes to reserve for a limit of the account.
fn wanted_bytes(account_limit: Option<u64>) -> u64 {
    account_limit.map_or(MIN_BYTES, |limit| {
        (limit / ACCOUNT_DIVISOR).max(MIN_BYTES).min(limit / MAX_SIZE_DIVISOR)
    })
}

/// Returns how many bytes a reserve holds when it is full.
fn full_bytes(info: &Info) -> u64 {
    info.config.metadata.get(META_BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or_default()
}

/// Returns the name of one of the streams, counted from 1.
fn name(number: usize) -> String {
    if number == 1 { STREAM.to_owned() } else { format!("{STREAM}-{number}") }
}

/// Reads the state of a stream, and creates the stream if it is missing.
async fn read_or_create(js: &Context, name: String, wanted: u64) -> Result<Reserve, NatsError> {
    let Some(info) = info(js, &name).await? else {
        create(js, &name, wanted).await?;
        return Ok(Reserve { name, held: 0, full: 0, full_at: None });
    };
    let (held, full) = (info.state.bytes, full_bytes(&info));
    let full_at = if held < full { full_at(js, &name).await? } else { None };
    Ok(Reserve { name, held, full, full_at })
}

/// Fills a stream that is not full. Leaves it empty if there is no room.
async fn fill_again(
    js: &Context,
    reserve: &Reserve,
    wanted: u64,
) -> Result<FillOutcome, NatsError> {
    let Reserve { name, held, full, .. } = reserve;
    if *full == 0 {
        return fill_new(js, name, wanted).await;
    }
    if held >= full {
        return Ok(FillOutcome::Full);
    }
    if fill(js, name, *held, full * 2).await? < full * 2 {
        purge(js, name, 0).await?;
        return Ok(FillOutcome::NoSpace);
    }
    purge(js, name, full.div_ceil(chunk(js) as u64)).await?;
    Ok(FillOutcome::Filled)
}

async fn create(js: &Context, stream: &str, bytes: u64) -> Result<(), NatsError> {
    let config = Config {
        name: stream.to_owned(),
        description: Some(
            "AsyncQueue: room for what ends calls, given away when the store is full".to_owned(),
        ),
        subjects: vec![stream.to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        storage: StorageType::File,
        num_replicas: 1,
        metadata: [(META_BYTES.to_owned(), bytes.to_string())].into(),
        ..Config::default()
    };
    js.create_stream(config).await.map(drop).map_err(NatsError::during("create the reserve"))
}

/// Fills a stream that was never full. If not everything fits, its full size is smaller.
async fn fill_new(js: &Context, stream: &str, wanted: u64) -> Result<FillOutcome, NatsError> {
    let reached = fill(js, stream, 0, wanted).await?;
    if reached >= wanted {
        return set_full_bytes(js, stream, wanted).await.map(|()| FillOutcome::Filled);
    }
    purge(js, stream, 0).await?;
    let smaller = reached / MAX_SIZE_DIVISOR;
    set_full_bytes(js, stream, smaller).await?;
    Ok(if fill(js, stream, 0, smaller).await? >= smaller {
        FillOutcome::Filled
    } else {
        FillOutcome::NoSpace
    })
}

/// Publishes fill messages until a stream holds `bytes` bytes, or there is no room. Returns how
/// many bytes it then holds.
async fn fill(js: &Context, stream: &str, mut held: u64, bytes: u64) -> Result<u64, NatsError> {
    let chunk = Bytes::from(vec![0; chunk(js)]);
    while held < bytes {
        let published = async { js.publish(stream.to_owned(), chunk.clone()).await?.await };
        match published.await {
            Ok(_) => held += chunk.len() as u64,
            Err(error) => match PublishFailure::from_error(&error) {
                PublishFailure::NoSpace | PublishFailure::StreamFull => break,
                _ => return Err(NatsError::during("fill the reserve")(error)),
            },
        }
    }
    Ok(held)
}

/// Returns the size of a fill message in bytes.
fn chunk(js: &Context) -> usize {
    MAX_FILL_MESSAGE.min(js.client().max_payload() / 2)
}

/// Records in a stream that was just purged how many bytes the account held when the store was
/// full. Without this record, [`keep_full`] finds out by filling.
async fn record_full_at(js: &Context, stream: &str, bytes: u64) {
    let record = PublishMessage::build().header(H_FULL_AT, bytes.to_string().as_str());
    if let Ok(stored) = js.send_publish(stream.to_owned(), record).await {
        let _ = stored.await;
    }
}

/// Returns how many bytes the account held when the store was full, if that was recorded.
async fn full_at(js: &Context, stream: &str) -> Result<Option<u64>, NatsError> {
    let record = last_message(js, stream, stream).await?;
    Ok(record.and_then(|record| record.headers.get(H_FULL_AT)?.as_str().parse().ok()))
}

/// Purges a stream except for `keep` messages.
async fn purge(js: &Context, stream: &str, keep: u64) -> Result<(), NatsError> {
    let stream: Stream<()> =
        js.get_stream_no_info(stream).await.map_err(NatsError::during("open the reserve"))?;
    stream.purge().keep(keep).await.map(drop).map_err(NatsError::during("purge the reserve"))
}

async fn set_full_bytes(js: &Context, stream: &str, bytes: u64) -> Result<(), NatsError> {
    let Some(info) = info(js, stream).await? else { return Ok(()) };
    if full_bytes(&info) == bytes {
        return Ok(());
    }
    let mut config = info.config;
    config.metadata.insert(META_BYTES.to_owned(), bytes.to_string());
    js.update_stream(config).await.map(drop).map_err(NatsError::during("update the reserve"))
}

/// Returns the server's information about a stream of the reserve; `None` if it does not exist.
async fn info(js: &Context, stream: &str) -> Result<Option<Info>, NatsError> {
    let stream = find_stream(js, stream).await.map_err(NatsError::during("read the reserve"))?;
    Ok(stream.map(|stream| stream.cached_info().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_released_stream_is_filled_where_there_is_room_for_twice_as_much() {
        let reserve = |held, full_at| Reserve { name: STREAM.to_owned(), held, full: 10, full_at };
        assert!(reserve(0, Some(100)).has_no_space(81));
        assert!(!reserve(0, Some(100)).has_no_space(80));
        // It is full, or nothing is known.
        assert!(!reserve(10, Some(100)).has_no_space(99));
        assert!(!reserve(0, None).has_no_space(99));
    }

    #[test]
    fn the_reserve_is_a_part_of_the_accounts_limit_within_bounds() {
        assert_eq!(wanted_bytes(None), 16 * MIB);
        assert_eq!(wanted_bytes(Some(1024 * MIB)), 1024 * MIB / 20);
        assert_eq!(wanted_bytes(Some(100 * MIB)), 16 * MIB);
        assert_eq!(wanted_bytes(Some(20 * MIB)), 5 * MIB);
        assert_eq!(wanted_bytes(Some(1)), 0);
    }
}
