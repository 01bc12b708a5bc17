//! Two operators, and one that may not see all there is.

use std::time::{Duration, Instant};

use serde_json::Value;
use test_support::{
    cluster::{
        Namespace, PODS, PortForward, Stopped, apply, command, get, is_true, kubectl, object_is,
    },
    process::{in_pod, peak_resident_bytes, resident_bytes, signal},
    raw,
    wait::until_in,
};

const DEPLOYMENT: &str = "deployment/asyncqueue-operator";

/// What manifests/README.md says of how long there is no leader, and a bit for this test to see it.
const TAKEOVER: Duration = Duration::from_secs(17 + 2);

/// An API server away for longer than a leader waits for it.
const AWAY: Duration = Duration::from_secs(15);

/// What kubectl is asked to print of pods: each, and how often its container has started again.
const RESTARTS: &str =
    "-o=custom-columns=POD:.metadata.name,RESTARTS:.status.containerStatuses[*].restartCount";

#[tokio::test]
async fn a_standby_writes_nothing_and_takes_over_when_the_leader_is_gone() {
    let namespace = Namespace::create("standby");
    let name = &namespace.name;
    queue(name, name);
    object_is(name, &format!("asyncqueue/{name}"), "ready", |queue| is_true(queue, "Ready")).await;
    scale(2).await;
    for force in [false, true] {
        let leader = leader().await;
        let standby = pods().into_iter().find(|pod| *pod != leader).unwrap();
        assert_eq!(metric(&leader, "asyncqueue_operator_leader").await, 1);
        assert_eq!(metric(&standby, "asyncqueue_operator_leader").await, 0);
        assert_eq!(metric(&standby, "asyncqueue_operator_reconciliations_total").await, 0);
        // The standby has counted nothing either, and says who has.
        let path = format!("/depth/{name}/{name}");
        let counted = until_in(PODS, "the leader counts", async || {
            Some(http_get(&leader, &path).await).filter(|answer| answer.status == 200)
        })
        .await;
        assert_eq!(counted.json()["depth"], 0);
        let redirected = http_get(&standby, &path).await;
        let address = get("openfaas", &format!("pod/{leader}")).unwrap()["status"]["podIP"].clone();
        let location = format!("http://{}:8083{path}", address.as_str().unwrap());
        assert_eq!((redirected.status, redirected.header("location")), (307, &*location));

        let before = get(name, &format!("deployment/{name}-worker")).unwrap()["metadata"].clone();
        let pod = format!("pod/{leader}");
        let how: &[&str] = if force { &["--grace-period=0", "--force"] } else { &["--wait=false"] };
        let _ = kubectl(&[&["delete", "-n", "openfaas", &pod], how].concat());
        // The one that stood by, or the one that comes for the one that went.
        let what = "another one holds the Lease";
        let next = until_in(PODS, what, async || holder().filter(|holder| *holder != leader)).await;
        // What it takes over is left as it is, and what comes is seen to.
        let other = format!("{name}-{}", if force { "b" } else { "a" });
        queue(name, &other);
        object_is(name, &format!("asyncqueue/{other}"), "ready", |queue| is_true(queue, "Ready"))
            .await;
        assert!(metric(&next, "asyncqueue_operator_reconciliations_total").await > 0);
        let after = get(name, &format!("deployment/{name}-worker")).unwrap()["metadata"].clone();
        assert_eq!((&after["uid"], &after["generation"]), (&before["uid"], &before["generation"]));
        scale(2).await;
    }
    scale(1).await;
}

