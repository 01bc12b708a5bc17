//! The store of nats-server is full. Its queues have no limits of their own, as by default: what
//! the programs need to end calls must find room, with no human help.

use std::time::Duration;

use futures::FutureExt;
use test_support::{
    history::event::{Excuse, Step, What},
    load::plan::{Mix, Reception},
    wait::until_in,
};

use crate::{
    run::Scenario,
    servers::Kind,
    stage::{LEASE, Setup, Stage, WAIT_TIMEOUT},
};

/// The size of a body: some two hundred fill the store.
const BODY: usize = 400_000;

/// Three servers write each body three times over, to one disk here. What they deliver in the
/// meantime has come later than [`LEASE`] after they began to count.
const LEASE_OF_THREE: Duration = LEASE.saturating_mul(4);

pub(super) fn all() -> Vec<Scenario> {
    let mix = Mix {
        calls: 240,
        over: Duration::from_secs(8),
        bytes: (BODY, BODY),
        callbacks: 100,
        receptions: &[Reception::Prompt],
        cancelled: 20,
        ..Mix::default()
    };
    let scenario = |name, servers, queues| Scenario {
        setup: Setup {
            servers,
            // No worker at first, so that it fills up.
            workers: 0,
            mix: Mix { queues, ..mix.clone() },
            lease: if servers == Kind::ThreeSmall { LEASE_OF_THREE } else { LEASE },
            ..Setup::default()
        },
        ..Scenario::new(name, |stage| full(stage).boxed_local())
    };
    vec![
        scenario("the store is full: one queue", Kind::OneSmall, 1),
        scenario("the store is full: two queues", Kind::OneSmall, 2),
        scenario("the store is full: two queues on three servers", Kind::ThreeSmall, 2),
    ]
}

/// Workers come when the store is full, and clients go on.
async fn full(stage: &mut Stage) {
    let is_refusal =
        |what: &What| matches!(what, What::Step(_, Step::Answered { status: 429 | 503 | 507, .. }));
    until_in(WAIT_TIMEOUT, "a call is refused", async || {
        (stage.recorder.count(is_refusal) > 0).then_some(())
    })
    .await;
    stage.recorder.fault("the store is full", Excuse::None);
    stage.add_worker();
    stage.add_worker();
    stage.add_bystanders();
    stage.load_ends().await;
}
