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

use crate::target::{BaseUrl, FunctionUrl};

/// Takes HTTP calls of functions and stores them on their queues
///
/// Each flag may be given as an environment variable instead, named in [env: …].
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-gateway", version)]
pub struct Settings {
    /// The log.
    #[command(flatten)]
    pub log: LogSettings,

    /// NATS.
    #[command(flatten)]
    pub nats: NatsSettings,

    /// Where calls are taken: /async-function/…, /function/…, /healthz and /readyz. [::] is every
    /// address, of IPv4 and IPv6
    #[arg(long, env = setting::HTTP_ADDR, default_value_t = any_address(contract::GATEWAY_PORT))]
    pub http_addr: SocketAddr,

    /// Where /metrics is served, beside /healthz and /readyz
    #[arg(long, env = "metrics_addr", default_value_t = any_address(contract::GATEWAY_METRICS_PORT))]
    pub metrics_addr: SocketAddr,

    /// The queue of functions without one of their own
    #[arg(long, env = setting::DEFAULT_QUEUE, default_value = contract::DEFAULT_QUEUE)]
    pub default_queue: QueueName,

    /// The namespace of functions that are called without one
    #[arg(long, env = setting::FUNCTION_NAMESPACE, default_value = contract::DEFAULT_FUNCTION_NAMESPACE, value_parser = parse_namespace)]
    pub function_namespace: String,

    /// More namespaces whose functions may be called, comma-separated; * for all. Those of
    /// functions in the directory may be called too; kube-system and `POD_NAMESPACE` never
    #[arg(long, env = function_namespaces::SETTING, default_value = "", hide_default_value = true)]
    pub function_namespaces: NamespaceList,

    /// Namespace of the gateway's pod, by the downward API: functions in it are never called
    #[arg(long, env = setting::POD_NAMESPACE, default_value_t, hide_default_value = true, value_parser = optional(parse_namespace))]
    pub pod_namespace: Optional<String>,

    /// Base URL of an OpenFaaS gateway, to which every path goes that is not ours. Not set, those
    /// are not found, and /function/NAME goes straight to the function
    #[arg(long, env = "upstream_url", default_value_t, hide_default_value = true)]
    pub upstream_url: Optional<BaseUrl>,

