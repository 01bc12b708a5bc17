//! Where callbacks may go: 16 bytes of an address, then a list and a URL, each on a line. Whatever
//! the list, no result goes to a link-local or metadata address, however that is written; and with
//! a list of names, to no other.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use asyncqueue::CallbackUrl;
use asyncqueue_fuzz::is_never_a_target;
use asyncqueue_worker::callback::{
    client::uri,
    egress::{EgressPolicy, HostAllowList},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u8; 16], &str)| {
    let (bytes, text) = input;
    let (list, url) = text.split_once('\n').unwrap_or(("", text));
    let Ok(allowed) = list.parse::<HostAllowList>() else { return };
    let policy = EgressPolicy::new(allowed);
    let rules: Vec<&str> = list.split(',').map(str::trim).filter(|rule| !rule.is_empty()).collect();

    // What a name is resolved to: an address, and the IPv4 address in it in all the ways to write
    // that.
    let v4 = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
    let [a, b, c, d] = v4.octets();
    let v6 = |high: [u16; 6]| {
        let low = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        IpAddr::V6([high[0], high[1], high[2], high[3], high[4], high[5], low[0], low[1]].into())
    };
    let addresses = [
        IpAddr::V4(v4),
        IpAddr::V6(Ipv6Addr::from(bytes)),
        v6([0, 0, 0, 0, 0, 0xffff]),
        v6([0; 6]),
        v6([0, 0, 0, 0, 0xffff, 0]),
        v6([0x64, 0xff9b, 0, 0, 0, 0]),
        v6([0x64, 0xff9b, 1, 0, 0, 0]),
        // Teredo's client and server, ISATAP, and NAT64 with prefixes of 48, 56 and 64 bits.
        IpAddr::V6([0x20, 1, 0, 0, 65, 54, 227, 120, 0x80, 0, 0, 0, !a, !b, !c, !d].into()),
        IpAddr::V6(
            [0x20, 1, 0, 0, a, b, c, d, 0x80, 0, 0, 0, bytes[0], bytes[1], bytes[2], bytes[3]]
                .into(),
        ),
        v6([0x2001, 0xdb8, 0, 1, 0, 0x5efe]),
        v6([0x2001, 0xdb8, 0, 1, 0x200, 0x5efe]),
        IpAddr::V6([0, 0x64, 0xff, 0x9b, 0, 1, a, b, 0, c, d, 0, 0, 0, 0, 0].into()),
        IpAddr::V6([0, 0x64, 0xff, 0x9b, 0, 1, bytes[0], a, 0, b, c, d, 0, 0, 0, 0].into()),
        IpAddr::V6([0, 0x64, 0xff, 0x9b, 0, 1, bytes[0], bytes[1], 0, a, b, c, d, 0, 0, 0].into()),
        IpAddr::V6(
            [0x2002, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 0, 0, 0, 0, 1].into(),
        ),
    ];
    for address in addresses {
        for is_named in [false, true] {
            if policy.check_address(address, is_named).is_ok() {
                assert!(!is_never_a_target(address), "{address}");
                let is_open = is_named || !rules.is_empty();
                assert!(is_open || !address.to_canonical().is_loopback(), "{address}");
            }
        }
    }

    let Ok(url) = CallbackUrl::parse(url) else { return };
    if policy.check_url(url.as_url()).is_err() {
        return;
    }
    // What the connection is made to: an address, or a name that is resolved.
    let Ok(uri) = uri(&url) else { return };
    let host = uri.host().expect("a host");
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        assert!(!is_never_a_target(address), "{host}");
        assert!(!rules.is_empty() || !address.to_canonical().is_loopback(), "{host}");
        assert!(policy.check_address(address, false).is_ok(), "{host}");
    } else if !rules.is_empty() && rules.iter().all(|rule| is_name(rule)) {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_listed =
            rules.iter().any(|rule| match rule.to_ascii_lowercase().strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix),
                None => host == rule.to_ascii_lowercase(),
            });
        assert!(is_listed, "{host} is not in {list}");
    }
});

/// Whether a rule is of names, and not of addresses.
fn is_name(rule: &str) -> bool {
    !rule.contains('/') && rule.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}
