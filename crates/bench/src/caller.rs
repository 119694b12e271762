//! Sends signed invocations to one provider, as the host of an actor does.

use anyhow::{Context, Result};
use async_nats::{Client, Subject};
use testkit::KeyValueClient;
use wasmbus_rpc::common::{deserialize, serialize};
use wasmcloud_interface_keyvalue::{GetResponse, SetRequest};

/// One actor's way to one provider. Signing happens in the task of the caller, the answers of all callers come over one
/// subscription: a current NATS client costs less per request than that of the SDK, which subscribes for each.
#[derive(Clone)]
pub struct Caller {
    connection: Client,
    signer: KeyValueClient,
    subject: Subject,
}

impl Caller {
    /// Callers may share one connection.
    pub fn new(connection: Client, signer: KeyValueClient) -> Self {
        let subject = signer.subject().into();
        Self {
            connection,
            signer,
            subject,
        }
    }

    /// The contract's `Get`.
    pub async fn get(&self, key: &str) -> Result<GetResponse> {
        let answer = self.call("KeyValue.Get", &serialize(&key)?).await?;
        deserialize(&answer).context("the answer to Get")
    }

    /// The contract's `Set`, without a deadline.
    pub async fn set(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let request = SetRequest { key, value, expires: 0 };
        self.call("KeyValue.Set", &serialize(&request)?).await.map(drop)
    }

    async fn call(&self, method: &str, argument: &[u8]) -> Result<Vec<u8>> {
        let invocation = self.signer.invocation(method, argument)?;
        let request = self.connection.request(self.subject.clone(), invocation.into());
        Ok(testkit::answer_in(&request.await?.payload)?)
    }
}
