//! What a host sends to a provider over its lattice: calls, links, health requests, shutdown.
//!
//! Subjects, encodings, the queue group and the way of large arguments and answers are those of the host SDK
//! (`wasmbus-rpc` 0.15); hosts and callers see no difference. The SDK's own loop (`provider_run`) takes a copy of the
//! host data for each call, fetches large arguments before it knows who sent them, keeps all values of all links, has
//! no bound on the calls under way, drops answers that are too large, and hides the id of a call from the provider.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, Message, Subject, Subscriber};
use futures::{FutureExt, StreamExt};
use kvcache_node::secret::cleaned;
use kvcache_node::service::Answer;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::Semaphore;
use wasmbus_rpc::common::{deserialize, serialize};
use wasmbus_rpc::core::{HostData, Invocation, InvocationResponse, LinkDefinition};
use wasmbus_rpc::error::RpcError;

use super::chunks::{Chunks, THRESHOLD};
use super::handler::KvCacheProvider;
use super::invocation::{Refusal, Verifier};
use super::keyvalue::{is_read, Caller, Failure};

/// Providers of one key and link name share the calls.
const QUEUE_GROUP: &str = "rpc";
/// Calls under way, of which each takes one, and one more for each KiB of it.
const MAX_UNDER_WAY: usize = 64 << 10;
/// Hashing more than this takes milliseconds: other tasks of the worker go on elsewhere meanwhile.
const LARGE_ARGUMENT: usize = 256 << 10;
/// A message about a link may have so many bytes, and so many of them may wait: strangers can send them as fast as the
/// server takes them.
const MAX_LINK_BYTES: usize = 16 << 10;
const MAX_LINKS_WAITING: usize = 1 << 10;
/// What an answer has around its content.
const ANSWER_FRAME: usize = 1 << 10;
/// How long the last answers may take to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The provider on its lattice.
pub(super) struct Rpc {
    provider: KvCacheProvider,
    client: Client,
    /// `wasmbus.rpc.{lattice}.{provider}.{link}`
    root: String,
    host_id: String,
    /// A host for tests speaks JSON where others speak MessagePack.
    json: bool,
    verifier: Verifier,
    chunks: Chunks,
    under_way: Arc<Semaphore>,
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
enum CallError {
    /// It does not reach the provider.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The actor has no link.
    #[error("unlinked actor: '{0}'")]
    Unlinked(String),
    /// What the operation says.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Rpc {
    /// For this host data, over a connection to its lattice.
    pub fn new(provider: KvCacheProvider, client: Client, host_data: &HostData) -> Arc<Self> {
        let lattice = &host_data.lattice_rpc_prefix;
        // A key and a value, or many keys.
        let max_argument = 2 * provider.config().limits.max_value_bytes + (1 << 20);
        Arc::new(Rpc {
            root: format!(
                "wasmbus.rpc.{lattice}.{}.{}",
                host_data.provider_key, host_data.link_name
            ),
            host_id: host_data.host_id.clone(),
            json: host_data.is_test(),
            verifier: Verifier::new(&host_data.provider_key, &host_data.cluster_issuers),
            chunks: Chunks::new(
                client.clone(),
                lattice,
                max_argument,
                provider.config().max_answer_bytes,
            ),
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            provider,
            client,
        })
    }

    /// Answers until the host says shutdown. Calls are taken once the bootstrap is done, so that other providers of the
    /// queue group answer until then.
    pub async fn serve(self: Arc<Self>) -> anyhow::Result<()> {
        let mut puts = bounded(self.subscribe("linkdefs.put").await?);
        let mut deletions = bounded(self.subscribe("linkdefs.del").await?);
        let mut shutdowns = self.subscribe("shutdown").await?;
        let mut health = self.subscribe("health").await?;
        let mut calls = None;
        let mut first_sync = pin!(self.provider.wait_for_first_sync().fuse());
        loop {
            tokio::select! {
                () = &mut first_sync, if calls.is_none() => calls = Some(self.subscribe_calls().await?),
                message = shutdowns.next() => {
                    if let Some(reply) = self.told_to_end(message.ok_or_else(closed)?) {
                        // Others of the queue group answer from here on.
                        drop(calls);
                        return self.shutdown(reply).await;
                    }
                }
                message = puts.recv() => self.put_link(&message.ok_or_else(closed)?),
                message = deletions.recv() => self.delete_link(&message.ok_or_else(closed)?),
                message = health.next() => {
                    let answer = self.provider.health();
                    // Who reads that the bootstrap is done may call at once.
                    if calls.is_none() && (&mut first_sync).now_or_never().is_some() {
                        calls = Some(self.subscribe_calls().await?);
                    }
                    self.answer_plainly(&message.ok_or_else(closed)?, &answer).await;
                }
                message = next_call(&mut calls) => self.take(message.ok_or_else(closed)?).await,
            }
        }
    }

