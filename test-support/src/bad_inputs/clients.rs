//! Clients that speak HTTP in odd ways, to the byte: what a gateway answers, and how many calls it
//! stores.

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Sends bytes at once.
    Send(&'static [u8]),
    /// Sends bytes one by one.
    Trickle(&'static [u8]),
    /// Does nothing for a moment, so that what comes next is read apart.
    Pause,
    /// Waits for an answer.
    Await,
    /// Closes its side of the connection.
    CloseSide,
}

/// A listener of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Where calls are taken.
    Calls,
    /// Where metrics are served.
    Metrics,
}

/// A client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What is odd about it.
    pub what: &'static str,
    /// Where it connects to.
    pub door: Door,
    /// What it does.
    pub steps: &'static [Step],
    /// The status of each answer, in order. None: the connection is closed.
    pub answers: &'static [u16],
    /// How many calls are stored.
    pub stored: u64,
}

/// The settings of the gateway that is asked.
pub const SETTINGS: [(&str, &str); 2] = [("max_payload", "1Ki"), ("read_timeout", "1s")];

const fn stores(
    what: &'static str,
    steps: &'static [Step],
    answers: &'static [u16],
    stored: u64,
) -> Client {
    Client { what, door: Door::Calls, steps, answers, stored }
}

const fn refused(what: &'static str, steps: &'static [Step], answers: &'static [u16]) -> Client {
    Client { what, door: Door::Calls, steps, answers, stored: 0 }
}

const fn at_metrics(what: &'static str, steps: &'static [Step], answers: &'static [u16]) -> Client {
    Client { what, door: Door::Metrics, steps, answers, stored: 0 }
}

use Step::{Await, CloseSide, Pause, Send, Trickle};

const CALL: &[u8] =
    b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi";

