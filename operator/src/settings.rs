//! The operator's settings. Names and defaults are a contract: manifests and tests use them.

// The comments of settings are the text of --help, where [::] is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use asyncqueue::{
    GoDuration, ParseDurationError, QueueName,
    directory::MAX_MAX_INFLIGHT,
    function_namespaces::{self, FunctionNamespaces, NamespaceList},
    lanes::{DEFAULT_MAX_LANES, MAX_MAX_LANES},
    names::parse_namespace,
};
use asyncqueue_runtime::{
    contract::{self, any_address, setting},
    program::UsageError,
    settings::{LogSettings, NatsSettings, Optional, optional, parse_bool, parse_call_url},
};
use clap::{Args, Parser, Subcommand};

use crate::{
    crd::SecretKey, lane_limits::LaneLimits, nats::allowed_streams::AllowedStreams,
    partial_spec::PartialSpec, pull_secrets::PullSecrets,
};

// Bounds of the CRD's fields: a test compares them.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const MIN_ACK_WAIT: Duration = Duration::from_secs(1);
const MAX_ACK_WAIT: Duration = Duration::from_secs(3600);

/// Creates streams and workers from AsyncQueues, and the directory from annotations of functions.
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-operator", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Subcommand; without one, the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub settings: Settings,
}

/// A subcommand.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinition, as in crds/asyncqueues.yaml
    Crd,
}

