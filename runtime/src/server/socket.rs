//! The socket of a connection, which the server watches while hyper reads from it and writes to it.

use std::{
    io,
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// How long a connection is silent before the system asks whether the client's machine is there, and between two such
/// questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Questions without an answer after which the client is taken for gone.
const KEEPALIVE_QUESTIONS: u32 = 4;

/// A socket. Clones are of the same one.
#[derive(Clone, Debug)]
pub(super) struct Socket(Arc<TcpStream>);

// === impl Socket ===

impl Socket {
    /// Takes a connection over.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // Answers are short: send them now rather than wait for more to send.
        stream.set_nodelay(true)?;
        // Else a machine that is gone would hold its connection until something is sent to it.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE)
            .with_retries(KEEPALIVE_QUESTIONS);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self(Arc::new(stream)))
    }

    /// Waits until the client is gone: it has reset the connection, or its machine does not answer any more.
    pub(super) async fn reset(&self) {
        // An error: what is registered with the runtime ends with it, and so does the connection.
        let _ = self.0.ready(Interest::ERROR).await;
    }

    /// Waits until the client has closed its side.
    pub(super) async fn half_closed(&self) {
        // Not `READABLE`, which what was sent before keeps ready: this waits for the end alone.
        let _ = self.0.ready(Interest::PRIORITY).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
