//! Functions whose answers, and calls whose dead letters, are more than NATS takes; and results
//! that find no room.

use std::time::Duration;

use async_nats::datetime::parse_rfc3339;
use asyncqueue::message::RESERVED_HEADER_BYTES;
use futures::FutureExt;
use test_support::{
    history::event::Excuse,
    load::plan::{ALWAYS, Answer, Mix, Reception},
};
use tokio::time::{Instant, sleep};

use crate::{
    faults,
    run::Scenario,
    stage::{Setup, Stage},
};

/// What JetStream takes no message of as it is: more than 64 KiB of headers, escapes included, or
/// more than `max_payload` in all.
const ODD: &[Answer] =
    &[Answer::Short, Answer::ManyHeaders, Answer::WideHeader, Answer::Long(2 * MAX_PAYLOAD)];

/// `max_payload` of a nats-server as it comes.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// The longest body that the gateway takes.
const MAX_BODY: usize = MAX_PAYLOAD - RESERVED_HEADER_BYTES;

/// For an answer that can't be stored as it is, and then for all calls that waited for a slot.
const SOON: Duration = Duration::from_secs(20);

/// Results that the stream holds where it is small, and how long a call may wait for a slot then.
const RESULTS: i64 = 5;
const STARTS_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn all() -> Vec<Scenario> {
    let odd = Mix {
        calls: 120,
        callbacks: 100,
        receptions: &[Reception::Prompt],
        answers: ODD,
        ..Mix::default()
    };
    let setup = Setup { mix: odd, timeout: SOON, ..Setup::default() };
    // The message of a call fits by a hair, and its dead letter says some more.
    let large = Mix {
        calls: 60,
        over: Duration::from_secs(6),
        bytes: (MAX_BODY, MAX_BODY),
        header_bytes: (RESERVED_HEADER_BYTES - 1000, RESERVED_HEADER_BYTES - 300),
        failing: 100,
        fails: &[ALWAYS],
        repeated: 0,
        ..Mix::default()
    };
    // More results than the stream holds and than there are slots.
    let results =
        Mix { calls: 150, over: Duration::from_secs(2), queues: 1, cancelled: 0, ..Mix::default() };
    vec![
        Scenario {
            is_short: true,
            setup: setup.clone(),
            ..Scenario::new("answers are more than NATS takes", |stage| {
                stage.load_ends().boxed_local()
            })
        },
        Scenario {
            setup,
            ..Scenario::new("answers are more than NATS takes, and a worker is killed", |stage| {
                killed(stage).boxed_local()
            })
        },
        Scenario {
            setup: Setup { mix: large, timeout: SOON, ..Setup::default() },
            ..Scenario::new("dead letters are more than NATS takes", |stage| {
                stage.load_ends().boxed_local()
            })
        },
        Scenario {
            setup: Setup {
                mix: results,
                max_results: Some(RESULTS),
                starts_within: Some(STARTS_WITHIN),
                ..Setup::default()
            },
            ..Scenario::new("the stream of results is full for long", |stage| {
                results_full(stage).boxed_local()
            })
        },
    ]
}

async fn killed(stage: &mut Stage) {
    stage.in_the_middle().await;
    faults::kill_worker(stage);
}

/// No result leaves the stream until every call has started, or should have.
async fn results_full(stage: &mut Stage) {
    let spec = stage.spec().clone();
    let results = stage.js.get_stream(spec.queue.callback_stream()).await.unwrap();
    let (durable, until) =
        (spec.queue.callback_durable(), parse_rfc3339("2100-01-01T00:00:00Z").unwrap());
    stage.recorder.fault("results are not delivered", Excuse::None);
    results.pause_consumer(&durable, until).await.unwrap();
    stage.load_ends().await;
    let deadline = Instant::now() + STARTS_WITHIN;
    while stage.calls_started() < stage.accepted_calls() && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
    results.resume_consumer(&durable).await.unwrap();
    stage.recorder.fault("results are delivered again", Excuse::None);
}