/// The operator's settings.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// How NATS is reached.
    #[command(flatten)]
    pub nats: NatsSettings,
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,

    /// Watched namespaces of AsyncQueues and functions, comma-separated. Default: all
    #[arg(long, env = "watch_namespaces", default_value = "", hide_default_value = true)]
    pub watch_namespaces: Namespaces,

    /// Workers: namespace of functions whose name has none
    #[arg(
        long,
        env = setting::FUNCTION_NAMESPACE,
        default_value = contract::DEFAULT_FUNCTION_NAMESPACE,
        value_parser = parse_namespace,
    )]
    pub function_namespace: String,

    /// Workers: additional namespaces whose functions may be called, comma-separated; * allows all.
    /// Functions in the directory may always be called, those in kube-system and POD_NAMESPACE
    /// never
    #[arg(long, env = function_namespaces::SETTING, default_value = "", hide_default_value = true)]
    pub function_namespaces: NamespaceList,

    /// Workers: URL of the gateway through which functions are called. Empty: functions are called
    /// directly
    #[arg(
        long,
        env = setting::GATEWAY_URL,
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_call_url),
    )]
    pub gateway_url: Optional<String>,

    /// Image of workers, unless their AsyncQueue names one. It may be of another version, so a
    /// change of maxInflight, timeout or retry restarts its workers. Default: the operator's own
    /// image
    #[arg(long, env = "worker_image", default_value_t, hide_default_value = true)]
    pub worker_image: Optional<String>,

    /// Pull secrets of the worker image, comma-separated names of Secrets in the namespace of each
    /// queue. An AsyncQueue overrides them with spec.worker.imagePullSecrets
    #[arg(long, env = "worker_image_pull_secrets", default_value = "", hide_default_value = true)]
    pub worker_image_pull_secrets: PullSecrets,

    /// Workers: NAME/KEY of a Secret in the namespace of each queue with the credentials file for
    /// the operator's NATS. Not used for an AsyncQueue with credentials or a NATS of its own
    #[arg(long, env = "worker_nats_creds_secret", default_value_t, hide_default_value = true)]
    pub worker_nats_creds_secret: Optional<SecretKey>,

    /// Workers: NAME/KEY of a Secret in the namespace of each queue with the CA bundle for the
    /// operator's NATS. Not used for an AsyncQueue with a CA bundle or a NATS of its own
    #[arg(long, env = "worker_nats_ca_secret", default_value_t, hide_default_value = true)]
    pub worker_nats_ca_secret: Optional<SecretKey>,

    /// Workers: NAME/KEY of a Secret in the namespace of each queue with the client certificate for
    /// the operator's NATS. Needs worker_nats_tls_key_secret. Not used for an AsyncQueue with a
    /// NATS of its own
    #[arg(long, env = "worker_nats_tls_cert_secret", default_value_t, hide_default_value = true)]
    pub worker_nats_tls_cert_secret: Optional<SecretKey>,

    /// Workers: NAME/KEY of a Secret in the namespace of each queue with the private key of that
    /// certificate
    #[arg(long, env = "worker_nats_tls_key_secret", default_value_t, hide_default_value = true)]
    pub worker_nats_tls_key_secret: Optional<SecretKey>,

    /// User and group id of workers. Empty: not set, so that the cluster chooses it, as OpenShift
    /// requires
    #[arg(
        long,
        env = "worker_user_id",
        default_value = "65532",
        value_parser = optional(parse_user_id),
    )]
    pub worker_user_id: Optional<i64>,

    /// Streams and subjects of other programs that AsyncQueues with the annotation
    /// asyncqueue.io/adopt=true may take over: comma-separated names, in which * matches any
    /// characters. Streams that AsyncQueue created need not be listed. Empty: only those
    #[arg(long, env = "allowed_streams", default_value = "faas-*")]
    pub allowed_streams: AllowedStreams,

    /// Queue of functions without an annotation, created at startup if it does not exist. Empty:
    /// none is created
    #[arg(long, env = setting::DEFAULT_QUEUE, default_value = contract::DEFAULT_QUEUE)]
    pub default_queue: Optional<QueueName>,

    /// Fields of the spec of the default queue, in JSON. A changed setting also updates an existing
    /// queue. Example: {"maxInflight": 5, "retry": {"maxAttempts": 3}}
    #[arg(long, env = "default_queue_spec", default_value_t, hide_default_value = true)]
    pub default_queue_spec: Optional<PartialSpec>,

    /// spec.maxInflight of the default queue, 1 to 10000. A changed setting also updates an
    /// existing queue. Empty: the field is not set
    #[arg(
        long,
        env = "default_queue_max_inflight",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_max_inflight),
    )]
    pub default_queue_max_inflight: Optional<i32>,

    /// spec.timeout of the default queue, more than 0s and at most 24h; applied in the same way
    #[arg(
        long,
        env = "default_queue_timeout",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_timeout),
    )]
    pub default_queue_timeout: Optional<GoDuration>,

    /// spec.consumer.ackWait of the default queue, 1s to 1h; applied in the same way
    #[arg(
        long,
        env = "default_queue_ack_wait",
        default_value_t,
        hide_default_value = true,
        value_parser = optional(parse_ack_wait),
    )]
    pub default_queue_ack_wait: Optional<GoDuration>,

    /// Maximum number of functions of one queue with fairness: Function that have lanes of their
    /// own, 1 to 98. Each lane makes each acknowledgement of the queue dearer. Functions beyond
    /// share a lane
    #[arg(
        long,
        env = "max_lanes_per_queue",
        default_value_t = DEFAULT_MAX_LANES,
        value_parser = parse_max_lanes_per_queue,
    )]
    pub max_lanes_per_queue: usize,

    /// Maximum number of lanes of all queues, 1 to 100000. Beyond, functions without a lane share
    /// one, until a twentieth is free
    #[arg(
        long,
        env = "max_lanes",
        default_value_t = 5_000,
        value_parser = parse_max_lanes,
    )]
    pub max_lanes: usize,

    /// The same for queues whose streams have several replicas, where each lane is a Raft group of
    /// NATS. They count in max_lanes too
    #[arg(
        long,
        env = "max_lanes_replicated",
        default_value_t = 1_000,
        value_parser = parse_max_lanes,
    )]
    pub max_lanes_replicated: usize,

    /// Listen address of /healthz, /readyz, /metrics and /depth. [::] is every address, of IPv4 and
    /// IPv6
    #[arg(long, env = setting::HTTP_ADDR, default_value_t = any_address(contract::OPERATOR_PORT))]
    pub http_addr: SocketAddr,

    /// Work only while holding the Lease asyncqueue-operator in POD_NAMESPACE, so that several
    /// operators may run
    #[arg(
        long,
        env = "leader_elect",
        default_value = "true",
        action = clap::ArgAction::Set,
        value_parser = parse_bool,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub leader_elect: bool,

    /// Name of the operator's pod, from the downward API: used to find its image, and as the
    /// reporter of events and the holder of the Lease
    #[arg(long, env = "POD_NAME", default_value_t, hide_default_value = true)]
    pub pod_name: Optional<String>,

    /// IP address of the operator's pod, from the downward API: while it leads, standbys redirect
    /// requests for /depth to it
    #[arg(long, env = "POD_IP", default_value_t, hide_default_value = true)]
    pub pod_ip: Optional<IpAddr>,

    /// Namespace of the operator's pod, from the downward API: used to find its image, and for the
    /// default queue and the Lease
    #[arg(long, env = setting::POD_NAMESPACE, default_value_t, hide_default_value = true)]
    pub pod_namespace: Optional<String>,
}

