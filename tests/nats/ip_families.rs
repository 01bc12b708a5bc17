//! All programs where there is no IPv4, and where there is no IPv6: in network namespaces of their
//! own, which take root.

use std::{io::Write, net::SocketAddr, process::Command, time::Duration};

use tempfile::NamedTempFile;
use test_support::{
    http::{HttpServer, Received, respond, respond_after},
    loopback,
    nats::NatsServer,
    program::{self, Program},
    raw::{self, RawResponse},
    wait::until,
};

use crate::support::start_operator;

/// A network namespace, deleted when this is dropped.
struct Namespace(String);

impl Namespace {
    /// One with a loopback interface alone, after these commands of `ip` and `sysctl`. `None`
    /// without root, which is said.
    fn create(name: &str, commands: &[&str]) -> Option<Self> {
        let name = format!("asyncqueue-{name}-{}", std::process::id());
        let id = Command::new("id").arg("--user").output().unwrap();
        if id.stdout != b"0\n" {
            println!("NOT CHECKED: a network namespace needs root");
            return None;
        }
        let namespace = Self(name);
        run(Command::new("ip").args(["netns", "add", &namespace.0]));
        for command in commands {
            run(namespace.command("sh").args(["-c", command]));
        }
        Some(namespace)
    }

    /// A program in it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Runs the test below in it, on this address.
    async fn runs(&self, address: &str) {
        let test = std::env::current_exe().unwrap();
        let mut command = self.command(test.to_str().unwrap());
        command.args(["--exact", "ip_families::calls_run_on_the_default_listeners"]);
        command.args(["--ignored", "--nocapture"]).env(loopback::VARIABLE, address);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "on {address}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may never have come to be.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn all_programs_work_without_ipv4() {
    let commands = ["ip link set lo up", "ip addr del 127.0.0.1/8 dev lo"];
    let Some(namespace) = Namespace::create("ipv6", &commands) else { return };
    // No address of IPv4 is left.
    let addresses = namespace.command("ip").args(["-4", "addr"]).output().unwrap();
    assert!(addresses.status.success() && addresses.stdout.is_empty());
    namespace.runs("::1").await;
}

#[tokio::test]
async fn all_programs_work_without_ipv6() {
    let commands = ["sysctl -qw net.ipv6.conf.all.disable_ipv6=1", "ip link set lo up"];
    let Some(namespace) = Namespace::create("ipv4", &commands) else { return };
    let addresses = namespace.command("ip").args(["-6", "addr"]).output().unwrap();
    assert!(addresses.status.success() && addresses.stdout.is_empty());
    namespace.runs("127.0.0.1").await;
}

async fn call(port: u16, method: &str, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    raw::request(loopback::at(port), method, target, headers, b"hi").await
}

/// Waits until a program is ready.
async fn is_ready(port: u16) {
    until(&format!("port {port} is ready"), async || {
        let answer = raw::try_request(loopback::at(port), "GET", "/readyz", &[], b"").await.ok()?;
        println!("{port}: {} {}", answer.status, answer.text());
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A function that is slow where the body of its path says so.
async fn function() -> HttpServer {
    HttpServer::answering(|received: Received| {
        let time =
            if received.target.contains("slow") { Duration::from_secs(60) } else { Duration::ZERO };
        if time.is_zero() { respond(200, "ok") } else { respond_after(time, 200, "late") }
    })
    .await
}

/// Not on its own: the ports of the default listeners may be taken.
#[tokio::test]
#[ignore = "it runs in network namespaces, by the tests above"]
async fn calls_run_on_the_default_listeners() {
    let (ip, nats) = (loopback::ip(), NatsServer::start().await);
    let (function, receiver) = (function().await, HttpServer::start().await);
    let mut directory = NamedTempFile::with_suffix(".yaml").unwrap();
    let entry = format!("{{queue: jobs, url: \"{}\"}}", function.url());
    write!(directory, "queues: {{jobs: }}\nfunctions: {{figlet: {entry}}}").unwrap();
    let address: SocketAddr = nats.url().replace("nats://", "").parse().unwrap();
    let (nats_host, nats_port) = (ip.to_string(), address.port().to_string());
    let _gateway = Program::start(
        "asyncqueue-gateway",
        &[
            // An address of IPv6 as it is, without brackets.
            ("nats_host", &nats_host),
            ("nats_port", &nats_port),
            ("directory_file", directory.path().to_str().unwrap()),
            ("ensure_stream", "true"),
        ],
    );
    let gateway_url = format!("http://{}", loopback::at(8080));
    let _worker = Program::start(
        "asyncqueue-worker",
        &[
            ("nats_url", &nats.url()),
            ("queue_name", "jobs"),
            ("ensure_stream", "true"),
            ("gateway_url", &gateway_url),
            ("max_inflight", "2"),
            ("callback_allowed_hosts", &nats_host),
        ],
    );
    for port in [8080, 8082, 8081] {
        is_ready(port).await;
    }

    // Submitted, run through the gateway, and called back.
    let callback = format!("{}/callback", receiver.url());
    let answer =
        call(8080, "POST", "/async-function/figlet/path", &[("x-callback-url", &callback)]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(receiver.receives(1).await[0].header("x-call-id"), answer.header("x-call-id"));
    let first = function.received().remove(0);
    assert_eq!(
        (first.target.as_str(), first.header("x-call-id")),
        ("/path", answer.header("x-call-id"))
    );
    // The address of the client, and not that of a mapping.
    assert_eq!(call(8080, "GET", "/function/figlet", &[]).await.status, 200);
    assert_eq!(function.receives(2).await[1].header("x-forwarded-for"), ip.to_string());

    // Followed and cancelled.
    let slow = call(8080, "POST", "/async-function/figlet/slow", &[]).await;
    let (id, target) =
        (slow.header("x-call-id"), format!("/async-function/{}", slow.header("x-call-id")));
    until("the call runs", async || {
        (call(8080, "GET", &target, &[]).await.json()["state"] == "running").then_some(())
    })
    .await;
    let queues = program::run("kubectl-aq", &["queues"], &[("nats_url", &nats.url())]).await;
    assert!(queues.code == Some(0) && queues.text().contains("jobs"), "{}", queues.stderr);
    let status = program::run("kubectl-aq", &["status", id], &[("nats_url", &nats.url())]).await;
    assert!(status.text().contains("running"), "{} {}", status.text(), status.stderr);
    assert_eq!(call(8080, "DELETE", &target, &[]).await.status, 202);
    until("the call was cut off", async || (function.running() == 0).then_some(())).await;

    operator_listens(&nats).await;
}

/// The operator listens, and waits for its API server, which is not there.
async fn operator_listens(nats: &NatsServer) {
    let api_server = format!("http://{}", loopback::at(1));
    let (operator, _kubeconfig) = start_operator(&api_server, &[("nats_url", &nats.url())]);
    operator.logged("connected to NATS").await;
    until("the operator answers", async || {
        let answer =
            raw::try_request(loopback::at(8083), "GET", "/healthz", &[], b"").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}
