//! The settings of the gateway.

// The comments of settings are the text of --help, where [::] is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use std::{net::SocketAddr, path::PathBuf};

use asyncqueue::{
    GoDuration, QueueName,
    function_namespaces::{self, NamespaceList},
    names::parse_namespace,
};
use asyncqueue_runtime::{
    byte_size::ByteSize,
    client,
    contract::{self, any_address, setting},
    memory,
    server::{MAX_HEADER_BYTES, MIN_HEADER_BYTES},
    settings::{LogSettings, NatsSettings, Optional, optional, parse_bool},
};
use clap::{ArgAction, Parser, ValueEnum};

use crate::base_url::{BaseUrl, FunctionUrlTemplate};

/// Accepts HTTP calls of functions and stores them on their queues
///
/// Each flag can also be set by the environment variable that is shown as [env: …].
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-gateway", version)]
pub struct Settings {
    /// The log.
    #[command(flatten)]
    pub log: LogSettings,

    /// NATS.
    #[command(flatten)]
    pub nats: NatsSettings,

    /// Listen address for calls and probes: /async-function/…, /function/…, /healthz and /readyz.
    /// [::] listens on all addresses, IPv4 and IPv6
    #[arg(long, env = setting::HTTP_ADDR, default_value_t = any_address(contract::GATEWAY_PORT))]
    pub http_addr: SocketAddr,

