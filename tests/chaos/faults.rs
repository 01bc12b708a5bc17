//! What is done to the system: each fault records what it does, and puts back what it took away.

use std::time::Duration;

use asyncqueue::{
    directory::{
        Directory, QueueEntry, QueueSettings, Rate, StoredSettings, store::DirectoryStore,
    },
    fairness_change::{SwitchStep, switch_fairness},
    lanes::Fairness,
    shares::{self, WHOLE_RATE},
    stream::{QueueSpec, RemovalPolicy, ensure_queue, remove_queue},
};
use rand::Rng;
use test_support::{
    history::event::Excuse,
    nats::cluster::NODES,
    wait::{until, until_in},
};
use tokio::time::sleep;

use crate::stage::{HIT, LEASE, Stage, WAIT_TIMEOUT};

/// Longer than a lease: what was held is somebody else's by then.
const BEYOND_THE_LEASE: Duration = LEASE.saturating_mul(2);

/// Longer than it takes three servers to choose another leader.
pub(crate) const BEYOND_AN_ELECTION: Duration = Duration::from_secs(12);

/// A worker dies, and another takes its place.
pub(crate) fn kill_worker(stage: &mut Stage) {
    stage.recorder.fault_of(HIT, "a worker is killed", Excuse::Once);
    let mut worker = stage.remove_worker(0);
    worker.kill();
    stage.add_worker();
}

/// A worker ends on SIGTERM, and another takes its place. `has_time`: it can finish what it
/// runs.
pub(crate) async fn end_worker(stage: &mut Stage, has_time: bool) {
    let excuse = |excuse| if has_time { Excuse::None } else { excuse };
    stage.recorder.fault_of(HIT, "a worker is asked to end", excuse(Excuse::Begins));
    let mut worker = stage.remove_worker(0);
    worker.signal("TERM");
    stage.add_worker();
    assert!(worker.ended().await.success(), "a worker that is asked to end says that all is well");
    stage.recorder.fault_of(HIT, "that worker has ended", excuse(Excuse::Ends));
}

/// A worker stands still until its calls are with another.
pub(crate) async fn stop_worker(stage: &mut Stage) {
    stop_worker_for(stage, BEYOND_THE_LEASE).await;
}

