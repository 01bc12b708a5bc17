//! Requests to a gateway.

use super::{Elsewhere, code};

/// A request, and its refusal.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is wrong with it.
    pub what: &'static str,
    /// Method and target.
    pub line: &'static str,
    /// The header fields after `Host`, each with its line end, as bytes.
    pub fields: &'static [u8],
    /// The body.
    pub body: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// What the answer's one line says; nothing where the HTTP parser refuses what is no request
    /// yet.
    pub says: &'static str,
}

/// The settings of the gateway that is asked.
pub const SETTINGS: [(&str, &str); 4] = [
    ("max_header_bytes", "64Ki"),
    ("max_payload", "1Ki"),
    ("read_timeout", "300ms"),
    ("unknown_function", "reject"),
];

const POST: &str = "POST /async-function/figlet";

const fn line(what: &'static str, line: &'static str, status: u16, says: &'static str) -> Request {
    Request { what, line, fields: b"", body: "hi", status, says }
}

const fn field(
    what: &'static str,
    fields: &'static [u8],
    status: u16,
    says: &'static str,
) -> Request {
    Request { what, line: POST, fields, body: "hi", status, says }
}

/// A request whose framing is its own.
const fn raw(
    what: &'static str,
    fields: &'static [u8],
    body: &'static str,
    status: u16,
) -> Request {
    Request { what, line: POST, fields, body, status, says: "" }
}

