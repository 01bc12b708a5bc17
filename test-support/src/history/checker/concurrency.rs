//! How many invocations of a queue are open.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Rules,
    call::queue,
    lateness::Lateness,
    runs::{self, Run},
};
use crate::history::event::{CallNumber, Event, QueueNumber, REPLAYED, Step, What};

/// The totals of a queue, and when each of them began.
type Totals = Vec<(Duration, Option<u32>)>;

/// Returns the calls of which an invocation started while as many as permitted were open.
pub(super) fn exceeding(
    history: &[Event],
    steps: &BTreeMap<CallNumber, Vec<(Duration, Step)>>,
    lateness: &Lateness,
    rules: &Rules,
) -> impl Iterator<Item = CallNumber> {
    let mut runs: BTreeMap<QueueNumber, Vec<(CallNumber, Run)>> = BTreeMap::new();
    for (call, of_call) in steps {
        // Only the first life of a call says on which queue it is.
        let queue = steps.get(&(call % REPLAYED)).map_or(0, |first| queue(first));
        let of_queue = runs.entry(queue).or_default();
        of_queue.extend(runs::of(of_call).into_iter().map(|run| (*call, run)));
    }
    let exceeding = totals(history).into_iter().flat_map(move |(queue, totals)| {
        let runs = runs.remove(&queue).unwrap_or_default();
        let exceeds = |run: &Run| {
            let total = total_at(&totals, run.started);
            // An end may be seen later than the start that follows from it.
            let since = run.started.saturating_sub(rules.slack);
            let until = run.started + rules.slack;
            let skew = rules.skew + lateness.between(since, until);
            total.is_some_and(|total| count_open(&runs, run.started, skew) > total as usize)
        };
        let calls = runs.iter().filter(|(_, run)| exceeds(run)).map(|(call, _)| *call);
        calls.collect::<Vec<_>>()
    });
    exceeding.collect::<std::collections::BTreeSet<_>>().into_iter()
}

fn totals(history: &[Event]) -> BTreeMap<QueueNumber, Totals> {
    let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
    for event in history {
        if let What::Concurrency { queue, total } = event.what {
            totals.entry(queue).or_default().push((event.at, total));
        }
    }
    totals
}

fn total_at(totals: &Totals, at: Duration) -> Option<u32> {
    totals.iter().rev().find(|(since, _)| *since <= at).and_then(|(_, total)| *total)
}

/// Returns how many invocations are open at a time, and for some time after it.
fn count_open(runs: &[(CallNumber, Run)], at: Duration, skew: Duration) -> usize {
    let is_open = |run: &Run| {
        run.started <= at && run.end.is_none_or(|(end, _)| end > at.saturating_add(skew))
    };
    runs.iter().filter(|(_, run)| is_open(run)).count()
}
