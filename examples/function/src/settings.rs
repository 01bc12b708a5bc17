//! The settings of the function.

use std::net::{IpAddr, Ipv6Addr};

use asyncqueue::GoDuration;
use asyncqueue_runtime::settings::LogSettings;
use clap::Parser;

/// Answers each call with its body, and sleeps or fails if the query asks for it
///
/// `?sleep=2s` sleeps before the answer; `?status=503` answers with that status; `?fail_times=2`
/// fails the first two calls with the same X-Call-Id (with `status`, or else 503) and then
/// succeeds; `?retry_after=1` adds Retry-After to failures; `?echo=request` answers with the
/// request as JSON. POST /callback/… does the same and is recorded, GET /callbacks lists what was
/// recorded as JSON lines, GET /healthz is 200.
#[derive(Clone, Debug, Parser)]
#[command(name = "asyncqueue-example-function", version)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) log: LogSettings,

    /// Address to listen on. :: is every address, of IPv4 and IPv6
    #[arg(long, env = "address", default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED))]
    pub(crate) address: IpAddr,

    /// Port to listen on
    #[arg(long, env = "port", default_value_t = 8080)]
    pub(crate) port: u16,

    /// How long each call takes whose query does not say
    #[arg(long, env = "sleep", default_value = "0s")]
    pub(crate) sleep: GoDuration,
}
