//! Ensures lanes for a program that stores calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::Context;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{LaneOutcome, ensure_lane};
use crate::{
    directory::QueueRoute,
    names::{FunctionName, QueueName},
};

/// How long a lane is known to exist. A lane without calls stays much longer.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// How long after a failure, or if the queue has no lanes, the lane is not asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Number of functions that are known at most: as many lanes as an installation is made for.
const MAX_KNOWN: usize = 5_000;

type Key = (QueueName, FunctionName);

/// Ensures lanes, once a minute for each function. Clones share what they know.
#[derive(Clone, Debug)]
pub struct LaneEnsurer {
    js: Context,
    /// Until when a lane is known.
    known: Arc<Mutex<HashMap<Key, Instant>>>,
    tasks: TaskTracker,
}

// === impl LaneEnsurer ===

impl LaneEnsurer {
    /// Creates an ensurer that knows no lane.
    #[must_use]
    pub fn new(js: Context) -> Self {
        Self { js, known: Arc::default(), tasks: TaskTracker::new() }
    }

    /// Ensures the lane of a function after a call of it was stored, if its queue may have lanes.
    /// Does not wait for it: the call is stored, whether it has a lane or not.
    pub fn ensure_in_background(&self, route: &QueueRoute, function: &FunctionName) {
        if let Some(key) = self.begin(route, function) {
            let (this, route) = (self.clone(), route.clone());
            self.tasks.spawn(async move { this.ensure_key(&route, key).await });
        }
    }

    /// Ensures the lane of a function as [`Self::ensure_in_background`] does, and waits for it.
    pub async fn ensure(&self, route: &QueueRoute, function: &FunctionName) {
        if let Some(key) = self.begin(route, function) {
            self.ensure_key(route, key).await;
        }
    }

    /// Waits until nothing is done in the background.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Returns the key of a lane that is to be ensured, and is then known.
    fn begin(&self, route: &QueueRoute, function: &FunctionName) -> Option<Key> {
        route.lanes_of.as_ref()?;
        let key = (route.queue.clone(), function.clone());
        self.remember(&key).then_some(key)
    }

    async fn ensure_key(&self, route: &QueueRoute, key: Key) {
        let (queue, function) = &key;
        match ensure_lane(&self.js, route, function).await {
            Ok(LaneOutcome::NoLanes) => {
                debug!(%queue, "the queue has no lanes");
                self.know_for(key, RETRY_INTERVAL);
            }
            Ok(outcome) => debug!(%queue, %function, ?outcome, "ensured the lane"),
            Err(error) => {
                warn!(%queue, %function, "the sweep creates the lane within 30s: {error}");
                self.know_for(key, RETRY_INTERVAL);
            }
        }
    }

    /// Remembers a lane. Returns whether it was not known.
    fn remember(&self, key: &Key) -> bool {
        let (now, mut known) =
            (Instant::now(), self.known.lock().unwrap_or_else(PoisonError::into_inner));
        if known.get(key).is_some_and(|until| now < *until) {
            return false;
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, until| now < *until);
        }
        // Too many functions for so short a time: the sweep creates the lanes of the others.
        if known.len() >= MAX_KNOWN {
            return false;
        }
        known.insert(key.clone(), now + KNOWN_FOR);
        true
    }

    fn know_for(&self, key: Key, time: Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ensurer() -> LaneEnsurer {
        let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect("127.0.0.1:1").await.unwrap();
        LaneEnsurer::new(async_nats::jetstream::new(client))
    }

    fn key(number: usize) -> Key {
        let function = FunctionName::new(&format!("f{number}"), "ns").unwrap();
        ("jobs".parse().unwrap(), function)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_ensured_once_a_minute() {
        let ensurer = ensurer().await;
        assert!(ensurer.remember(&key(1)) && !ensurer.remember(&key(1)));
        assert!(ensurer.remember(&key(2)));
        tokio::time::advance(KNOWN_FOR).await;
        assert!(ensurer.remember(&key(1)));
        // Sooner after a failure, and not with each call.
        ensurer.know_for(key(1), RETRY_INTERVAL);
        assert!(!ensurer.remember(&key(1)));
        tokio::time::advance(RETRY_INTERVAL).await;
        assert!(ensurer.remember(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_bounded() {
        let ensurer = ensurer().await;
        assert!((0..MAX_KNOWN).all(|number| ensurer.remember(&key(number))));
        assert!(!ensurer.remember(&key(MAX_KNOWN)));
        tokio::time::advance(KNOWN_FOR).await;
        assert!(ensurer.remember(&key(MAX_KNOWN)));
        assert_eq!(ensurer.known.lock().unwrap().len(), 1);
    }
}
