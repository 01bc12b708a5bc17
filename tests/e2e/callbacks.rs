//! Results, signed with a Secret.

use serde_json::json;
use test_support::cluster::{apply, secret};

use crate::support::{Gateway, Queue};

#[tokio::test]
async fn a_result_is_signed_with_the_secret_that_the_queue_names() {
    let spec = "{callback: {signingSecretRef: {name: webhooks, key: secrets}, \
                allowedHosts: [10.0.0.0/8]}}";
    let queue = Queue::create("signed", spec);
    // The workers wait for it.
    let data = json!({ "secrets": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" });
    apply(&secret(queue.name(), "webhooks", &data));
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "fast").await;
    let result = gateway.callback(queue.name(), &call.call_id).await;
    let headers = &result["headers"];
    // CALL-ID_SEQUENCE_END-STATE
    let event = headers["webhook-id"].as_str().unwrap();
    assert!(event.starts_with(&call.call_id) && event.ends_with("_done"), "{event}");
    let signature = headers["webhook-signature"].as_str().unwrap();
    assert!(signature.starts_with("v1,"), "{signature}");
}
