//! What the benchmarks have in common: a queue that takes calls, the programs before and behind it,
//! and numbers for people. [`load`] sends requests, [`dispatch`] measures what takes calls,
//! [`report`] turns what the benchmarks print into docs/bench.md.

// A benchmark that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_nats::jetstream::{Context, consumer::PullConsumer, context::PublishAckFuture};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    directory::{Directory, FunctionEntry, QueueEntry, store::DirectoryStore},
    lanes::{Fairness, ensure_lane},
    message::native,
    stream::{Owner, QueueSpec, ensure_buckets, ensure_queue},
    subject::call_subject,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use test_support::{
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    raw,
    wait::{WAIT_TIMEOUT, until, until_in},
};
use tokio::net::TcpListener;

pub mod dispatch;
pub mod load;
pub mod report;

/// The queue's name.
pub const QUEUE: &str = "jobs";
/// The function's name.
pub const FUNCTION: &str = "bench";

/// Publishes on their way at once, where a stream is filled.
const FILLING: usize = 512;

/// The queue `jobs` on a nats-server of its own, with file storage.
#[derive(Debug)]
pub struct Queue {
    /// The server.
    pub nats: NatsServer,
    /// A connection to it.
    pub js: Context,
    /// The queue as it was made.
    pub spec: QueueSpec,
}

impl Queue {
    /// A queue that is empty.
    pub async fn start() -> Self {
        Self::start_on(NatsServer::start().await).await
    }

    /// The same on a server that runs.
    pub async fn start_on(nats: NatsServer) -> Self {
        Self::start_on_with(nats, Fairness::default()).await
    }

    /// A queue that is empty, with this fairness.
    pub async fn start_with(fairness: Fairness) -> Self {
        Self::start_on_with(NatsServer::start().await, fairness).await
    }

    async fn start_on_with(nats: NatsServer, fairness: Fairness) -> Self {
        let mut js = nats.jetstream().await;
        // So many publishes at once take a slow disk longer than the client waits by itself.
        js.set_timeout(WAIT_TIMEOUT);
        let owner = Owner { name: format!("bench/{QUEUE}"), uid: "1".to_owned() };
        let spec = QueueSpec { fairness, ..QueueSpec::new(QUEUE.parse().expect("a name"), owner) };
        ensure_queue(&js, &spec, false).await.expect("the streams are made");
        ensure_buckets(&js, 1).await.expect("the buckets are made");
        // A million calls that wait are the most by default, and a benchmark adds to them.
        let mut config = spec.stream_config();
        config.max_messages = -1;
        js.update_stream(config).await.expect("the stream takes more");
        Self { nats, js, spec }
    }

    /// Stores so many calls.
    pub async fn fill(&self, calls: usize, body: &Bytes) {
        self.fill_with(calls, || call(body.clone())).await;
    }

    /// Stores so many calls that are as this says.
    pub async fn fill_with(&self, calls: usize, next: impl Fn() -> Invocation) {
        futures::stream::iter(0..calls)
            .map(async |_| self.publish(&next()).await.await.expect("a call is stored"))
            .buffer_unordered(FILLING)
            .for_each(|_| std::future::ready(()))
            .await;
    }

    /// Scales a function to zero, as an operator writes it into the directory.
    pub async fn scale_to_zero(&self, function: &FunctionName) {
        let mut directory = Directory::default();
        let entry = FunctionEntry { scaled_to_zero: true, ..FunctionEntry::default() };
        directory.functions.insert(function.clone(), entry);
        let store = DirectoryStore::open(&self.js, 1).await.expect("the directory is there");
        store.sync(&directory).await.expect("the directory is written");
    }

    /// Sends a call to the stream, and returns what waits for the stream's word.
    pub async fn publish(&self, call: &Invocation) -> PublishAckFuture {
        let subject = call_subject(&self.spec.subject, &call.function, &call.call_id);
        let sent =
            self.js.publish_with_headers(subject, native::encode(call), call.body.clone()).await;
        sent.expect("a call is sent")
    }

    /// Makes the directory one of so many queues with a function each. Calls go to one of them,
    /// that the rate be the gateway's and not that of a broker with as many streams.
    pub async fn fill_directory(&self, queues: usize) {
        let mut directory = Directory::default();
        for number in 0..queues {
            let (queue, function) = match number {
                0 => (QUEUE.to_owned(), FUNCTION.to_owned()),
                _ => (format!("queue-{number}"), format!("function-{number}")),
            };
            let name: QueueName = queue.parse().expect("a name");
            let function = FunctionName::new(&function, "openfaas-fn").expect("a name");
            let entry = FunctionEntry { queue: Some(name.clone()), ..FunctionEntry::default() };
            directory.functions.insert(function, entry);
            let entry = QueueEntry::new(queue.clone(), queue);
            directory.queues.insert(name, entry);
        }
        let store = DirectoryStore::open(&self.js, 1).await.expect("the directory is there");
        store.sync(&directory).await.expect("the directory is written");
    }

