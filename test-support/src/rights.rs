//! What a service account may do next to what it does: the rules of its roles, and the API server's
//! audit log. Pure.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

/// The annotation of an audited request that says what the authorizer decided, and the two words it
/// has for that.
/// <https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/>
const DECISION: &str = "authorization.k8s.io/decision";
const ALLOWED: &str = "allow";
const FORBIDDEN: &str = "forbid";

/// How the API server refuses a patch that may change an object but not create it: while it is
/// handled, so that the decision on the request was another one.
const MAY_NOT_CREATE: &str = "cannot create resource";

/// The HTTP code of a patch that created its object (server-side apply does), which takes the right
/// to create it too.
const CREATED: u64 = 201;

/// One verb on one kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// The API group; empty for the core one.
    pub group: String,
    /// The plural name, with a subresource as rules write it: `asyncqueues/status`.
    pub resource: String,
    /// As rules write it: `get`, `deletecollection`.
    pub verb: String,
}

/// What a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The role whose rule it is: `ClusterRole asyncqueue-operator`.
    pub role: String,
    /// Where it counts; `None`: everywhere.
    pub namespace: Option<String>,
    /// The objects it is limited to; empty: all.
    pub names: BTreeSet<String>,
    /// What is allowed.
    pub act: Act,
}

/// What was asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Where; `None` for all namespaces at once, and for objects that are in none.
    pub namespace: Option<String>,
    /// The object; `None` for many, and for one that is to be created.
    pub name: Option<String>,
    /// What was asked.
    pub act: Act,
    /// Whether it was allowed.
    pub allowed: bool,
}

/// How rules and requests differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rules that no request needed.
    pub unused: Vec<Grant>,
    /// Requests that were denied, never allowed, and that no rule allows. One that was denied only
    /// before its rule existed does not count, nor does one that was allowed by a rule that is gone
    /// again, as users grant some.
    pub missing: Vec<Request>,
}

/// What a service account (`namespace`, `name`) is granted by all roles and bindings of the
/// cluster: the items of `kubectl get clusterroles,roles,clusterrolebindings,rolebindings
/// --all-namespaces`.
#[must_use]
pub fn grants(items: &[Value], account: (&str, &str)) -> Vec<Grant> {
    let bindings = items.iter().filter(|item| is_binding_of(item, account));
    let granted = bindings.flat_map(|binding| {
        let roles = items.iter().filter(move |role| is_role_of(role, binding));
        roles.flat_map(move |role| role_grants(role, &binding["metadata"]["namespace"]))
    });
    granted.collect()
}

/// The requests of the audit log, one JSON object a line, that a service account has made of
/// objects.
///
/// # Errors
///
/// A line that is not JSON.
pub fn requests(log: &str, account: (&str, &str)) -> serde_json::Result<BTreeSet<Request>> {
    let user = format!("system:serviceaccount:{}:{}", account.0, account.1);
    let mut requests = BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line)?;
        // Without an object it is about the API itself, which everybody may discover.
        if event["user"]["username"] == user.as_str() && event["objectRef"].is_object() {
            requests.extend(asked(&event));
        }
    }
    Ok(requests)
}

/// Compares what is granted with what was asked.
#[must_use]
pub fn difference(grants: &[Grant], requests: &BTreeSet<Request>) -> Difference {
    let is_used =
        |grant: &Grant| requests.iter().any(|request| request.allowed && grant.covers(request));
    let is_missing = |request: &&Request| {
        let granted = grants.iter().any(|grant| grant.covers(request));
        let allowed = Request { allowed: true, ..Request::clone(request) };
        !request.allowed && !granted && !requests.contains(&allowed)
    };
    Difference {
        unused: grants.iter().filter(|grant| !is_used(grant)).cloned().collect(),
        missing: requests.iter().filter(is_missing).cloned().collect(),
    }
}

fn is_binding_of(item: &Value, (namespace, name): (&str, &str)) -> bool {
    let is_account = |subject: &Value| {
        subject["kind"] == "ServiceAccount"
            && subject["namespace"] == namespace
            && subject["name"] == name
    };
    list(&item["subjects"]).iter().any(is_account)
}

fn is_role_of(item: &Value, binding: &Value) -> bool {
    let wanted = &binding["roleRef"];
    item["kind"] == wanted["kind"]
        && item["metadata"]["name"] == wanted["name"]
        && (item["kind"] == "ClusterRole"
            || item["metadata"]["namespace"] == binding["metadata"]["namespace"])
}

fn role_grants(role: &Value, namespace: &Value) -> Vec<Grant> {
    let label = format!("{} {}", word(&role["kind"]), word(&role["metadata"]["name"]));
    let mut grants = Vec::new();
    for rule in list(&role["rules"]) {
        for (group, resource, verb) in combinations(rule) {
            grants.push(Grant {
                role: label.clone(),
                namespace: text(namespace),
                names: list(&rule["resourceNames"]).iter().map(word).collect(),
                act: Act { group, resource, verb },
            });
        }
    }
    grants
}

