//! How long the invocations of a queue took that ended between two samples. Pure.

use std::collections::HashMap;

use asyncqueue::stats::{DurationCounts, WorkerReplies, WorkerStats};

use crate::history::{MAX_SAMPLES, Percentiles};

/// Maximum number of workers of a queue that are remembered: twice the maximum of replicas, while
/// all are replaced. Invocations of further ones are not counted.
const MAX_WORKERS: usize = 2_000;

/// What the workers of a queue have counted until a sample.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueDurations {
    workers: HashMap<Process, Counted>,
    /// What ended since the sample before.
    ended: DurationCounts,
}

/// The name of a worker and its instance: a worker process.
type Process = (String, String);

/// The last counts of a worker process.
#[derive(Clone, Debug)]
struct Counted {
    counts: DurationCounts,
    /// Number of samples since, to which it did not reply.
    missed: usize,
}

// === impl QueueDurations ===

impl QueueDurations {
    /// Adds the replies to a sample. All that a process has counted is new if the samples before
    /// did not have it, except in the first sample. `None`: the first sample is yet to come.
    pub(super) fn next(before: Option<&Self>, replies: &WorkerReplies) -> Option<Self> {
        let replies = match (replies, before) {
            (WorkerReplies::NoReply, None) => return None,
            (WorkerReplies::Replied(all), _) => all.as_slice(),
            (WorkerReplies::None | WorkerReplies::NoReply, _) => &[],
        };
        let mut next = before.map_or_else(Self::default, Self::without_replies);
        for worker in replies {
            next.add(worker, before.is_none());
        }
        Some(next)
    }

    /// Returns the state after a sample to which no worker replied. A process is forgotten when the
    /// charts no longer show a sample with it.
    fn without_replies(&self) -> Self {
        let kept = self.workers.iter().filter(|(_, worker)| worker.missed < MAX_SAMPLES);
        let workers = kept.map(|(process, worker)| {
            let counted = Counted { counts: worker.counts.clone(), missed: worker.missed + 1 };
            (process.clone(), counted)
        });
        Self { workers: workers.collect(), ended: DurationCounts::default() }
    }

    fn add(&mut self, worker: &WorkerStats, is_first: bool) {
        let Some(counts) = &worker.durations else { return };
        let process = (worker.worker.clone(), worker.instance.clone());
        let last = self.workers.get(&process);
        if last.is_none() && self.workers.len() >= MAX_WORKERS {
            return;
        }
        match last {
            Some(last) => self.ended += &counts.since(&last.counts),
            None if is_first => {}
            None => self.ended += counts,
        }
        self.workers.insert(process, Counted { counts: counts.clone(), missed: 0 });
    }

    /// Returns the percentiles of what ended since the sample before; `None` if nothing did.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let (p50, p95) = (self.ended.percentile(50)?, self.ended.percentile(95)?);
        Some(Percentiles { p95, p50 })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn worker(name: &str, instance: &str, counts: &[(u32, u64)]) -> WorkerStats {
        WorkerStats {
            worker: name.to_owned(),
            instance: instance.to_owned(),
            durations: Some(counts_of(counts)),
            ..WorkerStats::default()
        }
    }

    /// Adds samples, and returns what ended in each of them, from the first one on.
    fn ended(samples: &[WorkerReplies]) -> Vec<DurationCounts> {
        let mut last = None;
        let mut next = |replies| {
            last = QueueDurations::next(last.as_ref(), replies);
            last.as_ref().map(|durations| durations.ended.clone())
        };
        samples.iter().filter_map(&mut next).collect()
    }

    fn counts_of(counts: &[(u32, u64)]) -> DurationCounts {
        counts.iter().copied().collect::<BTreeMap<_, _>>().into()
    }

    fn replied(workers: &[WorkerStats]) -> WorkerReplies {
        WorkerReplies::Replied(workers.to_vec())
    }

    #[test]
    fn counts_before_the_first_sample_are_not_in_a_sample() {
        let old = [worker("w", "1", &[(8, 100)])];
        let new = [worker("w", "1", &[(8, 101), (256, 2)])];
        let samples = [WorkerReplies::NoReply, replied(&old), replied(&new), replied(&new)];
        assert_eq!(
            ended(&samples),
            [counts_of(&[]), counts_of(&[(8, 1), (256, 2)]), counts_of(&[])]
        );
    }

