//! Remembers which Deployments are known to be as they were applied.
//!
//! The watch keeps no spec of the workers' Deployments: for ten thousand queues, the specs would be
//! most of the operator's memory. The API server counts the changes of a spec in
//! `metadata.generation`. A Deployment that was compared in full, or written, is unchanged as long
//! as that number is the same.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, Resource};
use uuid::Uuid;

use super::current::is_current;
use crate::cache::{
    deployment::{CachedDeployment as Workload, RolloutStatus as Rollout},
    fingerprint::Fingerprint,
};

/// The generation in which each Deployment was as it was applied, by uid.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashMap<Uuid, i64>>);

// === impl Verified ===

impl Verified {
    /// Returns whether a Deployment is `wanted`. Reads the spec from the API server only if that is
    /// not known. If the API server does not answer, the Deployment is not current.
    pub(crate) async fn is_current(
        &self,
        live: &Workload,
        wanted: &Deployment,
        client: &Client,
    ) -> bool {
        let is_alike =
            |rollout: &Rollout| rollout.fingerprint == Fingerprint::of(wanted.meta(), ());
        if !live.rollout().is_some_and(is_alike) {
            return false;
        }
        if self.knows(live) {
            return true;
        }
        let api: Api<Deployment> = Api::namespaced(client.clone(), &live.meta.namespace);
        let Ok(Some(whole)) = api.get_opt(&live.meta.name).await else { return false };
        let current = is_current(&whole, wanted);
        if current {
            self.note(&Workload::from_workers(&whole));
        }
        current
    }

    /// Records a Deployment that is as it was applied.
    pub(crate) fn note(&self, deployment: &Workload) {
        if let Some((uid, generation)) = version(deployment) {
            self.generations().insert(uid, generation);
        }
    }

    /// Forgets a Deployment that is being deleted.
    pub(crate) fn forget(&self, deployment: &Workload) {
        self.generations().remove(&deployment.meta.uid);
    }

    fn knows(&self, deployment: &Workload) -> bool {
        version(deployment)
            .is_some_and(|(uid, generation)| self.generations().get(&uid) == Some(&generation))
    }

    fn generations(&self) -> MutexGuard<'_, HashMap<Uuid, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(deployment: &Workload) -> Option<(Uuid, i64)> {
    let uid = Some(deployment.meta.uid).filter(|uid| !uid.is_nil());
    uid.zip(deployment.rollout()?.generation)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_deployment_is_known_until_its_spec_changes() {
        let of = |name: &str, generation| {
            let uid = Some(fixtures::uid(name));
            let metadata =
                ObjectMeta { uid, generation: Some(generation), ..ObjectMeta::default() };
            Workload::from_workers(&Deployment { metadata, ..Deployment::default() })
        };
        let verified = Verified::default();
        assert!(!verified.knows(&of("a", 1)));
        verified.note(&of("a", 1));
        assert!(verified.knows(&of("a", 1)));
        // The Deployment has changed, or it is another one of the same name.
        assert!(!verified.knows(&of("a", 2)));
        assert!(!verified.knows(&of("b", 1)));
        verified.forget(&of("a", 1));
        assert!(!verified.knows(&of("a", 1)));
    }
}
