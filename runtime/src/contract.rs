//! The settings that more than one program knows, and the ports and times that they agree on.
//!
//! The operator sets a worker's settings as environment variables, and reserves their names. A
//! setting that has one meaning in several programs has one name and one default.

use std::time::Duration;

/// Names of settings: environment variables, and flags with `-` for `_`.
pub mod setting {
    /// The queue of a worker.
    pub const QUEUE_NAME: &str = "queue_name";
    /// The stream of a worker's queue.
    pub const NATS_STREAM: &str = "nats_stream";
    /// The subject of a worker's queue.
    pub const NATS_SUBJECT: &str = "nats_subject";
    /// The durable consumer of a worker's queue.
    pub const NATS_DURABLE: &str = "nats_durable";
    /// Whether a program creates streams itself.
    pub const ENSURE_STREAM: &str = "ensure_stream";
    /// Maximum number of calls in flight in a worker.
    pub const MAX_INFLIGHT: &str = "max_inflight";
    /// Maximum number of open invocations of all workers of a queue.
    pub const CONCURRENCY: &str = "concurrency";
    /// How many invocations the workers of a queue start in a second.
    pub const RATE_PER_SECOND: &str = "rate_per_second";
    /// How many invocations the workers of a queue start at once.
    pub const RATE_BURST: &str = "rate_burst";
    /// Maximum number of open invocations of one function, of all workers of a queue.
    pub const FUNCTION_MAX_INFLIGHT: &str = "function_max_inflight";
    /// Whether workers learn how many invocations a function takes.
    pub const FUNCTION_ADAPTIVE: &str = "function_adaptive";
    /// Whether a worker waits for the settings of its queue in the directory.
    pub const WAIT_FOR_SETTINGS: &str = "wait_for_settings";
    /// The lease of a call.
    pub const ACK_WAIT: &str = "ack_wait";
    /// The time limit of an invocation.
    pub const UPSTREAM_TIMEOUT: &str = "upstream_timeout";
    /// The maximum age of a call.
    pub const MAX_AGE: &str = "max_age";
    /// The gateway that workers call functions through.
    pub const GATEWAY_URL: &str = "gateway_url";
    /// The base URL of functions that the directory has none for.
    pub const FUNCTION_URL: &str = "function_url";
    /// The namespace of functions that are named without one.
    pub const FUNCTION_NAMESPACE: &str = "function_namespace";
    /// The namespace of gateway and operator, whose Services are never called.
    pub const PLATFORM_NAMESPACE: &str = "platform_namespace";
    /// The time limit of a callback.
    pub const CALLBACK_TIMEOUT: &str = "callback_timeout";
    /// The maximum number of attempts of a callback.
    pub const CALLBACK_MAX_ATTEMPTS: &str = "callback_max_attempts";
    /// The file with the secrets that sign callbacks.
    pub const CALLBACK_SIGNING_SECRET_FILE: &str = "callback_signing_secret_file";
    /// The hosts that callbacks may be sent to.
    pub const CALLBACK_ALLOWED_HOSTS: &str = "callback_allowed_hosts";
    /// The file with the CA bundle of receivers of callbacks.
    pub const CALLBACK_CA_FILE: &str = "callback_ca_file";
    /// Whether dead letters are kept.
    pub const DEAD_LETTERS: &str = "dead_letters";
    /// Whether headers and bodies are logged.
    pub const WRITE_DEBUG: &str = "write_debug";
    /// The time that running calls have after SIGTERM.
    pub const GRACE_PERIOD: &str = "grace_period";
    /// The address of a program's HTTP server: of the gateway for calls, of others for probes.
    pub const HTTP_ADDR: &str = "http_addr";
    /// The name of a worker. Kubernetes sets it to the pod's name.
    pub const WORKER_NAME: &str = "HOSTNAME";
    /// The form of log lines.
    pub const LOG_ENCODING: &str = "log_encoding";
    /// The servers of NATS.
    pub const NATS_URL: &str = "nats_url";
    /// The host of NATS.
    pub const NATS_HOST: &str = "nats_host";
    /// The port of NATS.
    pub const NATS_PORT: &str = "nats_port";
    /// The file with the credentials for NATS.
    pub const NATS_CREDS_FILE: &str = "nats_creds_file";
    /// The file with the CA bundle of NATS.
    pub const NATS_TLS_CA_FILE: &str = "nats_tls_ca_file";
    /// The file with the client certificate for NATS.
    pub const NATS_TLS_CERT_FILE: &str = "nats_tls_cert_file";
    /// The file with the private key of the client certificate.
    pub const NATS_TLS_KEY_FILE: &str = "nats_tls_key_file";
    /// The queue of functions that name no queue.
    pub const DEFAULT_QUEUE: &str = "default_queue";
    /// The memory for calls and answers.
    pub const MEMORY_BUDGET: &str = "memory_budget";
    /// How long a connection is used.
    pub const MAX_CONNECTION_AGE: &str = "max_connection_age";
    /// How many requests a connection is used for.
    pub const MAX_CONNECTION_REQUESTS: &str = "max_connection_requests";
    /// The program's own namespace.
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";

