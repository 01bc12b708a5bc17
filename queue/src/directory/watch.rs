//! Follows the directory.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, kv};
use futures::StreamExt;
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{BUCKET, Directory, Key};

/// Between attempts to follow the bucket, which may not be there yet.
const RETRY: Duration = Duration::from_secs(1);

/// Changes taken in at once, at most.
const CHUNK: usize = 1024;

/// Follows the directory for as long as somebody listens. The receiver holds `None` until the bucket has been
/// read once, and afterwards always the last state known: neither NATS going away nor a bucket made anew empties it.
#[must_use]
pub fn follow(js: Context) -> watch::Receiver<Option<Arc<Directory>>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let followed = async {
                match follow_once(&js, &sender).await {
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

/// Reads the bucket once and then every change, until the watch ends.
async fn follow_once(
    js: &Context,
    sender: &watch::Sender<Option<Arc<Directory>>>,
) -> Result<(), async_nats::Error> {
    let bucket = BUCKET.open(js).await?;
    let mut directory: Arc<Directory> = Arc::default();
    let mut complete = bucket.status().await?.values() == 0;
    let changes = bucket.watch_with_history(">").await?;
    if complete {
        sender.send_replace(Some(directory.clone()));
    }
    // What has arrived together is published together: a directory of thousands is copied once, not
    // thousands of times, and while nothing changes it is there once.
    let mut changes = changes.ready_chunks(CHUNK);
    while let Some(entries) = changes.next().await {
        let changing = Arc::make_mut(&mut directory);
        for entry in entries {
            let entry = entry?;
            complete |= entry.seen_current;
            let Some(key) = Key::parse(&entry.key) else { continue };
            let value = (entry.operation == kv::Operation::Put).then_some(&entry.value[..]);
            if let Err(error) = changing.apply(&key, value) {
                warn!(%key, %error, "an entry of the directory can't be read and is passed over");
            }
        }
        if complete {
            sender.send_replace(Some(directory.clone()));
        }
    }
    Ok(())
}
