//! A real OCI registry.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait::eventually;
use crate::workspace::{skip_test, workspace_root};

const REGISTRY_LIMIT: Duration = Duration::from_secs(20);

/// Debian's `docker-registry` on a port of its own choice; killed when dropped.
pub struct Registry {
    process: Child,
    address: String,
    _home: tempfile::TempDir,
}

impl Registry {
    /// One with more in its configuration. Where there is none, the test is skipped.
    pub async fn start_or_skip(extra_config: &str) -> Result<Option<Self>> {
        let Some(binary) = registry_binary() else {
            let hint = "no docker-registry found (DOCKER_REGISTRY, .tools/docker-registry, PATH); install it with: \
                scripts/install-tools.sh docker-registry";
            skip_test(hint);
            return Ok(None);
        };
        Self::start(&binary, extra_config).await.map(Some)
    }

    async fn start(binary: &Path, extra_config: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (config, log, store) = (
            home.path().join("config.yml"),
            home.path().join("log"),
            home.path().join("store"),
        );
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
        let mut registry = Self {
            process,
            address: String::new(),
            _home: home,
        };
        registry.address = eventually(REGISTRY_LIMIT, || async { address_in_log(&log) }).await?;
        Ok(registry)
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Of something in it.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn registry_binary() -> Option<PathBuf> {
    let given = std::env::var_os("DOCKER_REGISTRY").filter(|path| !path.is_empty());
    let unpacked = workspace_root().join(".tools/docker-registry/bin/docker-registry");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("docker-registry"));
    let candidates = given.map(PathBuf::from).into_iter().chain([unpacked]).chain(on_path);
    candidates.into_iter().find(|path| path.is_file())
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
