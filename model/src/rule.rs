//! The rules that the protocol keeps.

use std::fmt;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A call has at most one end, and its client and its callback receiver learn the same one.
    OneEnd,
    /// No call starts after its cancellation was confirmed.
    NoStartAfterCancel,
    /// No call is delivered after the server confirmed its ack.
    NoDeliveryAfterAck,
    /// Attempts are at most `maxAttempts`, plus one for each delivery that the server forgot.
    AttemptsBounded,
    /// A call is dead only after `maxAttempts` attempts, minus those that were lost with a worker.
    /// It is not dead while the last one still runs in a worker that is up.
    NoEarlyDeath,
    /// A call is invoked again only after a failed invocation, or because its worker or its lease
    /// was lost.
    NoNeedlessInvocation,
    /// The result of a call that has ended is stored if a callback is wanted.
    NoLostResult,
    /// A call that was accepted is on the queue, in a worker, or has an end.
    NoLostCall,
    /// A call that no client cancelled does not end as cancelled.
    NoUnaskedCancel,
    /// A call has at most one dead letter.
    OneDeadLetter,
    /// From each state, without further faults, every call can end, every slot can be freed and
    /// every cancellation can be answered.
    Ends,
    /// A repeated submission is stored once while the call is pending and within the window.
    StoredOnce,
    /// A call that was answered with 202 was stored.
    AcceptedIsStored,
    /// Another call under a client's id is accepted, too.
    NewCallAccepted,
    /// While each worker renews its share within the lease, no invocation is permitted above the
    /// total. Invocations that a higher total permitted may still be open.
    TotalKept,
    /// A worker that was stopped, or cut off, for longer than the lease has at most its own share
    /// open above the total.
    OneShareAbove,
    /// No invocation starts after the lease of its worker's share, unless the worker was stopped
    /// between its last check and the request.
    NoStartAfterLease,
    /// The workers that may start invocations have the whole rate at most.
    RateKept,
    /// From each state, without further faults, the workers that are up can have the whole total
    /// and the whole rate in equal parts.
    ShareIsUsed,
    /// No call is delivered while a worker still has it, by whichever consumer.
    OneDelivery,
    /// From each state, without further faults, each call can be stored, delivered and
    /// acknowledged, and the queue can be resumed.
    LanesServe,
    /// A client that waits gets the result of its own call.
    WaitIsOwn,
    /// Each client that gets the result of a call gets that which is kept.
    OneResult,
    /// The result of a call that was acknowledged is kept.
    ResultIsKept,
    /// A client that waits gets the result if it is kept before the end of the wait.
    WaitMissesNone,
    /// No invocation starts after the result of its call is kept.
    NoRunAfterResult,
    /// From each state, without further faults, each client that waits gets its result, without
    /// waiting for the end of its time.
    WaitIsAnswered,
    /// The report of a batch has the first end of each call.
    BatchAgrees,
    /// No batch ends before all of its calls have ended.
    BatchIsComplete,
    /// The callback of a batch is stored once, and once more for each duplicate window that passes.
    BatchCallsBackOnce,
    /// If the first failure cancels the rest, nothing starts after the call that has failed is
    /// acknowledged.
    BatchStopsRest,
    /// From each state, without further faults, the end of a batch can be reported.
    BatchEnds,
}

/// A part of the model, with a search of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How calls get onto the stream.
    Submission,
    /// The life of calls.
    Life,
    /// The shares of workers.
    Shares,
    /// The lanes of a queue.
    Lanes,
    /// Kept results, and clients that wait for them.
    Waits,
    /// The end of a batch.
    Batches,
}

impl Rule {
    /// Returns the part of the model that has the rule.
    #[must_use]
    pub const fn part(self) -> Part {
        match self {
            Self::StoredOnce | Self::AcceptedIsStored | Self::NewCallAccepted => Part::Submission,
            Self::TotalKept
            | Self::OneShareAbove
            | Self::NoStartAfterLease
            | Self::RateKept
            | Self::ShareIsUsed => Part::Shares,
            Self::OneDelivery | Self::LanesServe => Part::Lanes,
            Self::WaitIsOwn
            | Self::OneResult
            | Self::ResultIsKept
            | Self::WaitMissesNone
            | Self::NoRunAfterResult
            | Self::WaitIsAnswered => Part::Waits,
            Self::BatchAgrees
            | Self::BatchIsComplete
            | Self::BatchCallsBackOnce
            | Self::BatchStopsRest
            | Self::BatchEnds => Part::Batches,
            _ => Part::Life,
        }
    }

    /// Returns the rule as text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneEnd => "each call has one end",
            Self::NoStartAfterCancel => "no start after a confirmed cancellation",
            Self::NoDeliveryAfterAck => "no delivery after a confirmed ack",
            Self::AttemptsBounded => "attempts are bounded",
            Self::NoEarlyDeath => "no dead letter before the last attempt",
            Self::NoNeedlessInvocation => "no second invocation without a failure or a fault",
            Self::NoLostResult => "no lost result",
            Self::NoLostCall => "no lost call",
            Self::NoUnaskedCancel => "no cancellation that no client asked for",
            Self::OneDeadLetter => "one dead letter for each call",
            Self::Ends => "each call can end, and each slot can be freed",
            Self::StoredOnce => "a repeated submission is stored once",
            Self::AcceptedIsStored => "an accepted submission is stored",
            Self::NewCallAccepted => "another call under an id is accepted",
            Self::TotalKept => "no more invocations than `concurrency`",
            Self::OneShareAbove => "a lapsed share exceeds `concurrency` at most by itself",
            Self::NoStartAfterLease => "no start after the lease of a share",
            Self::RateKept => "no more than the whole rate",
            Self::ShareIsUsed => "each share can be used",
            Self::OneDelivery => "no call is delivered twice at once",
            Self::LanesServe => "each call has a consumer that delivers it",
            Self::WaitIsOwn => "a client that waits gets the result of its own call",
            Self::OneResult => "each client gets the result that is kept",
            Self::ResultIsKept => "the result of an acknowledged call is kept",
            Self::WaitMissesNone => "no wait ends without a result that is kept",
            Self::NoRunAfterResult => "no start after the result is kept",
            Self::WaitIsAnswered => "each wait is answered as the call ends",
            Self::BatchAgrees => "a batch reports the first end of each call",
            Self::BatchIsComplete => "no batch ends before its calls",
            Self::BatchCallsBackOnce => "a batch has one callback",
            Self::BatchStopsRest => "nothing starts after a failure that cancels the rest",
            Self::BatchEnds => "each batch can end",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
