//! What functions and receivers of callbacks may answer.

/// What a server does after it has written its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It leaves the connection open, and says nothing more.
    Keeps,
    /// It closes the connection.
    Closes,
    /// It closes its half of the connection, and reads on.
    HalfCloses,
    /// It resets the connection.
    Resets,
}

/// What happens to the call of a function that answers so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done, with this status.
    Done(u16),
    /// It is tried again, as after this status.
    Retried(u16),
    /// It is dead after one attempt, with 502.
    Final,
}

/// What happens to the result for a receiver that answers so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is taken.
    Yes,
    /// It is tried again.
    TriedAgain,
    /// It is a dead letter at once.
    Never,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is odd about it.
    pub what: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What follows.
    pub after: After,
    /// Whether it is written before the body of the request is read.
    pub is_early: bool,
    /// What happens to a call of a function that answers so.
    pub call: End,
    /// What happens to a result for a receiver that answers so.
    pub result: Taken,
    /// The status of `/function/` of the gateway; 0 where the gateway waits on.
    pub proxied: u16,
}

// === impl Answer ===

impl Answer {
    /// Whether a client of the gateway sees the connection end within the answer.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.call == End::Retried(503) && self.proxied == 200
    }
}

/// A row of an answer that is read whole and is fine for all.
fn read(what: &'static str, bytes: impl Into<Vec<u8>>) -> Answer {
    row(what, bytes, After::Keeps, End::Done(200), Taken::Yes, 200)
}

/// A row of an answer whose head can't be read.
fn unreadable(what: &'static str, bytes: impl Into<Vec<u8>>) -> Answer {
    row(what, bytes, After::Keeps, End::Final, Taken::TriedAgain, 502)
}

/// A row of an answer that breaks off.
fn broken(what: &'static str, bytes: impl Into<Vec<u8>>, after: After) -> Answer {
    row(what, bytes, after, End::Retried(503), Taken::TriedAgain, 502)
}

/// A row of a body that breaks off after a head that is fine. A receiver's body does not matter.
fn broken_body(what: &'static str, bytes: impl Into<Vec<u8>>, after: After) -> Answer {
    row(what, bytes, after, End::Retried(503), Taken::Yes, 200)
}

fn row(
    what: &'static str,
    bytes: impl Into<Vec<u8>>,
    after: After,
    call: End,
    result: Taken,
    proxied: u16,
) -> Answer {
    Answer { what, bytes: bytes.into(), after, is_early: false, call, result, proxied }
}

/// A head of 200 with these lines, and the body `ok`.
fn ok_with(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok")
}

/// All of them.
#[must_use]
pub fn answers() -> Vec<Answer> {
    [readable(), of_other_ends(), unreadable_ones(), broken_ones()].concat()
}

/// The answer that there is nothing odd about.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn chunked(chunks: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
}

