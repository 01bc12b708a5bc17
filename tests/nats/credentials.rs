//! Credentials of NATS, and their rotation.

use std::time::Duration;

use asyncqueue::stream::{ensure_buckets, ensure_queue};
use test_support::{http::HttpServer, nats::NatsServer, nats_auth::Trust, wait::until};

use crate::support::{Queue, spec};

#[tokio::test]
async fn worker_reads_replaced_credentials_without_a_restart() {
    const GOOD_FOR: Duration = Duration::from_secs(4);
    let nats = NatsServer::start_guarded(Trust::default()).await;
    let js = nats.jetstream().await;
    ensure_queue(&js, &spec(), false).await.unwrap();
    ensure_buckets(&js, 1).await.unwrap();
    let queue = Queue { nats, js, spec: spec() };
    let function = HttpServer::start().await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("creds");
    std::fs::write(&file, queue.nats.credentials(GOOD_FOR)).unwrap();
    let mut worker = queue.worker(&function, &[("nats_creds_file", file.to_str().unwrap())]);
    queue.submit(|_| {}).await;
    function.receives(1).await;

    // As the kubelet does: another file under the same name.
    let new = folder.path().join("new");
    std::fs::write(&new, queue.nats.credentials(Duration::from_secs(3600))).unwrap();
    std::fs::rename(&new, &file).unwrap();
    worker.logged("disconnected from NATS").await;
    until("it is connected again", async || {
        let log = worker.log();
        (log.iter().filter(|line| line.contains("connected to NATS at")).count() == 2).then_some(())
    })
    .await;
    queue.submit(|_| {}).await;
    function.receives(2).await;
    queue.empties().await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_worker_without_credentials_is_not_let_in_and_says_so() {
    let nats = NatsServer::start_guarded(Trust::default()).await;
    let function = HttpServer::start().await;
    let worker = crate::support::start_worker(&nats, &function, &[]);
    worker.logged("waiting for NATS").await;
    worker.logged("uthorization").await;
}

#[tokio::test]
async fn a_user_and_a_password_are_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (folder.path().join("nats.conf"), folder.path().join("creds"));
    std::fs::write(
        &config,
        "no_auth_user: test\nauthorization { users: [{user: test}, {user: w, password: \"p:w\"}] }",
    )
    .unwrap();
    let mut nats = NatsServer::prepare().with(["-c".to_owned(), config.display().to_string()]);
    nats.run().await;
    let function = HttpServer::start().await;
    let settings = [("nats_creds_file", file.to_str().unwrap())];

    std::fs::write(&file, "w:p:w\n").unwrap();
    let worker = crate::support::start_worker(&nats, &function, &settings);
    worker.logged("connected to NATS at").await;
    drop(worker);
    std::fs::write(&file, "w:s3cret").unwrap();
    let worker = crate::support::start_worker(&nats, &function, &settings);
    worker.logged("uthorization").await;
    assert!(!worker.log().iter().any(|line| line.contains("s3cret")));
}
