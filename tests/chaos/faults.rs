//! What is done to the system: each fault takes down what it does, and puts back what it took away.

use std::time::Duration;

use asyncqueue::ensure::ensure;
use asyncqueue_tests::{history::event::Excuse, nats::cluster::NODES, wait::until};
use rand::Rng;
use tokio::time::sleep;

use crate::stage::{LEASE, Stage};

/// Longer than a lease: what was held is somebody else's by then.
const BEYOND_THE_LEASE: Duration = LEASE.saturating_mul(2);

/// Longer than it takes three servers to choose another leader.
pub(crate) const BEYOND_AN_ELECTION: Duration = Duration::from_secs(12);

/// A worker dies, and another takes its place.
pub(crate) fn kill_worker(stage: &mut Stage) {
    stage.recorder.fault("a worker is killed", Excuse::Once);
    let mut worker = stage.remove_worker(0);
    worker.kill();
    stage.add_worker();
}

/// A worker ends as it is told to, and another takes its place. `has_time`: it can finish what it runs.
pub(crate) async fn end_worker(stage: &mut Stage, has_time: bool) {
    let excuse = |excuse| if has_time { Excuse::None } else { excuse };
    stage.recorder.fault("a worker is told to end", excuse(Excuse::Begins));
    let mut worker = stage.remove_worker(0);
    worker.signal("TERM");
    stage.add_worker();
    assert!(worker.ended().await.success(), "a worker that is told to end says that all is well");
    stage.recorder.fault("that worker has ended", excuse(Excuse::Ends));
}

/// A worker stands still until its calls are with another.
pub(crate) async fn stop_worker(stage: &mut Stage) {
    stage.recorder.fault("a worker is stopped", Excuse::Begins);
    stage.workers[0].signal("STOP");
    sleep(BEYOND_THE_LEASE).await;
    stage.recorder.fault("that worker goes on", Excuse::Ends);
    stage.workers[0].signal("CONT");
}

/// A gateway dies and is started again.
pub(crate) async fn kill_gateway(stage: &mut Stage) {
    stage.recorder.fault("a gateway is killed", Excuse::None);
    stage.gateways[0].program.kill();
    sleep(Duration::from_millis(300)).await;
    stage.restart_gateway(0);
    stage.gateways[0].is_ready().await;
    stage.recorder.fault("that gateway is back", Excuse::None);
}

/// A gateway ends as it is told to and is started again.
pub(crate) async fn end_gateway(stage: &mut Stage) {
    stage.recorder.fault("a gateway is told to end", Excuse::None);
    stage.gateways[0].program.signal("TERM");
    assert!(stage.gateways[0].program.ended().await.success());
    stage.restart_gateway(0);
    stage.gateways[0].is_ready().await;
    stage.recorder.fault("that gateway is back", Excuse::None);
}

/// The only nats-server dies, and is started again with its store after a while.
pub(crate) async fn kill_nats(stage: &mut Stage, away: Duration) {
    // What was delivered in its last moments, it may not have written down.
    stage.recorder.fault("nats-server is killed", Excuse::Begins);
    stage.servers.one().kill();
    sleep(away).await;
    stage.servers.one().run().await;
    stage.recorder.fault("nats-server is back", Excuse::Ends);
}

/// The only nats-server stands still for longer than a lease.
pub(crate) async fn stop_nats(stage: &mut Stage) {
    stage.recorder.fault("nats-server is stopped", Excuse::Begins);
    stage.servers.one().pause().await;
    sleep(BEYOND_THE_LEASE).await;
    stage.servers.one().resume();
    stage.recorder.fault("nats-server goes on", Excuse::Ends);
}

/// Somebody deletes the consumer, and it is made anew. The new one knows nothing of what was delivered.
pub(crate) async fn remake_consumer(stage: &mut Stage) {
    stage.recorder.fault("the consumer is deleted", Excuse::Begins);
    let spec = &stage.spec;
    stage.js.delete_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    until("the consumer is made anew", async || ensure(&stage.js, spec, false).await.ok()).await;
    stage.recorder.fault("the consumer is made anew", Excuse::Ends);
}

/// The server that leads the stream of calls dies, and comes back after another leads.
pub(crate) async fn kill_leader(stage: &mut Stage) {
    let leader = stream_leader(stage).await;
    stage.recorder.fault(format!("node {leader}, the leader, is killed"), Excuse::Begins);
    stage.servers.three().node(leader).kill();
    sleep(BEYOND_AN_ELECTION).await;
    stage.servers.three().node(leader).run().await;
    stage.recorder.fault(format!("node {leader} is back"), Excuse::Ends);
}

/// The leaders of the stream of calls and of its consumer hand over.
pub(crate) async fn step_down(stage: &mut Stage) {
    stage.recorder.fault("the leaders of stream and consumer step down", Excuse::Begins);
    let (stream, consumer) = (stage.spec.stream.clone(), consumer_of(stage));
    let js = stage.js.clone();
    stage.servers.three().step_down(&js, "STREAM", &stream).await;
    stage.servers.three().step_down(&js, "CONSUMER", &consumer).await;
    stage.recorder.fault("the leaders have stepped down", Excuse::Ends);
}

/// The server that leads the stream of calls stands still until another leads.
pub(crate) async fn stop_leader(stage: &mut Stage) {
    let leader = stream_leader(stage).await;
    stage.recorder.fault(format!("node {leader}, the leader, is stopped"), Excuse::Begins);
    stage.servers.three().node(leader).pause().await;
    sleep(BEYOND_AN_ELECTION).await;
    stage.servers.three().node(leader).resume();
    stage.recorder.fault(format!("node {leader} goes on"), Excuse::Ends);
}

/// The server that leads the stream of calls is cut off from the others. Its clients still reach it.
pub(crate) async fn cut_leader_off(stage: &mut Stage) {
    let leader = stream_leader(stage).await;
    cut_off(stage, leader).await;
}

/// Any of the servers is cut off from the others.
pub(crate) async fn cut_any_off(stage: &mut Stage) {
    let node = stage.rng.random_range(0..NODES);
    cut_off(stage, node).await;
}

async fn cut_off(stage: &mut Stage, node: usize) {
    stage.recorder.fault(format!("node {node} is cut off"), Excuse::Begins);
    stage.servers.three().set_connected(node, false);
    sleep(BEYOND_AN_ELECTION).await;
    stage.servers.three().set_connected(node, true);
    stage.recorder.fault(format!("node {node} is connected again"), Excuse::Ends);
}

/// The server that leads the stream of calls.
pub(crate) async fn stream_leader(stage: &mut Stage) -> usize {
    let (js, stream) = (stage.js.clone(), stage.spec.stream.clone());
    stage.servers.three().stream_leader(&js, &stream).await
}

/// The consumer of calls, as the `JetStream` API names it.
pub(crate) fn consumer_of(stage: &Stage) -> String {
    format!("{}.{}", stage.spec.stream, stage.spec.durable)
}
