//! Credentials of NATS, and their rotation.

use std::{path::Path, process::Command, time::Duration};

use asyncqueue::stream::{ensure_buckets, ensure_queue};
use nkeys::KeyPair;
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

#[tokio::test]
async fn an_nkey_is_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (folder.path().join("nats.conf"), folder.path().join("nkey"));
    let (key, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let users = format!("[{{user: test}}, {{nkey: {}}}]", key.public_key());
    std::fs::write(&config, format!("no_auth_user: test\nauthorization {{ users: {users} }}"))
        .unwrap();
    let mut nats = NatsServer::prepare().with(["-c".to_owned(), config.display().to_string()]);
    nats.run().await;
    let function = HttpServer::start().await;
    let settings = [("nats_creds_file", file.to_str().unwrap())];

    std::fs::write(&file, format!("{}\n", key.seed().unwrap())).unwrap();
    let worker = crate::support::start_worker(&nats, &function, &settings);
    worker.logged("connected to NATS at").await;
    drop(worker);
    let seed = stranger.seed().unwrap();
    std::fs::write(&file, &seed).unwrap();
    let worker = crate::support::start_worker(&nats, &function, &settings);
    worker.logged("uthorization").await;
    assert!(!worker.log().iter().any(|line| line.contains(&seed)));
}

/// Makes a certificate for 127.0.0.1, which is its own authority, and its key, as `NAME.crt` and
/// `NAME.key`.
fn make_certificate(folder: &Path, name: &str) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-days=2", "-subj", &format!("/CN={name}")])
        .args(key)
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_client_certificate_is_presented_to_a_server_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["server", "client", "stranger"] {
        make_certificate(folder.path(), name);
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true }}",
        file("server.crt"),
        file("server.key"),
        file("client.crt"),
    );
    std::fs::write(file("nats.conf"), tls).unwrap();
    let mut nats = NatsServer::prepare().with(["-c".to_owned(), file("nats.conf")]);
    nats.launch();
    let function = HttpServer::start().await;
    let (ca, certificate, key) = (file("server.crt"), file("client.crt"), file("client.key"));
    let settings = [
        ("nats_tls_ca_file", ca.as_str()),
        ("nats_tls_cert_file", certificate.as_str()),
        ("nats_tls_key_file", key.as_str()),
    ];
    let worker = crate::support::start_worker(&nats, &function, &settings);
    worker.logged("connected to NATS at").await;
    drop(worker);

    let (certificate, key) = (file("stranger.crt"), file("stranger.key"));
    let strange = [
        ("nats_tls_ca_file", ca.as_str()),
        ("nats_tls_cert_file", certificate.as_str()),
        ("nats_tls_key_file", key.as_str()),
    ];
    let worker = crate::support::start_worker(&nats, &function, &strange);
    worker.logged("waiting for NATS").await;
    let mut lonely = crate::support::start_worker(&nats, &function, &strange[..2]);
    lonely.logged("nats_tls_cert_file and nats_tls_key_file need each other").await;
    assert!(!lonely.ended().await.success());
}
