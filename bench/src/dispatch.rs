//! Dispatching: a program takes all calls of a queue, and a function counts them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use test_support::{process::processor_time, program::Program, wait::until_in};

use crate::{Queue, median, per_second};

/// Maximum time until all calls of a run are done.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

/// The number of calls that a function has received.
#[derive(Debug, Default)]
pub struct Received(AtomicUsize);

/// What it costs to dispatch calls.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Calls a second, the first to the last.
    pub rate: f64,
    /// Processor time of a call in microseconds, of the program that takes it from the broker and
    /// invokes the function.
    pub dispatcher: f64,
    /// The same of the broker.
    pub broker: f64,
}

/// Measures a program that dispatches so many calls, from the first call that the function
/// receives to the last.
pub async fn costs(queue: &Queue, program: &Program, received: &Received, calls: usize) -> Costs {
    let before = received.count();
    received.reaches(before + 1).await;
    let used = || (processor_time(program.id()), processor_time(queue.nats.id()));
    let (begun, at_first) = (Instant::now(), used());
    received.reaches(before + calls).await;
    let (elapsed, at_last) = (begun.elapsed(), used());
    let micros = |time: Duration| 1e6 / per_second(calls, time);
    Costs {
        rate: per_second(calls, elapsed),
        dispatcher: micros(at_last.0.saturating_sub(at_first.0)),
        broker: micros(at_last.1.saturating_sub(at_first.1)),
    }
}

/// Ends a program when it has done all calls but those that stay in the queue. None of its requests
/// is then open: a call that the server sends to one is lost until its lease is over.
pub async fn end(queue: &Queue, mut program: Program, stay: u64) {
    queue.empties(stay).await;
    program.signal("TERM");
    program.ended().await;
    let no_requests = async || (queue.open_requests().await? == 0).then_some(());
    until_in(WAIT_TIMEOUT, "no request is open", no_requests).await;
}

impl Received {
    /// Counts a call.
    pub fn record(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns how many calls were received.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until so many calls were received.
    pub async fn reaches(&self, calls: usize) {
        let what = format!("{calls} calls received");
        let is_there = async || (self.count() >= calls).then_some(());
        until_in(WAIT_TIMEOUT, &what, is_there).await;
    }
}

impl Costs {
    /// Returns the median of each figure.
    #[must_use]
    pub fn median(runs: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
        Self {
            rate: middle(|run| run.rate),
            dispatcher: middle(|run| run.dispatcher),
            broker: middle(|run| run.broker),
        }
    }
}
