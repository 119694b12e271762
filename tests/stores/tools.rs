//! `nats-kvcache store`: copy, verify, dump.

use std::process::{Command, Output};

use anyhow::{ensure, Result};
use serde_json::{json, Value};
use tempfile::TempDir;

use crate::hosts::{Hosts, BINARY};

fn store(arguments: &[&str]) -> Result<(Output, String)> {
    let output = Command::new(BINARY).arg("store").args(arguments).output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((output, said))
}

#[tokio::test]
async fn a_store_is_checked_copied_and_written_out() -> Result<()> {
    let Some(mut hosts) = Hosts::new(1, json!({})).await? else {
        return Ok(());
    };
    hosts.start_all().await?;
    let said = |error| anyhow::anyhow!("{error}");
    let client = hosts.client(0).await?;
    client
        .set("text", "value with \"quotes\"\nand lines")
        .await
        .map_err(said)?;
    client.increment("number", 41).await.map_err(said)?;
    client.increment("number", 1).await.map_err(said)?;
    client.list_add("list", "one").await.map_err(said)?;
    client.list_add("list", "two").await.map_err(said)?;
    client.set_add("set", "member").await.map_err(said)?;
    client.set("gone", "x").await.map_err(said)?;
    client.del("gone").await.map_err(said)?;
    hosts.providers[0].shutdown().await?;
    hosts.providers.clear();
    let (url, lattice) = (hosts.store(0), hosts.lattice().to_owned());
    let of_cache = ["--lattice", &lattice];

    let (output, said) = store(&[&["verify", &url], &of_cache[..]].concat())?;
    ensure!(output.status.success(), "{said}");
    ensure!(
        said.contains("keys=4 ") && said.contains("all 1024 partitions hold what they say"),
        "{said}"
    );

    let folder = TempDir::new()?;
    let copy = format!("file:{}", folder.path().join("copy").display());
    for conflicts in ["0 were newer", "0 were newer"] {
        let (output, said) = store(&[&["copy", &url, &copy], &of_cache[..]].concat())?;
        ensure!(
            output.status.success() && said.contains(conflicts) && said.contains("copying 100 %"),
            "{said}"
        );
    }
    let (output, said) = store(&[&["verify", &copy], &of_cache[..]].concat())?;
    ensure!(output.status.success() && said.contains("keys=4 "), "{said}");

    let (output, said) = store(&[&["dump", &copy], &of_cache[..]].concat())?;
    ensure!(output.status.success(), "{said}");
    let mut lines: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    lines.sort_by_key(|line| line["key"].to_string());
    let expected = [
        json!({ "key": "list", "list": ["one", "two"] }),
        json!({ "key": "number", "value": "42" }),
        json!({ "key": "set", "set": ["member"] }),
        json!({ "key": "text", "value": "value with \"quotes\"\nand lines" }),
    ];
    ensure!(lines == expected, "{lines:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_said_on_one_line() -> Result<()> {
    let folder = TempDir::new()?;
    let url = format!("file:{}", folder.path().join("none").display());
    for (arguments, expected) in [
        (
            &["verify", &url][..],
            "holds nothing of link \"default\" of the lattice \"default\"",
        ),
        (&["dump", "postgres://x"], "is none of file:"),
        (&["dump", "file:"], "expected file:/path"),
        (&["copy", &url, &url], "in use by another process"),
    ] {
        let (output, said) = store(arguments)?;
        ensure!(
            output.status.code() == Some(2) && said.contains(expected),
            "{arguments:?}: {said}"
        );
        ensure!(said.lines().count() == 1, "{said}");
    }
    Ok(())
}
