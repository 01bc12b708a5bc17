//! Tracks the time of nats-server, which stamps the messages: the clock of this machine may be
//! wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};

/// The server's clock, as this worker last saw it. Clones share it. A change of the clock of this
/// machine does not change it.
#[derive(Clone, Debug)]
pub(crate) struct ServerClock {
    /// When this worker began to measure time, and what its own clock said then.
    started: (Instant, Timestamp),
    /// How far the server is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
}

impl ServerClock {
    /// Records the server's time, which it has just sent.
    pub(crate) fn set(&self, now: Timestamp) {
        let ahead = now.as_millisecond().saturating_sub(self.local().as_millisecond());
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Returns the server's time.
    pub(crate) fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed));
        self.local().saturating_add(ahead).unwrap_or_default()
    }

    fn local(&self) -> Timestamp {
        let (started, then) = self.started;
        then.saturating_add(started.elapsed()).unwrap_or_default()
    }
}

impl Default for ServerClock {
    fn default() -> Self {
        Self { started: (Instant::now(), Timestamp::now()), ahead: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_server_advances() {
        let clock = ServerClock::default();
        for hours in [-3, 0, 3] {
            let server = Timestamp::now() + SignedDuration::from_hours(hours);
            clock.set(server);
            let difference = clock.now().duration_since(server);
            assert!(difference.abs() < SignedDuration::from_secs(1), "{difference}");
        }
    }
}
