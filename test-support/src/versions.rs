//! Programs of earlier commits, built if need be.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::tools::output;

/// The commit of the last version: a new version runs next to it, and can be rolled back to it.
pub const LAST: &str = "ca8017e";

/// The folder of gateway, worker and operator of a commit.
#[must_use]
pub fn folder(commit: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/versions/build");
    Path::new(output(Command::new(build).arg(commit).stderr(Stdio::inherit())).trim()).join("bin")
}
