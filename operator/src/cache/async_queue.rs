//! The cached form of an `AsyncQueue`: everything except the copy of `kubectl apply`.

use super::watch::Cacheable;
use crate::crd::AsyncQueue;

/// The annotation in which `kubectl apply` stores a copy of what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Cacheable for AsyncQueue {
    type Object = Self;

    fn from_object(mut queue: Self) -> Self {
        if let Some(annotations) = &mut queue.metadata.annotations {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                queue.metadata.annotations = None;
            }
        }
        queue
    }
}
