//! The endpoints for probes and metrics: `/healthz`, `/readyz` and `/metrics`, and those that a
//! program adds.

use std::{fmt::Write, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{health::Health, server};

/// Maximum number of connections. Probes and scrapes are few, and each of their connections takes
/// memory.
const MAX_CONNECTIONS: usize = 256;

/// Maximum time for a probe or a scrape that is running when the program ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The body of a response.
pub type Body = Full<Bytes>;

/// Content type of one or more lines of text.
pub const TEXT_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS_CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// An endpoint that a program adds.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<A> {
    /// Its path, as it is shown to users.
    pub path: &'static str,
    /// Answers a request with this method and path; `None` for the path of another endpoint.
    pub answer: A,
}

/// Listens on the address of a program's endpoints. The error names the address and the remedy.
pub fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    server::bind(addr)
}

/// Registers `asyncqueue_build_info`, whose label `version` is the version of this build.
pub fn register_build_info(registry: &mut Registry) {
    let info = Info::new(vec![("version", crate::VERSION)]);
    registry.register("asyncqueue_build", "The version that runs", info);
}

/// Serves the endpoints until `shutdown`. Pass a token that is cancelled when the program's work is
/// done, so that probes and scrapes are answered while it drains.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) {
    let none = Endpoint { path: "", answer: |_: &Method, _: &str| None };
    serve_with(listener, health, registry, none, shutdown).await;
}

/// Serves the endpoints as [`serve`] does, and one more.
pub async fn serve_with<A>(
    listener: TcpListener,
    health: Health,
    registry: Arc<Registry>,
    endpoint: Endpoint<A>,
    shutdown: CancellationToken,
) where
    A: Fn(&Method, &str) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
{
    let handler = move |_, request: Request<_>| {
        let (method, path) = (request.method(), request.uri().path());
        let response = (endpoint.answer)(method, path)
            .unwrap_or_else(|| answer(method, path, &health, &registry, endpoint.path));
        std::future::ready(response)
    };
    let config = server::Config { max_connections: MAX_CONNECTIONS, ..server::Config::default() };
    server::serve(listener, config, handler, shutdown, DRAIN_TIMEOUT).await;
}

/// Answers a probe. Returns `None` for any other path.
///
/// `/healthz` is 200 as long as the program serves. `/readyz` is 200 if the program is ready, and
/// otherwise 503 with one line `name: reason` for each condition that does not hold. For both, one
/// line for each warning follows.
#[must_use]
pub fn probe(method: &Method, path: &str, health: &Health) -> Option<Response<Body>> {
    let (status, body) = match path {
        "/healthz" | "/readyz" if !is_read(method) => return Some(method_not_allowed()),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(health),
        _ => return None,
    };
    Some(response(status, TEXT_CONTENT_TYPE, body))
}

fn answer(
    method: &Method,
    path: &str,
    health: &Health,
    registry: &Registry,
    added_path: &str,
) -> Response<Body> {
    if let Some(response) = probe(method, path, health) {
        return response;
    }
    match path {
        "/metrics" if !is_read(method) => method_not_allowed(),
        "/metrics" => metrics(registry),
        _ => {
            let paths = ["/healthz", "/readyz", "/metrics", added_path];
            let paths: Vec<_> = paths.into_iter().filter(|path| !path.is_empty()).collect();
            let body = format!("not found: this address serves {}\n", paths.join(", "));
            response(StatusCode::NOT_FOUND, TEXT_CONTENT_TYPE, body)
        }
    }
}

fn readiness(health: &Health) -> (StatusCode, String) {
    let (status, failing, mut lines) = match health.report() {
        Ok(()) => (StatusCode::OK, Vec::new(), "ok\n".to_owned()),
        Err(failing) => (StatusCode::SERVICE_UNAVAILABLE, failing, String::new()),
    };
    for (name, reason) in failing {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(lines, "{name}: {reason}");
    }
    for (name, warning) in health.warnings() {
        let _ = writeln!(lines, "warning: {name}: {warning}");
    }
    (status, lines)
}

fn metrics(registry: &Registry) -> Response<Body> {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        let body = "metrics can't be encoded\n".to_owned();
        return response(StatusCode::INTERNAL_SERVER_ERROR, TEXT_CONTENT_TYPE, body);
    }
    response(StatusCode::OK, OPEN_METRICS_CONTENT_TYPE, text)
}

/// Builds the response to a method other than GET and HEAD.
#[must_use]
pub fn method_not_allowed() -> Response<Body> {
    let body = "method not allowed: use GET\n".to_owned();
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT_CONTENT_TYPE, body);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn response(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Returns whether a method is GET or HEAD.
#[must_use]
pub fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    async fn get(path: &str, health: &Health, registry: &Registry) -> (u16, String) {
        let response = answer(&Method::GET, path, health, registry, "");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_program_that_is_not_ready_lives_and_says_why() {
        let (health, registry) = (Health::new(), Registry::default());
        assert_eq!(get("/readyz", &health, &registry).await, (200, "ok\n".to_owned()));
        health.register("nats", "waiting for NATS");
        health.register("directory", "not read yet");
        let lines = "directory: not read yet\nnats: waiting for NATS\n".to_owned();
        assert_eq!(get("/readyz", &health, &registry).await, (503, lines));
        assert_eq!(get("/healthz", &health, &registry).await.0, 200);
    }

    #[tokio::test]
    async fn a_program_with_a_warning_is_ready_and_says_it() {
        let (health, registry) = (Health::new(), Registry::default());
        health.set_warning("directory_file", Some("not valid".to_owned()));
        let warning = "warning: directory_file: not valid\n";
        assert_eq!(get("/readyz", &health, &registry).await, (200, format!("ok\n{warning}")));
        health.register("nats", "waiting for NATS");
        let lines = format!("nats: waiting for NATS\n{warning}");
        assert_eq!(get("/readyz", &health, &registry).await, (503, lines));
        health.set_warning("directory_file", None);
        health.ready("nats");
        assert_eq!(get("/readyz", &health, &registry).await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let mut registry = Registry::default();
        register_build_info(&mut registry);
        registry.sub_registry_with_prefix("gateway").register(
            "nats_reconnect",
            "Connections",
            Counter::<u64>::default(),
        );
        let response = answer(&Method::GET, "/metrics", &Health::new(), &registry, "");
        assert_eq!(response.headers()[header::CONTENT_TYPE], OPEN_METRICS_CONTENT_TYPE);
        let (_, text) = get("/metrics", &Health::new(), &registry).await;
        assert!(text.contains("gateway_nats_reconnect_total 0\n"), "{text}");
        assert!(text.contains("asyncqueue_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let (health, registry) = (Health::new(), Registry::default());
        assert_eq!(get("/", &health, &registry).await.0, 404);
        for path in ["/healthz", "/readyz", "/metrics"] {
            let response = answer(&Method::POST, path, &health, &registry, "");
            assert_eq!(response.status(), 405);
            assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        }
    }
}
