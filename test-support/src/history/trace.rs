//! The steps of each call as plain values in their order, so that a model of the protocol can
//! replay them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    event::{CallNumber, Event, QueueNumber, Step, What},
    faults::{FaultWindow, windows},
};

/// What was seen of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The call.
    pub call: CallNumber,
    /// The queue that it was submitted to.
    pub queue: QueueNumber,
    /// Whether the client wants a callback.
    pub callback: bool,
    /// Whether other calls have the same id.
    pub shares_id: bool,
    /// What happened to it, in order.
    pub steps: Vec<(Duration, TraceStep)>,
    /// The faults that hit its queue while it was there.
    pub faults: Vec<FaultWindow>,
}

/// A request that is sent once more within its attempt is there within this time after the first
/// has failed.
pub const RESENT_WITHIN: Duration = Duration::from_millis(100);

impl Trace {
    /// The same without the failures after which a request was sent once more within its attempt,
    /// if all that came `within` this time was: an attempt that is tried again may come as soon.
    /// `None` if no trace matches.
    #[must_use]
    pub fn without_resends(&self, within: Duration) -> Option<Self> {
        let (mut steps, mut failed): (Vec<(Duration, TraceStep)>, Option<usize>) =
            (Vec::new(), None);
        let mut is_second = false;
        for (at, step) in &self.steps {
            match (step, failed) {
                (TraceStep::Started(_), Some(index)) if *at <= steps[index].0 + within => {
                    steps.remove(index);
                    (failed, is_second) = (None, true);
                    continue;
                }
                (TraceStep::Started(_), _) => (failed, is_second) = (None, false),
                (TraceStep::Failed(_), _) if !is_second => failed = Some(steps.len()),
                _ => {}
            }
            steps.push((*at, *step));
        }
        (steps.len() < self.steps.len()).then(|| Self { steps, ..self.clone() })
    }
}

/// A step of a call that can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// The client sent it, or sent it again.
    Submitted,
    /// 202.
    Accepted,
    /// Any other answer. 503 leaves open whether the call is stored.
    Refused(u16),
    /// No answer: it may be stored or not.
    Unanswered,
    /// An invocation started.
    Started(u64),
    /// The function answered with a status.
    Returned(u64, u16),
    /// The function broke off.
    Failed(u64),
    /// The worker closed the connection before there was an answer.
    BrokenOff(u64),
    /// A callback with this status, and whether its receiver took it.
    Callback(u16, bool),
    /// The client asked for its cancellation.
    CancelSent,
    /// 202: it does not start any more.
    CancelConfirmed,
    /// 404 or 409: it has ended.
    CancelRefused(u16),
    /// Another answer, or none: the tombstone may be there.
    CancelOpen,
    /// The last look found it on its queue.
    LeftQueued,
    /// The last look found its result on the way.
    LeftResult,
    /// It was found to be a dead letter; in the order of when that was stored.
    DeadLetter,
    /// Its result is a dead letter.
    ResultDeadLetter,
}

/// The traces of all calls of a history.
#[must_use]
pub fn traces(history: &[Event]) -> Vec<Trace> {
    let faults = windows(history);
    let mut traces: BTreeMap<CallNumber, Trace> = BTreeMap::new();
    for event in history {
        let What::Step(call, step) = event.what else { continue };
        let trace = traces.entry(call).or_insert_with(|| Trace {
            call,
            queue: 0,
            callback: false,
            shares_id: false,
            steps: Vec::new(),
            faults: Vec::new(),
        });
        if let Step::Submitted { callback, queue, shares_id } = step {
            (trace.callback, trace.queue, trace.shares_id) = (callback, queue, shares_id);
        }
        let at = if let Step::DeadLetter { stored } = step { stored } else { event.at };
        trace.steps.extend(of(step).map(|step| (at, step)));
    }
    for trace in traces.values_mut() {
        trace.steps.sort_by_key(|(at, _)| *at);
        let (Some((first, _)), Some((last, _))) = (trace.steps.first(), trace.steps.last()) else {
            continue;
        };
        let hits = |fault: &&FaultWindow| {
            fault.queue.is_none_or(|queue| queue == trace.queue)
                && fault.since <= *last
                && *first <= fault.until
        };
        trace.faults = faults.iter().filter(hits).cloned().collect();
    }
    traces.into_values().collect()
}

