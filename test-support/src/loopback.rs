//! The address that everything in a test listens on: `127.0.0.1`, or `::1` where the environment
//! says so, which tests do that run in a network of IPv6 alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The variable that names another address.
pub const VARIABLE: &str = "ASYNCQUEUE_TESTS_LOOPBACK";

/// The address.
#[must_use]
pub fn ip() -> IpAddr {
    match std::env::var(VARIABLE) {
        Ok(address) => address.parse().expect("an address"),
        Err(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// A port of it.
#[must_use]
pub fn at(port: u16) -> SocketAddr {
    (ip(), port).into()
}
