//! The second step: checks the spec and converts it to types that can only hold valid values. Pure.

use std::{collections::BTreeMap, time::Duration};

use asyncqueue::{
    NameError,
    directory::QueueSettings,
    stream::{Adopt, QueueSpec},
};
use asyncqueue_runtime::nats::has_credentials;
use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1::OwnerReference, util::intstr::IntOrString,
    },
};
use kube::{Resource, ResourceExt};

use super::{
    conflict::Conflict,
    dereference::{DereferencedObjects, OwnedObjects, Ownership},
};
use crate::{
    crd::{
        AsyncQueue, CallbackSpec, InvokeSpec, NatsSpec, RetrySpec, Via, WorkerSpec,
        conditions::reason,
    },
    nats::queue_spec::{adoption, queue_spec},
    queue_settings::queue_settings,
    termination_grace::TerminationGrace,
};

/// A queue that may be built.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidatedQueue {
    /// The queue on `JetStream`.
    pub(crate) queue: QueueSpec,
    /// Which streams without an owner the queue may take over.
    pub(crate) adopt: Adopt,
    /// The namespace of the queue.
    pub(crate) namespace: String,
    /// Owner reference, with which the queue's objects are deleted together with it.
    pub(crate) owner: OwnerReference,
    /// Maximum number of concurrent calls in one worker.
    pub(crate) max_inflight: u16,
    /// The settings that running workers follow.
    pub(crate) settings: QueueSettings,
    /// Time limit of one call.
    pub(crate) timeout: Duration,
    /// How long the pods of the workers have to end.
    pub(crate) grace: TerminationGrace,
    /// Number of workers.
    pub(crate) replicas: i32,
    /// Resource requests and limits of the workers.
    pub(crate) resources: ResourceRequirements,
    /// The namespaces whose functions the queue admits, in addition to its own.
    pub(crate) function_namespaces: Vec<String>,
    /// The gateway through which workers call functions, if any.
    pub(crate) gateway_url: Option<String>,
    /// When a call is retried.
    pub(crate) retry: RetrySpec,
    /// How results are posted.
    pub(crate) callback: CallbackSpec,
    /// Whether headers and bodies are logged.
    pub(crate) verbose: bool,
    /// The other fields of the worker pods.
    pub(crate) worker: WorkerSpec,
    /// The NATS server, and the credentials for it.
    pub(crate) nats: NatsSpec,
}

/// Reason why a queue may not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValidationError {
    /// The name is not a valid queue name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A number is out of range, and the API server accepted it: the CRD is of another version.
    #[error(
        "{field} is {value}, which is out of range: apply the CRD of this version, then apply this \
         queue again"
    )]
    Range { field: &'static str, value: i32 },
    /// The URL or the Secrets of NATS are not usable.
    #[error("spec.nats is not valid: {0}")]
    Nats(String),
    /// Workers would need credentials that only the operator has.
    #[error(
        "nats_url of the operator contains credentials, which are not copied into Deployments: put \
         them, as USER:PASSWORD or a token, into a Secret in this namespace, and set \
         worker_nats_creds_secret of the operator, or spec.nats.credentialsSecretRef of this \
         queue, to its name and key"
    )]
    NoWorkerCredentials,
    /// Functions are called through a gateway, and no gateway is configured.
    #[error(
        "spec.invoke.via is Gateway, and no gateway is configured: set spec.invoke.gatewayUrl, or \
         gateway_url of the operator"
    )]
    NoGateway,
    /// Another queue has what this one asks for.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

// === impl ValidationError ===

impl ValidationError {
    /// Returns the reason for the conditions.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Name(_)
            | Self::Range { .. }
            | Self::Nats(_)
            | Self::NoWorkerCredentials
            | Self::NoGateway => reason::INVALID_SPEC,
            Self::Conflict(Conflict::Name { .. } | Conflict::Stream { .. }) => {
                reason::RESOURCE_CONFLICT
            }
            Self::Conflict(Conflict::Subject { .. }) => reason::SUBJECT_OVERLAP,
        }
    }
}

