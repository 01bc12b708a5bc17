//! What is known of the dead letters of one queue.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use asyncqueue::{
    CallId, FunctionName,
    dead_letters::{DeadLetter, DeadLetterKind, LetterPage},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Maximum number of letters that are kept: about 20 MB.
pub(crate) const MAX_LETTERS: usize = 100_000;

/// Maximum number of groups. Reasons hold answers of functions, so there may be any number.
const MAX_GROUPS: usize = 1_000;

/// The reason of letters that are in no group of their own, whatever their function.
const OTHER_REASONS: &str = "(other reasons)";

/// Shown for a letter whose function is not known.
pub(crate) const NO_FUNCTION: &str = "(unknown)";

/// The dead letters of one queue: at most [`MAX_LETTERS`], the oldest ones.
#[derive(Debug, Default)]
pub(crate) struct LetterIndex {
    /// When the stream was created.
    created_at: Option<Timestamp>,
    letters: BTreeMap<u64, IndexedLetter>,
    groups: HashSet<Arc<GroupKey>>,
    /// Number of letters of the stream when it was asked last.
    pub(crate) total: u64,
    /// Number of deletions within the stream that are applied.
    pub(super) deleted: u64,
    /// The first sequence that was not read.
    next: u64,
    /// The last sequence of the stream when it was asked last.
    last: u64,
}

/// A dead letter, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexedLetter {
    pub(crate) group: Arc<GroupKey>,
    pub(crate) call_id: CallId,
    /// Distinguishes calls that share the id.
    call_sequence: Option<u64>,
    pub(crate) died_at: Timestamp,
    pub(crate) attempts: u64,
    pub(crate) status: Option<u16>,
}

/// What the letters of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) function: Option<FunctionName>,
    pub(crate) reason: String,
    pub(crate) kind: DeadLetterKind,
}

/// Letters of one function that died for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) key: Arc<GroupKey>,
    pub(crate) count: usize,
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
}

/// What a dead letter was, in links and forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindName {
    Call,
    Callback,
}

/// Selects letters, as links and forms do. Nothing: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// The function as it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<KindName>,
}

// === impl GroupKey ===

impl GroupKey {
    /// Returns the function as it is shown.
    pub(crate) fn function(&self) -> String {
        self.function.as_ref().map_or_else(|| NO_FUNCTION.to_owned(), ToString::to_string)
    }

    fn other(kind: DeadLetterKind) -> Self {
        Self { function: None, reason: OTHER_REASONS.to_owned(), kind }
    }

    fn of(letter: &DeadLetter) -> Self {
        Self {
            function: letter.function.clone(),
            reason: letter.unreadable.as_ref().unwrap_or(&letter.death.reason).clone(),
            kind: letter.kind,
        }
    }
}

// === impl IndexedLetter ===

impl IndexedLetter {
    /// Returns whether it is a result on its way to the client.
    pub(crate) fn is_callback(&self) -> bool {
        self.group.kind == DeadLetterKind::Callback
    }
}

// === impl KindName ===

impl KindName {
    /// Returns the name in links and forms.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Callback => "callback",
        }
    }
}

// === impl Filter ===

impl Filter {
    /// Selects a group.
    pub(crate) fn of(key: &GroupKey) -> Self {
        Self {
            function: Some(key.function()),
            reason: Some(key.reason.clone()),
            kind: Some(key.kind.into()),
        }
    }

    /// Returns whether all letters are selected.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    fn selects(&self, key: &GroupKey) -> bool {
        self.function.as_ref().is_none_or(|function| *function == key.function())
            && self.reason.as_ref().is_none_or(|reason| *reason == key.reason)
            && self.kind.is_none_or(|kind| kind == key.kind.into())
    }
}

impl From<DeadLetterKind> for KindName {
    fn from(kind: DeadLetterKind) -> Self {
        match kind {
            DeadLetterKind::Call => Self::Call,
            DeadLetterKind::Callback => Self::Callback,
        }
    }
}

// === impl LetterIndex ===

impl LetterIndex {
    /// Forgets all letters, if they are of another stream of the same name.
    pub(super) fn begin(&mut self, created_at: Timestamp) {
        if self.created_at != Some(created_at) {
            *self = Self { created_at: Some(created_at), ..Self::default() };
        }
    }

    /// Applies what the stream says of itself: its first and its last sequence, and how many
    /// letters it has. Pages that asked it at the same time may come in any order.
    pub(super) fn advance(&mut self, first: u64, last: u64, total: u64) {
        self.letters = self.letters.split_off(&first);
        self.next = self.next.max(first);
        self.last = self.last.max(last);
        self.total = total;
    }

    /// Removes the letters at these sequences.
    pub(super) fn remove_deleted(&mut self, sequences: &[u64], deleted: u64) {
        for sequence in sequences {
            self.letters.remove(sequence);
        }
        self.deleted = deleted;
    }

