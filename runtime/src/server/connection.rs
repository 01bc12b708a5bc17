//! One connection: its socket, which the server monitors while hyper reads and writes, and the
//! memory that its requests take.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf, Take},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Sleep, sleep, timeout},
};

use crate::memory::{Account, MemoryPermit};

/// Idle time of a connection before the system sends a keepalive probe, and the interval between
/// two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Number of unanswered probes after which the client is considered gone.
const KEEPALIVE_PROBES: u32 = 4;

/// How long a client may read nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(75);

/// Maximum number of bytes that hyper reads at once. A larger read makes hyper allocate larger
/// buffers, which it keeps.
const MAX_READ_BYTES: u64 = SMALL_HEAD_BYTES as u64 - 1;

/// Maximum size of a head that fits into the buffer that each connection has, in bytes.
const SMALL_HEAD_BYTES: usize = 8 * 1024;

/// The response to a head for which there is no memory.
const NO_MEMORY_RESPONSE: &str = "HTTP/1.1 503 Service Unavailable\r\n\
     Content-Type: text/plain; charset=utf-8\r\n\
     Content-Length: 71\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
     no memory for a head of this size (memory_budget): send less, or again\n";

/// A connection. The server and hyper share it.
#[derive(Debug)]
pub(super) struct Connection {
    /// The write half. The socket itself reads: only then does tokio know that all data was read,
    /// which saves a system call after each request.
    half: OwnedWriteHalf,
    /// The account for large heads, and the memory that one takes.
    heads: Option<(Account, usize)>,
    state: Mutex<ConnectionState>,
}

/// The socket of a connection, for hyper.
#[derive(Debug)]
pub(super) struct Socket {
    connection: Arc<Connection>,
    reader: Take<OwnedReadHalf>,
    /// Set while the client reads nothing of what is sent to it.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct ConnectionState {
    reading: ReadState,
    /// Bytes read since the last request was passed to the handler.
    unparsed: usize,
    /// Memory for a large head. hyper keeps the buffer for as long as the connection lasts.
    memory: Option<MemoryPermit>,
    is_refused: bool,
}

/// How a client has closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It sends no more, but may still read.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux can distinguish it from data that waits")
    )]
    HalfClosed,
    /// It is gone.
    Reset,
}

/// What the next bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// The head of a request.
    Head,
    /// The body of a request that is being answered.
    Body,
    /// The rest of the body of an answered request, or the next head.
    Either,
}

// === impl Connection ===

impl Connection {
    /// Takes over a connection. `heads` is the account for large heads, and the memory that one
    /// takes.
    pub(super) fn open(
        stream: TcpStream,
        heads: Option<(Account, usize)>,
    ) -> io::Result<(Arc<Self>, Socket)> {
        // Responses are short: they are sent at once, without waiting for more data.
        stream.set_nodelay(true)?;
        // Otherwise a machine that is gone would keep its connection open until something is sent
        // to it.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_INTERVAL)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let state = ConnectionState {
            reading: ReadState::Head,
            unparsed: 0,
            memory: None,
            is_refused: false,
        };
        let (reader, half) = stream.into_split();
        let connection = Arc::new(Self { half, heads, state: Mutex::new(state) });
        let socket = Socket {
            connection: connection.clone(),
            reader: reader.take(MAX_READ_BYTES),
            stalled: None,
        };
        Ok((connection, socket))
    }

    /// Records that the handler begins to answer a request.
    pub(super) fn begin_response(&self) {
        let mut state = self.state();
        state.reading = ReadState::Body;
        state.unparsed = 0;
    }

    /// Records that the head of the response is complete. `has_body` says whether more of the
    /// request may follow.
    pub(super) fn end_response(&self, has_body: bool) {
        let mut state = self.state();
        state.reading = if has_body { ReadState::Either } else { ReadState::Head };
        state.unparsed = 0;
    }

    /// Returns whether a request waits for its response.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state().reading == ReadState::Body
    }

    /// Returns whether this connection should be closed to free memory: it has had a large head,
    /// and memory is short.
    pub(super) fn is_to_be_closed(&self) -> bool {
        let is_short =
            self.heads.as_ref().is_some_and(|(heads, _)| heads.free() < heads.budget().0 / 4);
        is_short && self.state().memory.is_some()
    }

    /// Waits until the client is gone: it has reset the connection, or its machine does not answer
    /// any more.
    pub(super) async fn reset(&self) {
        // On an error the registration with the runtime has ended, and so has the connection.
        let _ = self.stream().ready(Interest::ERROR).await;
    }

    /// Waits until the client is gone, or has closed its side.
    #[cfg(target_os = "linux")]
    pub(super) async fn reset_or_half_closed(&self) -> Closed {
        // Not `READABLE`, which data that was sent before keeps ready: this waits for the end only.
        match self.stream().ready(Interest::ERROR | Interest::PRIORITY).await {
            Ok(ready) if !ready.is_error() => Closed::HalfClosed,
            _ => Closed::Reset,
        }
    }

    /// Waits until the client is gone. On other systems, a closed side can't be distinguished from
    /// data that was sent before. So the client is answered, however long that takes.
    #[cfg(not(target_os = "linux"))]
    pub(super) async fn reset_or_half_closed(&self) -> Closed {
        self.reset().await;
        Closed::Reset
    }

    /// Reads for a moment after a head was refused, so that the client gets the response: a
    /// connection that is closed with unread bytes is reset.
    pub(super) async fn linger(&self, time: Duration) {
        if !self.state().is_refused {
            return;
        }
        // An error means that there is no client to wait for.
        let _ = SockRef::from(self.stream()).shutdown(Shutdown::Write);
        let read = async {
            while self.stream().readable().await.is_ok() {
                match self.stream().try_read(&mut [0; 1024]) {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        };
        let _ = timeout(time, read).await;
    }

    /// Counts what was read, and returns whether there is memory for it.
    fn has_room(&self, read: usize) -> bool {
        let mut state = self.state();
        let Some((heads, bytes)) = self.heads.as_ref().filter(|_| state.reading != ReadState::Body)
        else {
            return true;
        };
        state.unparsed += read;
        if state.unparsed > SMALL_HEAD_BYTES && state.memory.is_none() {
            state.memory = heads.try_take(*bytes);
            state.is_refused = state.memory.is_none();
            if state.is_refused && state.reading == ReadState::Head {
                // What does not fit into the system's buffer is lost; but the buffer is empty.
                let _ = self.stream().try_write(NO_MEMORY_RESPONSE.as_bytes());
            }
        }
        !state.is_refused
    }

    fn stream(&self) -> &TcpStream {
        self.half.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Socket ===

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        self.reader.set_limit(MAX_READ_BYTES);
        ready!(Pin::new(&mut self.reader).poll_read(cx, buf))?;
        if self.connection.has_room(buf.filled().len() - before) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other("no memory for the head of a request")))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = loop {
            match self.connection.stream().poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    let stalled =
                        self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
                    ready!(stalled.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            match self.connection.stream().try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => break written,
            }
        };
        self.stalled = None;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(self.connection.stream()).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_says_its_own_length() {
        let (head, body) = NO_MEMORY_RESPONSE.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