    async fn subscribe(&self, what: &str) -> anyhow::Result<Subscriber> {
        let subject = format!("{}.{what}", self.root);
        let subscribed = self.client.subscribe(subject.clone()).await;
        subscribed.with_context(|| format!("cannot subscribe to '{subject}'"))
    }

    async fn subscribe_calls(&self) -> anyhow::Result<Subscriber> {
        let subscribed = self.client.queue_subscribe(self.root.clone(), QUEUE_GROUP.into()).await;
        let calls = subscribed.with_context(|| format!("cannot subscribe to '{}'", self.root))?;
        // The server has the subscription before anybody is told.
        if let Err(error) = self.client.flush().await {
            tracing::warn!(%error, "the connection to the lattice does not work");
        }
        Ok(calls)
    }

    // --- messages of the host, which nobody signs

    fn link_in(&self, message: &Message, what: &str) -> Option<LinkDefinition> {
        let payload = &message.payload;
        let decoded = if self.json {
            serde_json::from_slice(payload).map_err(|error| error.to_string())
        } else {
            deserialize(payload).map_err(|error| error.to_string())
        };
        decoded
            .inspect_err(|error| tracing::warn!(error, "{what} cannot be read"))
            .ok()
    }

    fn put_link(&self, message: &Message) {
        let Some(link) = self.link_in(message, "a link that was put") else {
            return;
        };
        match self.provider.put_link(&link) {
            Ok(()) => tracing::info!(actor = ?shown(&link.actor_id), "linked"),
            Err(refused) => tracing::error!(actor = ?shown(&link.actor_id), "link refused: {refused}"),
        }
    }

    fn delete_link(&self, message: &Message) {
        if let Some(link) = self.link_in(message, "a link that was deleted") {
            self.provider.delete_link(&link.actor_id);
            tracing::info!(actor = ?shown(&link.actor_id), "unlinked");
        }
    }

    /// Where the answer goes, if this provider is meant.
    fn told_to_end(&self, message: Message) -> Option<Subject> {
        #[derive(Default, serde::Deserialize)]
        struct Shutdown {
            #[serde(default)]
            host_id: String,
        }
        let meant: Shutdown = serde_json::from_slice(&message.payload).unwrap_or_default();
        // Hosts before 0.59 name none.
        let is_meant = meant.host_id.is_empty() || meant.host_id == self.host_id;
        message.reply.filter(|_| is_meant)
    }

    /// Ends the provider. The answer comes last: a host kills the process when it has it.
    async fn shutdown(&self, reply: Subject) -> anyhow::Result<()> {
        tracing::info!("the host says shutdown: sending what is queued, then ending");
        self.provider.shutdown().await;
        let answer = async {
            self.publish(reply, b"shutting down".to_vec()).await;
            self.client.flush().await
        };
        match tokio::time::timeout(FLUSH_LIMIT, answer).await {
            Ok(flushed) => flushed.context("sending the last answers"),
            Err(_) => {
                tracing::warn!("the server does not take the last answers");
                Ok(())
            }
        }
    }

    async fn answer_plainly(&self, message: &Message, answer: &impl serde::Serialize) {
        let encoded = if self.json {
            serde_json::to_vec(answer).map_err(|error| error.to_string())
        } else {
            serialize(answer).map_err(|error| error.to_string())
        };
        match (encoded, message.reply.clone()) {
            (Ok(encoded), Some(reply)) => self.publish(reply, encoded).await,
            (Err(error), _) => tracing::warn!(error, "cannot write an answer"),
            (_, None) => {}
        }
    }

    async fn publish(&self, subject: Subject, payload: Vec<u8>) {
        if let Err(error) = self.client.publish(subject, payload.into()).await {
            tracing::warn!(%error, "an answer cannot be sent");
        }
    }

    // --- calls

    /// Starts a call, unless too many are under way.
    async fn take(self: &Arc<Self>, message: Message) {
        let cost = 1 + message.payload.len().div_ceil(1 << 10);
        match self.under_way.clone().try_acquire_many_owned(cost as u32) {
            Ok(permit) => {
                let this = self.clone();
                tokio::spawn(async move {
                    this.answer(message).await;
                    drop(permit);
                });
            }
            Err(_) => {
                let busy = failure(String::new(), "too many calls are under way on this host".into());
                self.send(message.reply, &busy).await;
            }
        }
    }

    async fn answer(&self, message: Message) {
        // Kept until the answer has left.
        let mut _turn = None;
        let answer = match deserialize::<Invocation>(&message.payload) {
            Err(error) => failure(String::new(), format!("deser error: {error}")),
            Ok(invocation) => {
                drop(message.payload);
                let id = invocation.id.clone();
                match self.call(invocation).await {
                    Ok(Answer { content, turn }) => {
                        _turn = turn;
                        content
                    }
                    Err(error) => failure(id, error.to_string()),
                }
            }
        };
        self.send(message.reply, &answer).await;
    }

