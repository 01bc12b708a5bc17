//! Workers' pods, and the objects next to them.

use test_support::cluster::{get, kubectl, object_is, object_is_gone};

use crate::support::Queue;

#[tokio::test]
async fn pods_have_the_settings_of_the_spec() {
    let worker = "{podLabels: {team: a}, podAnnotations: {note: b}, env: [{name: RUST_LOG, \
                  value: debug}], nodeSelector: {kubernetes.io/os: linux}, \
                  imagePullSecrets: [{name: registry}], tolerations: [{key: queues, \
                  operator: Exists}], resources: {requests: {cpu: '0.01', memory: 32768Ki}}, \
                  affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: \
                  [{weight: 1, podAffinityTerm: {topologyKey: kubernetes.io/hostname, \
                  labelSelector: {matchLabels: {team: a}}}}]}}}";
    let queue = Queue::ready("pods", &format!("{{verbose: true, worker: {worker}}}")).await;
    let selector = format!("-l=team=a,asyncqueue.io/queue={}", queue.name());
    let pods = kubectl(&["get", "pods", "-n", queue.name(), &selector, "-o", "json"]);
    let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
    let pod = &pods["items"][0];
    assert_eq!(pod["metadata"]["annotations"]["note"], "b");
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"]["kubernetes.io/os"], "linux");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
    assert_eq!(spec["tolerations"][0]["key"], "queues");
    assert_eq!(spec["serviceAccountName"], format!("{}-worker", queue.name()));
    assert_eq!(spec["topologySpreadConstraints"][0]["topologyKey"], "kubernetes.io/hostname");
    assert!(spec["affinity"]["podAntiAffinity"].is_object());
    // No token: nothing is mounted without being asked for.
    assert!(spec["volumes"].as_array().is_none_or(Vec::is_empty), "{}", spec["volumes"]);
    // Settled: quantities that are written another way are no reason to write again.
    let before = get(queue.name(), &queue.worker()).unwrap()["metadata"]["generation"].clone();
    queue.is("looked at again", |queue| queue["status"]["readyReplicas"].as_u64() == Some(1)).await;
    assert_eq!(get(queue.name(), &queue.worker()).unwrap()["metadata"]["generation"], before);
}

#[tokio::test]
async fn several_workers_have_a_budget_and_deleted_objects_return() {
    let queue = Queue::ready("budget", "{}").await;
    let (account, budget) = (
        format!("serviceaccount/{}-worker", queue.name()),
        format!("poddisruptionbudget/{}-worker", queue.name()),
    );
    assert_eq!(get(queue.name(), &account).unwrap()["automountServiceAccountToken"], false);
    assert_eq!(get(queue.name(), &budget), None);
    let scaled = format!("asyncqueue/{}", queue.name());
    let _ = kubectl(&["scale", "-n", queue.name(), &scaled, "--replicas=2"]);
    let made =
        object_is(queue.name(), &budget, "made", |budget| budget["spec"]["maxUnavailable"] == 1)
            .await;
    // A spec without replicas leaves what an autoscaler, or kubectl scale, has set.
    queue.apply("{maxInflight: 2}");
    queue.is("still two", |queue| queue["spec"]["replicas"].as_u64() == Some(2)).await;

    for object in [&account, &budget] {
        let uid = get(queue.name(), object).unwrap()["metadata"]["uid"].clone();
        let _ = kubectl(&["delete", "-n", queue.name(), object]);
        object_is(queue.name(), object, "recreated", |object| object["metadata"]["uid"] != uid)
            .await;
    }
    assert_eq!(made["spec"]["selector"]["matchLabels"]["asyncqueue.io/queue"], queue.name());
    let _ = kubectl(&["scale", "-n", queue.name(), &scaled, "--replicas=1"]);
    object_is_gone(queue.name(), &budget).await;
    // With an account that is there already, it needs none of its own.
    queue.apply("{maxInflight: 2, worker: {serviceAccountName: default}}");
    object_is_gone(queue.name(), &account).await;
}
