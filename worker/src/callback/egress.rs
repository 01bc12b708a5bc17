//! Restricts the targets of callbacks.
//!
//! A callback URL comes from anyone who can reach the gateway, and the worker posts from inside the
//! cluster. Without a policy, clients could use the worker to reach what only the cluster may
//! reach. Link-local and metadata addresses are never allowed; loopback addresses only if they are
//! listed. Names are resolved here, and the connection goes to exactly the addresses that were
//! checked. So a name can't change its address in between (DNS rebinding).

use std::{
    error::Error,
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use url::{Host, Url};

/// Addresses at which cloud providers serve credentials, in addition to the link-local ones.
const METADATA: [IpAddr; 7] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle Cloud, classic.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Azure: WireServer, which serves a machine's configuration and secrets.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // AWS, IPv6: for instances, and for pods (EKS Pod Identity).
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    // Google Cloud, IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Scaleway, IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

/// A list of allowed targets. An empty list allows all that is not forbidden in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAllowList(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Host(String),
    Suffix(String),
    Network(IpNet),
}

/// Says why a callback is not posted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockedTarget {
    /// The list of allowed targets is not empty, and does not contain this one.
    #[error("`{0}` is not in callback_allowed_hosts")]
    NotListed(String),
    /// The address is link-local, of a metadata service, or not the address of one host.
    #[error("{0} is never allowed as the target of a callback")]
    Forbidden(IpAddr),
    /// The address is a loopback address, and the list of allowed targets is empty.
    #[error("{0} is a loopback address: add it to callback_allowed_hosts to allow it")]
    Loopback(IpAddr),
}

/// Decides which targets callbacks may have.
#[derive(Debug)]
pub struct EgressPolicy {
    allowed: HostAllowList,
}

/// Resolves names to addresses that are allowed as targets.
#[derive(Clone, Debug)]
pub(crate) struct EgressResolver {
    policy: Arc<EgressPolicy>,
}

// === impl HostAllowList ===

impl FromStr for HostAllowList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|rule| !rule.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a host, *.suffix, an IP address or a network such as 10.0.0.0/8"
            )
        };
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        if text.contains('/') {
            return text.parse().map(Self::Network).map_err(|_| wrong());
        }
        let (suffix, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(wrong());
        }
        let host = host.to_ascii_lowercase();
        Ok(if suffix { Self::Suffix(format!(".{host}")) } else { Self::Host(host) })
    }
}

impl HostAllowList {
    fn allows_name(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|rule| match rule {
            Rule::Host(host) => *host == name,
            Rule::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Rule::Network(_) => false,
        })
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Network(network) => network.contains(&address),
            Rule::Host(_) | Rule::Suffix(_) => false,
        })
    }
}

// === impl EgressPolicy ===

impl EgressPolicy {
    /// Creates a policy that allows these targets.
    #[must_use]
    pub fn new(allowed: HostAllowList) -> Self {
        Self { allowed }
    }

    /// Checks the host of a URL, as far as possible before its name is resolved.
    pub fn check_url(&self, url: &Url) -> Result<(), BlockedTarget> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(IpAddr::V4(address), false),
            Some(Host::Ipv6(address)) => self.check_address(IpAddr::V6(address), false),
            Some(Host::Domain(name)) if !self.may_resolve(name) => {
                Err(BlockedTarget::NotListed(name.to_owned()))
            }
            Some(Host::Domain(_)) => Ok(()),
            None => Err(BlockedTarget::NotListed(String::new())),
        }
    }

    /// Returns whether a name may be resolved. A name that is not listed may still resolve to an
    /// address that is.
    fn may_resolve(&self, name: &str) -> bool {
        let has_networks = self.allowed.0.iter().any(|rule| matches!(rule, Rule::Network(_)));
        self.allowed.0.is_empty() || has_networks || self.allowed.allows_name(name)
    }

    /// Checks an address. `is_name_allowed`: its name is listed.
    pub fn check_address(
        &self,
        address: IpAddr,
        is_name_allowed: bool,
    ) -> Result<(), BlockedTarget> {
        if let IpAddr::V6(v6) = address {
            check_tunnelled(v6)?;
        }
        let address = embedded_v4(address).map_or(address, IpAddr::V4);
        if is_forbidden(address) {
            return Err(BlockedTarget::Forbidden(address));
        }
        if is_name_allowed || self.allowed.allows_address(address) {
            return Ok(());
        }
        if !self.allowed.0.is_empty() {
            return Err(BlockedTarget::NotListed(address.to_string()));
        }
        if address.is_loopback() {
            return Err(BlockedTarget::Loopback(address));
        }
        Ok(())
    }
}

