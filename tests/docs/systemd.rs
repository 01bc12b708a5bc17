//! `examples/systemd`, without a systemd that runs: systemd's own checks, the settings, and a call
//! through the programs, started as the units say.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;
use test_support::{
    cluster::repository,
    documents::{read, section},
    loopback::free_port,
    program::{Program, folder},
    tools::{self, output},
};

use crate::contract::settings;

const GATEWAY: &str = "asyncqueue-gateway.service";
const WORKER: &str = "asyncqueue-worker@.service";
const NATS: &str = "asyncqueue-nats.service";

/// Maximum exposure that `systemd-analyze security` computes, in tenths. It calls 2.0 and less OK.
const MAX_EXPOSURE: &str = "--threshold=20";

fn example(name: &str) -> String {
    read(&format!("examples/systemd/{name}"))
}

/// The values of a setting of a unit.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
}

/// The environment that a unit sets, with the file that is its `EnvironmentFile`.
fn environment(unit: &str, file: &str) -> Vec<(String, String)> {
    let lines = values(unit, "Environment");
    let of_file = file.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    lines.into_iter().chain(of_file).filter_map(pair).collect()
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let _ = output(Command::new(repository().join("build/need")).arg("systemd-analyze"));
    let copies = TempDir::new().unwrap();
    let nats_server = tools::program("nats", "nats-server");
    for name in [GATEWAY, WORKER, NATS] {
        // systemd looks for the programs.
        let unit = example(name)
            .replace("/usr/local/bin/nats-server", nats_server.to_str().unwrap())
            .replace("/usr/local/bin", folder().to_str().unwrap());
        let copy = copies.path().join(name);
        fs::write(&copy, unit).unwrap();
    }
    // Together, since they name each other.
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no"])
        .args([GATEWAY, WORKER, NATS].map(|name| format!("./{name}")));
    let verified = verify.current_dir(copies.path()).output().unwrap();
    let complaints = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && complaints.is_empty(), "{complaints}");
    for name in [GATEWAY, WORKER, NATS] {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", MAX_EXPOSURE]).arg(name);
        let _ = output(security.current_dir(copies.path()));
    }
}

#[tokio::test]
async fn variables_of_systemd_units_are_settings_of_their_programs() {
    for (unit, program, file) in
        [(GATEWAY, "asyncqueue-gateway", ""), (WORKER, "asyncqueue-worker", "slow-queue.env")]
    {
        let known = settings(program).await;
        let file = if file.is_empty() { String::new() } else { example(file) };
        let set = environment(&example(unit), &file);
        assert!(set.len() > 5, "{set:?}");
        for (name, _) in set {
            assert!(known.contains(&name), "{unit}: {name} is no setting of {program}: {known:?}");
        }
    }
}

#[test]
fn files_of_systemd_units_are_installed_by_the_document() {
    let document = read("docs/faasd.md");
    let installed: BTreeSet<_> = document
        .split([' ', '\n', '`'])
        .filter_map(|word| {
            word.strip_prefix("examples/systemd/").or(word.strip_prefix("/etc/asyncqueue/"))
        })
        .collect();
    for unit in [GATEWAY, WORKER, NATS] {
        for word in example(unit).replace("%i", "slow-queue").split([':', '=', '\n']) {
            if let Some(file) = word.strip_prefix("/etc/asyncqueue/") {
                assert!(installed.contains(file), "{unit}: {file} is not in docs/faasd.md");
            }
        }
    }
    for entry in fs::read_dir(repository().join("examples/systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let row = format!("| [`{name}`](../examples/systemd/{name}) |");
        assert!(document.contains(&row), "{name} is not in docs/faasd.md");
    }
}

/// Types the commands that write the credentials, without sudo and into this folder.
fn write_credentials(into: &Path) {
    let document = read("docs/faasd.md");
    let lines = section(&document, "## As systemd services").lines();
    let commands: Vec<_> = lines
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with("password=") || line.starts_with("echo "))
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let script = commands.join("\n").replace("/etc/asyncqueue", into.to_str().unwrap());
    let _ = output(Command::new("bash").args(["-euc", &format!("sudo() {{ \"$@\"; }}\n{script}")]));
}

#[tokio::test]
async fn programs_run_a_call_with_the_environment_of_the_units() {
    let (etc, store) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let [nats_port, clients_port, faasd_port] = [free_port(), free_port(), free_port()];
    let (etc_path, store_path) = (etc.path().to_str().unwrap(), store.path().to_str().unwrap());
    let here = |text: &str| {
        text.replace("/etc/asyncqueue", etc_path)
            .replace("%d", etc_path)
            .replace("%i", "slow-queue")
            .replace(":4322", &format!(":{nats_port}"))
            .replace("port: 4322", &format!("port: {nats_port}"))
            .replace("[::]:8090", &format!("127.0.0.1:{clients_port}"))
            .replace(":8080", &format!(":{faasd_port}"))
            .replace(":8082", ":0")
            .replace(":8083", ":0")
    };
    write_credentials(etc.path());
    for file in ["nats.conf", "directory.yaml"] {
        fs::write(etc.path().join(file), here(&example(file))).unwrap();
    }

    let command = values(&example(NATS), "ExecStart").concat();
    let command = command.replace("${CREDENTIALS_DIRECTORY}", etc_path);
    let (program, arguments) = command.split_once(' ').unwrap();
    assert_eq!(program, "/usr/local/bin/nats-server");
    let mut nats = Command::new(tools::program("nats", "nats-server"));
    nats.args(arguments.split(' ')).env("STATE_DIRECTORY", store_path).stderr(Stdio::null());
    let _nats = Program::start_other("nats-server", &mut nats);
    let faasd_port = faasd_port.to_string();
    // What answers like a gateway stands for faasd's.
    let _faasd = Program::start(
        "asyncqueue-example-function",
        &[("address", "127.0.0.1"), ("port", &faasd_port)],
    );
    let start = |program: &'static str, unit: &str, file: &str| {
        assert_eq!(values(&example(unit), "ExecStart"), [format!("/usr/local/bin/{program}")]);
        let set = environment(&here(&example(unit)), &here(file));
        let set: Vec<_> = set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Program::start(program, &set)
    };
    let gateway = start("asyncqueue-gateway", GATEWAY, "");
    let worker = start("asyncqueue-worker", WORKER, &example("slow-queue.env"));
    gateway.logged("connected to NATS").await;

    let url = format!("http://127.0.0.1:{clients_port}/async-function/figlet");
    test_support::wait::until("a call is accepted", async || {
        let curl =
            ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--data", "hi"];
        let status = Command::new("curl").args(curl).arg(&url).output().unwrap().stdout;
        (status == b"202").then_some(())
    })
    .await;
    worker.logged("Invoked figlet [200]").await;
    assert!(
        fs::read_dir(store.path().join("jetstream")).is_ok(),
        "the store is the state directory"
    );
}
