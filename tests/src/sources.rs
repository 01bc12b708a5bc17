//! The sources of this project's tests, for tables that name them.

use std::path::Path;

/// Panics if a folder of the repository, or one in it, has no test of this name.
pub fn assert_has_test(folder: &str, name: &str) {
    assert!(has_test(folder, name), "{folder} has no test {name}");
}

/// Whether a folder of the repository, or one in it, has a test of this name.
#[must_use]
pub fn has_test(folder: &str, name: &str) -> bool {
    contains(folder, &format!("fn {name}("))
}

/// Whether a file in a folder of the repository, or in one below it, contains this text.
#[must_use]
pub fn contains(folder: &str, text: &str) -> bool {
    has(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), text)
}

fn has(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let is_here = || std::fs::read_to_string(&path).is_ok_and(|source| source.contains(text));
        if path.is_dir() { has(&path, text) } else { is_here() }
    })
}
