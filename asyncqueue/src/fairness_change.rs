//! Changes the fairness of a queue that is in use: replaces its consumers by those of the other
//! form.
//!
//! An acknowledgement of a removed consumer removes no message, and its successor delivers
//! everything again. So the consumers are paused first, and replaced when no call is in flight.
//! Calls that wait for their next attempt are unacknowledged, for hours perhaps. Their workers
//! record the attempts that were made, and the new consumers deliver these calls at once: the
//! worker that gets one reads the record, and has the call wait for the rest of the time.

use std::{fmt, time::Duration};

use async_nats::jetstream::{Context, consumer::Info, stream::Stream};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::{
    consumer_progress,
    duration::Rounded,
    fairness::Fairness,
    jetstream::{NatsError, timestamp_from_server},
    lanes::{Sweeper, is_lane},
    stats::{WorkerReplies, request_stats},
    stream::{EnsureError, QueueSpec, consumers},
    waiting_calls::request_records,
};

/// Maximum time for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the consumers are removed until the new one can be created: another program may create
/// a lane in between.
const MAX_REPLACE_ATTEMPTS: usize = 5;

/// The result of [`switch_fairness`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchStep {
    /// The queue has the wanted fairness.
    Done {
        /// Number of calls that wait for their next attempt and whose attempts no worker has
        /// recorded: they begin at the first attempt. At least so many: a worker may have recorded
        /// a call that had gone to another one.
        forgotten: u64,
        /// What was changed, in words.
        changes: Vec<String>,
    },
    /// The consumers are paused, and the queue must wait, for this reason. The step is to be
    /// repeated after a second or more.
    Waiting(SwitchWait),
}

/// Why the fairness of a queue can't be changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchWait {
    /// This worker has this number of calls in flight.
    InFlight(String, u64),
    /// This number of workers, of all, did not answer.
    NoAnswer(usize, usize),
    /// Workers are connected, and none answers: their version is before 0.2.
    EarlierVersion,
    /// This worker could not store the attempts of this number of calls.
    NotRecorded(String, u64),
    /// The lease of the last delivery may not be over for this time: a call of which no connected
    /// worker knows may run.
    Lease(Duration),
}

impl fmt::Display for SwitchWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InFlight(worker, calls) => {
                write!(f, "worker {worker} has {calls} calls in flight")
            }
            Self::NoAnswer(missing, workers) => {
                write!(f, "{missing} of {workers} workers did not answer")
            }
            Self::EarlierVersion => f.write_str(
                "the workers do not answer: upgrade them to version 0.2 or later, or scale them to \
                 zero",
            ),
            Self::NotRecorded(worker, calls) => {
                write!(f, "worker {worker} could not store the attempts of {calls} calls")
            }
            Self::Lease(rest) => {
                write!(f, "the lease of the last delivery ends in {}", Rounded(*rest))
            }
        }
    }
}

/// Brings the consumers of a queue to the fairness of `spec`, or one step nearer to it: pauses
/// them, and replaces them once no call is in flight. The new ones are as `spec` says, paused or
/// not.
///
/// The stream must belong to the owner in `spec`. If the change is given up, the consumers must be
/// resumed: see [`give_up_switch`]. [`crate::stream::ensure_queue`] with the fairness that the
/// queue still has does that too.
///
/// # Errors
///
/// NATS is unavailable or refused a request. The step can be repeated.
pub async fn switch_fairness(js: &Context, spec: &QueueSpec) -> Result<SwitchStep, EnsureError> {
    match timeout(STEP_TIMEOUT, Box::pin(step(js, spec))).await {
        Ok(step) => step,
        Err(_) => Err(unavailable(format!("it takes longer than {STEP_TIMEOUT:?}"))),
    }
}

/// Gives up a change of the fairness that waits: resumes the consumers, unless the queue is
/// suspended by `spec`.
///
/// # Errors
///
/// NATS is unavailable or refused a request: calls may not be delivered.
pub async fn give_up_switch(js: &Context, spec: &QueueSpec) -> Result<(), EnsureError> {
    let stream = js.get_stream_no_info(&spec.stream).await.map_err(unavailable)?;
    let existing = consumers::of_owner(&stream, &spec.consumer_config()).await?;
    if spec.suspended { Ok(()) } else { consumers::resume_all(&stream, &existing).await }
}

