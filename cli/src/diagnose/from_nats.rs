//! What NATS and the workers show.

use asyncqueue::stats::{BlockedCalls, LimitedFunction, WorkerReplies, WorkerStats};

use super::{
    Finding, Severity,
    facts::{DeadReason, Facts, Kubernetes},
};

/// Age of the oldest call from which on free slots are noted: before, calls may just be on their
/// way to a worker.
const WAITED_SECONDS: u64 = 60;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [missing_object, stream, suspended, workers, slots, retries, callbacks, dead_letters]
            .into_iter()
            .filter_map(|finding| finding(facts))
            .collect();
    if let WorkerReplies::Replied(workers) = &facts.workers {
        findings.extend(blocked(workers));
    }
    findings.extend(facts.workers.limited().iter().map(limited));
    findings
}

/// The stream names an `AsyncQueue` that does not exist.
fn missing_object(facts: &Facts) -> Option<Finding> {
    let Kubernetes::Read(queues) = &facts.kubernetes else { return None };
    let stream = facts.wanted_stream.as_ref().filter(|_| queues.is_empty())?;
    Some(Finding::new(
        Severity::Warning,
        "NoAsyncQueue",
        format!("Stream {stream} was created for an AsyncQueue that does not exist."),
        "Create the AsyncQueue again with the same name and namespace, or delete what it left: \
         see docs/operations.md.",
    ))
}

fn stream(facts: &Facts) -> Option<Finding> {
    let Some(stream) = &facts.wanted_stream else {
        let letters = calls(facts.dead_letters, "dead letter");
        return (facts.dead_letters > 0).then(|| {
            Finding::new(
                Severity::Note,
                "NoQueue",
                format!("The queue is deleted, and {letters} of it are left."),
                format!("Delete them: kubectl aq dead purge {} --all", facts.queue),
            )
        });
    };
    let remedy = match facts.kubernetes {
        Kubernetes::Standalone => "Start a gateway or a worker with ensure_stream=true.",
        _ => "The operator creates it: check that it runs, and its log.",
    };
    if let Some(error) = &facts.stream_error {
        Some(Finding::new(
            Severity::Error,
            "StreamUnavailable",
            format!(
                "No server of NATS answers for stream {stream}, so that calls are refused and not \
                 run: {error}."
            ),
            "Start the servers of NATS that store it: more than half of them must run, and the \
             only one of a stream with one replica.",
        ))
    } else if !facts.has_stream {
        let cause = format!("Stream {stream} does not exist, so that calls are refused.");
        Some(Finding::new(Severity::Error, "NoStream", cause, remedy))
    } else if facts.consumers == 0 {
        let cause = format!("Stream {stream} has no consumer, so that calls are not run.");
        Some(Finding::new(Severity::Error, "NoConsumer", cause, remedy))
    } else {
        None
    }
}

fn suspended(facts: &Facts) -> Option<Finding> {
    let stream = facts.wanted_stream.as_ref().filter(|_| facts.is_paused)?;
    let remedy = match facts.async_queues() {
        [queue, ..] => format!("Set spec.suspend to false: kubectl edit {}", queue.kubectl_name()),
        [] => format!(
            "Resume the consumers of stream {stream}: nats consumer resume {stream}. With an \
             AsyncQueue, set spec.suspend to false."
        ),
    };
    let cause = format!(
        "The delivery of calls is paused: {} must wait.",
        calls(facts.depth.not_running(), "call")
    );
    Some(Finding::new(Severity::Warning, "Suspended", cause, remedy))
}

fn workers(facts: &Facts) -> Option<Finding> {
    let Facts { queue, depth, callbacks, .. } = facts;
    match facts.workers {
        WorkerReplies::Replied(_) => None,
        WorkerReplies::NoReply => Some(Finding::new(
            Severity::Warning,
            "WorkersSilent",
            "Workers are connected and do not report what they run: their version is before 0.2, \
             or they are stuck.",
            format!("See their version and their log: kubectl aq logs {queue} --since 10m"),
        )),
        WorkerReplies::None => {
            let (waiting, scheduled) = (depth.total(), depth.scheduled);
            let is_needed = waiting + scheduled + callbacks > 0;
            let is_at_zero =
                facts.async_queues().iter().any(|queue| queue.spec.replicas == Some(0));
            if is_at_zero && !is_needed {
                return None;
            }
            let cause = format!(
                "No worker is connected: {} and {} must wait.",
                calls(waiting + scheduled, "call"),
                calls(*callbacks, "callback")
            );
            let remedy = match facts.async_queues() {
                [queue, ..] if is_at_zero => format!(
                    "spec.replicas is 0: kubectl scale {} --replicas=1",
                    queue.kubectl_name()
                ),
                [queue, ..] => format!(
                    "See why the pods do not run or do not reach NATS: kubectl describe pod -n {} \
                     -l {}={}",
                    queue.metadata.namespace,
                    asyncqueue::QUEUE_LABEL,
                    queue.metadata.name
                ),
                [] => format!("Start a worker with queue={queue}, and check that it reaches NATS."),
            };
            let severity = if is_needed { Severity::Error } else { Severity::Warning };
            Some(Finding::new(severity, "NoWorkers", cause, remedy))
        }
    }
}