    /// The settings of this module that the operator sets on its workers, in alphabetical order.
    pub const SET_BY_OPERATOR: [&str; 36] = [
        ACK_WAIT,
        CALLBACK_ALLOWED_HOSTS,
        CALLBACK_CA_FILE,
        CALLBACK_MAX_ATTEMPTS,
        CALLBACK_SIGNING_SECRET_FILE,
        CALLBACK_TIMEOUT,
        CONCURRENCY,
        DEAD_LETTERS,
        ENSURE_STREAM,
        FUNCTION_ADAPTIVE,
        FUNCTION_MAX_INFLIGHT,
        FUNCTION_NAMESPACE,
        GATEWAY_URL,
        GRACE_PERIOD,
        WORKER_NAME,
        HTTP_ADDR,
        LOG_ENCODING,
        MAX_AGE,
        MAX_INFLIGHT,
        NATS_CREDS_FILE,
        NATS_DURABLE,
        NATS_HOST,
        NATS_PORT,
        NATS_STREAM,
        NATS_SUBJECT,
        NATS_TLS_CA_FILE,
        NATS_TLS_CERT_FILE,
        NATS_TLS_KEY_FILE,
        NATS_URL,
        PLATFORM_NAMESPACE,
        QUEUE_NAME,
        RATE_BURST,
        RATE_PER_SECOND,
        UPSTREAM_TIMEOUT,
        WAIT_FOR_SETTINGS,
        WRITE_DEBUG,
    ];
}

/// Default of [`setting::FUNCTION_NAMESPACE`], which is that of `OpenFaaS`.
pub const DEFAULT_FUNCTION_NAMESPACE: &str = "openfaas-fn";

/// Default of [`setting::FUNCTION_URL`]: the Service of a function as `OpenFaaS` creates it.
pub const DEFAULT_FUNCTION_URL: &str = "http://{function}.{namespace}.svc.cluster.local:8080";

/// Default of [`setting::DEFAULT_QUEUE`], which is that of `OpenFaaS`.
pub const DEFAULT_QUEUE: &str = "faas-request";

/// Default of [`setting::MAX_INFLIGHT`], which is that of `OpenFaaS`.
pub const DEFAULT_MAX_INFLIGHT: u16 = 1;

/// Default of [`setting::UPSTREAM_TIMEOUT`], which is that of `OpenFaaS`.
pub const DEFAULT_UPSTREAM_TIMEOUT: Duration = Duration::from_secs(60);

/// Default of [`setting::CALLBACK_TIMEOUT`].
pub const DEFAULT_CALLBACK_TIMEOUT: Duration = Duration::from_secs(30);

/// Default of [`setting::CALLBACK_MAX_ATTEMPTS`].
pub const DEFAULT_CALLBACK_MAX_ATTEMPTS: u16 = 5;

/// The port of the gateway for calls.
pub const GATEWAY_PORT: u16 = 8080;

/// The port of a worker for probes and metrics.
pub const WORKER_PORT: u16 = 8081;

/// The port of the gateway for probes and metrics.
pub const GATEWAY_METRICS_PORT: u16 = 8082;

/// The port of the operator for probes and metrics.
pub const OPERATOR_PORT: u16 = 8083;

/// The port of the console for its pages.
pub const CONSOLE_PORT: u16 = 8084;

/// The port of the console for probes and metrics.
pub const CONSOLE_METRICS_PORT: u16 = 8085;

/// The time that a worker has after SIGTERM in addition to the time limit of an invocation, for
/// the callback and the last messages.
pub const GRACE_MARGIN: Duration = Duration::from_secs(10);

/// Returns every address of this machine, of IPv4 and IPv6, with a port.
#[must_use]
pub const fn any_address(port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port)
}