    /// Listen address for /metrics. Also serves /healthz and /readyz
    #[arg(
        long,
        env = "metrics_addr",
        default_value_t = any_address(contract::GATEWAY_METRICS_PORT)
    )]
    pub metrics_addr: SocketAddr,

    /// Queue of functions that are not assigned to another queue
    #[arg(long, env = setting::DEFAULT_QUEUE, default_value = contract::DEFAULT_QUEUE)]
    pub default_queue: QueueName,

    /// Namespace of functions that are called without one
    #[arg(
        long,
        env = setting::FUNCTION_NAMESPACE,
        default_value = contract::DEFAULT_FUNCTION_NAMESPACE,
        value_parser = parse_namespace
    )]
    pub function_namespace: String,

    /// Additional namespaces whose functions may be called, comma-separated; * for all. Namespaces
    /// of functions in the directory are allowed too. kube-system and `POD_NAMESPACE` are never
    /// allowed
    #[arg(long, env = function_namespaces::SETTING, default_value = "", hide_default_value = true)]
    pub function_namespaces: NamespaceList,

    /// Namespace of the gateway's pod, from the downward API. Functions in it are never called
    #[arg(
        long,
        env = setting::POD_NAMESPACE,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_namespace)
    )]
    pub pod_namespace: Optional<String>,

    /// Base URL of an OpenFaaS gateway that receives all requests that are not for this gateway. If
    /// not set, other paths answer 404, and /function/NAME goes directly to the function
    #[arg(long, env = "upstream_url", default_value_t, hide_default_value = true)]
    pub upstream_url: Optional<BaseUrl>,

    /// Base URL of functions that have none in the directory. {function} and {namespace} are
    /// replaced
    #[arg(
        long,
        env = setting::FUNCTION_URL,
        default_value = contract::DEFAULT_FUNCTION_URL
    )]
    pub function_url: FunctionUrlTemplate,

    /// What to do with calls of functions that are not in the directory: accept or reject. Default:
    /// reject with `directory_file`, otherwise accept
    #[arg(
        long,
        env = "unknown_function",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_unknown_function)
    )]
    pub unknown_function: Optional<UnknownFunction>,

    /// YAML file with queues and functions, instead of the directory that the operator writes
    #[arg(long, env = "directory_file", default_value_t, hide_default_value = true)]
    pub directory_file: Optional<PathBuf>,

    /// Maximum size of a body, in bytes or with a unit, as 512Ki or 1Mi. Never above the limit of
    /// the NATS server
    #[arg(
        long,
        env = "max_payload",
        default_value = "1Mi",
        value_parser = ByteSize::parse_positive
    )]
    pub max_payload: ByteSize,

    /// Maximum size of the head of a request (request line and headers), from 8Ki to 1Mi
    #[arg(
        long,
        env = "max_header_bytes",
        default_value_t = ByteSize(MAX_HEADER_BYTES),
        value_parser = parse_header_bytes
    )]
    pub max_header_bytes: ByteSize,

    /// Maximum time for NATS to store a call. After that, the gateway answers 503
    #[arg(
        long,
        env = "publish_timeout",
        default_value = "5s",
        value_parser = GoDuration::parse_positive
    )]
    pub publish_timeout: GoDuration,

    /// Maximum time that a cancellation waits for the worker that has the call to confirm that the
    /// call does not start. After that, the gateway answers 503. The cancellation stays in force,
    /// and a repeated request waits again
    #[arg(
        long,
        env = "cancel_timeout",
        default_value = "2s",
        value_parser = GoDuration::parse_positive
    )]
    pub cancel_timeout: GoDuration,

    /// Maximum time for a client to send a body
    #[arg(
        long,
        env = "read_timeout",
        default_value = "60s",
        value_parser = GoDuration::parse_positive
    )]
    pub read_timeout: GoDuration,

    /// Maximum number of calls that are published to NATS at the same time; more are rejected with
    /// status 503. NATS stores a call in a few milliseconds, so a higher value only makes calls
    /// wait longer
    #[arg(
        long,
        env = "max_publishing",
        default_value = "2048",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_publishing: u32,

    /// Maximum time that a request waits for the result of a call, with Prefer: wait=N or ?wait=
    #[arg(
        long,
        env = "max_wait",
        default_value = "60s",
        value_parser = GoDuration::parse_positive
    )]
    pub max_wait: GoDuration,

    /// Maximum number of requests that wait for the result of a call at the same time. A sixteenth
    /// of the connections is always left for others. Above it, or without memory for another wait,
    /// a client that prefers to wait gets 202 at once
    #[arg(
        long,
        env = "max_waits",
        default_value = "4096",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_waits: u32,

    /// Maximum number of calls before a call in its chain, by X-Async-Depth. A chain consists of
    /// calls whose callback or function calls the next function. Above it, the gateway answers 508
    #[arg(long, env = "max_chain_depth", default_value_t = 100)]
    pub max_chain_depth: u32,

    /// Maximum number of times that a request passes through the gateways of this installation, by
    /// their entries in Via. Above it, the gateway answers 508. A function that copies Via to its
    /// next request counts
    #[arg(
        long,
        env = "max_hops",
        default_value = "10",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub max_hops: u8,

    /// Memory for the data of clients and functions: connections, heads, bodies, and requests that
    /// are passed on. Requests that do not fit are rejected with 503. Minimum: 16Mi. Default: three
    /// quarters of the container's memory limit, or 384Mi without a limit
    #[arg(
        long,
        env = setting::MEMORY_BUDGET,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(memory::parse_budget)
    )]
    pub memory_budget: Optional<ByteSize>,

    /// Maximum number of connections of clients. Further ones wait in the operating system. Each
    /// takes 24Ki of the memory budget, of which all together take at most three quarters, and a
    /// file descriptor. Default: as many as fit into half of the budget, and at most 8192
    #[arg(
        long,
        env = "max_connections",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_max_connections)
    )]
    pub max_connections: Optional<u32>,

    /// Maximum age of a connection to a function or to `upstream_url`, so that new backends get
    /// their share of the requests
    #[arg(
        long,
        env = setting::MAX_CONNECTION_AGE,
        default_value = client::DEFAULT_MAX_AGE,
        value_parser = GoDuration::parse_positive
    )]
    pub max_connection_age: GoDuration,

    /// Maximum number of requests on one connection to a function or to `upstream_url`
    #[arg(
        long,
        env = setting::MAX_CONNECTION_REQUESTS,
        default_value_t = client::DEFAULT_MAX_REQUESTS,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_connection_requests: u32,

    /// Log each request
    #[arg(
        long,
        env = "access_log",
        action = ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
    )]
    pub access_log: bool,

    /// Create the streams and consumers of the default queue and of the queues in `directory_file`.
    /// For installations without an operator
    #[arg(
        long,
        env = setting::ENSURE_STREAM,
        action = ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
    )]
    pub ensure_stream: bool,
}

/// Maximum value of `max_header_bytes`: a connection that sends as much takes this memory.
const MAX_HEADER_BYTES_SETTING: usize = 1 << 20;

fn parse_header_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if !(MIN_HEADER_BYTES..=MAX_HEADER_BYTES_SETTING).contains(&bytes) => {
            Err("it must be from 8Ki to 1Mi".to_owned())
        }
        read => read.map_err(|error| error.to_string()),
    }
}

fn parse_unknown_function(text: &str) -> Result<UnknownFunction, String> {
    UnknownFunction::from_str(text, false)
        .map_err(|_| "[possible values: accept, reject]".to_owned())
}