/// The namespaces that are watched: some, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces(Vec<String>);

/// Reads spec.maxInflight, as the CRD allows it.
fn parse_max_inflight(text: &str) -> Result<i32, String> {
    parse_number(text, i32::from(MAX_MAX_INFLIGHT))
}

fn parse_max_lanes_per_queue(text: &str) -> Result<usize, String> {
    parse_number(text, MAX_MAX_LANES)
}

fn parse_max_lanes(text: &str) -> Result<usize, String> {
    parse_number(text, 100_000)
}

/// Reads a number from 1 to `max`.
fn parse_number<N>(text: &str, max: N) -> Result<N, String>
where
    N: Copy + FromStr + PartialOrd + From<u8> + fmt::Display,
{
    let number = text.parse().ok().filter(|number| *number >= N::from(1) && *number <= max);
    number.ok_or_else(|| format!("use a number from 1 to {max}"))
}

/// Reads a user id that is not root's.
fn parse_user_id(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "use a number from 1, since workers never run as root".to_owned())
}

/// Reads spec.timeout, as the CRD allows it.
fn parse_timeout(text: &str) -> Result<GoDuration, String> {
    parse_duration(text, Duration::from_nanos(1)..=MAX_TIMEOUT, "more than 0s, at most 24h")
}

/// Reads spec.consumer.ackWait, as the CRD allows it.
fn parse_ack_wait(text: &str) -> Result<GoDuration, String> {
    parse_duration(text, MIN_ACK_WAIT..=MAX_ACK_WAIT, "from 1s to 1h")
}

fn parse_duration(
    text: &str,
    allowed: RangeInclusive<Duration>,
    rule: &str,
) -> Result<GoDuration, String> {
    let read: GoDuration = text.parse().map_err(|error: ParseDurationError| error.to_string())?;
    if allowed.contains(&read.0) { Ok(read) } else { Err(format!("use a duration {rule}")) }
}

// === impl Settings ===

impl Settings {
    /// Returns the namespace of the default queue: that of the operator if it is watched, or else a
    /// watched one. `None` is the namespace of the Kubernetes client.
    #[must_use]
    pub fn default_queue_namespace(&self) -> Option<&str> {
        let own = self.pod_namespace.as_ref().map(String::as_str);
        let watched = own.filter(|own| self.watch_namespaces.contains(own));
        watched.or_else(|| self.watch_namespaces.iter().next().flatten()).or(own)
    }

    /// Returns how many lanes there may be.
    pub(crate) fn lane_limits(&self) -> LaneLimits {
        LaneLimits {
            per_queue: self.max_lanes_per_queue,
            total: self.max_lanes,
            replicated: self.max_lanes_replicated,
        }
    }

    /// Returns the namespaces whose functions may be called.
    ///
    /// # Errors
    ///
    /// A setting names one whose functions are never called.
    pub fn function_namespaces(&self) -> Result<FunctionNamespaces, UsageError> {
        let (default, listed) = (self.function_namespace.clone(), self.function_namespaces.clone());
        FunctionNamespaces::new(default, listed, self.pod_namespace.0.clone()).map_err(|error| {
            UsageError(format!("function_namespace or function_namespaces: {error}"))
        })
    }

