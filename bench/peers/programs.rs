//! What is built of the Go module `program/`, once in a run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use test_support::tools;

/// The client and the worker of the peers.
pub(crate) static PEERS: LazyLock<PathBuf> = LazyLock::new(|| build("peers", "."));
/// The server of Faktory, a tool of the module.
pub(crate) static FAKTORY: LazyLock<PathBuf> =
    LazyLock::new(|| build("faktory", "github.com/contribsys/faktory/cmd/faktory"));

fn build(name: &str, package: &str) -> PathBuf {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut go = Command::new("go");
    go.current_dir(bench.join("peers/program")).env("CGO_ENABLED", "0");
    let _ = tools::output(
        go.args(["build", "-mod=readonly", "-trimpath", "-o"]).arg(&program).arg(package),
    );
    program
}
