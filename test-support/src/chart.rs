//! The value sets of the Helm chart, which are tested without a cluster and on it.

use std::{fs, path::PathBuf};

use crate::cluster::repository;

/// The end of their names, as the tool chart-testing requires it.
const SUFFIX: &str = "-values.yaml";

/// A file in `manifests/helm/ci`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example(PathBuf);

// === impl Example ===

impl Example {
    /// Returns all value sets, by name.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir(folder()).expect("the chart has value sets");
        let mut examples: Vec<_> =
            entries.map(|entry| Self(entry.expect("it can be read").path())).collect();
        examples.sort();
        examples
    }

    /// Returns the value set of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let file = folder().join(format!("{name}{SUFFIX}"));
        assert!(file.exists(), "there is no {}", file.display());
        Self(file)
    }

    /// Returns the name of the file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).expect("its name is text")
    }

    /// Returns the name of the value set.
    #[must_use]
    pub fn name(&self) -> &str {
        self.file_name().strip_suffix(SUFFIX).expect("chart-testing requires this suffix")
    }

    /// Returns the comment at the begin of the file, in one line.
    #[must_use]
    pub fn description(&self) -> String {
        let text = fs::read_to_string(&self.0).expect("it can be read");
        let comment = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        comment.collect::<Vec<_>>().join(" ")
    }

    /// Returns the namespace that its release is for.
    #[must_use]
    pub fn namespace(&self) -> &'static str {
        if self.name() == "second-release" { "team-b" } else { "openfaas" }
    }

    /// Returns the argument of Helm.
    #[must_use]
    pub fn argument(&self) -> String {
        format!("--values={}", self.0.display())
    }
}

fn folder() -> PathBuf {
    repository().join("manifests/helm/ci")
}
