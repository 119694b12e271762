//! Signed invocations to one provider, honest ones and forged ones.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use wasmbus_rpc::async_nats;
use wasmbus_rpc::common::{deserialize, serialize, Context, Message, SendOpts, Transport};
use wasmbus_rpc::core::{Invocation, InvocationResponse, WasmCloudEntity};
use wasmbus_rpc::error::{RpcError, RpcResult};
use wasmbus_rpc::rpc_client::{make_uuid, RpcClient};
use wasmbus_rpc::wascap::jwt::{self, Claims};
use wasmbus_rpc::wascap::prelude::KeyPair;

use crate::keys::sdk_readable;
use crate::lattice::{Lattice, CONTRACT_ID};

/// Generous: a debug build on a busy machine is slow, and a call that hangs fails its test anyway.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// An actor, known by its public key. It signs nothing: invocations are signed by the host it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    id: String,
}

impl Default for Actor {
    fn default() -> Self {
        Self::new()
    }
}

impl Actor {
    pub fn new() -> Self {
        Self {
            id: KeyPair::new_module().public_key(),
        }
    }

    pub fn with_id(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Ways to spoil an invocation, each of which a provider has to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Signed with a key that is not one of the cluster's.
    ForeignIssuer,
    /// Names a cluster issuer in the claims but is signed with another key.
    BrokenSignature,
    /// No claims at all.
    NoClaims,
    /// The claims have expired.
    Expired,
    /// The arguments were replaced after signing.
    TamperedArguments,
    /// The operation was replaced after signing.
    TamperedOperation,
    /// Signed for another origin than the one the invocation names.
    TamperedOrigin,
    /// Addressed (and signed) to another provider, sent to this one.
    WrongTarget,
    /// An actor that is not linked, otherwise all in order.
    UnlinkedActor,
}

impl Forgery {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ForeignIssuer,
        Self::BrokenSignature,
        Self::NoClaims,
        Self::Expired,
        Self::TamperedArguments,
        Self::TamperedOperation,
        Self::TamperedOrigin,
        Self::WrongTarget,
        Self::UnlinkedActor,
    ];
}

impl Lattice {
    /// A client for a provider that need not be a process of this kit.
    pub async fn client_of(&self, actor: &Actor, provider_key: &str, link_name: &str) -> Result<KeyValueClient> {
        let connection = self.connection().await?;
        Ok(KeyValueClient::new(connection, self, actor, provider_key, link_name))
    }

    /// A client for an actor that runs on a real host. The actor is the caller as well: hosts let only those call whose
    /// claims they know.
    pub async fn client_of_actor(&self, actor: &Actor) -> Result<KeyValueClient> {
        let mut client = self.client_of(actor, actor.id(), "").await?;
        // By a contract hosts tell providers from actors.
        client.target.contract_id.clear();
        Ok(client)
    }
}

/// Sends invocations of one actor to one provider, as the host of the actor does.
#[derive(Clone)]
pub struct KeyValueClient {
    rpc: RpcClient,
    cluster: Arc<KeyPair>,
    lattice: String,
    host_id: String,
    origin: WasmCloudEntity,
    target: WasmCloudEntity,
    limit_ms: Arc<AtomicU64>,
}

