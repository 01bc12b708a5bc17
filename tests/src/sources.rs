//! What the sources of this project hold, for tables that name it.

use std::path::Path;

/// Whether a folder of this project, or one in it, has the source of a test.
#[must_use]
pub fn has_test(folder: &str, name: &str) -> bool {
    has_definition(&crate::cluster::repository().join(folder), &format!("fn {name}("))
}

fn has_definition(folder: &Path, definition: &str) -> bool {
    let has = |path: &Path| std::fs::read_to_string(path).is_ok_and(|source| source.contains(definition));
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { has_definition(&path, definition) } else { has(&path) }
    })
}
