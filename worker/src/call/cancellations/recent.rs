//! A map that keeps its most recent entries. Pure.

use std::{collections::HashMap, hash::Hash, mem};

/// A map of at most `capacity` entries. Half of them, the oldest, are dropped when it is full: what
/// was added last is always there.
#[derive(Debug)]
pub(super) struct RecentMap<K, V> {
    capacity: usize,
    new: HashMap<K, V>,
    old: HashMap<K, V>,
}

// === impl RecentMap ===

impl<K: Eq + Hash, V> RecentMap<K, V> {
    /// Returns an empty map. `capacity` is at least 2.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, new: HashMap::new(), old: HashMap::new() }
    }

    /// Returns whether there is an entry for this key.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.new.contains_key(key) || self.old.contains_key(key)
    }

    /// Returns the entry of this key, which is added if it is missing. It is the newest then.
    pub(super) fn get_or_insert(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if self.new.len() >= self.capacity / 2 && !self.new.contains_key(&key) {
            let full = mem::take(&mut self.new);
            let dropped = mem::replace(&mut self.old, full);
            // An old entry that is asked for again is kept.
            self.old.extend(dropped.into_iter().filter(|(other, _)| *other == key));
        }
        let old = self.old.remove(&key);
        self.new.entry(key).or_insert_with(|| old.unwrap_or_else(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_half_is_kept() {
        let mut recent = RecentMap::new(4);
        for key in 0..100 {
            recent.get_or_insert(key, || key);
            let kept = (0..=key).filter(|other| recent.contains(other)).count();
            assert!(recent.contains(&key) && (key < 1 || recent.contains(&(key - 1))));
            assert!(kept <= 4, "{kept}");
        }
        assert!(!recent.contains(&0));
    }

    #[test]
    fn an_entry_that_is_used_again_keeps_its_value() {
        let mut recent = RecentMap::new(4);
        recent.get_or_insert(0, || "first");
        for key in 1..100 {
            recent.get_or_insert(key, || "other");
            assert_eq!(*recent.get_or_insert(0, || "again"), "first");
        }
    }
}