/// A worker stands still for a while.
pub(crate) async fn stop_worker_for(stage: &mut Stage, time: Duration) {
    // A lease is renewed at a third of it, and so much of it may be gone already.
    let is_lost = time > LEASE / 2;
    let excuse = |excuse| if is_lost { excuse } else { Excuse::None };
    let name = format!("a worker is stopped for {:.1} s", time.as_secs_f64());
    stage.recorder.fault_of(HIT, name, excuse(Excuse::Begins));
    stage.workers[0].signal("STOP");
    sleep(time).await;
    stage.recorder.fault_of(HIT, "that worker goes on", excuse(Excuse::Ends));
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

/// A gateway ends on SIGTERM and is started again.
pub(crate) async fn end_gateway(stage: &mut Stage) {
    stage.recorder.fault("a gateway is asked to end", Excuse::None);
    stage.gateways[0].program.signal("TERM");
    assert!(stage.gateways[0].program.ended().await.success());
    stage.restart_gateway(0);
    stage.gateways[0].is_ready().await;
    stage.recorder.fault("that gateway is back", Excuse::None);
}

/// The only nats-server dies, and is started again with its store after a while.
pub(crate) async fn kill_nats(stage: &mut Stage, away: Duration) {
    stage.recorder.fault("nats-server is killed", Excuse::BeginsKilled);
    stage.servers.one().kill();
    sleep(away).await;
    stage.servers.one().run().await;
    stage.recorder.fault("nats-server is back", Excuse::Ends);
}

/// The workers' `maxInflight` changes in the directory, as an operator changes it.
pub(crate) async fn change_max_inflight(stage: &mut Stage, max_inflight: u16) {
    let name = format!("maxInflight is {max_inflight} from now on");
    stage.recorder.fault_of(HIT, name, Excuse::None);
    let settings = QueueSettings { max_inflight: Some(max_inflight), ..QueueSettings::default() };
    write_settings(stage, &settings).await;
}

/// The total and the rate of the queue change in the directory, as an operator changes them.
/// Returns when the server has them.
pub(crate) async fn change_limits(stage: &mut Stage, total: u32, per_second: u32) {
    let name = format!("at most {total} invocations, and {per_second} a second, from now on");
    stage.recorder.fault_of(HIT, name, Excuse::None);
    let settings = QueueSettings {
        concurrency: Some(total),
        rate: Some(Rate { per_second, burst: None }),
        ..QueueSettings::default()
    };
    write_settings(stage, &settings).await;
}

/// Waits until each worker of the queue has its equal part of a total, and no other has any.
pub(crate) async fn total_is_divided(stage: &Stage, total: u32) {
    let workers = u32::try_from(stage.workers.len()).unwrap();
    until_in(WAIT_TIMEOUT, &format!("a total of {total} is divided"), async || {
        let key = stage.spec().queue.to_string();
        let shares = shares::read(&stage.js, &key).await.ok()?.shares.workers;
        let is_part = |slots| slots == total / workers || slots == total.div_ceil(workers);
        let is_divided = shares.len() == stage.workers.len()
            && shares.values().map(|share| share.slots).sum::<u32>() == total
            && shares.values().all(|share| is_part(share.slots) && share.rate <= WHOLE_RATE);
        is_divided.then_some(())
    })
    .await;
}

async fn write_settings(stage: &Stage, settings: &QueueSettings) {
    let spec = stage.spec();
    let entry = QueueEntry {
        settings: StoredSettings::new(settings).ok(),
        ..QueueEntry::new(&*spec.stream, &*spec.subject)
    };
    let queues = [(spec.queue.clone(), entry)].into();
    let directory = Directory { queues, ..Directory::default() };
    let store = DirectoryStore::open(&stage.js, 1).await.expect("the directory is there");
    store.sync(&directory).await.expect("the directory is written");
}

/// The fairness of the queue changes, as an operator changes it.
pub(crate) async fn change_fairness(stage: &mut Stage, to: Fairness) {
    stage.recorder.fault_of(HIT, format!("the fairness changes to {to}"), Excuse::BeginsRequeuing);
    let spec = QueueSpec { fairness: to, ..stage.spec().clone() };
    until_in(WAIT_TIMEOUT, "the fairness changes", async || {
        let step = switch_fairness(&stage.js, &spec).await.expect("NATS answers");
        matches!(step, SwitchStep::Done { forgotten: 0, .. }).then_some(())
    })
    .await;
    ensure_queue(&stage.js, &spec, false).await.expect("the queue is resumed");
    stage.specs[HIT] = spec;
    stage.recorder.fault_of(HIT, format!("the fairness is {to}"), Excuse::Ends);
}

/// The only nats-server stands still for longer than a lease.
pub(crate) async fn stop_nats(stage: &mut Stage) {
    stage.recorder.fault("nats-server is stopped", Excuse::Begins);
    stage.servers.one().pause().await;
    sleep(BEYOND_THE_LEASE).await;
    stage.servers.one().resume();
    stage.recorder.fault("nats-server goes on", Excuse::Ends);
}

/// No packet of a worker reaches NATS, nor the reverse, for longer than a lease.
pub(crate) async fn cut_workers_off(stage: &mut Stage) {
    let set_passing =
        |stage: &Stage, passes| stage.nats_cable.as_ref().unwrap().set_passing(passes);
    stage.recorder.fault("workers can't reach NATS", Excuse::Begins);
    set_passing(stage, false);
    sleep(BEYOND_THE_LEASE).await;
    set_passing(stage, true);
    stage.recorder.fault("workers reach NATS again", Excuse::Ends);
}

/// Somebody deletes the consumer, and it is created again. The new one knows nothing of what was
/// delivered.
pub(crate) async fn recreate_consumer(stage: &mut Stage) {
    stage.recorder.fault_of(HIT, "the consumer is deleted", Excuse::Begins);
    let spec = stage.spec();
    stage.js.delete_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    stage.recorder.fault_of(HIT, "what was delivered is forgotten", Excuse::Forgets);
    sleep(Duration::from_secs(1)).await;
    until("the consumer is there again", async || ensure_queue(&stage.js, spec, false).await.ok())
        .await;
    stage.recorder.fault_of(HIT, "the consumer is created again", Excuse::Ends);
}

/// A queue is deleted with all that is in it, and applied again.
pub(crate) async fn recreate_queue(stage: &mut Stage) {
    stage.recorder.fault_of(HIT, "the queue is deleted", Excuse::Begins);
    let spec = stage.spec();
    until("the queue is deleted", async || {
        remove_queue(&stage.js, spec, RemovalPolicy::Delete).await.ok()
    })
    .await;
    stage.recorder.fault_of(HIT, "the queue is gone with what was in it", Excuse::Deletes);
    until("the queue is there again", async || ensure_queue(&stage.js, spec, false).await.ok())
        .await;
    stage.recorder.fault_of(HIT, "the queue is applied again", Excuse::Ends);
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
    let (stream, consumer) = (stage.spec().stream.clone(), consumer_of(stage));
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

/// The server that leads the stream of calls is cut off from the others. Its clients still reach
/// it.
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
    let (js, stream) = (stage.js.clone(), stage.spec().stream.clone());
    stage.servers.three().stream_leader(&js, &stream).await
}

/// The consumer of calls, as the `JetStream` API names it.
pub(crate) fn consumer_of(stage: &Stage) -> String {
    format!("{}.{}", stage.spec().stream, stage.spec().durable)
}
