//! Mounts the Secrets that workers read as files. They are not copied, and a change reaches a
//! running worker.

use asyncqueue_runtime::contract::setting;
use k8s_openapi::api::core::v1::{EnvVar, KeyToPath, SecretVolumeSource, Volume, VolumeMount};

use crate::{
    controller::validate::ValidatedQueue, crd::SecretKey, worker_defaults::WorkerDefaults,
};

/// The directory with a subdirectory for each Secret.
const FOLDER: &str = "/run/secrets/asyncqueue";

/// The name of the file in each subdirectory.
const FILE: &str = "value";

/// A key of a Secret, and the setting with the path of its file.
pub(super) struct MountedSecret<'a> {
    name: &'static str,
    variable: &'static str,
    key: &'a SecretKey,
}

/// Returns the Secrets that the queue names. On the operator's own NATS, those of the installation
/// are the default.
pub(super) fn mounted<'a>(
    queue: &'a ValidatedQueue,
    defaults: &'a WorkerDefaults,
) -> Vec<MountedSecret<'a>> {
    let nats = &queue.nats;
    let or_common = |own: &'a Option<SecretKey>, common: &'a Option<SecretKey>| {
        own.as_ref().or(common.as_ref().filter(|_| nats.url.is_none()))
    };
    let credentials = or_common(&nats.credentials_secret_ref, &defaults.nats_credentials);
    let authority = or_common(&nats.ca_secret_ref, &defaults.nats_ca);
    let certificate = or_common(&None, &defaults.nats_tls_cert);
    let private_key = or_common(&None, &defaults.nats_tls_key);
    let secrets = [
        ("nats-credentials", setting::NATS_CREDS_FILE, credentials),
        ("nats-ca", setting::NATS_TLS_CA_FILE, authority),
        ("nats-tls-cert", setting::NATS_TLS_CERT_FILE, certificate),
        ("nats-tls-key", setting::NATS_TLS_KEY_FILE, private_key),
        (
            "callback-signing",
            setting::CALLBACK_SIGNING_SECRET_FILE,
            queue.callback.signing_secret_ref.as_ref(),
        ),
        ("callback-ca", setting::CALLBACK_CA_FILE, queue.callback.ca_secret_ref.as_ref()),
    ];
    let named = |(name, variable, key): (_, _, Option<_>)| {
        key.map(|key| MountedSecret { name, variable, key })
    };
    secrets.into_iter().filter_map(named).collect()
}

// === impl MountedSecret ===

impl MountedSecret<'_> {
    pub(super) fn variable(&self) -> EnvVar {
        let file = format!("{FOLDER}/{}/{FILE}", self.name);
        EnvVar { name: self.variable.to_owned(), value: Some(file), ..EnvVar::default() }
    }

    pub(super) fn mount(&self) -> VolumeMount {
        VolumeMount {
            name: self.name.to_owned(),
            // The directory is mounted: a single file is not replaced when the Secret changes.
            mount_path: format!("{FOLDER}/{}", self.name),
            read_only: Some(true),
            ..VolumeMount::default()
        }
    }

    pub(super) fn volume(&self) -> Volume {
        Volume {
            name: self.name.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(self.key.name.clone()),
                items: Some(vec![KeyToPath {
                    key: self.key.key.clone(),
                    path: FILE.to_owned(),
                    mode: None,
                }]),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }
    }
}