    /// A gateway before it, once there is a directory, that is ready; and where that listens.
    pub async fn gateway(&self) -> (SocketAddr, Program) {
        self.gateway_with(&[]).await
    }

    /// The same with more settings.
    pub async fn gateway_with(&self, more: &[(&str, &str)]) -> (SocketAddr, Program) {
        let (addr, url) = (free_addr(), self.nats.url());
        let (http, metrics) = (addr.to_string(), free_addr().to_string());
        let settings = [
            ("nats_url", &url[..]),
            ("http_addr", &http),
            ("metrics_addr", &metrics),
            ("default_queue", QUEUE),
            ("log_encoding", "json"),
        ];
        let settings = [&settings, more].concat();
        let program = Program::start_unheard("asyncqueue-gateway", &settings);
        until("the gateway is ready", async || {
            let answer = raw::try_request(addr, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        (addr, program)
    }

    /// A worker behind it, that makes so many calls at once of a function at a URL.
    #[must_use]
    pub fn worker(&self, function_url: &str, in_flight: usize) -> Program {
        let (url, admin) = (self.nats.url(), free_addr().to_string());
        let in_flight = in_flight.to_string();
        Program::start_unheard(
            "asyncqueue-worker",
            &[
                ("nats_url", &url),
                ("queue_name", QUEUE),
                ("function_url", function_url),
                ("http_addr", &admin),
                ("max_inflight", &in_flight),
                ("log_encoding", "json"),
            ],
        )
    }

    /// Ensures the lane of a function, if the queue has lanes.
    pub async fn ensure_lane(&self, function: &FunctionName) {
        if self.spec.fairness == Fairness::Function {
            let entry = QueueEntry::new(&*self.spec.stream, &*self.spec.subject);
            let route = entry.route_of_unknown_fairness(self.spec.queue.clone());
            let ensured = ensure_lane(&self.js, &route, function).await;
            ensured.expect("the lane is there");
        }
    }

    /// Takes all calls away.
    pub async fn purge(&self) {
        let stream = self.js.get_stream(&self.spec.stream).await.expect("the stream is there");
        stream.purge().await.expect("the stream is emptied");
    }

    /// How many calls the stream holds.
    pub async fn messages(&self) -> Option<u64> {
        Some(self.js.get_stream(&self.spec.stream).await.ok()?.cached_info().state.messages)
    }

    /// Waits until the stream holds no more calls than these.
    pub async fn empties(&self, stay: u64) {
        until_in(dispatch::WAIT_TIMEOUT, "the queue is empty", async || {
            (self.messages().await? <= stay).then_some(())
        })
        .await;
    }

    /// How many requests for calls are open.
    pub async fn open_requests(&self) -> Option<usize> {
        let name = format!("{QUEUE}-workers");
        let consumer: PullConsumer =
            self.js.get_consumer_from_stream(name, &self.spec.stream).await.ok()?;
        Some(consumer.cached_info().num_waiting)
    }
}

/// Serves functions at a port of its own for as long as the benchmark runs. Returns their URL.
///
/// # Errors
///
/// There is no port.
pub async fn start_functions<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> std::io::Result<String>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve(listener, answer));
    Ok(url)
}

/// Serves functions for as long as the benchmark runs. Not by the server of the programs, which has
/// a limit of connections.
///
/// # Errors
///
/// A connection can't be accepted.
async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> std::io::Result<()>
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request| answer(request).map(Ok::<_, Infallible>));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A call of the function, with an id that no other has.
#[must_use]
pub fn call(body: Bytes) -> Invocation {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let function = FunctionName::new(FUNCTION, "openfaas-fn").expect("a name");
    Invocation::new(CallId::from_sequence(NEXT.fetch_add(1, Ordering::Relaxed)), function, body)
}

/// An address on loopback without a listener.
#[must_use]
pub fn free_addr() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// The one in the middle; of an even number the upper of two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The time, in milliseconds, that so many of a hundred did not exceed.
#[must_use]
pub fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

/// So many a second.
#[must_use]
#[allow(clippy::cast_precision_loss)] // far below what an f64 holds
pub fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Bytes in millions.
#[must_use]
#[allow(clippy::cast_precision_loss)] // far below what an f64 holds
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_count_them() {
        let mut times: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        assert!((percentile(&mut times, 99) - 99.0).abs() < 1e-9);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((per_second(500, Duration::from_millis(250)) - 2000.0).abs() < 1e-9);
        assert!((megabytes(2_500_000) - 2.5).abs() < 1e-9);
    }
}