#[tokio::test]
async fn invented_workers_and_advisories_take_bounded_memory() {
    /// How many messages, and how long the name of a worker in them, which is the most of each.
    const FLOODS: [(usize, usize); 2] = [(60_000, 200), (2_000, 32 * 1024)];
    /// For what the operator keeps of the flood: the workers that one queue can have, the
    /// advisories that wait, and what is being read.
    const ROOM: u64 = 48 << 20;
    let namespace = Namespace::create("flooded");
    let (name, object) = (&namespace.name, format!("asyncqueue/{}", namespace.name));
    queue(name, name);
    object_is(name, &object, "ready", |queue| is_true(queue, "Ready")).await;
    scale(1).await;
    let pod = leader().await;
    let operator = in_pod(&pod, "asyncqueue-operator").expect("the leader runs on this node");
    let forward = PortForward::to("openfaas", "service/nats", 4222);
    let client = async_nats::connect(forward.addr().to_string()).await.unwrap();
    let before = resident_bytes(operator);
    let messages = FLOODS.into_iter().flat_map(|(count, length)| {
        let long = "w".repeat(length);
        (0..count).map(move |number| (number, long.clone()))
    });
    for (number, long) in messages {
        let stats = format!(r#"{{"worker":"{long}{number}","running":1,"maxInflight":1}}"#);
        let report =
            format!(r#"{{"outcome":"accepted","functions":["invented-{number}.{name}"]}}"#);
        let messages = [
            (format!("asyncqueue.stats.invented-{number}"), &stats),
            (format!("asyncqueue.stats.{name}"), &stats),
            (format!("$JS.EVENT.ADVISORY.STREAM.DELETED.invented-{number}"), &stats),
            (format!("asyncqueue.unknown-functions.invented-{number}"), &report),
            (format!("asyncqueue.unknown-functions.{name}"), &report),
        ];
        for (subject, payload) in messages {
            client.publish(subject, payload.clone().into()).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    // It goes on with its work.
    let _ = kubectl(&[
        "patch",
        "-n",
        name,
        &object,
        "--type=merge",
        "-p",
        r#"{"spec":{"maxInflight":7}}"#,
    ]);
    object_is(name, &object, "reconciled again", |queue| {
        queue["status"]["observedGeneration"] == 2
    })
    .await;
    let peak = peak_resident_bytes(operator);
    assert!(peak < before + ROOM, "{before} bytes before, {peak} at most");
    assert_eq!(in_pod(&pod, "asyncqueue-operator"), Some(operator), "it was restarted");
}

#[tokio::test]
async fn a_leader_that_stands_still_is_followed_and_leads_no_more() {
    scale(2).await;
    let stopped = leader().await;
    let process = in_pod(&stopped, "asyncqueue-operator").expect("the leader runs on this node");
    signal(process, "STOP");
    let begun = Instant::now();
    let what = "another one holds the Lease";
    let next = until_in(PODS, what, async || holder().filter(|holder| *holder != stopped)).await;
    let took = begun.elapsed();
    signal(process, "CONT");
    assert!(took < TAKEOVER, "{took:?}");
    // It ends, and starts again as one that stands by.
    until_in(PODS, "the old leader started again", async || (restarts(&stopped) > 0).then_some(()))
        .await;
    scale(2).await;
    assert_eq!(metric(&stopped, "asyncqueue_operator_leader").await, 0);
    assert_eq!(holder(), Some(next));
    scale(1).await;
}

#[tokio::test]
async fn operator_waits_for_an_unavailable_api_server() {
    let namespace = Namespace::create("no-api");
    let name = &namespace.name;
    let operator = leader().await;
    let before = restarts(&operator);
    let others = || {
        kubectl(&[
            "get",
            "pods",
            "-n",
            "openfaas",
            "-l=app.kubernetes.io/name!=asyncqueue-operator",
            RESTARTS,
        ])
    };
    let others_before = others();
    assert!(others_before.contains("asyncqueue-gateway"), "{others_before}");
    {
        let _away = Stopped::component("kube-apiserver");
        tokio::time::sleep(AWAY).await;
    }
    // A leader that can't renew its lease ends, since another may lead by then, and starts again.
    until_in(PODS, "the operator started again", async || {
        (restarts(&operator) > before).then_some(())
    })
    .await;
    scale(1).await;
    queue(name, name);
    object_is(name, &format!("asyncqueue/{name}"), "ready", |queue| is_true(queue, "Ready")).await;
    assert_eq!(others(), others_before);
}

#[tokio::test]
async fn objects_of_an_earlier_queue_are_replaced_without_gc() {
    let namespace = Namespace::create("left");
    let name = &namespace.name;
    let account = format!("{name}-worker");
    {
        // It has the garbage collector, which would delete what has no owner.
        let _away = Stopped::component("kube-controller-manager");
        apply(&format!(
            "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {account}, \
             namespace: {name}, labels: {{asyncqueue.io/queue: {name}}}, \
             ownerReferences: [{{apiVersion: asyncqueue.io/v1alpha1, kind: AsyncQueue, \
             name: {name}, uid: 00000000-0000-4000-8000-000000000000, controller: true}}]}}}}"
        ));
        queue(name, name);
        let uid = object_is(name, &format!("asyncqueue/{name}"), "seen", |queue| {
            queue["status"].is_object()
        })
        .await["metadata"]["uid"]
            .take();
        object_is(name, &format!("serviceaccount/{account}"), "of the new queue", |account| {
            account["metadata"]["ownerReferences"][0]["uid"] == uid
        })
        .await;
    }
    object_is(name, &format!("asyncqueue/{name}"), "ready", |queue| is_true(queue, "Ready")).await;
}

#[tokio::test]
async fn an_operator_that_may_not_see_all_there_is_empties_no_directory() {
    let namespace = Namespace::create("denied");
    let name = &namespace.name;
    queue(name, name);
    apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: {name}, annotations: \
         {{com.openfaas.queue: {name}}}}}, spec: {{ports: [{{port: 80}}]}}}}"
    ));
    let known = |queue: &Value| queue["status"]["functions"].as_u64() == Some(1);
    object_is(name, &format!("asyncqueue/{name}"), "its function known", known).await;

    let rules = kubectl(&["get", "clusterrole", "asyncqueue-operator", "-o", "jsonpath={.rules}"]);
    let without: Vec<Value> = serde_json::from_str::<Vec<Value>>(&rules)
        .unwrap()
        .into_iter()
        .filter(|rule| rule["resources"][0] != "services")
        .collect();
    set_rules(&Value::from(without).to_string());
    let _ = kubectl(&[
        "delete",
        "pods",
        "-n",
        "openfaas",
        "-l=app.kubernetes.io/name=asyncqueue-operator",
    ]);
    let what = "the operator says what it may not see";
    until_in(PODS, what, async || {
        let selector = "-l=app.kubernetes.io/name=asyncqueue-operator";
        let log = kubectl(&["logs", "-n", "openfaas", selector, "--tail=50", "--ignore-errors"]);
        log.contains("RBAC denies it, grant list and watch on services").then_some(())
    })
    .await;
    object_is("openfaas", DEPLOYMENT, "not ready", |operator| {
        operator["status"].get("readyReplicas").is_none()
    })
    .await;

    // The gateway still knows where calls of the function go.
    let gateway = PortForward::to("openfaas", "service/asyncqueue-gateway", 8080);
    let target = format!("/async-function/web.{name}");
    let answer = raw::request(gateway.addr(), "POST", &target, &[], b"").await;
    assert_eq!(answer.status, 202);
    set_rules(&rules);
    object_is("openfaas", DEPLOYMENT, "ready again", |operator| {
        operator["status"]["readyReplicas"].as_u64() == Some(1)
    })
    .await;
    let queued = |queue: &Value| queue["status"]["pending"].as_u64() == Some(1);
    object_is(name, &format!("asyncqueue/{name}"), "the call in it", queued).await;
}