fn of(step: Step) -> Option<TraceStep> {
    Some(match step {
        Step::Submitted { .. } => TraceStep::Submitted,
        Step::Answered { status: 202, .. } => TraceStep::Accepted,
        Step::Answered { status, .. } => TraceStep::Refused(status),
        Step::Unanswered | Step::Hung => TraceStep::Unanswered,
        Step::CancelSent => TraceStep::CancelSent,
        Step::CancelAnswered { status: 202, .. } => TraceStep::CancelConfirmed,
        Step::CancelAnswered { status: status @ (404 | 409), .. } => {
            TraceStep::CancelRefused(status)
        }
        Step::CancelAnswered { .. } | Step::CancelUnanswered => TraceStep::CancelOpen,
        Step::Started { run } => TraceStep::Started(run),
        Step::Returned { run, status } => TraceStep::Returned(run, status),
        Step::Failed { run } => TraceStep::Failed(run),
        Step::BrokenOff { run } => TraceStep::BrokenOff(run),
        Step::CallbackReceived { status, taken } => TraceStep::Callback(status, taken),
        Step::LeftQueued => TraceStep::LeftQueued,
        Step::LeftResult => TraceStep::LeftResult,
        Step::DeadLetter { .. } => TraceStep::DeadLetter,
        Step::ResultDeadLetter => TraceStep::ResultDeadLetter,
        // The model asks for no status and no result, and a replay is another call. A delay is a
        // time in which nothing is delivered.
        Step::StatusAnswered { .. }
        | Step::Delayed { .. }
        | Step::ResultWanted
        | Step::ResultRead { .. }
        | Step::WaitAnswered { .. }
        | Step::Replayed => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::event::Excuse;

    #[test]
    fn a_request_that_is_sent_once_more_is_one_run() {
        let fails = |run, started: u64| {
            let at = Duration::from_millis;
            [(at(started), TraceStep::Started(run)), (at(started + 5), TraceStep::Failed(run))]
        };
        let steps: Vec<_> =
            [(1, 10), (2, 20), (3, 30), (4, 80)].map(|(run, at)| fails(run, at)).concat();
        let trace = Trace {
            call: 1,
            queue: 0,
            callback: false,
            shares_id: false,
            steps,
            faults: Vec::new(),
        };
        let runs = |within| {
            let trace = trace.without_resends(Duration::from_millis(within))?;
            let started =
                trace.steps.iter().filter(|(_, step)| matches!(step, TraceStep::Started(_)));
            Some(started.count())
        };
        // The second is the first once more. The third is not the second's: that had a connection
        // of its own.
        assert_eq!((runs(2), runs(10), runs(50)), (None, Some(3), Some(2)));
    }

    #[test]
    fn a_trace_has_a_calls_steps_and_the_faults_of_its_queue() {
        let at = |millis, what| Event { at: Duration::from_millis(millis), what };
        let fault = |queue, excuse| What::Fault { name: "f".to_owned(), excuse, queue };
        let submitted = |queue| Step::Submitted { callback: false, queue, shares_id: false };
        let history = [
            at(0, What::Step(1, submitted(0))),
            at(1, What::Step(2, submitted(1))),
            at(2, What::Step(2, Step::Answered { status: 202, retry_after: false })),
            at(3, fault(Some(0), Excuse::Once)),
            at(4, fault(None, Excuse::Begins)),
            at(5, fault(None, Excuse::Ends)),
            at(6, What::Step(2, Step::Started { run: 1 })),
            at(7, What::Step(2, Step::CancelSent)),
            at(8, What::Step(2, Step::CancelAnswered { status: 409, retry_after: false })),
            at(9, What::Step(2, Step::Returned { run: 1, status: 200 })),
        ];
        let traces = traces(&history);
        let [one, two] = &traces[..] else { panic!("two calls: {traces:?}") };
        assert_eq!((one.call, one.queue, one.steps.len(), one.faults.len()), (1, 0, 1, 0));
        let steps: Vec<_> = two.steps.iter().map(|(_, step)| *step).collect();
        assert_eq!(
            steps,
            [
                TraceStep::Submitted,
                TraceStep::Accepted,
                TraceStep::Started(1),
                TraceStep::CancelSent,
                TraceStep::CancelRefused(409),
                TraceStep::Returned(1, 200),
            ]
        );
        let faults: Vec<_> = two.faults.iter().map(|fault| (fault.since, fault.until)).collect();
        assert_eq!(faults, [(Duration::from_millis(4), Duration::from_millis(5))]);
    }
}
