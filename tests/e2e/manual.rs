//! `kubectl explain` is the user manual.

use test_support::cluster::kubectl;

#[tokio::test]
async fn every_field_explains_itself() {
    let explained = kubectl(&["explain", "asyncqueue.spec", "--recursive=false"]);
    for field in [
        "maxInflight",
        "timeout",
        "replicas",
        "retry",
        "deadLetter",
        "callback",
        "limits",
        "stream",
        "consumer",
        "invoke",
        "suspend",
        "verbose",
        "worker",
        "nats",
        "deletionPolicy",
    ] {
        assert!(explained.contains(field), "{field} is not in {explained}");
    }
    for path in [
        "asyncqueue",
        "asyncqueue.spec",
        "asyncqueue.spec.maxInflight",
        "asyncqueue.spec.timeout",
        "asyncqueue.spec.stream.duplicateWindow",
        "asyncqueue.spec.consumer.ackWait",
        "asyncqueue.spec.limits.maxAge",
        "asyncqueue.spec.callback.signingSecretRef.key",
        "asyncqueue.spec.worker.topologySpreadConstraints",
        "asyncqueue.status",
        "asyncqueue.status.inflight",
    ] {
        let explained = kubectl(&["explain", path]);
        assert!(!explained.contains("<empty>"), "{path} has no description: {explained}");
    }
}
