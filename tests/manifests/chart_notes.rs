//! What Helm prints after an installation.

use test_support::{chart::Example, tools::output};

use crate::support::helm_command;

/// The notes of the chart with these arguments.
fn notes(arguments: &[&str]) -> String {
    let install = ["install", "asyncqueue", "--namespace=openfaas", "--dry-run=client"];
    // Not the cluster of the user.
    let mut helm = helm_command("helm", &install);
    let printed = output(helm.args(arguments).env("KUBECONFIG", "/dev/null"));
    printed.split_once("\nNOTES:\n").unwrap().1.to_owned()
}

#[test]
fn notes_say_how_the_gateway_is_reached() {
    for (arguments, expected) in [
        ("gateway.service.port=80", "http://asyncqueue-gateway.openfaas:80/async-function/NAME"),
        ("gateway.service.type=NodePort", "{.spec.ports[0].nodePort}"),
        ("gateway.service.type=LoadBalancer", "{.status.loadBalancer.ingress[0]}"),
        ("gateway.ingress.enabled=true", "http://asyncqueue.example.com/async-function/NAME"),
    ] {
        let notes = notes(&[&format!("--set={arguments}")]);
        assert!(notes.contains(expected), "{arguments}: {notes}");
        assert!(notes.contains("helm test asyncqueue --namespace openfaas"), "{notes}");
    }
}

#[test]
fn notes_name_what_the_user_has_to_create() {
    let default = notes(&[]);
    assert!(default.contains("reachable as nats.openfaas:4222"), "{default}");
    assert!(default.contains("asyncqueue/faas-request"), "{default}");
    let password = notes(&[&Example::named("nats-password").argument()]);
    assert!(password.contains("the Secret nats-login. Create it"), "{password}");
    let registry = notes(&[&Example::named("private-registry").argument()]);
    assert!(registry.contains("Create the pull secrets"), "{registry}");
    let second = notes(&[&Example::named("second-release").argument()]);
    assert!(second.contains("does not install the CRD"), "{second}");
    assert!(second.contains("watches only these namespaces: team-b"), "{second}");
}
