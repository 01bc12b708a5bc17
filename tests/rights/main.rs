//! Least privilege: what the operator asked of the API server while all other end-to-end tests ran,
//! next to its rules.
//!
//! Runs after them, as the last part of `tests/run e2e`: what no test makes the operator do is not
//! needed, as far as this test knows.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use test_support::{
    cluster::{kubectl, node_file},
    rights::{difference, grants, requests},
};

const OPERATOR: (&str, &str) = ("openfaas", "asyncqueue-operator");

/// Where the API server writes down what the operator asks of it: node/etc/kubernetes/audit.yaml
/// says what.
const AUDIT_LOG: &str = "var/log/audit.json";

#[test]
fn the_operator_has_the_rights_that_it_uses_and_no_others() {
    let roles = "clusterroles,roles,clusterrolebindings,rolebindings";
    let roles: Value =
        serde_json::from_str(&kubectl(&["get", roles, "--all-namespaces", "--output=json"]))
            .unwrap();
    let grants = grants(roles["items"].as_array().unwrap(), OPERATOR);
    let requests = requests(&node_file(AUDIT_LOG), OPERATOR).unwrap();
    println!("{} rights, {} different requests", grants.len(), requests.len());
    assert!(
        !grants.is_empty() && !requests.is_empty(),
        "there is no operator, or no audit log of it"
    );
    let difference = difference(&grants, &requests);
    assert!(
        difference.is_empty(),
        "the operator's rights are not what it uses (manifests/base/rbac.yaml). Do all end-to-end \
         tests run before this one, on a cluster that has seen no other version of the operator?\n\
         {difference}"
    );
}
