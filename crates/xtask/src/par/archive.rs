//! Reading a provider archive that may come from strangers.
//!
//! `provider-archive` 0.8 compares the libraries with the hashes of the claims, but never checks the signature of the
//! claims, and panics on an archive whose claims and libraries do not belong together. Both is checked here first.

use std::io::Read;
use std::path::Path;

use anyhow::{anyhow, bail, ensure, Context, Result};
use flate2::read::GzDecoder;
use provider_archive::ProviderArchive;
use wascap::jwt::{validate_token, CapabilityProvider, Claims};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const CLAIMS_FILE: &str = "claims.jwt";
/// An archive holds a binary or a few; beyond this it is a bomb.
const UNPACKED_LIMIT: u64 = 1 << 30;

/// An archive whose signature and hashes are right.
pub struct VerifiedArchive {
    pub claims: Claims<CapabilityProvider>,
    /// `ARCH-OS` of each library, sorted.
    pub targets: Vec<String>,
}

impl VerifiedArchive {
    pub async fn read_file(path: &Path) -> Result<(Self, Vec<u8>)> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("{}: expected a provider archive (see `make par`)", path.display()))?;
        let archive = Self::from_bytes(&bytes).await;
        Ok((archive.with_context(|| path.display().to_string())?, bytes))
    }

    pub async fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let content = Content::read(bytes).context("not a provider archive")?;
        let claims = verified_claims(&content.claims_jwt)?;
        let metadata = claims.metadata.as_ref().context("the claims describe no provider")?;
        for target in &content.targets {
            ensure!(
                metadata.target_hashes.contains_key(target),
                "the claims do not cover the library {target}"
            );
        }
        let hashed = ProviderArchive::try_load(bytes).await;
        hashed.map_err(|error| anyhow!("the libraries are not the signed ones: {error}"))?;
        Ok(Self {
            claims,
            targets: content.targets,
        })
    }

    pub fn provider(&self) -> &CapabilityProvider {
        self.claims
            .metadata
            .as_ref()
            .expect("checked when the archive was read")
    }
}

fn verified_claims(jwt: &str) -> Result<Claims<CapabilityProvider>> {
    let validation =
        validate_token::<CapabilityProvider>(jwt).map_err(|error| anyhow!("unreadable claims: {error}"))?;
    ensure!(validation.signature_valid, "the signature of the claims is wrong");
    ensure!(!validation.expired, "the claims expired {}", validation.expires_human);
    ensure!(
        !validation.cannot_use_yet,
        "the claims are valid only {}",
        validation.not_before_human
    );
    let claims = Claims::decode(jwt).map_err(|error| anyhow!("unreadable claims: {error}"))?;
    Ok(claims)
}

/// What lies in the archive, unverified.
struct Content {
    claims_jwt: String,
    targets: Vec<String>,
}

impl Content {
    fn read(bytes: &[u8]) -> Result<Self> {
        let unpacked: Box<dyn Read + '_> = if bytes.starts_with(&GZIP_MAGIC) {
            Box::new(GzDecoder::new(bytes))
        } else {
            Box::new(bytes)
        };
        let mut claims_jwt = None;
        let mut targets = Vec::new();
        for entry in tar::Archive::new(unpacked.take(UNPACKED_LIMIT)).entries()? {
            let mut entry = entry?;
            let name = String::from_utf8(entry.path_bytes().into_owned()).context("a file name is not UTF-8")?;
            if name == CLAIMS_FILE {
                let text = claims_jwt.insert(String::new());
                entry.read_to_string(text).context("the claims are not text")?;
            } else if let Some(target) = name.strip_suffix(".bin") {
                targets.push(target.to_string());
            } else {
                bail!("unexpected file {name:?}");
            }
        }
        targets.sort();
        ensure!(!targets.is_empty(), "it holds no library");
        Ok(Self {
            claims_jwt: claims_jwt.context("it holds no claims")?,
            targets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wascap::prelude::KeyPair;

    const BINARY: &[u8] = b"not really a binary";

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Claims over [`BINARY`] for `x86_64-linux`.
    async fn signed_claims() -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.par");
        let mut archive = ProviderArchive::new("wasmcloud:keyvalue", "n", "v", Some(1), None);
        archive.add_library("x86_64-linux", BINARY).unwrap();
        archive
            .write(&path, &KeyPair::new_account(), &KeyPair::new_service(), false)
            .await
            .unwrap();
        Content::read(&std::fs::read(path).unwrap()).unwrap().claims_jwt
    }

    async fn error_of(files: &[(&str, &[u8])]) -> String {
        let error = VerifiedArchive::from_bytes(&tar_of(files))
            .await
            .err()
            .expect("refused");
        format!("{error:#}")
    }

    #[tokio::test]
    async fn a_sound_archive_is_accepted() {
        let jwt = signed_claims().await;
        let bytes = tar_of(&[("claims.jwt", jwt.as_bytes()), ("x86_64-linux.bin", BINARY)]);
        let archive = VerifiedArchive::from_bytes(&bytes).await.unwrap();
        assert_eq!(archive.targets, ["x86_64-linux"]);
        assert_eq!(archive.provider().capid, "wasmcloud:keyvalue");
    }

    #[tokio::test]
    async fn broken_archives_are_refused_with_a_reason() {
        let jwt = signed_claims().await;
        let (claims, library) = (("claims.jwt", jwt.as_bytes()), ("x86_64-linux.bin", BINARY));
        assert!(error_of(&[claims]).await.contains("no library"));
        assert!(error_of(&[library]).await.contains("no claims"));
        assert!(error_of(&[claims, ("riscv-linux.bin", BINARY)])
            .await
            .contains("do not cover"));
        assert!(error_of(&[claims, library, ("x", b"")])
            .await
            .contains("unexpected file"));
        let other: (&str, &[u8]) = ("x86_64-linux.bin", b"other");
        assert!(error_of(&[claims, other]).await.contains("not the signed ones"));
        let text = VerifiedArchive::from_bytes(b"plain text").await.err().unwrap();
        assert!(format!("{text:#}").contains("not a provider archive"), "{text:#}");
    }

    #[tokio::test]
    async fn a_wrong_signature_is_refused() {
        let (mine, other) = (signed_claims().await, signed_claims().await);
        let (head, _) = mine.rsplit_once('.').unwrap();
        let (_, signature) = other.rsplit_once('.').unwrap();
        let forged = format!("{head}.{signature}");
        let error = error_of(&[("claims.jwt", forged.as_bytes()), ("x86_64-linux.bin", BINARY)]).await;
        assert!(error.contains("signature"), "{error}");
    }
}
