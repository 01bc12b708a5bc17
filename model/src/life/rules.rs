//! The rules of the life of calls, as conditions on a state.

use stateright::Property;

use super::{
    Life,
    setup::{Oversized, Setup},
    state::{Answer, Call, Cancel, End, Message, Record, State},
};
use crate::rule::Rule;

/// Rules that hold in each state.
pub const RULES: [Rule; 10] = [
    Rule::OneEnd,
    Rule::NoStartAfterCancel,
    Rule::NoDeliveryAfterAck,
    Rule::AttemptsBounded,
    Rule::NoEarlyDeath,
    Rule::NoNeedlessInvocation,
    Rule::NoLostResult,
    Rule::NoLostCall,
    Rule::NoUnaskedCancel,
    Rule::OneDeadLetter,
];

/// Returns the rules, and the states that must be reachable, for the checker.
pub(super) fn properties() -> Vec<Property<Life>> {
    vec![
        Property::always(Rule::OneEnd.name(), |m, s| keeps(m, s, Rule::OneEnd)),
        Property::always(Rule::NoStartAfterCancel.name(), |m, s| {
            keeps(m, s, Rule::NoStartAfterCancel)
        }),
        Property::always(Rule::NoDeliveryAfterAck.name(), |m, s| {
            keeps(m, s, Rule::NoDeliveryAfterAck)
        }),
        Property::always(Rule::AttemptsBounded.name(), |m, s| keeps(m, s, Rule::AttemptsBounded)),
        Property::always(Rule::NoEarlyDeath.name(), |m, s| keeps(m, s, Rule::NoEarlyDeath)),
        Property::always(Rule::NoNeedlessInvocation.name(), |m, s| {
            keeps(m, s, Rule::NoNeedlessInvocation)
        }),
        Property::always(Rule::NoLostResult.name(), |m, s| keeps(m, s, Rule::NoLostResult)),
        Property::always(Rule::NoLostCall.name(), |m, s| keeps(m, s, Rule::NoLostCall)),
        Property::always(Rule::NoUnaskedCancel.name(), |m, s| keeps(m, s, Rule::NoUnaskedCancel)),
        Property::always(Rule::OneDeadLetter.name(), |m, s| keeps(m, s, Rule::OneDeadLetter)),
    ]
}

/// Returns whether a state keeps a rule.
#[must_use]
pub fn keeps(life: &Life, state: &State, rule: Rule) -> bool {
    let calls = state.calls.iter().enumerate();
    calls.filter(|(_, call)| call.message != Message::Absent).all(|(c, call)| {
        let record = state.records[usize::from(call.sequence)];
        keeps_for(&life.setup, state, (c, call), record, rule)
    })
}

fn keeps_for(
    setup: &Setup,
    state: &State,
    (c, call): (usize, &Call),
    record: Record,
    rule: Rule,
) -> bool {
    let seen = &call.seen;
    match rule {
        Rule::OneEnd => has_one_end(call, record),
        Rule::NoStartAfterCancel | Rule::NoDeliveryAfterAck | Rule::NoEarlyDeath => {
            seen.broken != Some(rule)
        }
        Rule::AttemptsBounded => seen.starts <= setup.max_attempts + seen.forgotten,
        Rule::NoNeedlessInvocation => seen.open <= 1 + seen.excused,
        Rule::NoLostResult => {
            // A result that NATS can't store is lost with its worker.
            let is_kept = setup.callbacks && setup.oversized != Oversized::Result;
            !is_kept || !is_over(state, c, call) || call.acked.is_none() || record.result.is_some()
        }
        Rule::NoLostCall => !is_over(state, c, call) || has_end(call, record),
        Rule::NoUnaskedCancel => {
            let is_cancelled =
                record.result == Some(End::Cancelled) || call.acked == Some(End::Cancelled);
            call.cancel != Cancel::None || !is_cancelled
        }
        Rule::OneDeadLetter => record.letters <= 1,
        // Checked in another way, or a rule of the other model.
        _ => true,
    }
}

/// Returns whether the client, the callback receiver and readers of dead letters get the same end.
fn has_one_end(call: &Call, record: Record) -> bool {
    let result = record.result;
    let letter = (record.letters > 0).then_some(End::Dead);
    let confirmed = call.seen.is_cancel_confirmed.then_some(End::Cancelled);
    let mut ends = [result, letter, confirmed].into_iter().flatten();
    let first = ends.next();
    let is_refused = call.cancel == Cancel::Answered(Answer::Refused);
    ends.all(|end| Some(end) == first)
        && !record.has_second_result
        && !(is_refused && result == Some(End::Cancelled))
}

/// Returns whether a call is off the stream, and no worker or gateway has anything left to do for
/// it.
fn is_over(state: &State, c: usize, call: &Call) -> bool {
    call.message == Message::Gone
        && !call.is_deleted
        && matches!(call.cancel, Cancel::None | Cancel::Answered(_))
        && state.workers.iter().all(|worker| worker.tasks[c].is_none())
}

fn has_end(call: &Call, record: Record) -> bool {
    let is_cancelled =
        matches!(call.cancel, Cancel::Answered(Answer::Confirmed | Answer::Unavailable));
    call.acked.is_some() || record.letters > 0 || is_cancelled
}