    /// Removes a letter.
    pub(super) fn remove(&mut self, sequence: u64) {
        if self.letters.remove(&sequence).is_some() {
            self.total = self.total.saturating_sub(1);
        }
    }

    /// Returns from which sequence on letters have to be read; `None` if none have.
    pub(super) fn unread(&self) -> Option<u64> {
        (self.next <= self.last && self.letters.len() < MAX_LETTERS).then_some(self.next)
    }

    /// Adds letters that were read.
    pub(super) fn add(&mut self, page: &LetterPage) {
        for letter in &page.letters {
            let indexed = IndexedLetter {
                group: self.intern(GroupKey::of(letter)),
                call_id: letter.call_id.clone(),
                call_sequence: letter.call_sequence(),
                died_at: letter.died_at,
                attempts: letter.death.attempts,
                status: letter.death.status,
            };
            self.letters.insert(letter.sequence, indexed);
            self.last = self.last.max(letter.sequence);
        }
        self.next = page.next.unwrap_or(self.last + 1);
    }

    /// Returns the group with a key, or the one of all that have no room of their own.
    fn intern(&mut self, key: GroupKey) -> Arc<GroupKey> {
        if !self.groups.contains(&key) && self.groups.len() >= MAX_GROUPS {
            self.groups.retain(|group| Arc::strong_count(group) > 1);
        }
        let has_room = self.groups.contains(&key) || self.groups.len() < MAX_GROUPS;
        let key = if has_room { key } else { GroupKey::other(key.kind) };
        if let Some(known) = self.groups.get(&key) {
            return known.clone();
        }
        let key = Arc::new(key);
        self.groups.insert(key.clone());
        key
    }

    /// Returns the number of letters that were read.
    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Returns the sequence of the newest letter that was read; 0 without one.
    pub(crate) fn newest(&self) -> u64 {
        self.letters.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// Returns whether letters are still being read.
    pub(crate) fn is_reading(&self) -> bool {
        self.unread().is_some()
    }

    /// Returns the groups, the largest first.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: HashMap<&GroupKey, Group> = HashMap::new();
        for letter in self.letters.values() {
            let group = groups.entry(&*letter.group).or_insert_with(|| Group {
                key: letter.group.clone(),
                count: 0,
                oldest: letter.died_at,
                newest: letter.died_at,
            });
            group.count += 1;
            group.oldest = group.oldest.min(letter.died_at);
            group.newest = group.newest.max(letter.died_at);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        groups
    }

    /// Returns the selected letters, oldest first.
    pub(crate) fn select<'a>(
        &'a self,
        filter: &'a Filter,
    ) -> impl Iterator<Item = (u64, &'a IndexedLetter)> {
        // Groups are few, and their texts are long.
        let selected: HashSet<*const GroupKey> =
            self.groups.iter().filter(|key| filter.selects(key)).map(Arc::as_ptr).collect();
        self.letters
            .iter()
            .filter(move |(_, letter)| selected.contains(&Arc::as_ptr(&letter.group)))
            .map(|(sequence, letter)| (*sequence, letter))
    }