impl fmt::Debug for KeyValueClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueClient")
            .field("lattice", &self.lattice)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl KeyValueClient {
    /// A client for the provider with this key and link name, which need not be a process of this kit.
    pub fn new(
        connection: async_nats::Client,
        lattice: &Lattice,
        actor: &Actor,
        provider_key: &str,
        link_name: &str,
    ) -> Self {
        let host_id = KeyPair::new_server().public_key();
        Self {
            rpc: RpcClient::new(connection, host_id.clone(), Some(CALL_LIMIT), lattice.cluster()),
            cluster: lattice.cluster(),
            lattice: lattice.prefix().to_owned(),
            host_id,
            origin: entity(actor.id(), "", ""),
            target: entity(provider_key, link_name, CONTRACT_ID),
            limit_ms: Arc::new(AtomicU64::new(CALL_LIMIT.as_millis() as u64)),
        }
    }

    /// Any method with any bytes as its argument.
    pub async fn call_raw(&self, method: &str, argument: &[u8]) -> RpcResult<Vec<u8>> {
        let message = Message {
            method,
            arg: argument.into(),
        };
        let limit = Duration::from_millis(self.limit_ms.load(Ordering::Relaxed));
        self.rpc
            .send_timeout(self.origin.clone(), self.target.clone(), &self.lattice, message, limit)
            .await
    }

    /// The subject on which the provider takes invocations.
    pub fn subject(&self) -> String {
        wasmbus_rpc::rpc_client::rpc_topic(&self.target, &self.lattice)
    }

    /// A signed invocation as [`Self::call_raw`] sends it, for callers with a connection of their own. What comes back
    /// is read with [`answer_in`].
    pub fn invocation(&self, method: &str, argument: &[u8]) -> RpcResult<Vec<u8>> {
        let mut invocation = self.unsigned(method, argument);
        let claims = claims_of(&invocation, self.cluster.public_key(), None);
        invocation.encoded_claims = encode(&claims, &self.cluster)?;
        serialize(&invocation)
    }

    /// Bytes that are no invocation at all, sent where invocations are expected.
    pub async fn send_garbage(&self, bytes: &[u8]) -> RpcResult<Vec<u8>> {
        self.round_trip(bytes.to_vec()).await
    }

    /// An invocation of `method` spoiled by `forgery`.
    pub async fn call_forged(&self, method: &str, argument: &[u8], forgery: Forgery) -> RpcResult<Vec<u8>> {
        let invocation = self.forge(method, argument, forgery)?;
        self.round_trip(serialize(&invocation)?).await
    }

    fn forge(&self, method: &str, argument: &[u8], forgery: Forgery) -> RpcResult<Invocation> {
        let mut invocation = self.unsigned(method, argument);
        match forgery {
            Forgery::WrongTarget => invocation.target.public_key = KeyPair::new_service().public_key(),
            Forgery::UnlinkedActor => invocation.origin.public_key = Actor::new().id,
            _ => {}
        }

        let mut signed = invocation.clone();
        if forgery == Forgery::TamperedOrigin {
            signed.origin.public_key = Actor::new().id;
        }
        invocation.encoded_claims = self.sign(&signed, forgery)?;

        match forgery {
            Forgery::NoClaims => invocation.encoded_claims.clear(),
            Forgery::TamperedArguments => invocation.msg = serialize(&"another key")?,
            Forgery::TamperedOperation => invocation.operation = "KeyValue.Del".to_owned(),
            _ => {}
        }
        Ok(invocation)
    }

    fn unsigned(&self, method: &str, argument: &[u8]) -> Invocation {
        let mut invocation = Invocation::default();
        invocation.origin = self.origin.clone();
        invocation.target = self.target.clone();
        invocation.operation = method.to_owned();
        invocation.msg = argument.to_vec();
        invocation.content_length = Some(argument.len() as u64);
        invocation.id = make_uuid();
        invocation.host_id = self.host_id.clone();
        invocation
    }

    fn sign(&self, invocation: &Invocation, forgery: Forgery) -> RpcResult<String> {
        let foreign = sdk_readable(KeyPair::new_cluster);
        let issuer = if forgery == Forgery::ForeignIssuer {
            foreign.public_key()
        } else {
            self.cluster.public_key()
        };
        let signer = match forgery {
            Forgery::ForeignIssuer | Forgery::BrokenSignature => &foreign,
            _ => &*self.cluster,
        };
        let claims = claims_of(invocation, issuer, (forgery == Forgery::Expired).then_some(1));
        encode(&claims, signer)
    }

    async fn round_trip(&self, payload: Vec<u8>) -> RpcResult<Vec<u8>> {
        answer_in(&self.rpc.request(self.subject(), payload).await?)
    }
}

#[async_trait]
impl Transport for KeyValueClient {
    async fn send(&self, _context: &Context, message: Message<'_>, _options: Option<SendOpts>) -> RpcResult<Vec<u8>> {
        self.call_raw(message.method, &message.arg).await
    }

    fn set_timeout(&self, limit: Duration) {
        self.limit_ms.store(limit.as_millis() as u64, Ordering::Relaxed);
    }
}

/// What a provider has answered to an invocation.
pub fn answer_in(payload: &[u8]) -> RpcResult<Vec<u8>> {
    let answer: InvocationResponse = deserialize(payload)?;
    match answer.error {
        Some(error) => Err(RpcError::Rpc(error)),
        None => Ok(answer.msg),
    }
}

fn claims_of(invocation: &Invocation, issuer: String, expires: Option<u64>) -> Claims<jwt::Invocation> {
    let target_url = format!("{}/{}", invocation.target.url(), invocation.operation);
    let origin_url = invocation.origin.url();
    let hash = invocation_hash(&[&origin_url, &target_url, &invocation.operation], &invocation.msg);
    Claims::<jwt::Invocation>::with_dates(
        issuer,
        invocation.id.clone(),
        None,
        expires,
        &target_url,
        &origin_url,
        &hash,
    )
}

fn encode(claims: &Claims<jwt::Invocation>, signer: &KeyPair) -> RpcResult<String> {
    claims
        .encode(signer)
        .map_err(|error| RpcError::Other(error.to_string()))
}

/// The hash that the claims of an invocation carry. The SDK keeps its own private.
fn invocation_hash(texts: &[&str], argument: &[u8]) -> String {
    let mut hasher = Sha256::new();
    texts.iter().for_each(|text| hasher.update(text.as_bytes()));
    hasher.update(argument);
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)]));
    hasher.finalize().iter().flat_map(digits).collect()
}

fn entity(public_key: &str, link_name: &str, contract_id: &str) -> WasmCloudEntity {
    WasmCloudEntity {
        public_key: public_key.to_owned(),
        link_name: link_name.to_owned(),
        contract_id: contract_id.to_owned(),
    }
}