fn combinations(rule: &Value) -> impl Iterator<Item = (String, String, String)> {
    list(&rule["apiGroups"]).iter().flat_map(move |group| {
        list(&rule["resources"]).iter().flat_map(move |resource| {
            list(&rule["verbs"]).iter().map(move |verb| (word(group), word(resource), word(verb)))
        })
    })
}

/// What an audited event asked for: mostly one thing.
fn asked(event: &Value) -> Vec<Request> {
    let object = &event["objectRef"];
    let resource = [word(&object["resource"]), word(&object["subresource"])];
    let resource =
        resource.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let act = Act { group: word(&object["apiGroup"]), resource, verb: word(&event["verb"]) };
    let (namespace, name) = (text(&object["namespace"]), text(&object["name"]));
    let request =
        |act, allowed| Request { namespace: namespace.clone(), name: name.clone(), act, allowed };
    let create = Act { verb: "create".to_owned(), ..act.clone() };

    let response = &event["responseStatus"];
    let is_patch = act.verb == "patch";
    match event["annotations"][DECISION].as_str() {
        Some(FORBIDDEN) => vec![request(act, false)],
        Some(ALLOWED) if is_patch && response["code"] == CREATED => {
            vec![request(act, true), request(create, true)]
        }
        Some(ALLOWED) if is_patch && word(&response["message"]).contains(MAY_NOT_CREATE) => {
            vec![request(act, true), request(create, false)]
        }
        Some(ALLOWED) => vec![request(act, true)],
        _ => Vec::new(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    text(value).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

// === impl Grant ===

impl Grant {
    fn covers(&self, request: &Request) -> bool {
        self.act == request.act
            && (self.namespace.is_none() || self.namespace == request.namespace)
            && (self.names.is_empty()
                || request.name.as_ref().is_some_and(|name| self.names.contains(name)))
    }
}

// === impl Difference ===

impl Difference {
    /// Whether the rules are what the requests need, and nothing else.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unused.is_empty() && self.missing.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for grant in &self.unused {
            writeln!(f, "unused: {} grants {}", grant.role, grant.act)?;
        }
        for request in &self.missing {
            let place = request.namespace.as_deref().unwrap_or("all namespaces");
            writeln!(f, "denied: {} in {place}, which no rule grants", request.act)?;
        }
        Ok(())
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{} {} ({group})", self.verb, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ACCOUNT: (&str, &str) = ("openfaas", "operator");

    fn role(kind: &str, namespace: Option<&str>, rules: &Value) -> Value {
        let metadata = json!({ "name": "operator", "namespace": namespace });
        json!({ "kind": kind, "metadata": metadata, "rules": rules })
    }

    fn binding(kind: &str, role: &str, namespace: Option<&str>, account: (&str, &str)) -> Value {
        json!({
            "kind": kind,
            "metadata": { "name": "operator", "namespace": namespace },
            "roleRef": { "kind": role, "name": "operator" },
            "subjects": [{ "kind": "ServiceAccount", "namespace": account.0, "name": account.1 }],
        })
    }

    fn rule(resources: &[&str], verbs: &[&str]) -> Value {
        json!([{ "apiGroups": ["apps"], "resources": resources, "verbs": verbs }])
    }

    fn event(
        verb: &str,
        resource: &str,
        namespace: &str,
        decision: &str,
        response: &Value,
    ) -> String {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        json!({
            "verb": verb,
            "user": { "username": "system:serviceaccount:openfaas:operator" },
            "objectRef": {
                "apiGroup": "apps", "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": "a",
            },
            "responseStatus": response,
            "annotations": { DECISION: decision },
        })
        .to_string()
    }

    /// The difference between these rules, in all namespaces, and these lines of the log.
    fn compared(rules: &Value, log: &[String]) -> Difference {
        let items = [
            role("ClusterRole", None, rules),
            binding("ClusterRoleBinding", "ClusterRole", None, ACCOUNT),
        ];
        difference(&grants(&items, ACCOUNT), &requests(&log.join("\n"), ACCOUNT).unwrap())
    }

    #[test]
    fn rules_that_are_used_and_enough_do_not_differ() {
        let log = [
            event("list", "deployments", "ns", "allow", &json!({ "code": 200 })),
            event("patch", "deployments/status", "ns", "allow", &json!({ "code": 200 })),
        ];
        let rules = json!([
            { "apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"] },
            { "apiGroups": ["apps"], "resources": ["deployments/status"], "verbs": ["patch"] },
        ]);
        assert_eq!(compared(&rules, &log).to_string(), "");
        assert!(compared(&rules, &log).is_empty());
    }

    #[test]
    fn each_verb_and_resource_of_a_rule_must_be_used() {
        let log = [event("list", "deployments", "ns", "allow", &json!({ "code": 200 }))];
        let difference = compared(&rule(&["deployments", "replicasets"], &["list", "watch"]), &log);
        assert_eq!(
            difference.to_string(),
            "unused: ClusterRole operator grants watch deployments (apps)\n\
             unused: ClusterRole operator grants list replicasets (apps)\n\
             unused: ClusterRole operator grants watch replicasets (apps)\n"
        );
    }

    #[test]
    fn denied_request_is_a_missing_rule_unless_added_since() {
        let log = [event("get", "deployments", "ns", "forbid", &json!({ "code": 403 }))];
        let difference = compared(&json!([]), &log);
        assert_eq!(
            difference.to_string(),
            "denied: get deployments (apps) in ns, which no rule grants\n"
        );
        let difference = compared(&rule(&["deployments"], &["get"]), &log);
        assert!(difference.missing.is_empty());
        // What was denied is not used.
        assert_eq!(difference.unused.len(), 1);
    }

    #[test]
    fn a_request_that_a_user_has_allowed_in_the_end_is_no_missing_rule() {
        let get =
            |decision: &str| event("get", "deployments", "ns", decision, &json!({ "code": 200 }));
        assert_eq!(compared(&json!([]), &[get("forbid")]).missing.len(), 1);
        assert!(compared(&json!([]), &[get("forbid"), get("allow")]).is_empty());
    }

    #[test]
    fn an_apply_that_creates_takes_the_right_to_create() {
        let created = event("patch", "deployments", "ns", "allow", &json!({ "code": 201 }));
        assert!(compared(&rule(&["deployments"], &["patch", "create"]), &[created]).is_empty());

        let message = "deployments.apps \"a\" is forbidden: User \"x\" cannot create resource \
                       \"deployments\"";
        let refused = event(
            "patch",
            "deployments",
            "ns",
            "allow",
            &json!({ "code": 403, "message": message }),
        );
        let difference = compared(&rule(&["deployments"], &["patch"]), &[refused]);
        assert_eq!(
            difference.to_string(),
            "denied: create deployments (apps) in ns, which no rule grants\n"
        );
    }

    #[test]
    fn a_refusal_for_another_reason_is_not_a_missing_rule() {
        let message = "namespace ns is being terminated";
        let refused =
            event("create", "events", "ns", "allow", &json!({ "code": 403, "message": message }));
        assert!(compared(&rule(&["events"], &["create"]), &[refused]).is_empty());
    }

    #[test]
    fn a_role_counts_in_the_namespace_of_its_binding_alone() {
        let rules = rule(&["deployments"], &["get"]);
        let items = [
            role("Role", Some("ns"), &rules),
            role("Role", Some("other"), &rules),
            binding("RoleBinding", "Role", Some("ns"), ACCOUNT),
        ];
        let grants = grants(&items, ACCOUNT);
        assert_eq!(grants.len(), 1);
        let get = |namespace: &str, decision: &str| {
            event("get", "deployments", namespace, decision, &json!({ "code": 200 }))
        };
        let log = [get("ns", "allow"), get("other", "forbid")].join("\n");
        let difference = difference(&grants, &requests(&log, ACCOUNT).unwrap());
        assert_eq!(
            difference.to_string(),
            "denied: get deployments (apps) in other, which no rule grants\n"
        );
    }

    #[test]
    fn a_cluster_role_counts_where_it_is_bound() {
        let rules = rule(&["deployments"], &["get"]);
        let items = [
            role("ClusterRole", None, &rules),
            binding("RoleBinding", "ClusterRole", Some("ns"), ACCOUNT),
            binding("RoleBinding", "ClusterRole", Some("theirs"), ("openfaas", "somebody-else")),
        ];
        let namespaces: Vec<_> =
            grants(&items, ACCOUNT).into_iter().map(|grant| grant.namespace).collect();
        assert_eq!(namespaces, [Some("ns".to_owned())]);
    }

    #[test]
    fn a_rule_for_named_objects_covers_no_others() {
        let mut rules = rule(&["deployments"], &["get"]);
        rules[0]["resourceNames"] = json!(["b"]);
        let get = [event("get", "deployments", "ns", "forbid", &json!({ "code": 403 }))];
        assert_eq!(compared(&rules, &get).missing.len(), 1);
        rules[0]["resourceNames"] = json!(["a"]);
        assert_eq!(compared(&rules, &get).missing.len(), 0);
    }

    #[test]
    fn requests_of_others_and_about_the_api_itself_do_not_count() {
        let other =
            event("get", "deployments", "ns", "forbid", &json!({})).replace("operator", "other");
        let api = json!({
            "verb": "get",
            "user": { "username": "system:serviceaccount:openfaas:operator" },
            "requestURI": "/version",
            "annotations": { DECISION: "allow" },
        });
        assert!(compared(&json!([]), &[other, api.to_string()]).is_empty());
    }
}
