//! Shows a broken promise as the events of one call, in order.

use std::{fmt::Write as _, time::Duration};

use super::{
    checker::Broken,
    event::{CallNumber, Event, What},
};

/// A recorder that is late by less explains nothing.
const WORTH_TELLING: Duration = Duration::from_millis(50);

/// The shortest of the stories that explain what was broken, and a line for each of the others.
#[must_use]
pub fn explain(history: &[Event], broken: &[Broken]) -> String {
    let mut stories: Vec<_> =
        broken.iter().map(|broken| (broken, of(history, broken.call))).collect();
    stories.sort_by_key(|(_, story)| story.len());
    let mut text = String::new();
    for (index, (broken, story)) in stories.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "call {}: {}", broken.call, broken.rule);
        if index == 0 {
            for event in story {
                let _ = writeln!(text, "  {:>8.3} s  {}", event.at.as_secs_f64(), event.what);
            }
        }
    }
    text
}

/// All that was seen, a line each.
#[must_use]
pub fn whole(history: &[Event]) -> String {
    let mut text = String::new();
    for Event { at, what } in history {
        let call =
            if let What::Step(call, _) = what { format!("call {call}: ") } else { String::new() };
        let _ = writeln!(text, "{:>8.3} s  {call}{what}", at.as_secs_f64());
    }
    text
}

/// What was seen of a call, with what was done to the system between its first step and its last.
fn of(history: &[Event], call: CallNumber) -> Vec<&Event> {
    let is_of_call = |event: &&Event| matches!(event.what, What::Step(number, _) if number == call);
    let (first, last) = (
        history.iter().find(is_of_call).map(|event| event.at),
        history.iter().rev().find(is_of_call).map(|event| event.at),
    );
    let is_fault_during_call = |event: &&Event| {
        is_worth_telling(&event.what) && first <= Some(event.at) && Some(event.at) <= last
    };
    history.iter().filter(|event| is_of_call(event) || is_fault_during_call(event)).collect()
}

fn is_worth_telling(what: &What) -> bool {
    match what {
        What::Fault { .. } | What::Concurrency { .. } | What::Batch(..) => true,
        What::Late(by) => *by >= WORTH_TELLING,
        What::Step(..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{
        checker::Rule,
        event::{Excuse, Step},
    };

    #[test]
    fn story_lists_events_and_faults_in_order() {
        let at = |millis, what| Event { at: Duration::from_millis(millis), what };
        let fault =
            |name: &str| What::Fault { name: name.to_owned(), excuse: Excuse::Once, queue: None };
        let submitted = Step::Submitted { callback: false, queue: 0, shares_id: false };
        let history = [
            at(0, fault("before it all")),
            at(10, What::Step(1, submitted)),
            at(11, What::Step(2, submitted)),
            at(12, What::Step(1, Step::Answered { status: 202, retry_after: false })),
            at(1500, fault("the worker is killed")),
            at(2000, What::Step(1, Step::Started { run: 1 })),
            at(2100, What::Step(2, Step::Answered { status: 202, retry_after: false })),
            at(3000, fault("after it all")),
        ];
        let broken =
            [Broken { call: 1, rule: Rule::Unfinished }, Broken { call: 2, rule: Rule::Lost }];
        assert_eq!(
            explain(&history, &broken),
            "call 2: lost: it was answered 202 and has no end
     0.011 s  submitted to queue 0
     1.500 s  -- the worker is killed
     2.100 s  answered 202
call 1: unfinished: it, or its result, is still on the way
"
        );
    }
}
