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

/// What every answer begins with, or the benchmark measures something else.
const ACCEPTED: &[u8] = b"HTTP/1.1 202 ";

/// Longer than any answer that is expected.
const ANSWER: usize = 4096;

/// The headers that common clients send.
pub const HEADERS: [(&str, &str); 3] =
    [("user-agent", "bench/1.0"), ("accept", "*/*"), ("content-type", "application/octet-stream")];

/// Before a rate is measured: connections are opened, and memory is taken that stays.
const WARM_UP: Duration = Duration::from_millis(500);

/// A client of a server.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where that listens.
    pub addr: SocketAddr,
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a body.
    pub body: usize,
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

/// A connection, and the request that goes through it again and again.
struct Client {
    stream: TcpStream,
    request: Arc<[u8]>,
}

impl Load {
    /// The answers of a run of this time, where each connection sends the next request as soon as
    /// the last is answered.
    pub async fn answers(self, time: Duration) -> Result<Answers, Error> {
        in_a_thread(async move {
            let answered = Arc::new(AtomicUsize::new(0));
            let mut running = JoinSet::new();
            for _ in 0..self.connections {
                let (mut client, answered) = (self.connect().await?, answered.clone());
                running.spawn(async move {
                    loop {
                        if let Err(error) = client.call().await {
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
                let mut client = self.connect().await?;
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
                        client.call().await?;
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

    async fn connect(&self) -> Result<Client, Error> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let fields: String =
            HEADERS.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
        let head = format!(
            "POST /async-function/bench HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {}\r\n\r\n",
            self.addr, self.body
        );
        let request = [head.into_bytes(), vec![b'x'; self.body]].concat().into();
        Ok(Client { stream, request })
    }
}

impl Client {
    /// Sends the request and reads the answer, which has no body.
    async fn call(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.request).await?;
        let (mut answer, mut length) = ([0; ANSWER], 0);
        while !answer[..length].ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut answer[length..]).await? {
                0 => return Err("the connection was closed before an answer".into()),
                read => length += read,
            }
        }
        if answer.starts_with(ACCEPTED) {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&answer[..length]).into())
        }
    }
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
