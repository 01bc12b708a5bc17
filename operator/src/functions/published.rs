//! What the operator knows of the directory in its bucket.

use asyncqueue::{
    QueueName,
    directory::{Contents, StoredSettings},
};
use tokio::sync::watch;

use crate::{crd::AsyncQueueSpec, queue_settings::queue_settings};

/// The directory in its bucket, and why the last attempt to write it failed.
#[derive(Clone, Debug)]
pub(crate) struct PublishedDirectory {
    /// Contents of the KV bucket; `None` until they have been read.
    pub(crate) contents: watch::Receiver<Option<Contents>>,
    /// Why the directory can't be written; `None` if it was written.
    pub(crate) failure: watch::Receiver<Option<String>>,
}

// === impl PublishedDirectory ===

impl PublishedDirectory {
    /// Returns why the directory does not have the settings of a queue. `None` while it has them,
    /// or gets them within a moment.
    pub(crate) fn pending_settings(
        &self,
        queue: &QueueName,
        spec: &AsyncQueueSpec,
    ) -> Option<String> {
        let why = self.failure.borrow().clone()?;
        let wanted = StoredSettings::new(&queue_settings(spec)).ok()?;
        let contents = self.contents.borrow();
        let entry = contents.as_ref().and_then(|known| known.directory.queues.get(queue));
        let is_current = entry.is_some_and(|entry| entry.settings.as_ref() == Some(&wanted));
        (spec.nats.url.is_none() && !is_current).then_some(why)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use asyncqueue::directory::{Directory, QueueEntry};

    use super::*;

    #[test]
    fn settings_are_pending_while_the_directory_cannot_be_written() {
        let (name, mut spec) = ("jobs".parse().unwrap(), AsyncQueueSpec::default());
        let (contents, failure) = (watch::Sender::new(None), watch::Sender::new(None));
        let published =
            PublishedDirectory { contents: contents.subscribe(), failure: failure.subscribe() };
        // It is about to be written.
        assert_eq!(published.pending_settings(&name, &spec), None);
        let why = Some("waiting for NATS".to_owned());
        failure.send_replace(why.clone());
        assert_eq!(published.pending_settings(&name, &spec), why);
        let settings = Some(StoredSettings::new(&queue_settings(&spec)).unwrap());
        let entry = QueueEntry { settings, ..QueueEntry::new("jobs", "jobs") };
        let queues = [("jobs".parse().unwrap(), entry)].into();
        let directory = Arc::new(Directory { queues, ..Directory::default() });
        contents.send_replace(Some(Contents { directory, is_complete: true }));
        assert_eq!(published.pending_settings(&name, &spec), None);
        spec.max_inflight = 5;
        assert_eq!(published.pending_settings(&name, &spec), why);
        // There is no directory on another NATS.
        spec.nats.url = Some("nats://elsewhere".to_owned());
        assert_eq!(published.pending_settings(&name, &spec), None);
    }
}
