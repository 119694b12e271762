//! Whom a TLS connection trusts. The provider is ring, whatever else is built in.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::options::TlsOptions;

/// The configuration of a client, or why there is none.
pub(crate) fn config(options: &TlsOptions) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(match &options.authorities {
        Some(file) => authorities(file).map_err(|reason| format!("ca={}: {reason}", file.display()))?,
        None => of_this_machine()?,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = match options.names {
        true => verifier,
        false => Arc::new(AnyName(verifier)),
    };
    let config = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
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

/// Trusts who has a certificate of the authorities, whatever names are in it. The driver knows servers by their
/// addresses, which certificates often leave out; authorities that certify nothing but these servers make up for it.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            // The name comes last: all else is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};
    use std::io::Write;
    use tempfile::NamedTempFile;

    struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = rcgen::KeyPair::generate().unwrap();
            Authority(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
        }

        fn file(&self) -> NamedTempFile {
            file(&self.0.pem())
        }

        fn server(&self, name: &str) -> ServerConnection {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
            ServerConnection::new(Arc::new(config)).unwrap()
        }
    }

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn trusting(file: &NamedTempFile, names: bool) -> Arc<ClientConfig> {
        config(&TlsOptions {
            authorities: Some(file.path().into()),
            names,
        })
        .unwrap()
    }

    /// Whether a client of this configuration takes this server for the one at 127.0.0.1.
    fn trusts(config: Arc<ClientConfig>, mut server: ServerConnection) -> bool {
        let mut client = ClientConnection::new(config, ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut bytes.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
            if !client.is_handshaking() {
                return true;
            }
        }
        panic!("they do not come to an end");
    }

    #[test]
    fn only_servers_of_the_authorities_are_trusted() {
        let (ours, other) = (Authority::new(), Authority::new());
        let file = ours.file();
        assert!(trusts(trusting(&file, true), ours.server("127.0.0.1")));
        assert!(!trusts(trusting(&file, true), ours.server("elsewhere")));
        assert!(trusts(trusting(&file, false), ours.server("elsewhere")));
        for names in [true, false] {
            assert!(!trusts(trusting(&file, names), other.server("127.0.0.1")), "of others");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (file, expected) in [
            (file("hello"), "no certificate in PEM"),
            (file(""), "no certificate in PEM"),
        ] {
            let error = authorities(file.path()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = authorities(Path::new("/nowhere.pem")).unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
