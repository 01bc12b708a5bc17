//! Keeps the figures of the queue itself, which only the server knows, for `/metrics`.

use std::time::Duration;

use async_nats::jetstream::Context;
use tokio::time::sleep;
use tracing::debug;

use crate::metrics::Metrics;

/// How old a figure may be: less than the 15 s between two scrapes that are common.
const EVERY: Duration = Duration::from_secs(10);

/// Looks up how many calls wait and how many were ever stored, for as long as it is polled.
pub(crate) async fn follow(js: &Context, stream: &str, durable: &str, metrics: &Metrics) {
    loop {
        if let Err(error) = look(js, stream, durable, metrics).await {
            debug!(%error, "the figures of the queue can't be looked up");
        }
        sleep(EVERY).await;
    }
}

async fn look(js: &Context, stream: &str, durable: &str, metrics: &Metrics) -> Result<(), async_nats::Error> {
    let stream = js.get_stream(stream).await?;
    let consumer = stream.consumer_info(durable).await?;
    metrics.queue(consumer.num_pending, stream.cached_info().state.last_sequence);
    Ok(())
}
