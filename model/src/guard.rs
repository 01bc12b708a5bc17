//! The guards of the protocol, and what each prevents.

use crate::rule::Rule;

/// One safeguard of the protocol. The model can be searched with one of them removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// A submission is stored only if the stream holds no message with its id.
    SubmitExpectsNone,
    /// A submission has a message id, by which the stream knows a repeat.
    SubmitMessageId,
    /// A call that is pending under the same id is a repeat only if its digest is the same.
    SubmitComparesDigest,
    /// Another call under an id that is pending is published again, without the expectation.
    SubmitSharesId,
    /// Streams are created with a first sequence that no earlier stream has reached.
    StreamFirstSequence,
    /// The tombstone of a call is keyed by its id and its sequence.
    TombstoneKeyedBySequence,
    /// The first end that is written to a call's tombstone wins.
    TombstoneFirstWins,
    /// Workers look up the tombstone before a call that is delivered again, or late.
    WorkerLooksUpTombstone,
    /// A call does not begin if this worker knows that it is cancelled.
    WorkerChecksCancelled,
    /// A message that is in flight in this worker is not begun again.
    WorkerClaims,
    /// An unconfirmed ack does not occupy a slot.
    WorkerLeavesSlot,
    /// A delivery whose lease ran out before it began is dropped.
    WorkerDropsStale,
    /// A redelivery of a call that is in flight in this worker does not count as an attempt.
    WorkerCountsNoRedelivery,
    /// A delivery that is handed back does not count as an attempt.
    HandBackIsUncounted,
    /// A call whose attempts are exhausted is not invoked again.
    PoisonIsNotInvoked,
    /// A call whose attempts are exhausted does not become a dead letter while another worker runs
    /// it.
    PoisonWaits,
    /// The result is stored before the call is acknowledged.
    ResultBeforeAck,
    /// A call has at most one stored result.
    ResultStoredOnce,
    /// A result that can never be stored is posted directly. The slot is free after that.
    ResultRefusalIsFinal,
    /// A call whose result is already stored does not become a dead letter.
    ResultDecidesDeadLetter,
    /// A call whose result is already stored is not cancelled.
    ResultDecidesCancel,
    /// A dead letter is looked up before it is stored.
    DeadLetterLookedUp,
    /// A dead letter that does not fit is stored without headers and body.
    DeadLetterShrinks,
    /// An ack is repeated until the server confirms it.
    SettleRepeats,
    /// A message that was delayed by a nak is not claimed any more.
    NakDropsClaim,
    /// A worker that lost the lease does not nak a message that another worker has.
    NakNeedsLease,
    /// A confirmation counts only for acks of its own kind.
    ConfirmByKind,
    /// A cancellation removes the message of the call.
    CancelRemovesMessage,
    /// A worker that lost the lease of a call does not confirm its cancellation.
    CancelConfirmNeedsLease,
    /// A cancellation is confirmed only when the call can't start any more.
    CancelWaits,
    /// A share is written only over the entry that was read.
    ShareComparesRevision,
    /// A share is raised only to what is free.
    ShareFromFree,
    /// A share that is lowered still counts the invocations that are open.
    ShareCountsOpen,
    /// A worker keeps within a lower share before it is written.
    LowerShareFirst,
    /// A worker uses a higher share only after it was written.
    RaiseShareWhenWritten,
    /// A share is taken from a worker only after the lease.
    ShareHasLease,
    /// The share of a worker that does not renew it is divided.
    DeadShareReturns,
    /// A worker starts nothing unless it has renewed its share recently.
    ShareLapses,
    /// The time in which a worker may start begins when its renewal is sent.
    LeaseFromSending,
    /// A worker keeps within a lower part of the rate before it is written.
    LowerRateFirst,
    /// A lane takes the calls that were stored before it.
    LaneTakesStored,
    /// The sweep creates lanes for calls that no consumer takes.
    SweepFindsCalls,
    /// The sweep pauses and resumes lanes as the consumer of the queue.
    LanesFollowPause,
    /// A lane is paused before it is removed.
    RemovalPauses,
    /// A paused lane is removed only if it still has no call.
    RemovalChecks,
    /// The fairness changes only while no consumer delivers.
    ChangeNeedsPause,
    /// The fairness changes only while no call is in flight.
    ChangeNeedsAcks,
    /// A lane that was created while the fairness changed is paused and checked before it is
    /// removed.
    ChangeChecksAgain,
    /// Such a lane is also removed if the operator was restarted in between.
    ChangeRemovesLeftovers,
    /// A gateway subscribes to the result of a call before it publishes the call.
    WaitSubscribesFirst,
    /// A gateway takes only the result of the sequence that the ack of its call names.
    WaitKeepsOwn,
    /// At the end of a wait, the gateway reads the kept result once more.
    WaitReadsAtTheEnd,
    /// The first result of a call that is stored is kept.
    KeptResultFirstWins,
    /// The result is kept before the call is acknowledged.
    KeptResultBeforeAck,
    /// A call that is delivered again and has a kept result does not run.
    WorkerReadsKeptResult,
    /// The end of a call is recorded in its batch before the call is acknowledged.
    BatchEndBeforeAck,
    /// The first end of a call that is written to its batch counts.
    BatchFirstEndWins,
    /// A program that finds the end of its call written counts it.
    BatchRepeatCounts,
    /// A program whose end was counted before reads all ends.
    BatchRepeatReads,
    /// A batch ends only if each call has an end, whatever was counted.
    BatchReadsEnds,
    /// The callback of a batch has the same message id in all programs.
    BatchCallbackHasId,
    /// The report of a batch is stored before its record is removed.
    BatchReportKept,
    /// The rest of a batch is cancelled before the call that has failed is acknowledged.
    BatchCancelsBeforeAck,
    /// A call that has failed, and is delivered again, cancels the rest.
    BatchRepeatCancels,
}

