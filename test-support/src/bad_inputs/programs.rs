//! Settings, files and arguments of the programs.

use super::{Elsewhere, code};

/// A setting that a program can't use.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The program.
    pub program: &'static str,
    /// The setting, as an environment variable.
    pub name: &'static str,
    /// Its value.
    pub value: &'static str,
    /// The exit code: 2 for a value that is wrong on its own, 1 for what shows when it is used.
    pub code: i32,
    /// What it says in addition to the setting's name.
    pub says: &'static str,
}

const WORKER: &str = "asyncqueue-worker";
const GATEWAY: &str = "asyncqueue-gateway";
const OPERATOR: &str = "asyncqueue-operator";
const CONSOLE: &str = "asyncqueue-console";

const fn wrong(
    program: &'static str,
    name: &'static str,
    value: &'static str,
    says: &'static str,
) -> Setting {
    Setting { program, name, value, code: 2, says }
}

const fn fails(
    program: &'static str,
    name: &'static str,
    value: &'static str,
    says: &'static str,
) -> Setting {
    Setting { program, name, value, code: 1, says }
}

/// The settings.
pub const SETTINGS: &[Setting] = &[
    wrong(WORKER, "max_inflight", "0", "1..=10000"),
    wrong(WORKER, "concurrency", "0", "use a number from 1 to 1000000, or leave it out"),
    wrong(WORKER, "rate_per_second", "0.5", "use a number from 1 to 100000, or leave it out"),
    wrong(WORKER, "rate_burst", "0", "use a number from 1 to 100000, or leave it out"),
    wrong(WORKER, "function_max_inflight", "0", "use a number from 1 to 1000000, or leave it out"),
    wrong(
        WORKER,
        "upstream_timeout",
        "15",
        "`15` is not a duration: a number needs a unit; write it as 200ms, 90s",
    ),
    wrong(WORKER, "upstream_timeout", "0s", "it must be more than 0"),
    wrong(WORKER, "max_age", "0s", "it must be more than 0"),
    wrong(WORKER, "ack_wait", "-1s", "`-1s` is not a duration"),
    wrong(WORKER, "max_retry_attempts", "0", "0 is not in 1.."),
    wrong(
        WORKER,
        "max_retry_wait",
        "99999999h",
        "`99999999h` is not a duration: it is longer than 10 years",
    ),
    wrong(WORKER, "retry_http_codes", "200,abc", "must be HTTP statuses from 100 to 599"),
    wrong(WORKER, "backoff", "linear", "[possible values: exponential, static]"),
    wrong(WORKER, "fairness", "random", "[possible values: fifo, function]"),
    wrong(
        WORKER,
        "queue_name",
        "Slow",
        "queue name `Slow` is not valid: use 1 to 40 of a-z, 0-9, - and _",
    ),
    wrong(WORKER, "nats_stream", "a.b", "stream `a.b` is not valid"),
    wrong(WORKER, "nats_subject", "a.>", "subject `a.>` is not valid"),
    wrong(WORKER, "function_namespace", "a.b", "function namespace `a.b` is not valid"),
    wrong(WORKER, "function_namespaces", "dev,a b", "function namespace `a b` is not valid"),
    wrong(WORKER, "function_namespaces", "kube-system", "`kube-system` are never called"),
    wrong(
        WORKER,
        "function_url",
        "https://{function}",
        "workers call functions and gateways without TLS",
    ),
    wrong(WORKER, "gateway_url", "gateway:8080", "write it as http://host:port"),
    wrong(
        WORKER,
        "callback_allowed_hosts",
        "10.0.0.0/99",
        "`10.0.0.0/99` is not a host, *.suffix, an IP address",
    ),
    fails(WORKER, "callback_signing_secret_file", "/nowhere", "`/nowhere` can't be read"),
    fails(WORKER, "callback_ca_file", "/nowhere", "`/nowhere` can't be read"),
    fails(
        WORKER,
        "callback_ca_file",
        "/dev/null",
        "`/dev/null` is not valid: it holds no certificate in PEM",
    ),
    wrong(
        WORKER,
        "max_response_bytes",
        "16MB",
        "`16MB` is not a size in bytes; write it as 262144, 256Ki or 1Mi",
    ),
    wrong(WORKER, "max_connection_age", "30", "`30` is not a duration: a number needs a unit"),
    wrong(WORKER, "max_connection_requests", "0", "0 is not in 1.."),
    wrong(WORKER, "memory_budget", "1Mi", "it must be at least 16Mi"),
    wrong(WORKER, "http_addr", "8081", "invalid socket address syntax"),
    wrong(WORKER, "tls_insecure", "maybe", "use true or false (or 1 or 0)"),
    wrong(WORKER, "nats_port", "99999", "99999 is not in 0..=65535"),
    wrong(WORKER, "log_encoding", "xml", "[possible values: console, json]"),
    wrong(WORKER, "RUST_LOG", "a=b=c", "set by RUST_LOG"),
    wrong(GATEWAY, "nats_url", "http://h", "is not valid"),
    wrong(GATEWAY, "default_queue", "a.b", "queue name `a.b` is not valid"),
    wrong(GATEWAY, "function_namespace", "a b", "function namespace `a b` is not valid"),
    wrong(GATEWAY, "function_namespaces", "*,kube-public", "`kube-public` are never called"),
    wrong(GATEWAY, "upstream_url", "gateway:8080", "write it as http://host:port"),
    wrong(GATEWAY, "function_url", "{function}:8080", "write it as http://host:port"),
    wrong(GATEWAY, "unknown_function", "maybe", "[possible values: accept, reject]"),
    wrong(GATEWAY, "max_payload", "0", "it must be more than 0"),
    wrong(GATEWAY, "memory_budget", "1Mi", "it must be at least 16Mi"),
    wrong(GATEWAY, "max_connections", "many", "use a number of at least 1, or leave it out"),
    fails(
        GATEWAY,
        "max_connections",
        "4000000000",
        "max_connections `4000000000` does not fit into memory_budget",
    ),
    wrong(GATEWAY, "max_header_bytes", "4Ki", "it must be from 8Ki to 1Mi"),
    wrong(GATEWAY, "publish_timeout", "0s", "it must be more than 0"),
    wrong(GATEWAY, "cancel_timeout", "0s", "it must be more than 0"),
    wrong(GATEWAY, "max_publishing", "0", "0 is not in 1..=1000000"),
    wrong(GATEWAY, "max_wait", "0s", "it must be more than 0"),
    wrong(GATEWAY, "max_wait", "60", "`60` is not a duration: a number needs a unit"),
    wrong(GATEWAY, "max_waits", "0", "0 is not in 1..=1000000"),
    wrong(GATEWAY, "max_connection_age", "0s", "it must be more than 0"),
    wrong(GATEWAY, "max_connection_requests", "many", "invalid digit found in string"),
    wrong(GATEWAY, "max_chain_depth", "many", "invalid digit found in string"),
    wrong(GATEWAY, "max_hops", "0", "0 is not in 1..=100"),
    fails(GATEWAY, "http_addr", "192.0.2.1:80", "Cannot assign requested address"),
    fails(GATEWAY, "directory_file", "/nowhere", "failed to read directory_file `/nowhere`"),
    wrong(
        OPERATOR,
        "leader_elect",
        "true",
        "the namespace of the Lease is not known: set POD_NAMESPACE",
    ),
    wrong(OPERATOR, "default_queue_max_inflight", "0", "use a number from 1 to 10000"),
    wrong(OPERATOR, "default_queue_timeout", "25h", "use a duration more than 0s, at most 24h"),
    wrong(OPERATOR, "default_queue_ack_wait", "0s", "use a duration from 1s to 1h"),
    wrong(OPERATOR, "default_queue_spec", "maxInflight: 5", "write it as a JSON object"),
    wrong(
        OPERATOR,
        "default_queue_spec",
        r#"{"maxInflight":"five"}"#,
        "it is not a part of an AsyncQueue's spec",
    ),
    wrong(OPERATOR, "max_lanes_per_queue", "99", "use a number from 1 to 98"),
    wrong(OPERATOR, "max_lanes", "0", "use a number from 1 to 100000"),
    wrong(OPERATOR, "max_lanes_replicated", "many", "use a number from 1 to 100000"),
    wrong(OPERATOR, "worker_user_id", "0", "use a number from 1, since workers never run as root"),
    wrong(OPERATOR, "worker_nats_tls_cert_secret", "nats", "write it as NAME/KEY"),
    wrong(OPERATOR, "default_queue", "Slow", "queue name `Slow` is not valid"),
    wrong(
        OPERATOR,
        "gateway_url",
        "https://gateway",
        "workers call functions and gateways without TLS",
    ),
    wrong(OPERATOR, "function_namespace", "a.b", "function namespace `a.b` is not valid"),
    wrong(
        OPERATOR,
        "allowed_streams",
        "orders.>",
        "`orders.>` is not valid: write names of streams",
    ),
    wrong(OPERATOR, "function_namespaces", "Kube-System", "`Kube-System` are never called"),
    wrong(OPERATOR, "POD_IP", "operator-0", "invalid IP address syntax"),
    wrong(CONSOLE, "http_addr", "0.0.0.0:8084", "set auth_file, auth_header with trusted_proxies"),
    wrong(CONSOLE, "auth_header", "x-user", "auth_header needs trusted_proxies"),
    wrong(CONSOLE, "auth_header", "x user", "invalid HTTP header name"),
    wrong(CONSOLE, "trusted_proxies", "ingress", "`ingress` is not an IP address or network"),
    wrong(CONSOLE, "show_payloads", "maybe", "use true or false (or 1 or 0)"),
    wrong(CONSOLE, "actions", "yes", "use true, false or a list of namespaces"),
    wrong(CONSOLE, "actions", "kube-system", "`kube-system` are never called"),
    wrong(CONSOLE, "sample_interval", "0s", "it must be more than 0"),
    fails(CONSOLE, "auth_file", "/nowhere", "`/nowhere` can't be read"),
    fails(CONSOLE, "auth_file", "/dev/null", "`/dev/null` is not valid: it has no users"),
];

