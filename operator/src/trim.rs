//! What is kept of objects that are watched: what somebody reads. There may be thousands of them.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;

use crate::{
    account::Account,
    controller::{build::QUEUE_LABEL, fingerprint::Fingerprint, status::is_failure},
    crd::AsyncQueue,
    functions::{ANNOTATIONS, FUNCTION_LABEL},
    openfaas::Function,
    workload::Workload,
};

/// What `kubectl apply` writes for itself: all that it was given, once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Of an `AsyncQueue`, all but what is there twice.
pub(crate) fn trim_queue(queue: &mut AsyncQueue) {
    if let Some(annotations) = &mut queue.metadata.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            queue.metadata.annotations = None;
        }
    }
}

/// Of an account of workers, whose it is. What we set is in its fingerprint.
pub(crate) fn trim_account(account: &mut Account) {
    account.fingerprint = Fingerprint::of(&account.metadata, account.automount_service_account_token);
    account.metadata.labels = None;
    account.metadata.annotations = None;
}

/// Of a Deployment that is not ours, what makes it a function. Of ours, what is known of its workers: what we set is in its
/// fingerprint, but for the spec, of which [`crate::controller::verified`] knows.
pub(crate) fn trim_deployment(deployment: &mut Workload) {
    if deployment.labels().contains_key(QUEUE_LABEL) {
        deployment.fingerprint = Fingerprint::of(&deployment.metadata, ());
        deployment.metadata.labels = None;
        deployment.metadata.annotations = None;
        deployment.spec = None;
        if let Some(conditions) = deployment.status.as_mut().and_then(|status| status.conditions.as_mut()) {
            conditions.retain(is_failure);
        }
        return;
    }
    deployment.status = None;
    deployment.metadata.labels = None;
    deployment.metadata.annotations = None;
    if let Some(spec) = &mut deployment.spec {
        let pods = &mut spec.template.metadata;
        pods.labels.retain(|name, _| name == FUNCTION_LABEL);
        pods.annotations.retain(|name, _| name.starts_with(ANNOTATIONS));
    }
}

/// Of a Service, its ports and what makes it a function.
pub(crate) fn trim_service(service: &mut Service) {
    service.status = None;
    service.metadata.labels = None;
    service.annotations_mut().retain(|name, _| name.starts_with(ANNOTATIONS));
    let ports = service.spec.take().and_then(|spec| spec.ports);
    service.spec = Some(ServiceSpec { ports, ..ServiceSpec::default() });
}

/// Of an `OpenFaaS` Function, what its spec says in annotations.
pub(crate) fn trim_function(function: &mut Function) {
    function.metadata.labels = None;
    function.metadata.annotations = None;
    if let Some(annotations) = &mut function.spec.annotations {
        annotations.retain(|name, _| name.starts_with(ANNOTATIONS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, functions::index};

    #[test]
    fn what_is_kept_makes_the_same_function() {
        let mut service = fixtures::service("f", Some("of-service"), 80);
        let mut deployment = fixtures::function("f", Some("of-pods"));
        let mut function = fixtures::openfaas_function("f", Some("of-function"));
        let before = index([&service], [&deployment], [&function]);
        let pods = &mut deployment.spec.as_mut().unwrap().template.metadata;
        for (labels, annotations) in [
            (&mut pods.labels, &mut pods.annotations),
            (
                service.metadata.labels.get_or_insert_default(),
                service.metadata.annotations.get_or_insert_default(),
            ),
            (
                function.metadata.labels.get_or_insert_default(),
                function.metadata.annotations.get_or_insert_default(),
            ),
        ] {
            labels.insert("app".to_owned(), "f".to_owned());
            annotations.insert("kubectl".to_owned(), "much".to_owned());
        }
        trim_service(&mut service);
        trim_deployment(&mut deployment);
        trim_function(&mut function);
        assert_eq!(index([&service], [&deployment], [&function]), before);
        assert_eq!((service.labels().len(), service.annotations().len()), (0, 1));
        assert_eq!(function.annotations().len(), 0);
        let pods = deployment.spec.unwrap().template.metadata;
        assert_eq!((pods.labels.len(), pods.annotations.len()), (1, 1));
    }
}
