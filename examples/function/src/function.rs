//! Answers calls.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use asyncqueue_runtime::server;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    attempts::Attempts,
    behaviour::Behaviour,
    callbacks::{Callbacks, request_json},
    settings::Settings,
};

/// Maximum size of a body, in bytes: the response repeats it, so it is held in memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Maximum time for calls that run when the function is stopped: as long as its platform allows.
const DRAIN: Duration = Duration::from_secs(3600);

type Answer = Response<Full<Bytes>>;

#[derive(Debug)]
struct Function {
    sleep: Duration,
    attempts: Attempts,
    callbacks: Callbacks,
}

/// The log line of a call, written when the call ends: answered, or dropped because the client
/// disconnected.
struct Line {
    call_id: Option<String>,
    attempt: Option<String>,
    started: Instant,
    status: Option<StatusCode>,
}

/// Runs the function until `shutdown`.
pub(crate) async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Settings { log: _, address, port, sleep } = settings;
    let listener = server::bind(SocketAddr::new(address, port))?;
    info!("listening on {}", listener.local_addr()?);
    let function = Arc::new(Function {
        sleep: sleep.0,
        attempts: Attempts::default(),
        callbacks: Callbacks::default(),
    });
    let handler = move |_, request| function.clone().answer(request);
    // So that the cancellation of a call is noticed.
    let config = server::Config {
        half_closed_wait: Duration::from_millis(100),
        ..server::Config::default()
    };
    server::serve(listener, config, handler, shutdown, DRAIN).await;
    Ok(())
}

// === impl Function ===

impl Function {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
            (&Method::GET, "/callbacks") => json(self.callbacks.lines()),
            _ => {
                let mut line = Line::begin(request.headers());
                let answer = self
                    .call(request)
                    .await
                    .unwrap_or_else(|error| text(StatusCode::BAD_REQUEST, format!("{error}\n")));
                line.status = Some(answer.status());
                answer
            }
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Answer, String> {
        let (head, body) = request.into_parts();
        let query = head.uri.query();
        let behaviour = Behaviour::parse(query.unwrap_or_default(), self.sleep)?;
        let path = head.uri.path();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        if path.starts_with("/callback/") {
            self.callbacks.record(path, &head.headers, &body);
        }
        tokio::time::sleep(behaviour.sleep).await;

        let call_id = header_text(&head.headers, "x-call-id").unwrap_or_default();
        if behaviour.fail_times.is_some() && call_id.is_empty() {
            return Err("fail_times counts by X-Call-Id: send one".to_owned());
        }
        let status = behaviour.status(self.attempts.failures(&call_id));
        if status.is_client_error() || status.is_server_error() {
            self.attempts.failed(&call_id);
            let mut answer = text(status, format!("failed with {status}, as asked\n"));
            let retry_after =
                behaviour.retry_after.and_then(|value| HeaderValue::try_from(value).ok());
            if let Some(retry_after) = retry_after {
                answer.headers_mut().insert(header::RETRY_AFTER, retry_after);
            }
            return Ok(answer);
        }
        let mut answer = if behaviour.echo_request {
            json(format!("{}\n", request_json(&head.method, path, query, &head.headers, &body)))
        } else {
            let mut answer = Response::new(Full::from(body));
            if let Some(content_type) = head.headers.get(header::CONTENT_TYPE) {
                answer.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
            }
            answer
        };
        *answer.status_mut() = status;
        Ok(answer)
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn json(body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

// === impl Line ===

impl Line {
    fn begin(headers: &HeaderMap) -> Self {
        Self {
            call_id: header_text(headers, "x-call-id"),
            attempt: header_text(headers, "x-attempt"),
            started: Instant::now(),
            status: None,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { call_id, attempt, started, status } = self;
        let seconds = started.elapsed().as_secs_f64();
        let status = status.map(|status| status.as_u16());
        let end = if status.is_some() { "called" } else { "the caller went away" };
        info!(call_id, attempt, status, seconds, "{end}");
    }
}