/// Validates a queue with what it depends on.
pub(crate) fn validate(
    object: &AsyncQueue,
    dereferenced: &DereferencedObjects,
) -> Result<ValidatedQueue, ValidationError> {
    let spec = &object.spec;
    let queue = queue_spec(object)?;
    check_credentials(&spec.nats, dereferenced)?;
    dereferenced.nats.clone().map_err(ValidationError::Nats)?;
    if let Some(conflict) = &dereferenced.conflict {
        return Err(conflict.clone().into());
    }
    let max_inflight = u16::try_from(spec.max_inflight).map_err(|_| ValidationError::Range {
        field: "spec.maxInflight",
        value: spec.max_inflight,
    })?;
    Ok(ValidatedQueue {
        adopt: adoption(object, &queue, &dereferenced.allowed_streams),
        queue,
        namespace: object.namespace().unwrap_or_default(),
        owner: object.controller_owner_ref(&()).unwrap_or_default(),
        max_inflight,
        settings: queue_settings(spec),
        timeout: spec.timeout.0,
        grace: TerminationGrace::new(
            spec.timeout.0,
            spec.worker.termination_grace_period.map(|grace| grace.0),
            current_grace(&dereferenced.objects),
        ),
        replicas: spec.replicas,
        function_namespaces: spec.functions.namespaces.clone(),
        gateway_url: gateway(&spec.invoke, dereferenced.gateway_url.as_ref())?,
        retry: (*spec.retry).clone(),
        callback: (*spec.callback).clone(),
        verbose: spec.verbose,
        worker: (*spec.worker).clone(),
        nats: (*spec.nats).clone(),
        resources: ResourceRequirements {
            requests: quantities(&spec.worker.resources.requests),
            limits: quantities(&spec.worker.resources.limits),
            claims: None,
        },
    })
}

/// Returns the termination grace period of the queue's pod template.
fn current_grace(objects: &OwnedObjects) -> Option<TerminationGrace> {
    match &objects.deployment {
        Ownership::Owned(deployment) => deployment.rollout()?.grace,
        _ => None,
    }
}

/// Checks that credentials are in Secrets: more people can read an `AsyncQueue` and a Deployment.
fn check_credentials(
    nats: &NatsSpec,
    dereferenced: &DereferencedObjects,
) -> Result<(), ValidationError> {
    if nats.url.as_deref().is_some_and(has_credentials) {
        let problem = "its url contains credentials, which everyone who can read this object can \
                       see: put them, as USER:PASSWORD or a token, into a Secret in this \
                       namespace, and name that in credentialsSecretRef";
        return Err(ValidationError::Nats(problem.to_owned()));
    }
    if dereferenced.lacks_credentials && nats.url.is_none() && nats.credentials_secret_ref.is_none()
    {
        return Err(ValidationError::NoWorkerCredentials);
    }
    Ok(())
}

/// Returns the gateway through which functions are called. `common` is the operator's own.
fn gateway(
    invoke: &InvokeSpec,
    common: Option<&String>,
) -> Result<Option<String>, ValidationError> {
    match invoke.via {
        Some(Via::Direct) => Ok(None),
        Some(Via::Gateway) => {
            let url = invoke.gateway_url.as_ref().or(common).ok_or(ValidationError::NoGateway)?;
            Ok(Some(url.clone()))
        }
        None => Ok(common.cloned()),
    }
}

