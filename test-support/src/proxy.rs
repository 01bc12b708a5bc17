//! A TCP proxy whose cable can be pulled: what is sent then waits, as on a network that drops every
//! packet, and arrives when the cable is back. No connection breaks.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
};

use crate::loopback::free_port;

/// What is read at once.
const PIECE: usize = 64 * 1024;

/// A proxy on loopback, ended with its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    passes: Arc<watch::Sender<bool>>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// A proxy before a port of this machine, whether somebody listens there yet or not.
    pub async fn before(target: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let passes = Arc::new(watch::Sender::new(true));
        let mut running = JoinSet::new();
        running.spawn(serve(listener, target, passes.subscribe()));
        Self { port, passes, _running: running }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pulls the cable, or puts it back.
    pub fn set_passing(&self, passes: bool) {
        self.passes.send_replace(passes);
    }
}

async fn serve(listener: TcpListener, target: u16, passes: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connect(stream, target, passes.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(near: TcpStream, target: u16, mut passes: watch::Receiver<bool>) {
    if passes.wait_for(|passes| *passes).await.is_err() {
        return;
    }
    // No listener: closed, as it would be without a proxy.
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = copy(near_read, far_write, passes.clone()) => {}
        () = copy(far_read, near_write, passes) => {}
    }
}

/// Copies until either side ends, which ends both.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passes: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let is_passing = passes.wait_for(|passes| *passes).await.is_ok();
        if !is_passing || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn bytes_sent_during_an_interruption_arrive_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap().port()).await;
        let mut near = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        near.write_all(b"a").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        proxy.set_passing(false);
        near.write_all(b"b").await.unwrap();
        assert!(timeout(Duration::from_millis(100), far.read_exact(&mut byte)).await.is_err());
        proxy.set_passing(true);
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b");
        drop(near);
        assert_eq!(far.read(&mut byte).await.unwrap(), 0);
    }
}