/// The requests.
pub const REQUESTS: &[Request] = &[
    line(
        "no function",
        "POST /async-function/",
        404,
        "missing function name: use /async-function/NAME",
    ),
    line(
        "no function",
        "POST /async-function",
        404,
        "missing function name: use /async-function/NAME",
    ),
    line(
        "a name of three parts",
        "POST /async-function/a.b.c",
        400,
        "function name `a.b` is not valid: use 1 to 63",
    ),
    line(
        "an escape in the name",
        "POST /async-function/fig%2Flet",
        400,
        "function name `fig%2Flet` is not valid",
    ),
    line(
        "a name that is too long",
        "POST /async-function/⟨64 x⟩",
        400,
        "is not valid: use 1 to 63 of A-Z, a-z, 0-9",
    ),
    line(
        "an unknown function, with `unknown_function=reject`",
        "POST /async-function/unknown",
        404,
        "function `unknown.openfaas-fn` not found",
    ),
    line(
        "`%` that is no escape",
        "POST /async-function/figlet/100%",
        400,
        "path: `%` is not a valid percent escape",
    ),
    line(
        "`%` that is no escape",
        "POST /async-function/figlet/%zz",
        400,
        "path: `%zz` is not a valid percent escape",
    ),
    line(
        "white space in the path",
        "POST /async-function/figlet/a\u{a0}",
        400,
        "white space (U+00A0) is not percent-encoded",
    ),
    line(
        "white space in the query",
        "POST /async-function/figlet?\u{3000}",
        400,
        "white space (U+3000) is not percent-encoded",
    ),
    line(
        "path and query too long",
        "POST /async-function/figlet?⟨61500 x⟩",
        414,
        "longer than 61440 bytes together",
    ),
    line(
        "path, query and callback URL too long for a dead letter",
        "POST /async-function/figlet?⟨60500 x⟩",
        413,
        "path, query and X-Callback-Url are longer than 60415 bytes together",
    ),
    line("a space in the target", "POST /async-function/figlet a", 400, ""),
    line("a quote in the query", "POST /async-function/figlet?a=\"b\"", 400, ""),
    line(
        "an escape before the function's name",
        "POST /%61sync-function/figlet",
        400,
        "path: other servers may interpret it differently",
    ),
    line(
        "two slashes",
        "POST //async-function/figlet",
        400,
        "path: other servers may interpret it differently",
    ),
    line(
        "a path that leads to another function",
        "POST /function/figlet/../../async-function/figlet",
        400,
        "no `..` after the name that leads above the function",
    ),
    line("the target `*`", "POST *", 400, "the target `*` is for OPTIONS alone"),
    line(
        "a target that is no path",
        "POST gateway:8080",
        400,
        "the target is not a path: write it as /path",
    ),
    line(
        "a URL with credentials for a target",
        "POST http://u:p@gateway/async-function/figlet",
        400,
        "the target is not a path or an http URL without credentials",
    ),
    line("another path", "POST /elsewhere", 404, "nothing is served at this path"),
    line(
        "another method",
        "PUT /async-function/figlet",
        405,
        "method PUT is not allowed here: use POST, GET, HEAD, DELETE",
    ),
    line(
        "a tunnel",
        "CONNECT /function/figlet",
        405,
        "method CONNECT is not allowed here: use GET, HEAD",
    ),
    line("an unknown call", "GET /async-function/unknown", 404, "call `unknown` not found"),
    line("an invalid call id", "GET /async-function/a.b", 400, "call id `a.b` is not valid"),
    line(
        "a time to wait that is no duration",
        "GET /async-function/order-7/result?wait=30",
        400,
        "wait `30` is not valid: write a duration as 500ms, 30s or 1m30s",
    ),
    line(
        "a call of no function",
        "DELETE /async-function/a.b.c/id",
        400,
        "function name `a.b` is not valid",
    ),
    line("no call", "DELETE /async-function/", 404, "missing call id: use /async-function/CALL-ID"),
    line(
        "a path of the function's own",
        "DELETE /async-function/figlet/a/b",
        405,
        "method DELETE is not allowed here: use POST",
    ),
    field(
        "an id that is no token",
        b"X-Call-Id: a.b\r\n",
        400,
        "X-Call-Id: call id `a.b` is not valid: use 1 to 128",
    ),
    field(
        "an id that is too long",
        "X-Call-Id: ⟨129 x⟩\r\n".as_bytes(),
        400,
        "is not valid: use 1 to 128 of A-Z, a-z, 0-9",
    ),
    field("two ids", b"X-Call-Id: a\r\nX-Call-Id: b\r\n", 400, "X-Call-Id is given more than once"),
    field("an id of other bytes", b"X-Call-Id: \xff\r\n", 400, "X-Call-Id is not valid UTF-8"),
    field(
        "an empty key",
        b"Idempotency-Key:\r\n",
        400,
        "Idempotency-Key `` is not valid: it has 0 bytes",
    ),
    field(
        "a key that is too long",
        "Idempotency-Key: ⟨256 x⟩\r\n".as_bytes(),
        400,
        "is not valid: it has 256 bytes; send 1 to 255 characters of ASCII",
    ),
    field(
        "a key without its second quote",
        b"Idempotency-Key: \"a\r\n",
        400,
        "it begins with a quote and is not a string of RFC 8941",
    ),
    field(
        "a key of other characters",
        "Idempotency-Key: café\r\n".as_bytes(),
        400,
        "it holds a character that is not printable ASCII",
    ),
    field(
        "two keys",
        b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        400,
        "Idempotency-Key is given more than once",
    ),
    field(
        "a delay without a unit",
        b"X-Delay: 90\r\n",
        400,
        "X-Delay: `90` is not a duration: a number needs a unit; write it as 200ms, 90s, 15m",
    ),
    field(
        "a time that is not of RFC 3339",
        b"X-Not-Before: 1795514400\r\n",
        400,
        "X-Not-Before `1795514400` is not valid: send a time with seconds and zone as RFC 3339 \
         writes it",
    ),
    field(
        "a delay in both forms",
        b"X-Delay: 90s\r\nX-Not-Before: 2026-12-24T18:00:00Z\r\n",
        400,
        "X-Delay and X-Not-Before are given: send one of them",
    ),
    field(
        "a delay that is too long",
        b"X-Delay: 200h\r\n",
        400,
        "the call would wait for 200h, and limits.maxDelay of the queue is 168h: send a shorter \
         delay, or raise the limit",
    ),
    field(
        "a depth that is no number",
        b"X-Async-Depth: -1\r\n",
        400,
        "X-Async-Depth `-1` is not valid",
    ),
    field(
        "a chain that is too long",
        b"X-Async-Depth: 101\r\n",
        508,
        "101 calls came before this one in its chain (X-Async-Depth); max_chain_depth of the \
         gateway is 100",
    ),
    field(
        "a callback of another scheme",
        b"X-Callback-Url: ftp://h/p\r\n",
        400,
        "its scheme is `ftp`",
    ),
    field(
        "a callback of another scheme",
        b"X-Callback-Url: javascript:alert(1)\r\n",
        400,
        "its scheme is `javascript`",
    ),
    field(
        "a callback that is no URL",
        b"X-Callback-Url: ht tp://h\r\n",
        400,
        "write it as http://host/path",
    ),
    field(
        "a callback without a host",
        b"X-Callback-Url: http://\r\n",
        400,
        "write it as http://host/path",
    ),
    field(
        "two callbacks",
        b"X-Callback-Url: http://a\r\nX-Callback-Url: http://b\r\n",
        400,
        "X-Callback-Url is given more than once",
    ),
    field("a second host", b"Host: other\r\n", 400, "Host is given more than once: send it once"),
    field("a header that is too long", "X-Long: ⟨70000 x⟩\r\n".as_bytes(), 431, ""),
    field("too many headers", "⟨150 X-Many: 1\r\n⟩".as_bytes(), 431, ""),
    field("a header without a name", b": 1\r\n", 400, ""),
    field("a control character in a header", b"X-Bad: a\x01b\r\n", 400, ""),
    raw("two lengths", b"Content-Length: 2\r\nContent-Length: 3\r\n", "hi", 400),
    raw("an invalid length", b"Content-Length: +2\r\n", "hi", 400),
    raw("a space before the colon", b"Content-Length : 2\r\n", "hi", 400),
    raw("a folded header", b"X-Folded: a\r\n b\r\n", "hi", 400),
    raw(
        "a coding that ends nowhere",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "hi",
        400,
    ),
    raw("a coding that is not chunked", b"Transfer-Encoding: gzip\r\n", "hi", 400),
    Request {
        says: "failed to read the body",
        ..raw("a chunk of no size", b"Transfer-Encoding: chunked\r\n", "nonsense\r\n", 400)
    },
    Request {
        says: "larger than the limit of 1024 bytes, set by max_payload of the gateway",
        ..raw("a body that says that it is too large", b"Content-Length: 1025\r\n", "", 413)
    },
    Request {
        says: "larger than the limit of 1024 bytes, set by max_payload of the gateway",
        ..raw(
            "a body that grows too large",
            b"Transfer-Encoding: chunked\r\n",
            "500\r\n⟨1280 x⟩\r\n0\r\n\r\n",
            413,
        )
    },
    Request {
        says: "the body did not arrive within 300ms",
        ..raw("a body that does not come", b"Content-Length: 10\r\n", "half", 408)
    },
];

