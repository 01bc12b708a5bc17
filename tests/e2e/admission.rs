//! What the API server refuses, and how it says so.

use test_support::{
    bad_inputs::objects::{SPECS, Spec},
    cluster::{Namespace, apply, kubectl_refused},
};

use crate::support::object;

const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

#[tokio::test]
async fn a_bad_queue_is_refused_with_the_field_and_the_rule() {
    let namespace = Namespace::create("admission");
    for Spec { spec, field, rule } in SPECS {
        let complaint = kubectl_refused(&APPLY, &object(&namespace.name, "bad", spec));
        assert!(complaint.contains(field) && complaint.contains(rule), "{spec}: {complaint}");
    }
    let complaint = kubectl_refused(&APPLY, &object(&namespace.name, "dots.in.it", "{}"));
    assert!(complaint.contains("a queue's name must have 1 to 40"), "{complaint}");
}

#[tokio::test]
async fn immutable_field_is_refused_with_the_remedy() {
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
