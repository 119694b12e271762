//! What another process needs to talk to a dev lattice that was left running.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};
use testkit::{workspace_root, Actor, KeyValue, KeyValueClient, Lattice, Status};

/// Written by `dev-lattice --keep`, read by `kv`. Holds the seed of the cluster: readable by its owner only.
#[derive(Serialize, Deserialize)]
pub struct DevState {
    pub nats_url: String,
    pub lattice: String,
    pub link_name: String,
    pub actor: String,
    pub nodes: Vec<DevNode>,
    cluster_seed: String,
}

/// One provider process of the lattice.
#[derive(Serialize, Deserialize)]
pub struct DevNode {
    pub name: String,
    pub provider_key: String,
}

impl DevState {
    pub fn new(lattice: &Lattice, link_name: &str, actor: &Actor, nodes: Vec<DevNode>) -> Result<Self> {
        Ok(Self {
            nats_url: lattice.nats_url().to_owned(),
            lattice: lattice.prefix().to_owned(),
            link_name: link_name.to_owned(),
            actor: actor.id().to_owned(),
            nodes,
            cluster_seed: lattice.cluster_seed()?,
        })
    }

    /// Where the state lies when nothing else is said.
    pub fn default_path() -> PathBuf {
        workspace_root().join("target").join("dev-lattice.json")
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        // Removed first: the mode below counts only for a file that is made anew.
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.with_context(|| format!("writing {}", path.display()))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| {
            format!(
                "reading {}: is a dev lattice running? (dev-lattice --keep writes this file)",
                path.display()
            )
        })?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no state of a dev lattice", path.display()))
    }

    /// The operations of the contract through the node with this name.
    pub async fn keyvalue(&self, node: &DevNode) -> Result<KeyValue<KeyValueClient>> {
        let actor = Actor::with_id(&self.actor);
        Ok(KeyValue::via(
            self.connect()?
                .client_of(&actor, &node.provider_key, &self.link_name)
                .await?,
        ))
    }

    pub async fn status(&self, node: &DevNode) -> Result<Status> {
        self.connect()?.status_of(&node.provider_key, &self.link_name).await
    }

    pub fn node(&self, name: &str) -> Result<&DevNode> {
        match self.nodes.iter().find(|node| node.name.eq_ignore_ascii_case(name)) {
            Some(node) => Ok(node),
            None => {
                let names: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                bail!("no node {name:?} in this lattice; there are {}", names.join(", "))
            }
        }
    }

    fn connect(&self) -> Result<Lattice> {
        Lattice::new(&self.nats_url)
            .with_prefix(&self.lattice)
            .with_cluster_seed(&self.cluster_seed)
    }
}
