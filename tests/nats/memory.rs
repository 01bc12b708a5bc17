//! Memory in the worst case: what thousands of clients can make a program hold stays within the
//! limit of its pod.

use std::{fs, path::Path, time::Duration};

use asyncqueue_runtime::{byte_size::ByteSize, memory::budget_within};
use futures::{StreamExt, future::join_all, stream};
use serde_json::Value;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    process::{allow_files, peak_resident_bytes},
    raw::{self, Connection, Listener},
    wait::{WAIT_TIMEOUT, until, until_in},
};
use tokio::{
    sync::Mutex,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

mod waits;

/// As many as the gateway serves at once.
const CONNECTIONS: usize = 8_192;

/// Sockets of the clients, or of the gateway and its functions.
const FILES: u32 = 18_000;

/// Bytes that a client sends to a function that reads nothing. What the gateway does not read stays
/// in the kernel, whose memory for TCP is the whole machine's.
const PUSHED: usize = 256 << 10;

/// The limit of memory in the manifest of the gateway, in bytes.
fn pod_limit() -> u64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/base/gateway.yaml");
    let text = fs::read_to_string(path).unwrap();
    let mut objects =
        text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
    let deployment = objects.find(|object| object["kind"] == "Deployment").unwrap();
    let limit =
        &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
    let ByteSize(bytes) = limit.as_str().unwrap().parse().unwrap();
    bytes as u64
}

/// One test at a time has as many files open: this process has one limit for all.
static FILES_IN_USE: Mutex<()> = Mutex::const_new(());

/// Returns a gateway with the budget that its pod gives it. The test holds [`FILES_IN_USE`].
async fn gateway(queue: &Queue, settings: &[(&str, &str)]) -> Gateway {
    let budget = ByteSize(budget_within(Some(pod_limit()))).to_string();
    let settings = [settings, &[("memory_budget", &budget), ("RUST_LOG", "info")]].concat();
    let gateway = Gateway::before(queue, &settings).await;
    for process in [std::process::id(), gateway.program.id()] {
        allow_files(process, FILES);
    }
    gateway
}

/// So many clients that send the same and read nothing.
async fn clients(gateway: &Gateway, count: usize, sent: &[u8]) -> Vec<Connection> {
    let client = async |_| {
        let mut client = gateway.connect().await;
        // Refused in the middle, it is closed.
        let _ = client.try_send(sent).await;
        client
    };
    stream::iter(0..count).map(client).buffer_unordered(256).collect().await
}

/// How many of the clients have been answered so far, and each of them with 503.
async fn refused(clients: &mut [Connection]) -> usize {
    let mut refused = 0;
    for client in clients {
        if let Some(answer) = client.answered_by(Duration::from_millis(1)).await {
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("etry-"), "{answer}");
            refused += 1;
        }
    }
    refused
}

