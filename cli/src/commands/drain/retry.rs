//! Retries requests that fail while NATS is unavailable or a queue is full. Logs the reason at
//! intervals.

use std::{
    cell::Cell,
    future::pending,
    time::{Duration, Instant},
};

use async_nats::Client;
use asyncqueue_runtime::{error::error_chain, nats};
use tracing::warn;

/// Pause before a request is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Minimum interval between two log lines, for all requests together.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Repeats requests that fail.
#[derive(Debug)]
pub(super) struct Retry {
    client: Client,
    logged_at: Cell<Option<Instant>>,
    is_stopping: Cell<bool>,
}

impl Retry {
    pub(super) fn new(client: Client) -> Self {
        Self { client, logged_at: Cell::new(None), is_stopping: Cell::new(false) }
    }

    /// Stops repeating. A request that waits for its repetition then waits until it is dropped.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// Repeats a request until it succeeds.
    pub(super) async fn until_ok<T>(&self, request: impl AsyncFn() -> anyhow::Result<T>) -> T {
        loop {
            self.wait_connected().await;
            match request().await {
                Ok(done) => return done,
                Err(error) => self.wait_before_retry(&error_chain(error.as_ref())).await,
            }
        }
    }

    /// Returns when NATS is connected. A request before that would have an unknown outcome without
    /// having been sent.
    pub(super) async fn wait_connected(&self) {
        nats::wait_connected(&self.client).await;
    }

    /// Logs why a request is repeated, and waits for the pause.
    pub(super) async fn wait_before_retry(&self, reason: &str) {
        if self.logged_at.get().is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at.set(Some(Instant::now()));
            warn!("retrying: {reason}");
        }
        tokio::time::sleep(RETRY_DELAY).await;
        if self.is_stopping.get() {
            pending::<()>().await;
        }
    }
}
