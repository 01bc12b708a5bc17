//! Keeps the numbers of all queues up to date.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use asyncqueue::{QueueName, stream::QueueSpec};
use futures::StreamExt;
use kube::ResourceExt;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::stream_listing::{Survey, Surveyed};
use crate::{
    controller::{context::Context, update_status},
    crd::AsyncQueue,
    error::chain,
    metrics::FIGURES,
    nats::connections::{Address, Broker},
    queue_counts::{Counted, Figures},
    trigger::ReconcileTrigger,
};

/// Interval of listings: what `kubectl get aq` shows is not older.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pause is this many times as long as the work, if that is longer than the interval. With tens
/// of thousands of streams, the numbers then do not keep NATS and the API server busy.
const REST: u32 = 20;

/// Maximum time for listing one server's streams, so that a server that never finishes does not
/// delay the others.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Number of concurrent requests for consumers and for statuses.
const CONCURRENCY: usize = 16;

/// Updates the numbers.
pub(crate) struct Refresher {
    pub(crate) context: Arc<Context>,
    pub(crate) triggers: ReconcileTrigger,
}

/// Whether each NATS server was connected at the last refresh, by the address in the queues' specs.
type Connected = HashMap<Option<Address>, bool>;

// === impl Refresher ===

impl Refresher {
    /// Updates the numbers for as long as it is polled.
    pub(crate) async fn run(self) {
        self.context.complete().await;
        let mut connected = Connected::new();
        loop {
            let begun = Instant::now();
            self.refresh(&mut connected).await;
            sleep(INTERVAL.max(begun.elapsed() * REST)).await;
        }
    }

    async fn refresh(&self, connected: &mut Connected) {
        let queues = self.context.queues.all();
        self.context.metrics.queues(queues.iter().map(AsRef::as_ref));
        let mut servers: HashMap<Option<Address>, Vec<Arc<AsyncQueue>>> = HashMap::new();
        for queue in queues {
            servers.entry(Address::of(&queue)).or_default().push(queue);
        }
        connected.retain(|address, _| servers.contains_key(address));
        for (address, queues) in servers {
            // The queue's status reports an address that can't be used.
            let Ok(broker) = self.context.brokers.get(address.clone()).await else { continue };
            broker
                .running
                .set_known(queues.iter().filter_map(|queue| queue.name_any().parse().ok()));
            let now = broker.is_connected();
            if connected.insert(address, now).unwrap_or(now) != now {
                for queue in &queues {
                    self.triggers.enqueue(queue);
                }
            }
            self.refresh_server(now.then_some(&*broker), queues).await;
        }
    }

    /// Updates the numbers of the queues on one NATS server, which may be unavailable.
    async fn refresh_server(&self, broker: Option<&Broker>, queues: Vec<Arc<AsyncQueue>>) {
        let (mine, others): (Vec<_>, Vec<_>) =
            queues.into_iter().partition(|queue| has_stream(queue));
        let mut figures: Vec<(Arc<AsyncQueue>, Figures)> =
            others.into_iter().map(|queue| (queue, Figures::default())).collect();
        match broker {
            None => figures.extend(mine.into_iter().map(|queue| {
                let functions = self.functions(&queue);
                (queue, Figures::new(None, functions))
            })),
            Some(broker) => match timeout(LIST_TIMEOUT, Survey::new(mine).list(&broker.js)).await {
                Ok(Ok(surveyed)) => figures.extend(self.count(broker, surveyed).await),
                // The known numbers are kept; the connection shows an outage.
                Ok(Err(error)) => debug!("the streams can't be listed now: {}", chain(&error)),
                Err(_) => {
                    warn!(
                        "the streams of a NATS server can't be listed: no end within {LIST_TIMEOUT:?}"
                    );
                }
            },
        }
        self.write(figures).await;
    }

    /// Counts what a listing alone does not show, and triggers the controller for queues that are
    /// not in their desired state.
    async fn count(
        &self,
        broker: &Broker,
        surveyed: Vec<Surveyed>,
    ) -> Vec<(Arc<AsyncQueue>, Figures)> {
        let now = Instant::now();
        let counted = surveyed.into_iter().map(async |surveyed| {
            if surveyed.is_due() {
                self.triggers.enqueue(&surveyed.queue);
            }
            let (messages, dead_letters) = surveyed.counted()?;
            let spec = surveyed.spec()?;
            let redelivered = redelivered(&broker.js, &spec, messages).await?;
            let running = broker.running.of(&spec.queue, now);
            let is_blocked = !broker.running.blocked(&spec.queue, now).is_empty();
            if is_blocked != update_status::reports_blocked(&surveyed.queue) {
                self.triggers.enqueue(&surveyed.queue);
            }
            if !update_status::reports_refused(
                &surveyed.queue,
                &self.context.refused_of(&spec.queue),
            ) {
                self.triggers.enqueue(&surveyed.queue);
            }
            let counted = Counted { messages, running, redelivered, dead_letters };
            let figures = Figures::new(Some(counted), self.context.functions_of(&spec.queue));
            Some((surveyed.queue, figures))
        });
        let counted = futures::stream::iter(counted).buffer_unordered(CONCURRENCY);
        counted.filter_map(std::future::ready).collect().await
    }

    fn functions(&self, queue: &AsyncQueue) -> Option<usize> {
        let name: QueueName = queue.name_any().parse().ok()?;
        self.context.functions_of(&name)
    }

    /// Writes the numbers that have changed.
    async fn write(&self, figures: Vec<(Arc<AsyncQueue>, Figures)>) {
        let changed = figures.into_iter().filter(|(queue, figures)| {
            *figures != queue.status.as_ref().map(Figures::of).unwrap_or_default()
        });
        let writes = changed.map(async |(queue, figures)| {
            let status = figures.put(queue.status.clone().unwrap_or_default());
            update_status::write(&self.context, &queue, &status).await
        });
        let mut written = futures::stream::iter(writes).buffer_unordered(CONCURRENCY);
        let mut told = false;
        while let Some(written) = written.next().await {
            let Err(error) = written else { continue };
            self.context.metrics.reconcile_error(FIGURES);
            // An error of one queue is mostly an error of all, so only the first is logged.
            if !std::mem::replace(&mut told, true) {
                warn!(
                    "the numbers of a queue could not be written, and will be again: {}",
                    chain(&error)
                );
            }
        }
    }
}

/// Returns whether a queue owns its stream, so that the calls in it are its own.
fn has_stream(queue: &AsyncQueue) -> bool {
    queue.owns_stream() && queue.metadata.deletion_timestamp.is_none()
}

/// Returns how many of the stored calls were delivered more than once; `None` if NATS does not
/// answer. An empty queue has none, so of ten thousand queues only those that hold calls need a
/// request.
async fn redelivered(js: &jetstream::Context, queue: &QueueSpec, messages: u64) -> Option<u64> {
    if messages == 0 {
        return Some(0);
    }
    let stream = js.get_stream_no_info(&queue.stream).await.ok()?;
    let info = stream.consumer_info(&queue.durable).await.ok()?;
    u64::try_from(info.num_redelivered).ok()
}
