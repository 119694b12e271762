//! A real OCI registry of its own for each test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::OwnedProcess;
use crate::wait::eventually;
use crate::workspace::{installed_or_on_path, skip_test};

const START_LIMIT: Duration = Duration::from_secs(20);
const INSTALL_HINT: &str =
    "no docker-registry found (DOCKER_REGISTRY, .tools/docker-registry, PATH); install it with: \
    scripts/install-tools.sh docker-registry";

/// Debian's `docker-registry` on a port of its own choice. Dropping it kills its process and removes its store.
#[derive(Debug)]
pub struct OciRegistry {
    _process: OwnedProcess,
    address: String,
    _home: TempDir,
}

impl OciRegistry {
    /// Where none is installed the test is skipped (a failure in CI). `extra_config` is text for its configuration.
    pub async fn start_or_skip(extra_config: &str) -> Result<Option<Self>> {
        match find_binary() {
            Some(binary) => Self::start(&binary, extra_config).await.map(Some),
            None => {
                skip_test(INSTALL_HINT);
                Ok(None)
            }
        }
    }

    async fn start(binary: &Path, extra_config: &str) -> Result<Self> {
        let home = tempfile::tempdir().context("a folder for docker-registry")?;
        let file = |name| home.path().join(name);
        let (config, log, store) = (file("config.yml"), file("log"), file("store"));
        let text = format!(
            "version: 0.1\nhttp: {{addr: \"127.0.0.1:0\"}}\nstorage: {{filesystem: {{rootdirectory: {store:?}}}}}\n"
        );
        std::fs::write(&config, text + extra_config)?;
        let log_file = File::options().append(true).create(true).open(&log)?;
        let process = Command::new(binary)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let process = OwnedProcess::new(process, "docker-registry");
        let address = eventually(START_LIMIT, || async { address_in_log(&log) }).await?;
        Ok(Self {
            _process: process,
            address,
            _home: home,
        })
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What lies here under `name:tag`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

fn find_binary() -> Option<PathBuf> {
    let given = std::env::var_os("DOCKER_REGISTRY").filter(|path| !path.is_empty());
    let given = given.map(PathBuf::from).filter(|path| path.is_file());
    given.or_else(|| installed_or_on_path("docker-registry", "docker-registry"))
}

/// The registry binds first and tells then: it can be reached as soon as this succeeds.
fn address_in_log(log: &Path) -> Result<String> {
    let text = std::fs::read_to_string(log)?;
    let (_, after) = text
        .split_once("listening on ")
        .with_context(|| format!("the registry does not listen yet; its log:\n{text}"))?;
    let end = after.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
    Ok(after[..end.context("an unfinished line")?].to_string())
}
