//! `par push` and `par pull`: archives in an OCI registry, as `wash` stores them and hosts fetch them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use clap::Args;
use oci_client::client::{Client, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::OciImageManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::Reference;

use super::archive::VerifiedArchive;
use super::create::{create_parent, unfinished_path};

const LAYER_MEDIA_TYPE: &str = "application/vnd.wasmcloud.provider.archive.layer.v1+par";
const CONFIG_MEDIA_TYPE: &str = "application/vnd.wasmcloud.provider.archive.config";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct Push {
    /// The archive to send
    #[arg(long, value_name = "PATH", default_value = "build/nats-kvcache.par.gz")]
    file: PathBuf,
    #[command(flatten)]
    registry: Registry,
}

#[derive(Args)]
pub struct Pull {
    /// The file to write
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    #[command(flatten)]
    registry: Registry,
}

#[derive(Args)]
struct Registry {
    /// Where the archive lies, e.g. localhost:5000/nats-kvcache:0.1.0
    #[arg(long = "ref", value_name = "REGISTRY/NAME:TAG")]
    reference: String,
    /// Speak plain http; always so with a registry on this machine
    #[arg(long)]
    insecure: bool,
    /// User at the registry; without one, access is anonymous
    #[arg(long, env = "WASH_REG_USER", hide_env_values = true)]
    user: Option<String>,
    /// Password of the user
    #[arg(long, env = "WASH_REG_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

impl Push {
    pub async fn run(self) -> Result<()> {
        let reference = self.registry.reference()?;
        let auth = self.registry.auth()?;
        let (_, bytes) = VerifiedArchive::read_file(&self.file).await.context("--file")?;
        let layers = [ImageLayer::new(bytes, LAYER_MEDIA_TYPE.to_string(), None)];
        let config = Config::new(b"{}".to_vec(), CONFIG_MEDIA_TYPE.to_string(), None);
        let manifest = OciImageManifest::build(&layers, &config, None);
        self.registry
            .client(&reference)
            .push(&reference, &layers, config, &auth, Some(manifest))
            .await
            .with_context(|| format!("pushing to --ref {reference}"))?;
        println!("pushed {} to {reference}", self.file.display());
        Ok(())
    }
}

impl Pull {
    pub async fn run(self) -> Result<()> {
        let reference = self.registry.reference()?;
        let auth = self.registry.auth()?;
        let image = self
            .registry
            .client(&reference)
            .pull(&reference, &auth, vec![LAYER_MEDIA_TYPE])
            .await
            .with_context(|| format!("pulling --ref {reference}"))?;
        let [layer] = image.layers.as_slice() else {
            bail!("{reference}: expected one layer, found {}", image.layers.len());
        };
        VerifiedArchive::from_bytes(&layer.data)
            .await
            .with_context(|| format!("what lies at {reference}"))?;
        create_parent(&self.out)?;
        let unfinished = unfinished_path(&self.out)?;
        std::fs::write(&unfinished, &layer.data)
            .and_then(|()| std::fs::rename(&unfinished, &self.out))
            .with_context(|| format!("writing --out {}", self.out.display()))?;
        println!(
            "pulled {reference} to {} ({} bytes)",
            self.out.display(),
            layer.data.len()
        );
        Ok(())
    }
}

impl Registry {
    fn reference(&self) -> Result<Reference> {
        let given = &self.reference;
        let reference: Reference = given
            .parse()
            .with_context(|| format!("--ref {given:?}: expected REGISTRY/NAME:TAG"))?;
        // The parser fills in "latest", under which hosts of this generation start nothing.
        ensure!(
            given.contains('@') || reference.tag().is_some_and(|tag| tag != "latest"),
            "--ref {given:?}: expected a tag that names a version, as in REGISTRY/NAME:0.1.0"
        );
        Ok(reference)
    }

    /// Empty variables count as not set, as in shells.
    fn auth(&self) -> Result<RegistryAuth> {
        let filled = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        match (filled(&self.user), filled(&self.password)) {
            (Some(user), Some(password)) => Ok(RegistryAuth::Basic(user, password)),
            (None, None) => Ok(RegistryAuth::Anonymous),
            (Some(_), None) => bail!("--user (WASH_REG_USER) needs --password (WASH_REG_PASSWORD)"),
            (None, Some(_)) => bail!("--password (WASH_REG_PASSWORD) needs --user (WASH_REG_USER)"),
        }
    }

    fn client(&self, reference: &Reference) -> Client {
        // Fails only when a provider is installed already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = self.insecure || is_this_machine(reference.registry());
        Client::new(ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(READ_LIMIT),
            ..ClientConfig::default()
        })
    }
}

/// `registry` is `host` or `host:port`.
fn is_this_machine(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(reference: &str) -> Registry {
        Registry {
            reference: reference.to_string(),
            insecure: false,
            user: None,
            password: None,
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http() {
        for local in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_this_machine(local), "{local}");
        }
        for remote in [
            "localhost.example.com",
            "registry.example.com:5000",
            "10.0.0.1:5000",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_this_machine(remote), "{remote}");
        }
    }

    #[test]
    fn a_reference_names_a_version() {
        assert!(registry("localhost:5000/nats-kvcache:0.1.0").reference().is_ok());
        for bad in [
            "localhost:5000/nats-kvcache",
            "localhost:5000/nats-kvcache:latest",
            "localhost:5000/Upper:1",
            "",
        ] {
            let error = registry(bad).reference().unwrap_err().to_string();
            assert!(error.contains("--ref"), "{bad}: {error}");
        }
    }

    #[test]
    fn half_a_login_is_an_error_that_hides_the_password() {
        let half = Registry {
            password: Some("hunter2".to_string()),
            ..registry("localhost:5000/a:1")
        };
        let error = half.auth().unwrap_err().to_string();
        assert!(error.contains("--user") && !error.contains("hunter2"), "{error}");
    }
}
