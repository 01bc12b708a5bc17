//! Network policies: which of the pods may reach which. The network of the test cluster enforces
//! none, so they are read as the specification says:
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

use std::sync::LazyLock;

use serde_json::{Value, json};
use test_support::cluster::repository;

use crate::support::{Labels, kustomize, kustomize_with, list, pods};

/// A pod as policies see it.
#[derive(Clone, Debug, PartialEq)]
struct Pod {
    namespace: &'static str,
    labels: Labels,
    /// Its named ports.
    ports: Vec<(String, u64)>,
}

static POLICIES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let objects = kustomize_with("standalone", "network-policies");
    let policies: Vec<_> =
        objects.into_iter().filter(|object| object["kind"] == "NetworkPolicy").collect();
    assert_eq!(policies.len(), 4);
    policies
});

/// A pod of a workload in `manifests/`.
fn pod(folder: &str, workload: &str) -> Pod {
    let objects = kustomize(folder);
    let found = pods(&objects).into_iter().find(|(name, _)| *name == workload);
    of_template("openfaas", found.unwrap().1)
}

/// A worker, as the operator builds it.
fn worker(namespace: &'static str) -> Pod {
    let golden = repository().join("operator/src/controller/build/golden.yaml");
    let golden: Value = serde_saphyr::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    of_template(namespace, &golden["spec"]["template"])
}

/// Any other pod.
fn other(namespace: &'static str) -> Pod {
    Pod { namespace, labels: Labels::new(), ports: vec![("http".to_owned(), 8080)] }
}

fn of_template(namespace: &'static str, template: &Value) -> Pod {
    let ports = list(&template["spec"]["containers"][0]["ports"]).iter();
    Pod {
        namespace,
        labels: template["metadata"]["labels"].as_object().unwrap().clone(),
        ports: ports
            .map(|port| {
                (port["name"].as_str().unwrap().to_owned(), port["containerPort"].as_u64().unwrap())
            })
            .collect(),
    }
}

/// Whether `from` may open a connection to a TCP port of `to`.
fn may_reach(from: &Pod, to: &Pod, port: &str) -> bool {
    let number = to.ports.iter().find(|(name, _)| name == port).unwrap().1;
    let allowed = |pod: &Pod, direction: &str, peers: &str, peer: &Pod| {
        let mut selecting = POLICIES
            .iter()
            .filter(|policy| {
                pod.namespace == policy["metadata"]["namespace"]
                    && selects(&policy["spec"]["podSelector"], &pod.labels)
                    && list(&policy["spec"]["policyTypes"]).contains(&json!(direction))
            })
            .peekable();
        // A pod that no policy selects is open.
        selecting.peek().is_none()
            || selecting.any(|policy| {
                list(&policy["spec"][direction.to_lowercase()]).iter().any(|rule| {
                    port_matches(&rule["ports"], port, number)
                        && (rule[peers].is_null()
                            || list(&rule[peers])
                                .iter()
                                .any(|wanted| peer_matches(wanted, peer, pod.namespace)))
                })
            })
    };
    allowed(from, "Egress", "to", to) && allowed(to, "Ingress", "from", from)
}

fn port_matches(ports: &Value, name: &str, number: u64) -> bool {
    ports.is_null()
        || list(ports).iter().any(|port| {
            port["protocol"] == "TCP" && (port["port"] == name || port["port"] == number)
        })
}

fn peer_matches(wanted: &Value, peer: &Pod, own_namespace: &str) -> bool {
    // A pod's address is in no block that a policy should name.
    if !wanted["ipBlock"].is_null() {
        return false;
    }
    let namespace = match &wanted["namespaceSelector"] {
        Value::Null => peer.namespace == own_namespace,
        selector => {
            let label = json!({ "kubernetes.io/metadata.name": peer.namespace });
            selects(selector, label.as_object().unwrap())
        }
    };
    namespace && selects(&wanted["podSelector"], &peer.labels)
}

/// Whether a label selector selects what has these labels; nothing said is everything.
pub(crate) fn selects(selector: &Value, labels: &Labels) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = list(&selector["matchExpressions"]).iter();
    equal.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| {
            let label = labels.get(expression["key"].as_str().unwrap());
            match expression["operator"].as_str().unwrap() {
                "Exists" => label.is_some(),
                "In" => label.is_some_and(|label| list(&expression["values"]).contains(label)),
                operator => panic!("{operator} is not understood here"),
            }
        })
}

#[test]
fn only_asyncqueue_pods_reach_nats() {
    for nats in [pod("nats", "nats"), pod("nats-cluster", "nats-cluster")] {
        for program in [
            pod("base", "asyncqueue-operator"),
            pod("base", "asyncqueue-gateway"),
            pod("drain-stan", "asyncqueue-drain-stan"),
            pod("drain-jetstream", "asyncqueue-drain-jetstream"),
            worker("openfaas"),
            worker("team"),
        ] {
            assert!(may_reach(&program, &nats, "client"), "{program:?}");
            assert!(!may_reach(&program, &nats, "monitor"), "{program:?}");
        }
        for stranger in [other("openfaas"), other("openfaas-fn"), other("monitoring")] {
            assert!(!may_reach(&stranger, &nats, "client"), "{stranger:?}");
        }
    }
}

#[test]
fn the_servers_of_a_cluster_reach_each_other() {
    let nats = pod("nats-cluster", "nats-cluster");
    assert!(may_reach(&nats, &nats, "cluster"));
    assert!(!may_reach(&worker("openfaas"), &nats, "cluster"));
}

#[test]
fn only_the_gateway_accepts_connections_from_all_pods() {
    for caller in [other("openfaas"), other("openfaas-fn"), other("default")] {
        assert!(may_reach(&caller, &pod("base", "asyncqueue-gateway"), "http"), "{caller:?}");
        for program in ["asyncqueue-operator", "asyncqueue-gateway"] {
            assert!(!may_reach(&caller, &pod("base", program), "metrics"), "{caller:?}");
        }
        assert!(!may_reach(&caller, &worker("openfaas"), "metrics"), "{caller:?}");
    }
}

#[test]
fn functions_are_reached_by_gateway_and_workers_and_not_by_the_rest() {
    let function = other("openfaas-fn");
    assert!(may_reach(&pod("base", "asyncqueue-gateway"), &function, "http"));
    assert!(may_reach(&worker("openfaas"), &function, "http"));
    assert!(!may_reach(&pod("base", "asyncqueue-operator"), &function, "http"));
    assert!(!may_reach(&pod("nats", "nats"), &function, "http"));
}

#[test]
fn monitoring_reads_all_metrics_and_keda_depths_and_those_of_nats() {
    let (prometheus, keda) = (other("monitoring"), other("keda"));
    let programs =
        [pod("base", "asyncqueue-operator"), pod("base", "asyncqueue-gateway"), worker("openfaas")];
    for program in &programs {
        assert!(may_reach(&prometheus, program, "metrics"), "{program:?}");
        // KEDA reads the depth of queues, which the operator serves at the same port.
        let is_operator = *program == programs[0];
        assert_eq!(may_reach(&keda, program, "metrics"), is_operator, "{program:?}");
    }
    for reader in [prometheus, keda] {
        assert!(may_reach(&reader, &pod("nats", "nats"), "monitor"), "{reader:?}");
    }
}