/// An `AsyncQueue` without workers.
fn queue(namespace: &str, name: &str) {
    apply(&format!(
        "{{apiVersion: asyncqueue.io/v1alpha1, kind: AsyncQueue, \
         metadata: {{namespace: {namespace}, name: {name}}}, spec: {{replicas: 0}}}}"
    ));
}

fn set_rules(rules: &str) {
    let patch = format!("{{\"rules\": {rules}}}");
    let _ = kubectl(&["patch", "clusterrole", "asyncqueue-operator", "--type=merge", "-p", &patch]);
}

async fn scale(replicas: usize) {
    let _ = kubectl(&["scale", "-n", "openfaas", DEPLOYMENT, &format!("--replicas={replicas}")]);
    let what = format!("{replicas} operators ready, and no other");
    until_in(PODS, &what, async || {
        let operator = get("openfaas", DEPLOYMENT)?;
        let ready = operator["status"]["readyReplicas"].as_u64() == Some(replicas as u64);
        (ready && pods().len() == replicas).then_some(())
    })
    .await;
}

/// How often the container of a pod has started again.
fn restarts(pod: &str) -> u64 {
    let Some(pod) = get("openfaas", &format!("pod/{pod}")) else { return 0 };
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
}

/// The operator's pods.
fn pods() -> Vec<String> {
    let selector = "-l=app.kubernetes.io/name=asyncqueue-operator";
    let names = kubectl(&[
        "get",
        "pods",
        "-n",
        "openfaas",
        selector,
        "-o",
        "jsonpath={.items[*].metadata.name}",
    ]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Who the Lease says leads.
fn holder() -> Option<String> {
    let lease = get("openfaas", "lease/asyncqueue-operator")?;
    // No holder, once it was given up.
    let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
    holder.map(str::to_owned)
}

/// The pod that leads.
async fn leader() -> String {
    until_in(PODS, "a pod leads", async || holder().filter(|holder| pods().contains(holder))).await
}

/// What a pod answers.
async fn http_get(pod: &str, path: &str) -> raw::RawResponse {
    let forward = PortForward::to("openfaas", &format!("pod/{pod}"), 8083);
    raw::request(forward.addr(), "GET", path, &[], b"").await
}

/// A number that a pod exports.
async fn metric(pod: &str, name: &str) -> u64 {
    let path = format!("/api/v1/namespaces/openfaas/pods/{pod}:8083/proxy/metrics");
    let what = format!("{pod} exports {name}");
    until_in(PODS, &what, async || {
        // A pod may lead before its address is known.
        let answer = command("kubectl").args(["get", "--raw", &path]).output().ok()?;
        let metrics = String::from_utf8(answer.stdout).ok()?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    })
    .await
}
