//! Reads files and the standard input.

use std::{
    io::{self, Read},
    path::Path,
};

use anyhow::Context;
use bytes::Bytes;

/// The name of the standard input.
const STDIN: &str = "-";

/// Reads a file, or the standard input if its name is `-`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Bytes> {
    let mut content = Vec::new();
    if path.as_os_str() == STDIN {
        io::stdin().read_to_end(&mut content).context("failed to read the standard input")?;
    } else {
        content = std::fs::read(path)
            .with_context(|| format!("failed to read the file `{}`", path.display()))?;
    }
    Ok(content.into())
}
