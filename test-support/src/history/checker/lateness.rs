//! When the recorder was late, so that the order in which it recorded two events is not that in
//! which they happened.

use std::time::Duration;

use crate::history::event::{Event, What};

/// The times in which the recorder was late.
#[derive(Debug)]
pub(super) struct Lateness(Vec<(Duration, Duration)>);

pub(super) fn of(history: &[Event]) -> Lateness {
    let late = history.iter().filter_map(|event| match event.what {
        What::Late(by) => Some((event.at.saturating_sub(by), event.at)),
        _ => None,
    });
    Lateness(late.collect())
}

impl Lateness {
    /// For how long it was late between two times.
    pub(super) fn between(&self, since: Duration, until: Duration) -> Duration {
        let overlap = |(begins, ends): &(Duration, Duration)| {
            (*ends).min(until).saturating_sub((*begins).max(since))
        };
        self.0.iter().map(overlap).sum()
    }
}
