//! Objects of Kubernetes.

use super::{Elsewhere, code};

/// An `AsyncQueue` that is not admitted.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its `spec`.
    pub spec: &'static str,
    /// The field that is named.
    pub field: &'static str,
    /// The rule.
    pub rule: &'static str,
}

const fn refused(spec: &'static str, field: &'static str, rule: &'static str) -> Spec {
    Spec { spec, field, rule }
}

/// What is refused when it is created.
pub const SPECS: &[Spec] = &[
    refused("{maxInflight: 0}", "spec.maxInflight", "greater than or equal to 1"),
    refused("{maxInflight: 10001}", "spec.maxInflight", "less than or equal to 10000"),
    refused("{concurrency: 0}", "spec.concurrency", "greater than or equal to 1"),
    refused("{rate: {perSecond: 0}}", "spec.rate.perSecond", "greater than or equal to 1"),
    refused("{rate: {burst: 20}}", "spec.rate", "perSecond"),
    refused("{rate: {perSecond: 10, burst: 0}}", "spec.rate.burst", "greater than or equal to 1"),
    refused(
        "{fairness: Function, perFunction: {maxInflight: 0}}",
        "spec.perFunction.maxInflight",
        "greater than or equal to 1",
    ),
    refused("{perFunction: {maxInflight: 10}}", "spec.perFunction", "needs fairness: Function"),
    refused("{results: {retention: 1 day}}", "spec.results.retention", "from 0s to 87600h"),
    refused("{results: {retention: 48h}}", "spec.results", "raise that too"),
    refused("{results: {maxRetention: 0s}}", "spec.results.maxRetention", "from 1s"),
    refused("{results: {maxMessages: 0}}", "spec.results.maxMessages", "greater than or equal"),
    refused("{timeout: 15}", "spec.timeout", "expected string"),
    refused("{timeout: 15 minutes}", "spec.timeout", "15m"),
    refused("{timeout: 0s}", "spec.timeout", "timeout"),
    refused(
        "{timeout: 20m, worker: {terminationGracePeriod: 10m}}",
        "spec.worker.terminationGracePeriod",
        "at least timeout plus 15s",
    ),
    refused("{consumer: {ackWait: 1ms}}", "spec.consumer.ackWait", "from 1s"),
    refused("{replicas: -1}", "spec.replicas", "greater than or equal to 0"),
    refused("{stream: {name: a.b}}", "spec.stream.name", "1 to 64"),
    refused("{stream: {name: asyncqueue-reserve}}", "spec.stream.name", "shared by all queues"),
    refused("{stream: {replicas: 6}}", "spec.stream.replicas", "less than or equal to 5"),
    refused("{stream: {storage: Tape}}", "spec.stream.storage", "File"),
    refused("{deletionPolicy: Never}", "spec.deletionPolicy", "Retain"),
    refused(
        "{retry: {minBackoff: 2m, maxBackoff: 1m}}",
        "spec.retry",
        "minBackoff must not be more",
    ),
    refused(
        "{retry: {statusCodes: [700]}}",
        "spec.retry.statusCodes[0]",
        "less than or equal to 599",
    ),
    refused("{retry: {jitter: Some}}", "spec.retry.jitter", "Equal"),
    refused("{deadLetter: {maxAge: 1s}}", "spec.deadLetter.maxAge", "from 1m"),
    refused(
        "{limits: {maxAge: 1m}}",
        "spec.limits.maxAge",
        "must not be less than stream.duplicateWindow",
    ),
    refused("{limits: {maxDelay: 87601h}}", "spec.limits.maxDelay", "from 0s to 87600h"),
    refused("{limits: {maxBytes: much}}", "spec.limits.maxBytes", "should match"),
    refused("{limits: {maxPayload: 0}}", "spec.limits.maxPayload", "greater than or equal to 1"),
    refused(
        "{callback: {allowedHosts: [10.0.0.0/99]}}",
        "spec.callback.allowedHosts",
        "networks as",
    ),
    refused(
        "{callback: {signingSecretRef: {name: a}}}",
        "spec.callback.signingSecretRef.key",
        "Required",
    ),
    refused(
        "{callback: {caSecretRef: {key: ca.crt}}}",
        "spec.callback.caSecretRef.name",
        "Required",
    ),
    refused("{invoke: {gatewayUrl: 'http://g'}}", "spec.invoke", "needs via: Gateway"),
    refused(
        "{invoke: {via: Gateway, gatewayUrl: 'https://g'}}",
        "spec.invoke.gatewayUrl",
        "should match '^http://",
    ),
    refused(
        "{worker: {env: [{name: nats_url, value: x}]}}",
        "spec.worker.env",
        "set the field instead",
    ),
    refused(
        "{worker: {podLabels: {asyncqueue.io/queue: x}}}",
        "spec.worker.podLabels",
        "by which the operator",
    ),
    refused(
        "{worker: {affinity: {nodeAfinity: {}}}}",
        "nodeAfinity",
        "field not declared in schema",
    ),
    refused(
        "{worker: {tolerations: [{tolerationSeconds: soon}]}}",
        "tolerationSeconds",
        "expected",
    ),
    refused("{nats: {url: 'nats://u:p@h'}}", "spec.nats.url", "must hold no credentials"),
    refused("{functions: {namespaces: [Team A]}}", "spec.functions.namespaces[0]", "should match"),
    refused("{maxInflght: 1}", "spec.maxInflght", "field not declared in schema"),
];