impl Guard {
    /// All guards.
    pub const ALL: [Self; 64] = [
        Self::SubmitExpectsNone,
        Self::SubmitMessageId,
        Self::SubmitComparesDigest,
        Self::SubmitSharesId,
        Self::StreamFirstSequence,
        Self::TombstoneKeyedBySequence,
        Self::TombstoneFirstWins,
        Self::WorkerLooksUpTombstone,
        Self::WorkerChecksCancelled,
        Self::WorkerClaims,
        Self::WorkerLeavesSlot,
        Self::WorkerDropsStale,
        Self::WorkerCountsNoRedelivery,
        Self::HandBackIsUncounted,
        Self::PoisonIsNotInvoked,
        Self::PoisonWaits,
        Self::ResultBeforeAck,
        Self::ResultStoredOnce,
        Self::ResultRefusalIsFinal,
        Self::ResultDecidesDeadLetter,
        Self::ResultDecidesCancel,
        Self::DeadLetterLookedUp,
        Self::DeadLetterShrinks,
        Self::SettleRepeats,
        Self::NakDropsClaim,
        Self::NakNeedsLease,
        Self::ConfirmByKind,
        Self::CancelRemovesMessage,
        Self::CancelConfirmNeedsLease,
        Self::CancelWaits,
        Self::ShareComparesRevision,
        Self::ShareFromFree,
        Self::ShareCountsOpen,
        Self::LowerShareFirst,
        Self::RaiseShareWhenWritten,
        Self::ShareHasLease,
        Self::DeadShareReturns,
        Self::ShareLapses,
        Self::LeaseFromSending,
        Self::LowerRateFirst,
        Self::LaneTakesStored,
        Self::SweepFindsCalls,
        Self::LanesFollowPause,
        Self::RemovalPauses,
        Self::RemovalChecks,
        Self::ChangeNeedsPause,
        Self::ChangeNeedsAcks,
        Self::ChangeChecksAgain,
        Self::ChangeRemovesLeftovers,
        Self::WaitSubscribesFirst,
        Self::WaitKeepsOwn,
        Self::WaitReadsAtTheEnd,
        Self::KeptResultFirstWins,
        Self::KeptResultBeforeAck,
        Self::WorkerReadsKeptResult,
        Self::BatchEndBeforeAck,
        Self::BatchFirstEndWins,
        Self::BatchRepeatCounts,
        Self::BatchRepeatReads,
        Self::BatchReadsEnds,
        Self::BatchCallbackHasId,
        Self::BatchReportKept,
        Self::BatchCancelsBeforeAck,
        Self::BatchRepeatCancels,
    ];

