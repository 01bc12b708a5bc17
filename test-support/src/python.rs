//! Python packages that tests use.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::tools;

/// The python that has the packages of `tests/FOLDER/requirements.txt`. They are installed if need
/// be; where they can't be, the test fails with what is missing.
#[must_use]
pub fn with_packages_of(folder: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let mut install = Command::new(tests.join("python-packages"));
    tools::output(install.arg(tests.join(folder)).stderr(Stdio::inherit())).trim().into()
}
