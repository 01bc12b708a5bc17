//! An HTTP server that records requests and answers as the test sets it: a function, or the
//! receiver of callbacks.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use asyncqueue_runtime::server;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{loopback, wait::until};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// When its body was complete.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Path and query, as they were sent.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer in the making.
pub type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// A server on loopback, ended when it is dropped.
#[derive(Debug)]
pub struct HttpServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _running: DropGuard,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Received>,
    running: usize,
    most_running: usize,
}

/// Counts a request as running until it is answered or its connection is closed.
struct Running(Arc<Mutex<State>>);

impl HttpServer {
    /// A server that answers 200 and says so.
    pub async fn start() -> Self {
        Self::answering(|_| respond(200, "ok")).await
    }

    /// A server that answers as `answer` says.
    pub async fn answering(
        answer: impl Fn(Received) -> Answer + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(loopback::at(0)).await.expect("a free port");
        let addr = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State::default()));
        let handler = {
            let state = state.clone();
            move |_, request: Request<Incoming>| handle(request, state.clone(), answer.clone())
        };
        let shutdown = CancellationToken::new();
        let config = server::Config {
            // More than NATS stores, for what is posted past it.
            max_header_bytes: 64 * 1024,
            // A function sees at once that its client is gone.
            half_closed_wait: Duration::from_millis(10),
            ..server::Config::default()
        };
        tokio::spawn(server::serve(listener, config, handler, shutdown.clone(), Duration::ZERO));
        Self { addr, state, _running: shutdown.drop_guard() }
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it has received so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().expect("no handler panicked").received.clone()
    }

    /// Waits until it has received `count` requests.
    pub async fn receives(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} requests received");
        until(&what, async || Some(self.received()).filter(|received| received.len() >= count))
            .await
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn running(&self) -> usize {
        self.state.lock().expect("no handler panicked").running
    }

    /// The most requests that were being answered at once.
    #[must_use]
    pub fn most_running(&self) -> usize {
        self.state.lock().expect("no handler panicked").most_running
    }
}

impl Received {
    /// A header's value; empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().expect("no handler panicked").running -= 1;
    }
}

async fn handle(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    answer: impl Fn(Received) -> Answer,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("the body arrives").to_bytes();
    let received = Received {
        at: Instant::now(),
        method: parts.method,
        target: parts.uri.to_string(),
        headers: parts.headers,
        body,
    };
    let _running = {
        let mut now = state.lock().expect("no handler panicked");
        now.received.push(received.clone());
        now.running += 1;
        now.most_running = now.most_running.max(now.running);
        Running(state.clone())
    };
    answer(received).await
}

/// An answer at once.
#[must_use]
pub fn respond(status: u16, body: &str) -> Answer {
    respond_after(Duration::ZERO, status, body)
}

/// An answer after a while.
#[must_use]
pub fn respond_after(delay: Duration, status: u16, body: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        Response::builder()
            .status(status)
            .header("x-mine", "1")
            .body(Full::new(body))
            .expect("a response")
    })
}
