//! The cached form of an object: only its used parts. There are tens of thousands of objects, and
//! each complete one has a kilobyte of metadata alone.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, runtime::reflector::Lookup};
use uuid::Uuid;

use crate::crd::AsyncQueue;

/// The used parts of an object `W`: some of its metadata, and other data.
pub(crate) struct CachedObject<W, T> {
    pub(crate) meta: CachedMeta,
    pub(crate) data: T,
    object: PhantomData<fn() -> W>,
}

/// The used parts of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CachedMeta {
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) uid: Uuid,
    pub(crate) resource_version: Option<u64>,
    /// The queue to which the object belongs, if any.
    pub(crate) owner: Option<Owner>,
    /// Whether it is being deleted.
    pub(crate) is_terminating: bool,
}

/// The queue to which an object belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: Box<str>,
    pub(crate) uid: Uuid,
}

/// Returns the queue to which an object belongs, if any.
pub(crate) fn owner(object: &ObjectMeta) -> Option<&OwnerReference> {
    object
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.kind == <AsyncQueue as Resource>::kind(&()))
}

/// Returns an object's uid as a number: the uids of Kubernetes are UUIDs
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#uids>). Nil if the
/// object has no uid.
pub(crate) fn uid(object: &ObjectMeta) -> Uuid {
    object.uid.as_deref().map(parse_uid).unwrap_or_default()
}

/// Returns an object's version. Versions of one kind of objects are numbers that grow:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>. `None` if a
/// version is not a number.
pub(crate) fn resource_version(object: &ObjectMeta) -> Option<u64> {
    object.resource_version.as_deref()?.parse().ok()
}

fn parse_uid(uid: &str) -> Uuid {
    uid.parse().unwrap_or_default()
}

// === impl CachedObject ===

impl<W: Resource<DynamicType = ()>, T> CachedObject<W, T> {
    pub(crate) fn new(meta: CachedMeta, data: T) -> Self {
        Self { meta, data, object: PhantomData }
    }

    /// Returns the reference to the object for events.
    pub(crate) fn object_ref(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(W::api_version(&()).into_owned()),
            kind: Some(W::kind(&()).into_owned()),
            name: Some(self.meta.name.to_string()),
            namespace: Some(self.meta.namespace.to_string()),
            uid: Some(self.meta.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

// Not derived: that would require the same of `W`, of which no value is stored.
impl<W, T: Clone> Clone for CachedObject<W, T> {
    fn clone(&self) -> Self {
        Self { meta: self.meta.clone(), data: self.data.clone(), object: PhantomData }
    }
}

impl<W, T: Debug> Debug for CachedObject<W, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedObject")
            .field("meta", &self.meta)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// A store finds the object by its name and its namespace. It would keep a copy of everything else
/// that is returned here.
impl<W: Resource<DynamicType = ()>, T> Lookup for CachedObject<W, T> {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        W::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        W::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        W::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        W::plural(&())
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&*self.meta.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&*self.meta.namespace))
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}

// === impl CachedMeta ===

impl CachedMeta {
    pub(crate) fn new(meta: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let owner = owner(meta)
            .map(|owner| Owner { name: owner.name.as_str().into(), uid: parse_uid(&owner.uid) });
        Self {
            name: text(&meta.name),
            namespace: text(&meta.namespace),
            uid: uid(meta),
            resource_version: resource_version(meta),
            owner,
            is_terminating: meta.deletion_timestamp.is_some(),
        }
    }
}