    /// Base URL of a function for which the directory has none; {function} and {namespace} are
    /// filled in
    #[arg(
        long,
        env = setting::FUNCTION_URL,
        default_value = contract::DEFAULT_FUNCTION_URL
    )]
    pub function_url: FunctionUrl,

    /// What to do with calls of a function that the directory does not have: accept or reject.
    /// Default: reject with `directory_file`, which has all of them; else accept
    #[arg(
        long,
        env = "unknown_function",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_unknown_function)
    )]
    pub unknown_function: Optional<UnknownFunction>,

    /// YAML file with queues and functions, in place of the directory that the operator keeps
    #[arg(long, env = "directory_file", default_value_t, hide_default_value = true)]
    pub directory_file: Optional<PathBuf>,

    /// The largest body taken; never above what the NATS server takes
    #[arg(long, env = "max_payload", default_value = "1Mi", value_parser = ByteSize::parse_positive)]
    pub max_payload: ByteSize,

    /// The largest head of a request taken: its first line and its headers. From 8Ki to 1Mi
    #[arg(
        long,
        env = "max_header_bytes",
        default_value_t = ByteSize(MAX_HEADER_BYTES),
        value_parser = parse_header_bytes
    )]
    pub max_header_bytes: ByteSize,

    /// How long NATS has to store a call before the client hears that it is unavailable
    #[arg(long, env = "publish_timeout", default_value = "5s", value_parser = GoDuration::parse_positive)]
    pub publish_timeout: GoDuration,

    /// How long a cancellation waits for the worker that has the call to say that it does not
    /// start; then it is answered with 503, holds, and a repeat asks again
    #[arg(long, env = "cancel_timeout", default_value = "2s", value_parser = GoDuration::parse_positive)]
    pub cancel_timeout: GoDuration,

    /// How long a client has to send a body
    #[arg(long, env = "read_timeout", default_value = "60s", value_parser = GoDuration::parse_positive)]
    pub read_timeout: GoDuration,

    /// Calls on their way to NATS at once; more are refused until one is stored. At full rate NATS
    /// stores a call in a few milliseconds, so that more at once would only wait longer
    #[arg(long, env = "max_publishing", default_value = "2048", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_publishing: u32,

    /// How many calls may come before a call in its chain, by X-Async-Depth: of a call whose
    /// callback or function calls a function, and so on. Beyond, the gateway answers 508
    #[arg(long, env = "max_chain_depth", default_value_t = 100)]
    pub max_chain_depth: u32,

    /// How often a request may come through the gateways of this installation, by their entries in
    /// Via; beyond, it is answered 508. A function that passes Via on to the next function counts
    #[arg(long, env = "max_hops", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub max_hops: u8,

    /// Memory for what clients and functions make this program hold: connections, heads, bodies,
    /// and what is passed on. What does not fit is refused with 503. At least 16Mi; if not set,
    /// three quarters of the container's memory limit, or 384Mi where it has none
    #[arg(
        long,
        env = setting::MEMORY_BUDGET,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(memory::parse_budget)
    )]
    pub memory_budget: Optional<ByteSize>,

    /// Longest time that a connection to a function or to `upstream_url` is used, so that a backend
    /// that is added gets its share
    #[arg(long, env = setting::MAX_CONNECTION_AGE, default_value = client::DEFAULT_MAX_AGE, value_parser = GoDuration::parse_positive)]
    pub max_connection_age: GoDuration,

    /// Most requests on one connection to a function or to `upstream_url`
    #[arg(long, env = setting::MAX_CONNECTION_REQUESTS, default_value_t = client::DEFAULT_MAX_REQUESTS, value_parser = clap::value_parser!(u32).range(1..))]
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

    /// Create the streams of the default queue and of those in `directory_file`, with their
    /// consumers, where there is no operator
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

/// The most that `max_header_bytes` may be: it is held for a connection that sends as much.
const MOST_HEADER_BYTES: usize = 1 << 20;

fn parse_header_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if !(MIN_HEADER_BYTES..=MOST_HEADER_BYTES).contains(&bytes) => {
            Err("it must be from 8Ki to 1Mi".to_owned())
        }
        read => read.map_err(|error| error.to_string()),
    }
}

fn parse_unknown_function(text: &str) -> Result<UnknownFunction, String> {
    UnknownFunction::from_str(text, false)
        .map_err(|_| "[possible values: accept, reject]".to_owned())
}

// === impl Settings ===

impl Settings {
    /// What to do with calls of a function that the directory does not have. A directory file has
    /// all of them, so that any other name is misspelt.
    #[must_use]
    pub fn unknown_function(&self) -> UnknownFunction {
        let default = match self.directory_file.as_ref() {
            Some(_) => UnknownFunction::Reject,
            None => UnknownFunction::Accept,
        };
        self.unknown_function.0.unwrap_or(default)
    }
}

/// What to do with calls of a function that the directory does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownFunction {
    /// Put them on the default queue: it may be deployed by the time its call comes up.
    Accept,
    /// Answer 404.
    Reject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_the_defaults_of_the_manual_hold() {
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
        assert!(!settings.ensure_stream && !settings.access_log);
    }

    #[test]
    fn unknown_functions_are_rejected_where_a_file_has_all_of_them() {
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
    fn a_flag_may_be_given_with_or_without_a_value() {
        for (arguments, expected) in [
            (["p", "--ensure-stream"], true),
            (["p", "--ensure-stream=0"], false),
            (["p", "--ensure-stream=true"], true),
        ] {
            assert_eq!(Settings::parse_from(arguments).ensure_stream, expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_bad_value_is_refused_with_its_setting_and_the_value() {
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
