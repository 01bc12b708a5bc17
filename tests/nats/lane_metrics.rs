//! What is shown of lanes: metrics of the worker, and `kubectl aq queues`.

use std::time::Duration;

use test_support::{
    http::{HttpServer, respond_after},
    loopback::{at, free_port},
    program::run,
    raw,
    wait::until,
};

use crate::lanes::laned;

#[tokio::test]
async fn waiting_calls_are_counted_by_function_and_in_total() {
    let queue = laned().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "")).await;
    for (name, calls) in [("a", 4), ("b", 2)] {
        for _ in 0..calls {
            queue.submit_to(name, "hi").await;
        }
    }
    let addr = at(free_port());
    let settings = [("http_addr", &*addr.to_string()), ("max_inflight", "1")];
    let worker = queue.worker(&server, &settings);
    server.receives(1).await;
    // One runs, and one may wait for a turn in the worker.
    let metric = "queue_worker_pending_messages{queue_name=\"jobs\",function_name=";
    let number = |text: &str, name: &str| -> Option<u64> {
        let (_, rest) = text.split_once(&format!("{metric}\"{name}\"}} "))?;
        rest.lines().next()?.parse().ok()
    };
    let (a, b, total, text) = until("both functions have a series", async || {
        let answer = raw::try_request(addr, "GET", "/metrics", &[], b"").await.ok()?;
        let text = answer.text();
        let of = |name| number(&text, name);
        Some((of("a.openfaas-fn")?, of("b.openfaas-fn")?, of("")?, text))
    })
    .await;
    assert!(a + b == total && (4..=6).contains(&total), "{a} {b} {total}");
    for line in [
        "queue_worker_lanes{queue_name=\"jobs\",kind=\"own\"} 2",
        "queue_worker_lanes{queue_name=\"jobs\",kind=\"shared\"} 0",
        "queue_worker_functions_sharing_lanes{queue_name=\"jobs\"} 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let ended =
        run("kubectl-aq", &["queues", "-o", "json"], &[("nats_url", &queue.nats.url())]).await;
    let queues: serde_json::Value = serde_json::from_str(&ended.text()).unwrap();
    assert_eq!((&queues[0]["lanes"], &queues[0]["pending"]), (&2.into(), &5.into()), "{queues}");
    drop(worker);
}
