//! A gateway before the queue `jobs`, as the tests of it use one.

use std::{io::Write, net::SocketAddr};

use async_nats::jetstream::message::StreamMessage;
use asyncqueue::message::native;
use tempfile::NamedTempFile;
use test_support::{
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    raw::{self, Connection, RawResponse},
    wait::until,
};

use crate::support::Queue;

/// A gateway whose default queue is `jobs`.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics_addr: SocketAddr,
    /// What `directory_file` names.
    pub(crate) directory: NamedTempFile,
}

impl Gateway {
    /// A gateway that is ready, before a queue's nats-server, with these settings in addition to
    /// its usual ones.
    pub(crate) async fn before(queue: &Queue, settings: &[(&str, &str)]) -> Self {
        let gateway = Self::start(&queue.nats, "queues: {jobs: }", settings).await;
        gateway.is_ready().await;
        gateway
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        until("the gateway is ready", async || {
            let answer = self.try_call("GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// A gateway with this directory, ready or not.
    pub(crate) async fn start(
        nats: &NatsServer,
        directory: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::start_at(&nats.url(), directory, settings).await
    }

    /// The same, before the NATS servers at a URL.
    pub(crate) async fn start_at(url: &str, directory: &str, settings: &[(&str, &str)]) -> Self {
        let mut file = NamedTempFile::with_suffix(".yaml").unwrap();
        file.write_all(directory.as_bytes()).unwrap();
        let address = || -> SocketAddr { ([127, 0, 0, 1], free_port()).into() };
        let (addr, metrics_addr) = (address(), address());
        let (http, metrics) = (addr.to_string(), metrics_addr.to_string());
        let mut all = vec![
            ("nats_url", url),
            ("http_addr", &http),
            ("metrics_addr", &metrics),
            ("default_queue", "jobs"),
            ("directory_file", file.path().to_str().unwrap()),
            // Most tests need no function in the file.
            ("unknown_function", "accept"),
            ("RUST_LOG", "info,asyncqueue_gateway=debug"),
        ];
        all.extend_from_slice(settings);
        let program = Program::start("asyncqueue-gateway", &all);
        let gateway = Self { program, addr, metrics_addr, directory: file };
        until("the gateway answers", async || {
            gateway.try_call("GET", "/healthz", &[], b"").await.ok()
        })
        .await;
        gateway
    }

    /// Calls a function, or asks for something else, on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> RawResponse {
        raw::request(self.addr, method, target, headers, body.as_ref()).await
    }

    pub(crate) async fn try_call(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> std::io::Result<RawResponse> {
        raw::try_request(self.addr, method, target, headers, body.as_ref()).await
    }

    /// Submits a call of `figlet`, and returns the id that it was given.
    pub(crate) async fn submit(&self, headers: &[(&str, &str)], body: &str) -> String {
        let answer = self.call("POST", "/async-function/figlet", headers, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("x-call-id").to_owned()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.addr).await
    }

    /// A metric's value by its name and labels; 0 if it is missing.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = raw::request(self.metrics_addr, "GET", "/metrics", &[], b"").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_default()
    }
}

/// The messages of a stream, in order.
pub(crate) async fn messages(queue: &Queue, stream: &str) -> Vec<StreamMessage> {
    let info = queue.info(stream).await;
    let stream = queue.js.get_stream(stream).await.unwrap();
    let mut messages = Vec::new();
    for sequence in info.state.first_sequence..=info.state.last_sequence {
        // Not by `get_raw_message`, which keeps the last alone of headers with one name.
        messages.extend(stream.direct_get(sequence).await.ok());
    }
    messages
}

/// The calls that wait on `jobs`, in order.
pub(crate) async fn calls(queue: &Queue) -> Vec<asyncqueue::Invocation> {
    let messages = messages(queue, "jobs").await;
    messages
        .into_iter()
        .map(|message| native::decode(&message.headers, message.payload).unwrap())
        .collect()
}
