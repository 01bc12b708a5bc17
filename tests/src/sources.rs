//! The sources of this project's tests, for tables that name them.

use std::path::Path;

/// Panics if a folder of the repository, or one in it, has no test of this name.
pub fn assert_has_test(folder: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    assert!(has(&path, &format!("fn {name}(")), "{folder} has no test {name}");
}

fn has(folder: &Path, definition: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        let is_here = || std::fs::read_to_string(&path).is_ok_and(|source| source.contains(definition));
        if path.is_dir() { has(&path, definition) } else { is_here() }
    })
}
