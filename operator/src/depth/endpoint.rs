//! The state of the endpoint: this operator counts the calls, or another one does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue::depth::Depth;
use asyncqueue_runtime::admin::{self, Body};
use http::{Method, Response};

use super::{answer, readings::DepthReadings};
use crate::{cache::watch::MultiStore, crd::AsyncQueue};

/// The path, as messages show it.
pub(crate) const DEPTH_PATH: &str = "/depth/<namespace>/<queue>";

const PREFIX: &str = "/depth";

/// The endpoint. Clones share their state.
#[derive(Clone)]
pub(crate) struct DepthEndpoint(Arc<Mutex<Source>>);

/// An operator that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The name under which it holds the Lease.
    pub(crate) name: String,
    /// Address of its HTTP endpoints; `None` if the Lease does not have it.
    pub(crate) address: Option<SocketAddr>,
}

/// Who knows the depths.
enum Source {
    /// No operator, for this reason.
    Unknown(String),
    /// Another operator.
    Standby(Leader),
    /// This operator.
    Leading { queues: MultiStore<AsyncQueue>, readings: DepthReadings },
}

// === impl DepthEndpoint ===

impl DepthEndpoint {
    /// Creates the endpoint of an operator that has just started.
    pub(crate) fn new() -> Self {
        let reason = "the operator has just started, and its cache of queues is not complete yet";
        Self(Arc::new(Mutex::new(Source::Unknown(reason.to_owned()))))
    }

    /// Records that no operator is known to lead.
    pub(crate) fn set_unknown(&self, reason: impl Into<String>) {
        self.set(Source::Unknown(reason.into()));
    }

    /// Records that another operator leads.
    pub(crate) fn set_standby(&self, leader: Leader) {
        self.set(Source::Standby(leader));
    }

    /// Records that this operator leads, with a complete cache of queues, and counts at this
    /// interval.
    pub(crate) fn set_leading(&self, queues: MultiStore<AsyncQueue>, interval: Duration) {
        self.set(Source::Leading { queues, readings: DepthReadings::new(interval) });
    }

    fn set(&self, source: Source) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// Records the depth of a queue. `at` is the time before NATS was asked.
    pub(crate) fn record(&self, queue: &AsyncQueue, depth: Depth, at: Instant) {
        self.update(|readings| readings.record(queue, depth, at));
    }

    /// Records that all of these queues were visited, and when they will be visited again.
    pub(crate) fn end_round<'a>(
        &self,
        queues: impl IntoIterator<Item = &'a AsyncQueue>,
        interval: Duration,
    ) {
        self.update(|readings| readings.end_round(queues, interval));
    }

    fn update(&self, change: impl FnOnce(&mut DepthReadings)) {
        if let Source::Leading { readings, .. } =
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        {
            change(readings);
        }
    }

    /// Answers a request for a depth; `None` if the path is not one of this endpoint.
    pub(crate) fn answer(&self, method: &Method, path: &str) -> Option<Response<Body>> {
        self.answer_at(method, path, Instant::now())
    }

    fn answer_at(&self, method: &Method, path: &str, now: Instant) -> Option<Response<Body>> {
        let rest = path.strip_prefix(PREFIX)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        if !admin::is_read(method) {
            return Some(admin::method_not_allowed());
        }
        let Some((namespace, name)) = rest.strip_prefix('/').and_then(split_name) else {
            return Some(answer::no_such_path());
        };
        Some(match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Source::Unknown(reason) => answer::unavailable(reason),
            Source::Standby(Leader { address: Some(address), .. }) => {
                answer::redirect(*address, path)
            }
            Source::Standby(Leader { name, address: None }) => answer::unavailable(&format!(
                "this operator is a standby, and the Lease does not have the address of the leader \
                 {name}: set POD_IP for its container, as manifests/base/operator.yaml does"
            )),
            Source::Leading { queues, readings } => match queues.get(namespace, name) {
                Some(queue) => answer::depth(namespace, name, readings.find(&queue, now)),
                None => answer::no_queue(namespace, name),
            },
        })
    }
}

