//! Replays and deletes dead letters in the background: many of them take longer than a page may.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use asyncqueue::{
    QueueName,
    dead_letters::{DeadLetters, ReplayOutcome},
    directory::QueueEntry,
    jetstream::NatsError,
};
use asyncqueue_runtime::error::error_chain;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{auth::User, letters::QueueLetters, metrics::Metrics};

/// Maximum number of queues whose dead letters are replayed or deleted at the same time.
const MAX_RUNNING: usize = 4;

/// Maximum number of letters of a job that are worked on at the same time, each with its body.
const MAX_CONCURRENT: usize = 16;

/// Maximum number of jobs that are remembered after their end.
const MAX_ENDED: usize = 100;

/// What a user does with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LetterAction {
    Replay,
    Delete,
}

/// What a job works on.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) queue: QueueName,
    /// Where calls of the queue go now.
    pub(crate) entry: QueueEntry,
    pub(crate) store: DeadLetters,
    pub(crate) letters: Arc<QueueLetters>,
    pub(crate) sequences: Vec<u64>,
}

/// The last job of each queue.
#[derive(Debug)]
pub(crate) struct Jobs {
    latest: Mutex<BTreeMap<QueueName, Arc<Job>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    metrics: Metrics,
}

/// An action on dead letters of one queue.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) action: LetterAction,
    pub(crate) user: User,
    /// Number of letters.
    pub(crate) total: usize,
    pub(crate) began: Timestamp,
    progress: Mutex<Progress>,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Letters that were replayed or deleted.
    pub(crate) done: usize,
    /// Letters that were gone.
    pub(crate) gone: usize,
    pub(crate) failed: usize,
    /// Why the first one failed.
    pub(crate) error: Option<String>,
    pub(crate) ended: Option<Timestamp>,
}

/// Why a job can't begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    #[error("Dead letters of this queue are being replayed or deleted.")]
    Queue,
    #[error("Dead letters of {MAX_RUNNING} other queues are being replayed or deleted.")]
    Others,
}

/// Why a letter was not replayed or deleted.
#[derive(Debug)]
struct Failure {
    why: String,
    /// All others would fail as well.
    concerns_all: bool,
}

// === impl LetterAction ===

impl LetterAction {
    /// The action as metrics, paths and forms name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Delete => "delete",
        }
    }

    /// What was done.
    pub(crate) fn participle(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Delete => "deleted",
        }
    }

    /// Does it with one letter, and returns whether it was there.
    async fn act(self, work: &Work, sequence: u64) -> Result<bool, Failure> {
        match self {
            Self::Delete => Ok(work.store.delete_at(sequence).await?),
            Self::Replay => {
                let Some(letter) = work.store.letter(sequence).await? else { return Ok(false) };
                match work.store.replay(&letter, &work.entry).await {
                    Ok(outcome) => Ok(outcome != ReplayOutcome::NotFound),
                    Err(error) => Err(Failure {
                        why: error_chain(&error),
                        concerns_all: !error.is_per_letter(),
                    }),
                }
            }
        }
    }
}

// === impl Jobs ===