    #[test]
    fn a_new_process_counts_from_its_start() {
        let restarted = [worker("w", "2", &[(8, 3)]), worker("v", "1", &[(4, 1)])];
        let samples = [replied(&[worker("w", "1", &[(8, 100)])]), replied(&restarted)];
        assert_eq!(ended(&samples)[1], counts_of(&[(8, 3), (4, 1)]));
        let samples = [WorkerReplies::None, replied(&restarted)];
        assert_eq!(ended(&samples)[1], counts_of(&[(8, 3), (4, 1)]));
    }

    #[test]
    fn missed_samples_are_made_up_for() {
        let at = |count| replied(&[worker("w", "1", &[(8, count)])]);
        for missed in [WorkerReplies::NoReply, WorkerReplies::None, replied(&[])] {
            let samples = [at(5), missed.clone(), missed, at(7)];
            let expected = [counts_of(&[]), counts_of(&[]), counts_of(&[]), counts_of(&[(8, 2)])];
            assert_eq!(ended(&samples), expected);
        }
    }

    #[test]
    fn remembered_workers_are_bounded() {
        let before = QueueDurations::next(None, &WorkerReplies::None);
        let many: Vec<_> =
            (0..=MAX_WORKERS).map(|n| worker(&format!("w-{n}"), "1", &[(1, 1)])).collect();
        let mut last = QueueDurations::next(before.as_ref(), &replied(&many)).unwrap();
        assert_eq!(last.workers.len(), MAX_WORKERS);
        assert_eq!(last.ended, counts_of(&[(1, MAX_WORKERS as u64)]));
        for _ in 0..=MAX_SAMPLES {
            last = QueueDurations::next(Some(&last), &WorkerReplies::None).unwrap();
        }
        assert!(last.workers.is_empty());
    }

    #[test]
    fn percentiles_are_of_what_ended_since_the_sample_before() {
        let at = |counts: &[(u32, u64)]| replied(&[worker("w", "1", counts)]);
        let first = QueueDurations::next(None, &at(&[(1 << 20, 1_000)]));
        assert_eq!(first.as_ref().unwrap().percentiles(), None);
        let next = QueueDurations::next(first.as_ref(), &at(&[(1 << 20, 1_000), (256, 9), (8, 1)]));
        let percentiles = next.unwrap().percentiles().unwrap();
        assert!((129..=256).contains(&percentiles.p50.get()), "{percentiles:?}");
        assert!(percentiles.p50 <= percentiles.p95 && percentiles.p95.get() <= 256);
    }

    proptest! {
        /// Each step ends some invocations of a worker, which may be replaced by a new process
        /// after a report, and of which the report may be lost.
        #[test]
        fn each_reported_invocation_is_in_one_sample(
            steps in prop::collection::vec(
                (0_usize..3, 0_u32..10, 0_u64..5, any::<bool>(), any::<bool>()), 0..60,
            ),
        ) {
            let mut last = QueueDurations::next(None, &WorkerReplies::None);
            let (mut shown, mut expected) = (DurationCounts::default(), DurationCounts::default());
            let mut workers: [(u32, DurationCounts); 3] = Default::default();
            // What each worker has counted since its last report.
            let mut unreported: [DurationCounts; 3] = Default::default();
            for (number, bucket, count, is_lost, is_replaced) in steps {
                let ended = BTreeMap::from([(1 << bucket, count)]).into();
                let (instance, counts) = &mut workers[number];
                *counts += &ended;
                unreported[number] += &ended;
                let reply = WorkerStats {
                    worker: number.to_string(),
                    instance: instance.to_string(),
                    durations: Some(counts.clone()),
                    ..WorkerStats::default()
                };
                let reply = if is_lost { WorkerReplies::NoReply } else { replied(&[reply]) };
                if !is_lost {
                    expected += &std::mem::take(&mut unreported[number]);
                }
                if is_replaced {
                    (*instance, *counts) = (*instance + 1, DurationCounts::default());
                    unreported[number] = DurationCounts::default();
                }
                last = QueueDurations::next(last.as_ref(), &reply);
                shown += &last.as_ref().unwrap().ended;
            }
            prop_assert_eq!(shown, expected);
        }
    }
}
