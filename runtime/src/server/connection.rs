//! One connection: its socket, which the server watches while hyper reads from it and writes to it, and the memory that its
//! requests take.

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

use crate::memory::{Account, Taken};

/// How long a connection is silent before the system asks whether the client's machine is there, and between two such
/// questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Questions without an answer after which the client is taken for gone.
const KEEPALIVE_QUESTIONS: u32 = 4;

/// How long a client may take nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(75);

/// What hyper reads at once: less than what makes it read into larger buffers, which it keeps.
const READ_BYTES: u64 = SMALL_HEAD as u64 - 1;

/// A head that fits into the buffer that each connection has.
const SMALL_HEAD: usize = 8 * 1024;

/// The answer to a head for which there is no memory.
const NO_MEMORY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
                         Content-Length: 71\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
                         no memory for a head of this size (memory_budget): send less, or again\n";

/// A connection. The server and hyper have it together.
#[derive(Debug)]
pub(super) struct Connection {
    /// The half that is read from is the socket's own: only so tokio knows that what was read is all that has come, and spares
    /// the system a question after each request.
    half: OwnedWriteHalf,
    /// For heads that are not small, and how much one takes.
    heads: Option<(Account, usize)>,
    state: Mutex<State>,
}

/// The socket of a connection, for hyper.
#[derive(Debug)]
pub(super) struct Socket {
    connection: Arc<Connection>,
    reader: Take<OwnedReadHalf>,
    /// Since when the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct State {
    reading: Reading,
    /// What was read since the last request began to be answered.
    unparsed: usize,
    /// Of a head that is not small. hyper keeps the buffer for as long as the connection lasts.
    memory: Option<Taken>,
    is_refused: bool,
}

/// How a client has ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It sends no more, and may read on.
    OnItsSide,
    /// It is gone.
    ByReset,
}

/// What the next bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The head of a request.
    Head,
    /// The body of a request that is being answered.
    Body,
    /// The rest of the body of one that was answered, or the next head.
    Either,
}

// === impl Connection ===

impl Connection {
    /// Takes a connection over. `heads` is the account for heads that are not small, and what one takes.
    pub(super) fn open(
        stream: TcpStream,
        heads: Option<(Account, usize)>,
    ) -> io::Result<(Arc<Self>, Socket)> {
        // Answers are short: send them now rather than wait for more to send.
        stream.set_nodelay(true)?;
        // Else a machine that is gone would hold its connection until something is sent to it.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE)
            .with_retries(KEEPALIVE_QUESTIONS);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let state = State { reading: Reading::Head, unparsed: 0, memory: None, is_refused: false };
        let (reader, half) = stream.into_split();
        let connection = Arc::new(Self { half, heads, state: Mutex::new(state) });
        let socket =
            Socket { connection: connection.clone(), reader: reader.take(READ_BYTES), stalled: None };
        Ok((connection, socket))
    }

    /// A request begins to be answered.
    pub(super) fn begin_answer(&self) {
        let mut state = self.state();
        state.reading = Reading::Body;
        state.unparsed = 0;
    }

    /// The head of its answer is there. `has_body`: the request may have more to come.
    pub(super) fn end_answer(&self, has_body: bool) {
        let mut state = self.state();
        state.reading = if has_body { Reading::Either } else { Reading::Head };
        state.unparsed = 0;
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.state().reading == Reading::Body
    }

    /// Whether this connection holds what others need: it has had a large head, and memory is short.
    pub(super) fn is_to_be_closed(&self) -> bool {
        let is_short = self.heads.as_ref().is_some_and(|(heads, _)| heads.free() < heads.budget().0 / 4);
        is_short && self.state().memory.is_some()
    }

    /// Waits until the client is gone: it has reset the connection, or its machine does not answer any more.
    pub(super) async fn reset(&self) {
        // An error: what is registered with the runtime ends with it, and so does the connection.
        let _ = self.stream().ready(Interest::ERROR).await;
    }

    /// Waits until the client is gone, or has closed its side.
    #[cfg(target_os = "linux")]
    pub(super) async fn reset_or_half_closed(&self) -> Closed {
        // Not `READABLE`, which what was sent before keeps ready: this waits for the end alone.
        match self.stream().ready(Interest::ERROR | Interest::PRIORITY).await {
            Ok(ready) if !ready.is_error() => Closed::OnItsSide,
            _ => Closed::ByReset,
        }
    }

    /// Elsewhere nothing tells a side that is closed apart from what was sent before: the client is answered, however long
    /// that takes.
    #[cfg(not(target_os = "linux"))]
    pub(super) async fn reset_or_half_closed(&self) -> Closed {
        self.reset().await;
        Closed::ByReset
    }

    /// Reads on for a moment if a head was refused, so that the client reads the answer: a connection that is closed with
    /// bytes unread is reset.
    pub(super) async fn linger(&self, time: Duration) {
        if !self.state().is_refused {
            return;
        }
        // An error: there is nobody to wait for.
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

    /// Counts what was read, and says whether there is memory for it.
    fn has_room(&self, read: usize) -> bool {
        let mut state = self.state();
        let Some((heads, bytes)) = self.heads.as_ref().filter(|_| state.reading != Reading::Body) else {
            return true;
        };
        state.unparsed += read;
        if state.unparsed > SMALL_HEAD && state.memory.is_none() {
            state.memory = heads.try_take(*bytes);
            state.is_refused = state.memory.is_none();
            if state.is_refused && state.reading == Reading::Head {
                // What does not fit into the system's buffer is lost, which is empty.
                let _ = self.stream().try_write(NO_MEMORY.as_bytes());
            }
        }
        !state.is_refused
    }

    fn stream(&self) -> &TcpStream {
        self.half.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
        self.reader.set_limit(READ_BYTES);
        ready!(Pin::new(&mut self.reader).poll_read(cx, buf))?;
        if self.connection.has_room(buf.filled().len() - before) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other("no memory for the head of a request")))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
                    let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
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
        let (head, body) = NO_MEMORY.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
