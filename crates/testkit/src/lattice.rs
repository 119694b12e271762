//! What the hosts of a lattice have in common.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;
use wasmbus_rpc::async_nats;
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::jwt::UserCredentials;
use crate::keys::sdk_readable;

/// The contract of every link the kit makes.
pub const CONTRACT_ID: &str = "wasmcloud:keyvalue";

/// A lattice: a prefix on a NATS server and the cluster key whose holders may invoke.
///
/// Clones share the connection over which the kit talks to the providers. Every lattice of a test process needs a
/// prefix of its own (the default is a random one): the SDK keeps one JetStream handle per prefix and process.
#[derive(Clone)]
pub struct Lattice {
    prefix: String,
    nats_url: String,
    cluster: Arc<KeyPair>,
    /// Public keys of other clusters whose hosts are trusted as well.
    pub(crate) other_issuers: Vec<String>,
    pub(crate) host_id: String,
    pub(crate) user: Option<UserCredentials>,
    connection: Arc<OnceCell<async_nats::Client>>,
}

impl fmt::Debug for Lattice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lattice")
            .field("prefix", &self.prefix)
            .field("nats_url", &self.nats_url)
            .finish_non_exhaustive()
    }
}

impl Lattice {
    /// A lattice with a prefix and a cluster key of its own.
    pub fn new(nats_url: impl Into<String>) -> Self {
        let unique = wasmbus_rpc::rpc_client::make_uuid();
        Self {
            prefix: format!("t{}", &unique[..12]),
            nats_url: nats_url.into(),
            cluster: Arc::new(sdk_readable(KeyPair::new_cluster)),
            other_issuers: Vec::new(),
            host_id: KeyPair::new_server().public_key(),
            user: None,
            connection: Arc::default(),
        }
    }

    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connects, and lets the providers connect, with these credentials.
    pub fn with_user(mut self, user: UserCredentials) -> Self {
        self.user = Some(user);
        self
    }

    /// The same lattice in another process, see [`Self::cluster_seed`].
    pub fn with_cluster_seed(mut self, seed: &str) -> Result<Self> {
        self.cluster = Arc::new(KeyPair::from_seed(seed).context("the seed of the cluster")?);
        Ok(self)
    }

    /// The same lattice for hosts that also trust those of another cluster key.
    pub fn accepting(mut self, other: &Lattice) -> Self {
        self.other_issuers.push(other.cluster.public_key());
        self
    }

    /// The public key of the cluster.
    pub fn issuer(&self) -> String {
        self.cluster.public_key()
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// The host that starts providers unless another one is named.
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// The secret every host of the lattice signs with. Never print it.
    pub fn cluster_seed(&self) -> Result<String> {
        self.cluster.seed().context("the seed of the cluster")
    }

    pub(crate) fn cluster(&self) -> Arc<KeyPair> {
        self.cluster.clone()
    }

    /// The kit's own connection to the server of this lattice.
    pub async fn connection(&self) -> Result<async_nats::Client> {
        let connection = self.connection.get_or_try_init(|| async {
            let options = match &self.user {
                None => async_nats::ConnectOptions::new(),
                Some(user) => {
                    let key = Arc::new(KeyPair::from_seed(&user.seed).context("the seed of the user")?);
                    async_nats::ConnectOptions::with_jwt(user.jwt.clone(), move |nonce| {
                        let key = key.clone();
                        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
                    })
                }
            };
            options
                .connect(&self.nats_url)
                .await
                .with_context(|| format!("connecting to {}", self.nats_url))
        });
        connection.await.cloned()
    }
}
