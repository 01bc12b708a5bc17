//! The documents for users, for tests that compare them with the programs.

use std::{collections::BTreeSet, env, fs};

use asyncqueue_runtime::{
    health::Health,
    nats,
    settings::{NatsSettings, Optional},
};
use prometheus_client::registry::Registry;

use crate::cluster::repository;

/// Words that begin like metrics and are settings.
const SETTINGS: [&str; 2] = ["gateway_url", "http_addr"];

/// Reads a file of the repository.
#[must_use]
pub fn read(path: &str) -> String {
    let file = repository().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The paths of all documents for users, README.md first.
#[must_use]
pub fn paths() -> Vec<String> {
    let examples = files_in("examples").into_iter().map(|folder| format!("{folder}/README.md"));
    ["README.md", "manifests/README.md", "manifests/helm/README.md"]
        .map(str::to_owned)
        .into_iter()
        .chain(["docs", "docs/adr"].into_iter().flat_map(files_in))
        .chain(examples)
        .filter(|path| path.strip_suffix(".md").is_some() && repository().join(path).exists())
        .collect()
}

/// The paths of the files and folders in a folder, sorted.
fn files_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(repository().join(folder)).expect("a folder of this project");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("it can be read").file_name())
        .map(|name| format!("{folder}/{}", name.to_string_lossy()))
        .collect();
    paths.sort();
    paths
}

/// Panics if a document is not this text. With the variable `WRITE_DOCUMENT`, writes it first.
/// `test` selects the calling test for `cargo test`.
pub fn assert_generated(document: &str, expected: &str, test: &str) {
    let file = repository().join(document);
    if env::var_os("WRITE_DOCUMENT").is_some() {
        fs::write(&file, expected).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == expected,
        "{document} is not what this test would write: \
         WRITE_DOCUMENT=1 cargo test {test}"
    );
}

/// The part of a document below a heading, to the next one of its rank. The heading is written as
/// in the document.
#[must_use]
pub fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("the document has no heading `{heading}`"));
    let rank = heading.split(' ').next().unwrap_or_default();
    rest.split(&format!("\n{rank} ")).next().unwrap_or_default()
}

/// The texts in backticks.
#[must_use]
pub fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Panics if a document does not have each of these in backticks.
pub fn assert_explained<'a>(document: &str, texts: impl IntoIterator<Item = &'a str>) {
    let text = read(document);
    let explained = quoted(&text);
    let missing: Vec<_> = texts.into_iter().filter(|text| !explained.contains(text)).collect();
    assert!(missing.is_empty(), "{document} does not explain {missing:?}");
}

/// Registers the metrics of a connection to NATS. There need not be a server.
pub async fn register_nats_metrics(registry: &mut Registry) {
    let settings = NatsSettings {
        nats_url: Optional(Some("nats://127.0.0.1:1".to_owned())),
        nats_host: String::new(),
        nats_port: 0,
        nats_creds_file: Optional(None),
        nats_tls_ca_file: Optional(None),
        nats_tls_cert_file: Optional(None),
        nats_tls_key_file: Optional(None),
    };
    let connected = nats::connect(&settings, "documents", &Health::new(), registry).await;
    connected.expect("it connects in the background");
}

/// Panics if a document names a metric that begins with `prefix` and `registry` does not have it.
/// The prefix of the registry is `stripped`.
pub fn assert_metrics_registered(prefix: &str, stripped: &str, registry: &Registry) {
    // A registry can only be searched by what it prints: it encodes no family without series.
    let registered = format!("{registry:?}");
    let is_registered = |name: &str| registered.contains(&format!("Descriptor {{ name: {name:?},"));
    let mut found = 0;
    for document in paths() {
        let text = read(&document);
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        // Files of tests have such names, too.
        let is_metric = |word: &&str| {
            word.starts_with(prefix)
                && !SETTINGS.contains(word)
                && !text.contains(&format!("/{word}.rs"))
        };
        for word in words.filter(is_metric) {
            let name = word.strip_prefix(stripped).unwrap_or(word);
            assert!(
                is_registered(name) || is_registered(name.strip_suffix("_total").unwrap_or(name)),
                "{document}: {word} is not a metric"
            );
            found += 1;
        }
    }
    assert!(found > 0, "no document names a metric that begins with {prefix}");
}
