//! The dead letters of the queues that users view, without their content.
//!
//! They are read once, in the background, and then only what is new, so that all of them can be
//! grouped and counted without a consumer in NATS.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    dead_letters::{DeadLetters, OpenError},
    jetstream::NatsError,
};
use tokio::{sync::Semaphore, time::timeout};

mod index;

#[cfg(test)]
pub(crate) use index::tests as samples;
pub(crate) use index::{Filter, Group, IndexedLetter, LetterIndex};

/// Maximum number of letters that are read at once, and about the maximum of their bytes: the
/// server sends each with its content.
const READ_LETTERS: usize = 500;
const READ_BYTES: usize = 16 * 1024 * 1024;

/// How long a page waits for letters that are being read.
const READ_WAIT: Duration = Duration::from_secs(1);

/// Maximum number of queues whose letters are kept. Those that were not viewed for the longest
/// time are dropped.
const MAX_QUEUES: usize = 4;

/// Maximum number of reads of [`READ_LETTERS`] at the same time.
const MAX_READS: usize = 8;

/// All subjects of a stream.
const ALL: &str = ">";

/// The dead letters of the queues that were viewed last.
#[derive(Debug)]
pub(crate) struct Letters {
    js: Context,
    namespace: String,
    /// The one that was viewed last is the last one.
    queues: Mutex<Vec<(QueueName, Arc<QueueLetters>)>>,
    reads: Arc<Semaphore>,
}

/// The dead letters of one queue, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct QueueLetters {
    index: Mutex<LetterIndex>,
    /// Held by the task that reads.
    reading: Arc<tokio::sync::Mutex<()>>,
}

// === impl Letters ===

impl Letters {
    /// `namespace` is the one of functions that are named without one.
    pub(crate) fn new(js: Context, namespace: String) -> Self {
        let reads = Semaphore::new(MAX_READS).into();
        Self { js, namespace, queues: Mutex::default(), reads }
    }

    /// Opens the dead letters of a queue.
    pub(crate) async fn open(&self, queue: &QueueName) -> Result<DeadLetters, OpenError> {
        DeadLetters::open(&self.js, queue, &self.namespace).await
    }

    /// Reads what is new of the letters that were opened. Returns after a second at most, with what
    /// was read until then; the rest is read in the background.
    pub(crate) async fn read(
        &self,
        queue: &QueueName,
        opened: &DeadLetters,
    ) -> Result<Arc<QueueLetters>, NatsError> {
        let letters = self.of(queue);
        let Ok(turn) = letters.reading.clone().try_lock_owned() else {
            // Another page has begun to read.
            let _ = timeout(READ_WAIT, letters.reading.lock()).await;
            return Ok(letters);
        };
        let (reader, opened, reads) = (letters.clone(), opened.clone(), self.reads.clone());
        let reading = tokio::spawn(async move {
            let _turn = turn;
            let read = reader.read(&opened, &reads).await;
            if let Err(error) = &read {
                tracing::warn!(%error, "failed to read dead letters");
            }
            read
        });
        match timeout(READ_WAIT, reading).await {
            Ok(Ok(Err(error))) => Err(error),
            _ => Ok(letters),
        }
    }

    fn of(&self, queue: &QueueName) -> Arc<QueueLetters> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let known = queues.iter().position(|(known, _)| known == queue);
        let entry = match known {
            Some(position) => queues.remove(position),
            None => (queue.clone(), Arc::default()),
        };
        let letters = entry.1.clone();
        queues.push(entry);
        if queues.len() > MAX_QUEUES {
            queues.remove(0);
        }
        letters
    }
}

// === impl QueueLetters ===

impl QueueLetters {
    /// Returns what a function makes of the letters.
    pub(crate) fn with<T>(&self, make: impl FnOnce(&LetterIndex) -> T) -> T {
        make(&self.index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets a letter that is gone.
    pub(crate) fn remove(&self, sequence: u64) {
        self.change(|index| index.remove(sequence));
    }

    fn change<T>(&self, change: impl FnOnce(&mut LetterIndex) -> T) -> T {
        change(&mut self.index.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn read(
        self: &Arc<Self>,
        opened: &DeadLetters,
        reads: &Semaphore,
    ) -> Result<(), NatsError> {
        let has_deleted = self.change(|index| {
            index.begin(opened.created_at());
            index.advance(opened.first_sequence(), opened.last_sequence(), opened.count());
            index.deleted != opened.deleted_count()
        });
        if has_deleted {
            let deleted = opened.deleted_sequences().await?;
            self.change(|index| index.remove_deleted(&deleted, opened.deleted_count()));
        }
        // Letters that only this task knows were dropped: no page shows them.
        while Arc::strong_count(self) > 1
            && let Some(from) = self.with(LetterIndex::unread)
        {
            let _turn = reads.acquire().await;
            let page = opened.page(ALL, from, READ_LETTERS, READ_BYTES).await?;
            self.change(|index| index.add(&page));
        }
        Ok(())
    }
}