/// What takes more than a row.
pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        input: "a setting that is empty, where one may be absent",
        answer: "as if it were not set",
        folder: "runtime",
        test: "an_empty_setting_is_an_absent_one",
    },
    Elsewhere {
        input: "credentials that NATS does not take",
        answer: "the program waits, is not ready, and says so",
        folder: "tests/nats",
        test: "a_worker_without_credentials_is_not_let_in_and_says_so",
    },
    Elsewhere {
        input: "operator: `GET /depth/NAMESPACE/QUEUE` for a queue that does not exist",
        answer: "404: there is no AsyncQueue `QUEUE` in the namespace `NAMESPACE`, or the operator \
                 does not watch that namespace",
        folder: "tests/nats",
        test: "an_unknown_queue_has_no_depth",
    },
    Elsewhere {
        input: "operator: the same while NATS is unavailable",
        answer: "503: the calls of the queue were last counted so long ago, which is too long",
        folder: "tests/nats",
        test: "an_outdated_depth_is_not_given",
    },
];

/// A directory file that can't be used.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryFile {
    /// Its text.
    pub yaml: &'static str,
    /// What the gateway says of it.
    pub says: &'static [&'static str],
}

const fn file(yaml: &'static str, says: &'static [&'static str]) -> DirectoryFile {
    DirectoryFile { yaml, says }
}

/// The files.
pub const DIRECTORY_FILES: &[DirectoryFile] = &[
    file("queues: [", &["line 1"]),
    file("function: {}", &["line 1", "function"]),
    file("queues: {Slow: {}}", &["line 1", "queue name `Slow` is not valid"]),
    file("queues: {a: {streams: x}}", &["line 1", "streams"]),
    file("queues: {a: {stream: a.b}}", &["queues.a: stream `a.b` is not valid"]),
    file("queues: {a: {subject: a.>}}", &["queues.a: subject `a.>` is not valid"]),
    file("queues: {a: {}, a: {}}", &["line 1", "duplicate"]),
    file(
        "queues: {a: {fairness: random}}",
        &["line 1", "unknown variant `random`, expected one of Fifo, Function"],
    ),
    file("functions: {a.b.c: {}}", &["line 1", "function name `a.b` is not valid"]),
    file(
        "functions: {dns.kube-system: {}}",
        &["line 1", "functions.dns.kube-system", "never called"],
    ),
    file(
        "functions: {a: {queue: lost}}",
        &["line 1", "functions.a.queue `lost` is not listed in queues: add it there"],
    ),
    file("functions: {a: {url: h}}", &["line 1", "functions.a.url `h` is not valid"]),
    file(
        "functions: {a: {}, a.openfaas-fn: {}}",
        &["line 1", "is listed twice, with and without its namespace"],
    ),
    file(
        "functions: {a: {url: \"https://h\"}}",
        &["line 1", "functions.a.url `https://h`", "without TLS"],
    ),
    file(
        "functions: {a: {limits: {weight: 101}}}",
        &["line 1", "functions.a.limits.weight `101` is not valid: use 1 to 100"],
    ),
    file(
        "functions: {a: {limits: {weight: 2}}}",
        &["line 1", "functions.a.limits need `fairness: Function` in queues.faas-request"],
    ),
    file(
        "functions: {a: {retry: {attempts: 0}}}",
        &["line 1", "functions.a.retry.attempts `0` is not valid: use 1 to 1000"],
    ),
    file(
        "functions: {a: {retry: {maxWait: 25h}}}",
        &["line 1", "functions.a.retry.maxWait `25h` is not valid"],
    ),
    file(
        "functions: {a: {retry: {minWait: 2m, maxWait: 1m}}}",
        &["line 1", "functions.a.retry.minWait `2m` is more than maxWait `1m`"],
    ),
    file(
        "functions: {a: {retry: {codes: [99]}}}",
        &["line 1", "functions.a.retry.codes: `99` is no status of HTTP: use 100 to 599"],
    ),
    file(
        "functions: {a: {retry: {minWait: 10}}}",
        &["line 1", "functions.a.retry.minWait `10` is not valid"],
    ),
    file(
        "queues: {asyncqueue: {}}",
        &["queues.asyncqueue: queue name `asyncqueue` is reserved", "subject of its own"],
    ),
    file(
        "queues: {slow_queue: {}}",
        &["line 1", "queue name `slow_queue` is not valid: use 1 to 40 of a-z, 0-9 and -"],
    ),
    file(
        "queues: {a: {}, a-dead: {}}",
        &["queues.a and queues.a-dead both use the stream `a-dead`"],
    ),
    file(
        "queues: {a: {}, b: {subject: a.b}}",
        &["queues.a and queues.b have the subjects `a` and `a.b`, which overlap"],
    ),
];

/// What takes more than a row.
pub const DIRECTORY_ELSEWHERE: &[Elsewhere] = &[Elsewhere {
    input: "any of these in a file that was valid before",
    answer: "the gateway goes on with what it knew; log and `gateway_directory_file_valid` say so",
    folder: "tests/nats",
    test: "invalid_directory_file_keeps_the_last_valid_one",
}];

/// Arguments of `kubectl aq` that do not do.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// The arguments.
    pub arguments: &'static [&'static str],
    /// The exit code: 2 where they are wrong, 1 where there is no such thing.
    pub code: i32,
    /// What it says.
    pub says: &'static str,
}

