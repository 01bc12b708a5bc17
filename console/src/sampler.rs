//! Samples all queues in the background, for the pages.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_nats::jetstream::Context;
use asyncqueue::{
    directory::{Directory, watch::watch},
    inventory::{QueueInventory, StreamSummary, listing_pause},
    stats::request_stats,
};
use asyncqueue_runtime::{error::error_chain, health::Health};
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};

use crate::{
    history::{History, Sample},
    metrics::Metrics,
    overview::Overview,
};

/// Name of the condition that the queues were sampled once.
const CONDITION: &str = "queues";

/// Maximum time for one sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the sampler knows. Pages read it.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The last sample, and why a later one failed.
    state: Mutex<State>,
    history: Mutex<History>,
    directory: watch::Receiver<Option<Arc<Directory>>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    overview: Option<Arc<Overview>>,
    failure: Option<String>,
}

// === impl Samples ===

impl Samples {
    /// Begins to follow the directory. The program is not ready before the first sample.
    pub(crate) fn new(js: &Context, health: &Health) -> Self {
        health.register(CONDITION, "the queues were not read yet");
        Self { state: Mutex::default(), history: Mutex::default(), directory: watch(js.clone()) }
    }

    /// Returns the last sample; `None` before the first one.
    pub(crate) fn overview(&self) -> Option<Arc<Overview>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).overview.clone()
    }

    /// Returns why the last sample could not be taken, if it could not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failure.clone()
    }

    /// Returns the samples of a queue over the last minutes, oldest first.
    pub(crate) fn history(&self, queue: &asyncqueue::QueueName) -> Vec<Sample> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).of(queue)
    }

    /// Returns the directory as it is now; empty without an operator.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.borrow().clone().unwrap_or_default()
    }

    /// Samples the queues at an interval, without end.
    pub(crate) async fn keep_sampling(
        &self,
        js: &Context,
        interval: Duration,
        health: &Health,
        metrics: &Metrics,
    ) {
        loop {
            let began = Instant::now();
            let sampled = timeout(SAMPLE_TIMEOUT, self.sample(js)).await;
            let sampled = sampled.context("it took too long").and_then(|sampled| sampled);
            metrics.sampled(sampled.is_ok(), began.elapsed());
            let streams = sampled.as_ref().map_or(0, |overview| overview.inventory.streams.len());
            self.apply(sampled, health);
            tokio::time::sleep(listing_pause(interval, streams)).await;
        }
    }

    async fn sample(&self, js: &Context) -> anyhow::Result<Overview> {
        let streams = StreamSummary::read_all(js).await.context("failed to list the streams")?;
        let directory = self.directory();
        let entries = directory.queues.iter().map(|(queue, entry)| (queue.clone(), entry.clone()));
        let inventory = QueueInventory::new(entries, streams);
        let names: Vec<_> = inventory.queues.keys().cloned().collect();
        let workers = request_stats(&js.client(), &names).await?;
        let before = self.overview();
        Ok(Overview::new(inventory, workers, Timestamp::now(), before.as_deref()))
    }

    fn apply(&self, sampled: anyhow::Result<Overview>, health: &Health) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match sampled {
            Ok(overview) => {
                let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
                history.add(overview.samples(state.overview.as_deref()));
                if state.failure.take().is_some() || state.overview.is_none() {
                    info!(queues = overview.queues.len(), "read the queues");
                }
                state.overview = Some(Arc::new(overview));
                health.ready(CONDITION);
            }
            Err(error) => {
                let why = error_chain(error.as_ref());
                if state.failure.as_ref() != Some(&why) {
                    warn!(error = why, "failed to read the queues");
                }
                if state.overview.is_none() {
                    health.not_ready(CONDITION, why.clone());
                }
                state.failure = Some(why);
            }
        }
    }
}
