//! Follows the directory.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, kv};
use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{
    BUCKET, Directory,
    reading::{Reader, Reading},
};

/// Between attempts to follow the bucket, which may not be there yet.
const RETRY: Duration = Duration::from_secs(1);

/// Changes taken in at once, at most.
const CHUNK: usize = 1024;

/// Between checks whether the bucket is still the one that is followed. A bucket that is deleted
/// and created again counts its revisions from 1, so that a watch that goes on would miss what is
/// in it.
const CHECK: Duration = Duration::from_secs(10);

/// Follows the directory for as long as somebody listens. The receiver holds `None` until the
/// directory has been read once, and afterwards always the last state known: neither NATS going
/// away nor a bucket that is deleted and created again empties it. A directory counts as read once
/// its marker ([`super::MARKER`]) is there.
#[must_use]
pub fn follow(js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    follow_as(Reader::Client, js)
}

/// The same for the program that writes the directory. The receiver holds `None` whenever the
/// bucket has no marker: then what is in it is not known to be whole, and has to be written again.
#[must_use]
pub fn follow_as_writer(js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    follow_as(Reader::Writer, js)
}

fn follow_as(reader: Reader, js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let followed = async {
                match follow_once(reader, &js, &sender).await {
                    Ok(()) => debug!("the watch of the directory ended"),
                    Err(error) => debug!(%error, "the directory can't be followed now"),
                }
                tokio::time::sleep(RETRY).await;
            };
            tokio::select! {
                () = followed => {}
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// Returns when the directory has been read, or after `patience`; at once where there is none.
pub async fn read_once(
    js: &Context,
    mut directory: watch::Receiver<Option<Arc<Directory>>>,
    patience: Duration,
) {
    let read = async {
        if BUCKET.open(js).await.is_ok() {
            // An error means that nobody follows it any more.
            let _ = directory.wait_for(Option::is_some).await;
        }
    };
    let _ = timeout(patience, read).await;
}

/// Reads the bucket once and then every change, until the watch ends or the bucket is another.
async fn follow_once(
    reader: Reader,
    js: &Context,
    sender: &watch::Sender<Option<Arc<Directory>>>,
) -> Result<(), async_nats::Error> {
    let bucket = BUCKET.open(js).await?;
    let status = bucket.status().await?;
    let (created, is_empty) = (status.info.created, status.values() == 0);
    let changes = bucket.watch_with_history(">").await?;
    let mut reading = Reading::new(reader, sender.borrow().is_some(), is_empty);
    reading.publish(sender, Instant::now());
    // What has arrived together is published together: a directory of thousands is copied once, not
    // thousands of times, and while nothing changes it is there once.
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
                    if let Err(error) = reading.take(&entry.key, value, Instant::now()) {
                        warn!(key = entry.key, %error, "an entry of the directory can't be read and is passed over");
                    }
                    if entry.seen_current {
                        reading.is_current();
                    }
                }
            }
            _ = checks.tick() => {
                // No answer says nothing: the watch goes on when NATS is back.
                if bucket.status().await.is_ok_and(|status| status.info.created != created) {
                    return Err("the bucket was deleted and created again".into());
                }
            }
            () = sleep_until(settled) => {}
        }
        reading.publish(sender, Instant::now());
    }
}
