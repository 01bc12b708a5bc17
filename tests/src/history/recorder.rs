//! Takes down what is seen, by one clock.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use super::event::{CallNumber, Event, Excuse, Step, What};

/// The history of a run in the making. Clones write to the same.
#[derive(Clone, Debug)]
pub struct Recorder {
    begun: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), events: Arc::default() }
    }
}

impl Recorder {
    /// A step of a call, now.
    pub fn step(&self, call: CallNumber, step: Step) {
        self.record(What::Step(call, step));
    }

    /// Something that is done to the system, now.
    pub fn fault(&self, name: impl Into<String>, excuse: Excuse) {
        self.record(What::Fault { name: name.into(), excuse });
    }

    /// What has been seen so far, in order.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.events.lock().expect("no writer panicked").clone()
    }

    /// What has been seen since the last time that it was taken, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().expect("no writer panicked"))
    }

    /// How many events of a kind there are so far.
    #[must_use]
    pub fn count(&self, is_counted: impl Fn(&What) -> bool) -> usize {
        let events = self.events.lock().expect("no writer panicked");
        events.iter().filter(|event| is_counted(&event.what)).count()
    }

    fn record(&self, what: What) {
        // The time is taken under the lock, so that the order is that of the times.
        let mut events = self.events.lock().expect("no writer panicked");
        events.push(Event { at: self.begun.elapsed(), what });
    }
}
