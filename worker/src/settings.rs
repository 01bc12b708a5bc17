//! The worker's settings. Names and defaults are a contract: existing manifests carry over.

// The comments of settings are the text of --help, where [::] is an address and <queue> a
// placeholder.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use std::{
    collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration,
};

use asyncqueue::{
    GoDuration, QueueName,
    directory::{MAX_CONCURRENCY, MAX_MAX_INFLIGHT, MAX_RATE, PerFunction, Rate},
    function_namespaces::{self, NamespaceList},
    lanes::{self, Fairness},
    names::parse_namespace,
    retry::{Backoff, Jitter, QueueRetry, parse_codes, policy},
    stream::{DEFAULT_ACK_WAIT, parse_durable, parse_stream, parse_subject},
};
use asyncqueue_runtime::{
    byte_size::ByteSize,
    client::{self, ConnectionLimits},
    contract::{self, GRACE_MARGIN, any_address, setting},
    memory,
    settings::{LogSettings, NatsSettings, Optional, optional, parse_bool, parse_call_url},
};
use clap::{
    Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{callback::egress::HostAllowList, live_settings::LiveSettings};

/// The worker of one queue: takes its calls and invokes their functions.
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-worker", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that a user sets on its own")]
pub struct Settings {
    /// How NATS is reached.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,

    /// Name of the queue
    #[arg(long, env = setting::QUEUE_NAME, default_value = contract::DEFAULT_QUEUE)]
    pub queue_name: QueueName,

