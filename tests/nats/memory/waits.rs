//! Thousands of clients that wait for results on one gateway.

use test_support::{
    http::{HttpServer, respond},
    process::resident_bytes,
    raw::Connection,
    wait::{WAIT_TIMEOUT, until_in},
};

use super::{FILES_IN_USE, assert_fits, gateway, is_free};
use crate::{gateway::Gateway, support::Queue};

/// Clients that wait at once.
const WAITS: usize = 10_000;
/// Clients that come together: fewer than the gateway publishes at once.
const TOGETHER: usize = 1_000;

/// A client that submits a call with this body and waits.
async fn waiting_client(gateway: &Gateway, body: &str) -> Connection {
    let mut client = gateway.connect().await;
    let head = "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nPrefer: wait=600";
    client.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    client
}

async fn gateway_has_waits(gateway: &Gateway, count: usize) {
    until_in(WAIT_TIMEOUT * 4, &format!("{count} requests wait"), async || {
        let waits = gateway.metric("gateway_waits_in_progress").await;
        (waits == count as u64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_clients_wait_within_the_memory_of_a_gateway() {
    let _files = FILES_IN_USE.lock().await;
    let queue = Queue::start().await;
    let (connections, waits) = ("10700", WAITS.to_string());
    let settings =
        [("max_connections", connections), ("max_waits", &waits[..]), ("max_wait", "10m")];
    let gateway = gateway(&queue, &settings).await;
    let before = resident_bytes(gateway.program.id());
    let mut clients = Vec::new();
    while clients.len() < WAITS {
        for number in clients.len()..clients.len() + TOGETHER {
            clients.push(waiting_client(&gateway, &number.to_string()).await);
        }
        gateway_has_waits(&gateway, clients.len()).await;
        queue.holds("jobs", clients.len() as u64).await;
    }
    let taken = resident_bytes(gateway.program.id()).saturating_sub(before);
    println!("a wait: {} bytes", taken / WAITS as u64);
    assert_fits(&gateway, "waits");

    // Others are answered. One client more does not wait, until one has left.
    let answer =
        gateway.call("POST", "/async-function/figlet", &[("prefer", "wait=600")], "more").await;
    assert_eq!((answer.status, answer.header("location").is_empty()), (202, false));
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="refused"}"#).await, 1);
    clients.remove(0).reset();
    gateway_has_waits(&gateway, WAITS - 1).await;
    clients.push(waiting_client(&gateway, "last").await);
    gateway_has_waits(&gateway, WAITS).await;

    // Each gets the result of its own call.
    let function =
        HttpServer::answering(|request| respond(200, &String::from_utf8_lossy(&request.body)));
    let function = function.await;
    let _worker = queue.worker(&function, &[("max_inflight", "64")]);
    let numbers = (1..WAITS).map(|number| number.to_string());
    for (client, expected) in clients.iter_mut().zip(numbers.chain(["last".to_owned()])) {
        let answer = client.response().await;
        let seen = (answer.status, answer.header("preference-applied"), answer.text());
        assert_eq!(seen, (200, "wait", expected));
    }
    gateway_has_waits(&gateway, 0).await;
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="ended"}"#).await, WAITS as u64);
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="timed_out"}"#).await, 0);
    assert_fits(&gateway, "results");
    queue.empties().await;
    drop(clients);
    is_free(&gateway).await;
}
