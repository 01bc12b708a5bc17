//! The environment and the output of a program: a variable that is wrong or misspelt, and a reader
//! that closes the output.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use test_support::{
    nats::NatsServer,
    program::{self, Program},
};

#[tokio::test]
async fn a_bad_variable_is_named_and_not_its_flag() {
    for (name, variable, value, flag) in [
        ("asyncqueue-worker", "max_inflight", "0", "--max-inflight"),
        ("asyncqueue-worker", "tls_insecure", "maybe", "--tls-insecure"),
        ("asyncqueue-gateway", "max_payload", "1MB", "--max-payload"),
        ("asyncqueue-gateway", "POD_NAMESPACE", "a b", "--pod-namespace"),
        ("asyncqueue-operator", "http_addr", "8083", "--http-addr"),
        ("kubectl-aq", "nats_port", "many", "--nats-port"),
    ] {
        let arguments: &[&str] = if name == "kubectl-aq" { &["queues"] } else { &[] };
        let ended = program::run(name, arguments, &[(variable, value)]).await;
        let named = format!("'{value}' for 'environment variable {variable}'");
        assert!(ended.code == Some(2) && ended.stderr.contains(&named), "{}", ended.stderr);
        assert!(!ended.stderr.contains(flag), "{}", ended.stderr);
        let by_flag = format!("{flag}={value}");
        let by_flag = [&[by_flag.as_str()], arguments].concat();
        let ended = program::run(name, &by_flag, &[]).await;
        assert!(ended.code == Some(2) && ended.stderr.contains(flag), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_reserved_name_is_refused_where_it_would_be_created() {
    for (name, variable, value) in [
        ("asyncqueue-worker", "queue_name", "asyncqueue"),
        ("asyncqueue-worker", "queue_name", "asyncqueue-reserve"),
        ("asyncqueue-worker", "nats_subject", "asyncqueue.stats"),
        ("asyncqueue-worker", "nats_stream", "KV_asyncqueue-directory"),
        ("asyncqueue-gateway", "default_queue", "asyncqueue"),
    ] {
        let settings = [("ensure_stream", "true"), (variable, value), ("http_addr", "127.0.0.1:0")];
        let ended = program::run(name, &[], &settings).await;
        assert!(ended.code == Some(2) && ended.stderr.contains(variable), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("`{value}` is reserved")), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_misspelt_variable_is_warned_about() {
    let nats = NatsServer::start().await;
    let url = nats.url();
    for (name, variable, meant) in [
        ("asyncqueue-worker", "GATEWAY_ULR", "gateway_url"),
        ("asyncqueue-gateway", "directory_flie", "directory_file"),
    ] {
        let settings = [
            ("nats_url", &*url),
            ("http_addr", "127.0.0.1:0"),
            ("metrics_addr", "127.0.0.1:0"),
            (variable, "x"),
            // As in a pod next to the Service `nats`, and on a laptop.
            ("NATS_PORT", "tcp://10.0.0.1:4222"),
            ("NATS_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/usr/bin"),
            ("HOME", "/root"),
        ];
        let program = Program::start(name, &settings);
        let line = program.logged(&format!("{variable} is not read: is {meant} meant?")).await;
        assert!(line.contains("WARN"), "{line}");
        program.logged("connected to NATS").await;
        // A setting that only the gateway has is not a misspelt one of the worker.
        let warned = program.log().iter().filter(|line| line.contains("is not read")).count();
        assert_eq!(warned, 1, "{:?}", program.log());
    }
}

#[test]
fn a_closed_output_ends_no_program_in_a_panic() {
    for (name, arguments) in
        [("asyncqueue-operator", &["crd"][..]), ("asyncqueue-worker", &["--help"])]
    {
        let mut child = Command::new(program::path(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 16]).unwrap();
        drop(stdout);
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.is_empty(), "{name}: {} {said}", ended.status);
    }
}
