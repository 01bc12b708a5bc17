//! The diagrams are pictures of their sources, and documents show them.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use test_support::{
    cluster::repository,
    documents::{paths, read},
    tools::output,
};

/// Where the sources and the pictures are.
const FOLDER: &str = "docs/diagrams";

/// The names of the files in the folder that end like this, without that end.
fn names(extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(repository().join(FOLDER)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(extension).map(str::to_owned)).collect()
}

#[test]
fn each_picture_is_made_from_its_source() {
    let sources = names(".dot");
    assert!(sources.len() > 2, "{sources:?}");
    assert_eq!(sources, names(".svg"), "{FOLDER}/render makes the pictures");
    for name in sources {
        let source = repository().join(FOLDER).join(format!("{name}.dot"));
        let printed = output(Command::new("sha256sum").arg(&source));
        let digest = printed.split_whitespace().next().unwrap();
        let picture = read(&format!("{FOLDER}/{name}.svg"));
        assert!(picture.contains(digest), "{name}.svg is of another source: {FOLDER}/render");
    }
}

#[test]
fn the_picture_of_the_dashboard_is_made_from_it() {
    let source = repository().join("manifests/monitoring/dashboard.json");
    let printed = output(Command::new("sha256sum").arg(source));
    let digest = printed.split_whitespace().next().unwrap();
    let is_made_from_it = read("docs/dashboard.svg").contains(digest);
    assert!(is_made_from_it, "docs/dashboard.svg is of another dashboard: make dashboard-picture");
    assert!(read("docs/operations.md").contains("](dashboard.svg)"));
}

#[test]
fn each_diagram_is_shown_on_a_page() {
    let shown: BTreeSet<_> = paths()
        .iter()
        .flat_map(|document| {
            let text = read(document);
            let links = text.split("](").filter_map(|rest| rest.split(')').next());
            let pictures = links.filter(|link| link.contains("diagrams/"));
            let stems = pictures.filter_map(|link| Path::new(link).file_stem());
            stems.map(|stem| stem.to_string_lossy().into_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(shown, names(".svg"));
}
