//! Collects the counts of all queues and writes them to their statuses.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use asyncqueue::{
    QueueName,
    depth::{ConsumerTotals, Depth},
    inventory::listing_pause,
    stream::QueueSpec,
};
use futures::StreamExt;
use kube::ResourceExt;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::stream_listing::{ObservedQueue, StreamListing};
use crate::{
    controller::{
        context::Context,
        update_status::{self, shared_lanes},
    },
    crd::AsyncQueue,
    depth::DepthEndpoint,
    error::chain,
    limited_functions::LimitChanges,
    metrics::QUEUE_COUNTS_ERROR,
    nats::connections::{NatsConnection, NatsEndpoint},
    queue_counts::{QueueCounts, StreamCounts},
    trigger::ReconcileTrigger,
};

/// Minimum interval of listings. With less than 5,000 streams, also the maximum age of the counts
/// that `kubectl get aq` shows.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum time for listing one server's streams, so that a server that never finishes does not
/// delay the others.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of concurrent requests for consumers and for statuses.
const MAX_CONCURRENT_REQUESTS: usize = 16;

/// Collects the counts.
pub(crate) struct StatsCollector {
    pub(crate) context: Arc<Context>,
    pub(crate) triggers: ReconcileTrigger,
    /// Serves what was counted.
    pub(crate) depth: DepthEndpoint,
    pub(crate) limit_changes: LimitChanges,
}

/// Whether each NATS server was connected at the last refresh.
type ConnectionStates = HashMap<Option<NatsEndpoint>, bool>;

// === impl StatsCollector ===

impl StatsCollector {
    /// Updates the counts for as long as it is polled.
    pub(crate) async fn run(self) {
        self.context.complete().await;
        self.depth.set_leading(self.context.queues.clone(), REFRESH_INTERVAL);
        let mut connected = ConnectionStates::new();
        loop {
            let listed = self.refresh(&mut connected).await;
            let interval = listing_pause(REFRESH_INTERVAL, listed);
            let queues = self.context.queues.all();
            self.depth.end_round(queues.iter().map(AsRef::as_ref), interval);
            sleep(interval).await;
        }
    }

    /// Updates the counts of all queues. Returns how many streams were listed.
    async fn refresh(&self, connected: &mut ConnectionStates) -> usize {
        let queues = self.context.queues.all();
        self.context.metrics.queues(queues.iter().map(AsRef::as_ref));
        let lanes = &self.context.lanes;
        self.context.metrics.lanes(&lanes.usage(), &lanes.limits);
        let mut servers: HashMap<Option<NatsEndpoint>, Vec<Arc<AsyncQueue>>> = HashMap::new();
        for queue in queues {
            servers.entry(NatsEndpoint::from_queue(&queue)).or_default().push(queue);
        }
        connected.retain(|endpoint, _| servers.contains_key(endpoint));
        let mut listed = 0;
        for (endpoint, queues) in servers {
            // The queue's status reports an endpoint that can't be used.
            let Ok(connection) = self.context.nats_pool.get(endpoint.clone()).await else {
                continue;
            };
            connection
                .inflight
                .set_queues(queues.iter().filter_map(|queue| queue.name_any().parse().ok()));
            let is_connected = connection.is_connected();
            let was_connected = connected.insert(endpoint, is_connected);
            if was_connected.is_some_and(|was_connected| was_connected != is_connected) {
                for queue in &queues {
                    self.triggers.enqueue(queue);
                }
            }
            listed += self.refresh_server(is_connected.then_some(&*connection), queues).await;
        }
        listed
    }

    /// Updates the counts of the queues on one NATS server; `None` if it is unavailable. Returns
    /// how many streams were listed.
    async fn refresh_server(
        &self,
        connection: Option<&NatsConnection>,
        queues: Vec<Arc<AsyncQueue>>,
    ) -> usize {
        let (owned, others): (Vec<_>, Vec<_>) =
            queues.into_iter().partition(|queue| has_stream(queue));
        let mut counts: Vec<(Arc<AsyncQueue>, QueueCounts)> =
            others.into_iter().map(|queue| (queue, QueueCounts::default())).collect();
        let mut listed = 0;
        match connection {
            None => counts.extend(owned.into_iter().map(|queue| {
                let functions = self.functions(&queue);
                (queue, QueueCounts::new(None, functions))
            })),
            Some(connection) => {
                let asked_at = Instant::now();
                let listing = StreamListing::new(owned).list(&connection.js);
                match timeout(LIST_TIMEOUT, listing).await {
                    Ok(Ok((observed, streams))) => {
                        listed = streams;
                        counts.extend(self.count(connection, observed, asked_at).await);
                    }
                    // The known counts stay; the connection shows an outage.
                    Ok(Err(error)) => debug!("failed to list the streams: {}", chain(&error)),
                    Err(_) => warn!(
                        "listing the streams of a NATS server timed out after {LIST_TIMEOUT:?}"
                    ),
                }
            }
        }
        self.write(counts).await;
        listed
    }