/// The clients.
pub const CLIENTS: &[Client] = &[
    stores("a request byte by byte", &[Trickle(CALL)], &[202], 1),
    stores(
        "a head in two parts, within its line end",
        &[
            Send(b"POST /async-function/figlet HTTP/1.1\r"),
            Pause,
            Send(b"\nHost: g\r\nContent-Length: 2\r\n\r"),
            Pause,
            Send(b"\nh"),
            Pause,
            Send(b"i"),
        ],
        &[202],
        1,
    ),
    stores("two requests at once", &[Send(CALL), Send(CALL)], &[202, 202], 2),
    stores(
        "two requests at once, and the client's side closed",
        &[Send(CALL), Send(CALL), CloseSide],
        &[202, 202],
        2,
    ),
    stores("a request after its client's side is closed", &[Send(CALL), CloseSide], &[202], 1),
    stores(
        "a request after another was answered",
        &[Send(CALL), Await, Send(CALL)],
        &[202, 202],
        2,
    ),
    stores(
        "a call after one that was refused",
        &[
            Send(b"POST /elsewhere HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n"),
            Await,
            Send(CALL),
        ],
        &[404, 202],
        1,
    ),
    stores(
        "`Connection: close`",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[202],
        1,
    ),
    stores(
        "`Expect: 100-continue`, waited for",
        &[
            Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n\
                   Content-Length: 2\r\n\r\n"),
            Await,
            Send(b"hi"),
        ],
        &[100, 202],
        1,
    ),
    stores(
        "`Expect: 100-continue`, not waited for",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n\
              Content-Length: 2\r\n\r\nhi",
        )],
        &[100, 202],
        1,
    ),
    refused(
        "`Expect: 100-continue` for a body that is too large",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n\
              Content-Length: 2000\r\n\r\n",
        )],
        &[413],
    ),
    stores(
        "HTTP/1.0 without `Host`",
        &[Send(b"POST /async-function/figlet HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")],
        &[202],
        1,
    ),
    stores(
        "HTTP/1.0 with `Connection: keep-alive`",
        &[
            Send(b"POST /async-function/figlet HTTP/1.0\r\nConnection: keep-alive\r\n\
                   Content-Length: 2\r\n\r\nhi"),
            Await,
            Send(b"POST /async-function/figlet HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"),
        ],
        &[202, 202],
        2,
    ),
    stores(
        "a request of no body and no length",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\r\n")],
        &[202],
        1,
    ),
    stores(
        "an empty `Host`",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\nhi")],
        &[202],
        1,
    ),
    stores(
        "a target in absolute form",
        &[Send(
            b"POST http://other:8080/async-function/figlet HTTP/1.1\r\nHost: g\r\n\
              Content-Length: 2\r\n\r\nhi",
        )],
        &[202],
        1,
    ),
    stores("an empty line before the request", &[Send(b"\r\n"), Send(CALL)], &[202], 1),
    stores(
        "lines that end with LF alone",
        &[Send(b"POST /async-function/figlet HTTP/1.1\nHost: g\nContent-Length: 2\n\nhi")],
        &[202],
        1,
    ),
    stores(
        "chunks with extensions",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n\
              1;a=b\r\nh\r\n1;c=\"d\"\r\ni\r\n0;e\r\n\r\n",
        )],
        &[202],
        1,
    ),
    stores(
        "chunks with trailers",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\
              Trailer: X-Sum\r\n\r\n\
              2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n",
        )],
        &[202],
        1,
    ),
    stores(
        "a body of no chunks",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")],
        &[202],
        1,
    ),
    stores(
        "a length together with chunks, which count",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 999\r\n\
              Transfer-Encoding: chunked\r\n\r\n\
              2\r\nhi\r\n0\r\n\r\n",
        )],
        &[202],
        1,
    ),
    stores(
        "the same length twice",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\
              Content-Length: 2\r\n\r\nhi",
        )],
        &[202],
        1,
    ),
    stores(
        "an upgrade to HTTP/2, which is declined",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\
              Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
              HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 2\r\n\r\nhi",
        )],
        &[202],
        1,
    ),
    stores(
        "more bytes than the length says",
        &[Send(CALL), Send(b"\x00\x01\x02\r\n\r\n")],
        &[202, 400],
        1,
    ),
    stores(
        "a header with tabs and white space around its value",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost:\t g \t\r\n\
                 Content-Length: \t2 \r\n\r\nhi")],
        &[202],
        1,
    ),
    refused("nothing, and the client's side closed", &[CloseSide], &[]),
    refused(
        "half a head, and the client's side closed",
        &[Send(b"POST /async-fun"), CloseSide],
        &[],
    ),
    refused(
        "half a body, and the client's side closed",
        &[
            Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n\
                   half"),
            CloseSide,
        ],
        &[400],
    ),
    refused(
        "half a body, and no more",
        &[
            Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n\
                   half"),
            Await,
        ],
        &[408],
    ),
    refused(
        "HTTP/1.1 without `Host`",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "two `Host` headers that are alike",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nHost: g\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a `Host` that is a URL",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: http://g/\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a method in lower case",
        &[Send(b"post /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi")],
        &[405],
    ),
    refused(
        "a target of another scheme",
        &[Send(b"POST ftp://g/async-function/figlet HTTP/1.1\r\nHost: g\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a target without a slash",
        &[Send(b"POST async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused("`OPTIONS *`", &[Send(b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n")], &[204]),
    refused(
        "two spaces in the first line",
        &[Send(b"POST  /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused("HTTP/0.9", &[Send(b"GET /async-function/figlet\r\n\r\n")], &[400]),
    refused("HTTP/1.2", &[Send(b"GET / HTTP/1.2\r\nHost: g\r\n\r\n")], &[400]),
    refused(
        "HTTP/2 at once",
        &[Send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")],
        &[],
    ),
    refused(
        "TLS",
        &[Send(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\
              \x2a\x2a\x2a\x2a\x2a\x2a\x2a\x2a\r\n\r\n",
        )],
        &[400],
    ),
    refused("bytes that are no text", &[Send(b"\xff\xfe\xfd\xfc\r\n\r\n")], &[400]),
    refused(
        "NUL in the target",
        &[Send(b"POST /async-function/fig\x00let HTTP/1.1\r\nHost: g\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "NUL in a header",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Nul: a\x00b\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a carriage return in a header",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Cr: a\rb\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a space before the colon of `Transfer-Encoding`",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding : chunked\r\n\
              Content-Length: 2\r\n\r\nhi",
        )],
        &[400],
    ),
    refused(
        "a folded header",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Long: a\r\n b\r\n\
                 Content-Length: 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "chunks in HTTP/1.0",
        &[Send(b"POST /async-function/figlet HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\
                 hi\r\n0\r\n\r\n")],
        &[400],
    ),
    refused(
        "a list of lengths",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\
                 Content-Length: 2, 2\r\n\r\nhi")],
        &[400],
    ),
    refused(
        "a chunk of more bytes than there are",
        &[Send(
            b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n\
              ffffffffffffffffff\r\nhi\r\n",
        )],
        &[400],
    ),
    refused(
        "a chunk of a negative size",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\
                 Transfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n")],
        &[400],
    ),
    refused(
        "a chunk that does not end where it says",
        &[Send(b"POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n\
                 Transfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n")],
        &[400],
    ),
    at_metrics(
        "a client's side closed",
        &[Send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n"), CloseSide],
        &[200],
    ),
    at_metrics("no `Host`", &[Send(b"GET /metrics HTTP/1.1\r\n\r\n")], &[400]),
    at_metrics(
        "a target in absolute form",
        &[Send(b"GET http://g/readyz HTTP/1.1\r\nHost: g\r\n\r\n")],
        &[200],
    ),
    at_metrics("HTTP/1.0", &[Send(b"GET /healthz HTTP/1.0\r\n\r\n")], &[200]),
    at_metrics("bytes that are no text", &[Send(b"\xff\xfe\r\n\r\n")], &[400]),
];

/// The rows of the document.
pub(super) fn rows() -> Vec<[String; 2]> {
    let row = |client: &Client| {
        let at = if client.door == Door::Metrics { "metrics: " } else { "" };
        let answers: Vec<_> = client.answers.iter().map(u16::to_string).collect();
        let answers = if answers.is_empty() {
            "the connection is closed".to_owned()
        } else {
            answers.join(", ")
        };
        [format!("{at}{}", client.what), answers]
    };
    CLIENTS.iter().map(row).collect()
}
