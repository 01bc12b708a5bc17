//! Answers a client's request to cancel calls.

use std::time::Duration;

use async_nats::jetstream::Context;

use super::{CancelCounts, cancel_pending};
use crate::{
    call::{CallQuery, CallState, CallStatus, CandidateQueues, Lookup},
    end_state::EndState,
    jetstream::NatsError,
    lookup::find_call,
};

/// The outcome of a request to cancel the calls with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// None of the calls starts any more, and at least one is cancelled.
    Cancelled(CancelCounts),
    /// At least one call has a tombstone, and may still start. A repeat is safe.
    Unconfirmed,
    /// All calls have ended in another way.
    Ended {
        /// How the last call ended.
        end: EndState,
        /// What is still known of that end.
        status: Option<Box<CallStatus>>,
    },
    /// Nothing is known of such a call.
    NotFound,
}

/// Cancels the calls with an id that are stored now, at most 1000. Waits up to `timeout` to be
/// certain that they do not start. A repeat is safe, and also confirms calls that an earlier
/// request could not confirm.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use asyncqueue::{
///     call::CallQuery,
///     cancel::{CancelOutcome, cancel_calls},
///     directory::Directory,
///     lookup::candidate_queues,
/// };
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// # let directory = Directory::default();
/// let query = CallQuery { id: "order-7".parse()?, function: None };
/// let candidates = candidate_queues(&directory, &"faas-request".parse()?, &query);
/// match cancel_calls(&js, &candidates, &query, Duration::from_secs(10)).await? {
///     CancelOutcome::Cancelled(counts) => println!("{} cancelled", counts.cancelled),
///     CancelOutcome::Unconfirmed => println!("a call may still start: retry"),
///     CancelOutcome::Ended { end, .. } => println!("already ended: {end}"),
///     CancelOutcome::NotFound => println!("not found"),
/// }
/// # Ok(())
/// # }
/// ```
pub async fn cancel_calls(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
    timeout: Duration,
) -> Result<CancelOutcome, NatsError> {
    let counts = cancel_pending(js, candidates, query, timeout).await?;
    if let Some(outcome) = outcome_if_cancelled(counts) {
        return Ok(outcome);
    }
    let found = find_call(js, candidates, query).await?;
    if !is_cancelled(&found) {
        return Ok(outcome_after_lookup(counts, found));
    }
    // Another request has cancelled it since then, and may not be certain yet.
    let counts = cancel_pending(js, candidates, query, timeout).await?;
    if let Some(outcome) = outcome_if_cancelled(counts).or_else(|| outcome_if_ended(counts)) {
        return Ok(outcome);
    }
    // Either its tombstone has expired, and the result for the client says that the call is
    // cancelled. Or its worker has just recorded that the cancellation came too late.
    let found = find_call(js, candidates, query).await?;
    Ok(outcome_of_repeat(counts, found))
}

/// Returns the outcome if at least one call is cancelled or has a tombstone.
fn outcome_if_cancelled(counts: CancelCounts) -> Option<CancelOutcome> {
    match counts {
        CancelCounts { unconfirmed: 1.., .. } => Some(CancelOutcome::Unconfirmed),
        CancelCounts { cancelled: 1.., .. } => Some(CancelOutcome::Cancelled(counts)),
        _ => None,
    }
}

/// Returns the outcome of a repeated cancellation that has found no call, given the result of the
/// lookup after it.
fn outcome_of_repeat(counts: CancelCounts, found: Lookup) -> CancelOutcome {
    match found {
        Lookup::Ended(CallStatus { state: CallState::Cancelled { .. }, .. }) => {
            CancelOutcome::Cancelled(CancelCounts { cancelled: 1, before: 1, ..counts })
        }
        Lookup::Cancelling(_) => CancelOutcome::Unconfirmed,
        found => outcome_after_lookup(counts, found),
    }
}

/// Returns the outcome if no call is cancelled, given the result of the lookup after it.
fn outcome_after_lookup(counts: CancelCounts, found: Lookup) -> CancelOutcome {
    match found {
        Lookup::Ended(status) => {
            let end = status.state.end().or(counts.end).unwrap_or(EndState::Done);
            CancelOutcome::Ended { end, status: Some(status.into()) }
        }
        // What is stored now came after the request, or is just ending.
        Lookup::Pending { .. } | Lookup::Cancelling(_) | Lookup::NotFound => {
            outcome_if_ended(counts).unwrap_or(CancelOutcome::NotFound)
        }
    }
}

