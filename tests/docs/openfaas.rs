//! The tables of docs/openfaas.md say of each sentence of OpenFaaS's page whether it is true here,
//! and which test shows it. No sentence is missing, and each test is in the file that is named.

use test_support::cluster::repository;

use crate::test_list::TEST_LIST;

const DOCUMENT: &str = "docs/openfaas.md";

/// The headings of OpenFaaS's page, in its order, and how many sentences and examples are under
/// each; then the clients.
const SENTENCES: [(&str, char, usize); 11] = [
    ("Asynchronous Functions", 'A', 10),
    ("Synchronous vs asynchronous invocation", 'B', 8),
    ("How it works", 'C', 11),
    ("Cancel async invocations", 'D', 9),
    ("Making an asynchronous call from another function", 'E', 7),
    ("Configuration & Limits", 'F', 11),
    ("Parallelism", 'G', 12),
    ("Dedicated queues", 'H', 15),
    ("Verbose Output", 'I', 2),
    ("Callback request headers", 'J', 5),
    ("Clients", 'K', 7),
];

/// What may be said of a sentence.
const NO_CLAIM: &str = "No claim";
const VERDICTS: [&str; 3] = ["True", "Differs", NO_CLAIM];

#[test]
fn each_sentence_of_openfaas_names_what_shows_it() {
    let text = std::fs::read_to_string(repository().join(DOCUMENT)).unwrap();
    let mut missing = Vec::new();
    let mut sections = text.split("\n## ").skip(1);
    for (heading, letter, count) in SENTENCES {
        let section = sections.next().unwrap_or_default();
        assert_eq!(
            section.lines().next(),
            Some(heading),
            "the headings are those of OpenFaaS's page"
        );
        let rows: Vec<_> =
            section.lines().filter(|line| line.starts_with("| ") && !is_head(line)).collect();
        assert_eq!(rows.len(), count, "{heading}");
        for (row, number) in rows.into_iter().zip(1..) {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, sentence, here, shown] = cells[..] else {
                panic!("a row has four cells: {row}")
            };
            assert_eq!(name, format!("{letter}{number}"), "{row}");
            assert!(
                !sentence.is_empty() && VERDICTS.iter().any(|verdict| here.starts_with(verdict)),
                "{row}"
            );
            let tests: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
            assert_eq!(tests.is_empty(), here.starts_with(NO_CLAIM), "{row}");
            missing.extend(
                tests
                    .into_iter()
                    .filter(|test| !is_there(test))
                    .map(|test| format!("{name}: {test}")),
            );
        }
    }
    assert_eq!(sections.next(), None, "a section of which no sentences are counted");
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
}

/// Whether a line is the head of a table.
fn is_head(line: &str) -> bool {
    line.starts_with("| |")
}

/// Whether there is such a test: `FILE: NAME`.
fn is_there(test: &str) -> bool {
    test.split_once(": ").is_some_and(|(file, name)| TEST_LIST.has_test(file, name))
}
