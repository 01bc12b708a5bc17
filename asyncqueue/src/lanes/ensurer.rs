//! Ensures lanes for a program that stores many calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::Context;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{LaneOutcome, ensure_lane};
use crate::{
    directory::QueueRoute,
    names::{FunctionName, QueueName},
};

/// How long a lane is known to exist. A lane without calls stays much longer.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// Number of functions that are known at most: as many lanes as an installation is made for.
const MAX_KNOWN: usize = 5_000;

/// Ensures lanes in the background, once a minute for each function. Clones share what they know.
#[derive(Clone, Debug)]
pub struct LaneEnsurer {
    js: Context,
    known: Arc<Mutex<HashMap<(QueueName, FunctionName), Instant>>>,
}

// === impl LaneEnsurer ===

impl LaneEnsurer {
    /// Creates an ensurer that knows no lane.
    #[must_use]
    pub fn new(js: Context) -> Self {
        Self { js, known: Arc::default() }
    }

    /// Ensures the lane of a function after a call of it was stored, if its queue has lanes. Does
    /// not wait for it: the call is stored, whether it has a lane or not.
    pub fn ensure(&self, route: &QueueRoute, function: &FunctionName) {
        let Some(stream) = route.lanes_of.clone() else { return };
        let key = (route.queue.clone(), function.clone());
        if !self.remember(&key) {
            return;
        }
        let (this, subject) = (self.clone(), route.subject.clone());
        tokio::spawn(async move {
            let (queue, function) = &key;
            match ensure_lane(&this.js, (&stream, &subject), queue, function).await {
                Ok(LaneOutcome::NoLanes) => {
                    debug!(%queue, "the queue is to have lanes, and its consumer has none yet");
                    this.forget(&key);
                }
                Ok(outcome) => debug!(%queue, %function, ?outcome, "ensured the lane"),
                Err(error) => {
                    warn!(%queue, %function, "the sweep creates the lane within 30s: {error}");
                    this.forget(&key);
                }
            }
        });
    }

    /// Remembers a lane. Returns whether it was not known.
    fn remember(&self, key: &(QueueName, FunctionName)) -> bool {
        let (now, mut known) =
            (Instant::now(), self.known.lock().unwrap_or_else(PoisonError::into_inner));
        if known.get(key).is_some_and(|since| now < *since + KNOWN_FOR) {
            return false;
        }
        if known.len() >= MAX_KNOWN {
            known.retain(|_, since| now < *since + KNOWN_FOR);
        }
        // Too many functions for so short a time: the sweep creates the lanes of the others.
        if known.len() >= MAX_KNOWN {
            return false;
        }
        known.insert(key.clone(), now);
        true
    }

    fn forget(&self, key: &(QueueName, FunctionName)) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