fn slots(facts: &Facts) -> Option<Finding> {
    let (workers, slots) = facts.slots().filter(|(workers, _)| *workers > 0)?;
    let waiting = facts.depth.waiting;
    if waiting == 0 || facts.is_paused {
        return None;
    }
    let workers = calls(workers as u64, "worker");
    if facts.depth.running >= slots {
        return Some(Finding::new(
            Severity::Warning,
            "SlotsBusy",
            format!(
                "All slots ({slots}) of {workers} are in use: {} must wait.",
                calls(waiting, "call")
            ),
            "Raise replicas or maxInflight, or give slow functions a queue of their own: see \
             docs/autoscaling.md.",
        ));
    }
    let oldest = facts.oldest_seconds.filter(|seconds| *seconds >= WAITED_SECONDS)?;
    Some(Finding::new(
        Severity::Note,
        "SlotsFree",
        format!(
            "{} of {slots} slots of {workers} are free although {} must wait, the oldest call \
             since {oldest}s.",
            slots - facts.depth.running,
            calls(waiting, "call")
        ),
        "Raise concurrency, rate and the limits of functions if they are too low: see \
         docs/flow-control.md.",
    ))
}

fn retries(facts: &Facts) -> Option<Finding> {
    let retrying = facts.depth.retrying;
    (retrying > 0 && facts.workers != WorkerReplies::NoReply).then(|| {
        Finding::new(
            Severity::Warning,
            "Retrying",
            format!("{} must wait for the next attempt.", calls(retrying, "call")),
            format!(
                "See why their attempts failed: kubectl aq logs {} --since 10m, or lastError in \
                 kubectl aq status CALL-ID",
                facts.queue
            ),
        )
    })
}

fn callbacks(facts: &Facts) -> Option<Finding> {
    (facts.callbacks > 0 && facts.workers != WorkerReplies::None).then(|| {
        Finding::new(
            Severity::Warning,
            "CallbacksWaiting",
            format!("{} could not be delivered yet.", calls(facts.callbacks, "result")),
            format!("Check that their targets answer: kubectl aq logs {} --since 10m", facts.queue),
        )
    })
}

fn dead_letters(facts: &Facts) -> Option<Finding> {
    // Those of a deleted queue have a finding of their own.
    if facts.dead_letters == 0 || facts.wanted_stream.is_none() {
        return None;
    }
    let reason = facts.dead_reason.as_ref().map(|DeadReason { reason, count, read }| {
        format!(" The reason of {count} of the newest {read}: {reason}.")
    });
    let queue = &facts.queue;
    Some(Finding::new(
        Severity::Warning,
        "DeadLetters",
        format!(
            "The queue keeps {}.{}",
            calls(facts.dead_letters, "dead letter"),
            reason.unwrap_or_default()
        ),
        format!(
            "Correct the function, then run them again: kubectl aq dead list {queue}, kubectl aq \
             dead replay {queue} --all. Or delete them: kubectl aq dead purge {queue} --all"
        ),
    ))
}

fn blocked(workers: &[WorkerStats]) -> Option<Finding> {
    let mut sums: Vec<BlockedCalls> = Vec::new();
    for blocked in workers.iter().flat_map(|worker| &worker.blocked) {
        let same = |sum: &&mut BlockedCalls| {
            (&sum.record, &sum.reason) == (&blocked.record, &blocked.reason)
        };
        match sums.iter_mut().find(same) {
            Some(sum) => sum.calls = sum.calls.saturating_add(blocked.calls),
            None => sums.push(blocked.clone()),
        }
    }
    let parts: Vec<String> = sums
        .iter()
        .map(|BlockedCalls { record, reason, calls: number }| {
            let number = calls(u64::from(*number), "call");
            format!("the {} of {number} ({reason})", record.replace('_', " "))
        })
        .collect();
    let mut remedies: Vec<&str> = sums.iter().map(|blocked| remedy(&blocked.reason)).collect();
    remedies.sort_unstable();
    remedies.dedup();
    (!parts.is_empty()).then(|| {
        Finding::new(
            Severity::Error,
            "CallsBlocked",
            format!("Workers can't store the records that end calls: {}.", parts.join(", ")),
            remedies.join(" "),
        )
    })
}

