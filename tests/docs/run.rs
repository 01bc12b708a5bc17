//! Types what was planned into a shell.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;
use test_support::{
    cluster::{command, installation::remove_all, loaded_image, repository},
    tools::{self, output},
};

use crate::{
    documents::pieces_of,
    known::{SESSIONS, Session},
    plan::{Plan, plan},
};

/// The cluster without AsyncQueue. What is there instead is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Emptied;

impl Emptied {
    /// Removes AsyncQueue, the namespaces of OpenFaaS with it.
    pub(crate) fn of_asyncqueue() -> Self {
        remove_all();
        Self
    }
}

impl Drop for Emptied {
    fn drop(&mut self) {
        remove_all();
    }
}

/// The image of what stands for OpenFaaS's programs.
const OPENFAAS: &str = "openfaas";

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
    let mut images = Vec::new();
    if session.has_cluster() {
        images.extend(["asyncqueue", "asyncqueue-example-function"].map(tagged));
    }
    if session == Session::OpenFaas {
        let load = repository().join("tests/cluster/images/load");
        let _ = output(Command::new(load).arg(OPENFAAS));
        images.push(tagged(OPENFAAS));
    }
    let Plan { files, steps, not_run } = plan(document, &pieces_of(document), &images);
    println!("{}", not_run.join("\n"));
    let folder = TempDir::with_prefix("asyncqueue-docs-").unwrap();
    if session.has_cluster() {
        copy_project(folder.path(), &images);
    }
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::write(folder.path().join("steps"), steps).unwrap();

    let shell = repository().join("tests/docs/shell");
    let (mode, mut shell) = if session.has_cluster() {
        ("cluster", command(shell.to_str().unwrap()))
    } else {
        ("alone", Command::new(shell))
    };
    let path =
        shell.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path?.to_str());
    let path = path.map_or_else(|| std::env::var("PATH").unwrap(), str::to_owned);
    let status = shell
        .args([mode, folder.path().to_str().unwrap()])
        // What stands for faas-cli is in the folder.
        .env("PATH", format!("{}:{}:{path}", folder.path().display(), programs()))
        // Of the user's own machine.
        .env_remove("NATS_URL")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{document}: a command does not do what is expected, see above");
}

/// An image and its tag, as the cluster has it.
fn tagged(name: &'static str) -> (&'static str, String) {
    (name, loaded_image(name).rsplit_once(':').unwrap().1.to_owned())
}

/// The folders that hold the programs of this project, of NATS and its CLI.
fn programs() -> String {
    let own = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    let tools = [("nats", "nats-server"), ("natscli", "nats")]
        .map(|(group, name)| tools::program(group, name));
    let folders = tools.iter().map(|program| program.parent().unwrap()).chain([own.as_path()]);
    folders.map(|folder| folder.to_str().unwrap()).collect::<Vec<_>>().join(":")
}

/// Copies what a user has in a checkout, with the images as the cluster has them, and what the
/// documents take for granted.
fn copy_project(into: &Path, images: &[(&str, String)]) {
    let around = repository().join("tests/docs/around");
    let folders = ["crds", "examples", "manifests"].map(|folder| repository().join(folder));
    let files = fs::read_dir(around).unwrap().map(|entry| entry.unwrap().path());
    let _ = output(Command::new("cp").arg("--recursive").args(folders).args(files).arg(into));
    let substitutions = images.iter().map(|(name, tag)| {
        format!("--expression=s~\\b{name}:([0-9]+[.][0-9]+[.][0-9]+|latest)~{name}:{tag}~")
    });
    let _ = output(
        Command::new("find")
            .arg(into)
            .args(["-name", "*.yaml", "-exec", "sed", "--in-place", "--regexp-extended"])
            .args(substitutions)
            .args(["{}", "+"]),
    );
}
