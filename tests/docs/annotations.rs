//! Where the documents say to put the annotation that names a function's queue. OpenFaaS overwrites
//! those of the Deployments and Services that it made at each deploy, so it belongs where it is
//! deployed from.

use serde_json::Value;
use test_support::{cluster::repository, documents::paths};

use crate::documents::{Kind, pieces_of};

/// How a function of OpenFaaS is annotated.
const DEPLOYED: &str = "faas-cli deploy --annotation com.openfaas.queue=";

/// Begins the paragraph about workloads that OpenFaaS did not make.
const OTHERS: &str = "- **Any other HTTP workload**";

/// The page about them.
const PAGE_OF_OTHERS: &str = "docs/without-openfaas.md";

fn read(document: &str) -> String {
    std::fs::read_to_string(repository().join(document)).unwrap()
}

#[test]
fn functions_of_openfaas_are_annotated_where_they_are_deployed() {
    for document in ["README.md", "docs/migration.md"] {
        let text = read(document);
        assert!(text.contains(DEPLOYED) && text.contains("stack.yml"), "{document}");
    }
    let pieces = pieces_of("README.md");
    let stack = pieces.iter().find(|piece| piece.text.starts_with("# stack.yml")).unwrap();
    let stack: Value = serde_saphyr::from_str(&stack.text).unwrap();
    assert_eq!(stack["functions"]["slow"]["annotations"]["com.openfaas.queue"], "slow-queue");
}

#[test]
fn commands_annotate_only_services_that_are_not_of_openfaas() {
    let mut annotated = 0;
    for document in paths() {
        let lines: Vec<_> = read(&document).lines().map(str::to_owned).collect();
        for piece in pieces_of(&document) {
            let Kind::Commands(commands) = piece.kind else { continue };
            for command in commands.iter().filter(|command| annotates(&command.text)) {
                annotated += 1;
                let place = format!("{document}, line {}: {}", command.line, command.text);
                assert!(command.text.contains(" service/"), "{place}");
                if document == PAGE_OF_OTHERS {
                    continue;
                }
                let about = lines[..command.line].iter().rfind(|line| line.starts_with("- "));
                assert!(about.is_some_and(|line| line.starts_with(OTHERS)), "{place}");
            }
        }
    }
    assert!(annotated > 0, "README.md annotates the Service of another workload");
}

/// Whether a command says something of a function by an annotation on an object.
fn annotates(command: &str) -> bool {
    command.starts_with("kubectl annotate") && command.contains("com.openfaas.")
}
