//! What is remembered of the queues over the last minutes.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

use asyncqueue::{QueueName, Rounded};

/// Number of samples of each queue: ten minutes at the default interval.
pub(crate) const MAX_SAMPLES: usize = 120;

/// Maximum number of queues with samples. With all of them, that is about 40 MB: a sample has 32
/// bytes, and there is room for 128.
const MAX_QUEUES: usize = 10_000;

/// A queue at one time. Numbers above the maximum of `u32` are shown as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Calls that wait.
    pub(crate) waiting: u32,
    /// Calls that run. `None`: no worker reports them.
    pub(crate) running: Option<u32>,
    /// Age of the oldest call that has not ended, in seconds.
    pub(crate) oldest_seconds: u32,
    /// Calls that left the queue since the sample before, for each minute. `None`: not known.
    pub(crate) left_per_minute: Option<u32>,
    /// How long the invocations took that ended since the sample before. `None`: none did.
    pub(crate) durations: Option<Percentiles>,
}

/// The durations that half and 95 % of the invocations did not exceed, in milliseconds. Ordered by
/// the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percentiles {
    pub(crate) p95: NonZeroU32,
    pub(crate) p50: NonZeroU32,
}

/// The samples of all queues.
#[derive(Debug, Default)]
pub(crate) struct History {
    queues: HashMap<QueueName, VecDeque<Sample>>,
}

/// Returns milliseconds for people.
pub(crate) fn millis(millis: u32) -> Rounded {
    Rounded(Duration::from_millis(millis.into()))
}

// === impl History ===

impl History {
    /// Adds a sample of each queue, and forgets the queues that are not among them.
    pub(crate) fn add(&mut self, samples: impl IntoIterator<Item = (QueueName, Sample)>) {
        let mut previous = std::mem::take(&mut self.queues);
        for (queue, sample) in samples.into_iter().take(MAX_QUEUES) {
            let mut kept = previous.remove(&queue).unwrap_or_default();
            if kept.len() >= MAX_SAMPLES {
                kept.pop_front();
            }
            kept.push_back(sample);
            self.queues.insert(queue, kept);
        }
    }

    /// Returns the samples of a queue, oldest first.
    pub(crate) fn of(&self, queue: &QueueName) -> Vec<Sample> {
        self.queues.get(queue).map(|samples| samples.iter().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(waiting: u32) -> Sample {
        let (running, left_per_minute, durations) = (None, None, None);
        Sample { waiting, running, oldest_seconds: 0, left_per_minute, durations }
    }

    #[test]
    fn sample_has_the_size_that_the_bounds_count_on() {
        assert_eq!(size_of::<Sample>(), 32);
    }

    #[test]
    fn samples_are_bounded_and_removed_with_their_queue() {
        let (kept, gone): (QueueName, QueueName) =
            ("kept".parse().unwrap(), "gone".parse().unwrap());
        let mut history = History::default();
        history.add([(gone.clone(), sample(1))]);
        for waiting in 0..200 {
            history.add([(kept.clone(), sample(waiting))]);
        }
        assert!(history.of(&gone).is_empty());
        let samples = history.of(&kept);
        assert_eq!((samples.len(), samples[0].waiting), (MAX_SAMPLES, 80));
        assert_eq!(samples.last().map(|sample| sample.waiting), Some(199));
    }

    #[test]
    fn number_of_queues_is_bounded() {
        let mut history = History::default();
        let names = (0..=MAX_QUEUES).map(|number| format!("q{number}").parse().unwrap());
        history.add(names.map(|name| (name, sample(0))));
        assert_eq!(history.queues.len(), MAX_QUEUES);
    }
}
