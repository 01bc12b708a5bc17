//! The responses of the endpoint. Pure.

use std::{net::SocketAddr, time::Duration};

use asyncqueue::depth::Depth;
use asyncqueue_runtime::admin::{Body, TEXT_CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::readings::Known;

/// The depth of a queue as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DepthReport<'a> {
    namespace: &'a str,
    queue: &'a str,
    /// The sum of the next three; at least 1 while calls are scheduled.
    depth: u64,
    waiting: u64,
    running: u64,
    retrying: u64,
    scheduled: u64,
    /// Time since the calls were counted, in seconds.
    age_seconds: f64,
}

/// Returns the response for an existing queue.
pub(super) fn depth(namespace: &str, queue: &str, known: Known) -> Response<Body> {
    let name = format!("{namespace}/{queue}");
    let cause = format!(
        "The condition StreamReady of the queue has the cause: \
         kubectl describe asyncqueue {queue} -n {namespace}"
    );
    match known {
        Known::Recent(depth, age) => report(namespace, queue, depth, age),
        Known::Outdated(age) => unavailable(&format!(
            "the calls of the queue {name} were last counted {} s ago, which is too long. {cause}",
            age.as_secs()
        )),
        Known::Never => {
            unavailable(&format!("the calls of the queue {name} are not counted yet. {cause}"))
        }
    }
}

fn report(namespace: &str, queue: &str, depth: Depth, age: Duration) -> Response<Body> {
    let Depth { waiting, running, retrying, scheduled } = depth;
    let report = DepthReport {
        namespace,
        queue,
        depth: depth.for_scaling(),
        waiting,
        running,
        retrying,
        scheduled,
        // Tenths of a second, as humans read it.
        age_seconds: (age.as_secs_f64() * 10.0).round() / 10.0,
    };
    match serde_json::to_string(&report) {
        Ok(json) => {
            let json_type = HeaderValue::from_static("application/json");
            response(StatusCode::OK, json_type, format!("{json}\n"))
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Returns the response for a queue that does not exist.
pub(super) fn no_queue(namespace: &str, queue: &str) -> Response<Body> {
    text(
        StatusCode::NOT_FOUND,
        &format!(
            "there is no AsyncQueue {queue} in the namespace {namespace}, or the operator does not \
             watch that namespace (watch_namespaces)"
        ),
    )
}

/// Returns the response for a path that names no queue.
pub(super) fn no_such_path() -> Response<Body> {
    text(StatusCode::NOT_FOUND, &format!("not found: use GET {}", super::DEPTH_PATH))
}

/// Returns the response while the depth is not known.
pub(super) fn unavailable(reason: &str) -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, reason)
}

/// Returns the redirect to the leader.
pub(super) fn redirect(leader: SocketAddr, path: &str) -> Response<Body> {
    let location = format!("http://{leader}{path}");
    let Ok(value) = HeaderValue::from_str(&location) else { return no_such_path() };
    let mut response = text(
        StatusCode::TEMPORARY_REDIRECT,
        &format!("this operator is a standby: the leader answers at {location}"),
    );
    response.headers_mut().insert(header::LOCATION, value);
    response
}

fn text(status: StatusCode, line: &str) -> Response<Body> {
    response(status, TEXT_CONTENT_TYPE, format!("{line}\n"))
}

fn response(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    // A cache in between must not make a number older than it says.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