/// What takes more than a row.
pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        input: "a function in a namespace that is not listed and has no function in the directory: \
                `/function/f.monitoring`, `/async-function/f.monitoring`",
        answer: "403: functions in the namespace `monitoring` are not called: add it to the \
                 setting function_namespaces",
        folder: "tests/nats",
        test: "functions_of_other_namespaces_are_not_reached",
    },
    Elsewhere {
        input: "a function in `kube-system`, `kube-public`, `kube-node-lease` or the gateway's own \
                namespace",
        answer: "403: functions in the namespace `…` are never called",
        folder: "tests/nats",
        test: "functions_of_the_platform_are_never_reached",
    },
    Elsewhere {
        input: "a request that leads back to the gateway: `/function/self/function/self/…`",
        answer: "508: the request has passed through this gateway 10 times (Via); \
                 max_hops of the gateway is 10",
        folder: "tests/nats",
        test: "a_request_that_nests_the_gateway_ends_early",
    },
    Elsewhere {
        input: "`Via` with 10 entries of this gateway",
        answer: "508: the request has passed through this gateway 10 times",
        folder: "tests/nats",
        test: "a_chain_of_functions_is_bounded_by_via",
    },
    Elsewhere {
        input: "headers of NATS (`Nats-Rollup: all`)",
        answer: "202: headers of the call like any other, and none of the message",
        folder: "tests/nats",
        test: "a_call_is_answered_202_with_an_empty_body_and_stored_as_it_came",
    },
    Elsewhere {
        input: "an `Idempotency-Key` that belongs to another call of the function",
        answer: "422: method, path, query, X-Callback-Url or body differ",
        folder: "tests/nats",
        test: "a_reused_key_is_refused_with_the_remedy",
    },
    Elsewhere {
        input: "an `X-Call-Id` that belongs to another call",
        answer: "202: calls may share an id",
        folder: "tests/nats",
        test: "calls_that_share_an_id_are_calls_of_their_own",
    },
    Elsewhere {
        input: "body and headers larger than NATS or the stream takes",
        answer: "413, with the limit and whose it is",
        folder: "tests/nats",
        test: "too_large_headers_are_a_client_error",
    },
    Elsewhere {
        input: "headers larger than 64 KiB, escapes included",
        answer: "413: the most that NATS stores",
        folder: "tests/nats",
        test: "a_call_no_dead_letter_could_hold_is_refused",
    },
    Elsewhere {
        input: "path, query and `X-Callback-Url` larger than a dead letter has room for",
        answer: "413, with the limit",
        folder: "tests/nats",
        test: "a_call_no_dead_letter_could_hold_is_refused",
    },
    Elsewhere {
        input: "a client that goes away in the middle of its body",
        answer: "nothing is stored",
        folder: "tests/nats",
        test: "interrupted_request_stores_nothing",
    },
];

/// The rows of the document.
pub(super) fn rows() -> Vec<[String; 2]> {
    let row = |request: &Request| {
        let shown = if request.line == POST {
            let lines = match str::from_utf8(request.fields) {
                Ok(text) => text.trim_end().replace("\r\n", "; "),
                Err(_) => request.fields.trim_ascii_end().escape_ascii().to_string(),
            };
            lines.replace('\x01', "\\x01")
        } else {
            request.line.to_owned()
        };
        // White space and quotes would not be seen.
        let shown = if shown.contains(['\u{a0}', '\u{3000}']) {
            String::new()
        } else {
            format!(": {}", code(&shown))
        };
        let says =
            if request.says.is_empty() { String::new() } else { format!(": {}", request.says) };
        [format!("{}{shown}", request.what), format!("{}{says}", request.status)]
    };
    REQUESTS.iter().map(row).collect()
}
