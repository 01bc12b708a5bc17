//! Updates the metrics of the queue itself, which only the server knows, for `/metrics`.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::Context;
use asyncqueue::{consumer_progress, directory::Directory, stream::total_stored};
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::{metrics::Metrics, server_clock::ServerClock};

/// Interval of the updates. It is shorter than 15 s, a common interval between two scrapes.
const UPDATE_INTERVAL: Duration = Duration::from_secs(10);

/// Updates how many calls wait and how many were ever stored, for as long as it is polled. Removes
/// the series of functions that have left the directory.
pub(crate) async fn run(
    js: &Context,
    (stream, durable): (&str, &str),
    directory: watch::Receiver<Option<Arc<Directory>>>,
    metrics: &Metrics,
    clock: &ServerClock,
) {
    loop {
        let current = directory.borrow().clone();
        if let Some(current) = current {
            metrics.retain_functions(&current);
        }
        if let Err(error) = update(js, stream, durable, metrics, clock).await {
            debug!(%error, "failed to update the metrics of the queue");
        }
        sleep(UPDATE_INTERVAL).await;
    }
}

async fn update(
    js: &Context,
    stream: &str,
    durable: &str,
    metrics: &Metrics,
    clock: &ServerClock,
) -> Result<(), async_nats::Error> {
    let Some(consumer) = consumer_progress::read_consumer(js, stream, durable).await? else {
        return Ok(());
    };
    clock.set(consumer.now);
    let stream = js.get_stream(stream).await?;
    let info = stream.cached_info();
    let (state, config) = (&info.state, &info.config);
    metrics.set_queue_counts(consumer.pending, total_stored(config, state));
    metrics.set_utilization(
        utilization(state.messages, config.max_messages)
            .max(utilization(state.bytes, config.max_bytes)),
    );
    Ok(())
}

/// Returns how full a stream is, from 0 to 1. Without a limit, it is never full.
fn utilization(stored: u64, limit: i64) -> f64 {
    // Rounding to a floating-point number does not matter here.
    #[allow(clippy::cast_precision_loss)]
    if limit > 0 { stored as f64 / limit as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        for (stored, limit, expected) in
            [(0, 100, 0.0), (90, 100, 0.9), (100, 100, 1.0), (90, -1, 0.0), (90, 0, 0.0)]
        {
            assert!((utilization(stored, limit) - expected).abs() < 1e-9, "{stored} of {limit}");
        }
    }
}
