//! The source of the directory: the operator, a file, or none.

use asyncqueue::{directory::Directory, reserved_names};
use asyncqueue_runtime::program::UsageError;

use crate::{directory_file::DirectoryFile, settings::Settings};

/// The source of the directory.
#[derive(Clone, Debug)]
pub(crate) enum DirectorySource {
    /// The KV bucket that the operator writes.
    Operator,
    /// A file, and its content when the program started.
    File(DirectoryFile, Directory),
    /// No source: all functions use the default queue.
    Empty,
}

// === impl DirectorySource ===

impl DirectorySource {
    /// Returns the source that the settings name. Reads the file if it is one.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Self> {
        let source = match settings.directory_file.as_ref() {
            Some(path) => {
                let file = DirectoryFile {
                    path: path.as_path().into(),
                    namespace: settings.function_namespace.clone(),
                    default_queue: settings.default_queue.clone(),
                };
                let directory = file.read()?;
                Self::File(file, directory)
            }
            None if settings.ensure_stream => Self::Empty,
            None => Self::Operator,
        };
        let lists_default_queue = match &source {
            Self::Operator => true,
            Self::File(_, directory) => directory.queues.contains_key(&settings.default_queue),
            Self::Empty => false,
        };
        if !lists_default_queue {
            reserved_names::check_queue(&settings.default_queue, false)
                .map_err(|error| UsageError(format!("default_queue: {error}")))?;
        }
        Ok(source)
    }
}
