//! What the system promises of each call, held against a history.
//!
//! Every call that was answered with 202 ends in exactly one of done, dead, cancelled, expired;
//! none is lost; none starts after a confirmed cancellation; none runs twice unless a worker or its
//! lease died under it. And what follows from that: a client that wants a callback gets one; what
//! was refused does not run; what the gateway says about a call is true, and it never lets a client
//! wait for longer than it may. A result that a client asks for is what the function answered in
//! the invocation that ended the call, and each client gets the same. A delayed call does not start
//! before its time. A queue with a total of open invocations never exceeds it.
//!
//! The only excuses are the faults of the history, each of them once: see [`super::faults`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use call::Call;

use super::{
    event::{CallNumber, Event, Step, What},
    faults::{self, Faults},
};

mod batches;
mod call;
mod callbacks;
mod client;
mod concurrency;
mod delays;
mod end;
mod invocations;
mod lateness;
mod results;
mod runs;
mod status;

/// The settings of the system that a history came from, as far as they decide what is right.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a worker may be silent about a call before another has it.
    pub lease: Duration,
    /// How long an invocation may take before its worker breaks it off, which is a failure.
    pub time_limit: Duration,
    /// How many invocations of a call may fail.
    pub attempts: u64,
    /// Statuses after which a call is invoked again.
    pub retried: BTreeSet<u16>,
    /// How much a worker's time limit and our view of it may differ, on a machine that does much
    /// else.
    pub slack: Duration,
    /// How much later than it was sent a request may be recorded, while the recorder itself is on
    /// time: another connection may have been recorded before it.
    pub skew: Duration,
    /// `limits.maxAge`: a call that is older when it is delivered has expired. `None`: calls don't
    /// expire.
    pub max_age: Option<Duration>,
    /// How long a call may wait for its first invocation. `None`: as long as it takes.
    pub starts_within: Option<Duration>,
}

/// What a history comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many calls ended how.
    pub tally: Tally,
    /// The promises that were broken.
    pub broken: Vec<Broken>,
}

/// How many calls ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were answered with 202, or replayed.
    pub accepted: u64,
    /// Of all calls, answered with 202 or not, those that are done.
    pub done: u64,
    /// Those that are dead.
    pub dead: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Those that expired.
    pub expired: u64,
    /// Invocations that were no retry of a failed one: what a crash costs.
    pub rerun: u64,
    /// Callbacks that were sent again though the receiver had taken them.
    pub repeated: u64,
    /// Calls that were answered with 202 and have no end.
    pub lost: u64,
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The call.
    pub call: CallNumber,
    /// The promise.
    pub rule: Rule,
}

/// The promises, by how they are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// 202, and then nothing: not on the queue, and no end.
    Lost,
    /// It, or its result, was still on the way at the last look.
    Unfinished,
    /// It has two ends, or its callbacks name two.
    TwoEnds,
    /// Its cancellation was confirmed, and it ended otherwise.
    EndedThoughCancelled,
    /// Its cancellation was refused, and it was cancelled.
    CancelledThoughRefused,
    /// Its cancellation was refused because it had ended, and then it was invoked for the first
    /// time, or again.
    StartedAfterRefusal,
    /// An invocation started after the cancellation was confirmed.
    StartedAfterCancel,
    /// An invocation started after the call had expired.
    StartedAfterExpiry,
    /// It expired before its time.
    ExpiredEarly,
    /// It ran again though no invocation had failed and no worker or lease had died under it.
    RanAgain,
    /// More invocations failed than there are attempts.
    RanTooOften,
    /// It is dead though it had attempts left.
    DiedEarly,
    /// It was delayed, and started before its time.
    StartedEarly,
    /// It had to wait for too long before it started.
    HeldUp,
    /// It ran though the client was answered that it is not stored.
    RanThoughRefused,
    /// The client wanted a callback, and none was taken.
    CallbackMissing,
    /// A callback came again that had been taken, and no worker or lease had died.
    CallbackRepeated,
    /// It was refused since another call has its id.
    IdRefused,
    /// It started while as many invocations as `concurrency` permits were open.
    TooManyOpen,
    /// The gateway reported a state that it can't have been in.
    WrongStatus,
    /// A client got a result that is not what the call ended with.
    WrongResult,
    /// Clients got two results.
    TwoResults,
    /// The client asked for the result to be kept, the call has ended, and there is no result.
    ResultMissing,
    /// The client waited, and the call had ended well before the answer without its result.
    WaitMissed,
    /// It started though a client had the result with which it is done.
    StartedAfterResult,
    /// Two reports of the end of its batch differ.
    BatchTwoEnds,
    /// The counts in a report of its batch are not those of its calls.
    BatchMiscounted,
    /// A report of its batch says of it what can't be.
    BatchWrongEnd,
    /// Its batch was answered 202, and its end is not reported.
    BatchUnfinished,
    /// The client wanted a callback for its batch, and none was taken.
    BatchCallbackMissing,
    /// The callback of its batch came again that had been taken, and no worker or lease had died.
    BatchCallbackRepeated,
    /// The client had no answer in time.
    Hung,
    /// The client was refused for now, and did not learn when to try again.
    NoRetryAfter,
}

