//! Records what is seen, by one clock.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use super::event::{
    BatchNumber, BatchStep, CallNumber, Event, Excuse, QueueNumber, REPLAYED, Step, What,
};

/// The history of a run in the making. Clones write to the same.
#[derive(Clone, Debug)]
pub struct Recorder {
    begun: Instant,
    /// The same by the clock of the day.
    date: SystemTime,
    history: Arc<Mutex<History>>,
}

#[derive(Debug, Default)]
struct History {
    events: Vec<Event>,
    replayed: BTreeSet<CallNumber>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), date: SystemTime::now(), history: Arc::default() }
    }
}

impl Recorder {
    /// Records a step of a call, now. Of a call that was replayed, it is a step of its second life.
    pub fn step(&self, call: CallNumber, step: Step) {
        let mut history = self.lock();
        let call = if history.replayed.contains(&call) { call + REPLAYED } else { call };
        self.record(&mut history, What::Step(call, step));
    }

    /// Records a step of a batch, now.
    pub fn batch(&self, batch: BatchNumber, step: BatchStep) {
        self.record(&mut self.lock(), What::Batch(batch, step));
    }

    /// Records that a dead letter is about to be replayed, and returns whether that is its call's
    /// first replay: only one second life is kept apart from the first.
    #[must_use]
    pub fn replay(&self, call: CallNumber, stored: SystemTime) -> bool {
        let mut history = self.lock();
        if history.replayed.contains(&call) {
            return false;
        }
        self.record(
            &mut history,
            What::Step(call, Step::DeadLetter { stored: self.time_of(stored) }),
        );
        self.record(&mut history, What::Step(call, Step::Replayed));
        history.replayed.insert(call)
    }

    /// Records something that is done to the system, now.
    pub fn fault(&self, name: impl Into<String>, excuse: Excuse) {
        self.record(&mut self.lock(), What::Fault { name: name.into(), excuse, queue: None });
    }

    /// Records something that is done to one queue, now.
    pub fn fault_of(&self, queue: QueueNumber, name: impl Into<String>, excuse: Excuse) {
        self.record(
            &mut self.lock(),
            What::Fault { name: name.into(), excuse, queue: Some(queue) },
        );
    }

    /// Records the total of open invocations that a queue has from now on.
    pub fn concurrency(&self, queue: QueueNumber, total: Option<u32>) {
        self.record(&mut self.lock(), What::Concurrency { queue, total });
    }

    /// Records that this process was late.
    pub fn late(&self, by: Duration) {
        self.record(&mut self.lock(), What::Late(by));
    }

    /// The time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The time since the beginning at a date, as it is on a server of this machine.
    #[must_use]
    pub fn time_of(&self, date: SystemTime) -> Duration {
        date.duration_since(self.date).unwrap_or_default()
    }

    /// The date at a time since the beginning.
    #[must_use]
    pub fn date_at(&self, time: Duration) -> SystemTime {
        self.date + time
    }

    /// What has been seen so far, in order.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// What has been seen since the last time that it was taken, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }

    /// How many events of a kind there are so far.
    #[must_use]
    pub fn count(&self, is_counted: impl Fn(&What) -> bool) -> usize {
        self.lock().events.iter().filter(|event| is_counted(&event.what)).count()
    }

    /// Whether a call has had a step so far.
    #[must_use]
    pub fn has(&self, call: CallNumber, is_step: impl Fn(&Step) -> bool) -> bool {
        self.count(
            |what| matches!(what, What::Step(number, step) if *number == call && is_step(step)),
        ) > 0
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no writer panicked")
    }

    fn record(&self, history: &mut History, what: What) {
        // The time is taken under the lock, so that the order is that of the times.
        history.events.push(Event { at: self.begun.elapsed(), what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_after_a_replay_are_of_a_call_of_their_own() {
        let recorder = Recorder::default();
        recorder.step(7, Step::Started { run: 1 });
        assert!(recorder.replay(7, SystemTime::UNIX_EPOCH));
        recorder.step(7, Step::Started { run: 2 });
        assert!(!recorder.replay(7, SystemTime::UNIX_EPOCH));
        let steps: Vec<_> = recorder.take().into_iter().map(|event| event.what).collect();
        let step = |call, step| What::Step(call, step);
        assert_eq!(
            steps,
            [
                step(7, Step::Started { run: 1 }),
                step(7, Step::DeadLetter { stored: Duration::ZERO }),
                step(7, Step::Replayed),
                step(7 + REPLAYED, Step::Started { run: 2 }),
            ]
        );
    }
}
