//! Decides whether an invocation may start in this worker: the last check before its request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue::{
    directory::Rate,
    shares::{WHOLE_RATE, WorkerShare, rate_of_share},
};
use tokio::{sync::watch, time::sleep};

use super::token_bucket::{Refill, TokenBucket};
use crate::{
    live_settings::LiveSettings,
    metrics::{Metrics, RateOf},
};

/// Lets invocations start within the share of this worker. Clones share their state.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    settings: watch::Receiver<LiveSettings>,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of open invocations.
    open: u32,
    /// Number of calls that wait for a token.
    waiting: usize,
    /// The share. `None`: it is not known yet, or no limit exists.
    held: Option<Held>,
}

/// The share of this worker.
#[derive(Debug)]
struct Held {
    slots: u32,
    bucket: TokenBucket,
    /// When invocations may no longer start, unless the share is renewed.
    until: Instant,
}

/// An invocation that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenInvocation(Arc<Mutex<State>>);

/// A call that waits for a token until this is dropped.
struct Waiting<'a>(&'a Gate);

// === impl Gate ===

impl Gate {
    pub(crate) fn new(settings: watch::Receiver<LiveSettings>, metrics: Metrics) -> Self {
        Self { settings, metrics, state: Arc::default() }
    }

    /// Returns whether the rate is limited.
    pub(crate) fn has_rate(&self) -> bool {
        self.settings.borrow().rate.is_some()
    }

    /// Waits until the rate permits an invocation. Returns `false` if this worker has no part of
    /// the rate.
    pub(crate) async fn wait_for_token(&self) -> bool {
        if !self.has_rate() {
            return true;
        }
        let now = Instant::now();
        let (wait, _waiting) = {
            let mut state = self.lock();
            let Some(wait) = state.valid(now).and_then(|held| held.bucket.take(now)) else {
                return false;
            };
            state.waiting += 1;
            (wait, Waiting(self))
        };
        if !wait.is_zero() {
            self.metrics.record_rate_wait(RateOf::Queue);
            sleep(wait).await;
        }
        true
    }

    /// Opens an invocation. Returns `None` if that would exceed the share of this worker, or if the
    /// share may have lapsed.
    pub(crate) fn open(&self) -> Option<OpenInvocation> {
        let (concurrency, has_rate) = {
            let settings = self.settings.borrow();
            (settings.concurrency, settings.rate.is_some())
        };
        let mut state = self.lock();
        if concurrency.is_some() || has_rate {
            let open = state.open;
            let held = state.valid(Instant::now())?;
            if concurrency.is_some() && open >= held.slots {
                return None;
            }
        }
        state.open += 1;
        Some(OpenInvocation(self.state.clone()))
    }

    /// Returns how many calls may be requested or wait for a token.
    pub(crate) fn calls_ahead(&self) -> usize {
        if !self.has_rate() {
            return usize::MAX;
        }
        let (now, mut state) = (Instant::now(), self.lock());
        let waiting = state.waiting;
        state.valid(now).map_or(0, |held| held.bucket.soon(now)).saturating_sub(waiting)
    }

    /// Returns how many invocations may be open now, if their total is limited.
    pub(super) fn slots(&self) -> u32 {
        self.lock().valid(Instant::now()).map_or(0, |held| held.slots)
    }

    /// Decides on the next share by the number of open invocations, and keeps within it from now
    /// on. It is confirmed when it is written.
    pub(super) fn prepare<T>(&self, decide: impl FnOnce(u32) -> (u32, T)) -> T {
        let mut state = self.lock();
        let (slots, decided) = decide(state.open);
        if let Some(held) = &mut state.held {
            held.slots = held.slots.min(slots);
        }
        decided
    }

    /// Keeps within a part of the rate that is about to be written, if it is lower.
    pub(super) fn lower_rate(&self, rate: Option<Rate>, before: u32, part: u32) {
        if part < before
            && let Some(held) = &mut self.lock().held
        {
            held.bucket.set(refill(rate, part), Instant::now());
        }
    }

