//! Remembers what was applied, so that an object that is up to date needs no request.
//!
//! Each change of an object gives it another resource version. So an object is as it was applied as
//! long as it has the version that the API server returned then. In any other case it is applied
//! again: after a start of the operator, after a change of its status, after a change by somebody
//! else. Server-side apply of what an object already is changes nothing, not even its version.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use uuid::Uuid;

use crate::cache::object::{CachedMeta, resource_version, uid};

/// What was applied last, by the uid of the object.
#[derive(Debug, Default)]
pub(crate) struct AppliedCache(Mutex<HashMap<Uuid, Applied>>);

/// Hash of a desired object. It is kept only in memory: another version of this program may compute
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DesiredHash(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    desired: DesiredHash,
    resource_version: u64,
}

// === impl AppliedCache ===

impl AppliedCache {
    /// Returns whether an object is as it was applied, and whether that is what is desired now.
    pub(super) fn is_up_to_date(&self, live: &CachedMeta, desired: DesiredHash) -> bool {
        let current =
            live.resource_version.map(|version| Applied { desired, resource_version: version });
        current.is_some() && self.lock().get(&live.uid).copied() == current
    }

    /// Records the metadata that the API server returned when the desired object was applied.
    pub(super) fn record(&self, applied: &ObjectMeta, desired: DesiredHash) {
        let uid = Some(uid(applied)).filter(|uid| !uid.is_nil());
        if let Some((uid, resource_version)) = uid.zip(resource_version(applied)) {
            self.lock().insert(uid, Applied { desired, resource_version });
        }
    }

    /// Removes an object that was deleted.
    pub(super) fn forget(&self, object: Uuid) {
        self.lock().remove(&object);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Applied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl DesiredHash ===

impl DesiredHash {
    pub(super) fn new(desired: &impl Serialize) -> Self {
        let mut hasher = DefaultHasher::new();
        // An object that can't be written as JSON can't be applied either.
        serde_json::to_vec(desired).unwrap_or_default().hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn metadata(name: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            uid: Some(fixtures::uid(name)),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn an_object_is_up_to_date_until_it_or_its_desired_state_changes() {
        let (cache, desired) = (AppliedCache::default(), DesiredHash::new(&"a"));
        let is_up_to_date = |name: &str, version: &str, desired| {
            cache.is_up_to_date(&CachedMeta::new(&metadata(name, version)), desired)
        };
        assert!(!is_up_to_date("a", "1", desired));
        cache.record(&metadata("a", "1"), desired);
        assert!(is_up_to_date("a", "1", desired));
        assert!(!is_up_to_date("a", "2", desired));
        assert!(!is_up_to_date("a", "1", DesiredHash::new(&"b")));
        // Another object of the same name.
        assert!(!is_up_to_date("b", "1", desired));
        cache.forget(uid(&metadata("a", "1")));
        assert!(!is_up_to_date("a", "1", desired));
    }

    #[test]
    fn an_object_without_a_numeric_version_is_never_up_to_date() {
        let (cache, desired) = (AppliedCache::default(), DesiredHash::new(&"a"));
        cache.record(&metadata("a", "x"), desired);
        assert!(!cache.is_up_to_date(&CachedMeta::new(&metadata("a", "x")), desired));
    }
}