/// Refuses an IPv6 address whose packets may be forwarded to an address that is never a target.
fn check_tunnelled(address: Ipv6Addr) -> Result<(), BlockedTarget> {
    let hidden = tunnelled_v4(address);
    // `0.0.0.0/8` is not a host, so nothing is embedded in that place. If this is true of all
    // places, the address is refused: one of them must embed something.
    let embeds_nothing = |v4: &Ipv4Addr| v4.octets()[0] == 0;
    if !hidden.is_empty() && hidden.iter().all(embeds_nothing) {
        return Err(BlockedTarget::Forbidden(address.into()));
    }
    let is_never_a_target = |v4: &Ipv4Addr| is_forbidden(IpAddr::V4(*v4)) || v4.is_loopback();
    match hidden.into_iter().find(|v4| !embeds_nothing(v4) && is_never_a_target(v4)) {
        Some(v4) => Err(BlockedTarget::Forbidden(v4.into())),
        None => Ok(()),
    }
}

/// Returns the IPv4 address that an IPv6 address stands for, if any. Covers mapped, compatible and
/// translated (SIIT) addresses, NAT64 (also with an operator's own prefix, RFC 8215) and 6to4.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    match address.segments() {
        // `::1` and `::` stand for themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0xffff | 0, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x2002, a, b, ..] => Some(v4(a, b)),
        // If the last place holds nothing, the address is in another place: see `tunnelled_v4`.
        [0x64, 0xff9b, 1, _, _, _, a, b] if a >= 0x100 => Some(v4(a, b)),
        _ => None,
    }
}

/// Returns the IPv4 addresses to which a tunnel or a translator may forward packets to an IPv6
/// address, in addition to [`embedded_v4`]. Covers Teredo, ISATAP, and NAT64 with a prefix of RFC
/// 8215.
fn tunnelled_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let at = |octets: [usize; 4]| Ipv4Addr::from(octets.map(|index| address.octets()[index]));
    match address.segments() {
        // RFC 4380, 4: the server, and the client with each bit inverted.
        [0x2001, 0, server_a, server_b, _, _, a, b] => vec![v4(server_a, server_b), v4(!a, !b)],
        // RFC 6052, 2.2: after a prefix of 48, 56, 64 or 96 bits; octet 8 is not part of it.
        [0x64, 0xff9b, 1, ..] => {
            vec![at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), at([12, 13, 14, 15])]
        }
        // RFC 5214, 6.1: below any prefix. 0x0200 marks an address that is unique.
        [_, _, _, _, 0 | 0x0200, 0x5efe, a, b] => vec![v4(a, b)],
        _ => Vec::new(),
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

fn is_forbidden(address: IpAddr) -> bool {
    let no_target = match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified(),
    };
    no_target || METADATA.contains(&address)
}

// === impl EgressResolver ===

impl EgressResolver {
    pub(crate) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self { policy }
    }
}

impl tower_service::Service<Name> for EgressResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.policy.clone();
        Box::pin(async move {
            let is_name_allowed = policy.allowed.allows_name(name.as_str());
            let resolved: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut blocked = None;
            let mut addresses = Vec::new();
            for address in resolved {
                match policy.check_address(address.ip(), is_name_allowed) {
                    Ok(()) => addresses.push(address),
                    Err(error) => blocked = Some(error),
                }
            }
            match blocked {
                Some(blocked) if addresses.is_empty() => Err(blocked.into()),
                _ => Ok(addresses.into_iter()),
            }
        })
    }
}

