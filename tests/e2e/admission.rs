//! What the API server refuses, and how it says so.

use asyncqueue_tests::cluster::{Namespace, apply, kubectl_refused};

use crate::support::object;

const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

#[tokio::test]
async fn a_bad_queue_is_refused_with_the_field_and_the_rule() {
    let namespace = Namespace::create("admission");
    for (spec, field, rule) in [
        ("{maxInflight: 0}", "spec.maxInflight", "greater than or equal to 1"),
        ("{maxInflight: 10001}", "spec.maxInflight", "less than or equal to 10000"),
        ("{timeout: 15}", "spec.timeout", "expected string"),
        ("{timeout: 15 minutes}", "spec.timeout", "15m"),
        ("{timeout: 0s}", "spec.timeout", "timeout"),
        ("{consumer: {ackWait: 1ms}}", "spec.consumer.ackWait", "from 1s"),
        ("{replicas: -1}", "spec.replicas", "greater than or equal to 0"),
        ("{stream: {name: a.b}}", "spec.stream.name", "1 to 64"),
        ("{stream: {replicas: 6}}", "spec.stream.replicas", "less than or equal to 5"),
        ("{stream: {storage: Tape}}", "spec.stream.storage", "File"),
        ("{deletionPolicy: Never}", "spec.deletionPolicy", "Retain"),
        ("{retry: {minBackoff: 2m, maxBackoff: 1m}}", "spec.retry", "minBackoff must not be more"),
        ("{retry: {statusCodes: [700]}}", "spec.retry.statusCodes[0]", "less than or equal to 599"),
        ("{retry: {jitter: Some}}", "spec.retry.jitter", "Equal"),
        ("{deadLetter: {maxAge: 1s}}", "spec.deadLetter.maxAge", "from 1m"),
        ("{limits: {maxAge: 1m}}", "spec.limits.maxAge", "must not be less than stream.duplicateWindow"),
        ("{limits: {maxBytes: much}}", "spec.limits.maxBytes", "should match"),
        ("{limits: {maxPayload: 0}}", "spec.limits.maxPayload", "greater than or equal to 1"),
        ("{callback: {allowedHosts: [10.0.0.0/99]}}", "spec.callback.allowedHosts", "networks as"),
        ("{callback: {signingSecretRef: {name: a}}}", "spec.callback.signingSecretRef.key", "Required"),
        ("{invoke: {gatewayUrl: 'http://g'}}", "spec.invoke", "needs via: Gateway"),
        ("{worker: {env: [{name: nats_url, value: x}]}}", "spec.worker.env", "set the field instead"),
        ("{worker: {podLabels: {asyncqueue.io/queue: x}}}", "spec.worker.podLabels", "by which the operator"),
        ("{worker: {affinity: {nodeAfinity: {}}}}", "nodeAfinity", "field not declared in schema"),
        ("{worker: {tolerations: [{tolerationSeconds: soon}]}}", "tolerationSeconds", "expected"),
        ("{maxInflght: 1}", "spec.maxInflght", "field not declared in schema"),
    ] {
        let complaint = kubectl_refused(&APPLY, &object(&namespace.name, "bad", spec));
        assert!(complaint.contains(field) && complaint.contains(rule), "{spec}: {complaint}");
    }
    let complaint = kubectl_refused(&APPLY, &object(&namespace.name, "dots.in.it", "{}"));
    assert!(complaint.contains("a queue's name must have 1 to 40"), "{complaint}");
}

#[tokio::test]
async fn what_can_not_be_changed_is_refused_with_what_to_do() {
    let namespace = Namespace::create("immutable");
    let name = &namespace.name;
    apply(&object(name, name, "{replicas: 0}"));
    for (spec, rule) in [
        ("{stream: {name: another}}", "spec.stream.name can't be changed"),
        ("{stream: {storage: Memory}}", "storage can't be changed"),
        ("{stream: {subject: another}}", "spec.stream.subject can't be changed"),
    ] {
        let complaint = kubectl_refused(&APPLY, &object(name, name, spec));
        assert!(
            complaint.contains(rule) && complaint.contains("create another queue"),
            "{spec}: {complaint}"
        );
    }
}
