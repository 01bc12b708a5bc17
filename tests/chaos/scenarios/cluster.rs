//! Three nats-servers with three copies of each stream: leaders that die, hand over, stand still
//! and are cut off.

use std::time::{Duration, Instant};

use futures::FutureExt;
use test_support::{history::event::Excuse, load::plan::Mix};
use tokio::time::sleep;

use crate::{
    faults,
    run::Scenario,
    servers::Kind,
    stage::{Setup, Stage},
};

/// A pull that the server has lost is noticed and made again within so long: the worker's idle
/// time, an election of the consumer's leader, and what a busy machine takes.
const STALL: Duration = Duration::from_secs(15);

pub(super) fn all() -> Vec<Scenario> {
    let setup = Setup {
        servers: Kind::Three,
        gateways: 2,
        // Long enough that clients come before, during and after an election.
        mix: Mix { over: Duration::from_secs(12), ..Mix::default() },
        ..Setup::default()
    };
    let scenario = |name, act| Scenario { setup: setup.clone(), ..Scenario::new(name, act) };
    vec![
        scenario("three servers: the leader is killed", |stage| {
            in_the_middle(stage, Fault::Killed).boxed_local()
        }),
        scenario("three servers: leaders step down", |stage| stepped_down(stage).boxed_local()),
        scenario("three servers: the leader is stopped", |stage| {
            in_the_middle(stage, Fault::Stopped).boxed_local()
        }),
        scenario("three servers: the leader is cut off", |stage| {
            in_the_middle(stage, Fault::CutOff).boxed_local()
        }),
        scenario("three servers: one is lost for good", |stage| lost(stage).boxed_local()),
        Scenario {
            setup: Setup {
                mix: Mix { calls: 1, queues: 1, callbacks: 0, cancelled: 0, ..Mix::default() },
                ..setup.clone()
            },
            ..Scenario::new("three servers: an idle pull loses its leader", |stage| {
                stalled(stage).boxed_local()
            })
        },
    ]
}

enum Fault {
    Killed,
    Stopped,
    CutOff,
}

async fn in_the_middle(stage: &mut Stage, fault: Fault) {
    stage.in_the_middle().await;
    match fault {
        Fault::Killed => faults::kill_leader(stage).await,
        Fault::Stopped => faults::stop_leader(stage).await,
        Fault::CutOff => faults::cut_leader_off(stage).await,
    }
}

async fn stepped_down(stage: &mut Stage) {
    for turn in 1..=4 {
        stage.has_started(30 * turn).await;
        faults::step_down(stage).await;
    }
}

async fn lost(stage: &mut Stage) {
    stage.in_the_middle().await;
    let leader = faults::stream_leader(stage).await;
    stage.recorder.fault(
        format!("node {leader}, the leader, is killed and does not come back"),
        Excuse::Begins,
    );
    stage.servers.three().node(leader).kill();
    sleep(faults::BEYOND_AN_ELECTION).await;
    stage.recorder.fault("another leads", Excuse::Ends);
}

/// Workers that ask and get nothing, each time another leads the consumer: a call that comes then
/// is run soon.
async fn stalled(stage: &mut Stage) {
    stage.load_ends().await;
    let (js, stream, durable) =
        (stage.js.clone(), stage.spec().stream.clone(), stage.spec().durable.clone());
    let one = Mix { calls: 1, queues: 1, callbacks: 0, cancelled: 0, failing: 0, ..Mix::default() };
    for turn in 0..4 {
        let leader = stage.servers.three().consumer_leader(&js, &stream, &durable).await;
        if turn % 2 == 0 {
            stage.recorder.fault("the consumer's leader steps down", Excuse::Once);
            let consumer = faults::consumer_of(stage);
            stage.servers.three().step_down(&js, "CONSUMER", &consumer).await;
        } else {
            stage
                .recorder
                .fault(format!("node {leader}, the consumer's leader, is killed"), Excuse::Once);
            stage.servers.three().node(leader).kill();
            sleep(Duration::from_secs(1)).await;
            stage.servers.three().node(leader).run().await;
        }
        stage.servers.three().consumer_leader(&js, &stream, &durable).await;
        let (runs, led) = (stage.runs_started(), Instant::now());
        let call = stage.submit(&one);
        stage.has_started(runs + 1).await;
        assert!(led.elapsed() < STALL, "a call had to wait for {:?}", led.elapsed());
        call.await.unwrap();
    }
}
