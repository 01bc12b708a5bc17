//! The files of a release, made by `build/release` for this machine's architecture, and its images
//! on the cluster's node.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{repository, script};
use crate::tools::output;

/// A release in a folder, whose images are removed from the node when it is dropped.
#[derive(Debug)]
pub struct Release {
    folder: TempDir,
}

impl Release {
    /// Makes `install.yaml`, the charts and the images that these need. The programs are those that
    /// `tests/cluster/install` has built.
    #[must_use]
    pub fn make() -> Self {
        let folder = TempDir::with_prefix("asyncqueue-release-").expect("a folder");
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let settings = [("RELEASE_ARCHITECTURES", architecture)];
        make(folder.path(), &["images", "manifests", "charts"], &settings);
        Self { folder }
    }

    /// Loads the archives of the images into the node, as manifests/README.md says.
    pub fn load_images(&self) {
        let files = fs::read_dir(self.folder.path()).expect("the folder is read");
        let files = files.map(|file| file.expect("a file").path());
        for archive in files.filter(|path| path.to_string_lossy().ends_with(".oci.tar")) {
            let archive = File::open(archive).expect("the archive is read");
            let status = ctr(&["import", "-"]).stdin(archive).stdout(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "an archive is not loaded");
        }
    }

    /// The path of `install.yaml`.
    #[must_use]
    pub fn install_yaml(&self) -> PathBuf {
        self.folder.path().join("install.yaml")
    }

    /// The path of the Helm chart's package.
    #[must_use]
    pub fn chart(&self) -> PathBuf {
        self.folder.path().join(format!("asyncqueue-{}.tgz", env!("CARGO_PKG_VERSION")))
    }

    /// The images, each with its name, its version and its digest.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        let path = self.folder.path().join("image-digests.txt");
        fs::read_to_string(path).expect("the digests").lines().map(str::to_owned).collect()
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        for image in self.images() {
            let (by_version, digest) = image.split_once('@').unwrap_or((&image, ""));
            let name = by_version.rsplit_once(':').map_or(by_version, |(name, _)| name);
            let _ = ctr(&["rm", by_version, &format!("{name}@{digest}")])
                .stdout(Stdio::null())
                .status();
        }
    }
}

/// Makes parts of a release in a folder, with these settings of `build/release`.
fn make(folder: &Path, parts: &[&str], settings: &[(&str, &str)]) {
    // That of tests/cluster/images/build.
    let profile = std::env::var("BUILD_PROFILE").unwrap_or_else(|_| "quick".to_owned());
    let _ = output(
        Command::new(repository().join("build/release"))
            .args(parts)
            .env("RELEASE_FOLDER", folder)
            .env("BUILD_PROFILE", profile)
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

/// A command of containerd's own client on images of the node.
fn ctr(arguments: &[&str]) -> Command {
    let mut ctr = script("enter");
    ctr.args(["ctr", "--namespace", "k8s.io", "images"]).args(arguments);
    ctr
}