    /// Returns the rule that is broken without this guard.
    #[must_use]
    pub const fn protects(self) -> Rule {
        match self {
            Self::SubmitExpectsNone | Self::SubmitMessageId => Rule::StoredOnce,
            Self::SubmitComparesDigest => Rule::AcceptedIsStored,
            Self::SubmitSharesId => Rule::NewCallAccepted,
            Self::StreamFirstSequence => Rule::NoLostCall,
            Self::TombstoneKeyedBySequence => Rule::NoUnaskedCancel,
            Self::TombstoneFirstWins
            | Self::ResultStoredOnce
            | Self::ResultDecidesDeadLetter
            | Self::ResultDecidesCancel => Rule::OneEnd,
            Self::WorkerLooksUpTombstone
            | Self::WorkerChecksCancelled
            | Self::CancelRemovesMessage
            | Self::CancelConfirmNeedsLease
            | Self::CancelWaits => Rule::NoStartAfterCancel,
            Self::WorkerClaims
            | Self::WorkerLeavesSlot
            | Self::WorkerDropsStale
            | Self::SettleRepeats
            | Self::NakNeedsLease => Rule::NoNeedlessInvocation,
            Self::WorkerCountsNoRedelivery
            | Self::HandBackIsUncounted
            | Self::PoisonWaits
            | Self::NakDropsClaim => Rule::NoEarlyDeath,
            Self::PoisonIsNotInvoked => Rule::AttemptsBounded,
            Self::ResultBeforeAck => Rule::NoLostResult,
            Self::ResultRefusalIsFinal | Self::DeadLetterShrinks => Rule::Ends,
            Self::DeadLetterLookedUp => Rule::OneDeadLetter,
            Self::ConfirmByKind => Rule::NoDeliveryAfterAck,
            Self::ShareComparesRevision
            | Self::ShareFromFree
            | Self::ShareCountsOpen
            | Self::LowerShareFirst
            | Self::RaiseShareWhenWritten
            | Self::ShareHasLease => Rule::TotalKept,
            Self::DeadShareReturns => Rule::ShareIsUsed,
            Self::ShareLapses => Rule::OneShareAbove,
            Self::LeaseFromSending => Rule::NoStartAfterLease,
            Self::LowerRateFirst => Rule::RateKept,
            Self::LaneTakesStored
            | Self::SweepFindsCalls
            | Self::LanesFollowPause
            | Self::ChangeRemovesLeftovers => Rule::LanesServe,
            Self::RemovalPauses
            | Self::RemovalChecks
            | Self::ChangeNeedsPause
            | Self::ChangeNeedsAcks
            | Self::ChangeChecksAgain => Rule::OneDelivery,
            Self::WaitSubscribesFirst => Rule::WaitIsAnswered,
            Self::WaitKeepsOwn => Rule::WaitIsOwn,
            Self::WaitReadsAtTheEnd => Rule::WaitMissesNone,
            Self::KeptResultFirstWins => Rule::OneResult,
            Self::KeptResultBeforeAck => Rule::ResultIsKept,
            Self::WorkerReadsKeptResult => Rule::NoRunAfterResult,
            Self::BatchEndBeforeAck | Self::BatchFirstEndWins => Rule::BatchAgrees,
            Self::BatchRepeatCounts | Self::BatchRepeatReads | Self::BatchReportKept => {
                Rule::BatchEnds
            }
            Self::BatchReadsEnds => Rule::BatchIsComplete,
            Self::BatchCallbackHasId => Rule::BatchCallsBackOnce,
            Self::BatchCancelsBeforeAck | Self::BatchRepeatCancels => Rule::BatchStopsRest,
        }
    }
}