impl Jobs {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            latest: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
        }
    }

    /// Returns the job of a queue that runs, or has run last.
    pub(crate) fn of(&self, queue: &QueueName) -> Option<Arc<Job>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned()
    }

    /// Begins a job. It goes on if the task that is returned is dropped.
    pub(crate) fn start(
        self: &Arc<Self>,
        action: LetterAction,
        user: User,
        work: Work,
    ) -> Result<JoinHandle<()>, Busy> {
        let job = Arc::new(Job {
            action,
            user,
            total: work.sequences.len(),
            began: Timestamp::now(),
            progress: Mutex::default(),
        });
        self.add(&work.queue, &job)?;
        let jobs = self.clone();
        Ok(self.tasks.spawn(async move { jobs.run(&job, &work).await }))
    }

    /// Stops all jobs, and waits for the letters that they are working on.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn add(&self, queue: &QueueName, job: &Arc<Job>) -> Result<(), Busy> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.get(queue).is_some_and(|job| job.is_running()) {
            return Err(Busy::Queue);
        }
        if latest.values().filter(|job| job.is_running()).count() >= MAX_RUNNING {
            return Err(Busy::Others);
        }
        if latest.len() >= MAX_ENDED {
            let ended = latest.iter().filter(|(_, job)| !job.is_running());
            let oldest = ended.min_by_key(|(_, job)| job.began).map(|(queue, _)| queue.clone());
            oldest.map(|queue| latest.remove(&queue));
        }
        latest.insert(queue.clone(), job.clone());
        Ok(())
    }

    async fn run(&self, job: &Job, work: &Work) {
        let (user, action, queue) = (&job.user, job.action.name(), &work.queue);
        info!(%user, action, %queue, letters = job.total, "begins an action on dead letters");
        // What has begun is finished: a call that is replayed halfway would run and stay dead.
        for chunk in work.sequences.chunks(MAX_CONCURRENT) {
            let acting: Vec<_> = chunk.iter().map(|at| job.action.act(work, *at)).collect();
            let mut goes_on = !self.stop.is_cancelled();
            for (sequence, outcome) in chunk.iter().zip(join_all(acting).await) {
                match &outcome {
                    Ok(_) => work.letters.remove(*sequence),
                    Err(failure) => goes_on &= !failure.concerns_all,
                }
                job.count(outcome);
            }
            if !goes_on {
                break;
            }
        }
        let Progress { done, gone, failed, error, .. } = job.end();
        let outcome = if failed > 0 { "failure" } else { "success" };
        self.metrics.acted(action, outcome);
        let left = job.total - done - gone - failed;
        info!(
            %user, action, %queue, done, gone, failed, left, error,
            "ended an action on dead letters"
        );
    }
}

// === impl Job ===

impl Job {
    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_running(&self) -> bool {
        self.progress().ended.is_none()
    }

    fn count(&self, outcome: Result<bool, Failure>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(true) => progress.done += 1,
            Ok(false) => progress.gone += 1,
            Err(failure) => {
                progress.failed += 1;
                progress.error.get_or_insert(failure.why);
            }
        }
    }

    fn end(&self) -> Progress {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.ended = Some(Timestamp::now());
        progress.clone()
    }
}

// === impl Failure ===

impl From<NatsError> for Failure {
    fn from(error: NatsError) -> Self {
        Self { why: error_chain(&error), concerns_all: true }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn jobs() -> Jobs {
        Jobs::new(Metrics::register(&mut Registry::default()))
    }

    fn job() -> Arc<Job> {
        Arc::new(Job {
            action: LetterAction::Replay,
            user: User("ada".to_owned()),
            total: 3,
            began: Timestamp::now(),
            progress: Mutex::default(),
        })
    }

    fn queue(number: usize) -> QueueName {
        format!("queue-{number}").parse().unwrap()
    }

    #[test]
    fn queue_has_one_job_at_a_time_and_few_queues_have_one() {
        let (jobs, first) = (jobs(), job());
        assert_eq!(jobs.add(&queue(0), &first), Ok(()));
        assert_eq!(jobs.add(&queue(0), &job()), Err(Busy::Queue));
        for number in 1..MAX_RUNNING {
            assert_eq!(jobs.add(&queue(number), &job()), Ok(()));
        }
        assert_eq!(jobs.add(&queue(MAX_RUNNING), &job()), Err(Busy::Others));
        first.end();
        assert_eq!(jobs.add(&queue(0), &job()), Ok(()));
    }

    #[test]
    fn few_ended_jobs_are_remembered() {
        let jobs = jobs();
        for number in 0..=MAX_ENDED {
            let job = job();
            jobs.add(&queue(number), &job).unwrap();
            job.end();
        }
        assert!(jobs.of(&queue(0)).is_none() && jobs.of(&queue(MAX_ENDED)).is_some());
        assert_eq!(jobs.latest.lock().unwrap().len(), MAX_ENDED);
    }

    #[test]
    fn first_error_is_kept() {
        let job = job();
        job.count(Ok(true));
        job.count(Ok(false));
        for why in ["first", "second"] {
            job.count(Err(Failure { why: why.to_owned(), concerns_all: false }));
        }
        let Progress { done, gone, failed, error, ended } = job.progress();
        assert_eq!((done, gone, failed, error.as_deref()), (1, 1, 2, Some("first")));
        assert!(ended.is_none() && job.is_running());
    }
}
