//! HTTP/1.1 by hand, for what a client library would hide: what is sent is what the test says, byte
//! for byte.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::wait::WAIT_TIMEOUT;

/// A connection, on which requests are written and responses read.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What was read and is not taken yet.
    unread: Vec<u8>,
}

/// A server whose connections are answered by hand.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// A response as it came.
#[derive(Clone, Debug)]
pub struct RawResponse {
    /// Its status.
    pub status: u16,
    /// Its headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, decoded if it was chunked.
    pub body: Vec<u8>,
    /// What followed a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// Sends one request on a connection of its own and reads the response. `Host`, `Content-Length`
/// and `Connection: close` are added.
pub async fn request(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> RawResponse {
    try_request(addr, method, target, headers, body).await.expect("an answer")
}

/// As [`request`]; an error if there is no listener or the connection ends early.
pub async fn try_request(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<RawResponse> {
    let length = body.len().to_string();
    let (host, mut fields) = (addr.to_string(), vec![("Connection", "close")]);
    fields.push(("Host", &host));
    if !body.is_empty() || method == "POST" {
        fields.push(("Content-Length", &length));
    }
    fields.extend_from_slice(headers);
    let fields: String =
        fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let head = format!("{method} {target} HTTP/1.1\r\n{fields}\r\n");
    let mut connection = Connection::try_open(addr).await?;
    connection.stream.write_all(&[head.as_bytes(), body].concat()).await?;
    connection.read(method != "HEAD").await
}

impl Listener {
    /// Listens on loopback.
    pub async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("its address"))
    }

    /// Returns the next connection, which is expected soon.
    pub async fn accept(&self) -> Connection {
        timeout(WAIT_TIMEOUT, self.accept_at_any_time()).await.expect("a connection in time")
    }

    /// Waits for the next connection without limit.
    pub async fn accept_at_any_time(&self) -> Connection {
        let (stream, _) = self.0.accept().await.expect("a connection");
        Connection { stream, unread: Vec::new() }
    }
}

impl Connection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).await.expect("somebody listens")
    }

    async fn try_open(addr: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(addr).await?, unread: Vec::new() })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the bytes are sent");
    }

    /// Sends bytes; an error where the other side has closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// What has come by then, as text; `None` if that is nothing.
    pub async fn answered_by(&mut self, time: Duration) -> Option<String> {
        let all =
            async { while matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {} };
        // It may go on.
        let _ = timeout(time, all).await;
        (!self.unread.is_empty()).then(|| String::from_utf8_lossy(&self.unread).into_owned())
    }

    /// Closes the side on which bytes are sent, and leaves the other open.
    pub async fn close_side(&mut self) {
        // An error: the other side has closed both.
        let _ = self.stream.shutdown().await;
    }

    /// Resets the connection, as a system does that knows of it no more.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("it does not linger");
    }

    /// Reads the next response, be it an interim one.
    pub async fn response(&mut self) -> RawResponse {
        self.read(true).await.expect("a response")
    }

    /// The same; an error where the other side closes before.
    pub async fn try_response(&mut self) -> std::io::Result<RawResponse> {
        self.read(true).await
    }

    /// Waits until the other side closes, and returns what it has sent before.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.fill().await.unwrap_or(0) > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Reads so many bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.take(count).await.expect("the bytes arrive")
    }

    /// Reads the head of a request, and leaves what follows it.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.expect("the head of a request")
    }

    async fn read(&mut self, has_body: bool) -> std::io::Result<RawResponse> {
        let head = self.until("\r\n\r\n").await?;
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let mut response = RawResponse {
            status: status.unwrap_or_else(|| panic!("no status line: {head}")),
            headers: lines.filter_map(field).collect(),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        if !has_body || response.status < 200 || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding") == "chunked" {
            loop {
                let size = self.until("\r\n").await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
                match size.expect("the size of a chunk") {
                    0 => break,
                    size => response.body.extend(self.take(size).await?),
                }
                self.until("\r\n").await?;
            }
            while let Some(trailer) = field(&self.until("\r\n").await?) {
                response.trailers.push(trailer);
            }
        } else if let Ok(length) = response.header("content-length").parse() {
            response.body = self.take(length).await?;
        } else {
            response.body = self.closed().await;
        }
        Ok(response)
    }

    /// Takes what comes before `end`, and `end` with it.
    async fn until(&mut self, end: &str) -> std::io::Result<String> {
        loop {
            let at = self.unread.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = at {
                let text = String::from_utf8_lossy(&self.unread[..at]).into_owned();
                self.unread.drain(..at + end.len());
                return Ok(text);
            }
            self.fill_or_fail().await?;
        }
    }

    async fn take(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.fill_or_fail().await?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    async fn fill_or_fail(&mut self) -> std::io::Result<()> {
        match self.fill().await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        timeout(WAIT_TIMEOUT, self.stream.read_buf(&mut self.unread))
            .await
            .expect("something comes in time")
    }
}

impl RawResponse {
    /// A header's value; empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_up_to_the_first_invalid_one() {
        assert_eq!(field("X-Multi: a: b "), Some(("x-multi".to_owned(), "a: b".to_owned())));
        assert_eq!(field(""), None);
    }
}