    async fn call(&self, invocation: Invocation) -> Result<Answer<InvocationResponse>, CallError> {
        let result = self.call_if_admitted(&invocation).await;
        let (actor, operation) = (shown(&invocation.origin.public_key), shown(&invocation.operation));
        match &result {
            Ok(_) => {}
            // It can come with every call, and whoever made the call knows.
            Err(CallError::Failed(Failure::OfCall(error))) => {
                tracing::debug!(?actor, ?operation, "a call fails: {error}")
            }
            Err(CallError::Failed(error)) => tracing::warn!(?actor, ?operation, "a call fails: {error}"),
            Err(refused) => tracing::warn!(?actor, ?operation, "a call is refused: {refused}"),
        }
        result
    }

    async fn call_if_admitted(&self, invocation: &Invocation) -> Result<Answer<InvocationResponse>, CallError> {
        let mut link = None;
        let vouched = self.verifier.vouched(invocation, |actor| {
            link = self.provider.link(actor);
            match link {
                Some(_) => Ok(()),
                None => Err(CallError::Unlinked(shown(actor).into())),
            }
        })?;
        // Fetched only now that it is known who asks.
        let fetched = match invocation.content_length {
            Some(length) if length > invocation.msg.len() as u64 => {
                let fetched = self.chunks.fetch(&invocation.id, length).await;
                Some(fetched.map_err(|error| Failure::OfHost(RpcError::Nats(error).to_string()))?)
            }
            _ => None,
        };
        let operation = &invocation.operation;
        let argument: &[u8] = fetched.as_deref().unwrap_or(&invocation.msg);
        if argument.len() > LARGE_ARGUMENT {
            tokio::task::block_in_place(|| self.verifier.admit(&vouched, operation, argument, is_read(operation)))?;
        } else {
            self.verifier.admit(&vouched, operation, argument, is_read(operation))?;
        }
        let caller = Caller {
            actor: invocation.origin.public_key.clone(),
            link: link.unwrap_or_default(),
            gets_large_answers: !self.chunks.are_missing(),
        };
        let Answer { content, turn } = self.provider.call(&caller, operation, argument).await?;
        let content = self.success(&invocation.id, content).await.map_err(Failure::OfHost)?;
        Ok(Answer { content, turn })
    }

    /// An answer that has a way to the caller.
    async fn success(&self, id: &str, content: Vec<u8>) -> Result<InvocationResponse, String> {
        let length = content.len();
        let max_payload = self.client.server_info().max_payload;
        let mut answer = InvocationResponse::default();
        answer.content_length = Some(length as u64);
        if length > THRESHOLD {
            let stored = self.chunks.store_answer(id, &content).await;
            stored.map_err(|error| format!("the answer has {length} bytes: {error}"))?;
        } else if length > max_payload.saturating_sub(ANSWER_FRAME) {
            return Err(format!(
                "the answer has {length} bytes, and the NATS server takes messages of at most {max_payload} (its \
                 max_payload); ask for less at a time"
            ));
        } else {
            answer.msg = content;
        }
        answer.invocation_id = id.into();
        Ok(answer)
    }

    async fn send(&self, reply: Option<Subject>, answer: &InvocationResponse) {
        let Some(reply) = reply else { return };
        match serialize(answer) {
            Ok(encoded) => self.publish(reply, encoded).await,
            Err(error) => tracing::warn!(%error, "cannot write an answer"),
        }
    }
}

/// Messages about links, as long as they are small and not too many wait. Their subscription is drained at once, so
/// that none waits there, where only their number has a bound.
fn bounded(mut subscription: Subscriber) -> mpsc::Receiver<Message> {
    let (sender, messages) = mpsc::channel(MAX_LINKS_WAITING);
    tokio::spawn(async move {
        while let Some(message) = subscription.next().await {
            let length = message.payload.len();
            if length > MAX_LINK_BYTES {
                tracing::warn!("a message about a link is dropped: {length} bytes are more than {MAX_LINK_BYTES}");
                continue;
            }
            match sender.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => tracing::warn!("a message about a link is dropped: too many wait"),
                Err(TrySendError::Closed(_)) => break,
            }
        }
    });
    messages
}

fn closed() -> anyhow::Error {
    anyhow::anyhow!("the connection to the lattice was closed")
}

async fn next_call(calls: &mut Option<Subscriber>) -> Option<Message> {
    match calls {
        Some(calls) => calls.next().await,
        None => std::future::pending().await,
    }
}

/// The beginning of a name that others choose, as long as those that are in order have.
fn shown(name: &str) -> &str {
    const SHOWN: usize = 64;
    name.char_indices().nth(SHOWN).map_or(name, |(end, _)| &name[..end])
}

fn failure(id: String, error: String) -> InvocationResponse {
    let mut answer = InvocationResponse::default();
    answer.invocation_id = id;
    // Names of hosts and settings can be anything.
    answer.error = Some(cleaned(&error).into_owned());
    answer
}