/// What takes more than a row.
pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        input: "the name `dots.in.it`",
        answer: "a queue's name must have 1 to 40 of a-z, 0-9 and -, and begin and end with a \
                 letter or digit",
        folder: "tests/e2e",
        test: "a_bad_queue_is_refused_with_the_field_and_the_rule",
    },
    Elsewhere {
        input: "a change of `stream.name`, `stream.subject` or `stream.storage`",
        answer: "`…` can't be changed; create another queue",
        folder: "tests/e2e",
        test: "immutable_field_is_refused_with_the_remedy",
    },
    Elsewhere {
        input: "two queues over one stream",
        answer: "admitted; the second is not ready and says whose the stream is",
        folder: "tests/e2e",
        test: "second_queue_over_one_stream_is_refused",
    },
    Elsewhere {
        input: "a queue by the name of one that was deleted in another namespace with calls",
        answer: "admitted; it is not ready, and its condition says whose the calls are and how \
                 they can be handed over",
        folder: "tests/e2e",
        test: "a_deleted_queues_calls_stay_with_its_namespace",
    },
    Elsewhere {
        input: "`asyncqueue.io/adopt: \"true\"` for a stream that another program created",
        answer: "admitted; it is not ready, and its condition names allowed_streams of the \
                 operator",
        folder: "tests/e2e",
        test: "a_stream_of_another_program_is_not_adopted",
    },
];

/// Functions and Secrets.
pub const FUNCTIONS_AND_SECRETS: &[Elsewhere] = &[
    Elsewhere {
        input: "`com.openfaas.queue` names a queue that does not admit the function's namespace",
        answer: "a Warning event on the function, the condition `FunctionsRefused` on the queue; \
                 its calls go to the default queue",
        folder: "tests/e2e",
        test: "a_function_of_another_namespace_is_not_admitted",
    },
    Elsewhere {
        input: "`com.openfaas.queue: no-such-queue`",
        answer: "a Warning event on the function; its calls go to the default queue",
        folder: "tests/e2e",
        test: "calls_go_to_the_default_queue_if_the_named_queue_is_missing",
    },
    Elsewhere {
        input: "`com.openfaas.queue: \"slow-queue\\n\"`",
        answer: "the queue `slow-queue`: white space around annotations is ignored",
        folder: "tests/e2e",
        test: "a_headless_service_is_called_on_its_target_port",
    },
    Elsewhere {
        input: "a headless Service whose `targetPort` is a name",
        answer: "a Warning event on the Service; its calls go to its port",
        folder: "tests/e2e",
        test: "a_headless_service_is_called_on_its_target_port",
    },
    Elsewhere {
        input: "`com.openfaas.retry.attempts: many`",
        answer: "a Warning event on the function; the setting of the queue applies",
        folder: "tests/e2e",
        test: "calls_go_to_the_default_queue_if_the_named_queue_is_missing",
    },
    Elsewhere {
        input: "`asyncqueue.io/max-inflight: many` on a function",
        answer: "a Warning event on the function; the setting of the queue applies",
        folder: "operator",
        test: "limits_of_a_function_need_a_queue_with_lanes",
    },
    Elsewhere {
        input: "`asyncqueue.io/max-inflight: \"10\"` on a function of a queue without `fairness: \
                Function`",
        answer: "a Warning event on the function; it has no limit",
        folder: "operator",
        test: "limits_of_a_function_need_a_queue_with_lanes",
    },
    Elsewhere {
        input: "`nats_url` of the operator holds credentials, and no Secret with those of workers \
                is named",
        answer: "no queue is ready, and each condition says where to put them; what runs goes on",
        folder: "operator",
        test: "an_invalid_queue_is_refused_with_its_reason",
    },
    Elsewhere {
        input: "`credentialsSecretRef` names a Secret that the operator may not read",
        answer: "the queue is not ready, and its condition says what to grant",
        folder: "tests/e2e",
        test: "queue_on_nats_with_credentials_works_once_they_can_be_read",
    },
];

/// The rows of the document.
pub(super) fn rows() -> Vec<[String; 2]> {
    SPECS
        .iter()
        .map(|row| [code(row.spec), format!("{}: … {}", code(row.field), row.rule)])
        .collect()
}