/// Holds a history against the rules.
#[must_use]
pub fn check(history: &[Event], rules: &Rules) -> Report {
    let mut steps: BTreeMap<CallNumber, Vec<(Duration, Step)>> = BTreeMap::new();
    for event in history {
        if let What::Step(call, step) = event.what {
            steps.entry(call).or_default().push((event.at, step));
        }
    }
    let windows = faults::windows(history);
    let lateness = lateness::of(history);
    let mut of_queue = BTreeMap::new();
    for steps in steps.values() {
        let queue = call::queue(steps);
        of_queue.entry(queue).or_insert_with(|| Faults::of(&windows, queue, rules.lease));
    }
    let mut report = Report::default();
    let too_many = concurrency::exceeding(history, &steps, &lateness, rules);
    report.broken.extend(too_many.map(|call| Broken { call, rule: Rule::TooManyOpen }));
    let calls = steps.into_iter().map(|(number, steps)| {
        let faults = &of_queue[&call::queue(&steps)];
        (number, Call::new(steps, faults, &lateness, rules))
    });
    let calls: BTreeMap<_, _> = calls.collect();
    for (number, call) in &calls {
        let (tally, broken) = call.check();
        report.tally.add(&tally);
        report.broken.extend(broken.into_iter().map(|rule| Broken { call: *number, rule }));
    }
    report.broken.extend(batches::check(history, &calls));
    report
}

// === impl Tally ===

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.done += other.done;
        self.dead += other.dead;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.rerun += other.rerun;
        self.repeated += other.repeated;
        self.lost += other.lost;
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost: it was answered 202 and has no end",
            Self::Unfinished => "unfinished: it, or its result, is still on the way",
            Self::TwoEnds => "two ends",
            Self::EndedThoughCancelled => "ended otherwise though its cancellation was confirmed",
            Self::CancelledThoughRefused => "cancelled though its cancellation was refused",
            Self::StartedAfterRefusal => {
                "started though its cancellation was refused because it had ended"
            }
            Self::StartedAfterCancel => "started after its cancellation was confirmed",
            Self::StartedAfterExpiry => "started after it had expired",
            Self::ExpiredEarly => "expired before its time",
            Self::RanAgain => "ran again though no run had failed and no worker or lease had died",
            Self::RanTooOften => "ran more often than it has attempts",
            Self::DiedEarly => "a dead letter though it had attempts left",
            Self::StartedEarly => "started before the time until which it was delayed",
            Self::HeldUp => "held up: it did not start in time",
            Self::RanThoughRefused => "ran though it was refused",
            Self::CallbackMissing => "no callback was taken",
            Self::CallbackRepeated => "a callback came again that had been taken",
            Self::IdRefused => "refused since another call has its id",
            Self::TooManyOpen => "started while all that `concurrency` permits were open",
            Self::WrongStatus => "the gateway reported a state that it can't have been in",
            Self::WrongResult => "a result that is not what it ended with",
            Self::TwoResults => "two results",
            Self::ResultMissing => "it has ended, and its result is not kept as its client asked",
            Self::WaitMissed => "its client waited, and did not get the result that was there",
            Self::StartedAfterResult => "started though a client had its result",
            Self::BatchTwoEnds => "two reports of the end of its batch differ",
            Self::BatchMiscounted => "the counts of its batch are not those of the calls",
            Self::BatchWrongEnd => "the report of its batch says of it what can't be",
            Self::BatchUnfinished => "its batch has no end",
            Self::BatchCallbackMissing => "no callback of its batch was taken",
            Self::BatchCallbackRepeated => "a callback of its batch came again",
            Self::Hung => "the gateway did not answer in time",
            Self::NoRetryAfter => "refused for now without saying when to try again",
        })
    }
}

#[cfg(test)]
mod tests;
