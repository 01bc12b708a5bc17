//! The address that everything in a test listens on: `127.0.0.1`, or `::1` where the environment
//! says so, which tests do that run in a network of IPv6 alone.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

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

/// Returns a port that no program listens on. Each caller gets another port. The ports are below
/// those that the kernel chooses for connections and for listeners on port 0.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Another test process begins elsewhere.
    let start = std::process::id().wrapping_mul(257);
    (0..COUNT)
        .filter_map(|_| {
            let turn = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            u16::try_from(FIRST + turn % COUNT).ok()
        })
        .find(|port| TcpListener::bind(at(*port)).is_ok())
        .expect("a free port")
}