    /// Returns the namespace of the Lease; `None` without leader election.
    ///
    /// # Errors
    ///
    /// Leader election is on, and no namespace is known.
    pub fn lease_namespace(&self) -> Result<Option<&str>, UsageError> {
        if !self.leader_elect {
            return Ok(None);
        }
        let own = self.pod_namespace.as_ref().map(String::as_str).ok_or_else(|| {
            let problem = "leader_elect is on, and the namespace of the Lease is not known: set \
                           POD_NAMESPACE, or leader_elect=false if no other operator runs";
            UsageError(problem.to_owned())
        });
        own.map(Some)
    }

    /// Returns the address at which other pods reach the HTTP endpoints; `None` outside of a pod.
    #[must_use]
    pub fn own_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.pod_ip.0?, self.http_addr.port()))
    }

    /// Returns the log settings. The Kubernetes client logs each failed request and each
    /// reconciliation: this is off unless `RUST_LOG` asks for it, since the operator logs them too.
    #[must_use]
    pub fn log(&self) -> LogSettings {
        let log_filter = format!("kube_client=off,kube_runtime=warn,{}", self.log.log_filter);
        LogSettings { log_filter, ..self.log.clone() }
    }
}

// === impl Namespaces ===

impl Namespaces {
    /// Returns each namespace, or `None` once if all are watched.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let all = self.0.is_empty().then_some(None);
        all.into_iter().chain(self.0.iter().map(|namespace| Some(namespace.as_str())))
    }

    /// Returns whether a namespace is watched.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|watched| watched == namespace)
    }
}

impl fmt::Display for Namespaces {
    /// Their names, or `all`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "all" } else { "" })?;
        f.write_str(&self.0.join(","))
    }
}

