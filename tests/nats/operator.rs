//! How the operator starts where there is no Kubernetes.

use test_support::program;

#[tokio::test]
async fn an_operator_that_does_not_know_where_its_lease_is_ends_at_once_and_says_what_to_set() {
    let ended = program::run("asyncqueue-operator", &[], &[]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("POD_NAMESPACE") && ended.stderr.contains("leader_elect"),
        "{}",
        ended.stderr
    );
}
