//! Which Deployments are known to be as they were applied.
//!
//! Of workers' Deployments the watch keeps no spec, which for ten thousand queues would be most of what the operator holds.
//! The API server counts the changes of a spec in `metadata.generation`: one that was compared in whole, or written, is
//! still the same for as long as that number is.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, ResourceExt};

use super::current::is_current;

/// The uid and the generation in which the Deployment of each name, with its namespace, was what was applied.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashMap<String, Version>>);

type Version = (String, i64);

// === impl Verified ===

impl Verified {
    /// Whether a Deployment is `wanted`. `live` may lack its spec; the API server is asked for it only where it is
    /// not known. That it does not answer is no reason to take anything for granted.
    pub(crate) async fn is_current(&self, live: &Deployment, wanted: &Deployment, client: &Client) -> bool {
        if !is_current(&metadata(live), &metadata(wanted)) {
            return false;
        }
        if self.knows(live) {
            return true;
        }
        let api: Api<Deployment> = Api::namespaced(client.clone(), &live.namespace().unwrap_or_default());
        let Ok(Some(whole)) = api.get_opt(&live.name_any()).await else { return false };
        let current = is_current(&whole, wanted);
        if current {
            self.note(&whole);
        }
        current
    }

    /// Notes a Deployment that is as it was applied.
    pub(crate) fn note(&self, deployment: &Deployment) {
        if let Some(version) = version(deployment) {
            self.versions().insert(name(deployment), version);
        }
    }

    /// Forgets one that goes.
    pub(crate) fn forget(&self, deployment: &Deployment) {
        self.versions().remove(&name(deployment));
    }

    fn knows(&self, deployment: &Deployment) -> bool {
        version(deployment).is_some_and(|version| self.versions().get(&name(deployment)) == Some(&version))
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<String, Version>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(deployment: &Deployment) -> String {
    format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any())
}

fn version(deployment: &Deployment) -> Option<Version> {
    deployment.metadata.uid.clone().zip(deployment.metadata.generation)
}

fn metadata(deployment: &Deployment) -> Deployment {
    Deployment { metadata: deployment.metadata.clone(), ..Deployment::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_deployment_is_known_until_its_spec_changes() {
        let of = |uid: &str, generation| {
            let mut deployment = fixtures::function("q-worker", None);
            deployment.metadata.uid = Some(uid.to_owned());
            deployment.metadata.generation = Some(generation);
            deployment
        };
        let verified = Verified::default();
        assert!(!verified.knows(&of("a", 1)));
        verified.note(&of("a", 1));
        assert!(verified.knows(&of("a", 1)));
        // Somebody has changed it, or it is another of the same name.
        assert!(!verified.knows(&of("a", 2)));
        assert!(!verified.knows(&of("b", 1)));
        verified.forget(&of("a", 1));
        assert!(!verified.knows(&of("a", 1)));
    }
}