/// Converts quantities; `None` if there is no quantity at all.
fn quantities(of: &BTreeMap<String, IntOrString>) -> Option<BTreeMap<String, Quantity>> {
    let quantity = |quantity: &IntOrString| match quantity {
        IntOrString::Int(number) => Quantity(number.to_string()),
        IntOrString::String(text) => Quantity(text.clone()),
    };
    (!of.is_empty())
        .then(|| of.iter().map(|(name, value)| (name.clone(), quantity(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, dereferenced};

    #[test]
    fn a_queue_of_defaults_is_valid() {
        let valid = validate(&fixtures::queue("slow-queue"), &dereferenced()).unwrap();
        assert_eq!((valid.max_inflight, valid.replicas), (1, 1));
        assert_eq!(valid.timeout, Duration::from_secs(60));
        assert_eq!(valid.resources.requests.unwrap()["memory"], Quantity("32Mi".to_owned()));
        assert_eq!(valid.resources.limits, None);
        assert_eq!(valid.owner.controller, Some(true));
    }

    #[test]
    fn quantities_may_be_numbers() {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.worker.resources.limits = [("cpu".to_owned(), IntOrString::Int(2))].into();
        let valid = validate(&queue, &dereferenced()).unwrap();
        assert_eq!(valid.resources.limits.unwrap()["cpu"], Quantity("2".to_owned()));
    }

    #[test]
    fn the_queues_gateway_precedes_the_operators() {
        let url = |text: &str| Some(text.to_owned());
        let gateway_of = |via, own: Option<&str>, common: Option<&str>| {
            let invoke = InvokeSpec { via, gateway_url: own.map(str::to_owned) };
            gateway(&invoke, common.map(str::to_owned).as_ref())
        };
        assert_eq!(gateway_of(None, None, None), Ok(None));
        assert_eq!(gateway_of(None, None, Some("http://g")), Ok(url("http://g")));
        assert_eq!(gateway_of(Some(Via::Direct), None, Some("http://g")), Ok(None));
        assert_eq!(gateway_of(Some(Via::Gateway), None, Some("http://g")), Ok(url("http://g")));
        assert_eq!(gateway_of(Some(Via::Gateway), Some("http://own"), None), Ok(url("http://own")));
        let missing = gateway_of(Some(Via::Gateway), None, None).unwrap_err();
        assert_eq!(missing.reason(), reason::INVALID_SPEC);
    }

    #[test]
    fn an_invalid_queue_is_refused_with_its_reason() {
        let reason_of = |queue: &AsyncQueue, dereferenced: &DereferencedObjects| {
            validate(queue, dereferenced).unwrap_err().reason()
        };
        assert_eq!(reason_of(&fixtures::queue("a.b"), &dereferenced()), reason::INVALID_SPEC);

        let mut queue = fixtures::queue("a");
        queue.spec.max_inflight = 0x1_0000;
        assert_eq!(reason_of(&queue, &dereferenced()), reason::INVALID_SPEC);

        let mut dereferenced = dereferenced();
        dereferenced.conflict = Some(Conflict::Name { other: "ns/a".to_owned() });
        assert_eq!(reason_of(&fixtures::queue("a"), &dereferenced), reason::RESOURCE_CONFLICT);

        dereferenced.conflict = None;
        let mut queue = fixtures::queue("a");
        queue.spec.nats.url = Some("nats://u:s3cret@nats".to_owned());
        let error = validate(&queue, &dereferenced).unwrap_err();
        assert!(
            matches!(error, ValidationError::Nats(_)) && !error.to_string().contains("s3cret"),
            "{error}"
        );

        dereferenced.lacks_credentials = true;
        let error = validate(&fixtures::queue("a"), &dereferenced).unwrap_err();
        assert_eq!(
            (error.reason(), &error),
            (reason::INVALID_SPEC, &ValidationError::NoWorkerCredentials)
        );
        let mut queue = fixtures::queue("a");
        queue.spec.nats.credentials_secret_ref = Some("nats/creds".parse().unwrap());
        assert!(validate(&queue, &dereferenced).is_ok());

        dereferenced.lacks_credentials = false;
        dereferenced.nats = Err("it has no host".to_owned());
        let error = validate(&fixtures::queue("a"), &dereferenced).unwrap_err();
        assert_eq!(error.to_string(), "spec.nats is not valid: it has no host");
    }
}
