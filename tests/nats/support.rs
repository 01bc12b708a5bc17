//! One queue on one nats-server, its workers, and calls for it.

use std::{io::Write, time::Duration};

use async_nats::{
    connection::State,
    jetstream::{Context, consumer::PullConsumer, stream::Info},
};
use asyncqueue::{
    CallId, CallbackUrl, FunctionName, Invocation,
    directory::{QueueEntry, QueueRoute},
    stream::{Owner, QueueSpec, ensure_buckets, ensure_queue},
    submit::{SubmitOutcome, Submitter},
};
use tempfile::NamedTempFile;
use test_support::{
    http::HttpServer,
    loopback::free_port,
    nats::{ANSWER_TIMEOUT, NatsServer},
    program::Program,
    wait::until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The lease in tests: short, so that a test of a dead worker is, and long enough that a busy
/// machine renews it.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A queue named `jobs`.
pub(crate) struct Queue {
    pub(crate) nats: NatsServer,
    pub(crate) js: Context,
    pub(crate) spec: QueueSpec,
}

impl Queue {
    pub(crate) async fn start() -> Self {
        Self::start_on(NatsServer::start().await).await
    }

    /// The same on this nats-server.
    pub(crate) async fn start_on(nats: NatsServer) -> Self {
        let js = nats.jetstream().await;
        let spec = spec();
        ensure_queue(&js, &spec, false).await.unwrap();
        ensure_buckets(&js, 1).await.unwrap();
        Self { nats, js, spec }
    }

    /// A queue of which nothing is there yet: its programs create it, since there is no operator.
    pub(crate) async fn standalone() -> Self {
        let nats = NatsServer::start().await;
        let js = nats.jetstream().await;
        Self { nats, js, spec: QueueSpec::new("jobs".parse().unwrap(), Owner::standalone()) }
    }

    /// A worker whose functions are all `function`, with these settings in addition to its usual
    /// ones.
    pub(crate) fn worker(&self, function: &HttpServer, settings: &[(&str, &str)]) -> Program {
        start_worker(&self.nats, function, settings)
    }

    /// Submits a call and returns its id.
    pub(crate) async fn submit(&self, change: impl FnOnce(&mut Invocation)) -> CallId {
        let mut call = call();
        change(&mut call);
        // It may be on its way back after a restart of NATS.
        let client = self.js.client();
        until("the client is connected", async || {
            (client.connection_state() == State::Connected).then_some(())
        })
        .await;
        let submitter = Submitter::new(self.js.clone(), ANSWER_TIMEOUT);
        assert_eq!(submitter.submit(&call, &self.route()).await.unwrap(), SubmitOutcome::Stored);
        call.call_id
    }

    /// Where calls of the queue go, for a program that knows of no lanes.
    pub(crate) fn route(&self) -> QueueRoute {
        let QueueSpec { queue, stream, subject, .. } = &self.spec;
        QueueEntry::new(stream, subject).route(queue.clone())
    }

    pub(crate) async fn info(&self, stream: &str) -> Info {
        self.js.get_stream(stream).await.unwrap().cached_info().clone()
    }

    /// The sequence of the message that a stream stored as its nth, from 1.
    pub(crate) async fn sequence(&self, stream: &str, number: u64) -> u64 {
        self.info(stream).await.config.first_sequence.unwrap_or(1) + number - 1
    }

    pub(crate) async fn consumer(&self) -> PullConsumer {
        self.js.get_consumer_from_stream(&self.spec.durable, &self.spec.stream).await.unwrap()
    }

    /// Waits until the stream holds no call.
    pub(crate) async fn empties(&self) {
        self.holds(&self.spec.stream, 0).await;
    }

    /// Waits until a stream holds so many messages.
    pub(crate) async fn holds(&self, stream: &str, messages: u64) {
        let what = format!("stream {stream} holds {messages} messages");
        until(&what, async || (self.info(stream).await.state.messages == messages).then_some(()))
            .await;
    }
}

pub(crate) fn spec() -> QueueSpec {
    let owner = Owner { name: "test/jobs".to_owned(), uid: "1".to_owned() };
    QueueSpec { ack_wait: LEASE, ..QueueSpec::new("jobs".parse().unwrap(), owner) }
}

pub(crate) fn start_worker(
    nats: &NatsServer,
    function: &HttpServer,
    settings: &[(&str, &str)],
) -> Program {
    let (url, function_url) = (nats.url(), function.url());
    let admin = format!("127.0.0.1:{}", free_port());
    let mut all = vec![
        ("nats_url", url.as_str()),
        ("queue_name", "jobs"),
        ("function_url", &function_url),
        ("http_addr", &admin),
        ("callback_allowed_hosts", "127.0.0.1"),
        // Sooner than a user would want, for a test not to wait.
        ("initial_retry_wait", "100ms"),
        ("max_retry_wait", "1s"),
        ("retry_jitter", "none"),
        ("RUST_LOG", "info,asyncqueue_worker=debug"),
    ];
    all.extend_from_slice(settings);
    Program::start("asyncqueue-worker", &all)
}

/// An operator whose API server is at this address, as a kubeconfig says, with these settings.
pub(crate) fn start_operator(
    api_server: &str,
    settings: &[(&str, &str)],
) -> (Program, NamedTempFile) {
    let mut kubeconfig = NamedTempFile::new().unwrap();
    write!(
        kubeconfig,
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, \
         context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{}}}}], \
         clusters: [{{name: c, cluster: {{server: \"{api_server}\"}}}}]}}"
    )
    .unwrap();
    let mut all = vec![
        ("KUBECONFIG", kubeconfig.path().to_str().unwrap()),
        ("leader_elect", "false"),
        ("worker_image", "asyncqueue"),
        ("POD_NAMESPACE", "openfaas"),
    ];
    all.extend_from_slice(settings);
    let operator = Program::start("asyncqueue-operator", &all);
    (operator, kubeconfig)
}

/// A call of `figlet` with the body `hi`.
pub(crate) fn call() -> Invocation {
    let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
    Invocation::new(CallId::generate(&"jobs".parse().unwrap()), function, "hi")
}

/// A callback URL at a server.
pub(crate) fn callback_at(server: &HttpServer) -> CallbackUrl {
    CallbackUrl::parse(&format!("{}/callback", server.url())).unwrap()
}

/// Publishes a message whose subject and headers are these bytes, also such that no client library
/// would write, and waits until the server has it.
pub(crate) async fn publish_raw(
    queue: &Queue,
    subject: impl AsRef<[u8]>,
    headers: &[u8],
    body: &[u8],
) {
    let mut server = TcpStream::connect(queue.nats.url().replace("nats://", "")).await.unwrap();
    let (length, all) = (headers.len(), headers.len() + body.len());
    let (command, sizes) = if headers.is_empty() {
        ("PUB", all.to_string())
    } else {
        ("HPUB", format!("{length} {all}"))
    };
    let connect = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\n{command} ");
    let sizes = format!(" {sizes}\r\n");
    let parts =
        [connect.as_bytes(), subject.as_ref(), sizes.as_bytes(), headers, body, b"\r\nPING\r\n"];
    server.write_all(&parts.concat()).await.unwrap();
    let mut said = Vec::new();
    until("the server has taken it", async || {
        server.read_buf(&mut said).await.unwrap();
        said.windows(4).any(|window| window == b"PONG").then_some(())
    })
    .await;
}
