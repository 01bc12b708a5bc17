//! Repeats what fails while NATS is unavailable or a queue is full, and logs why, not more often
//! than people read.

use std::{
    cell::Cell,
    future::pending,
    time::{Duration, Instant},
};

use async_nats::Client;
use asyncqueue_runtime::{error::describe, nats::wait_connected};
use tracing::warn;

/// Time between two tries of one request.
const PAUSE: Duration = Duration::from_secs(1);

/// Time between two lines in the log, for all requests together.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Repeats requests.
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

    /// Repeats nothing from now on. What waits for a repeat waits until it is dropped.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// Repeats a request until it succeeds.
    pub(super) async fn until_done<T>(&self, request: impl AsyncFn() -> anyhow::Result<T>) -> T {
        loop {
            self.connected().await;
            match request().await {
                Ok(done) => return done,
                Err(error) => self.pause(&describe(error.as_ref())).await,
            }
        }
    }

    /// Returns when NATS is connected. A request before that would be in doubt without having been
    /// sent.
    pub(super) async fn connected(&self) {
        wait_connected(&self.client).await;
    }

    /// Logs why a request is repeated, and waits.
    pub(super) async fn pause(&self, reason: &str) {
        if self.logged_at.get().is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at.set(Some(Instant::now()));
            warn!("retrying: {reason}");
        }
        tokio::time::sleep(PAUSE).await;
        if self.is_stopping.get() {
            pending::<()>().await;
        }
    }
}