/// Returns what to do if a record can't be stored for a reason.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "no_space" => "Raise the limits of JetStream, or delete messages.",
        "stream_full" => "Check why callbacks fail, and replay or purge dead letters.",
        "no_stream" => "Check that the operator or ensure_stream creates the stream.",
        _ => "Check NATS, and the log of the workers.",
    }
}

fn limited(function: &LimitedFunction) -> Finding {
    let LimitedFunction { function, limit, refused } = function;
    Finding::new(
        Severity::Note,
        "FunctionLimited",
        format!(
            "Function {function} has refused {}, so that workers run at most {limit} at once.",
            calls(*refused, "call")
        ),
        "Give the function more replicas or a higher limit of its own.",
    )
}

/// Formats a number: `1 call`, `2 calls`.
fn calls(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use asyncqueue::{FunctionName, depth::Depth};

    use super::{super::samples::*, *};

    /// The only finding of these facts.
    fn one(facts: &Facts) -> Finding {
        let found = findings(facts);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    fn assert_found(facts: &Facts, severity: Severity, name: &str, cause: &str, remedy: &str) {
        let found = one(facts);
        assert_eq!((found.severity, &*found.name, &*found.cause), (severity, name, cause));
        assert!(found.remedy.contains(remedy), "{}", found.remedy);
    }

    fn waiting(waiting: u64) -> Depth {
        Depth { waiting, ..Depth::default() }
    }

    #[test]
    fn stream_without_its_async_queue_is_found() {
        assert_found(
            &Facts { kubernetes: Kubernetes::Read(Vec::new()), ..healthy() },
            Severity::Warning,
            "NoAsyncQueue",
            "Stream jobs was created for an AsyncQueue that does not exist.",
            "Create the AsyncQueue",
        );
    }

    #[test]
    fn missing_stream_is_found() {
        let facts = Facts { has_stream: false, consumers: 0, ..healthy() };
        let cause = "Stream jobs does not exist, so that calls are refused.";
        assert_found(&facts, Severity::Error, "NoStream", cause, "operator");
        let facts = Facts { kubernetes: Kubernetes::Standalone, ..facts };
        assert_found(&facts, Severity::Error, "NoStream", cause, "ensure_stream");
    }

    #[test]
    fn stream_that_no_server_answers_for_is_found() {
        let error = Some("stream is offline".to_owned());
        let facts = Facts { has_stream: false, consumers: 0, stream_error: error, ..healthy() };
        let cause = "No server of NATS answers for stream jobs, so that calls are refused and not \
                     run: stream is offline.";
        assert_found(&facts, Severity::Error, "StreamUnavailable", cause, "more than half");
    }

    #[test]
    fn missing_consumer_is_found() {
        let cause = "Stream jobs has no consumer, so that calls are not run.";
        let facts = Facts { consumers: 0, ..healthy() };
        assert_found(&facts, Severity::Error, "NoConsumer", cause, "operator");
    }

    #[test]
    fn dead_letters_of_a_deleted_queue_are_found() {
        let facts = Facts {
            wanted_stream: None,
            dead_letters: 2,
            kubernetes: Kubernetes::Standalone,
            ..healthy()
        };
        let cause = "The queue is deleted, and 2 dead letters of it are left.";
        let remedy = "kubectl aq dead purge jobs --all";
        assert_found(&facts, Severity::Note, "NoQueue", cause, remedy);
    }

    #[test]
    fn suspended_queue_is_found() {
        let facts = Facts { is_paused: true, depth: waiting(3), ..healthy() };
        let cause = "The delivery of calls is paused: 3 calls must wait.";
        let remedy = "kubectl edit asyncqueue jobs -n ns";
        assert_found(&facts, Severity::Warning, "Suspended", cause, remedy);
        let facts = Facts { kubernetes: Kubernetes::Standalone, ..facts };
        let remedy = "nats consumer resume jobs";
        assert_found(&facts, Severity::Warning, "Suspended", cause, remedy);
    }

    #[test]
    fn missing_workers_are_found() {
        let workers = WorkerReplies::None;
        let facts = Facts { workers, depth: waiting(2), callbacks: 1, ..healthy() };
        let cause = "No worker is connected: 2 calls and 1 callback must wait.";
        let remedy = "kubectl describe pod -n ns -l asyncqueue.io/queue=jobs";
        assert_found(&facts, Severity::Error, "NoWorkers", cause, remedy);
        let alone = Facts { kubernetes: Kubernetes::Standalone, ..facts.clone() };
        assert_found(&alone, Severity::Error, "NoWorkers", cause, "queue=jobs");

        let idle = Facts { depth: Depth::default(), callbacks: 0, ..facts.clone() };
        assert_eq!(one(&idle).severity, Severity::Warning);
        let mut queue = async_queue(&[("Ready", "True", "ScaledToZero", "")]);
        queue.spec.replicas = Some(0);
        let at_zero = Kubernetes::Read(vec![queue]);
        let facts = Facts { kubernetes: at_zero.clone(), ..facts };
        let remedy = "kubectl scale asyncqueue jobs -n ns --replicas=1";
        assert_found(&facts, Severity::Error, "NoWorkers", cause, remedy);
        assert_eq!(findings(&Facts { kubernetes: at_zero, ..idle }), []);
    }

    #[test]
    fn silent_workers_are_found() {
        let facts = Facts { workers: WorkerReplies::NoReply, depth: waiting(2), ..healthy() };
        let found = one(&facts);
        assert_eq!((found.severity, &*found.name), (Severity::Warning, "WorkersSilent"));
        assert!(found.remedy.contains("kubectl aq logs jobs"), "{}", found.remedy);
    }

    #[test]
    fn busy_and_free_slots_are_found() {
        let depth = Depth { waiting: 7, running: 5, ..Depth::default() };
        let facts = Facts { depth, ..healthy() };
        let cause = "All slots (5) of 1 worker are in use: 7 calls must wait.";
        assert_found(&facts, Severity::Warning, "SlotsBusy", cause, "maxInflight");

        let depth = Depth { waiting: 7, running: 1, ..Depth::default() };
        let facts = Facts { depth, oldest_seconds: Some(90), ..healthy() };
        let cause = "4 of 5 slots of 1 worker are free although 7 calls must wait, the oldest call \
                     since 90s.";
        assert_found(&facts, Severity::Note, "SlotsFree", cause, "concurrency");
        assert_eq!(findings(&Facts { oldest_seconds: Some(59), ..facts }), []);
    }

    #[test]
    fn retries_are_found() {
        let facts = Facts { depth: Depth { retrying: 1, ..Depth::default() }, ..healthy() };
        let cause = "1 call must wait for the next attempt.";
        assert_found(&facts, Severity::Warning, "Retrying", cause, "kubectl aq status");
    }

    #[test]
    fn callbacks_that_wait_are_found() {
        let facts = Facts { callbacks: 4, ..healthy() };
        let cause = "4 results could not be delivered yet.";
        assert_found(&facts, Severity::Warning, "CallbacksWaiting", cause, "kubectl aq logs jobs");
    }

    #[test]
    fn dead_letters_are_found_with_their_reason() {
        let reason = Some(DeadReason { reason: "it failed".to_owned(), count: 2, read: 3 });
        let facts = Facts { dead_letters: 3, dead_reason: reason, ..healthy() };
        let cause = "The queue keeps 3 dead letters. The reason of 2 of the newest 3: it failed.";
        let remedy = "kubectl aq dead replay jobs --all";
        assert_found(&facts, Severity::Warning, "DeadLetters", cause, remedy);
        let facts = Facts { dead_reason: None, ..facts };
        assert_eq!(one(&facts).cause, "The queue keeps 3 dead letters.");
    }

    #[test]
    fn blocked_calls_of_all_workers_are_summed() {
        let blocked = |reason: &str, calls| {
            let (record, reason) = ("dead_letter".to_owned(), reason.to_owned());
            WorkerStats { blocked: vec![BlockedCalls { record, reason, calls }], ..worker(0, 5) }
        };
        let workers = [("stream_full", 1), ("stream_full", 2), ("no_space", 1)]
            .map(|(reason, calls)| blocked(reason, calls));
        let facts = Facts { workers: WorkerReplies::Replied(workers.into()), ..healthy() };
        let cause = "Workers can't store the records that end calls: the dead letter of 3 calls \
                     (stream_full), the dead letter of 1 call (no_space).";
        assert_found(&facts, Severity::Error, "CallsBlocked", cause, "Raise the limits");
        for (reason, words) in
            [("no_stream", "ensure_stream"), ("unavailable", "NATS"), ("stream_full", "purge")]
        {
            assert!(remedy(reason).contains(words), "{reason}");
        }
    }

    #[test]
    fn functions_that_refuse_calls_are_found() {
        let function = FunctionName::new("figlet", "dev").unwrap();
        let limited = vec![LimitedFunction { function, limit: 2, refused: 9 }];
        let worker = WorkerStats { limited, ..worker(0, 5) };
        let facts = Facts { workers: WorkerReplies::Replied(vec![worker]), ..healthy() };
        let cause =
            "Function figlet.dev has refused 9 calls, so that workers run at most 2 at once.";
        assert_found(&facts, Severity::Note, "FunctionLimited", cause, "replicas");
    }
}
