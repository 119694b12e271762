//! What the connection to NATS proves itself with, and what it trusts.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{crypto, ClientConfig, RootCertStore};
use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};

use super::address::with_user_of;
use super::error::NatsError;
use crate::secret::Secret;

/// No file of certificates, keys or credentials is longer.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// How this node proves to NATS who it is.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Not at all, or by user and password in the address.
    #[default]
    None,
    /// User JWT, and the seed that signs the server's nonce.
    Jwt {
        /// The JWT.
        jwt: Secret,
        /// The seed.
        seed: UserSeed,
    },
    /// A file with both, as `nsc` writes it. Read again for every attempt, so that it can be renewed.
    File(PathBuf),
    /// A token.
    Token(Secret),
}

/// The seed of a user. Signs, and never prints.
#[derive(Clone)]
pub struct UserSeed(Arc<nkeys::KeyPair>);

/// Why a text is not a seed. Does not repeat it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SeedError(String);

impl FromStr for UserSeed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        match nkeys::KeyPair::from_seed(text) {
            Ok(pair) => Ok(UserSeed(Arc::new(pair))),
            Err(error) => Err(SeedError(error.to_string())),
        }
    }
}

impl PartialEq for UserSeed {
    fn eq(&self, other: &Self) -> bool {
        self.0.public_key() == other.0.public_key()
    }
}

impl Eq for UserSeed {}

impl fmt::Debug for UserSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "none",
            Credentials::Jwt { .. } => "user JWT",
            Credentials::File(_) => "credentials file",
            Credentials::Token(_) => "token",
        })
    }
}

impl Credentials {
    /// Options with these credentials, or with the user of an address.
    pub(super) fn options(&self, addresses: &[ServerAddr]) -> Result<ConnectOptions, NatsError> {
        let options = ConnectOptions::new();
        Ok(match self {
            Credentials::None => match addresses.iter().find(|address| address.has_user_pass()) {
                Some(address) => with_user_of(options, address),
                None => options,
            },
            Credentials::Jwt { jwt, seed } => {
                let key = seed.0.clone();
                options.jwt(jwt.0.clone(), move |nonce| {
                    let key = key.clone();
                    async move { key.sign(&nonce).map_err(AuthError::new) }
                })
            }
            Credentials::File(path) => {
                check_credentials_file(path).map_err(|reason| NatsError::file(path, reason))?;
                let path = path.clone();
                ConnectOptions::with_auth_callback(move |nonce| {
                    let auth = sign_with_file(&path, &nonce);
                    async move { auth.map_err(AuthError::new) }
                })
            }
            Credentials::Token(token) => options.token(token.0.clone()),
        })
    }
}

fn sign_with_file(path: &Path, nonce: &[u8]) -> Result<Auth, String> {
    let (jwt, key) = read_credentials_file(path).map_err(|reason| format!("{}: {reason}", path.display()))?;
    let mut auth = Auth::new();
    auth.jwt = Some(jwt);
    auth.signature = Some(key.sign(nonce).map_err(|error| error.to_string())?);
    Ok(auth)
}

/// Whether a file holds a user JWT and its seed; says why not, without its content.
pub fn check_credentials_file(path: &Path) -> Result<(), String> {
    read_credentials_file(path).map(drop)
}

fn read_credentials_file(path: &Path) -> Result<(String, nkeys::KeyPair), String> {
    let text = String::from_utf8(read_file(path)?).map_err(|_| "it is no text")?;
    // What a heading announces stands in the line below it.
    let mut lines = text.lines().map(str::trim);
    let mut below = |heading: &str| {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(heading))?;
        lines.next().filter(|line| !line.is_empty() && !line.starts_with('-'))
    };
    let jwt = below("JWT").ok_or("it has no user JWT ('-----BEGIN NATS USER JWT-----')")?;
    let seed = below("SEED").ok_or("it has no seed ('-----BEGIN USER NKEY SEED-----') after the JWT")?;
    let key = nkeys::KeyPair::from_seed(seed).map_err(|error| format!("its seed is not valid ({error})"))?;
    Ok((jwt.to_owned(), key))
}

