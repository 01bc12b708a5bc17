//! Follows the list of a stream's consumers. The server says when one is created; the list is also
//! read at intervals.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, consumer::Info};
use asyncqueue_runtime::error::error_chain;
use futures::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

/// Interval of the lists, if nothing is said to have changed.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// Wait between attempts to read the list.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum interval of the lists. Several consumers may be created together.
const MIN_LIST_INTERVAL: Duration = Duration::from_millis(20);

/// The consumers of a stream, as they were listed last. The list is not followed any more when this
/// is dropped.
pub(super) struct LaneList {
    list: watch::Receiver<Arc<Vec<Info>>>,
    is_outdated: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

// === impl LaneList ===

impl LaneList {
    /// Begins to follow the consumers of a stream.
    pub(super) fn follow(js: Context, stream: String) -> Self {
        let (list_tx, list) = watch::channel(Arc::default());
        let is_outdated = Arc::new(Notify::new());
        let task = run(js, stream, list_tx, is_outdated.clone());
        Self { list, is_outdated, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Waits for the next list.
    pub(super) async fn changed(&mut self) -> Arc<Vec<Info>> {
        if self.list.changed().await.is_err() {
            // The task ends only with this list.
            std::future::pending::<()>().await;
        }
        self.list.borrow_and_update().clone()
    }

    /// Reads the list again soon: a consumer is missing.
    pub(super) fn refresh(&self) {
        self.is_outdated.notify_one();
    }
}

async fn run(
    js: Context,
    stream: String,
    list: watch::Sender<Arc<Vec<Info>>>,
    is_outdated: Arc<Notify>,
) {
    let mut created = creations(&js, &stream).await;
    loop {
        let interval = match read(&js, &stream).await {
            Ok(consumers) => {
                list.send_replace(Arc::new(consumers));
                LIST_INTERVAL
            }
            Err(error) => {
                debug!(stream, "failed to list the lanes: {}", error_chain(&*error));
                RETRY_INTERVAL
            }
        };
        tokio::select! {
            () = sleep(interval) => {}
            () = is_outdated.notified() => {}
            Some(()) = created.next() => {}
        }
        sleep(MIN_LIST_INTERVAL).await;
        while let Some(Some(())) = created.next().now_or_never() {}
    }
}

/// Returns an item for each consumer of the stream that is created. A user of NATS may not be
/// allowed to know: new lanes are then found at the next interval.
async fn creations(js: &Context, stream: &str) -> BoxStream<'static, ()> {
    let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.CREATED.{stream}.*");
    match js.client().subscribe(subject).await {
        Ok(subscriber) => subscriber.map(drop).boxed(),
        Err(error) => {
            debug!(%error, "failed to subscribe to the creation of consumers");
            futures::stream::empty().boxed()
        }
    }
}

async fn read(
    js: &Context,
    stream: &str,
) -> Result<Vec<Info>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(js.get_stream_no_info(stream).await?.consumers().try_collect().await?)
}
