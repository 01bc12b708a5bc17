//! How the operator starts where there is no Kubernetes.

use test_support::program;

#[tokio::test]
async fn operator_without_lease_namespace_ends_with_the_remedy() {
    let ended = program::run("asyncqueue-operator", &[], &[]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("POD_NAMESPACE") && ended.stderr.contains("leader_elect"),
        "{}",
        ended.stderr
    );
}
