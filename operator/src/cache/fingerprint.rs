//! A hash, in eight bytes, of what the operator sets in the metadata of a queue's objects. It shows
//! when these labels and annotations change, without keeping them for tens of thousands of objects.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    cache::object::owner,
    labels::{APPLIED_ANNOTATION, RESERVED_LABELS},
};

/// Hash that is equal for two objects whose fields set by the operator are equal, whatever else
/// their metadata contains. It is kept only in memory: another version of this program may compute
/// another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

// === impl Fingerprint ===

impl Fingerprint {
    /// Returns the hash of an object's metadata and of what else is set in the object.
    pub(crate) fn of(metadata: &ObjectMeta, more: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        let labels = metadata.labels.as_ref();
        for name in RESERVED_LABELS {
            labels.and_then(|labels| labels.get(name)).hash(&mut hasher);
        }
        let annotations = metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(APPLIED_ANNOTATION)).hash(&mut hasher);
        format!("{:?}", owner(metadata)).hash(&mut hasher);
        more.hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Resource;

    use super::*;
    use crate::fixtures;

    #[test]
    fn it_is_of_what_we_set_and_of_nothing_else() {
        let map = |pairs: &[(&str, &str)]| {
            Some(
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            )
        };
        let wanted = ObjectMeta {
            labels: map(&[(RESERVED_LABELS[0], "a"), (RESERVED_LABELS[1], "b")]),
            annotations: map(&[(APPLIED_ANNOTATION, "hash")]),
            owner_references: fixtures::queue("q")
                .controller_owner_ref(&())
                .map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let print = Fingerprint::of(&wanted, true);
        let mut live = wanted.clone();
        live.uid = Some("1".to_owned());
        live.labels.as_mut().unwrap().insert("team".to_owned(), "x".to_owned());
        live.annotations.as_mut().unwrap().insert("note".to_owned(), "x".to_owned());
        live.owner_references.as_mut().unwrap().insert(0, OwnerReference::default());
        assert_eq!(Fingerprint::of(&live, true), print);

        assert_ne!(Fingerprint::of(&wanted, false), print);
        let changes: [fn(&mut ObjectMeta); 5] = [
            |meta| meta.labels = None,
            |meta| _ = meta.labels.as_mut().unwrap().remove(RESERVED_LABELS[1]),
            |meta| {
                _ = meta
                    .labels
                    .as_mut()
                    .unwrap()
                    .insert(RESERVED_LABELS[1].to_owned(), "x".to_owned());
            },
            |meta| meta.annotations = None,
            |meta| meta.owner_references.as_mut().unwrap()[0].controller = None,
        ];
        for change in changes {
            let mut live = wanted.clone();
            change(&mut live);
            assert_ne!(Fingerprint::of(&live, true), print, "{live:?}");
        }
    }
}