impl FromStr for Namespaces {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let mut namespaces: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        namespaces.sort();
        namespaces.dedup();
        Ok(Self(namespaces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_a_contract() {
        let Cli { command, settings } = Cli::parse_from(["asyncqueue-operator"]);
        assert!(command.is_none());
        let limits = LaneLimits { per_queue: 90, total: 5_000, replicated: 1_000 };
        assert_eq!(settings.lane_limits(), limits);
        assert_eq!(settings.default_queue.0.unwrap().as_str(), "faas-request");
        assert_eq!(settings.function_namespace, "openfaas-fn");
        assert!(
            settings.allowed_streams.contain("faas-request")
                && !settings.allowed_streams.contain("orders")
        );
        assert_eq!(settings.http_addr.to_string(), "[::]:8083");
        assert!(settings.leader_elect);
        assert_eq!(settings.watch_namespaces.iter().collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn the_default_queues_fields_have_the_bounds_of_the_crd() {
        let read = |name: &str, value: &str| {
            Cli::try_parse_from(["asyncqueue-operator", &format!("--default-queue-{name}={value}")])
        };
        let crd = crate::crd::yaml().unwrap();
        assert!(crd.contains(&format!("maximum: {MAX_MAX_INFLIGHT}.0\n")));
        for rule in ["of more than 0s and at most 24h", "ackWait must be a duration from 1s to 1h"]
        {
            assert!(crd.contains(rule), "{rule}");
        }
        for (name, good, bad) in [
            ("max-inflight", &["", "1", "10000"][..], &["0", "10001", "x"][..]),
            ("timeout", &["", "1ms", "24h"], &["0s", "24h1s", "5"]),
            ("ack-wait", &["", "1s", "1h"], &["999ms", "61m", "soon"]),
        ] {
            for value in good {
                assert!(read(name, value).is_ok(), "{name} {value}");
            }
            for value in bad {
                assert!(read(name, value).is_err(), "{name} {value}");
            }
        }
        let Cli { settings, .. } = read("max-inflight", "5").unwrap();
        assert_eq!(settings.default_queue_max_inflight, Optional(Some(5)));
    }

    #[test]
    fn the_numbers_of_lanes_have_bounds() {
        let read = |argument: &str| Cli::try_parse_from(["asyncqueue-operator", argument]).is_ok();
        for (name, max) in
            [("max-lanes-per-queue", 98), ("max-lanes", 100_000), ("max-lanes-replicated", 100_000)]
        {
            for (value, is_valid) in [(0, false), (1, true), (max, true), (max + 1, false)] {
                assert_eq!(read(&format!("--{name}={value}")), is_valid, "{name} {value}");
            }
            assert!(!read(&format!("--{name}=-1")) && !read(&format!("--{name}=")));
        }
    }

    #[test]
    fn the_user_of_workers_is_a_number_or_left_to_the_cluster() {
        let user = |arguments: &[&str]| {
            let arguments = ["asyncqueue-operator"].iter().chain(arguments);
            Cli::try_parse_from(arguments).map(|cli| cli.settings.worker_user_id.0).ok()
        };
        assert_eq!(user(&[]), Some(Some(65_532)));
        assert_eq!(user(&["--worker-user-id=1000650000"]), Some(Some(1_000_650_000)));
        assert_eq!(user(&["--worker-user-id="]), Some(None));
        assert_eq!(user(&["--worker-user-id=0"]), None);
    }

    #[test]
    fn namespaces_are_a_list_or_all() {
        let Ok(some) = "openfaas, openfaas-fn,,openfaas".parse::<Namespaces>();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Some("openfaas"), Some("openfaas-fn")]);
        assert!(some.contains("openfaas") && !some.contains("default"));
        let Ok(all) = "".parse::<Namespaces>();
        assert!(all.contains("default"));
        // As the log has them.
        assert_eq!(
            (some.to_string(), all.to_string()),
            ("openfaas,openfaas-fn".to_owned(), "all".to_owned())
        );
    }

    #[test]
    fn the_default_queue_is_in_a_watched_namespace() {
        let namespace = |arguments: &[&str]| {
            let arguments = ["asyncqueue-operator"].iter().chain(arguments);
            let settings = Cli::parse_from(arguments).settings;
            settings.default_queue_namespace().map(str::to_owned)
        };
        assert_eq!(namespace(&["--pod-namespace=own"]).as_deref(), Some("own"));
        assert_eq!(
            namespace(&["--pod-namespace=own", "--watch-namespaces=a,own"]).as_deref(),
            Some("own")
        );
        assert_eq!(
            namespace(&["--pod-namespace=own", "--watch-namespaces=b,a"]).as_deref(),
            Some("a")
        );
        assert_eq!(namespace(&[]), None);
    }

    #[test]
    fn a_lease_needs_a_namespace() {
        let lease = |arguments: &[&str]| {
            let arguments = ["asyncqueue-operator"].iter().chain(arguments);
            let settings = Cli::parse_from(arguments).settings;
            settings.lease_namespace().map(|namespace| namespace.map(str::to_owned))
        };
        assert_eq!(lease(&["--pod-namespace=own"]), Ok(Some("own".to_owned())));
        assert_eq!(lease(&["--pod-namespace=own", "--leader-elect=false"]), Ok(None));
        assert_eq!(lease(&["--leader-elect=0"]), Ok(None));
        assert_eq!(lease(&["--leader-elect", "false"]), Ok(None));
        assert!(lease(&["--leader-elect"]).is_err());
        assert!(lease(&[]).unwrap_err().to_string().contains("set POD_NAMESPACE"));
    }

    #[test]
    fn the_address_for_standbys_has_the_port_that_is_listened_on() {
        let address = |arguments: &[&str]| {
            let arguments = ["asyncqueue-operator"].iter().chain(arguments);
            Cli::parse_from(arguments).settings.own_address().map(|address| address.to_string())
        };
        assert_eq!(address(&["--pod-ip=10.0.0.7"]).as_deref(), Some("10.0.0.7:8083"));
        let ipv6 = ["--pod-ip=fd00::7", "--http-addr=[::]:80"];
        assert_eq!(address(&ipv6).as_deref(), Some("[fd00::7]:80"));
        assert_eq!(address(&[]), None);
    }

    #[test]
    fn the_default_queue_can_be_disabled() {
        let cli = Cli::parse_from(["asyncqueue-operator", "--default-queue="]);
        assert_eq!(cli.settings.default_queue, Optional(None));
    }
}