impl fmt::Display for HostAllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::error::find_cause;

    use super::*;

    fn check(allowed: &str, url: &str) -> Result<(), BlockedTarget> {
        EgressPolicy::new(allowed.parse().unwrap()).check_url(&url.parse().unwrap())
    }

    #[test]
    fn metadata_and_link_local_addresses_are_never_reached() {
        for host in [
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "169.254.1.1",
            "100.100.100.200",
            "0.0.0.0",
            "224.0.0.1",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[::ffff:0:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
            "168.63.129.16",
            "192.0.0.192",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[fd00:42::42]",
            "[::ffff:168.63.129.16]",
            "[::168.63.129.16]",
            "[64:ff9b::168.63.129.16]",
            "[2002:a83f:8110::]",
            // NAT64 with prefixes of 48, 56, 64 and 96 bits.
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[64:ff9b:1:a9:fe:a9fe::]",
            "[64:ff9b:1:0:a9:fea9:fe00:0]",
            "[64:ff9b:1:2:3:4:a9fe:a9fe]",
            "[64:ff9b:1::1]",
            // ISATAP, not unique and unique, link-local and not.
            "[2001:db8::5efe:a9fe:a9fe]",
            "[2001:db8::200:5efe:a83f:8110]",
            "[::5efe:169.254.169.254]",
            // Teredo: its client and its server.
            "[2001:0:4136:e378:8000:63bf:5601:5601]",
            "[2001:0:a9fe:a9fe:8000:63bf:3fff:fdd2]",
            "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
            "[::]",
        ] {
            for allowed in ["", "0.0.0.0/0, ::/0"] {
                let checked = check(allowed, &format!("http://{host}/latest"));
                assert!(
                    matches!(checked, Err(BlockedTarget::Forbidden(_))),
                    "{host} {allowed}: {checked:?}"
                );
            }
        }
    }

    #[test]
    fn loopback_is_reached_only_if_listed() {
        for host in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
            let url = format!("http://{host}:9000/");
            assert!(matches!(check("", &url), Err(BlockedTarget::Loopback(_))), "{host}");
            assert_eq!(check("127.0.0.0/8,::1", &url), Ok(()), "{host}");
        }
    }

    #[test]
    fn an_empty_list_allows_public_and_cluster_addresses() {
        for host in [
            "10.96.0.1",
            "192.168.1.1",
            "93.184.216.34",
            "[2606:2800::1]",
            "[fd00:ec2::1]",
            "[64:ff9b::93.184.216.34]",
            "[64:ff9b:1::93.184.216.34]",
            "[64:ff9b:1:5db8:d8:2200::]",
            "[2001:db8::5efe:93.184.216.34]",
            "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
            "gateway.openfaas",
        ] {
            assert_eq!(check("", &format!("http://{host}/")), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        let allowed = "hooks.example.com, *.corp.example, 10.0.0.0/8";
        for host in ["hooks.example.com", "HOOKS.example.com", "a.b.corp.example", "10.1.2.3"] {
            assert_eq!(check(allowed, &format!("http://{host}/")), Ok(()), "{host}");
        }
        for host in ["11.1.2.3", "[a00::1]"] {
            assert!(check(allowed, &format!("http://{host}/")).is_err(), "{host}");
        }
        // A network may be named by any of its addresses.
        assert_eq!(check("10.9.9.9/8", "http://10.1.2.3/"), Ok(()));
        let names = "hooks.example.com,*.corp.example";
        for host in
            ["example.com", "corp.example", "evilcorp.example", "hooks.example.com.evil.org"]
        {
            assert!(check(names, &format!("http://{host}/")).is_err(), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_its_addresses_are_checked() {
        use tower_service::Service;
        let resolve = |allowed: &str| {
            let policy = Arc::new(EgressPolicy::new(allowed.parse().unwrap()));
            EgressResolver::new(policy).call(Name::from_str("localhost").unwrap())
        };
        let error = resolve("").await.unwrap_err();
        assert!(
            matches!(find_cause::<BlockedTarget>(&*error), Some(BlockedTarget::Loopback(_))),
            "{error}"
        );
        assert!(resolve("localhost").await.unwrap().count() > 0);
        assert!(resolve("127.0.0.0/8,::1").await.unwrap().count() > 0);
        assert!(matches!(
            find_cause::<BlockedTarget>(&*resolve("10.0.0.0/8").await.unwrap_err()),
            Some(BlockedTarget::NotListed(_))
        ));
    }

    #[test]
    fn a_bad_rule_is_named() {
        for bad in ["10.0.0.0/33", "::1/129", "a b", "http://h", "*.", "10.0.0/8"] {
            assert!(bad.parse::<HostAllowList>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
