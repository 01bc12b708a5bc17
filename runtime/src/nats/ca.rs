//! Certificate authorities in PEM: for a NATS server, if they are not in a file, and for receivers
//! of callbacks.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Certificates, one of which must have signed the server's certificate.
#[derive(Clone, Debug)]
pub struct CaBundle(Arc<RootCertStore>);

impl CaBundle {
    /// Parses certificates in PEM.
    ///
    /// # Errors
    ///
    /// There is no certificate, or one can't be parsed.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.ok().context("a certificate in it is not valid PEM")?;
            roots.add(certificate).context("a certificate in it can't be read")?;
        }
        ensure!(!roots.is_empty(), "it holds no certificate in PEM");
        Ok(Self(Arc::new(roots)))
    }

    /// Returns the certificates.
    #[must_use]
    pub fn roots(&self) -> &RootCertStore {
        &self.0
    }

    pub(super) fn into_config(self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(self.0).with_no_client_auth()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_certificate_is_refused() {
        let garbage = "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n";
        for (bad, why) in
            [("", "no certificate"), ("hello", "no certificate"), (garbage, "can't be read")]
        {
            let error = format!("{:#}", CaBundle::from_pem(bad).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
