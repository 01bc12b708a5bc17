//! Listens on both address families if the address is `[::]`, and on IPv4 alone if there is no
//! IPv6.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::info;

/// Maximum number of connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;

/// The error number of a kernel without IPv6: "Address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

/// Listens on an address. `[::]` is every address of both families, or of IPv4 if there is no IPv6.
/// The error names the address and the remedy.
pub(super) fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = listen(addr).or_else(|error| match without_ipv6(addr, &error) {
        Some(ipv4) => {
            info!("there is no IPv6 here ({error}): listening on {ipv4}");
            listen(ipv4)
        }
        None => Err(error),
    });
    listener.with_context(|| {
        format!("can't listen on {addr}: choose another address, or stop what listens there")
    })
}

/// Returns the address to use instead if a failure means that there is no IPv6.
fn without_ipv6(addr: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let has_no_ipv6 = error.raw_os_error() == Some(EAFNOSUPPORT)
        || matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::Unsupported);
    let is_any = addr.ip() == Ipv6Addr::UNSPECIFIED;
    (is_any && has_no_ipv6).then(|| (Ipv4Addr::UNSPECIFIED, addr.port()).into())
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // Independent of the system's default (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    // A restarted program may listen while connections of the previous one are being closed.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn ipv4_stands_in_for_every_address_where_there_is_no_ipv6() {
        let any: SocketAddr = "[::]:8080".parse().unwrap();
        let no_family = io::Error::from_raw_os_error(EAFNOSUPPORT);
        let not_available = io::Error::from(ErrorKind::AddrNotAvailable);
        for error in [&no_family, &not_available] {
            assert_eq!(without_ipv6(any, error), "0.0.0.0:8080".parse().ok());
            // An address that a user has named stays as it is.
            assert_eq!(without_ipv6("[::1]:8080".parse().unwrap(), error), None);
            assert_eq!(without_ipv6("0.0.0.0:8080".parse().unwrap(), error), None);
        }
        assert_eq!(without_ipv6(any, &io::Error::from(ErrorKind::AddrInUse)), None);
    }

    #[tokio::test]
    async fn any_address_is_one_of_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ipv4: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let connection = TcpStream::connect(ipv4);
        let (connected, accepted) = tokio::join!(connection, listener.accept());
        assert_eq!(
            accepted.unwrap().1.ip().to_canonical(),
            connected.unwrap().local_addr().unwrap().ip()
        );
        let error = format!("{:#}", bind((Ipv4Addr::LOCALHOST, port).into()).unwrap_err());
        assert!(
            error.contains("can't listen on 127.0.0.1:") && error.contains("choose another"),
            "{error}"
        );
    }
}
