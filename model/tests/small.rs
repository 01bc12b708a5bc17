//! All states within small bounds keep the rules.

use asyncqueue_model::{
    batches::{self, Batches},
    bounds,
    lanes::{self, Lanes},
    life::Life,
    search::{search, search_stuck},
    shares::{self, Sharing},
    waits::{self, Waits},
};

#[test]
fn calls_keep_the_rules_within_small_bounds() {
    for bounds in bounds::small() {
        let found = search(Life::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
        println!("{}: {} states", bounds.name, found.states);
    }
}

#[test]
fn calls_come_to_an_end_within_small_bounds() {
    for bounds in bounds::small() {
        let found = search_stuck(&Life::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
    }
}

#[test]
fn submissions_keep_the_rules() {
    for submission in bounds::submissions(None) {
        let requests = submission.requests.clone();
        let found = search(submission);
        assert_eq!(found.broken, [], "{requests:?}");
        println!("{requests:?}: {} states", found.states);
    }
}

#[test]
fn shares_keep_the_rules_within_small_bounds() {
    for bounds in shares::bounds::small() {
        let found = search(Sharing::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
        println!("{}: {} states", bounds.name, found.states);
    }
}

#[test]
fn shares_can_be_used_within_small_bounds() {
    for bounds in shares::bounds::small() {
        let found = search_stuck(&Sharing::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
    }
}

#[test]
fn lanes_keep_the_rules_within_small_bounds() {
    for bounds in lanes::bounds::small() {
        let found = search(Lanes::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
        println!("{}: {} states", bounds.name, found.states);
    }
}

#[test]
fn lanes_serve_each_call_within_small_bounds() {
    for bounds in lanes::bounds::small() {
        let found = search_stuck(&Lanes::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
    }
}

#[test]
fn waits_keep_the_rules_within_small_bounds() {
    for bounds in waits::bounds::small() {
        let found = search(Waits::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
        println!("{}: {} states", bounds.name, found.states);
    }
}

#[test]
fn waits_are_answered_within_small_bounds() {
    for bounds in waits::bounds::small() {
        let found = search_stuck(&Waits::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
    }
}

#[test]
fn batches_keep_the_rules_within_small_bounds() {
    for bounds in batches::bounds::small() {
        let found = search(Batches::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
        println!("{}: {} states", bounds.name, found.states);
    }
}

#[test]
fn batches_end_within_small_bounds() {
    for bounds in batches::bounds::small() {
        let found = search_stuck(&Batches::new(bounds.setup));
        assert_eq!(found.broken, [], "{}", bounds.name);
    }
}
