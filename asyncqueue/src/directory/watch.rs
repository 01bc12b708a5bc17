//! Follows the directory in its bucket.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, kv};
use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{BUCKET, Contents, Directory, reading::Reading};
use crate::{
    connection::flaps,
    poll::{Polled, poll},
};

/// Interval between attempts to follow the bucket, which may not exist yet.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum number of changes that are applied together.
const CHUNK: usize = 1024;

/// Interval between checks whether the bucket is still the same. The revisions of a bucket that was
/// deleted and recreated begin at 1, so a watch that continues would miss its entries.
const CHECK: Duration = Duration::from_secs(10);

/// Follows the directory as long as a receiver exists. The receiver holds `None` until the
/// directory has been read once, and from then on the last known state. Neither an outage of NATS
/// nor a bucket that is deleted and recreated empties it. A directory counts as read when its
/// marker ([`super::MARKER`]) is there.
#[must_use]
pub fn follow(js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    follow_with(js, Reading::directory, Arc::ptr_eq)
}

/// Follows the content of the bucket, complete or not, for the program that writes it.
#[must_use]
pub fn follow_as_writer(js: Context) -> watch::Receiver<Option<Contents>> {
    follow_with(js, |reading, _| reading.contents(), Contents::is_same)
}

/// Follows the value that `read` derives from the bucket.
fn follow_with<T: Clone + Send + Sync + 'static>(
    js: Context,
    read: fn(&mut Reading, Instant) -> Option<T>,
    is_same: fn(&T, &T) -> bool,
) -> watch::Receiver<Option<T>> {
    let (sender, receiver) = watch::channel(None);
    let publish = move |reading: &mut Reading, sender: &watch::Sender<Option<T>>| {
        let Some(read) = read(reading, Instant::now()) else { return };
        sender.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| !is_same(known, &read));
            if is_news {
                *known = Some(read);
            }
            is_news
        });
    };
    tokio::spawn(async move {
        loop {
            let followed = async {
                match follow_once(&js, &sender, publish).await {
                    Ok(()) => debug!("the watch of the directory ended"),
                    Err(error) => debug!(%error, "the directory can't be followed now"),
                }
                tokio::time::sleep(RETRY).await;
            };
            let client = js.client();
            let is_over = tokio::select! {
                () = followed => false,
                () = sender.closed() => true,
                () = flaps(&client) => tokio::select! {
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

/// Waits until the directory has been read, at most for `patience`. Returns at once if there is no
/// directory.
pub async fn read_once(
    js: &Context,
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    patience: Duration,
) {
    let read = async {
        if BUCKET.open(js).await.is_ok() {
            // An error means that the directory is not followed any more.
            let _ = directory.wait_for(Option::is_some).await;
        }
    };
    let _ = timeout(patience, read).await;
}

/// Polls the bucket for a while.
async fn poll_once<T>(
    js: &Context,
    sender: &watch::Sender<Option<T>>,
    publish: impl Fn(&mut Reading, &watch::Sender<Option<T>>),
) {
    let mut reading = Reading::new(sender.borrow().is_some(), false);
    let take = |polled| match polled {
        Polled::Entry(key, value) => take_entry(&mut reading, &key, value.as_deref()),
        Polled::Current => {
            reading.is_current();
            publish(&mut reading, sender);
        }
    };
    poll(js, &BUCKET, ">", take).await;
}

/// Applies an entry. One that can't be read changes nothing.
fn take_entry(reading: &mut Reading, key: &str, value: Option<&[u8]>) {
    if let Err(error) = reading.take(key, value, Instant::now()) {
        warn!(key, %error, "an entry of the directory can't be read and is passed over");
    }
}

/// Reads the bucket once and then every change, until the watch ends or the bucket was replaced.
async fn follow_once<T>(
    js: &Context,
    sender: &watch::Sender<Option<T>>,
    publish: impl Fn(&mut Reading, &watch::Sender<Option<T>>),
) -> Result<(), async_nats::Error> {
    let bucket = BUCKET.open(js).await?;
    let status = bucket.status().await?;
    let (created, is_empty) = (status.info.created, status.values() == 0);
    let changes = bucket.watch_with_history(">").await?;
    let mut reading = Reading::new(sender.borrow().is_some(), is_empty);
    publish(&mut reading, sender);
    // Changes that arrived together are published together. Otherwise a directory of thousands
    // would be copied thousands of times. While nothing changes, memory holds one copy.
    let mut changes = changes.ready_chunks(CHUNK);
    let mut checks = interval_at(Instant::now() + CHECK, CHECK);
    loop {
        let settled = reading.settles_at().unwrap_or_else(|| Instant::now() + CHECK);
        tokio::select! {
            entries = changes.next() => {
                let Some(entries) = entries else { return Ok(()) };
                for entry in entries {
                    let entry = entry?;
                    let value = (entry.operation == kv::Operation::Put).then_some(&entry.value[..]);
                    take_entry(&mut reading, &entry.key, value);
                    if entry.seen_current {
                        reading.is_current();
                    }
                }
            }
            _ = checks.tick() => {
                // Without an answer nothing is known: the watch continues when NATS is back.
                if bucket.status().await.is_ok_and(|status| status.info.created != created) {
                    return Err("the bucket was deleted and created again".into());
                }
            }
            () = sleep_until(settled) => {}
        }
        publish(&mut reading, sender);
    }
}
