//! The real `wash` of hosts 0.5x to 0.8x, and the targets of the Makefile that run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::workspace::{skip_test, workspace_root};

const INSTALL_HINT: &str = "no wash in .tools/wash; build it with: scripts/install-tools.sh wash";

/// The `wash` that `scripts/install-tools.sh` builds, with keys, caches and logins of its own.
#[derive(Debug)]
pub struct Wash {
    folder: PathBuf,
    home: TempDir,
}

impl Wash {
    /// Where it is not built the test is skipped (a failure in CI).
    pub fn find_or_skip() -> Result<Option<Self>> {
        let folder = workspace_root().join(".tools/wash/bin");
        if !folder.join("wash").is_file() {
            skip_test(INSTALL_HINT);
            return Ok(None);
        }
        let home = tempfile::tempdir().context("a home folder for wash")?;
        Ok(Some(Self { folder, home }))
    }

    /// `wash` with arguments to come.
    pub fn command(&self) -> Command {
        self.at_home(Command::new(self.folder.join("wash")))
    }

    /// `make TARGET NAME=VALUE...` of this repository, with `wash` on `PATH`.
    pub fn make(&self, target: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new("make");
        command.arg("--no-print-directory").arg(target);
        command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        // What a make around the tests was told is not meant for this one.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"] {
            command.env_remove(variable);
        }
        self.at_home(command)
    }

    /// Nobody's own keys sign, and nobody's own `wash` and settings are taken.
    fn at_home(&self, mut command: Command) -> Command {
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("WASH_") || name.starts_with("WASMCLOUD_") {
                command.env_remove(&variable);
            }
        }
        command.current_dir(workspace_root()).stdin(std::process::Stdio::null());
        command.env("HOME", self.home.path()).env("TMPDIR", self.home.path());
        command.env("PATH", path_beginning_with(&self.folder));
        command
    }
}

fn path_beginning_with(folder: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.to_path_buf()].into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("the checkout lies under a path without colons")
}
