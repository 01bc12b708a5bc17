//! A queue is deleted with all that is in it, and applied again, while a worker of before runs:
//! what it and the buckets know of the old calls must not meet the new ones, which have the same
//! places on the stream.

use std::time::Duration;

use futures::FutureExt;
use test_support::load::plan::{Answer, Behaviour, Failure, Id, Mix, PlannedCall, Reception};

use crate::{
    faults,
    run::Scenario,
    stage::{HIT, Setup, Stage},
};

/// As many as the worker runs at once.
const CALLS: u64 = 20;

/// Long enough that the queue is there again before the first call ends.
const LONG: Duration = Duration::from_secs(4);
const SHORT: Duration = Duration::from_millis(50);

/// Between two calls, so that they come in order.
const STEP: Duration = Duration::from_millis(20);

/// Until calls are cancelled: while they run.
const CANCEL_AFTER: Duration = Duration::from_secs(1);

pub(super) fn all() -> Vec<Scenario> {
    let setup = Setup {
        workers: 1,
        // Only what the scenario submits itself is on the queue that is deleted.
        mix: Mix { calls: 0, ..Mix::default() },
        ..Setup::default()
    };
    let scenario =
        |name, act| Scenario { is_short: true, setup: setup.clone(), ..Scenario::new(name, act) };
    vec![
        scenario("a queue is recreated while its calls run", |stage| running(stage).boxed_local()),
        scenario("a queue is recreated, and ids that were cancelled come again", |stage| {
            cancelled(stage).boxed_local()
        }),
    ]
}

/// The worker acknowledges the old calls when the new ones wait for it.
async fn running(stage: &mut Stage) {
    let bystander = stage.submit_calls(calls(1, LONG));
    let old = stage.submit_calls(calls(HIT, LONG));
    old.await.unwrap();
    bystander.await.unwrap();
    stage.has_started(usize::try_from(CALLS * 2).unwrap()).await;
    faults::recreate_queue(stage).await;
    stage.submit_calls(calls(HIT, SHORT)).await.unwrap();
}

/// The old calls were cancelled, and the new ones have their ids and their places.
async fn cancelled(stage: &mut Stage) {
    let with_ids = |takes, cancel_after| {
        let mut calls = calls(HIT, takes);
        for call in &mut calls {
            (call.id, call.cancel_after) = (Id::Shared(call.number), cancel_after);
        }
        calls
    };
    stage.submit_calls(with_ids(LONG, Some(CANCEL_AFTER))).await.unwrap();
    faults::recreate_queue(stage).await;
    stage.submit_calls(with_ids(SHORT, None)).await.unwrap();
}

fn calls(queue: usize, takes: Duration) -> Vec<PlannedCall> {
    let behaviour = Behaviour { takes, fails: 0, failure: Failure::Silent, answer: Answer::Short };
    let call = |number| PlannedCall {
        function: 0,
        number,
        at: STEP * u32::try_from(number).unwrap(),
        queue,
        id: Id::Generated,
        behaviour,
        callback: number.is_multiple_of(2).then_some(Reception::Prompt),
        repeats: 0,
        cancel_after: None,
        cancels_wait: false,
        ask_after: None,
        keeps_result: false,
        waits: None,
        delay: None,
        bytes: 16,
        header_bytes: 0,
    };
    (0..CALLS).map(call).collect()
}