    /// Stream of the queue. Default: the name of the queue
    #[arg(
        long,
        env = setting::NATS_STREAM,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_stream)
    )]
    pub nats_stream: Optional<String>,

    /// Subject of the queue. Default: the name of the queue
    #[arg(
        long,
        env = setting::NATS_SUBJECT,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_subject)
    )]
    pub nats_subject: Optional<String>,

    /// Durable consumer of the queue. Default: <queue>-workers
    #[arg(
        long,
        env = setting::NATS_DURABLE,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_durable)
    )]
    pub nats_durable: Optional<String>,

    /// Create and update streams and consumers, where no operator does
    #[arg(
        long,
        env = setting::ENSURE_STREAM,
        default_value = "false",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub ensure_stream: bool,

    /// Order in which calls are run: fifo, or function for round robin between the functions of the
    /// queue. Takes effect only with `ensure_stream`: otherwise the consumers exist already
    #[arg(
        long,
        env = lanes::SETTING,
        default_value_t,
        value_parser = PossibleValuesParser::new(Fairness::VALUES)
            .try_map(|value| value.parse::<Fairness>())
    )]
    pub fairness: Fairness,

    /// Wait for the settings of the queue in the directory before calls are taken. The operator
    /// sets this. Otherwise the worker starts with its own settings where the directory has none
    #[arg(
        long,
        env = setting::WAIT_FOR_SETTINGS,
        default_value = "false",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub wait_for_settings: bool,

    /// Maximum number of concurrent calls of this process. The directory takes precedence
    #[arg(
        long,
        env = setting::MAX_INFLIGHT,
        default_value_t = contract::DEFAULT_MAX_INFLIGHT,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_MAX_INFLIGHT))
    )]
    pub max_inflight: u16,

    /// Maximum number of invocations that all workers of the queue together have open. The
    /// directory takes precedence. Default: `max_inflight` times the number of workers. Example: 20
    #[arg(
        long,
        env = setting::CONCURRENCY,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_concurrency)
    )]
    pub concurrency: Optional<u32>,

    /// How many invocations all workers of the queue together start in a second. The directory
    /// takes precedence. Default: unlimited. Example: 10
    #[arg(
        long,
        env = setting::RATE_PER_SECOND,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_rate)
    )]
    pub rate_per_second: Optional<u32>,

    /// How many invocations may start at once after a pause, if `rate_per_second` is set. Default:
    /// as many as in a second. Example: 20
    #[arg(
        long,
        env = setting::RATE_BURST,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_rate)
    )]
    pub rate_burst: Optional<u32>,

    /// Maximum number of invocations of one function that all workers of the queue together have
    /// open, if the queue has lanes. The directory takes precedence. Default: unlimited. Example:
    /// 10
    #[arg(
        long,
        env = setting::FUNCTION_MAX_INFLIGHT,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_concurrency)
    )]
    pub function_max_inflight: Optional<u32>,

    /// Lease of a call, which is renewed after a third of it. Takes effect only with
    /// `ensure_stream`: otherwise the consumer exists already and has it
    #[arg(
        long,
        env = setting::ACK_WAIT,
        default_value_t = GoDuration(DEFAULT_ACK_WAIT),
        value_parser = GoDuration::parse_positive
    )]
    pub ack_wait: GoDuration,

    /// Maximum duration of an attempt, from the first byte sent to the last byte received. The
    /// directory takes precedence
    #[arg(
        long,
        env = setting::UPSTREAM_TIMEOUT,
        default_value_t = GoDuration(contract::DEFAULT_UPSTREAM_TIMEOUT),
        value_parser = GoDuration::parse_positive
    )]
    pub upstream_timeout: GoDuration,

    /// Maximum age of a call when it is delivered: an older one ends as expired. Default:
    /// unlimited. Example: 15m
    #[arg(
        long,
        env = setting::MAX_AGE,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(GoDuration::parse_positive)
    )]
    pub max_age: Optional<GoDuration>,

    /// Maximum number of attempts of a call, the first included. The directory takes precedence
    /// over this and the other retry settings
    #[arg(
        long,
        env = policy::MAX_RETRY_ATTEMPTS,
        default_value_t = policy::DEFAULT_MAX_ATTEMPTS.into(),
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_retry_attempts: u64,

    /// Wait before the second attempt
    #[arg(long, env = policy::INITIAL_RETRY_WAIT, default_value_t = policy::DEFAULT_MIN_BACKOFF)]
    pub initial_retry_wait: GoDuration,

    /// Maximum wait between two attempts
    #[arg(long, env = policy::MAX_RETRY_WAIT, default_value_t = policy::DEFAULT_MAX_BACKOFF)]
    pub max_retry_wait: GoDuration,

    /// How the wait grows from attempt to attempt
    #[arg(
        long,
        env = policy::BACKOFF,
        default_value_t,
        value_parser = PossibleValuesParser::new(Backoff::VALUES)
            .try_map(|value| value.parse::<Backoff>())
    )]
    pub backoff: Backoff,

    /// Which part of the wait is random
    #[arg(
        long,
        env = policy::RETRY_JITTER,
        default_value_t,
        value_parser = PossibleValuesParser::new(Jitter::VALUES)
            .try_map(|value| value.parse::<Jitter>())
    )]
    pub retry_jitter: Jitter,

    /// HTTP statuses that are retried, comma-separated. A missing response always is
    #[arg(
        long,
        env = policy::RETRY_HTTP_CODES,
        default_value_t = Codes(policy::DEFAULT_STATUS_CODES.into())
    )]
    pub retry_http_codes: Codes,

    /// URL of the gateway through which functions are called, as
    /// <URL>/function/<name>.<namespace>. Default: functions are called directly
    #[arg(
        long,
        env = setting::GATEWAY_URL,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_call_url)
    )]
    pub gateway_url: Optional<String>,

    /// URL of functions for which the directory has none
    #[arg(
        long,
        env = setting::FUNCTION_URL,
        default_value = contract::DEFAULT_FUNCTION_URL,
        value_parser = parse_call_url
    )]
    pub function_url: String,

    /// Namespace of functions that are named without one
    #[arg(
        long,
        env = setting::FUNCTION_NAMESPACE,
        default_value = contract::DEFAULT_FUNCTION_NAMESPACE,
        value_parser = parse_namespace
    )]
    pub function_namespace: String,

    /// Without a gateway: additional namespaces whose functions may be called, comma-separated (*
    /// for all). Functions in the directory may always be called; functions in kube-system and
    /// `platform_namespace` never
    #[arg(long, env = function_namespaces::SETTING, default_value = "", hide_default_value = true)]
    pub function_namespaces: NamespaceList,

    /// Namespace of the gateway and the operator. Functions in it are never called
    #[arg(
        long,
        env = setting::PLATFORM_NAMESPACE,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_namespace)
    )]
    pub platform_namespace: Optional<String>,

    /// Maximum duration of an attempt to deliver a callback
    #[arg(
        long,
        env = setting::CALLBACK_TIMEOUT,
        default_value_t = GoDuration(contract::DEFAULT_CALLBACK_TIMEOUT),
        value_parser = GoDuration::parse_positive
    )]
    pub callback_timeout: GoDuration,

    /// Maximum number of attempts to deliver a callback
    #[arg(
        long,
        env = setting::CALLBACK_MAX_ATTEMPTS,
        default_value_t = contract::DEFAULT_CALLBACK_MAX_ATTEMPTS.into(),
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub callback_max_attempts: u64,

    /// File with the secrets that sign callbacks (Standard Webhooks), one `whsec_...` per line. It
    /// is read again for each callback, so that secrets can be rotated. Default: callbacks are not
    /// signed
    #[arg(
        long,
        env = setting::CALLBACK_SIGNING_SECRET_FILE,
        default_value_t,
        hide_default_value = true
    )]
    pub callback_signing_secret_file: Optional<PathBuf>,

    /// Allowed targets of callbacks, comma-separated: hosts, *.suffix, IP addresses or CIDRs.
    /// Default: all but loopback, link-local and metadata addresses
    #[arg(long, env = setting::CALLBACK_ALLOWED_HOSTS, default_value = "")]
    pub callback_allowed_hosts: HostAllowList,

    /// PEM file with a CA bundle for receivers of callbacks, which is trusted in addition to the
    /// public CAs. It is read again for each new connection
    #[arg(long, env = setting::CALLBACK_CA_FILE, default_value_t, hide_default_value = true)]
    pub callback_ca_file: Optional<PathBuf>,

    /// Accept any TLS certificate of a receiver of callbacks
    #[arg(
        long,
        env = "tls_insecure",
        default_value = "false",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub tls_insecure: bool,

    /// Keep exhausted calls as dead letters. If false, they are logged, counted and dropped
    #[arg(
        long,
        env = setting::DEAD_LETTERS,
        default_value = "true",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub dead_letters: bool,

    /// Log headers and bodies of requests and responses, including secrets in them
    #[arg(
        long,
        env = setting::WRITE_DEBUG,
        default_value = "false",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub write_debug: bool,

    /// Maximum size of a response, in bytes or with a unit (16Mi). A longer one is truncated
    #[arg(long, env = "max_response_bytes", default_value = "16Mi")]
    pub max_response_bytes: ByteSize,

    /// Maximum age of a connection to a function or receiver, so that a backend that is added gets
    /// its share of requests
    #[arg(
        long,
        env = setting::MAX_CONNECTION_AGE,
        default_value = client::DEFAULT_MAX_AGE,
        value_parser = GoDuration::parse_positive
    )]
    pub max_connection_age: GoDuration,

    /// Maximum number of requests on one connection to a function or receiver
    #[arg(
        long,
        env = setting::MAX_CONNECTION_REQUESTS,
        default_value_t = client::DEFAULT_MAX_REQUESTS,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connection_requests: u32,

    /// Memory for running calls, responses of functions, and results that are being delivered. When
    /// it is used up, no more calls are requested, and responses wait. Minimum: 16Mi. Default:
    /// three quarters of the container's memory limit, or 384Mi without a limit
    #[arg(
        long,
        env = setting::MEMORY_BUDGET,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(memory::parse_budget)
    )]
    pub memory_budget: Optional<ByteSize>,

    /// Time for running calls to finish after SIGTERM. Default: `upstream_timeout` and 10s
    #[arg(long, env = setting::GRACE_PERIOD, default_value_t, hide_default_value = true)]
    pub grace_period: Optional<GoDuration>,

    /// Listen address of /healthz, /readyz and /metrics. [::] is every address, of IPv4 and IPv6
    #[arg(long, env = setting::HTTP_ADDR, default_value_t = any_address(contract::WORKER_PORT))]
    pub http_addr: SocketAddr,

    /// Name of this worker in statistics and dead letters. In a pod, the name of the pod
    #[arg(long, env = setting::WORKER_NAME, default_value = "worker", hide_env_values = true)]
    pub worker_name: String,
}

