//! Decides which functions may use which queues. Pure.

use std::collections::HashMap;

use asyncqueue::{
    FunctionName, QueueName,
    function_namespaces::{FunctionNamespaces, NamespaceRefused},
};
use kube::ResourceExt;

use crate::crd::AsyncQueue;

/// Decides which functions the queues admit.
#[derive(Clone, Debug)]
pub(crate) struct Admission<'a> {
    namespaces: &'a FunctionNamespaces,
    /// The default queue admits all functions: it takes the calls of those that no other queue
    /// takes.
    default_queue: Option<&'a QueueName>,
    /// For each name, the queue that counts.
    queues: HashMap<String, &'a AsyncQueue>,
}

// === impl Admission ===

impl<'a> Admission<'a> {
    /// Creates the admission of functions to these queues. Of several queues with one name, the one
    /// that has its stream counts.
    pub(crate) fn new(
        namespaces: &'a FunctionNamespaces,
        default_queue: Option<&'a QueueName>,
        queues: impl IntoIterator<Item = &'a AsyncQueue>,
    ) -> Self {
        let mut by_name: HashMap<String, &AsyncQueue> = HashMap::new();
        for queue in queues {
            let known = by_name.entry(queue.name_any()).or_insert(queue);
            if queue.owns_stream() && !known.owns_stream() {
                *known = queue;
            }
        }
        Self { namespaces, default_queue, queues: by_name }
    }

    /// Returns the queue of this name, as `namespace/name`, if it does not take calls of a
    /// function.
    pub(super) fn refused_by(&self, function: &FunctionName, queue: &str) -> Option<String> {
        if self.default_queue.is_some_and(|default| default.as_str() == queue) {
            return None;
        }
        let queue = self.queues.get(queue).copied()?;
        let (namespace, own) = (function.namespace(), queue.namespace().unwrap_or_default());
        let listed = &queue.spec.functions.namespaces;
        let is_admitted = namespace == own
            || namespace == self.namespaces.default_namespace()
            || listed.iter().any(|name| name == "*" || name == namespace);
        (!is_admitted).then(|| queue.namespaced_name())
    }

    /// Checks whether functions of a namespace are called at all.
    pub(super) fn check_namespace(&self, function: &FunctionName) -> Result<(), NamespaceRefused> {
        self.namespaces.check_never(function.namespace())
    }
}
