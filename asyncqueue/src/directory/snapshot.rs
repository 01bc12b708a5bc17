//! Decides when the entries that were read from the bucket count as the directory.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Contents, Directory, Key, MARKER};

/// How long a directory without a marker must be unchanged before it counts: an earlier version
/// writes no marker.
const SETTLE_TIME: Duration = Duration::from_secs(10);

/// The same if no directory is known yet. The first calls wait for it.
const INITIAL_SETTLE_TIME: Duration = Duration::from_secs(1);

/// The entries that were read from the bucket since the watch began.
#[derive(Debug)]
pub(super) struct Snapshot {
    directory: Arc<Directory>,
    /// How long a directory without a marker must be unchanged before it counts.
    settles_after: Duration,
    /// Whether all entries were read that were there when the watch began.
    is_current: bool,
    is_marked: bool,
    /// Whether the directory counts. Once it does, every change does too.
    is_accepted: bool,
    changed_at: Option<Instant>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Begins to read. `was_known`: whether a directory was known before. `is_empty`: whether the
    /// bucket holds nothing.
    pub(super) fn new(was_known: bool, is_empty: bool) -> Self {
        Self {
            directory: Arc::default(),
            settles_after: if was_known { SETTLE_TIME } else { INITIAL_SETTLE_TIME },
            is_current: is_empty,
            is_marked: false,
            is_accepted: false,
            changed_at: None,
        }
    }

    /// Applies one entry of the bucket; `None` is an entry that was removed.
    pub(super) fn apply(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), serde_json::Error> {
        if key == MARKER {
            self.is_marked = value.is_some();
            return Ok(());
        }
        self.changed_at = Some(now);
        // An unknown key comes from a later version.
        let Some(key) = Key::parse(key) else { return Ok(()) };
        Arc::make_mut(&mut self.directory).apply(&key, value)
    }

    /// Records that all entries were read that were there when the watch began.
    pub(super) fn mark_current(&mut self) {
        self.is_current = true;
    }

    /// Returns the directory once it counts: for gateways and workers.
    pub(super) fn directory(&mut self, now: Instant) -> Option<Arc<Directory>> {
        let counts = self.is_marked || self.settles_at().is_some_and(|at| now >= at);
        self.is_accepted |= self.is_current && counts;
        self.is_accepted.then(|| self.directory.clone())
    }

    /// Returns the content of the bucket once it was read: for the program that writes it.
    pub(super) fn contents(&mut self) -> Option<Contents> {
        self.is_accepted |= self.is_current;
        let contents =
            || Contents { directory: self.directory.clone(), is_complete: self.is_marked };
        self.is_current.then(contents)
    }

    /// Returns when a directory without a marker counts, if nothing changes until then.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        let waits = self.is_current && !self.is_accepted;
        self.changed_at.filter(|_| waits && !self.is_empty()).map(|at| at + self.settles_after)
    }

    fn is_empty(&self) -> bool {
        self.directory.functions.is_empty() && self.directory.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: (&str, Option<&[u8]>) =
        ("queue.jobs", Some(br#"{"stream":"jobs","subject":"jobs"}"#));
    const ANOTHER: (&str, Option<&[u8]>) =
        ("queue.slow", Some(br#"{"stream":"slow","subject":"slow"}"#));
    const MARK: (&str, Option<&[u8]>) = (MARKER, Some(b"{}"));

    /// A gateway or a worker.
    struct Watch {
        snapshot: Snapshot,
        known: Option<Arc<Directory>>,
        now: Instant,
    }

    impl Watch {
        fn new() -> Self {
            Self { snapshot: Snapshot::new(false, true), known: None, now: Instant::now() }
        }

        /// Begins a watch of a bucket that holds these entries.
        fn reads(&mut self, entries: &[(&str, Option<&[u8]>)]) -> &mut Self {
            self.snapshot = Snapshot::new(self.known.is_some(), entries.is_empty());
            self.takes(entries);
            self.snapshot.mark_current();
            self.takes(&[])
        }

        fn takes(&mut self, entries: &[(&str, Option<&[u8]>)]) -> &mut Self {
            for (key, value) in entries {
                self.snapshot.apply(key, *value, self.now).unwrap();
            }
            self.known = self.snapshot.directory(self.now).or(self.known.take());
            self
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self.takes(&[])
        }

        #[track_caller]
        fn knows(&mut self, queues: Option<usize>) -> &mut Self {
            assert_eq!(self.known.as_ref().map(|directory| directory.queues.len()), queues);
            self
        }
    }

    #[tokio::test]
    async fn an_empty_bucket_is_not_read_until_its_marker_is_there() {
        let mut watch = Watch::new();
        watch.reads(&[]).knows(None).after(SETTLE_TIME * 2).knows(None);
        watch.takes(&[QUEUE]).after(SETTLE_TIME / 2).takes(&[MARK]).knows(Some(1));
        // Complete and empty.
        Watch::new().reads(&[MARK]).knows(Some(0));
    }

    #[tokio::test]
    async fn a_recreated_bucket_changes_nothing_until_it_is_whole() {
        let mut watch = Watch::new();
        watch.reads(&[QUEUE, ANOTHER, MARK]).knows(Some(2));
        watch.reads(&[]).knows(Some(2)).after(SETTLE_TIME * 2).knows(Some(2));
        watch.takes(&[QUEUE]).knows(Some(2)).takes(&[MARK]).knows(Some(1));
        // From then on, each change counts.
        watch.takes(&[("queue.jobs", None)]).knows(Some(0));
    }

    #[tokio::test]
    async fn a_directory_of_the_last_version_counts_without_a_marker() {
        let mut watch = Watch::new();
        watch.reads(&[QUEUE, ANOTHER]).knows(None).after(INITIAL_SETTLE_TIME).knows(Some(2));
        // That version writes it again: what is there may be incomplete.
        watch.reads(&[QUEUE]).knows(Some(2));
        assert_eq!(watch.snapshot.settles_at(), Some(watch.now + SETTLE_TIME));
        watch.after(SETTLE_TIME).knows(Some(1));
        assert_eq!(watch.snapshot.settles_at(), None);
    }

    #[tokio::test]
    async fn a_writer_sees_that_a_bucket_is_not_whole() {
        let (mut snapshot, now) = (Snapshot::new(true, false), Instant::now());
        snapshot.apply(QUEUE.0, QUEUE.1, now).unwrap();
        assert_eq!(snapshot.contents(), None);
        snapshot.mark_current();
        let seen = |snapshot: &mut Snapshot| {
            snapshot.contents().map(|seen| (seen.directory.queues.len(), seen.is_complete))
        };
        assert_eq!(seen(&mut snapshot), Some((1, false)));
        snapshot.apply(MARK.0, MARK.1, now).unwrap();
        assert_eq!(seen(&mut snapshot), Some((1, true)));
        snapshot.apply(MARKER, None, now).unwrap();
        assert_eq!(seen(&mut snapshot), Some((1, false)));
        assert_eq!(seen(&mut Snapshot::new(true, true)), Some((0, false)));
    }

    #[tokio::test]
    async fn nothing_counts_before_all_is_read() {
        let (mut snapshot, now) = (Snapshot::new(false, false), Instant::now());
        for (key, value) in [QUEUE, MARK] {
            snapshot.apply(key, value, now).unwrap();
            assert_eq!(snapshot.directory(now + SETTLE_TIME * 2), None);
        }
        snapshot.mark_current();
        assert!(snapshot.directory(now).is_some());
    }
}
