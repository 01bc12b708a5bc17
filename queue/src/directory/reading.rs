//! Decides from when on what was read of the bucket counts as the directory.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Directory, Key, MARKER};

/// A directory without a marker counts once nothing in it has changed for so long: an earlier
/// version writes none.
const SETTLED: Duration = Duration::from_secs(10);

/// The same where no directory is known yet. The first calls wait for it.
const SETTLED_AT_START: Duration = Duration::from_secs(1);

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A gateway or a worker: keeps what it knew until it knows better.
    Client,
    /// The program that writes the directory: wants to know what is missing.
    Writer,
}

/// What was read of the bucket since the watch began.
#[derive(Debug)]
pub(super) struct Reading {
    reader: Reader,
    directory: Arc<Directory>,
    /// How long a directory without a marker has to be unchanged to count.
    settles_after: Duration,
    /// Whether all was read that was there when the watch began.
    is_current: bool,
    is_marked: bool,
    /// Whether the directory counts. Once it does, so does every change.
    is_accepted: bool,
    changed_at: Option<Instant>,
}

// === impl Reading ===

impl Reading {
    /// Begins to read. `was_known` is whether a directory was known before, `is_empty` whether the
    /// bucket holds nothing.
    pub(super) fn new(reader: Reader, was_known: bool, is_empty: bool) -> Self {
        Self {
            reader,
            directory: Arc::default(),
            settles_after: if was_known { SETTLED } else { SETTLED_AT_START },
            is_current: is_empty,
            is_marked: false,
            is_accepted: false,
            changed_at: None,
        }
    }

    /// Takes in one entry of the bucket; `None` is one that was removed.
    pub(super) fn take(
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
        // One that is not known is of a later version.
        let Some(key) = Key::parse(key) else { return Ok(()) };
        Arc::make_mut(&mut self.directory).apply(&key, value)
    }

    /// All was read that was there when the watch began.
    pub(super) fn is_current(&mut self) {
        self.is_current = true;
    }

    /// Sends the directory on if it counts, and is another than before.
    pub(super) fn publish(&mut self, sender: &watch::Sender<Option<Arc<Directory>>>, now: Instant) {
        let counts = self.is_marked || self.settles_at().is_some_and(|at| now >= at);
        self.is_accepted |= self.is_current && counts;
        let read = match self.reader {
            Reader::Client => self.is_accepted.then(|| self.directory.clone()),
            Reader::Writer => (self.is_current && self.is_marked).then(|| self.directory.clone()),
        };
        sender.send_if_modified(|known| match (&read, self.reader) {
            (None, Reader::Writer) if self.is_current => known.take().is_some(),
            (None, _) => false,
            (Some(read), _) => {
                let is_news = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, read));
                if is_news {
                    *known = Some(read.clone());
                }
                is_news
            }
        });
    }

    /// When a directory without a marker counts, if nothing changes until then.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        let waits = self.reader == Reader::Client && self.is_current && !self.is_accepted;
        self.changed_at.filter(|_| waits && !self.is_empty()).map(|at| at + self.settles_after)
    }

    fn is_empty(&self) -> bool {
        self.directory.functions.is_empty() && self.directory.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: (&str, Option<&[u8]>) = ("queue.jobs", Some(br#"{"stream":"jobs","subject":"jobs"}"#));
    const ANOTHER: (&str, Option<&[u8]>) = ("queue.slow", Some(br#"{"stream":"slow","subject":"slow"}"#));
    const MARK: (&str, Option<&[u8]>) = (MARKER, Some(b"{}"));

    struct Watch {
        reading: Reading,
        sender: watch::Sender<Option<Arc<Directory>>>,
        now: Instant,
    }

    impl Watch {
        fn new(reader: Reader) -> Self {
            let (sender, now) = (watch::Sender::new(None), Instant::now());
            Self { reading: Reading::new(reader, false, true), sender, now }
        }

        /// A watch of a bucket that holds these entries begins.
        fn reads(&mut self, entries: &[(&str, Option<&[u8]>)]) -> &mut Self {
            let was_known = self.sender.borrow().is_some();
            self.reading = Reading::new(self.reading.reader, was_known, entries.is_empty());
            self.takes(entries);
            self.reading.is_current();
            self.takes(&[])
        }

        fn takes(&mut self, entries: &[(&str, Option<&[u8]>)]) -> &mut Self {
            for (key, value) in entries {
                self.reading.take(key, *value, self.now).unwrap();
            }
            self.reading.publish(&self.sender, self.now);
            self
        }

        fn after(&mut self, time: Duration) -> &mut Self {
            self.now += time;
            self.takes(&[])
        }

        #[track_caller]
        fn knows(&mut self, queues: Option<usize>) -> &mut Self {
            let known = self.sender.borrow().as_ref().map(|directory| directory.queues.len());
            assert_eq!(known, queues);
            self
        }
    }

    #[tokio::test]
    async fn an_empty_bucket_is_not_read_until_its_marker_is_there() {
        let mut watch = Watch::new(Reader::Client);
        watch.reads(&[]).knows(None).after(SETTLED * 2).knows(None);
        watch.takes(&[QUEUE]).after(SETTLED / 2).takes(&[MARK]).knows(Some(1));
        // Whole and empty.
        Watch::new(Reader::Client).reads(&[MARK]).knows(Some(0));
    }

    #[tokio::test]
    async fn a_recreated_bucket_changes_nothing_until_it_is_whole() {
        let mut watch = Watch::new(Reader::Client);
        watch.reads(&[QUEUE, ANOTHER, MARK]).knows(Some(2));
        watch.reads(&[]).knows(Some(2)).after(SETTLED * 2).knows(Some(2));
        watch.takes(&[QUEUE]).knows(Some(2)).takes(&[MARK]).knows(Some(1));
        // And from then on each change counts.
        watch.takes(&[("queue.jobs", None)]).knows(Some(0));
    }

    #[tokio::test]
    async fn a_directory_of_the_last_version_counts_without_a_marker() {
        let mut watch = Watch::new(Reader::Client);
        watch.reads(&[QUEUE, ANOTHER]).knows(None).after(SETTLED_AT_START).knows(Some(2));
        // Written again by that version: what is there may be a part of it.
        watch.reads(&[QUEUE]).knows(Some(2));
        assert_eq!(watch.reading.settles_at(), Some(watch.now + SETTLED));
        watch.after(SETTLED).knows(Some(1));
        assert_eq!(watch.reading.settles_at(), None);
    }

    #[tokio::test]
    async fn a_writer_sees_that_a_bucket_is_not_whole() {
        let mut watch = Watch::new(Reader::Writer);
        watch.reads(&[QUEUE]).knows(None).takes(&[MARK]).knows(Some(1));
        watch.reads(&[]).knows(None).after(SETTLED * 2).knows(None);
        watch.takes(&[QUEUE, ANOTHER, MARK]).knows(Some(2)).takes(&[(MARKER, None)]).knows(None);
    }

    #[tokio::test]
    async fn nothing_counts_before_all_is_read() {
        let sender = watch::Sender::new(None);
        let (mut reading, now) = (Reading::new(Reader::Client, false, false), Instant::now());
        for (key, value) in [QUEUE, MARK] {
            reading.take(key, value, now).unwrap();
            reading.publish(&sender, now);
            assert!(sender.borrow().is_none());
        }
        reading.is_current();
        reading.publish(&sender, now);
        assert!(sender.borrow().is_some());
    }
}
