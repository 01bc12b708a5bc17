//! Updates the metrics of the queue itself, which only the server knows, for `/metrics`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{Context, consumer::Info, stream::State};
use asyncqueue::{
    QueueName, consumer_progress, depth::ConsumerTotals, directory::Directory, stream::total_stored,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::{
    metrics::{Lanes, Metrics},
    scheduled::ScheduledCalls,
    server_clock::ServerClock,
    shared_limits::FunctionGate,
};

/// Interval of the updates. It is shorter than 15 s, a common interval between two scrapes.
const UPDATE_INTERVAL: Duration = Duration::from_secs(10);

/// Updates the counts of the queue's streams, those of the delayed calls of this worker, and the
/// limits of functions, for as long as it is polled. Removes the series of functions that have left
/// the directory.
pub(crate) async fn run(
    js: &Context,
    queue: &QueueName,
    (stream, durable): (&str, &str),
    (directory, functions): (watch::Receiver<Option<Arc<Directory>>>, &FunctionGate),
    metrics: &Metrics,
    clock: &ServerClock,
    scheduled: &ScheduledCalls,
) {
    loop {
        metrics.set_scheduled(scheduled.count(Instant::now()));
        let current = directory.borrow().clone();
        if let Some(current) = &current {
            metrics.retain_functions(current);
        }
        metrics.set_function_limits(&functions.applied(), current.as_deref());
        if let Err(error) = update(js, queue, (stream, durable), metrics, clock).await {
            debug!(%error, "failed to update the metrics of the queue");
        }
        match js.get_stream(queue.callback_stream()).await {
            Ok(callbacks) => {
                metrics.set_pending_callbacks(callbacks.cached_info().state.messages);
            }
            Err(error) => debug!(%error, "failed to update the count of pending callbacks"),
        }
        sleep(UPDATE_INTERVAL).await;
    }
}

async fn update(
    js: &Context,
    queue: &QueueName,
    (stream, durable): (&str, &str),
    metrics: &Metrics,
    clock: &ServerClock,
) -> Result<(), async_nats::Error> {
    let Some(consumer) = consumer_progress::read_consumer(js, stream, durable).await? else {
        return Ok(());
    };
    clock.set(consumer.now);
    let stream = js.get_stream(stream).await?;
    let pending = if consumer.has_lanes {
        let consumers: Vec<Info> = stream.consumers().try_collect().await?;
        metrics.set_lanes(Some(&Lanes::new(queue, &consumers)));
        consumers.iter().map(ConsumerTotals::from).sum::<ConsumerTotals>().pending
    } else {
        metrics.set_lanes(None);
        consumer.pending
    };
    let info = stream.cached_info();
    let (state, config) = (&info.state, &info.config);
    metrics.set_oldest_age(oldest_age(state, consumer.now));
    metrics.set_queue_counts(pending, total_stored(config, state));
    metrics.set_utilization(
        utilization(state.messages, config.max_messages)
            .max(utilization(state.bytes, config.max_bytes)),
    );
    Ok(())
}

/// Returns the age of the oldest message of a stream. `now` is the server's time, as all times of
/// messages are.
fn oldest_age(state: &State, now: Timestamp) -> Duration {
    if state.messages == 0 {
        return Duration::ZERO;
    }
    let seconds = now.as_second().saturating_sub(state.first_timestamp.unix_timestamp());
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
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
    fn the_oldest_call_has_an_age() {
        let state = |messages| {
            serde_json::from_value(serde_json::json!({
                "messages": messages, "bytes": 0, "consumer_count": 1, "num_subjects": 1,
                "first_seq": 1, "first_ts": "2026-11-29T08:00:00Z",
                "last_seq": 1, "last_ts": "2026-11-29T08:00:00Z",
            }))
            .unwrap()
        };
        let now = "2026-11-29T08:01:30Z".parse().unwrap();
        assert_eq!(oldest_age(&state(1), now), Duration::from_secs(90));
        assert_eq!(oldest_age(&state(0), now), Duration::ZERO);
        // Clocks of two servers may differ.
        assert_eq!(oldest_age(&state(1), "2026-11-29T07:59:00Z".parse().unwrap()), Duration::ZERO);
    }

    #[test]
    fn a_stream_without_a_limit_is_never_full() {
        for (stored, limit, expected) in
            [(0, 100, 0.0), (90, 100, 0.9), (100, 100, 1.0), (90, -1, 0.0), (90, 0, 0.0)]
        {
            assert!((utilization(stored, limit) - expected).abs() < 1e-9, "{stored} of {limit}");
        }
    }
}