/// A list of HTTP statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes(pub BTreeSet<u16>);

// === impl Settings ===

impl Settings {
    /// Returns the name of the queue's stream.
    #[must_use]
    pub fn stream(&self) -> String {
        self.nats_stream.as_ref().cloned().unwrap_or_else(|| self.queue_name.to_string())
    }

    /// Returns the queue's subject.
    #[must_use]
    pub fn subject(&self) -> String {
        self.nats_subject.as_ref().cloned().unwrap_or_else(|| self.queue_name.to_string())
    }

    /// Returns the name of the durable consumer.
    #[must_use]
    pub fn durable(&self) -> String {
        self.nats_durable.as_ref().cloned().unwrap_or_else(|| self.queue_name.durable())
    }

    /// Returns how long running calls may take to finish after SIGTERM, where this is the time
    /// limit of an invocation.
    #[must_use]
    pub fn grace(&self, timeout: Duration) -> Duration {
        self.grace_period.as_ref().map_or(timeout + GRACE_MARGIN, |grace| grace.0)
    }

    /// Returns how long a connection is used.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_age: self.max_connection_age.0,
            max_requests: self.max_connection_requests,
        }
    }

    /// Returns what applies as long as the directory has no settings of the queue.
    pub(crate) fn live_settings(&self) -> LiveSettings {
        let rate = self.rate_per_second.0;
        let rate = rate.map(|per_second| Rate { per_second, burst: self.rate_burst.0 });
        LiveSettings::new(self.max_inflight, self.upstream_timeout, self.queue_retry())
            .with_shared_limits(self.concurrency.0, rate)
            .with_per_function(PerFunction { max_inflight: self.function_max_inflight.0 })
    }

    /// Returns when a call is retried.
    fn queue_retry(&self) -> QueueRetry {
        QueueRetry {
            max_attempts: self.max_retry_attempts,
            min_backoff: self.initial_retry_wait,
            max_backoff: self.max_retry_wait,
            backoff: self.backoff,
            jitter: self.retry_jitter,
            status_codes: self.retry_http_codes.0.iter().copied().collect(),
        }
    }
}

