//! How many lanes there may be: beyond, functions share one, and the operator says so.

use std::sync::Arc;

use asyncqueue::{
    directory::{Directory, watch::read_current},
    lanes::{LaneOutcome, ensure_lane},
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use test_support::{
    http::HttpServer,
    loopback::free_port,
    nats::{ANSWER_TIMEOUT, NatsServer},
    program::Program,
    wait::{until, until_in},
};

use crate::{
    api_server::ApiServer,
    lanes::{SWEPT, function},
    support::{Queue, spec},
};

/// A queue of an operator with this setting.
pub(crate) struct Operated {
    pub(crate) queue: Queue,
    pub(crate) api: ApiServer,
    _operator: Program,
    _kubeconfig: NamedTempFile,
}

impl Operated {
    async fn start(setting: (&str, &str)) -> Self {
        Self::with_spec(json!({ "fairness": "Function" }), setting).await
    }

    pub(crate) async fn with_spec(spec_of_queue: Value, setting: (&str, &str)) -> Self {
        let nats = NatsServer::start().await;
        let queue = Queue { js: nats.jetstream().await, spec: spec(), nats };
        let (url, address) = (queue.nats.url(), format!("127.0.0.1:{}", free_port()));
        let api = ApiServer::with_spec(spec_of_queue).await;
        let settings = [("nats_url", url.as_str()), ("http_addr", &address), setting];
        let (operator, kubeconfig) = api.operator(&settings);
        until("the queue has its consumer", async || {
            let stream = queue.js.get_stream("jobs").await.ok()?;
            stream.consumer_info(&queue.spec.durable).await.ok()
        })
        .await;
        Self { queue, api, _operator: operator, _kubeconfig: kubeconfig }
    }

    /// The condition that functions share a lane, in the status that was written last.
    fn lanes_shared(&self) -> Option<Value> {
        let mut written = self.api.statuses().into_iter().rev();
        let status = written.find(|status| status["conditions"].is_array())?;
        let conditions = status["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == "LanesShared").cloned()
    }

    async fn directory(&self) -> Arc<Directory> {
        read_current(&self.queue.js, ANSWER_TIMEOUT).await
    }
}

#[tokio::test]
async fn functions_beyond_the_setting_share_a_lane_and_it_is_said() {
    let operated = Operated::start(("max_lanes_per_queue", "2")).await;
    let queue = &operated.queue;
    for name in ["a", "b", "c", "d", "e"] {
        queue.publish_to(name).await;
    }
    let condition = until_in(SWEPT * 2, "it is said", async || operated.lanes_shared()).await;
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("True"), &json!("MaxLanesPerQueue"))
    );
    until_in(SWEPT, "the status counts lanes", async || {
        let statuses = operated.api.statuses();
        statuses.iter().any(|status| status["lanes"] == 3).then_some(())
    })
    .await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.starts_with("Functions: 3 share lanes (1)"), "{message}");
    assert!(message.contains("max_lanes_per_queue of the operator is 2"), "{message}");
    let own = ["a", "b"].map(|name| format!("jobs-fn-openfaas-fn={name}"));
    assert_eq!(queue.lane_names().await, ["jobs-fn-=1", &own[0], &own[1]]);
    // Programs that store calls know the setting by the directory.
    let directory = operated.directory().await;
    assert_eq!(directory.queues[&queue.spec.queue].max_lanes, Some(2));
    let route = directory.route(&function("late"), &queue.spec.queue);
    let outcome = ensure_lane(&queue.js, &route, &function("late")).await.unwrap();
    assert_eq!(outcome, LaneOutcome::AtMaximum);

    let server = HttpServer::start().await;
    let _worker = queue.worker(&server, &[]);
    server.receives(5).await;
    queue.empties().await;
    // As the sweep does after a minute without a call.
    queue.js.get_stream("jobs").await.unwrap().delete_consumer("jobs-fn-=1").await.unwrap();
    until_in(SWEPT, "it is said no more", async || operated.lanes_shared().is_none().then_some(()))
        .await;
}

#[tokio::test]
async fn a_full_installation_leaves_new_functions_to_the_sweep() {
    let operated = Operated::start(("max_lanes", "2")).await;
    let queue = &operated.queue;
    for name in ["a", "b"] {
        queue.publish_to(name).await;
        assert_eq!(queue.ensure_lane(name).await, LaneOutcome::Created);
    }
    let late = function("late");
    let route = until_in(SWEPT, "programs know that it is full", async || {
        let route = operated.directory().await.route(&late, &queue.spec.queue);
        (route.max_lanes == 0).then_some(route)
    })
    .await;
    queue.publish_to("late").await;
    let outcome = ensure_lane(&queue.js, &route, &late).await.unwrap();
    assert_eq!(outcome, LaneOutcome::AtMaximum);
    // A function that has a lane keeps it.
    let outcome = ensure_lane(&queue.js, &route, &function("a")).await.unwrap();
    assert_eq!(outcome, LaneOutcome::Exists);

    let server = HttpServer::start().await;
    let _worker = queue.worker(&server, &[]);
    until_in(SWEPT, "all calls run", async || (server.received().len() == 3).then_some(())).await;
    let condition = until("it is said", async || operated.lanes_shared()).await;
    assert_eq!(condition["reason"], "MaxLanes");
    // Lanes that are gone make room.
    let stream = queue.js.get_stream("jobs").await.unwrap();
    queue.empties().await;
    for name in queue.lane_names().await {
        stream.delete_consumer(&name).await.unwrap();
    }
    until_in(SWEPT, "programs know of the room", async || {
        let route = operated.directory().await.route(&late, &queue.spec.queue);
        (route.max_lanes == 90).then_some(())
    })
    .await;
}
