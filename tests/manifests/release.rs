//! The chart and `install.yaml` of a release install the same images.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use test_support::cluster::release::make_manifests;

use crate::support::{helm_package_template, objects, pods};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The images of the operator and the gateway.
fn images(objects: &[Value]) -> BTreeSet<String> {
    pods(objects)
        .into_iter()
        .filter(|(name, _)| name.starts_with("asyncqueue-"))
        .map(|(_, pod)| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn chart_and_install_yaml_name_the_released_image() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    for registry in ["registry.example.com", "localhost:5000/team/queues"] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        make_manifests(folder.path(), registry, &digest);
        let install = fs::read_to_string(folder.path().join("install.yaml")).unwrap();
        let chart = folder.path().join(format!("asyncqueue-{VERSION}.tgz"));

        let by_version = format!("{registry}/asyncqueue:{VERSION}");
        let by_both = format!("{by_version}@{digest}");
        assert_eq!(images(&objects(&install)), [by_both].into());
        assert_eq!(images(&helm_package_template(&chart, &[])), [by_version.clone()].into());
        let digest_value = format!("--set=image.digest={digest}");
        assert_eq!(
            images(&helm_package_template(&chart, &[&digest_value])),
            [format!("{registry}/asyncqueue@{digest}")].into()
        );
        // A mirror of the registry has the same repository.
        let (_, path) = by_version.split_once('/').unwrap();
        assert_eq!(
            images(&helm_package_template(&chart, &["--set=image.registry=mirror.example.com"])),
            [format!("mirror.example.com/{path}")].into()
        );
    }
}
