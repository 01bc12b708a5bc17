//! The load: connections that are kept open, each with one request on its way. It shares the
//! processors with what it measures, so it does as little as it can: requests are written as they
//! stand, of answers the status is read and the end is found, and one thread does it all.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// What can go wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Longer than any answer that is expected.
const ANSWER: usize = 4096;

/// The headers that common clients send.
pub const HEADERS: [(&str, &str); 3] =
    [("user-agent", "bench/1.0"), ("accept", "*/*"), ("content-type", "application/octet-stream")];

/// Before a rate is measured: connections are opened, and memory is taken that stays.
const WARM_UP: Duration = Duration::from_millis(500);

/// A request as it is sent, with the status that its answer must have: with another one, the
/// benchmark measures something else.
#[derive(Clone, Debug)]
pub struct Request {
    text: Arc<[u8]>,
    status_line: String,
}

/// A client of a server.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where that listens.
    pub addr: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// What each of them sends again and again.
    pub request: Request,
}

/// How many requests were answered.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    /// In all.
    pub all: usize,
    /// In the time that counts.
    pub measured: usize,
    /// How long that was.
    pub elapsed: Duration,
}

/// A connection that is kept open.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Request {
    /// A request with these headers next to those of common clients, and a body of so many bytes.
    #[must_use]
    pub fn new(
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: usize,
        status: u16,
    ) -> Self {
        let fields: String = HEADERS
            .iter()
            .chain(headers)
            .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
            .collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: gateway\r\n{fields}Content-Length: {body}\r\n\r\n"
        );
        let text = [head.into_bytes(), vec![b'x'; body]].concat().into();
        Self { text, status_line: format!("HTTP/1.1 {status} ") }
    }

    /// The submission of a call with a body of so many bytes.
    #[must_use]
    pub fn of_call(body: usize) -> Self {
        Self::new("POST", "/async-function/bench", &[], body, 202)
    }
}

impl Load {
    /// The answers of a run of this time, where each connection sends the next request as soon as
    /// the last is answered.
    pub async fn answers(self, time: Duration) -> Result<Answers, Error> {
        in_a_thread(async move {
            let answered = Arc::new(AtomicUsize::new(0));
            let mut running = JoinSet::new();
            for _ in 0..self.connections {
                let mut client = Client::connect(self.addr).await?;
                let (request, answered) = (self.request.clone(), answered.clone());
                running.spawn(async move {
                    loop {
                        if let Err(error) = client.send(&request).await {
                            return error;
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let count = async {
                tokio::time::sleep(WARM_UP).await;
                let (begun, before) = (Instant::now(), answered.load(Ordering::Relaxed));
                tokio::time::sleep(time).await;
                let (all, elapsed) = (answered.load(Ordering::Relaxed), begun.elapsed());
                Answers { all, measured: all - before, elapsed }
            };
            tokio::select! {
                answers = count => Ok(answers),
                Some(error) = running.join_next() => Err(error?),
            }
        })
        .await
    }

    /// How long each answer took at so many requests a second over all connections together.
    pub async fn latencies(self, rate: u32, time: Duration) -> Result<Vec<Duration>, Error> {
        in_a_thread(async move {
            let between = Duration::from_secs(1) / rate;
            let connections = u32::try_from(self.connections)?;
            let (period, begin) = (between * connections, tokio::time::Instant::now() + WARM_UP);
            let mut running = JoinSet::new();
            for number in 0..connections {
                let mut client = Client::connect(self.addr).await?;
                let request = self.request.clone();
                let mut ticks = tokio::time::interval_at(begin + between * number, period);
                running.spawn(async move {
                    let mut latencies = Vec::new();
                    while begin.elapsed() < time {
                        let free = tokio::time::Instant::now();
                        let due = ticks.tick().await;
                        // A timer may be late by a millisecond, which is no fault; but a
                        // request that had to wait for the answer before it has waited since it was
                        // due.
                        let since = if free > due { due } else { tokio::time::Instant::now() };
                        client.send(&request).await?;
                        latencies.push(since.elapsed());
                    }
                    Ok::<_, Error>(latencies)
                });
            }
            let mut latencies = Vec::new();
            while let Some(of_one) = running.join_next().await {
                latencies.extend(of_one??);
            }
            Ok(latencies)
        })
        .await
    }
}

impl Client {
    /// A client of the server at an address.
    pub async fn connect(addr: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends a request and reads the answer.
    pub async fn send(&mut self, request: &Request) -> Result<(), Error> {
        self.stream.write_all(&request.text).await?;
        let (mut answer, mut length) = ([0; ANSWER], 0);
        while !is_complete(&answer[..length]) {
            match self.stream.read(&mut answer[length..]).await? {
                0 => return Err("no answer, or one that is longer than expected".into()),
                read => length += read,
            }
        }
        if answer.starts_with(request.status_line.as_bytes()) {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&answer[..length]).into())
        }
    }
}

/// Returns whether an answer has its head, and as much of a body as that says.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let (head, body) = answer.split_at(end + 4);
    let head = std::str::from_utf8(head).unwrap_or_default();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Runs the load on a thread of its own.
async fn in_a_thread<T: Send + 'static>(
    load: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(load)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_complete_with_its_body() {
        for (answer, complete) in [
            ("", false),
            ("HTTP/1.1 202 Accepted\r\nx-call-id: 1\r\n", false),
            ("HTTP/1.1 202 Accepted\r\nx-call-id: 1\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ] {
            assert_eq!(is_complete(answer.as_bytes()), complete, "{answer}");
        }
    }
}
