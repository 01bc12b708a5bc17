//! The settings of the console.

// The comments of settings are the text of --help, where [::] is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use asyncqueue::{GoDuration, names::parse_namespace};
use asyncqueue_runtime::{
    contract::{self, any_address, setting},
    settings::{LogSettings, NatsSettings, Optional, parse_bool},
};
use clap::{ArgAction, Parser};
use http::HeaderName;
use ipnet::IpNet;

pub(crate) use allowed_actions::AllowedActions;

mod allowed_actions;

/// Shows queues, calls, dead letters and batches in a browser
///
/// Each flag can also be set by the environment variable that is shown as [env: …].
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-console", version)]
pub struct Settings {
    /// The log.
    #[command(flatten)]
    pub log: LogSettings,

    /// NATS.
    #[command(flatten)]
    pub nats: NatsSettings,

    /// Listen address for the pages. An address other than of the loopback interface needs
    /// `auth_file`, `auth_header` or `insecure_no_auth`
    #[arg(
        long,
        env = setting::HTTP_ADDR,
        default_value_t = SocketAddr::from(([127, 0, 0, 1], contract::CONSOLE_PORT))
    )]
    pub http_addr: SocketAddr,

    /// Listen address for /metrics, /healthz and /readyz. [::] listens on all addresses, IPv4 and
    /// IPv6
    #[arg(
        long,
        env = "metrics_addr",
        default_value_t = any_address(contract::CONSOLE_METRICS_PORT)
    )]
    pub metrics_addr: SocketAddr,

    /// File with users and the bcrypt hashes of their passwords, as `htpasswd -B` writes it. Read
    /// again for each login
    #[arg(long, env = "auth_file", default_value_t, hide_default_value = true)]
    pub auth_file: Optional<PathBuf>,

    /// Header in which an ingress names the user that it has authenticated, as
    /// `X-Auth-Request-User`. Needs `trusted_proxies`
    #[arg(long, env = "auth_header", default_value_t, hide_default_value = true)]
    pub auth_header: Optional<HeaderName>,

    /// Addresses of the ingress, comma-separated: IP addresses and networks, as `10.0.0.0/8`. The
    /// header `auth_header` and X-Forwarded-For are believed only from them
    #[arg(long, env = "trusted_proxies", default_value = "", hide_default_value = true)]
    pub trusted_proxies: ProxyList,

    /// Serve the pages to everyone who can connect to `http_addr`
    #[arg(
        long,
        env = "insecure_no_auth",
        action = ArgAction::Set,
        value_parser = parse_bool,
        default_value = "false",
        value_name = "BOOL"
    )]
    pub insecure_no_auth: bool,

    /// Show the content of calls, results and dead letters: paths, headers and bodies. Credentials
    /// in headers and queries are never shown
    #[arg(
        long,
        env = "show_payloads",
        action = ArgAction::Set,
        value_parser = parse_bool,
        default_value = "false",
        value_name = "BOOL"
    )]
    pub show_payloads: bool,

    /// What users may change: `false` for nothing, `true` for everything, or comma-separated
    /// namespaces of functions whose calls they may cancel, replay and delete. Needs a login, or an
    /// address of the loopback interface
    #[arg(long, env = "actions", default_value = "false", value_name = "BOOL|NAMESPACES")]
    pub actions: AllowedActions,

    /// Pause between two samples of all queues. With many streams it is longer: 1 ms for each
    #[arg(
        long,
        env = "sample_interval",
        default_value = "5s",
        value_parser = GoDuration::parse_positive
    )]
    pub sample_interval: GoDuration,

    /// Namespace of functions that are called without one
    #[arg(
        long,
        env = setting::FUNCTION_NAMESPACE,
        default_value = contract::DEFAULT_FUNCTION_NAMESPACE,
        value_parser = parse_namespace
    )]
    pub function_namespace: String,
}

/// The addresses of proxies that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyList(pub Vec<IpNet>);

impl FromStr for ProxyList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |entry: &str| {
            let address = entry.parse().map(|address: std::net::IpAddr| IpNet::from(address));
            address.or_else(|_| entry.parse()).map_err(|_| {
                format!(
                    "`{entry}` is not an IP address or network; write it as 10.0.0.7 or 10.0.0.0/8"
                )
            })
        };
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_valid_and_has_safe_defaults() {
        <Settings as clap::CommandFactory>::command().debug_assert();
        let settings = Settings::parse_from(["asyncqueue-console"]);
        assert!(settings.http_addr.ip().is_loopback());
        assert!(!settings.show_payloads && !settings.insecure_no_auth);
        assert!(settings.actions.is_off());
        assert_eq!(settings.trusted_proxies, ProxyList::default());
    }

    #[test]
    fn proxies_are_addresses_and_networks() {
        let list: ProxyList = "10.0.0.7, fd00::/8".parse().unwrap();
        assert_eq!(list.0, ["10.0.0.7/32".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let error = "10.0.0.7,ingress".parse::<ProxyList>().unwrap_err();
        assert!(error.contains("`ingress`") && error.contains("10.0.0.0/8"), "{error}");
    }
}
