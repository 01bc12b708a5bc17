//! Builds the environment variables with the worker's settings.

use asyncqueue::{
    GoDuration,
    function_namespaces::{NamespaceList, SETTING},
};
use asyncqueue_runtime::{
    nats::without_credentials,
    settings::{LogEncoding, NatsSettings},
};
use k8s_openapi::api::core::v1::EnvVar;

use super::{pod::GRACE_MARGIN, secrets};
use crate::{
    controller::validate::ValidatedQueue,
    crd::{Backoff, Jitter},
    worker_defaults::WorkerDefaults,
};

/// Returns all variables, those of the spec's `worker.env` last.
pub(super) fn env_vars(queue: &ValidatedQueue, installation: &WorkerDefaults) -> Vec<EnvVar> {
    let mut settings = vec![("queue_name", queue.queue.queue.to_string())];
    settings.extend(nats(queue, &installation.nats));
    settings.extend(calls(queue));
    settings.extend(retries(queue));
    settings.extend(callbacks(queue));
    settings.push(("function_namespace", installation.function_namespace.clone()));
    let namespaces = namespaces(queue, installation);
    if !namespaces.is_empty() {
        settings.push((SETTING, namespaces.to_string()));
    }
    settings.extend(installation.platform_namespace.clone().map(|own| ("platform_namespace", own)));
    settings.extend(queue.gateway_url.clone().map(|url| ("gateway_url", url)));
    settings.push(("log_encoding", log_encoding(installation.log_encoding).to_owned()));
    settings.push(("write_debug", queue.verbose.to_string()));
    let settings = settings.into_iter().map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    });
    let files = secrets::mounted(queue, installation).into_iter().map(|secret| secret.variable());
    settings.chain(files).chain(queue.worker.env.iter().cloned()).collect()
}

/// Returns the namespaces whose functions the workers call, in addition to those of functions in
/// the directory. A queue with its own NATS has no directory: its workers call the functions that
/// the queue admits.
fn namespaces(queue: &ValidatedQueue, installation: &WorkerDefaults) -> NamespaceList {
    let listed = installation.function_namespaces.clone();
    if queue.nats.url.is_none() {
        return listed;
    }
    let admitted = queue.function_namespaces.iter().chain([&queue.namespace]);
    let platform = installation.platform_namespace.as_ref();
    listed.with(admitted.filter(|namespace| Some(*namespace) != platform).map(String::as_str))
}

/// Returns the settings for NATS. They never contain credentials: everyone who may read Deployments
/// could read them.
fn nats(queue: &ValidatedQueue, common: &NatsSettings) -> Vec<(&'static str, String)> {
    let spec = &queue.queue;
    let mut settings = match queue.nats.url.as_ref().or(common.nats_url.as_ref()) {
        Some(url) => vec![("nats_url", without_credentials(url))],
        None => vec![
            ("nats_host", without_credentials(&common.nats_host)),
            ("nats_port", common.nats_port.to_string()),
        ],
    };
    settings.extend([
        ("nats_stream", spec.stream.clone()),
        ("nats_subject", spec.subject.clone()),
        ("nats_durable", spec.durable.clone()),
    ]);
    settings
}

fn calls(queue: &ValidatedQueue) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let max_age = queue.queue.limits.max_age.map(|age| ("max_age", GoDuration(age).to_string()));
    let always = [
        ("max_inflight", queue.max_inflight.to_string()),
        ("upstream_timeout", GoDuration(queue.timeout).to_string()),
        // The consumer has it too. Here, a change restarts the workers, which then renew leases in
        // time.
        ("ack_wait", GoDuration(queue.queue.ack_wait).to_string()),
        ("grace_period", GoDuration(queue.timeout + GRACE_MARGIN).to_string()),
    ];
    always.into_iter().chain(max_age)
}

fn retries(queue: &ValidatedQueue) -> [(&'static str, String); 7] {
    let retry = &queue.retry;
    let backoff = match retry.backoff {
        Backoff::Exponential => "exponential",
        Backoff::Static => "static",
    };
    let jitter = match retry.jitter {
        Jitter::None => "none",
        Jitter::Full => "full",
        Jitter::Equal => "equal",
    };
    let codes: Vec<_> = retry.status_codes.iter().map(i32::to_string).collect();
    [
        ("max_retry_attempts", retry.max_attempts.to_string()),
        ("initial_retry_wait", retry.min_backoff.to_string()),
        ("max_retry_wait", retry.max_backoff.to_string()),
        ("backoff", backoff.to_owned()),
        ("retry_jitter", jitter.to_owned()),
        ("retry_http_codes", codes.join(",")),
        ("dead_letters", queue.queue.dead_letters.enabled.to_string()),
    ]
}

fn callbacks(queue: &ValidatedQueue) -> [(&'static str, String); 3] {
    let callback = &queue.callback;
    [
        ("callback_timeout", callback.timeout.to_string()),
        ("callback_max_attempts", callback.max_attempts.to_string()),
        ("callback_allowed_hosts", callback.allowed_hosts.join(",")),
    ]
}

fn log_encoding(encoding: LogEncoding) -> &'static str {
    match encoding {
        LogEncoding::Console => "console",
        LogEncoding::Json => "json",
    }
}
