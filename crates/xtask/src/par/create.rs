//! `par create`: the provider binary of this machine's target, signed, in an archive.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, ensure, Context, Result};
use clap::Args;
use provider_archive::ProviderArchive;

use super::keys::{KeyRole, KeyStore};

const CONTRACT_ID: &str = "wasmcloud:keyvalue";
const GZIP: &str = ".par.gz";
const PLAIN: &str = ".par";

#[derive(Args)]
pub struct Create {
    /// The provider binary, e.g. target/release/nats-kvcache
    #[arg(long, value_name = "PATH")]
    bin: PathBuf,
    /// The archive to write; `.par.gz` is compressed, `.par` is not
    #[arg(long, value_name = "PATH", default_value = "build/nats-kvcache.par.gz")]
    out: PathBuf,
    /// Name that hosts show
    #[arg(long, default_value = "NATS replicated key-value cache")]
    name: String,
    /// Who publishes the archive
    #[arg(long, default_value = "nats-kvcache")]
    vendor: String,
    /// Version that hosts show
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
    /// Grows with every build that is to be started: hosts cache archives by provider key and revision
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(0..))]
    revision: i32,
    /// Target the binary was built for
    #[arg(long, value_name = "ARCH-OS", default_value_t = native_target())]
    target: String,
    #[command(flatten)]
    keys: KeyStore,
}

impl Create {
    pub async fn run(self) -> Result<()> {
        let compress = is_compressed_name(&self.out)?;
        let binary = read_binary(&self.bin)?;
        let issuer = self.keys.load_or_generate(KeyRole::Issuer, &self.bin)?;
        let subject = self.keys.load_or_generate(KeyRole::Subject, &self.bin)?;

        let mut archive = self.archive();
        archive
            .add_library(&self.target, &binary)
            .map_err(|error| anyhow!("adding the binary to the archive: {error}"))?;
        create_parent(&self.out)?;
        // Written beside its destination and renamed, so that nobody sees half an archive.
        let unfinished = unfinished_path(&self.out)?;
        archive
            .write(&unfinished, &issuer, &subject, compress)
            .await
            .map_err(|error| anyhow!("writing --out {}: {error}", self.out.display()))?;
        std::fs::rename(&unfinished, &self.out).with_context(|| format!("writing --out {}", self.out.display()))?;

        println!(
            "wrote {} ({} bytes)",
            self.out.display(),
            std::fs::metadata(&self.out)?.len()
        );
        println!("account  {}", issuer.public_key());
        println!("provider {}", subject.public_key());
        Ok(())
    }

    fn archive(&self) -> ProviderArchive {
        ProviderArchive::new(
            CONTRACT_ID,
            &self.name,
            &self.vendor,
            Some(self.revision),
            Some(self.version.clone()),
        )
    }
}

/// The name under which a wasmCloud host looks for the library of its own machine.
pub fn native_target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

fn is_compressed_name(out: &Path) -> Result<bool> {
    let name = out.to_string_lossy();
    ensure!(
        name.ends_with(GZIP) || name.ends_with(PLAIN),
        "--out {name}: expected a name that ends in {GZIP} or {PLAIN}"
    );
    Ok(name.ends_with(GZIP))
}

fn read_binary(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "--bin {}: expected the provider binary (see `make build`)",
            path.display()
        )
    })?;
    ensure!(!bytes.is_empty(), "--bin {}: the file is empty", path.display());
    Ok(bytes)
}

pub fn create_parent(path: &Path) -> Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display())),
        None => Ok(()),
    }
}

/// Keeps the extension: the archive writer appends `.gz` where it is missing.
pub fn unfinished_path(out: &Path) -> Result<PathBuf> {
    let name = out
        .file_name()
        .with_context(|| format!("--out {}: names no file", out.display()))?;
    let unfinished = format!(".unfinished-{}-{}", std::process::id(), name.to_string_lossy());
    Ok(out.with_file_name(unfinished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_follows_the_name() {
        assert!(is_compressed_name(Path::new("build/a.par.gz")).unwrap());
        assert!(!is_compressed_name(Path::new("build/a.par")).unwrap());
        let error = is_compressed_name(Path::new("build/a.zip")).unwrap_err().to_string();
        assert!(error.contains("--out build/a.zip"), "{error}");
    }

    #[test]
    fn the_unfinished_file_lies_beside_its_destination() {
        let path = unfinished_path(Path::new("build/a.par.gz")).unwrap();
        assert_eq!(path.parent(), Some(Path::new("build")));
        assert_eq!(path.extension().unwrap(), "gz");
    }
}
