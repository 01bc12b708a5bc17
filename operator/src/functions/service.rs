//! The source Service: one with the annotation `com.openfaas.queue`.

use asyncqueue::FunctionName;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Resource, ResourceExt};

use super::{DiscoveredFunction, FunctionSource};
use crate::labels::QUEUE_ANNOTATION;

/// The port of `OpenFaaS` functions. A function on another port needs a URL in the directory.
const DEFAULT_PORT: i32 = 8080;

/// The `clusterIP` of a headless Service. Its name resolves to its pods, and its ports are not
/// translated.
pub(super) const HEADLESS: &str = "None";

impl FunctionSource for Service {
    fn function(&self) -> Option<(FunctionName, DiscoveredFunction)> {
        let annotations = self.annotations();
        annotations.get(QUEUE_ANNOTATION)?;
        let name = FunctionName::new(&self.name_any(), &self.namespace()?).ok()?;
        let (port, named_target_port) = port(self).unzip();
        let url = port.filter(|port| *port != DEFAULT_PORT).map(|port| {
            format!("http://{}.{}.svc.cluster.local:{port}", name.name(), name.namespace())
        });
        let named_target_port = named_target_port.flatten();
        let function =
            DiscoveredFunction::from_annotations(Some(annotations), self.object_ref(&()));
        Some((name, DiscoveredFunction { url, named_target_port, ..function }))
    }
}

/// Returns the port to call, and the name of the target port if it has no number. Of several ports,
/// it is that of `OpenFaaS`, or the one with the name `http`, or the first.
fn port(service: &Service) -> Option<(i32, Option<String>)> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.as_deref()?;
    let default = ports.iter().find(|port| port.port == DEFAULT_PORT);
    let named = || ports.iter().find(|port| port.name.as_deref() == Some("http"));
    let port = default.or_else(named).or_else(|| ports.first())?;
    Some(if is_headless(spec) { target_port(port) } else { (port.port, None) })
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some(HEADLESS)
}

/// Returns the port of the pods: the Service's own if it names no target port, or one without a
/// number.
fn target_port(port: &ServicePort) -> (i32, Option<String>) {
    match &port.target_port {
        None => (port.port, None),
        Some(IntOrString::Int(number)) => (*number, None),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(number) => (number, None),
            Err(_) => (port.port, Some(name.clone())),
        },
    }
}
