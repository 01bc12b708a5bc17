//! Publishes over core NATS how many calls run here, for programs that add up the numbers of all
//! workers.

use std::time::{Duration, Instant};

use async_nats::Client;
use asyncqueue::{
    QueueName,
    stats::{WorkerStats, stats_subject},
};
use bytes::Bytes;
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::{
    live_settings::LiveSettings, metrics::DurationCounter, record_store::RecordStore,
    scheduled::ScheduledCalls, shared_limits::FunctionGate,
};

/// Interval of the statistics without a change. A listener considers a worker gone after a few of
/// them.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(5);

/// Changes within this time are published as one: a worker of short calls would otherwise do
/// nothing else.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// The statistics of this worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerStatistics {
    worker: String,
    /// Distinguishes this process from others whose workers have its name.
    instance: String,
    settings: watch::Receiver<LiveSettings>,
    /// How many calls run here.
    running: watch::Receiver<usize>,
    store: RecordStore,
    scheduled: ScheduledCalls,
    functions: FunctionGate,
    durations: DurationCounter,
}

// === impl WorkerStatistics ===

impl WorkerStatistics {
    pub(crate) fn new(
        (worker, instance): (String, String),
        settings: watch::Receiver<LiveSettings>,
        running: watch::Receiver<usize>,
        store: RecordStore,
        scheduled: ScheduledCalls,
        functions: FunctionGate,
        durations: DurationCounter,
    ) -> Self {
        Self { worker, instance, settings, running, store, scheduled, functions, durations }
    }

    /// Returns the current statistics, in JSON.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let stats = WorkerStats {
            worker: self.worker.clone(),
            instance: self.instance.clone(),
            running: u32::try_from(*self.running.borrow()).unwrap_or(u32::MAX),
            max_inflight: self.settings.borrow().max_inflight.into(),
            scheduled: Some(self.scheduled.count(Instant::now())),
            blocked: self.store.blocked(),
            limited: self.functions.limited(),
            durations: Some(self.durations.counts()),
        };
        let encoded = serde_json::to_vec(&stats);
        encoded
            .inspect_err(|error| debug!(%error, "failed to encode the statistics"))
            .ok()
            .map(Bytes::from)
    }

    /// Publishes the statistics on change and every few seconds, for as long as calls are counted.
    pub(crate) async fn publish(mut self, client: Client, queue: &QueueName) {
        let subject = stats_subject(queue);
        loop {
            self.running.mark_unchanged();
            self.settings.mark_unchanged();
            if let Some(json) = self.encode()
                && let Err(error) = client.publish(subject.clone(), json).await
            {
                debug!(%error, "failed to publish the statistics");
            }
            sleep(DEBOUNCE).await;
            tokio::select! {
                changed = self.running.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = self.settings.changed() => {}
                () = sleep(PUBLISH_INTERVAL) => {}
            }
        }
    }
}
