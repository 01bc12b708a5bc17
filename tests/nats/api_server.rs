//! An API server of Kubernetes that has one AsyncQueue and nothing else, for an operator without a
//! cluster. It takes what the operator writes, and nothing of it changes what it has.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use test_support::{
    http::{Answer, HttpServer, Received, respond},
    program::Program,
};

use crate::support::start_operator;

/// Where the API server has all `AsyncQueues`, and those of a namespace.
const QUEUES: &str = "/apis/asyncqueue.io/v1alpha1/asyncqueues";
const NAMESPACED_QUEUES: &str = "/apis/asyncqueue.io/v1alpha1/namespaces/openfaas/asyncqueues/";

/// The API server.
pub(crate) struct ApiServer {
    http: HttpServer,
}

impl ApiServer {
    /// One that has the queue `jobs` with this status.
    pub(crate) async fn start(status: Value) -> Self {
        Self::withholding("", status).await
    }

    /// The same with this spec, for a queue that owns its stream.
    pub(crate) async fn with_spec(spec: Value) -> Self {
        Self::serving("", spec, json!({ "stream": "jobs" })).await
    }

    /// The same, which never answers what is asked about these resources.
    pub(crate) async fn withholding(resource: &'static str, status: Value) -> Self {
        Self::serving(resource, json!({}), status).await
    }

    async fn serving(withheld: &'static str, spec: Value, status: Value) -> Self {
        let queue = Arc::new(json!({
            "apiVersion": "asyncqueue.io/v1alpha1",
            "kind": "AsyncQueue",
            "metadata": {
                "name": "jobs",
                "namespace": "openfaas",
                "uid": "6d1c2f0e-0000-4000-8000-000000000001",
                "resourceVersion": "1",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "finalizers": ["asyncqueue.io/stream"],
            },
            "spec": spec,
            "status": status,
        }));
        Self {
            http: HttpServer::answering(move |request| answer(&request, withheld, &queue)).await,
        }
    }

    /// An operator that has this API server, with these settings.
    pub(crate) fn operator(&self, settings: &[(&str, &str)]) -> (Program, NamedTempFile) {
        start_operator(&self.http.url(), &[&[("default_queue", "")][..], settings].concat())
    }

    /// The statuses that were written, each as far as it changed.
    pub(crate) fn statuses(&self) -> Vec<Value> {
        let received = self.http.received().into_iter();
        let written = received.filter(|request| {
            request.target.starts_with(NAMESPACED_QUEUES) && request.target.contains("/status")
        });
        written
            .map(|request| serde_json::from_slice::<Value>(&request.body).unwrap()["status"].take())
            .collect()
    }

    /// The events that were created.
    pub(crate) fn events(&self) -> Vec<Value> {
        let received = self.http.received().into_iter();
        let created =
            received.filter(|request| is_event(request) && request.method == Method::POST);
        created.map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
    }
}

fn is_event(request: &Received) -> bool {
    request.target.starts_with("/apis/events.k8s.io/v1/namespaces/")
}

fn answer(request: &Received, withheld: &str, queue: &Value) -> Answer {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let resource = path.rsplit('/').next().unwrap_or_default();
    let is_list = !path.contains("/namespaces/");
    match request.method {
        // A watch, in which nothing happens.
        Method::GET if query.contains("watch=true") || resource == withheld => {
            Box::pin(std::future::pending())
        }
        Method::GET if path == QUEUES => respond(200, &list(&[queue]).to_string()),
        // OpenFaaS is not installed.
        Method::GET if is_list && resource != "functions" => respond(200, &list(&[]).to_string()),
        Method::GET => respond(404, &not_found().to_string()),
        _ if path.starts_with(NAMESPACED_QUEUES) => respond(200, &queue.to_string()),
        _ => respond(201, std::str::from_utf8(&request.body).unwrap()),
    }
}

fn list(items: &[&Value]) -> Value {
    let metadata = json!({ "resourceVersion": "1" });
    json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items })
}

fn not_found() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": "the server could not find the requested resource",
        "reason": "NotFound", "code": 404,
    })
}