/// Splits `<namespace>/<queue>`.
fn split_name(path: &str) -> Option<(&str, &str)> {
    let (namespace, name) = path.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use http::header;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures;

    const DEPTH: Depth = Depth { waiting: 3, running: 2, retrying: 1, scheduled: 4 };
    const INTERVAL: Duration = Duration::from_secs(5);

    /// Returns the status and the body of the response.
    async fn get(endpoint: &DepthEndpoint, path: &str, now: Instant) -> (u16, String) {
        let response = endpoint.answer_at(&Method::GET, path, now).unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn leading(queues: impl IntoIterator<Item = AsyncQueue>) -> DepthEndpoint {
        let endpoint = DepthEndpoint::new();
        endpoint.set_leading(MultiStore::from_objects(queues), INTERVAL);
        endpoint
    }

    #[tokio::test]
    async fn a_recent_depth_is_json_with_its_parts_and_its_age() {
        let (queue, start) = (fixtures::queue("jobs"), Instant::now());
        let endpoint = leading([queue.clone()]);
        endpoint.record(&queue, DEPTH, start);
        let now = start + Duration::from_millis(2_340);
        let (status, body) = get(&endpoint, "/depth/openfaas/jobs", now).await;
        let expected = json!({
            "namespace": "openfaas", "queue": "jobs",
            "depth": 6, "waiting": 3, "running": 2, "retrying": 1, "scheduled": 4,
            "ageSeconds": 2.3,
        });
        assert_eq!(status, 200, "{body}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_depth_that_is_not_recent_is_not_given() {
        let (queue, start) = (fixtures::queue("jobs"), Instant::now());
        let endpoint = leading([queue.clone()]);
        let (status, body) = get(&endpoint, "/depth/openfaas/jobs", start).await;
        assert_eq!(status, 503);
        assert!(body.contains("openfaas/jobs are not counted yet"), "{body}");
        endpoint.record(&queue, DEPTH, start);
        let late = start + INTERVAL * 3;
        let (status, body) = get(&endpoint, "/depth/openfaas/jobs", late).await;
        assert_eq!(status, 503);
        assert!(body.contains("last counted 15 s ago"), "{body}");
        assert!(body.contains("kubectl describe asyncqueue jobs -n openfaas"), "{body}");
    }

    #[tokio::test]
    async fn an_unknown_queue_is_not_found() {
        let endpoint = leading([fixtures::queue("jobs")]);
        for path in ["/depth/openfaas/other", "/depth/default/jobs"] {
            let (status, body) = get(&endpoint, path, Instant::now()).await;
            assert_eq!(status, 404, "{path}");
            assert!(body.starts_with("there is no AsyncQueue"), "{body}");
        }
        for path in ["/depth", "/depth/", "/depth/jobs", "/depth//jobs", "/depth/a/", "/depth/a/b/"]
        {
            let (status, body) = get(&endpoint, path, Instant::now()).await;
            assert_eq!((status, &*body), (404, "not found: use GET /depth/<namespace>/<queue>\n"));
        }
        for path in ["/", "/depths/a/b", "/metrics"] {
            assert!(endpoint.answer(&Method::GET, path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_depth_is_only_read() {
        let endpoint = leading([fixtures::queue("jobs")]);
        let response = endpoint.answer(&Method::POST, "/depth/openfaas/jobs").unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn a_standby_redirects_to_the_leader() {
        let endpoint = DepthEndpoint::new();
        let (path, now) = ("/depth/openfaas/jobs", Instant::now());
        let (status, body) = get(&endpoint, path, now).await;
        assert_eq!(status, 503);
        assert!(body.contains("just started"), "{body}");

        let name = "operator-a".to_owned();
        let address = "[fd00::7]:8083".parse().ok();
        endpoint.set_standby(Leader { name: name.clone(), address });
        let response = endpoint.answer(&Method::GET, path).unwrap();
        assert_eq!(response.status().as_u16(), 307);
        assert_eq!(response.headers()["location"], "http://[fd00::7]:8083/depth/openfaas/jobs");

        endpoint.set_standby(Leader { name, address: None });
        let (status, body) = get(&endpoint, path, now).await;
        assert_eq!(status, 503);
        assert!(body.contains("operator-a") && body.contains("POD_IP"), "{body}");

        endpoint.set_unknown("the Lease could not be read");
        let (status, body) = get(&endpoint, path, now).await;
        assert_eq!((status, &*body), (503, "the Lease could not be read\n"));
    }
}
