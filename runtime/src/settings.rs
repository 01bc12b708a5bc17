//! The settings that programs have in common, for `#[command(flatten)]`, and parsers for values.
//!
//! Each setting is a flag (`--nats-url`) and an environment variable (`nats_url`, lower case as in
//! OpenFaaS's manifests). For an optional setting, an empty variable means that it is not set.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use http::{Uri, uri::Authority};
use tracing_subscriber::filter::{ParseError, Targets};

use crate::contract::setting;

const DEFAULT_LOG_FILTER: &str = "info";

/// Target of the NATS client's log. It logs each attempt to connect, which [`crate::nats`] logs in
/// fewer lines.
const CLIENT_LOG: &str = "async_nats";

/// What is logged, and how.
#[derive(Args, Clone, Debug)]
pub struct LogSettings {
    /// Format of the log
    #[arg(long, env = setting::LOG_ENCODING, value_enum, default_value_t)]
    pub log_encoding: LogEncoding,

    /// Minimum level of log lines: error, warn, info, debug or trace. May be set for each module,
    /// as in `info,asyncqueue_worker=debug`
    #[arg(
        long,
        env = "RUST_LOG",
        default_value = DEFAULT_LOG_FILTER,
        value_parser = parse_log_filter
    )]
    pub log_filter: String,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogEncoding {
    /// Text.
    #[default]
    Console,
    /// One JSON object for each line.
    Json,
}

/// How NATS is reached.
#[derive(Args, Clone)]
pub struct NatsSettings {
    /// NATS servers, comma-separated: `nats://host:4222`, `tls://host:4222`, `nats://[::1]:4222`,
    /// `nats://user:password@host` or `nats://token@host`. The first credentials in the
    /// list are used for all servers
    #[arg(
        long,
        env = setting::NATS_URL,
        hide_env_values = true,
        default_value_t,
        hide_default_value = true
    )]
    pub nats_url: Optional<String>,

    /// Host of the NATS server, if `nats_url` is not set. It may have a scheme and a port. An IPv6
    /// address with a port needs brackets
    #[arg(long, env = setting::NATS_HOST, hide_env_values = true, default_value = "nats")]
    pub nats_host: String,

    /// Port of the NATS server, if `nats_url` is not set and `nats_host` has no port
    #[arg(long, env = setting::NATS_PORT, default_value_t = 4222)]
    pub nats_port: u16,

    /// File with the credentials for NATS: a JWT and an nkey seed as `nsc generate creds` writes
    /// them, or one line: USER:PASSWORD, the seed of an nkey, or a token. Read again for each
    /// connection
    #[arg(long, env = setting::NATS_CREDS_FILE, default_value_t, hide_default_value = true)]
    pub nats_creds_file: Optional<PathBuf>,

    /// PEM file with the certificate authority of the NATS server. If it is set, TLS is required
    #[arg(long, env = setting::NATS_TLS_CA_FILE, default_value_t, hide_default_value = true)]
    pub nats_tls_ca_file: Optional<PathBuf>,

    /// PEM file with a client certificate, for a NATS server that verifies clients. Needs
    /// `nats_tls_key_file`. If it is set, TLS is required. Read again for each connection
    #[arg(long, env = setting::NATS_TLS_CERT_FILE, default_value_t, hide_default_value = true)]
    pub nats_tls_cert_file: Optional<PathBuf>,

    /// PEM file with the private key of the client certificate
    #[arg(long, env = setting::NATS_TLS_KEY_FILE, default_value_t, hide_default_value = true)]
    pub nats_tls_key_file: Optional<PathBuf>,
}

/// An optional setting. The empty text means that it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

/// Reads a boolean setting: `true` or `1`, `false` or `0`, in any case. Empty is false.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err("use true or false (or 1 or 0)".to_owned()),
    }
}

/// Makes the parser of an optional setting from the parser of its value.
pub fn optional<T: Clone, E>(
    parse: fn(&str) -> Result<T, E>,
) -> impl Fn(&str) -> Result<Optional<T>, E> + Clone + Send + Sync {
    move |text| {
        if text.is_empty() {
            Ok(Optional(None))
        } else {
            parse(text).map(|value| Optional(Some(value)))
        }
    }
}

/// Reads the URL of a function or a gateway that a worker calls, in which `{function}` and
/// `{namespace}` may stand.
pub fn parse_call_url(text: &str) -> Result<String, String> {
    let refuse =
        |rule: &str| Err(format!("{rule}; write it as http://host:port or http://host/path"));
    let url = match text
        .replace("{function}", "function")
        .replace("{namespace}", "namespace")
        .parse::<Uri>()
    {
        Ok(url) => url,
        Err(error) => return refuse(&error.to_string()),
    };
    match (url.scheme_str(), url.authority()) {
        (Some("http"), Some(host)) if host.as_str().contains('@') => refuse("it holds credentials"),
        (Some("http"), Some(_)) if url.query().is_some() => refuse("it has a query"),
        (Some("http"), Some(_)) if text.contains('#') => refuse("it has a fragment"),
        (Some("http"), Some(host)) if !has_valid_port(host) => {
            refuse("its port is not from 1 to 65535")
        }
        (Some("http"), Some(_)) => Ok(text.to_owned()),
        (Some("https"), _) => refuse("workers call functions and gateways without TLS"),
        _ => refuse("its scheme is not http, or it has no host"),
    }
}

