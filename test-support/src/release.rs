//! What a release contains, made by `build/release`.

use std::{fs, path::Path, process::Command};

use crate::{cluster::repository, tools::output};

/// Makes parts of a release in a folder, with these settings of `build/release`.
pub fn make(folder: &Path, parts: &[&str], settings: &[(&str, &str)]) {
    let _ = output(
        Command::new(repository().join("build/release"))
            .args(parts)
            .env("RELEASE_FOLDER", folder)
            .envs(settings.iter().copied()),
    );
}

/// Makes `install.yaml` and the charts in a folder, with images of this registry that are not
/// built: each has this digest.
pub fn make_manifests(folder: &Path, registry: &str, digest: &str) {
    let version = env!("CARGO_PKG_VERSION");
    let images = ["asyncqueue", "asyncqueue-example-function"]
        .map(|name| format!("{registry}/{name}:{version}@{digest}\n"));
    fs::write(folder.join("image-digests.txt"), images.concat()).expect("the folder is writable");
    make(folder, &["manifests", "charts"], &[("RELEASE_REGISTRY", registry)]);
}