fn parse_concurrency(text: &str) -> Result<u32, String> {
    parse_number(text, MAX_CONCURRENCY)
}

fn parse_rate(text: &str) -> Result<u32, String> {
    parse_number(text, MAX_RATE)
}

/// Reads a number from 1 to a maximum.
fn parse_number(text: &str, max: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("use a number from 1 to {max}, or leave it out for no limit"))
}

// === impl Codes ===

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<_> = self.0.iter().map(u16::to_string).collect();
        f.write_str(&codes.join(","))
    }
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_codes(text).map(Self).ok_or_else(|| {
            "must be HTTP statuses from 100 to 599, separated by commas, for example 429,503"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["asyncqueue-worker"].iter().chain(arguments);
        Settings::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn names_follow_from_the_name_of_the_queue() {
        let settings = parse(&["--queue-name", "slow-queue"]).unwrap();
        assert_eq!(settings.stream(), "slow-queue");
        assert_eq!(settings.subject(), "slow-queue");
        assert_eq!(settings.durable(), "slow-queue-workers");
        assert_eq!(settings.grace(Duration::from_secs(60)), Duration::from_secs(70));
        assert_eq!(settings.max_response_bytes, ByteSize(16 << 20));
    }

    #[test]
    fn a_switch_may_be_given_with_or_without_a_value() {
        for (arguments, expected) in [
            (&["--ensure-stream", "--queue-name=jobs"][..], true),
            (&["--ensure-stream=true"], true),
            (&["--ensure-stream", "true"], true),
            (&["--ensure-stream", "1"], true),
            (&["--ensure-stream=0"], false),
            (&["--ensure-stream", "false"], false),
            (&[], false),
        ] {
            assert_eq!(parse(arguments).unwrap().ensure_stream, expected, "{arguments:?}");
        }
        let settings = parse(&["--tls-insecure", "--write-debug", "--dead-letters=false"]).unwrap();
        assert!(settings.tls_insecure && settings.write_debug && !settings.dead_letters);
    }

    #[test]
    fn a_bad_value_is_refused_with_its_name_and_the_rule() {
        for (flag, value, rule) in [
            ("--max-inflight", "0", "1..=10000"),
            ("--concurrency", "0", "1 to 1000000"),
            ("--rate-per-second", "0.5", "1 to 100000"),
            ("--function-max-inflight", "0", "1 to 1000000"),
            ("--rate-burst", "many", "1 to 100000"),
            ("--upstream-timeout", "15", "15m"),
            ("--upstream-timeout", "0s", "more than 0"),
            ("--max-retry-attempts", "0", "1.."),
            ("--retry-http-codes", "200,abc", "429,503"),
            ("--queue-name", "Slow", "a-z"),
            ("--max-response-bytes", "16MB", "256Ki"),
            ("--max-connection-age", "0s", "more than 0"),
            ("--max-connection-requests", "0", "1.."),
            ("--memory-budget", "1Mi", "at least 16Mi"),
            ("--backoff", "linear", "static"),
            ("--gateway-url", "gateway:8080", "http://host:port"),
            ("--function-url", "https://{function}", "without TLS"),
            ("--function-namespaces", "kube-system", "never called"),
            ("--nats-stream", "a.b", "none of"),
            ("--callback-allowed-hosts", "10.0.0.0/99", "10.0.0.0/99"),
        ] {
            let error = parse(&[flag, value]).unwrap_err();
            assert!(error.contains(flag) && error.contains(rule), "{error}");
        }
    }
}
