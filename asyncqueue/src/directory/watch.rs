//! Follows the directory in its bucket.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, kv};
use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep_until},
};
use tracing::{debug, warn};

use super::{Contents, Directory, snapshot::Snapshot};
use crate::{
    buckets::DIRECTORY,
    connection::wait_until_flapping,
    kv::{PollEvent, poll_bucket},
};

/// Interval between attempts to follow the bucket, which may not exist yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of changes that are applied together.
const MAX_BATCH: usize = 1024;

/// Interval between checks whether the bucket is still the same. The revisions of a bucket that was
/// deleted and recreated begin at 1, so a watch that continues would miss its entries.
const BUCKET_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Follows the directory as long as a receiver exists. The receiver holds `None` until the
/// directory has been read once, and from then on the last known state. Neither an outage of NATS
/// nor a bucket that is deleted and recreated empties it. A directory counts as read when its
/// marker ([`super::MARKER`]) is there.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use asyncqueue::directory::watch::{wait_until_read, watch};
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// let directory = watch(js.clone());
/// wait_until_read(&js, directory.clone(), Duration::from_secs(1)).await;
/// if let Some(known) = directory.borrow().as_ref() {
///     println!("{} functions", known.functions.len());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn watch(js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    watch_with(js, Snapshot::directory, Arc::ptr_eq)
}

/// Follows the content of the bucket, complete or not, for the program that writes it.
#[doc(hidden)]
#[must_use]
pub fn watch_as_writer(js: Context) -> watch::Receiver<Option<Contents>> {
    watch_with(js, |snapshot, _| snapshot.contents(), Contents::is_same)
}

/// Follows the value that `read` derives from the bucket.
fn watch_with<T: Clone + Send + Sync + 'static>(
    js: Context,
    read: fn(&mut Snapshot, Instant) -> Option<T>,
    is_same: fn(&T, &T) -> bool,
) -> watch::Receiver<Option<T>> {
    let (sender, receiver) = watch::channel(None);
    let publish = move |snapshot: &mut Snapshot, sender: &watch::Sender<Option<T>>| {
        let Some(read) = read(snapshot, Instant::now()) else { return };
        sender.send_if_modified(|known| {
            let has_changed = known.as_ref().is_none_or(|known| !is_same(known, &read));
            if has_changed {
                *known = Some(read);
            }
            has_changed
        });
    };
    tokio::spawn(async move {
        loop {
            let followed = async {
                match watch_once(&js, &sender, publish).await {
                    Ok(()) => debug!("the watch of the directory ended"),
                    Err(error) => debug!(%error, "failed to watch the directory, retrying"),
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            };
            let client = js.client();
            let is_over = tokio::select! {
                () = followed => false,
                () = sender.closed() => true,
                () = wait_until_flapping(&client) => tokio::select! {
                    () = poll_once(&js, &sender, publish) => false,
                    () = sender.closed() => true,
                },
            };
            if is_over {
                return;
            }
        }
    });
    receiver
}

/// Waits until the directory has been read, at most for `timeout`. Returns at once if there is no
/// directory.
pub async fn wait_until_read(
    js: &Context,
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    timeout: Duration,
) {
    let read = async {
        if DIRECTORY.open(js).await.is_ok() {
            // An error means that the directory is not followed any more.
            let _ = directory.wait_for(Option::is_some).await;
        }
    };
    let _ = tokio::time::timeout(timeout, read).await;
}

/// Returns the current directory, for a program that needs it once. It is empty if no bucket
/// exists, or if it was not read within `timeout`. A program that runs longer keeps the receiver of
/// [`watch`](fn@watch) instead.
pub async fn read_current(js: &Context, timeout: Duration) -> Arc<Directory> {
    let directory = watch(js.clone());
    wait_until_read(js, directory.clone(), timeout).await;
    let known = directory.borrow().clone();
    known.unwrap_or_default()
}

/// Polls the bucket for a while.
async fn poll_once<T>(
    js: &Context,
    sender: &watch::Sender<Option<T>>,
    publish: impl Fn(&mut Snapshot, &watch::Sender<Option<T>>),
) {
    let mut snapshot = Snapshot::new(sender.borrow().is_some(), false);
    let handle = |polled| match polled {
        PollEvent::Entry(key, value) => apply_entry(&mut snapshot, &key, value.as_deref()),
        PollEvent::Current => {
            snapshot.mark_current();
            publish(&mut snapshot, sender);
        }
    };
    poll_bucket(js, &DIRECTORY, ">", handle).await;
}

/// Applies an entry. One that can't be read changes nothing.
fn apply_entry(snapshot: &mut Snapshot, key: &str, value: Option<&[u8]>) {
    if let Err(error) = snapshot.apply(key, value, Instant::now()) {
        warn!(key, %error, "skipped an entry of the directory that can't be read");
    }
}

/// Reads the bucket once and then every change, until the watch ends or the bucket was replaced.
async fn watch_once<T>(
    js: &Context,
    sender: &watch::Sender<Option<T>>,
    publish: impl Fn(&mut Snapshot, &watch::Sender<Option<T>>),
) -> Result<(), async_nats::Error> {
    let bucket = DIRECTORY.open(js).await?;
    let status = bucket.status().await?;
    let (created, is_empty) = (status.info.created, status.values() == 0);
    let changes = bucket.watch_with_history(">").await?;
    let mut snapshot = Snapshot::new(sender.borrow().is_some(), is_empty);
    publish(&mut snapshot, sender);
    // Changes that arrived together are published together. Otherwise a directory of thousands
    // would be copied thousands of times. While nothing changes, memory holds one copy.
    let mut changes = changes.ready_chunks(MAX_BATCH);
    let mut checks = interval_at(Instant::now() + BUCKET_CHECK_INTERVAL, BUCKET_CHECK_INTERVAL);
    loop {
        let settled =
            snapshot.settles_at().unwrap_or_else(|| Instant::now() + BUCKET_CHECK_INTERVAL);
        tokio::select! {
            entries = changes.next() => {
                let Some(entries) = entries else { return Ok(()) };
                for entry in entries {
                    let entry = entry?;
                    let value = (entry.operation == kv::Operation::Put).then_some(&entry.value[..]);
                    apply_entry(&mut snapshot, &entry.key, value);
                    if entry.seen_current {
                        snapshot.mark_current();
                    }
                }
            }
            _ = checks.tick() => {
                // Without an answer nothing is known: the watch continues when NATS is back.
                if bucket.status().await.is_ok_and(|status| status.info.created != created) {
                    return Err("the bucket was deleted and recreated".into());
                }
            }
            () = sleep_until(settled) => {}
        }
        publish(&mut snapshot, sender);
    }
}
