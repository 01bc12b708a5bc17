//! Builds the environment variables with the worker's settings.

use asyncqueue::{
    GoDuration,
    directory::QueueSettings,
    function_namespaces::{self, NamespaceList},
    retry::QueueRetry,
};
use asyncqueue_runtime::{
    contract::setting,
    nats::without_credentials,
    settings::{LogEncoding, NatsSettings},
};
use k8s_openapi::api::core::v1::EnvVar;

use super::secrets;
use crate::{controller::validate::ValidatedQueue, worker_defaults::WorkerDefaults};

/// Returns all variables, those of the spec's `worker.env` last.
pub(super) fn env_vars(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> Vec<EnvVar> {
    let mut settings = vec![(setting::QUEUE_NAME, queue.queue.queue.to_string())];
    settings.extend(nats(queue, &defaults.nats));
    settings.extend(calls(queue));
    if follows_directory(queue, defaults) {
        settings.push((setting::WAIT_FOR_SETTINGS, true.to_string()));
    } else {
        settings.extend([
            (setting::MAX_INFLIGHT, queue.max_inflight.to_string()),
            (setting::UPSTREAM_TIMEOUT, GoDuration(queue.timeout).to_string()),
        ]);
        settings.extend(QueueRetry::from(&queue.retry).variables());
        settings.extend(shared_limits(&queue.settings));
    }
    settings.push((setting::DEAD_LETTERS, queue.queue.dead_letters.enabled.to_string()));
    settings.extend(callbacks(queue));
    settings.push((setting::FUNCTION_NAMESPACE, defaults.function_namespace.clone()));
    let namespaces = namespaces(queue, defaults);
    if !namespaces.is_empty() {
        settings.push((function_namespaces::SETTING, namespaces.to_string()));
    }
    settings
        .extend(defaults.platform_namespace.clone().map(|own| (setting::PLATFORM_NAMESPACE, own)));
    settings.extend(queue.gateway_url.clone().map(|url| (setting::GATEWAY_URL, url)));
    settings.push((setting::LOG_ENCODING, log_encoding(defaults.log_encoding).to_owned()));
    settings.push((setting::WRITE_DEBUG, queue.verbose.to_string()));
    let settings = settings.into_iter().map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    });
    let files = secrets::mounted(queue, defaults).into_iter().map(|secret| secret.variable());
    settings.chain(files).chain(queue.worker.env.iter().cloned()).collect()
}

/// Returns whether the workers read `maxInflight`, `timeout` and `retry` in the directory, so that
/// a change does not restart them. There is no directory on another NATS. An image that the queue
/// or the operator's settings name may be of an earlier version, which knows only the variables.
fn follows_directory(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> bool {
    queue.nats.url.is_none() && queue.worker.image.is_none() && defaults.is_own_image
}

/// Returns the limits that all workers share, if there are any.
fn shared_limits(settings: &QueueSettings) -> impl Iterator<Item = (&'static str, String)> {
    let limits = [
        (setting::CONCURRENCY, settings.concurrency),
        (setting::RATE_PER_SECOND, settings.rate.map(|rate| rate.per_second)),
        (setting::RATE_BURST, settings.rate.and_then(|rate| rate.burst)),
        (
            setting::FUNCTION_MAX_INFLIGHT,
            settings.per_function.and_then(|functions| functions.max_inflight),
        ),
    ];
    limits.into_iter().filter_map(|(name, value)| Some((name, value?.to_string())))
}

/// Returns the namespaces whose functions the workers call, in addition to those of functions in
/// the directory. A queue with its own NATS has no directory: its workers call the functions that
/// the queue admits.
fn namespaces(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> NamespaceList {
    let listed = defaults.function_namespaces.clone();
    if queue.nats.url.is_none() {
        return listed;
    }
    let admitted = queue.function_namespaces.iter().chain([&queue.namespace]);
    let platform = defaults.platform_namespace.as_ref();
    listed.with(admitted.filter(|namespace| Some(*namespace) != platform).map(String::as_str))
}

/// Returns the settings for NATS. They never contain credentials: everyone who may read Deployments
/// could read them.
fn nats(queue: &ValidatedQueue, common: &NatsSettings) -> Vec<(&'static str, String)> {
    let spec = &queue.queue;
    let mut settings = match queue.nats.url.as_ref().or(common.nats_url.as_ref()) {
        Some(url) => vec![(setting::NATS_URL, without_credentials(url))],
        None => vec![
            (setting::NATS_HOST, without_credentials(&common.nats_host)),
            (setting::NATS_PORT, common.nats_port.to_string()),
        ],
    };
    settings.extend([
        (setting::NATS_STREAM, spec.stream.clone()),
        (setting::NATS_SUBJECT, spec.subject.clone()),
        (setting::NATS_DURABLE, spec.durable.clone()),
    ]);
    settings
}

fn calls(queue: &ValidatedQueue) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let max_age =
        queue.queue.limits.max_age.map(|age| (setting::MAX_AGE, GoDuration(age).to_string()));
    let always = [
        // The consumer has it too. Here, a change restarts the workers, which then renew leases in
        // time.
        (setting::ACK_WAIT, GoDuration(queue.queue.ack_wait).to_string()),
        (setting::GRACE_PERIOD, GoDuration(queue.grace.of_worker()).to_string()),
    ];
    always.into_iter().chain(max_age)
}

fn callbacks(queue: &ValidatedQueue) -> [(&'static str, String); 3] {
    let callback = &queue.callback;
    [
        (setting::CALLBACK_TIMEOUT, callback.timeout.to_string()),
        (setting::CALLBACK_MAX_ATTEMPTS, callback.max_attempts.to_string()),
        (setting::CALLBACK_ALLOWED_HOSTS, callback.allowed_hosts.join(",")),
    ]
}

fn log_encoding(encoding: LogEncoding) -> &'static str {
    match encoding {
        LogEncoding::Console => "console",
        LogEncoding::Json => "json",
    }
}
