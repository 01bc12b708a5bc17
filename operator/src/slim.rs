//! What is kept of the objects that queues consist of. There are tens of thousands, and as the API server has them each takes a
//! kilobyte of metadata alone.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, runtime::reflector::Lookup};
use uuid::Uuid;

use crate::crd::AsyncQueue;

/// Of an object `W`, some of its metadata, and what else somebody reads of it.
pub(crate) struct Slim<W, T> {
    pub(crate) meta: Meta,
    pub(crate) rest: T,
    whole: PhantomData<fn() -> W>,
}

/// Of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) uid: Uuid,
    /// The queue that the object belongs to, if it does to one.
    pub(crate) owner: Option<Owner>,
    /// Whether it is being deleted.
    pub(crate) is_going: bool,
}

/// The queue that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: Box<str>,
    pub(crate) uid: Uuid,
}

/// The queue that an object belongs to, if it does to one.
pub(crate) fn owner(object: &ObjectMeta) -> Option<&OwnerReference> {
    object.owner_references.iter().flatten().find(|owner| owner.kind == <AsyncQueue as Resource>::kind(&()))
}

/// An object's uid as the number that it is: Kubernetes' are UUIDs
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#uids>). Nil if there is none.
pub(crate) fn uid(object: &ObjectMeta) -> Uuid {
    object.uid.as_deref().map(number).unwrap_or_default()
}

fn number(uid: &str) -> Uuid {
    uid.parse().unwrap_or_default()
}

// === impl Slim ===

impl<W: Resource<DynamicType = ()>, T> Slim<W, T> {
    pub(crate) fn new(meta: Meta, rest: T) -> Self {
        Self { meta, rest, whole: PhantomData }
    }

    /// What events name the object by.
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

// Not derived: that would ask the same of `W`, of which there is none in here.
impl<W, T: Clone> Clone for Slim<W, T> {
    fn clone(&self) -> Self {
        Self { meta: self.meta.clone(), rest: self.rest.clone(), whole: PhantomData }
    }
}

impl<W, T: Debug> Debug for Slim<W, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slim").field("meta", &self.meta).field("rest", &self.rest).finish_non_exhaustive()
    }
}

/// What a store finds it by: its name and its namespace. A store would keep a copy of all else that is told here.
impl<W: Resource<DynamicType = ()>, T> Lookup for Slim<W, T> {
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

// === impl Meta ===

impl Meta {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let owner =
            owner(meta).map(|owner| Owner { name: owner.name.as_str().into(), uid: number(&owner.uid) });
        Self {
            name: text(&meta.name),
            namespace: text(&meta.namespace),
            uid: uid(meta),
            owner,
            is_going: meta.deletion_timestamp.is_some(),
        }
    }
}
