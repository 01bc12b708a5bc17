//! A NATS elsewhere that asks for credentials and speaks TLS, with `manifests/external-nats`.

use std::{fs, process::Command, time::Duration};

use serde_json::{Value, json};
use test_support::{
    cluster::{
        Namespace, apply, apply_folder, installation::Restored, is_true, kubectl, nats, secret,
    },
    nats_auth::Trust,
    tools::output,
};

use crate::{
    e2e::{Gateway, Queue},
    support::rolled_out,
};

/// Longer than this test.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// A certificate for a host, which is its own authority, and its key.
fn certificate(host: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("subjectAltName=DNS:{host}");
    let _ = output(
        Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days=2",
            ])
            .args([
                "-subj=/CN=nats",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                &name,
            ])
            .args(["-keyout", "key", "-out", "crt"])
            .current_dir(folder.path()),
    );
    let read = |file| fs::read_to_string(folder.path().join(file)).unwrap();
    (read("crt"), read("key"))
}

/// Starts a NATS with credentials and TLS in a namespace, and returns what clients need: the data
/// of the Secret that `manifests/external-nats` and the chart name.
pub(crate) fn start(namespace: &str) -> Value {
    let trust = Trust::default();
    let (certificate, _) = start_with_tls(namespace, &trust.config(), "");
    json!({
        "url": format!("tls://nats.{namespace}:4222"),
        "nats.creds": trust.user(GOOD_FOR),
        "ca.crt": certificate,
    })
}

/// The same for a NATS without credentials that verifies clients by a certificate.
pub(crate) fn start_with_client_certificates(namespace: &str) -> Value {
    let verify = "ca_file: /etc/nats/tls.crt, verify: true";
    let (certificate, key) = start_with_tls(namespace, "", verify);
    // The certificate of the server is good for a client too.
    json!({ "ca.crt": certificate, "tls.crt": certificate, "tls.key": key })
}

/// Starts a NATS with TLS in a namespace, and returns its certificate and key.
fn start_with_tls(namespace: &str, config: &str, verify: &str) -> (String, String) {
    let (certificate, key) = certificate(&format!("nats.{namespace}"));
    let files = json!({ "tls.crt": certificate, "tls.key": key });
    let tls =
        format!("tls {{ cert_file: /etc/nats/tls.crt, key_file: /etc/nats/tls.key, {verify} }}");
    nats::start(namespace, &format!("{config}\n{tls}"), files);
    (certificate, key)
}

#[tokio::test]
async fn a_nats_with_credentials_and_tls_is_reached_with_what_secrets_say() {
    let elsewhere = Namespace::create("nats");
    let data = start(&elsewhere.name);

    let restored = Restored;
    apply(&secret("openfaas", "nats", &data));
    apply_folder("manifests/external-nats");
    // Ready is connected.
    rolled_out();

    // The default queue, whose workers are in the namespace of the operator, needs nothing more.
    let ready = [
        "wait",
        "-n",
        "openfaas",
        "asyncqueue/faas-request",
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    let _ = kubectl(&ready);
    let queue = Queue::create("external", "{timeout: 1m}");
    apply(&secret(queue.name(), "nats", &data));
    queue.is("ready", |queue| is_true(queue, "Ready")).await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let call = Gateway::connect().submit(queue.name(), "fast").await;
    assert_eq!(call.status, 202, "{call:?}");
    Gateway::connect().callback(queue.name(), &call.call_id).await;

    // While its stream can still be reached.
    drop(queue);
    drop(restored);
    let _ = kubectl(&["delete", "-n", "openfaas", "secret/nats"]);
}
