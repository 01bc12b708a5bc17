//! Builds objects for tests from the values that matter in them.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use uuid::Uuid;

use crate::{
    cache::{
        deployment::{CachedDeployment, PartialDeployment, PodMeta, Spec, Template},
        watch::Cacheable,
    },
    controller::dereference::{DereferencedObjects, OwnedObjects},
    crd::{AsyncQueue, AsyncQueueSpec, AsyncQueueStatus},
    functions::openfaas,
    nats::allowed_streams::AllowedStreams,
};

/// Returns an `AsyncQueue` with every default, in the namespace `openfaas`.
pub(crate) fn queue(name: &str) -> AsyncQueue {
    let mut queue = AsyncQueue::new(name, AsyncQueueSpec::default());
    queue.metadata.namespace = Some("openfaas".to_owned());
    queue.metadata.uid = Some(uid(name));
    queue.metadata.generation = Some(3);
    queue.metadata.creation_timestamp = Some(second(100));
    queue
}

/// Returns the same queue, which owns its stream.
pub(crate) fn owner(name: &str) -> AsyncQueue {
    let stream = Some(name.to_owned());
    AsyncQueue {
        status: Some(AsyncQueueStatus { stream, ..AsyncQueueStatus::default() }),
        ..queue(name)
    }
}

/// Returns what a new queue depends on: no conflict, and no objects of its own yet.
pub(crate) fn dereferenced() -> DereferencedObjects {
    DereferencedObjects {
        nats: Ok(()),
        objects: OwnedObjects::default(),
        lacks_credentials: false,
        gateway_url: None,
        allowed_streams: AllowedStreams::default(),
        conflict: None,
    }
}

/// Returns the uid of an object of this name.
pub(crate) fn uid(name: &str) -> String {
    let number = name.bytes().fold(1_u128, |number, byte| (number << 8) | u128::from(byte));
    Uuid::from_u128(number).to_string()
}

/// Returns a point in time.
pub(crate) fn second(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

/// Returns a function as `OpenFaaS` deploys it, in the namespace `openfaas-fn`.
pub(crate) fn function(name: &str, queue: Option<&str>) -> CachedDeployment {
    CachedDeployment::from_object(deployment(name, queue))
}

/// Returns the Deployment of a function.
pub(crate) fn deployment(name: &str, queue: Option<&str>) -> PartialDeployment {
    let metadata = PodMeta {
        labels: [("faas_function".to_owned(), name.to_owned())].into(),
        annotations: queue.map(|queue| annotation(queue).into()).unwrap_or_default(),
    };
    PartialDeployment {
        metadata: meta(name),
        spec: Spec { template: Template { metadata, ..Template::default() }, ..Spec::default() },
        ..PartialDeployment::default()
    }
}

/// Returns the same as an `openfaas.com/v1` Function.
pub(crate) fn openfaas_function(name: &str, queue: Option<&str>) -> openfaas::Function {
    let spec = openfaas::FunctionSpec {
        name: None,
        annotations: queue.map(|queue| annotation(queue).into()),
    };
    openfaas::Function { metadata: meta(name), spec }
}

/// Returns a Service with one port, in the namespace `openfaas-fn`.
pub(crate) fn service(name: &str, queue: Option<&str>, port: i32) -> Service {
    Service {
        metadata: ObjectMeta {
            annotations: queue.map(|queue| annotation(queue).into()),
            ..meta(name)
        },
        spec: Some(ServiceSpec {
            ports: Some(vec![ServicePort { port, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("openfaas-fn".to_owned()),
        uid: Some(uid(name)),
        ..ObjectMeta::default()
    }
}

fn annotation(queue: &str) -> [(String, String); 1] {
    [("com.openfaas.queue".to_owned(), queue.to_owned())]
}
