//! Signatures of callbacks, by the Standard Webhooks specification (`standard-webhooks/standard-webhooks`,
//! `spec/standard-webhooks.md`), so that a receiver can tell our callbacks from anybody's and one from its
//! repeat.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tracing::warn;

/// The header that identifies a callback: the same for each attempt to deliver it.
pub(crate) const H_ID: &str = "webhook-id";
/// The header with the time of the attempt, in seconds since 1970.
pub(crate) const H_TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures, one for each secret.
pub(crate) const H_SIGNATURE: &str = "webhook-signature";

/// What a secret begins with, where it is written as the specification says.
const SECRET_PREFIX: &str = "whsec_";

/// The specification's bounds for a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with the secrets of a file, which is read again for each callback: a secret that is rotated counts at
/// once, without a restart.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    file: PathBuf,
    last: Arc<Mutex<Secrets>>,
}

/// Secrets, the newest first. While one replaces another, both sign.
#[derive(Clone, PartialEq, Eq)]
struct Secrets(Vec<Vec<u8>>);

// === impl Signer ===

impl Signer {
    /// A signer with the secrets of a file: one `whsec_…` a line.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or that holds no secret or something else.
    pub(crate) fn open(file: PathBuf) -> anyhow::Result<Self> {
        let secrets = read(&file)?;
        Ok(Self { file, last: Arc::new(Mutex::new(secrets)) })
    }

    /// The value of [`H_SIGNATURE`].
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.file) {
            Ok(secrets) => *last = secrets,
            Err(error) => warn!("callbacks are signed with the last secrets known: {error:#}"),
        }
        last.sign(id, timestamp, body)
    }
}

fn read(file: &PathBuf) -> anyhow::Result<Secrets> {
    let name = || format!("callback_signing_secret_file `{}`", file.display());
    let text = std::fs::read_to_string(file).with_context(|| format!("{} can't be read", name()))?;
    Secrets::parse(&text).with_context(|| format!("{} is not valid", name()))
}

// === impl Secrets ===

impl Secrets {
    /// Reads secrets, separated by white space. The error does not show what is wrong with which characters.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let secrets = text
            .split_whitespace()
            .enumerate()
            .map(|(index, secret)| {
                let secret = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
                STANDARD
                    .decode(secret)
                    .ok()
                    .filter(|secret| SECRET_BYTES.contains(&secret.len()))
                    .with_context(|| {
                        format!("secret {} must be {SECRET_PREFIX} and 24 to 64 bytes in base64", index + 1)
                    })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        anyhow::ensure!(!secrets.is_empty(), "it holds no secret");
        Ok(Self(secrets))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().filter_map(|secret| {
            // HMAC takes a key of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the specification's own libraries are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_published_vector_holds() {
        assert_eq!(Secrets::parse(SECRET).unwrap().sign(ID, TIMESTAMP, BODY), SIGNATURE);
        let bare = SECRET.strip_prefix("whsec_").unwrap();
        assert_eq!(Secrets::parse(bare).unwrap().sign(ID, TIMESTAMP, BODY), SIGNATURE);
    }

    /// Published by Svix (docs.svix.com, "Verifying payloads manually"); its secret is shorter than the specification allows.
    #[test]
    fn the_published_vector_of_another_secret_holds() {
        let secrets = Secrets(vec![STANDARD.decode("plJ3nmyCDGBKInavdOK15jsl").unwrap()]);
        let body = br#"{"event_type":"ping","data":{"success":true}}"#;
        let signature = secrets.sign("msg_loFOjxBNrRLzqYUf", 1_731_705_121, body);
        assert_eq!(signature, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=");
    }

    #[test]
    fn while_a_secret_is_rotated_both_sign() {
        let new = format!("whsec_{}", STANDARD.encode([7; 32]));
        let both = Secrets::parse(&format!("{new}\n{SECRET}\n")).unwrap().sign(ID, TIMESTAMP, BODY);
        let signatures: Vec<_> = both.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        assert_eq!(signatures[1], SIGNATURE);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for bad in ["", "  \n", "whsec_c2hvcnQ=", "hunter2", &format!("{SECRET} hunter2")] {
            let error = format!("{:#}", Secrets::parse(bad).unwrap_err());
            assert!(!error.contains("hunter2") && !error.contains("c2hvcnQ"), "{error}");
        }
    }

    #[test]
    fn a_rotated_file_counts_at_once_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let signer = Signer::open(file.path().to_owned()).unwrap();
        assert_eq!(signer.sign(ID, TIMESTAMP, BODY), SIGNATURE);
        std::fs::write(file.path(), format!("whsec_{}", STANDARD.encode([7; 32]))).unwrap();
        let rotated = signer.sign(ID, TIMESTAMP, BODY);
        assert_ne!(rotated, SIGNATURE);
        std::fs::write(file.path(), "").unwrap();
        assert_eq!(signer.sign(ID, TIMESTAMP, BODY), rotated);
    }
}
