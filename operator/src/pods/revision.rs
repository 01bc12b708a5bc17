//! Identifies the template from which a worker's pod was created.
//!
//! Kubernetes' own hash of a template is known only after its `ReplicaSet` was read. This one is
//! known before the Deployment is written. Every version of this program must compute the same
//! hash: another one would replace all workers.

use std::{fmt, num::ParseIntError, str::FromStr};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::PodTemplateSpec};
use sha2::{Digest, Sha256};

use crate::labels::REVISION_ANNOTATION;

/// The first 8 bytes of the hash of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision(u64);

/// Adds its own revision to a template.
pub(crate) fn with_revision(mut template: PodTemplateSpec) -> PodTemplateSpec {
    // The JSON has its fields in the order of their names, and no defaults. A template that can't
    // be written as JSON has no hash.
    let fields = serde_json::to_value(&template).map(|value| value.to_string()).unwrap_or_default();
    let digest = <[u8; 32]>::from(Sha256::digest(fields));
    let revision =
        Revision(digest[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)));
    let annotations = &mut template.metadata.get_or_insert_default().annotations;
    annotations
        .get_or_insert_default()
        .insert(REVISION_ANNOTATION.to_owned(), revision.to_string());
    template
}

// === impl Revision ===

impl Revision {
    /// Returns the revision of a Deployment's template.
    pub(crate) fn of(deployment: &Deployment) -> Option<Self> {
        let annotations =
            deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get(REVISION_ANNOTATION)?.parse().ok()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Revision {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn revision(template: &PodTemplateSpec) -> String {
        template.metadata.as_ref().unwrap().annotations.as_ref().unwrap()[REVISION_ANNOTATION]
            .clone()
    }

    fn template(account: &str) -> PodTemplateSpec {
        let annotations = [("a".to_owned(), "b".to_owned())].into();
        let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
        let spec = PodSpec { service_account_name: Some(account.to_owned()), ..PodSpec::default() };
        PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
    }

    #[test]
    fn a_revision_covers_the_template_and_never_changes() {
        let one = with_revision(template("one"));
        // Other versions of this program must compute the same hash: see the top of this file.
        assert_eq!(revision(&one), "03e83e7b066be0da");
        assert_eq!(revision(&one).parse::<Revision>().unwrap().to_string(), revision(&one));
        assert_ne!(revision(&one), revision(&with_revision(template("two"))));
        assert_eq!(one.metadata.unwrap().annotations.unwrap()["a"], "b");
    }
}
