//! Whom a TLS connection trusts. The provider is ring, whatever else is built in.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::options::Options;

/// The configuration of a client, or why there is none. Without TLS it trusts nobody, and nobody asks it to.
pub(crate) fn config(options: &Options) -> Result<ClientConfig, String> {
    let roots = match (&options.authorities, options.tls) {
        (_, false) => RootCertStore::empty(),
        (Some(file), true) => authorities(file).map_err(|reason| format!("ca={}: {reason}", file.display()))?,
        (None, true) => of_this_machine()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let content = std::fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|_| "it is no valid PEM")?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
    }
    match roots.is_empty() {
        true => Err("no certificate in PEM ('-----BEGIN CERTIFICATE-----') in it".into()),
        false => Ok(roots),
    }
}

fn of_this_machine() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("this machine trusts no authorities: name yours with ca=/path/to/ca.pem".into()),
        false => Ok(roots),
    }
}