/// Returns whether an authority has no port, or one that can be connected to.
fn has_valid_port(authority: &Authority) -> bool {
    let after_host =
        authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest);
    match after_host.rsplit_once(':') {
        None => true,
        Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port > 0),
    }
}

fn parse_log_filter(text: &str) -> Result<String, String> {
    match text.parse::<Targets>() {
        Ok(_) if text.is_empty() => Ok(DEFAULT_LOG_FILTER.to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error} (set by RUST_LOG)")),
    }
}

// === impl LogSettings ===

impl LogSettings {
    /// Returns the filter. The NATS client logs nothing unless the filter names it.
    pub(crate) fn filter(&self) -> Result<Targets, ParseError> {
        if self.log_filter.contains(CLIENT_LOG) {
            self.log_filter.parse()
        } else {
            format!("{},{CLIENT_LOG}=off", self.log_filter).parse()
        }
    }
}

// === impl NatsSettings ===

impl NatsSettings {
    /// Returns the settings for servers at `url`. All others have their defaults.
    #[must_use]
    pub fn from_url(url: impl Into<String>) -> Self {
        Self {
            nats_url: Optional(Some(url.into())),
            nats_host: String::new(),
            nats_port: 0,
            nats_creds_file: Optional(None),
            nats_tls_ca_file: Optional(None),
            nats_tls_cert_file: Optional(None),
            nats_tls_key_file: Optional(None),
        }
    }
}

impl fmt::Debug for NatsSettings {
    /// Omits URL and host, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings")
            .field("nats_port", &self.nats_port)
            .field("nats_creds_file", &self.nats_creds_file)
            .field("nats_tls_ca_file", &self.nats_tls_ca_file)
            .field("nats_tls_cert_file", &self.nats_tls_cert_file)
            .field("nats_tls_key_file", &self.nats_tls_key_file)
            .finish_non_exhaustive()
    }
}

// === impl Optional ===

impl<T> Optional<T> {
    /// Returns the value, if there is one.
    #[must_use]
    pub fn as_ref(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: FromStr> FromStr for Optional<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

impl<T> fmt::Display for Optional<T> {
    /// Prints nothing: clap prints a default, and the default is not to be set.
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        log: LogSettings,
        #[command(flatten)]
        nats: NatsSettings,
    }

    #[test]
    fn booleans_read_as_in_existing_manifests() {
        for text in ["true", "1", "True"] {
            assert_eq!(parse_bool(text), Ok(true), "{text}");
        }
        for text in ["false", "0", ""] {
            assert_eq!(parse_bool(text), Ok(false), "{text}");
        }
        assert!(parse_bool("yes").is_err());
    }

    #[test]
    fn a_url_to_call_is_http_with_a_host() {
        for good in [
            "http://gateway:8080",
            "http://{function}.{namespace}.svc:8080/",
            "http://g/function/{function}",
            "http://[::1]:8080",
            "http://[fd00::1]/p",
        ] {
            assert_eq!(parse_call_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "gateway",
            "gateway:8080",
            "https://g",
            "ftp://g",
            "http://u:p@g",
            "http://g/?q",
            "http://g/#f",
            "http://g:0",
            "http://g:65536",
            "http://[::1]:x",
            "http://::1",
            "http://a b",
        ] {
            assert!(parse_call_url(bad).unwrap_err().contains("http://host:port"), "{bad}");
        }
    }

    #[test]
    fn an_empty_setting_is_an_absent_one() {
        let program = Program::parse_from([
            "p",
            "--nats-url=",
            "--nats-creds-file=",
            "--nats-tls-ca-file=/ca.pem",
        ]);
        assert_eq!(program.nats.nats_url, Optional(None));
        assert_eq!(program.nats.nats_creds_file, Optional(None));
        assert_eq!(program.nats.nats_tls_ca_file, Optional(Some("/ca.pem".into())));
    }

    #[test]
    fn a_bad_value_is_refused_with_its_setting() {
        for (argument, named) in [
            ("--nats-port=99999", "--nats-port"),
            ("--log-encoding=xml", "--log-encoding"),
            ("--log-filter=a=b=c", "RUST_LOG"),
        ] {
            let error = Program::try_parse_from(["p", argument]).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!(Program::parse_from(["p"]).log.log_encoding, LogEncoding::Console);
    }

    #[test]
    fn debug_output_holds_no_credentials() {
        let settings = NatsSettings::from_url("nats://user:secret@h");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
