//! What ships names this version, and no placeholder.

use std::{fs, path::Path};

use test_support::{cluster::repository, documents::read};

/// The version of the workspace in Cargo.toml: the one source of all others.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folders and files that ship, or that users read.
const SHIPPED: [&str; 8] = [
    "Dockerfile",
    "README.md",
    "build",
    "crds",
    "docs",
    "examples",
    "manifests",
    ".github/workflows",
];

/// What precedes the version of this project, wherever it is named.
const BEFORE_VERSION: [&str; 7] = [
    "asyncqueue:",
    "asyncqueue-example-function:",
    "newTag: ",
    "image.tag=",
    "releases/download/v",
    "?ref=v",
    "asyncqueue-",
];

#[test]
fn every_named_version_is_the_workspace_version() {
    let mut found = 0;
    for (path, text) in shipped() {
        for (number, line) in text.lines().enumerate() {
            for named in BEFORE_VERSION.iter().flat_map(|before| versions_after(line, before)) {
                found += 1;
                assert_eq!(named, VERSION, "{path}:{}: {line}", number + 1);
            }
        }
    }
    assert!(found > 10, "versions are looked for in the wrong places: {found} found");
}

#[test]
fn charts_have_the_workspace_version() {
    for chart in ["helm", "helm-queue-worker"] {
        let text = read(&format!("manifests/{chart}/Chart.yaml"));
        let chart_yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(chart_yaml["version"], VERSION, "version of {chart}");
        assert_eq!(chart_yaml["appVersion"], VERSION, "appVersion of {chart}");
    }
}

#[test]
fn nothing_that_ships_has_a_placeholder() {
    for (path, text) in shipped() {
        for placeholder in ["github.com/you/", ":latest", "tag: latest", "newTag: latest"] {
            assert!(!text.contains(placeholder), "{path} says {placeholder}");
        }
    }
}

/// The versions that follow this text in a line.
fn versions_after<'a>(line: &'a str, before: &str) -> Vec<&'a str> {
    let of_version = |character: char| character.is_ascii_digit() || character == '.';
    line.match_indices(before)
        .map(|(start, _)| &line[start + before.len()..])
        .map(|rest| rest.split(|character| !of_version(character)).next().unwrap_or_default())
        .map(|version| version.trim_end_matches('.'))
        .filter(|version| version.split('.').count() == 3)
        .collect()
}

/// The path and the text of each file that ships.
fn shipped() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for path in SHIPPED {
        read_all(&repository().join(path), &mut files);
    }
    files
}

fn read_all(path: &Path, files: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_all(&entry.unwrap().path(), files);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        // A picture has no text.
        let path = path.strip_prefix(repository()).unwrap_or(path);
        files.push((path.display().to_string(), text));
    }
}
