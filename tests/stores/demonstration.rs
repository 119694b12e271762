//! `make run STORE=...`: what it shows, and that it notices what is missing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{anyhow, ensure, Context, Result};
use tempfile::TempDir;
use testkit::{xtask_beside, NatsServer};
use tokio::process::Command;

use crate::hosts::BINARY;

#[tokio::test]
async fn hosts_that_were_killed_at_once_are_shown_with_everything() -> Result<()> {
    let folder = TempDir::new()?;
    let Some((succeeded, said)) = demonstrate(Path::new(BINARY), "file", folder.path()).await? else {
        return Ok(());
    };
    ensure!(succeeded, "{said}");
    for part in [
        "All three hosts die at once (SIGKILL)",
        "A, B, C: get visits = 12",
        "A, B, C: get note = (none)",
        "B: increment visits by 1 (answers 13)",
        "nothing is missing",
    ] {
        ensure!(said.contains(part), "{part:?} is not shown:\n{said}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_after_the_kill_is_a_failure() -> Result<()> {
    let folder = TempDir::new()?;
    // A provider that begins without what was kept.
    let forgetful = folder.path().join("provider");
    let script = format!(
        "#!/bin/sh\nrm -rf {}/nats-kvcache-*/*\nexec {BINARY} \"$@\"\n",
        folder.path().display()
    );
    std::fs::write(&forgetful, script)?;
    std::fs::set_permissions(&forgetful, std::fs::Permissions::from_mode(0o755))?;
    let Some((succeeded, said)) = demonstrate(&forgetful, "file", folder.path()).await? else {
        return Ok(());
    };
    ensure!(
        !succeeded && said.contains("They start again") && said.contains("error: get greeting through host A"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_store_that_three_hosts_cannot_use_is_refused_by_name() -> Result<()> {
    let folder = TempDir::new()?;
    let Some((succeeded, said)) = demonstrate(Path::new(BINARY), "file:/one/folder", folder.path()).await? else {
        return Ok(());
    };
    ensure!(!succeeded && said.contains("expected STORE=file"), "{said}");
    Ok(())
}

/// Whether it ends with 0, and all that it says; `None` where the test is to be skipped.
async fn demonstrate(provider: &Path, store: &str, folder: &Path) -> Result<Option<(bool, String)>> {
    // It starts one of its own; this one says whether there is any.
    if NatsServer::builder().start_or_skip().await.is_none() {
        return Ok(None);
    }
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let xtask = BUILT.get_or_init(|| xtask_beside(Path::new(BINARY)).map_err(|error| format!("{error:#}")));
    let mut command = Command::new(xtask.as_ref().map_err(|error| anyhow!("{error}"))?);
    command
        .args(["dev-lattice", "--store", store, "--binary"])
        .arg(provider);
    let output = command.env("TMPDIR", folder).kill_on_drop(true).output();
    let output = output.await.context("the demonstration")?;
    let said = [&output.stdout[..], &output.stderr].concat();
    Ok(Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )))
}
