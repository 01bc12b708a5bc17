//! Removes unused fields from objects that are otherwise kept as they are. There may be thousands
//! of them.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;

use crate::{
    cache::watch::Watched,
    crd::AsyncQueue,
    functions::{HEADLESS, openfaas::Function},
    labels::FUNCTION_ANNOTATION_PREFIX,
};

/// The annotation in which `kubectl apply` stores a copy of what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Watched for AsyncQueue {
    type Whole = Self;

    /// Keeps everything except the copy of `kubectl apply`.
    fn of(mut queue: Self) -> Self {
        if let Some(annotations) = &mut queue.metadata.annotations {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                queue.metadata.annotations = None;
            }
        }
        queue
    }
}

impl Watched for Service {
    type Whole = Self;

    /// Keeps its ports, whether it is headless, and what makes it a function.
    fn of(mut service: Self) -> Self {
        service.status = None;
        service.metadata.labels = None;
        service.annotations_mut().retain(|name, _| name.starts_with(FUNCTION_ANNOTATION_PREFIX));
        let ServiceSpec { ports, cluster_ip, .. } = service.spec.take().unwrap_or_default();
        let cluster_ip = cluster_ip.filter(|address| address == HEADLESS);
        service.spec = Some(ServiceSpec { ports, cluster_ip, ..ServiceSpec::default() });
        service
    }
}

impl Watched for Function {
    type Whole = Self;

    /// Keeps what its spec says in annotations.
    fn of(mut function: Self) -> Self {
        function.metadata.labels = None;
        function.metadata.annotations = None;
        if let Some(annotations) = &mut function.spec.annotations {
            annotations.retain(|name, _| name.starts_with(FUNCTION_ANNOTATION_PREFIX));
        }
        function
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, functions::index};

    #[test]
    fn what_is_kept_makes_the_same_function() {
        let service = fixtures::service("f", Some("of-service"), 80);
        let function = fixtures::openfaas_function("f", Some("of-function"));
        let before = index([&service], [], [&function]);
        let (mut kept, mut kept_too) = (service, function);
        for meta in [&mut kept.metadata, &mut kept_too.metadata] {
            meta.labels.get_or_insert_default().insert("app".to_owned(), "f".to_owned());
            meta.annotations
                .get_or_insert_default()
                .insert("kubectl".to_owned(), "much".to_owned());
        }
        let (kept, kept_too) = (Service::of(kept), Function::of(kept_too));
        assert_eq!(index([&kept], [], [&kept_too]), before);
        assert_eq!((kept.labels().len(), kept.annotations().len()), (0, 1));
        assert_eq!((kept_too.labels().len(), kept_too.annotations().len()), (0, 0));
    }
}