fn parse_max_connections(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "use a number of at least 1, or leave it out".to_owned())
}

// === impl Settings ===

impl Settings {
    /// Returns what to do with calls of functions that are not in the directory. A directory file
    /// lists all functions, so that any other name is misspelt.
    #[must_use]
    pub fn unknown_function(&self) -> UnknownFunction {
        let default = match self.directory_file.as_ref() {
            Some(_) => UnknownFunction::Reject,
            None => UnknownFunction::Accept,
        };
        self.unknown_function.0.unwrap_or(default)
    }
}

/// What to do with calls of functions that are not in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownFunction {
    /// Store them on the default queue: the function may be deployed before its call runs.
    Accept,
    /// Answer 404.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_manual() {
        let settings = Settings::parse_from(["asyncqueue-gateway"]);
        assert_eq!(settings.http_addr.to_string(), "[::]:8080");
        assert_eq!(settings.metrics_addr.to_string(), "[::]:8082");
        assert_eq!(settings.default_queue.as_str(), "faas-request");
        assert_eq!(settings.function_namespace, "openfaas-fn");
        assert!(settings.function_namespaces.is_empty());
        assert_eq!(settings.pod_namespace, Optional(None));
        assert_eq!(settings.upstream_url, Optional(None));
        assert_eq!(settings.unknown_function(), UnknownFunction::Accept);
        assert_eq!(settings.directory_file, Optional(None));
        assert_eq!(settings.max_payload, ByteSize(1 << 20));
        assert_eq!(settings.max_header_bytes, ByteSize(32 << 10));
        assert_eq!(settings.publish_timeout.to_string(), "5s");
        assert_eq!(settings.read_timeout.to_string(), "1m");
        assert_eq!(settings.max_publishing, 2048);
        assert_eq!(settings.max_chain_depth, 100);
        assert_eq!(settings.max_hops, 10);
        assert_eq!(settings.max_connection_age.to_string(), "30s");
        assert_eq!(settings.max_connection_requests, 1000);
        assert_eq!(settings.memory_budget, Optional(None));
        assert_eq!(settings.max_connections, Optional(None));
        assert!(!settings.ensure_stream && !settings.access_log);
    }

    #[test]
    fn unknown_functions_are_rejected_with_a_directory_file() {
        for (arguments, expected) in [
            (&["--directory-file=f"][..], UnknownFunction::Reject),
            (&["--directory-file=f", "--unknown-function="], UnknownFunction::Reject),
            (&["--directory-file=f", "--unknown-function=accept"], UnknownFunction::Accept),
            (&["--unknown-function=reject"], UnknownFunction::Reject),
            (&["--directory-file="], UnknownFunction::Accept),
        ] {
            let arguments = ["asyncqueue-gateway"].iter().chain(arguments);
            assert_eq!(Settings::parse_from(arguments.clone()).unknown_function(), expected);
        }
    }

    #[test]
    fn flag_may_have_a_value_or_none() {
        for (arguments, expected) in [
            (["p", "--ensure-stream"], true),
            (["p", "--ensure-stream=0"], false),
            (["p", "--ensure-stream=true"], true),
        ] {
            assert_eq!(Settings::parse_from(arguments).ensure_stream, expected, "{arguments:?}");
        }
    }

    #[test]
    fn error_names_setting_and_value() {
        for (flag, value) in [
            ("--http-addr", "8080"),
            ("--default-queue", "Slow Queue"),
            ("--function-namespace", "a.b"),
            ("--function-namespaces", "a b"),
            ("--function-namespaces", "kube-system"),
            ("--upstream-url", "gateway:8080"),
            ("--function-url", "{function}"),
            ("--unknown-function", "maybe"),
            ("--max-payload", "1MB"),
            ("--max-header-bytes", "4Ki"),
            ("--max-header-bytes", "2Mi"),
            ("--publish-timeout", "5"),
            ("--read-timeout", "60"),
            ("--max-publishing", "0"),
            ("--max-chain-depth", "-1"),
            ("--max-hops", "0"),
            ("--max-connection-age", "0s"),
            ("--max-connection-requests", "0"),
            ("--memory-budget", "256MB"),
            ("--memory-budget", "1Mi"),
            ("--access-log", "yes"),
            ("--ensure-stream", "yes"),
        ] {
            let error = Settings::try_parse_from(["p", &format!("{flag}={value}")]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let line = error.to_string().lines().next().unwrap().to_owned();
            assert!(line.contains(flag) && line.contains(value), "{line}");
        }
    }
}
