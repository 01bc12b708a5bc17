//! Real programs under load: a gateway, two queues with three workers, functions that are fast,
//! slow, busy and broken, and receivers of callbacks that work and do not. The operator has a NATS
//! of its own and a substitute for the API server, because there is no cluster.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tempfile::NamedTempFile;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::{at, free_port},
    nats::NatsServer,
    program::Program,
};
use tokio::time::{Instant, interval};

use super::prometheus::Prometheus;
use crate::{api_server::ApiServer, gateway::Gateway, support::start_worker};

/// Namespace of all pods.
const NAMESPACE: &str = "openfaas";

/// How often the load decides which calls to submit.
const TICK: Duration = Duration::from_millis(50);
/// Period of the load: calls come in waves.
const WAVE: Duration = Duration::from_secs(180);

/// The programs, ended when this is dropped.
pub(super) struct Stage {
    pub(super) prometheus: Prometheus,
    gateway: Gateway,
    receivers: [HttpServer; 2],
    _programs: Vec<Program>,
    _servers: Vec<HttpServer>,
    _nats: [NatsServer; 2],
    _operator: (ApiServer, NamedTempFile),
}

/// A function of the load.
struct Function {
    name: &'static str,
    /// Calls in a second, between the waves and at their top.
    rates: (f64, f64),
    /// Which part of its calls wants a callback, of one.
    callbacks: f64,
}

const FUNCTIONS: [Function; 5] = [
    Function { name: "mail", rates: (3.0, 10.0), callbacks: 0.3 },
    Function { name: "thumbnail", rates: (5.0, 8.0), callbacks: 0.5 },
    Function { name: "report", rates: (0.8, 5.5), callbacks: 1.0 },
    Function { name: "busy", rates: (0.5, 4.0), callbacks: 0.0 },
    Function { name: "broken", rates: (0.03, 0.03), callbacks: 0.0 },
];

/// A function that answers after a random time within these, in milliseconds.
async fn function(least: u64, most: u64, status: u16) -> HttpServer {
    let answer = move |_| {
        let duration = Duration::from_millis(rand::random_range(least..=most));
        respond_after(duration, status, "result")
    };
    HttpServer::answering(answer).await
}

/// A function that refuses every fourth call.
async fn busy_function() -> HttpServer {
    let calls = Arc::new(AtomicUsize::new(0));
    let answer = move |_| match calls.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => respond(429, "busy"),
        _ => respond_after(Duration::from_millis(300), 200, "result"),
    };
    HttpServer::answering(answer).await
}

impl Stage {
    pub(super) async fn start() -> Self {
        let servers = vec![
            function(20, 80, 200).await,
            function(50, 400, 200).await,
            function(1500, 2500, 200).await,
            function(5, 10, 500).await,
            busy_function().await,
        ];
        let urls: Vec<_> = servers.iter().map(HttpServer::url).collect();
        let directory = format!(
            "queues: {{fast-queue: {{fairness: Function}}, slow-queue: {{fairness: Function}}}}\n\
             functions:\n  \
             mail: {{queue: fast-queue, url: \"{}\"}}\n  \
             thumbnail: {{queue: fast-queue, url: \"{}\"}}\n  \
             report: {{queue: slow-queue, url: \"{}\"}}\n  \
             broken: {{queue: fast-queue, url: \"{}\"}}\n  \
             busy: {{queue: fast-queue, url: \"{}\"}}\n",
            urls[0], urls[1], urls[2], urls[3], urls[4]
        );
        let nats = [NatsServer::start().await, NatsServer::start().await];
        let settings = [
            ("ensure_stream", "true"),
            ("default_queue", "fast-queue"),
            ("unknown_function", "reject"),
        ];
        let gateway = Gateway::start(&nats[0], &directory, &settings).await;
        gateway.is_ready().await;
        let mut scraped = vec![(NAMESPACE, gateway.metrics_addr)];
        let mut programs = Vec::new();
        for (queue, max_inflight) in [("fast-queue", "4"), ("fast-queue", "4"), ("slow-queue", "5")]
        {
            let addr = at(free_port());
            scraped.push((NAMESPACE, addr));
            programs.push(worker(&nats[0], &servers[0], queue, max_inflight, addr));
        }
        let ready = json!({ "type": "Ready", "status": "True", "reason": "Reconciled",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1 });
        let api = ApiServer::start(json!({ "stream": "jobs", "conditions": [ready] })).await;
        let (addr, url) = (at(free_port()), nats[1].url());
        scraped.push((NAMESPACE, addr));
        let settings = [("nats_url", url.as_str()), ("http_addr", &addr.to_string())];
        let (operator, kubeconfig) = api.operator(&settings);
        programs.push(operator);
        Self {
            prometheus: Prometheus::start(&scraped).await,
            gateway,
            receivers: [
                HttpServer::start().await,
                HttpServer::answering(|_| respond(503, "no")).await,
            ],
            _programs: programs,
            _servers: servers,
            _nats: nats,
            _operator: (api, kubeconfig),
        }
    }

    /// Submits calls for as long as it is polled.
    pub(super) async fn load(&self) {
        let (started, mut ticks) = (Instant::now(), interval(TICK));
        loop {
            ticks.tick().await;
            let phase = started.elapsed().div_duration_f64(WAVE).fract();
            // From 0 to 1 and back.
            let height = (phase * std::f64::consts::TAU).cos().mul_add(-0.5, 0.5);
            for function in &FUNCTIONS {
                let (least, most) = function.rates;
                let rate = (most - least).mul_add(height, least);
                if rand::random::<f64>() < rate * TICK.as_secs_f64() {
                    self.submit(function).await;
                }
            }
        }
    }

    async fn submit(&self, function: &Function) {
        let receiver = &self.receivers[usize::from(rand::random::<f64>() < 0.05)].url();
        let headers = [("x-callback-url", receiver.as_str())];
        let wants_callback = rand::random::<f64>() < function.callbacks;
        let headers = if wants_callback { &headers[..] } else { &[] };
        let path = format!("/async-function/{}", function.name);
        assert_eq!(self.gateway.call("POST", &path, headers, "order").await.status, 202);
    }
}

fn worker(
    nats: &NatsServer,
    function: &HttpServer,
    queue: &str,
    max_inflight: &str,
    addr: SocketAddr,
) -> Program {
    let addr = addr.to_string();
    let settings = [
        ("queue_name", queue),
        ("max_inflight", max_inflight),
        ("http_addr", &addr),
        ("max_retry_attempts", "3"),
        ("callback_max_attempts", "4"),
        ("ensure_stream", "true"),
        ("fairness", "function"),
        ("function_max_inflight", "12"),
        ("function_adaptive", "true"),
        ("concurrency", "10"),
        ("rate_per_second", "50"),
        ("RUST_LOG", "warn"),
    ];
    start_worker(nats, function, &settings)
}