async fn step(js: &Context, spec: &QueueSpec) -> Result<SwitchStep, EnsureError> {
    let (stream, wanted) =
        (js.get_stream_no_info(&spec.stream).await.map_err(unavailable)?, spec.consumer_config());
    let (mut changes, mut forgotten) = (Vec::new(), 0);
    for _ in 0..MAX_REPLACE_ATTEMPTS {
        let mut existing = consumers::of_owner(&stream, &wanted).await?;
        if !must_replace(&existing, spec) {
            return Ok(SwitchStep::Done { forgotten, changes });
        }
        while consumers::pause_all(&stream, &existing).await? {
            existing = consumers::of_owner(&stream, &wanted).await?;
        }
        match count_forgotten(js, spec, &existing).await? {
            Ok(calls) => forgotten += calls,
            Err(wait) => return Ok(SwitchStep::Waiting(wait)),
        }
        if !replace(&stream, spec, existing, &mut changes).await? {
            continue;
        }
        changes.insert(0, format!("changed the fairness of the queue to {}", spec.fairness));
        if spec.fairness == Fairness::Function {
            // If this fails, the next sweep creates the lanes.
            let created = Sweeper::new(js.clone(), spec).expecting_missing_lanes().sweep().await;
            changes.extend(created.unwrap_or_default());
        }
        return Ok(SwitchStep::Done { forgotten, changes });
    }
    Err(unavailable("other programs create lanes at the same time"))
}

/// Returns whether a queue has consumers of the other form: its own, or lanes that were created
/// while its own was replaced.
fn must_replace(existing: &[Info], spec: &QueueSpec) -> bool {
    match existing.iter().find(|info| info.name == spec.durable) {
        Some(of_queue) => consumers::fairness(&of_queue.config) != spec.fairness,
        None => {
            spec.fairness == Fairness::Fifo
                && existing.iter().any(|info| is_lane(&spec.queue, &info.name))
        }
    }
}

/// Returns how many calls begin at their first attempt if the consumers are replaced now, or why
/// they can't be.
async fn count_forgotten(
    js: &Context,
    spec: &QueueSpec,
    existing: &[Info],
) -> Result<Result<u64, SwitchWait>, EnsureError> {
    let unacknowledged = existing.iter().map(|info| info.num_ack_pending as u64).sum();
    if unacknowledged == 0 {
        return Ok(Ok(0));
    }
    let recorded = match ask_workers(js, spec).await.map_err(unavailable)? {
        Ok(recorded) => recorded,
        Err(wait) => return Ok(Err(wait)),
    };
    if recorded < unacknowledged {
        let progress = consumer_progress::read(js, &spec.stream, &spec.queue).await;
        let now = progress.map_err(unavailable)?.map_or_else(Timestamp::now, |it| it.now);
        if let Some(rest) = existing.iter().filter_map(|info| rest_of_lease(info, now)).max() {
            return Ok(Err(SwitchWait::Lease(rest)));
        }
    }
    Ok(Ok(u64::saturating_sub(unacknowledged, recorded)))
}

/// Asks the workers to record the attempts of their calls. Returns of how many calls the attempts
/// are known: recorded ones, and delayed calls, which have none.
async fn ask_workers(js: &Context, spec: &QueueSpec) -> Result<Result<u64, SwitchWait>, NatsError> {
    let (client, queue) = (js.client(), &spec.queue);
    let mut replies = request_stats(&client, std::slice::from_ref(queue)).await?;
    let workers = match replies.remove(queue).unwrap_or_default() {
        WorkerReplies::None => return Ok(Ok(0)),
        WorkerReplies::NoReply => return Ok(Err(SwitchWait::EarlierVersion)),
        WorkerReplies::Replied(workers) => workers.len(),
    };
    let answers = request_records(&client, queue, workers).await?;
    for answer in &answers {
        let worker = answer.worker.clone();
        if answer.in_flight > 0 {
            return Ok(Err(SwitchWait::InFlight(worker, answer.in_flight)));
        }
        if answer.failed > 0 {
            return Ok(Err(SwitchWait::NotRecorded(worker, answer.failed)));
        }
    }
    if answers.len() < workers {
        return Ok(Err(SwitchWait::NoAnswer(workers - answers.len(), workers)));
    }
    Ok(Ok(answers.iter().map(|answer| answer.recorded + answer.scheduled).sum()))
}

/// Replaces the consumers of a queue. That of the queue itself is removed last: it says which form
/// the queue has, so that a program that continues after a crash does so as well.
///
/// Returns `false` if another program has created a lane in between. It may have delivered calls.
async fn replace(
    stream: &Stream<()>,
    spec: &QueueSpec,
    mut existing: Vec<Info>,
    changes: &mut Vec<String>,
) -> Result<bool, EnsureError> {
    existing.sort_by_key(|info| info.name == spec.durable);
    consumers::remove(stream, &existing, "removed consumer", changes).await?;
    consumers::create_after_removal(stream, &spec.consumer_config(), changes).await
}

/// Returns how long the lease of the last delivery of a consumer lasts, if calls of it are
/// unacknowledged. `None` also if the server does not know the time of that delivery: it has
/// restarted since.
fn rest_of_lease(info: &Info, now: Timestamp) -> Option<Duration> {
    if info.num_ack_pending == 0 {
        return None;
    }
    let delivered = timestamp_from_server(info.delivered.last_active?);
    let since = Duration::try_from(now.duration_since(delivered)).unwrap_or_default();
    info.config.ack_wait.checked_sub(since).filter(|rest| !rest.is_zero())
}

fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EnsureError {
    EnsureError::Unavailable {
        what: "to change the fairness of the queue".to_owned(),
        source: source.into(),
    }
}