const fn aq(arguments: &'static [&'static str], code: i32, says: &'static str) -> Arguments {
    Arguments { arguments, code, says }
}

/// The arguments.
pub const ARGUMENTS: &[Arguments] = &[
    aq(
        &["dead", "list", "nope"],
        1,
        "queue `nope` has no dead letters: there is no stream `nope-dead`",
    ),
    aq(
        &["dead", "show", "jobs", "nope"],
        1,
        "no dead letter of call `nope`: `kubectl aq dead list jobs`",
    ),
    aq(&["dead", "replay", "jobs", "nope"], 1, "no dead letter of call `nope`"),
    aq(&["cancel", "nope", "id"], 1, "there is no queue `nope`: `kubectl aq queues`"),
    aq(&["cancel", "jobs", "nope"], 1, "call `nope`"),
    aq(&["status", "nope"], 1, "call `nope`"),
    aq(&["cancel", "jobs", "a.b"], 2, "call id `a.b` is not valid"),
    aq(&["cancel", "-", "id", "--batch", "b-1"], 2, "cannot be used with"),
    aq(&["cancel", "--batch", "nope"], 1, "batch `nope` not found"),
    aq(&["batch", "nope"], 1, "batch `nope` not found"),
    aq(&["batch", "b-1", "--submit", "nope"], 1, "failed to read the file `nope`"),
    aq(&["invoke", "a b"], 2, "function name `a b` is not valid"),
    aq(&["invoke", "f/a b"], 2, "path or query is not valid"),
    aq(&["invoke", "f", "--delay", "90"], 2, "X-Delay: `90` is not a duration"),
    aq(&["invoke", "f", "--header", "a"], 2, "write it as `Name: value`"),
    aq(&["invoke", "f", "--queue", "nope"], 1, "there is no queue `nope`"),
    aq(&["result", "nope"], 4, "call `nope` not found"),
    aq(&["result", "id", "--wait", "30"], 2, "`30` is not a duration"),
    aq(&["dead", "list", "Jobs"], 2, "queue name `Jobs` is not valid"),
    aq(&["dead", "list", "jobs", "--function", "a b"], 2, "function name `a b` is not valid"),
    aq(&["dead", "replay", "jobs"], 2, "--all"),
    aq(&["dead", "purge", "jobs", "id", "--all"], 2, "cannot be used with"),
    aq(&["queues", "--nats-url", "http://h"], 2, "nats_url is not valid"),
    aq(&["drain", "stan"], 2, "--stan-url"),
    aq(
        &["drain", "stan", "--stan-url", "nats://h", "--channel", "a.*"],
        2,
        "use a subject without wildcards",
    ),
    aq(
        &["drain", "stan", "--stan-url", "nats://h", "--cluster-id", "a.b"],
        2,
        "use one or more of A-Z, a-z, 0-9, - and _",
    ),
    aq(
        &["drain", "stan", "--stan-url", "nats://h", "--empty-after", "0s"],
        2,
        "it must be more than 0",
    ),
    aq(
        &["drain", "jetstream", "--stream", "nope"],
        1,
        "failed to open stream `nope`: check --stream",
    ),
    aq(
        &[
            "drain",
            "jetstream",
            "--stream",
            "jobs",
            "--default-queue",
            "jobs",
            "--max-inflight",
            "0",
        ],
        2,
        "1..=10000",
    ),
    aq(&["undo"], 2, "unrecognized subcommand 'undo'"),
];

/// The rows of the document.
pub(super) fn setting_rows() -> Vec<[String; 2]> {
    let row = |row: &Setting| {
        let program = row.program.trim_start_matches("asyncqueue-");
        [
            format!("{program}: {}", code(&format!("{}={}", row.name, row.value))),
            format!("{}: {}", row.code, row.says),
        ]
    };
    SETTINGS.iter().map(row).collect()
}

/// The rows of the document.
pub(super) fn directory_rows() -> Vec<[String; 2]> {
    DIRECTORY_FILES.iter().map(|row| [code(row.yaml), row.says.join(" … ")]).collect()
}

/// The rows of the document.
pub(super) fn argument_rows() -> Vec<[String; 2]> {
    ARGUMENTS
        .iter()
        .map(|row| [code(&row.arguments.join(" ")), format!("{}: {}", row.code, row.says)])
        .collect()
}
