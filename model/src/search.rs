//! Searches all states of a model within its bounds.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
};

use stateright::{Checker, HasDiscoveries, Model};

use crate::rule::Rule;

/// A model that comes to rest without further faults.
pub trait Progress {
    /// A state.
    type State: Clone + Eq + Hash;
    /// A step.
    type Action: Copy + Debug;

    /// The rule that is broken where it can't come to rest.
    const RULE: Rule;

    /// Returns the first state.
    fn first(&self) -> Self::State;

    /// Returns the possible steps, each with the state after it.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Action, Self::State)>;

    /// Returns whether a step is a fault, or a change from outside.
    fn is_fault(action: Self::Action) -> bool;

    /// Returns whether the model has come to rest.
    fn is_at_rest(&self, state: &Self::State) -> bool;
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Number of different states, as far as the search went.
    pub states: usize,
    /// The broken rules, each with the steps that break it.
    pub broken: Vec<(String, Vec<String>)>,
}

impl Found {
    /// Returns whether a rule is broken.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.broken.iter().any(|(name, _)| name == rule.name())
    }
}

/// Searches all states for those that break a rule, and stops at the first one.
pub fn search<M>(model: M) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let mut broken: Vec<_> = checker
        .discoveries()
        .into_iter()
        .map(|(name, path)| {
            let steps = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
            (name.to_owned(), steps)
        })
        .collect();
    broken.sort();
    Found { states: checker.unique_state_count(), broken }
}

/// Searches for a state from which the model can't come to rest without further faults: a call or a
/// slot that is lost, or a loop without an exit.
#[must_use]
pub fn search_stuck<M: Progress>(model: &M) -> Found {
    let mut states = vec![model.first()];
    let mut known = HashMap::from([(model.first(), 0_usize)]);
    let mut came_from: Vec<Option<(usize, M::Action)>> = vec![None];
    // For each state, the states from which a step that is not a fault leads to it.
    let mut before: Vec<Vec<usize>> = vec![vec![]];
    let mut next = 0;
    while next < states.len() {
        for (action, after) in model.steps(&states[next]) {
            let number = *known.entry(after).or_insert_with_key(|after| {
                states.push(after.clone());
                came_from.push(Some((next, action)));
                before.push(vec![]);
                states.len() - 1
            });
            if !M::is_fault(action) {
                before[number].push(next);
            }
        }
        next += 1;
    }
    let can_rest = reach(model, &states, &before);
    let stuck = (0..states.len()).find(|number| !can_rest[*number]);
    let broken = stuck.map(|number| (M::RULE.name().to_owned(), path(&came_from, number)));
    Found { states: states.len(), broken: broken.into_iter().collect() }
}

/// Returns which states can come to rest.
fn reach<M: Progress>(model: &M, states: &[M::State], before: &[Vec<usize>]) -> Vec<bool> {
    let mut can_rest: Vec<bool> = states.iter().map(|state| model.is_at_rest(state)).collect();
    let mut queue: VecDeque<usize> = (0..states.len()).filter(|number| can_rest[*number]).collect();
    while let Some(number) = queue.pop_front() {
        for earlier in &before[number] {
            if !std::mem::replace(&mut can_rest[*earlier], true) {
                queue.push_back(*earlier);
            }
        }
    }
    can_rest
}

fn path<A: Copy + Debug>(came_from: &[Option<(usize, A)>], mut number: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let Some((earlier, action)) = came_from[number] {
        steps.push(format!("{action:?}"));
        number = earlier;
    }
    steps.reverse();
    steps
}
