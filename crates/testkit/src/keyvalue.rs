//! The operations of the contract with short names, over any transport.

use wasmbus_rpc::common::{Context, Transport};
use wasmbus_rpc::error::RpcResult;
use wasmcloud_interface_keyvalue::{
    IncrementRequest, KeyValue as Contract, KeyValueSender, ListAddRequest, ListDelRequest, ListRangeRequest,
    SetAddRequest, SetDelRequest, SetRequest,
};

/// Calls a provider of `wasmcloud:keyvalue`.
#[derive(Clone, Debug)]
pub struct KeyValue<T: Transport> {
    transport: T,
    sender: KeyValueSender<T>,
    context: Context,
}

impl<T: Transport> KeyValue<T> {
    pub fn via(transport: T) -> Self {
        Self {
            sender: KeyValueSender::via(transport.clone()),
            transport,
            context: Context::default(),
        }
    }

    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The value, or `None` where the answer says `exists=false`.
    pub async fn get(&self, key: &str) -> RpcResult<Option<String>> {
        let answer = self.sender.get(&self.context, key).await?;
        Ok(answer.exists.then_some(answer.value))
    }

    pub async fn contains(&self, key: &str) -> RpcResult<bool> {
        self.sender.contains(&self.context, key).await
    }

    pub async fn del(&self, key: &str) -> RpcResult<bool> {
        self.sender.del(&self.context, key).await
    }

    pub async fn set(&self, key: &str, value: &str) -> RpcResult<()> {
        self.set_for(key, value, 0).await
    }

    /// A value that expires after `seconds`; 0 is never.
    pub async fn set_for(&self, key: &str, value: &str, seconds: u32) -> RpcResult<()> {
        let request = SetRequest {
            key: key.to_owned(),
            value: value.to_owned(),
            expires: seconds,
        };
        self.sender.set(&self.context, &request).await
    }

    pub async fn increment(&self, key: &str, by: i32) -> RpcResult<i32> {
        self.sender
            .increment(
                &self.context,
                &IncrementRequest {
                    key: key.to_owned(),
                    value: by,
                },
            )
            .await
    }

    pub async fn list_add(&self, list: &str, value: &str) -> RpcResult<u32> {
        let request = ListAddRequest {
            list_name: list.to_owned(),
            value: value.to_owned(),
        };
        self.sender.list_add(&self.context, &request).await
    }

    pub async fn list_del(&self, list: &str, value: &str) -> RpcResult<bool> {
        let request = ListDelRequest {
            list_name: list.to_owned(),
            value: value.to_owned(),
        };
        self.sender.list_del(&self.context, &request).await
    }

    pub async fn list_range(&self, list: &str, start: i32, stop: i32) -> RpcResult<Vec<String>> {
        let request = ListRangeRequest {
            list_name: list.to_owned(),
            start,
            stop,
        };
        self.sender.list_range(&self.context, &request).await
    }

    /// The whole list.
    pub async fn list(&self, list: &str) -> RpcResult<Vec<String>> {
        self.list_range(list, 0, -1).await
    }

    pub async fn list_clear(&self, list: &str) -> RpcResult<bool> {
        self.sender.list_clear(&self.context, list).await
    }

    pub async fn set_add(&self, set: &str, member: &str) -> RpcResult<u32> {
        let request = SetAddRequest {
            set_name: set.to_owned(),
            value: member.to_owned(),
        };
        self.sender.set_add(&self.context, &request).await
    }

    pub async fn set_del(&self, set: &str, member: &str) -> RpcResult<u32> {
        let request = SetDelRequest {
            set_name: set.to_owned(),
            value: member.to_owned(),
        };
        self.sender.set_del(&self.context, &request).await
    }

    /// The members as the provider orders them.
    pub async fn set_query(&self, set: &str) -> RpcResult<Vec<String>> {
        self.sender.set_query(&self.context, set).await
    }

    pub async fn set_union(&self, sets: &[&str]) -> RpcResult<Vec<String>> {
        self.sender.set_union(&self.context, &to_strings(sets)).await
    }

    pub async fn set_intersection(&self, sets: &[&str]) -> RpcResult<Vec<String>> {
        self.sender.set_intersection(&self.context, &to_strings(sets)).await
    }

    pub async fn set_clear(&self, set: &str) -> RpcResult<bool> {
        self.sender.set_clear(&self.context, set).await
    }
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