    /// Uses a share that was written, for a time that began before that.
    pub(super) fn confirm(&self, share: &WorkerShare, rate: Option<Rate>, until: Instant) {
        let (now, mut state) = (Instant::now(), self.lock());
        let bucket =
            state.held.as_ref().map_or_else(|| TokenBucket::empty(now), |held| held.bucket);
        let mut held = Held { slots: share.slots, bucket, until };
        held.bucket.set(refill(rate, share.rate), now);
        state.held = Some(held);
    }

    /// Forgets the share: there is no limit any more.
    pub(super) fn release(&self) {
        self.lock().held = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Returns how the tokens of a part of a rate arrive. A part has room for at least one token.
pub(super) fn refill(rate: Option<Rate>, part: u32) -> Refill {
    let Some(rate) = rate.filter(|_| part > 0) else {
        return Refill { interval: None, capacity: 1 };
    };
    let capacity = u64::from(rate.burst()) * u64::from(part) / u64::from(WHOLE_RATE);
    Refill {
        interval: Some(Duration::from_secs(1).div_f64(rate_of_share(rate.per_second, part))),
        capacity: u32::try_from(capacity).unwrap_or(u32::MAX).max(1),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl State ===

impl State {
    /// Returns the share, if invocations may start now.
    fn valid(&mut self, now: Instant) -> Option<&mut Held> {
        self.held.as_mut().filter(|held| now < held.until)
    }
}

impl Drop for OpenInvocation {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::{GoDuration, retry::QueueRetry};

    use super::*;

    fn gate(concurrency: Option<u32>, rate: Option<Rate>) -> Gate {
        let settings =
            LiveSettings::new(10, GoDuration(Duration::from_secs(1)), QueueRetry::default());
        let settings = settings.with_shared_limits(concurrency, rate);
        let queue = "jobs".parse().unwrap();
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default(), &queue);
        Gate::new(watch::channel(settings).1, metrics)
    }

    fn share(slots: u32, rate: u32) -> WorkerShare {
        WorkerShare { slots, rate, ..WorkerShare::default() }
    }

    fn in_a_second() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test]
    async fn a_gate_without_limits_is_open() {
        let gate = gate(None, None);
        assert!(gate.wait_for_token().await && gate.calls_ahead() == usize::MAX);
        let open: Vec<_> = (0..100).map(|_| gate.open().unwrap()).collect();
        assert_eq!(gate.lock().open, 100);
        drop(open);
        assert_eq!(gate.lock().open, 0);
    }

    #[test]
    fn no_more_are_open_than_the_share_and_its_time_permit() {
        let gate = gate(Some(5), None);
        assert!(gate.open().is_none(), "there is no share yet");
        gate.confirm(&share(2, 0), None, in_a_second());
        let open = [gate.open().unwrap(), gate.open().unwrap()];
        assert!(gate.open().is_none());
        drop(open);
        gate.confirm(&share(2, 0), None, Instant::now());
        assert!(gate.open().is_none() && gate.slots() == 0, "the share has lapsed");
        gate.confirm(&share(2, 0), None, in_a_second());
        assert!(gate.open().is_some());
    }

    #[test]
    fn a_lower_share_applies_before_it_is_written() {
        let gate = gate(Some(5), None);
        gate.confirm(&share(3, 0), None, in_a_second());
        let _open = gate.open().unwrap();
        let open = gate.prepare(|open| (1, open));
        assert!(open == 1 && gate.open().is_none());
        // A higher one only after that.
        gate.prepare(|_| (5, ()));
        assert!(gate.open().is_none());
        gate.confirm(&share(5, 0), None, in_a_second());
        assert!(gate.open().is_some());
    }

    #[tokio::test]
    async fn calls_wait_for_the_part_of_the_rate() {
        let rate = Rate { per_second: 100, burst: Some(4) };
        let gate = gate(None, Some(rate));
        assert!(!gate.wait_for_token().await && gate.calls_ahead() == 0);
        gate.confirm(&share(0, WHOLE_RATE / 2), Some(rate), in_a_second());
        assert_eq!(gate.calls_ahead(), 49);
        let begun = Instant::now();
        for _ in 0..5 {
            assert!(gate.wait_for_token().await && gate.open().is_some());
        }
        assert!(begun.elapsed() >= Duration::from_millis(95), "{:?}", begun.elapsed());
        gate.lower_rate(Some(rate), WHOLE_RATE / 2, 0);
        assert!(!gate.wait_for_token().await);
    }
}
