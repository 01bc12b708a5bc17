//! The functions of the product that the guards stand for.
//!
//! When such a function is renamed or moved, only this file changes.

use std::fmt::Write as _;

use crate::guard::Guard;

/// A function of the product, and the file that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, from the root of the repository.
    pub file: &'static str,
    /// The function's name.
    pub function: &'static str,
}

impl Guard {
    /// Returns the function of the product that this guard stands for.
    #[must_use]
    pub const fn place(self) -> Place {
        let (file, function) = match self {
            Self::SubmitExpectsNone | Self::SubmitSharesId => {
                ("asyncqueue/src/submit.rs", "submit")
            }
            Self::SubmitMessageId => ("asyncqueue/src/message/digest.rs", "message_id"),
            Self::SubmitComparesDigest => ("asyncqueue/src/submit/decide.rs", "after_read"),
            Self::StreamFirstSequence => {
                ("asyncqueue/src/stream/sequence.rs", "with_first_sequence")
            }
            Self::TombstoneKeyedBySequence => ("asyncqueue/src/tombstone.rs", "key"),
            Self::TombstoneFirstWins => ("asyncqueue/src/tombstone.rs", "write_once"),
            Self::WorkerLooksUpTombstone => ("worker/src/call/run.rs", "may_start"),
            Self::WorkerChecksCancelled => ("worker/src/call/cancellations.rs", "try_start"),
            Self::WorkerClaims => ("worker/src/consumer/in_flight.rs", "claim"),
            Self::WorkerLeavesSlot => ("worker/src/consumer/in_flight.rs", "release_early"),
            Self::WorkerDropsStale => ("worker/src/consumer/session.rs", "idle_timeout"),
            Self::WorkerCountsNoRedelivery => ("worker/src/consumer/puller.rs", "dispatch"),
            Self::HandBackIsUncounted => ("worker/src/call.rs", "before_nak"),
            Self::PoisonIsNotInvoked => ("worker/src/retry/outcome.rs", "is_poison"),
            Self::PoisonWaits => ("worker/src/call/finish.rs", "is_still_in_progress"),
            Self::ResultBeforeAck => ("worker/src/call/finish.rs", "finish_done"),
            Self::ResultDecidesDeadLetter => ("worker/src/call/finish.rs", "finish_already_done"),
            Self::ResultStoredOnce => ("worker/src/callback/store.rs", "put"),
            Self::ResultRefusalIsFinal => ("worker/src/record_store.rs", "store_with_retries"),
            Self::ResultDecidesCancel => ("asyncqueue/src/cancel.rs", "store_result"),
            Self::DeadLetterLookedUp => ("asyncqueue/src/dead_letters/store.rs", "store_once"),
            Self::DeadLetterShrinks => ("worker/src/dead_letter.rs", "store"),
            Self::SettleRepeats | Self::NakDropsClaim | Self::NakNeedsLease => {
                ("worker/src/consumer/settle.rs", "settle")
            }
            Self::ConfirmByKind => ("worker/src/consumer/ack.rs", "into_batches"),
            Self::CancelRemovesMessage => ("asyncqueue/src/jetstream.rs", "delete_message"),
            Self::CancelConfirmNeedsLease => {
                ("worker/src/call/cancellations.rs", "confirm_stopped")
            }
            Self::CancelWaits => ("asyncqueue/src/cancel.rs", "wait_for_reply"),
            Self::ShareComparesRevision => ("asyncqueue/src/shares.rs", "write"),
            Self::ShareFromFree => ("asyncqueue/src/shares/division.rs", "next_share"),
            Self::ShareCountsOpen => ("asyncqueue/src/shares/division.rs", "renew"),
            Self::LowerShareFirst => ("worker/src/shared_limits/gate.rs", "prepare"),
            Self::RaiseShareWhenWritten => ("worker/src/shared_limits/gate.rs", "confirm"),
            Self::ShareHasLease | Self::DeadShareReturns => {
                ("worker/src/shared_limits/keeper.rs", "dead")
            }
            Self::ShareLapses => ("worker/src/shared_limits/gate.rs", "valid"),
            Self::LeaseFromSending => ("worker/src/shared_limits/keeper.rs", "renew"),
            Self::LowerRateFirst => ("worker/src/shared_limits/gate.rs", "lower_rate"),
            Self::LaneTakesStored => ("asyncqueue/src/lanes/plan.rs", "lane_config"),
            Self::SweepFindsCalls => ("asyncqueue/src/lanes/sweep.rs", "create_missing"),
            Self::LanesFollowPause => ("asyncqueue/src/lanes/sweep.rs", "align"),
            Self::RemovalPauses => ("asyncqueue/src/lanes/sweep.rs", "remove"),
            Self::RemovalChecks => ("asyncqueue/src/lanes/plan.rs", "is_drained"),
            Self::ChangeNeedsPause => ("asyncqueue/src/stream/ensure/consumers.rs", "pause_all"),
            Self::ChangeNeedsAcks => ("asyncqueue/src/fairness_change.rs", "ask_workers"),
            Self::ChangeChecksAgain => ("asyncqueue/src/fairness_change.rs", "step"),
            Self::ChangeRemovesLeftovers => ("asyncqueue/src/fairness_change.rs", "must_replace"),
            Self::WaitSubscribesFirst => ("gateway/src/service.rs", "begin_wait"),
            Self::WaitKeepsOwn => ("asyncqueue/src/lookup/wait.rs", "next"),
            Self::WaitReadsAtTheEnd => ("gateway/src/service.rs", "wait_for"),
            Self::KeptResultFirstWins => ("asyncqueue/src/kept_results.rs", "store"),
            Self::KeptResultBeforeAck => ("worker/src/call/results.rs", "publish_result"),
            Self::WorkerReadsKeptResult => ("worker/src/call/run.rs", "has_kept_result"),
            Self::BatchEndBeforeAck => ("worker/src/call/results.rs", "publish"),
            Self::BatchFirstEndWins => ("asyncqueue/src/batch/storage.rs", "write_end"),
            Self::BatchRepeatCounts => ("asyncqueue/src/batch/ends.rs", "record_end"),
            Self::BatchRepeatReads => ("asyncqueue/src/batch/ends.rs", "may_be_last"),
            Self::BatchReadsEnds => ("asyncqueue/src/batch/ends.rs", "finish_if_complete"),
            Self::BatchCallbackHasId => ("asyncqueue/src/batch/ends.rs", "publish_callback"),
            Self::BatchReportKept => ("asyncqueue/src/batch/storage.rs", "write_ended"),
            Self::BatchCancelsBeforeAck => ("worker/src/call/batch_ends.rs", "cancel_rest"),
            Self::BatchRepeatCancels => ("asyncqueue/src/batch/ends.rs", "after_end"),
        };
        Place { file, function }
    }
}

/// Formats the guards as the table of the README: each with its function, and the rule that is
/// broken without it.
#[must_use]
pub fn table() -> String {
    let mut table = "| guard | function | broken without it |\n|---|---|---|\n".to_owned();
    for guard in Guard::ALL {
        let Place { file, function } = guard.place();
        let rule = guard.protects();
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{guard:?}` | `{function}` in `{file}` | {rule} |");
    }
    table
}