fn outcome_if_ended(counts: CancelCounts) -> Option<CancelOutcome> {
    counts.end.map(|end| CancelOutcome::Ended { end, status: None })
}

fn is_cancelled(found: &Lookup) -> bool {
    matches!(
        found,
        Lookup::Cancelling(_)
            | Lookup::Ended(CallStatus { state: CallState::Cancelled { .. }, .. })
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const EMPTY: CancelCounts =
        CancelCounts { cancelled: 0, running: 0, before: 0, ended: 0, end: None, unconfirmed: 0 };
    const CANCELLED: CancelCounts = CancelCounts { cancelled: 1, ..EMPTY };
    const NOT_CERTAIN: CancelCounts = CancelCounts { unconfirmed: 1, ..EMPTY };
    const DEAD: CancelCounts = CancelCounts { ended: 1, end: Some(EndState::Dead), ..EMPTY };
    const SINCE: Timestamp = Timestamp::UNIX_EPOCH;

    fn ended(state: CallState) -> CallStatus {
        let query = CallQuery { id: "id-1".parse().unwrap(), function: None };
        CallStatus::new(&query, &"jobs".parse().unwrap(), None, state)
    }

    #[test]
    fn one_call_that_is_not_certain_makes_the_request_so() {
        assert_eq!(outcome_if_cancelled(CANCELLED), Some(CancelOutcome::Cancelled(CANCELLED)));
        assert_eq!(outcome_if_cancelled(NOT_CERTAIN), Some(CancelOutcome::Unconfirmed));
        assert_eq!(
            outcome_if_cancelled(CancelCounts { cancelled: 2, ..NOT_CERTAIN }),
            Some(CancelOutcome::Unconfirmed)
        );
        let both = CancelCounts { ended: 1, end: Some(EndState::Done), ..CANCELLED };
        assert_eq!(outcome_if_cancelled(both), Some(CancelOutcome::Cancelled(both)));
        assert_eq!((outcome_if_cancelled(EMPTY), outcome_if_cancelled(DEAD)), (None, None));
    }

    #[test]
    fn call_cancelled_by_another_request_is_asked_about_again() {
        assert!(is_cancelled(&Lookup::Ended(ended(CallState::Cancelled { since: SINCE }))));
        assert!(!is_cancelled(&Lookup::Ended(ended(CallState::Expired { since: SINCE }))));
        assert!(is_cancelled(&Lookup::Cancelling(ended(CallState::Delivered))));
        assert!(!is_cancelled(&Lookup::NotFound));
    }

    #[test]
    fn repeat_that_finds_no_call_believes_the_lookup_after_it() {
        let cancelled = Lookup::Ended(ended(CallState::Cancelled { since: SINCE }));
        let before = CancelCounts { cancelled: 1, before: 1, ..EMPTY };
        assert_eq!(outcome_of_repeat(EMPTY, cancelled), CancelOutcome::Cancelled(before));
        // Its worker has recorded that the call had ended before.
        assert_eq!(outcome_of_repeat(EMPTY, Lookup::NotFound), CancelOutcome::NotFound);
        let cancelling = Lookup::Cancelling(ended(CallState::Delivered));
        assert_eq!(outcome_of_repeat(EMPTY, cancelling), CancelOutcome::Unconfirmed);
    }

    #[test]
    fn error_says_what_is_known_of_the_end() {
        let expired = ended(CallState::Expired { since: SINCE });
        let said =
            CancelOutcome::Ended { end: EndState::Expired, status: Some(expired.clone().into()) };
        assert_eq!(outcome_after_lookup(EMPTY, Lookup::Ended(expired)), said);
        assert_eq!(
            outcome_after_lookup(DEAD, Lookup::NotFound),
            CancelOutcome::Ended { end: EndState::Dead, status: None }
        );
        assert_eq!(outcome_after_lookup(EMPTY, Lookup::NotFound), CancelOutcome::NotFound);
    }
}
