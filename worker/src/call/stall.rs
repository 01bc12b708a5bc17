//! Detects that this process was stalled: stopped by a signal, out of CPU time, or on a machine
//! that was suspended. A call that was delivered before that may have been cancelled since.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{task::AbortHandle, time::sleep};

/// A longer gap between two ticks is a stall, and so is one between the delivery of a call and its
/// start.
pub(crate) const MAX_GAP: Duration = Duration::from_millis(250);

/// Interval at which the time is read.
const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// Time after a stall within which messages that were delivered before it are read.
const LATE_READ_WINDOW: Duration = Duration::from_secs(1);

/// The stalls of this process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct StallDetector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    times: Arc<Times>,
    ticker: AbortHandle,
}

/// Times in milliseconds since the beginning.
#[derive(Debug)]
struct Times {
    origin: Instant,
    last_tick: AtomicU64,
    /// When the last stall ended. 0: there was no stall.
    last_stall_end: AtomicU64,
}

impl StallDetector {
    /// Starts to watch for stalls.
    pub(crate) fn start() -> Self {
        let times = Arc::new(Times::new(Instant::now()));
        let ticked_times = times.clone();
        let ticker = tokio::spawn(async move {
            loop {
                sleep(TICK_INTERVAL).await;
                ticked_times.tick(Instant::now());
            }
        });
        Self(Arc::new(Shared { times, ticker: ticker.abort_handle() }))
    }

    /// Returns whether a call may have been cancelled since this time without this process knowing.
    /// `since`: when the call was received or its tombstone looked up. `is_checked`: its tombstone
    /// was looked up.
    pub(crate) fn may_have_missed(&self, since: Instant, is_checked: bool) -> bool {
        self.0.times.may_have_missed(since, is_checked, Instant::now())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

impl Times {
    fn new(origin: Instant) -> Self {
        Self { origin, last_tick: AtomicU64::new(0), last_stall_end: AtomicU64::new(0) }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }

    /// Records the time. A late tick ends a stall.
    fn tick(&self, now: Instant) {
        let now = self.millis(now);
        if now.saturating_sub(self.last_tick.swap(now, Ordering::SeqCst)) > millis(MAX_GAP) {
            self.last_stall_end.store(now, Ordering::SeqCst);
        }
    }

    fn may_have_missed(&self, since: Instant, is_checked: bool, now: Instant) -> bool {
        self.tick(now);
        let (since, now) = (self.millis(since), self.millis(now));
        if now.saturating_sub(since) > millis(MAX_GAP) {
            return true;
        }
        let last_stall_end = self.last_stall_end.load(Ordering::SeqCst);
        // A lookup after the stall is current. A message that was read soon after the stall may
        // have been delivered before it.
        let slack = if is_checked { 0 } else { millis(LATE_READ_WINDOW) };
        last_stall_end > 0 && since < last_stall_end + slack
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_suspect_after_a_gap_and_until_it_is_checked() {
        let origin = Instant::now();
        let times = Times::new(origin);
        let at = |millis| origin + Duration::from_millis(millis);
        let missed = |since, is_checked, now| times.may_have_missed(at(since), is_checked, at(now));
        times.tick(at(100));
        assert!(!missed(110, false, 120));
        // The message took long within this process.
        times.tick(at(200));
        assert!(missed(110, false, 400));
        times.tick(at(400));
        // The process stood still, and the message is read before the tick that comes late.
        assert!(missed(2000, false, 2001));
        times.tick(at(2002));
        assert!(missed(2003, false, 2004));
        // The tombstone is looked up after the stall.
        assert!(!missed(2003, true, 2004));
        assert!(missed(1990, true, 2004));
        // The message is delivered long after the stall.
        times.tick(at(2200));
        times.tick(at(2400));
        times.tick(at(2600));
        times.tick(at(2800));
        times.tick(at(3000));
        times.tick(at(3200));
        assert!(!missed(3210, false, 3211));
    }
}
