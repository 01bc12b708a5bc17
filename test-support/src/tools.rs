//! The Go programs of `cluster/modules`, built if need be.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A program of a group, as the script `cluster/tools` names both.
#[must_use]
pub fn program(group: &'static str, name: &str) -> PathBuf {
    static FOLDERS: Mutex<BTreeMap<&str, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
    // While one group is built, tests that need another one go on.
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = folders.entry(group).or_default().clone();
    drop(folders);
    known.get_or_init(|| folder(group)).join(name)
}

/// Runs a program without input to its end and returns what it prints. A failure is a failure of
/// the test.
#[must_use]
pub fn output(command: &mut Command) -> String {
    output_of(command.stdin(Stdio::null()))
}

/// The same with the input that it was given.
#[must_use]
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

fn folder(group: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/tools");
    let folder = output(Command::new(tools).arg(group).stderr(Stdio::inherit()));
    folder.trim().into()
}
