//! The table of odd input in docs/guarantees.md names what shows each row: tests, and scenarios of
//! `make chaos`. Each of them exists.

use test_support::cluster::repository;

use crate::test_list::TEST_LIST;

const HEADING: &str = "\n## Odd input, full stores and races\n";

/// The rows: each is a kind of fault.
const ROWS: [&str; 88] = [
    "A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "C1", "C2", "C3", "C4", "C5",
    "C6", "C7", "C8", "C9", "C10", "D1", "D2", "D3", "D4", "D5", "D6", "D7", "E1", "E2", "E3",
    "E4", "E5", "E6", "E7", "E8", "E9", "E10", "E11", "F1", "F2", "F3", "F4", "F5", "F6", "F7",
    "F8", "F9", "G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "H", "I1", "I2", "I3", "I4", "I5",
    "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14", "I15", "I16", "I17", "I18", "I19",
    "I20", "I21", "I22", "J1", "J2", "J3", "J4", "J5", "J6", "J7", "J8", "age",
];

#[test]
fn each_row_of_odd_input_names_what_shows_it() {
    let text = std::fs::read_to_string(repository().join("docs/guarantees.md")).unwrap();
    let (_, section) = text.split_once(HEADING).unwrap();
    let mut missing = Vec::new();
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [row, sent, happens, shown] = cells[..] else { panic!("a row has four cells: {line}") };
        if row.is_empty() {
            continue;
        }
        assert!(!sent.is_empty() && !happens.is_empty(), "{line}");
        rows.push(row);
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows {row}");
        missing.extend(
            names.into_iter().filter(|name| !is_there(name)).map(|name| format!("{row}: {name}")),
        );
    }
    assert_eq!(rows, ROWS);
    assert!(missing.is_empty(), "no such test or scenario:\n{}", missing.join("\n"));
}

/// Whether there is such a test, or such a scenario of `make chaos`.
fn is_there(name: &str) -> bool {
    match name.strip_prefix("chaos: ") {
        Some(scenario) => TEST_LIST.has_scenario(scenario),
        None => TEST_LIST.has_name(name),
    }
}
