//! Follows the directory.

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
    follow_with(js, Reading::directory, Arc::ptr_eq)
}

/// Follows what is in the bucket, whole or not, for the program that writes it.
#[must_use]
pub fn follow_as_writer(js: Context) -> watch::Receiver<Option<Contents>> {
    follow_with(js, |reading, _| reading.contents(), Contents::is_same)
}

/// Follows what `read` makes of the bucket.
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

/// Takes in an entry; one that can't be read changes nothing.
fn take_entry(reading: &mut Reading, key: &str, value: Option<&[u8]>) {
    if let Err(error) = reading.take(key, value, Instant::now()) {
        warn!(key, %error, "an entry of the directory can't be read and is passed over");
    }
}

/// Reads the bucket once and then every change, until the watch ends or the bucket is another.
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
                    take_entry(&mut reading, &entry.key, value);
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
        publish(&mut reading, sender);
    }
}