/// Waits until only connections take memory, so that nothing was forgotten.
async fn is_free(gateway: &Gateway) {
    until_in(WAIT_TIMEOUT * 3, "all memory is given back", async || {
        for used in ["heads", "calls", "passed_on", "waits"] {
            if gateway.metric(&format!("gateway_memory_used_bytes{{use=\"{used}\"}}")).await > 0 {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert_eq!(gateway.call("POST", "/async-function/figlet", &[], "hi").await.status, 202);
}

fn assert_fits(gateway: &Gateway, what: &str) {
    let (peak, limit) = (peak_resident_bytes(gateway.program.id()), pod_limit());
    println!("{what}: {} MiB of {} MiB", peak >> 20, limit >> 20);
    assert!(peak < limit, "{what}: {peak} bytes of {limit}");
}

#[tokio::test]
async fn the_gateway_stays_within_its_memory_with_many_clients() {
    let _files = FILES_IN_USE.lock().await;
    let queue = Queue::start().await;
    let gateway = gateway(&queue, &[]).await;
    // Heads that do not end.
    let head = format!(
        "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Long: {}",
        "x".repeat(31 << 10)
    );
    let mut heads = clients(&gateway, CONNECTIONS - 64, head.as_bytes()).await;
    assert!(refused(&mut heads).await > 0);
    assert_fits(&gateway, "heads");
    drop(heads);
    is_free(&gateway).await;

    // Bodies that do not end.
    let half = format!(
        "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: {}\r\n\r\n{}",
        1_000_000,
        "x".repeat(600 << 10)
    );
    let mut bodies = clients(&gateway, 2_000, half.as_bytes()).await;
    assert!(refused(&mut bodies).await > 0);
    assert_fits(&gateway, "bodies");
    drop(bodies);
    is_free(&gateway).await;

    // Small bodies that do not end, on as many connections as there can be.
    let half = format!(
        "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 20000\r\n\r\n{}",
        "x".repeat(17_000)
    );
    let bodies = clients(&gateway, CONNECTIONS - 64, half.as_bytes()).await;
    assert_fits(&gateway, "small bodies");
    drop(bodies);
    is_free(&gateway).await;
}

#[tokio::test]
async fn the_gateway_stays_within_its_memory_with_unread_responses() {
    let _files = FILES_IN_USE.lock().await;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, &"y".repeat(512 << 10))).await;
    let gateway = gateway(&queue, &[("function_url", &function.url())]).await;
    let ask = b"GET /function/figlet HTTP/1.1\r\nHost: g\r\n\r\n";
    let mut readers = clients(&gateway, 3_000, ask).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(gateway.metric(r#"gateway_memory_refusals_total{use="passed_on"}"#).await > 0);
    assert_fits(&gateway, "unread responses");
    let answer = readers[0].response().await;
    assert!(matches!(answer.status, 200 | 503));
    drop(readers);
    is_free(&gateway).await;
}

/// Functions that read the head of each request, answer with `answer`, and read and write nothing
/// more.
async fn silent_functions(answer: &'static str) -> (String, JoinHandle<()>) {
    let listener = Listener::start().await;
    let url = listener.url();
    let accepting = async move {
        let mut open = JoinSet::new();
        loop {
            // No connection comes while the clients push.
            let mut function = listener.accept_at_any_time().await;
            open.spawn(async move {
                let _ = function.head().await;
                let _ = function.try_send(answer).await;
                std::future::pending::<()>().await;
            });
        }
    };
    (url, tokio::spawn(accepting))
}

/// Sends to functions that read nothing: as much as the gateway takes in a while, at most
/// [`PUSHED`] for each client.
async fn push(clients: &mut [Connection]) {
    let much = vec![b'x'; PUSHED];
    let pushes =
        clients.iter_mut().map(|client| timeout(Duration::from_secs(5), client.try_send(&much)));
    // Those that were refused are closed.
    let _ = join_all(pushes).await;
}

#[tokio::test]
async fn the_gateway_stays_within_its_memory_with_tunnels() {
    let _files = FILES_IN_USE.lock().await;
    let queue = Queue::start().await;
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    let (url, functions) = silent_functions(answer).await;
    let gateway = gateway(&queue, &[("function_url", &url)]).await;
    let ask =
        b"GET /function/figlet HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    let mut clients = clients(&gateway, 3_000, ask).await;
    let (mut open, mut refused) = (0, 0);
    for client in &mut clients {
        match client.response().await.status {
            101 => open += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    push(&mut clients).await;
    println!("{open} tunnels, {refused} refused");
    assert!(open > 500 && refused > 500, "{open} tunnels, {refused} refused");
    assert_fits(&gateway, "tunnels");
    functions.abort();
    drop(clients);
    is_free(&gateway).await;
}

#[tokio::test]
async fn the_gateway_stays_within_its_memory_with_unread_uploads() {
    let _files = FILES_IN_USE.lock().await;
    let queue = Queue::start().await;
    let (url, functions) = silent_functions("").await;
    let gateway = gateway(&queue, &[("function_url", &url)]).await;
    let ask = b"POST /function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 4194304\r\n\r\n";
    let mut clients = clients(&gateway, 3_000, ask).await;
    push(&mut clients).await;
    assert!(refused(&mut clients).await > 500);
    assert_fits(&gateway, "uploads that no function reads");
    functions.abort();
    drop(clients);
    is_free(&gateway).await;
}

#[tokio::test]
async fn worker_stays_within_its_memory_with_large_responses() {
    const CALLS: usize = 100;
    const LIMIT: u64 = 256 << 20;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, &"y".repeat(6 << 20))).await;
    // Larger than NATS takes, so that the worker holds each until it is posted.
    let receiver =
        HttpServer::answering(|_| respond_after(Duration::from_millis(500), 200, "ok")).await;
    let budget = ByteSize(budget_within(Some(LIMIT))).to_string();
    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [
        ("max_inflight", "80"),
        ("memory_budget", &budget),
        ("http_addr", &admin),
        ("RUST_LOG", "info"),
    ];
    let worker = queue.worker(&function, &settings);
    for _ in 0..CALLS {
        queue
            .submit(|call| {
                call.body = vec![b'x'; 900 << 10].into();
                call.callback_url = Some(callback_at(&receiver));
            })
            .await;
    }
    until_in(WAIT_TIMEOUT * 4, "all results are posted", async || {
        (receiver.received().len() == CALLS).then_some(())
    })
    .await;
    queue.empties().await;
    assert_eq!(function.received().len(), CALLS);
    assert!(receiver.received().iter().all(|posted| posted.body.len() == 6 << 20));
    let peak = peak_resident_bytes(worker.id());
    println!("answers of a worker: {} MiB of {} MiB", peak >> 20, LIMIT >> 20);
    assert!(peak < LIMIT, "{peak} bytes");
    let metric = async |name: &str| {
        let metrics =
            raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await.text();
        let value =
            metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{name}: {metrics}"))
    };
    assert!(metric(r#"queue_worker_memory_refusals_total{use="answers"}"#).await > 0);
    for used in ["calls", "answers", "callbacks"] {
        let name = format!("queue_worker_memory_used_bytes{{use=\"{used}\"}}");
        // Given back after the last acknowledgement.
        until(&format!("{used} take no memory"), async || (metric(&name).await == 0).then_some(()))
            .await;
    }
}
