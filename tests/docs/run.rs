//! Types what was planned into a shell.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use asyncqueue_tests::{
    cluster::{command, loaded_image, repository},
    tools::{self, output},
};
use tempfile::TempDir;

use crate::{
    documents::pieces_of,
    known::{SESSIONS, Session},
    plan::{Plan, plan},
};

/// What is installed comes back when this is dropped, whatever became of the test.
#[derive(Debug)]
pub(crate) struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        // Namespaces first: what goes into them can't be validated before they are there.
        for folder in ["manifests/namespaces", "manifests/standalone"] {
            try_run(
                Command::new(repository().join("tests/cluster/apply")).args([folder, "--force-conflicts"]),
            );
        }
        for workload in
            ["statefulset/nats", "deployment/asyncqueue-operator", "deployment/asyncqueue-gateway"]
        {
            try_run(command("kubectl").args(["rollout", "status", workload]).args(IN_TIME));
        }
        for what in ["--for=create", "--for=condition=Ready"] {
            try_run(command("kubectl").args(["wait", what, "asyncqueue/faas-request"]).args(IN_TIME));
        }
    }
}

/// Of what takes its time in a namespace.
const IN_TIME: [&str; 2] = ["--namespace=openfaas", "--timeout=180s"];

/// Runs a command, and says so if it fails: a test that has failed already is not to fail otherwise.
fn try_run(command: &mut Command) {
    let status = command.current_dir(repository()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("failed: {command:?}");
    }
}

/// Types the commands of all documents of a session, each into a shell of its own.
pub(crate) fn documents(session: Session) {
    for (document, _) in SESSIONS.iter().filter(|(_, of)| *of == session) {
        let begun = Instant::now();
        println!("\n== {document}");
        type_in(document, session);
        println!("\n== {document}: {:.0} s", begun.elapsed().as_secs_f64());
    }
}

fn type_in(document: &str, session: Session) {
    let images = match session {
        Session::Cluster => ["asyncqueue", "asyncqueue-example-function"].map(tagged).to_vec(),
        Session::Alone => Vec::new(),
    };
    let Plan { files, steps, not_run } = plan(document, &pieces_of(document), &images);
    println!("{}", not_run.join("\n"));
    let folder = TempDir::with_prefix("asyncqueue-docs-").unwrap();
    if session == Session::Cluster {
        copy_project(folder.path(), &images);
    }
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(folder.path().join("steps"), steps).unwrap();

    let mode = match session {
        Session::Cluster => "cluster",
        Session::Alone => "alone",
    };
    let shell = repository().join("tests/docs/shell");
    let mut shell = match session {
        Session::Cluster => command(shell.to_str().unwrap()),
        Session::Alone => Command::new(shell),
    };
    let path = shell.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path?.to_str());
    let path = path.map_or_else(|| std::env::var("PATH").unwrap(), str::to_owned);
    let status = shell
        .args([mode, folder.path().to_str().unwrap()])
        .env("PATH", format!("{}:{path}", programs()))
        // Of the user's own machine.
        .env_remove("NATS_URL")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{document}: a command does not do what it shall, see above");
}

/// An image and its tag, as the cluster has it.
fn tagged(name: &'static str) -> (&'static str, String) {
    (name, loaded_image(name).rsplit_once(':').unwrap().1.to_owned())
}

/// The folders that hold the programs of this project, of NATS and its CLI.
fn programs() -> String {
    let own = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let tools =
        [("nats", "nats-server"), ("natscli", "nats")].map(|(group, name)| tools::program(group, name));
    let folders = tools.iter().map(|program| program.parent().unwrap()).chain([own.as_path()]);
    folders.map(|folder| folder.to_str().unwrap()).collect::<Vec<_>>().join(":")
}

/// Copies what a user has in a checkout, with the images as the cluster has them, and what the documents take for granted.
fn copy_project(into: &Path, images: &[(&str, String)]) {
    let around = repository().join("tests/docs/around");
    let folders = ["crds", "examples", "manifests"].map(|folder| repository().join(folder));
    let files = fs::read_dir(around).unwrap().map(|entry| entry.unwrap().path());
    let _ = output(Command::new("cp").arg("--recursive").args(folders).args(files).arg(into));
    let substitutions =
        images.iter().map(|(name, tag)| format!("--expression=s|image: {name}:latest|image: {name}:{tag}|"));
    let _ = output(
        Command::new("find")
            .arg(into)
            .args(["-name", "*.yaml", "-exec", "sed", "--in-place"])
            .args(substitutions)
            .args(["{}", "+"]),
    );
}
