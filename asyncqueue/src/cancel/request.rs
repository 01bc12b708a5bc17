//! Answers a client's request to cancel calls.

use std::time::Duration;

use async_nats::jetstream::Context;

use super::{Tally, cancel};
use crate::{
    end_state::EndState,
    locate::{Found, Places, Wanted, locate},
    peek::NatsError,
    status::{CallStatus, State},
};

/// The outcome of a request to cancel the calls with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of the calls starts any more, and at least one is cancelled.
    Cancelled(Tally),
    /// At least one call has a tombstone, and may still start. A repeat is safe.
    NotCertain,
    /// All calls have ended in another way.
    Ended {
        /// How the last call ended.
        end: EndState,
        /// What is still known of that end.
        status: Option<Box<CallStatus>>,
    },
    /// Nothing is known of such a call.
    Unknown,
}

/// Cancels all calls with an id that are stored now. Waits up to `patience` to be certain that they
/// do not start. A repeat is safe, and also confirms calls that an earlier request could not
/// confirm.
pub async fn request(
    js: &Context,
    places: &Places,
    wanted: &Wanted,
    patience: Duration,
) -> Result<Verdict, NatsError> {
    let tally = cancel(js, places, wanted, patience).await?;
    if let Some(verdict) = of_cancelled(tally) {
        return Ok(verdict);
    }
    let found = locate(js, places, wanted).await?;
    if is_cancelled(&found) {
        // Another request has cancelled it since then, and may not be certain yet.
        return Ok(of_cancelled_since(cancel(js, places, wanted, patience).await?));
    }
    Ok(of_others(tally, found))
}

/// Returns the verdict of a tally in which a call is cancelled.
fn of_cancelled(tally: Tally) -> Option<Verdict> {
    match tally {
        Tally { unconfirmed: 1.., .. } => Some(Verdict::NotCertain),
        Tally { cancelled: 1.., .. } => Some(Verdict::Cancelled(tally)),
        _ => None,
    }
}

/// Returns the verdict of the second tally, for a call that another request has cancelled.
fn of_cancelled_since(tally: Tally) -> Verdict {
    // If the tally is empty, the call is known by the result for its client, and its tombstone has
    // expired.
    let of_result = || Verdict::Cancelled(Tally { cancelled: 1, before: 1, ..tally });
    of_cancelled(tally).or_else(|| of_ended(tally)).unwrap_or_else(of_result)
}

/// Returns the verdict of a tally without a cancelled call, given what was found after it.
fn of_others(tally: Tally, found: Found) -> Verdict {
    match found {
        Found::Ended(status) => {
            let end = status.state.end().or(tally.end).unwrap_or(EndState::Done);
            Verdict::Ended { end, status: Some(status.into()) }
        }
        // What is stored now came after the request, or is just ending.
        Found::Stored { .. } | Found::BeingCancelled(_) | Found::Unknown => {
            of_ended(tally).unwrap_or(Verdict::Unknown)
        }
    }
}

fn of_ended(tally: Tally) -> Option<Verdict> {
    tally.end.map(|end| Verdict::Ended { end, status: None })
}

fn is_cancelled(found: &Found) -> bool {
    matches!(
        found,
        Found::BeingCancelled(_) | Found::Ended(CallStatus { state: State::Cancelled { .. }, .. })
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const EMPTY: Tally =
        Tally { cancelled: 0, running: 0, before: 0, ended: 0, end: None, unconfirmed: 0 };
    const CANCELLED: Tally = Tally { cancelled: 1, ..EMPTY };
    const NOT_CERTAIN: Tally = Tally { unconfirmed: 1, ..EMPTY };
    const DEAD: Tally = Tally { ended: 1, end: Some(EndState::Dead), ..EMPTY };
    const SINCE: Timestamp = Timestamp::UNIX_EPOCH;

    fn ended(state: State) -> CallStatus {
        let wanted = Wanted { id: "id-1".parse().unwrap(), function: None };
        CallStatus::new(&wanted, &"jobs".parse().unwrap(), None, state)
    }

    #[test]
    fn one_call_that_is_not_certain_makes_the_request_so() {
        assert_eq!(of_cancelled(CANCELLED), Some(Verdict::Cancelled(CANCELLED)));
        assert_eq!(of_cancelled(NOT_CERTAIN), Some(Verdict::NotCertain));
        assert_eq!(of_cancelled(Tally { cancelled: 2, ..NOT_CERTAIN }), Some(Verdict::NotCertain));
        let both = Tally { ended: 1, end: Some(EndState::Done), ..CANCELLED };
        assert_eq!(of_cancelled(both), Some(Verdict::Cancelled(both)));
        assert_eq!((of_cancelled(EMPTY), of_cancelled(DEAD)), (None, None));
    }

    #[test]
    fn a_call_that_another_request_has_cancelled_since_is_asked_about_again() {
        assert!(is_cancelled(&Found::Ended(ended(State::Cancelled { since: SINCE }))));
        assert!(!is_cancelled(&Found::Ended(ended(State::Expired { since: SINCE }))));
        assert!(is_cancelled(&Found::BeingCancelled(ended(State::Delivered))));
        assert!(!is_cancelled(&Found::Unknown));
        assert_eq!(of_cancelled_since(NOT_CERTAIN), Verdict::NotCertain);
        assert_eq!(of_cancelled_since(DEAD), Verdict::Ended { end: EndState::Dead, status: None });
        let before = Tally { before: 1, ..CANCELLED };
        assert_eq!(of_cancelled_since(before), Verdict::Cancelled(before));
        assert_eq!(of_cancelled_since(EMPTY), Verdict::Cancelled(before));
    }

    #[test]
    fn what_is_known_of_the_end_is_said() {
        let expired = ended(State::Expired { since: SINCE });
        let said = Verdict::Ended { end: EndState::Expired, status: Some(expired.clone().into()) };
        assert_eq!(of_others(EMPTY, Found::Ended(expired)), said);
        assert_eq!(
            of_others(DEAD, Found::Unknown),
            Verdict::Ended { end: EndState::Dead, status: None }
        );
        assert_eq!(of_others(EMPTY, Found::Unknown), Verdict::Unknown);
    }
}