/// What TLS of the connection is set up with. Without anything here, the certificates that the system trusts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// File of the authorities that are trusted, in place of those of the system.
    pub authorities: Option<PathBuf>,
    /// Files of the client's own certificate and of its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Tls::default()
    }

    /// The files are read again for every attempt. `insist`: without TLS there is no connection, also to an address
    /// that does not ask for it.
    pub(super) fn apply(&self, mut options: ConnectOptions, insist: bool) -> Result<ConnectOptions, NatsError> {
        // Which implementation there is must not depend on what else is built in. An error says that one is chosen.
        let _ = crypto::ring::default_provider().install_default();
        if let Some(file) = &self.authorities {
            check_authorities(file).map_err(|reason| NatsError::file(file, reason))?;
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            check_certificate(certificate, key).map_err(|reason| NatsError::file(certificate, reason))?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options.require_tls(insist))
    }
}

/// Whether a file holds certificates of authorities; says why not.
pub fn check_authorities(file: &Path) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store
            .add(certificate)
            .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
    }
    Ok(())
}

/// Whether two files hold a certificate and the key that belongs to it; says why not.
pub fn check_certificate(certificate: &Path, key: &Path) -> Result<(), String> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(key).map_err(|reason| format!("its key: {reason}"))?)
        .map_err(|_| "its key: no private key in PEM ('-----BEGIN PRIVATE KEY-----') in the file")?;
    let builder = ClientConfig::builder_with_provider(crypto::ring::default_provider().into());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    builder
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("certificate and key cannot be used together: {error}"))?;
    Ok(())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = read_file(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates = certificates.map_err(|_| "it is no valid PEM")?;
    match certificates.is_empty() {
        true => Err("no certificate in PEM ('-----BEGIN CERTIFICATE-----') in it".into()),
        false => Ok(certificates),
    }
}

/// Plain files only: reading a pipe waits for its writer.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is no file".into());
    }
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).map_err(cannot)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_credentials_file_is_read_and_its_faults_are_named_without_its_content() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let text = |jwt: &str, seed: &str| {
            format!(
                "-----BEGIN NATS USER JWT-----\r\n{jwt}\r\n------END NATS USER JWT------\r\n\n*** IMPORTANT ***\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            )
        };
        let (jwt, key) = read_credentials_file(file(&text("e30.tell-nobody", &seed)).path()).unwrap();
        assert_eq!((jwt.as_str(), key.seed().unwrap()), ("e30.tell-nobody", seed));
        for (content, part) in [
            (String::new(), "no user JWT"),
            ("tell-nobody".into(), "no user JWT"),
            ("-----BEGIN NATS USER JWT-----\ntell-nobody\n".into(), "no seed"),
            (text("", "SUtell-nobody"), "no user JWT"),
            (text("tell-nobody", "SUtell-nobody"), "not valid"),
        ] {
            let error = check_credentials_file(file(&content).path()).unwrap_err();
            assert!(
                error.contains(part) && !error.contains("tell-nobody"),
                "{content}: {error}"
            );
        }
        assert!(check_credentials_file(Path::new("/nowhere/at/all"))
            .unwrap_err()
            .contains("No such file"));
        assert!(check_credentials_file(Path::new("/dev/zero"))
            .unwrap_err()
            .contains("no file"));
    }

    #[test]
    fn files_for_tls_are_checked() {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let [certificate, key, other] = [
            signed.cert.pem(),
            signed.signing_key.serialize_pem(),
            other.serialize_pem(),
        ]
        .map(|text| file(&text));
        assert_eq!(check_authorities(certificate.path()), Ok(()));
        assert_eq!(check_certificate(certificate.path(), key.path()), Ok(()));
        assert!(check_authorities(key.path()).unwrap_err().contains("no certificate"));
        assert!(check_certificate(certificate.path(), certificate.path())
            .unwrap_err()
            .contains("no private key"));
        assert!(check_certificate(certificate.path(), other.path())
            .unwrap_err()
            .contains("together"));
    }
}