    /// Adds the counts that a listing does not show. Triggers the reconciliation of queues that are
    /// not in their desired state. `asked_at` is the time before the listing.
    async fn count(
        &self,
        connection: &NatsConnection,
        observed: Vec<ObservedQueue>,
        asked_at: Instant,
    ) -> Vec<(Arc<AsyncQueue>, QueueCounts)> {
        let now = Instant::now();
        let counted = observed.into_iter().map(async |observed| {
            if observed.is_due() {
                self.triggers.enqueue(&observed.queue);
            }
            let (messages, dead_letters) = observed.counts()?;
            let spec = observed.spec()?;
            let consumers = read_consumers(&connection.js, &spec, messages).await?;
            let running = connection.inflight.calls(&spec.queue, now);
            let scheduled = connection.inflight.scheduled(
                &spec.queue,
                consumers.unacknowledged.saturating_sub(running),
                now,
            );
            let depth = Depth::new(messages, consumers, running, scheduled);
            self.depth.record(&observed.queue, depth, asked_at);
            let is_blocked = !connection.inflight.blocked(&spec.queue, now).is_empty();
            if is_blocked != update_status::reports_blocked(&observed.queue) {
                self.triggers.enqueue(&observed.queue);
            }
            if !update_status::reports_refused(
                &observed.queue,
                &self.context.refused_of(&spec.queue),
            ) {
                self.triggers.enqueue(&observed.queue);
            }
            if !update_status::reports_scheduled(&observed.queue, depth.scheduled > 0) {
                self.triggers.enqueue(&observed.queue);
            }
            if !shared_lanes::is_reported(&self.context.lanes, &observed.queue) {
                self.triggers.enqueue(&observed.queue);
            }
            let redelivered = consumers.redelivered;
            let counted = StreamCounts { depth, redelivered, dead_letters };
            let lanes = self.context.lanes.of(&observed.queue);
            let limited = connection.inflight.limited(&spec.queue, now);
            let limited = self.limit_changes.next_status(&observed.queue, &limited, now);
            let counts = QueueCounts::new(Some(counted), self.context.functions_of(&spec.queue))
                .with_lanes(lanes.map(|lanes| lanes.counts.total()))
                .with_limited(limited);
            Some((observed.queue, counts))
        });
        let counted = futures::stream::iter(counted).buffer_unordered(MAX_CONCURRENT_REQUESTS);
        counted.filter_map(std::future::ready).collect().await
    }

    fn functions(&self, queue: &AsyncQueue) -> Option<usize> {
        let name: QueueName = queue.name_any().parse().ok()?;
        self.context.functions_of(&name)
    }

    /// Writes the counts that have changed.
    async fn write(&self, counts: Vec<(Arc<AsyncQueue>, QueueCounts)>) {
        let changed = counts.into_iter().filter(|(queue, counts)| {
            *counts != queue.status.as_ref().map(QueueCounts::from_status).unwrap_or_default()
        });
        let writes = changed.map(async |(queue, counts)| {
            let status = counts.apply_to(queue.status.clone().unwrap_or_default());
            update_status::write(&self.context, &queue, &status).await
        });
        let mut written = futures::stream::iter(writes).buffer_unordered(MAX_CONCURRENT_REQUESTS);
        let mut logged = false;
        while let Some(written) = written.next().await {
            let Err(error) = written else { continue };
            self.context.metrics.reconcile_error(QUEUE_COUNTS_ERROR);
            // An error of one queue is mostly an error of all, so only the first is logged.
            if !std::mem::replace(&mut logged, true) {
                warn!("failed to update queue counts in status, retrying: {}", chain(&error));
            }
        }
    }
}

/// Returns whether a queue owns its stream, so that the calls in it are its own.
fn has_stream(queue: &AsyncQueue) -> bool {
    queue.owns_stream() && queue.metadata.deletion_timestamp.is_none()
}

/// Returns what the consumers of a queue report; `None` if NATS does not answer. An empty queue
/// needs no request, so of ten thousand queues only those that hold calls need one.
async fn read_consumers(
    js: &jetstream::Context,
    queue: &QueueSpec,
    messages: u64,
) -> Option<ConsumerTotals> {
    if messages == 0 {
        return Some(ConsumerTotals::default());
    }
    ConsumerTotals::read(js, &queue.stream)
        .await
        .inspect_err(|error| debug!(queue = %queue.queue, "{}", chain(error)))
        .ok()
}