fn empty(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

/// Answers that are read whole, and are fine for all.
fn readable() -> Vec<Answer> {
    vec![
        read("a folded header (RFC 9112, 5.2)", ok_with("X-A: one\r\n two\r\n\tthree\r\n")),
        read("a space before the colon (RFC 9112, 5.1)", ok_with("X-A : one\r\nX-B\t: two\r\n")),
        read("a line without a colon among the headers", ok_with("no field\r\n")),
        read("a header whose name holds a space", ok_with("X A: one\r\n")),
        read("a header without a name", ok_with(": one\r\n")),
        read(
            "bytes that are not UTF-8 in a header",
            [b"HTTP/1.1 200 OK\r\nX-A: \xff\xfe\r\n", &b"Content-Length: 2\r\n\r\nok"[..]].concat(),
        ),
        // The gateway's limit of heads, max_header_bytes, holds for answers, too.
        row(
            "a header of 40 KB",
            ok_with(&format!("X-A: {}\r\n", "x".repeat(40_000))),
            After::Keeps,
            End::Done(200),
            Taken::Yes,
            502,
        ),
        read("line feeds alone", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        read("blank lines before it", format!("\r\n\r\n{OK}")),
        read("no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok"),
        read("a reason that is not ASCII", "HTTP/1.1 200 Très bien\r\nContent-Length: 2\r\n\r\nok"),
        read(
            "`100 Continue` before it, which was not asked for",
            format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"),
        ),
        read(
            "`103 Early Hints` before it",
            format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"),
        ),
        read("`Connection: close`, and open nevertheless", ok_with("Connection: close\r\n")),
        read("the same length twice", ok_with("Content-Length: 2\r\n")),
        read(
            "the same length twice in one header",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        ),
        read("more than its length", format!("{OK}more")),
        read(
            "chunks and a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n\
             0\r\n\r\n",
        ),
        read(
            "chunks with extensions, and trailers",
            chunked("2;a=\"b\";c\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        Answer { is_early: true, ..read("all of it before the body of the request is read", OK) },
    ]
}

/// Answers of other ends.
fn of_other_ends() -> Vec<Answer> {
    vec![
        row(
            "HTTP/1.0 without a length",
            "HTTP/1.0 200 OK\r\n\r\nok",
            After::Closes,
            End::Done(200),
            Taken::Yes,
            200,
        ),
        row(
            "no length, and the connection is closed",
            "HTTP/1.1 200 OK\r\n\r\nok",
            After::Closes,
            End::Done(200),
            Taken::Yes,
            200,
        ),
        row(
            "a coding that is not chunked, and the connection is closed",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
            After::Closes,
            End::Done(200),
            Taken::Yes,
            200,
        ),
        row(
            "all of it, and half of the connection is closed",
            OK,
            After::HalfCloses,
            End::Done(200),
            Taken::Yes,
            200,
        ),
        row(
            "204 with a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
            After::Keeps,
            End::Done(204),
            Taken::Yes,
            204,
        ),
        row(
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
            After::Keeps,
            End::Done(304),
            Taken::TriedAgain,
            304,
        ),
        row(
            "a redirect",
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
            After::Keeps,
            End::Done(302),
            Taken::TriedAgain,
            302,
        ),
        row("`410 Gone`", empty("410 Gone"), After::Keeps, End::Done(410), Taken::Never, 410),
        row(
            "`508 Loop Detected`",
            empty("508 Loop Detected"),
            After::Keeps,
            End::Done(508),
            Taken::Never,
            508,
        ),
        row(
            "a status of 999",
            empty("999 Odd"),
            After::Keeps,
            End::Done(999),
            Taken::TriedAgain,
            999,
        ),
        row(
            "`500 Internal Server Error`",
            empty("500 Internal Server Error"),
            After::Keeps,
            End::Retried(500),
            Taken::TriedAgain,
            500,
        ),
        row("nothing", "", After::Keeps, End::Retried(504), Taken::TriedAgain, 0),
        row(
            "the head alone, without a length",
            "HTTP/1.1 200 OK\r\n\r\n",
            After::Keeps,
            End::Retried(504),
            Taken::Yes,
            200,
        ),
        row(
            "less than its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            After::Keeps,
            End::Retried(504),
            Taken::Yes,
            200,
        ),
    ]
}

/// Answers whose head can't be read.
fn unreadable_ones() -> Vec<Answer> {
    vec![
        unreadable("a zero byte in a header (RFC 9110, 5.5)", ok_with("X-A: o\0ne\r\n")),
        unreadable("a status of 42", "HTTP/1.1 42 Odd\r\n\r\n"),
        unreadable("a status of 000", "HTTP/1.1 000 Odd\r\n\r\n"),
        unreadable("a status of 2000", "HTTP/1.1 2000 Odd\r\n\r\n"),
        unreadable(
            "101, which was not asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        unreadable(
            "two lengths that differ",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ),
        unreadable("a length that is no number", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        unreadable(
            "chunks over HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        unreadable("HTTP of another version", "HTTP/3.0 200 OK\r\n\r\n"),
        unreadable("a body without a head", "<html>ok</html>\r\n\r\n"),
        unreadable("another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        unreadable("an alert of TLS", b"\x15\x03\x01\x00\x02\x02\x46"),
        unreadable(
            "frames of HTTP/2",
            b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00",
        ),
        unreadable("a head of 300 KB", ok_with(&format!("X-A: {}\r\n", "x".repeat(300_000)))),
        unreadable("150 headers", ok_with(&"X-A: one\r\n".repeat(150))),
    ]
}

/// Answers that break off.
fn broken_ones() -> Vec<Answer> {
    vec![
        broken("the connection is closed before it", "", After::Closes),
        broken("the connection is reset before it", "", After::Resets),
        broken("the connection is closed within the status line", "HTTP/1.1 2", After::Closes),
        broken(
            "the connection is closed within the headers",
            "HTTP/1.1 200 OK\r\nContent-Le",
            After::Closes,
        ),
        broken(
            "100 alone, and the connection is closed",
            "HTTP/1.1 100 Continue\r\n\r\n",
            After::Closes,
        ),
        broken_body(
            "less than its length, and the connection is closed",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            After::Closes,
        ),
        broken_body(
            "less than its length, and the connection is reset",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            After::Resets,
        ),
        broken_body(
            "chunks without the last one, and the connection is closed",
            chunked("2\r\nok\r\n"),
            After::Closes,
        ),
        broken_body("a chunk of no size", chunked("2\r\nok\r\nxyz\r\n"), After::Keeps),
        broken_body(
            "a chunk of more than 2^64 bytes",
            chunked("fffffffffffffffff\r\nok"),
            After::Keeps,
        ),
        broken_body(
            "a chunk that does not end where it says",
            chunked("2\r\nokay\r\n0\r\n\r\n"),
            After::Keeps,
        ),
    ]
}

/// The rows of the document.
pub(super) fn rows() -> Vec<[String; 4]> {
    let text = |answer: Answer| {
        let call = match answer.call {
            End::Done(status) => format!("done: {status}"),
            End::Retried(status) => format!("retried: {status}"),
            End::Final => "no retry: dead, 502".to_owned(),
        };
        let result = match answer.result {
            Taken::Yes => "taken",
            Taken::TriedAgain => "tried again",
            Taken::Never => "a dead letter at once",
        };
        let proxied = match answer.proxied {
            0 => "waits".to_owned(),
            status if answer.is_cut_off() => format!("{status}, cut off"),
            status => status.to_string(),
        };
        [answer.what.to_owned(), call, result.to_owned(), proxied]
    };
    answers().into_iter().map(text).collect()
}