    /// Returns the sequences of the letters that a replay concerns. Unless callbacks were selected,
    /// one is left out if its call is replayed: its client would take the old result for the new
    /// one.
    pub(crate) fn to_replay<'a>(
        selected: &[(u64, &'a IndexedLetter)],
        kind: Option<KindName>,
    ) -> Vec<(u64, &'a IndexedLetter)> {
        let calls: HashSet<_> = selected
            .iter()
            .filter(|(_, letter)| !letter.is_callback())
            .map(|(_, letter)| (&letter.call_id, letter.call_sequence))
            .collect();
        let is_redundant = |letter: &IndexedLetter| {
            letter.is_callback() && calls.contains(&(&letter.call_id, letter.call_sequence))
        };
        let chosen = selected.iter().filter(|(_, letter)| kind.is_some() || !is_redundant(letter));
        chosen.copied().collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use asyncqueue::dead_letters::{DeathInfo, Omitted, Origin};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn letter(sequence: u64, reason: &str) -> DeadLetter {
        DeadLetter {
            sequence,
            kind: DeadLetterKind::Call,
            call_id: format!("call-{sequence}").parse().unwrap(),
            function: Some(FunctionName::new("figlet", "dev").unwrap()),
            death: DeathInfo { reason: reason.to_owned(), attempts: 3, status: Some(500) },
            died_at: Timestamp::UNIX_EPOCH,
            worker: "w-1".to_owned(),
            size: 2,
            origin: Some(Origin { subject: format!("jobs.{sequence}"), sequence }),
            omitted: Omitted::default(),
            unreadable: None,
        }
    }

    pub(crate) fn index(letters: Vec<DeadLetter>) -> LetterIndex {
        let mut index = LetterIndex::default();
        let (last, total) = (letters.last().map_or(0, |letter| letter.sequence), letters.len());
        index.advance(1, last, total as u64);
        index.add(&LetterPage { letters, next: None });
        index
    }

    fn sequences(index: &LetterIndex, filter: &Filter) -> Vec<u64> {
        index.select(filter).map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn letters_are_grouped_by_function_and_reason_largest_first() {
        let index = index(vec![letter(1, "a"), letter(2, "b"), letter(3, "b")]);
        let groups = index.groups();
        let counts: Vec<_> = groups.iter().map(|group| (&*group.key.reason, group.count)).collect();
        assert_eq!(counts, [("b", 2), ("a", 1)]);
        assert_eq!(sequences(&index, &Filter::of(&groups[0].key)), [2, 3]);
        assert_eq!(sequences(&index, &Filter::default()), [1, 2, 3]);
        let other = Filter { function: Some("other.dev".to_owned()), ..Filter::default() };
        assert!(sequences(&index, &other).is_empty());
    }

    #[test]
    fn letters_that_are_gone_are_forgotten() {
        let mut index = index((1..=6).map(|sequence| letter(sequence, "a")).collect());
        index.remove_deleted(&[3], 1);
        index.remove(5);
        index.advance(2, 6, 3);
        assert_eq!(sequences(&index, &Filter::default()), [2, 4, 6]);
        assert_eq!((index.total, index.newest(), index.is_reading()), (3, 6, false));
        // A queue that was deleted and created again.
        index.begin(Timestamp::UNIX_EPOCH);
        index.advance(1, 2, 2);
        assert_eq!((index.len(), index.unread()), (0, Some(1)));
        index.begin(Timestamp::UNIX_EPOCH);
        index.add(&LetterPage { letters: vec![letter(1, "a")], next: None });
        index.begin(Timestamp::UNIX_EPOCH);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn only_what_is_new_is_read() {
        let mut index = LetterIndex::default();
        index.advance(5, 9, 3);
        assert_eq!(index.unread(), Some(5));
        index.add(&LetterPage { letters: vec![letter(5, "a")], next: Some(8) });
        assert_eq!((index.unread(), index.is_reading()), (Some(8), true));
        index.add(&LetterPage { letters: vec![letter(8, "a")], next: None });
        assert_eq!(index.unread(), None);
        index.advance(5, 9, 3);
        assert_eq!(index.unread(), None);
        index.advance(5, 10, 4);
        assert_eq!(index.unread(), Some(10));
        // A page that has asked before.
        index.advance(5, 9, 3);
        assert_eq!((index.unread(), index.len()), (Some(10), 2));
    }

    #[test]
    fn number_of_groups_is_bounded_and_unused_ones_make_room() {
        let many = MAX_GROUPS as u64 + 10;
        let mut index =
            index((1..=many).map(|number| letter(number, &number.to_string())).collect());
        let groups = index.groups();
        assert!(index.groups.len() <= MAX_GROUPS + 1, "{}", index.groups.len());
        assert_eq!((&*groups[0].key.reason, groups[0].count), (OTHER_REASONS, 10));
        drop(groups);
        index.advance(many + 1, many + 1, 1);
        index.add(&LetterPage { letters: vec![letter(many + 1, "new")], next: None });
        assert_eq!(index.groups()[0].key.reason, "new");
    }

    #[test]
    fn callback_is_left_out_if_its_call_is_replayed() {
        let callback = |sequence: u64, call: u64| DeadLetter {
            kind: DeadLetterKind::Callback,
            call_id: format!("call-{call}").parse().unwrap(),
            origin: Some(Origin { subject: format!("jobs-callbacks.d.f.c.{call}"), sequence }),
            ..letter(sequence, "callback")
        };
        let index = index(vec![letter(1, "a"), callback(2, 1), callback(3, 9)]);
        let everything = Filter::default();
        let all: Vec<_> = index.select(&everything).collect();
        let chosen = |kind| {
            let chosen = LetterIndex::to_replay(&all, kind);
            chosen.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>()
        };
        assert_eq!(chosen(None), [1, 3]);
        assert_eq!(chosen(Some(KindName::Callback)), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn each_letter_is_in_one_group(reasons in proptest::collection::vec(0_u8..5, 0..50)) {
            let letters = reasons.iter().zip(1..);
            let letters = letters.map(|(reason, number)| letter(number, &reason.to_string()));
            let index = index(letters.collect());
            let selected: Vec<u64> = index
                .groups()
                .iter()
                .flat_map(|group| {
                    let found = sequences(&index, &Filter::of(&group.key));
                    assert_eq!(found.len(), group.count);
                    found
                })
                .collect();
            prop_assert_eq!(selected.len(), reasons.len());
            prop_assert_eq!(selected.into_iter().collect::<HashSet<_>>().len(), reasons.len());
        }
    }
}
