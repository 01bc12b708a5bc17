//! Each guard stands for a function of the product, and is found when it is removed.

use std::path::Path;

use asyncqueue_model::{
    batches::{self, Batches},
    bounds,
    guard::Guard,
    lanes::{self, Lanes},
    life::Life,
    rule::{Part, Rule},
    search::{search, search_stuck},
    shares::{self, Sharing},
    waits::{self, Waits},
};

#[test]
fn guards_name_functions_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for guard in Guard::ALL {
        let place = guard.place();
        let source = std::fs::read_to_string(root.join(place.file)).unwrap_or_default();
        let is_there =
            ["(", "<"].iter().any(|end| source.contains(&format!("fn {}{end}", place.function)));
        assert!(
            is_there,
            "{guard:?} stands for {}, which is not in {}",
            place.function, place.file
        );
    }
}

fn guards_of(part: Part) -> impl Iterator<Item = Guard> {
    Guard::ALL.into_iter().filter(move |guard| guard.protects().part() == part)
}

#[test]
fn a_removed_guard_of_calls_breaks_its_rule() {
    for guard in guards_of(Part::Life) {
        let setup = bounds::without(guard).unwrap();
        let life = Life::new(setup);
        let rule = guard.protects();
        let found = if rule == Rule::Ends { search_stuck(&life) } else { search(life) };
        assert!(found.breaks(rule), "without {guard:?}: {:?}", found.broken);
        let whole = Life::new(asyncqueue_model::life::setup::Setup { without: None, ..setup });
        assert_eq!(search_stuck(&whole).broken, [], "with {guard:?}");
        assert_eq!(search(whole).broken, [], "with {guard:?}");
    }
}

#[test]
fn a_removed_guard_of_submissions_breaks_its_rule() {
    for guard in guards_of(Part::Submission) {
        let found: Vec<_> = bounds::submissions(Some(guard)).into_iter().map(search).collect();
        let is_found = found.iter().any(|found| found.breaks(guard.protects()));
        assert!(is_found, "without {guard:?}: {found:?}");
    }
}

#[test]
fn a_removed_guard_of_shares_breaks_its_rule() {
    for guard in guards_of(Part::Shares) {
        let setup = shares::bounds::without(guard);
        let (rule, sharing) = (guard.protects(), Sharing::new(setup));
        let found =
            if rule == Rule::ShareIsUsed { search_stuck(&sharing) } else { search(sharing) };
        assert!(found.breaks(rule), "without {guard:?}: {:?}", found.broken);
        let whole = Sharing::new(shares::setup::Setup { without: None, ..setup });
        assert_eq!(search_stuck(&whole).broken, [], "with {guard:?}");
        assert_eq!(search(whole).broken, [], "with {guard:?}");
    }
}

#[test]
fn a_removed_guard_of_lanes_breaks_its_rule() {
    for guard in guards_of(Part::Lanes) {
        let setup = lanes::bounds::without(guard);
        let (rule, model) = (guard.protects(), Lanes::new(setup));
        let found = if rule == Rule::LanesServe { search_stuck(&model) } else { search(model) };
        assert!(found.breaks(rule), "without {guard:?}: {:?}", found.broken);
        let whole = Lanes::new(lanes::setup::Setup { without: None, ..setup });
        assert_eq!(search_stuck(&whole).broken, [], "with {guard:?}");
        assert_eq!(search(whole).broken, [], "with {guard:?}");
    }
}

#[test]
fn a_removed_guard_of_waits_breaks_its_rule() {
    for guard in guards_of(Part::Waits) {
        let setup = waits::bounds::without(guard);
        let (rule, model) = (guard.protects(), Waits::new(setup));
        let found = if rule == Rule::WaitIsAnswered { search_stuck(&model) } else { search(model) };
        assert!(found.breaks(rule), "without {guard:?}: {:?}", found.broken);
        let whole = Waits::new(waits::setup::Setup { without: None, ..setup });
        assert_eq!(search_stuck(&whole).broken, [], "with {guard:?}");
        assert_eq!(search(whole).broken, [], "with {guard:?}");
    }
}

#[test]
fn a_removed_guard_of_batches_breaks_its_rule() {
    for guard in guards_of(Part::Batches) {
        let setup = batches::bounds::without(guard);
        let (rule, model) = (guard.protects(), Batches::new(setup));
        let found = if rule == Rule::BatchEnds { search_stuck(&model) } else { search(model) };
        assert!(found.breaks(rule), "without {guard:?}: {:?}", found.broken);
        let whole = Batches::new(batches::setup::Setup { without: None, ..setup });
        assert_eq!(search_stuck(&whole).broken, [], "with {guard:?}");
        assert_eq!(search(whole).broken, [], "with {guard:?}");
    }
}

#[test]
fn the_readme_has_the_table_of_guards() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let table = asyncqueue_model::places::table();
    assert!(text.contains(&table), "the table of guards in model/README.md is to be:\n{table}");
}
