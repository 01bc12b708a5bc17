//! The sources of this project's tests, for tables that name them.

use std::path::Path;

/// Panics if no file of the repository at this path, or in this folder, has a test of this name.
pub fn assert_has_test(path: &str, name: &str) {
    assert!(has_test(path, name), "{path} has no test {name}");
}

/// Returns whether a file of the repository, or one in a folder of it, has a test of this name.
#[must_use]
pub fn has_test(path: &str, name: &str) -> bool {
    contains(path, &format!("fn {name}("))
}

/// Returns whether a file of the repository, or one in a folder of it, contains this text.
#[must_use]
pub fn contains(path: &str, text: &str) -> bool {
    has(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path), text)
}

fn has(path: &Path, text: &str) -> bool {
    if path.is_dir() {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| has(&entry.path(), text))
    } else {
        std::fs::read_to_string(path).is_ok_and(|source| source.contains(text))
    }
}
