//! The operations of `wasmcloud:keyvalue`, as the contract's reference answers them.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use wasmbus_rpc::common::{deserialize, serialize};
use wasmbus_rpc::error::{RpcError, RpcResult};
use wasmcloud_interface_keyvalue::GetResponse;

use super::chunks::{NO_STORE, THRESHOLD};
use super::config::LinkConfig;
use super::handler::KvCacheProvider;
use super::reads::Turn;
use kvcache_core::cache::{Blob, Cache, CacheError, Key};
use kvcache_node::time;

/// An answer up to this size is made at once, where the call is. Larger ones wait for each other.
const SMALL_ANSWER_BYTES: usize = 32 << 10;
/// Sets of a union or an intersection up to this number are looked at where the call is.
const FEW_SETS: usize = 16;

/// Arguments as the contract encodes them: a map with these names, or an array in this order. Unknown fields of a map are
/// ignored. The contract's own types take an empty text for a field that is missing or misspelt, and would write the
/// key "".
mod request {
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub struct Increment<'a> {
        pub key: &'a str,
        pub value: i32,
    }

    #[derive(Deserialize)]
    pub struct Set<'a> {
        pub key: &'a str,
        pub value: &'a str,
        #[serde(default)]
        pub expires: u32,
    }

    /// ListAdd and ListDel.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Item<'a> {
        pub list_name: &'a str,
        pub value: &'a str,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct ListRange<'a> {
        pub list_name: &'a str,
        pub start: i32,
        pub stop: i32,
    }

    /// SetAdd and SetDel.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct Member<'a> {
        pub set_name: &'a str,
        pub value: &'a str,
    }
}

/// Who calls.
pub(super) struct Caller {
    pub actor: String,
    pub link: Arc<LinkConfig>,
    /// Whether there seems to be a way for answers beyond [`THRESHOLD`].
    pub gets_large_answers: bool,
}

/// What a call answers.
pub(super) struct Answer {
    pub content: Vec<u8>,
    /// That of a large read. To be kept until the answer has left.
    pub turn: Option<Turn>,
}

impl From<Vec<u8>> for Answer {
    fn from(content: Vec<u8>) -> Self {
        Answer { content, turn: None }
    }
}

/// Whether an operation leaves everything as it is.
pub(super) fn is_read(operation: &str) -> bool {
    const READS: [&str; 6] = [
        "Contains",
        "Get",
        "ListRange",
        "SetIntersection",
        "SetQuery",
        "SetUnion",
    ];
    method(operation).is_ok_and(|method| READS.contains(&method))
}

/// The method of an operation of the contract.
fn method(operation: &str) -> RpcResult<&str> {
    let (service, method) = operation.rsplit_once('.').unwrap_or(("_", operation));
    match service {
        "KeyValue" => Ok(method),
        _ => Err(RpcError::MethodNotHandled(format!(
            "{service}.{method} - unknown method"
        ))),
    }
}

/// `what` is the type of the arguments as the contract names it.
fn decode<'a, T: Deserialize<'a>>(what: &str, argument: &'a [u8]) -> RpcResult<T> {
    deserialize(argument).map_err(|error| RpcError::Deser(format!("'{what}': {error}")))
}

fn refused(error: CacheError) -> RpcError {
    match error {
        CacheError::NoKeys | CacheError::TooLarge { .. } => RpcError::InvalidParameter(error.to_string()),
        _ => RpcError::Other(error.to_string()),
    }
}

/// Everything that came in over this contract is text; other front ends may have written bytes.
fn text(bytes: &[u8]) -> RpcResult<&str> {
    std::str::from_utf8(bytes).map_err(|_| RpcError::Other("the value is not UTF-8 text".into()))
}

fn got(value: Option<Bytes>) -> RpcResult<Vec<u8>> {
    let exists = value.is_some();
    let value = text(value.as_deref().unwrap_or_default())?.into();
    serialize(&GetResponse { exists, value })
}

/// A list of texts.
fn listed(all: &[Bytes]) -> RpcResult<Vec<u8>> {
    let mut answer = Vec::with_capacity(5 + all.iter().map(|item| 5 + item.len()).sum::<usize>());
    rmp::encode::write_array_len(&mut answer, all.len() as u32).map_err(|error| RpcError::Ser(error.to_string()))?;
    for item in all {
        rmp::encode::write_str(&mut answer, text(item)?).map_err(|error| RpcError::Ser(error.to_string()))?;
    }
    Ok(answer)
}

impl KvCacheProvider {
    /// Performs one call. The error is the caller's answer.
    pub(super) async fn call(&self, caller: &Caller, operation: &str, argument: &[u8]) -> RpcResult<Answer> {
        let name = |argument| decode::<&str>("String", argument);
        let content = match method(operation)? {
            "Contains" => self.contains(caller, name(argument)?).await,
            "Del" | "ListClear" | "SetClear" => self.delete(caller, name(argument)?).await,
            "Get" => return self.get(caller, name(argument)?).await,
            "Increment" => self.increment(caller, decode("IncrementRequest", argument)?).await,
            "ListAdd" => self.list_add(caller, decode("ListAddRequest", argument)?).await,
            "ListDel" => self.list_del(caller, decode("ListDelRequest", argument)?).await,
            "ListRange" => return self.list_range(caller, decode("ListRangeRequest", argument)?).await,
            "Set" => self.set(caller, decode("SetRequest", argument)?).await,
            "SetAdd" => self.set_add(caller, decode("SetAddRequest", argument)?).await,
            "SetDel" => self.set_del(caller, decode("SetDelRequest", argument)?).await,
            "SetIntersection" => return self.set_intersection(caller, decode("StringList", argument)?).await,
            "SetQuery" => return self.set_query(caller, name(argument)?).await,
            "SetUnion" => return self.set_union(caller, decode("StringList", argument)?).await,
            unknown => Err(RpcError::MethodNotHandled(format!("KeyValue::{unknown}"))),
        };
        Ok(content?.into())
    }

    /// The key the actor means by `name`: in its link's namespace. Every operation asks here, also those that write
    /// nothing: what is looked up need not be longer than what can be there.
    fn key(&self, caller: &Caller, name: &str) -> RpcResult<Key> {
        let key = Key::new(&caller.link.namespace, name.as_bytes())
            .map_err(|error| RpcError::InvalidParameter(error.to_string()))?;
        let (length, limit) = (key.as_bytes().len(), self.config().limits.max_value_bytes);
        if length > limit {
            return Err(refused(CacheError::TooLarge {
                what: "key",
                length,
                limit,
                setting: "MAX_VALUE_BYTES",
            }));
        }
        Ok(key)
    }

    fn keys(&self, caller: &Caller, names: &[&str]) -> RpcResult<Vec<Key>> {
        names.iter().map(|name| self.key(caller, name)).collect()
    }

    async fn contains(&self, caller: &Caller, name: &str) -> RpcResult<Vec<u8>> {
        let key = self.key(caller, name)?;
        self.catch_up(caller.link.acks).await?;
        serialize(&self.cache().contains(&key, time::wall()))
    }

    async fn delete(&self, caller: &Caller, name: &str) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, name)?, caller.link.acks);
        self.before_write(acks).await?;
        let (deleted, command) = self.cache().delete(&key, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        serialize(&deleted)
    }

    async fn get(&self, caller: &Caller, name: &str) -> RpcResult<Answer> {
        let key = self.key(caller, name)?;
        self.catch_up(caller.link.acks).await?;
        let value = self.cache().get(&key, time::wall()).map_err(refused)?;
        match &value {
            Some(large) if large.len() > SMALL_ANSWER_BYTES => {
                let limit = self.answer_limit(caller);
                if large.len() > limit {
                    return Err(self.too_large(caller, CacheError::AnswerTooLarge { limit }));
                }
                let (content, turn) = self.large_reads().make(&caller.actor, move || got(value)).await?;
                Ok(Answer {
                    content: content?,
                    turn: Some(turn),
                })
            }
            _ => Ok(got(value)?.into()),
        }
    }

    async fn increment(&self, caller: &Caller, arg: request::Increment<'_>) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, arg.key)?, caller.link.acks);
        self.before_write(acks).await?;
        let (value, command) = self.cache().increment(&key, arg.value, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        serialize(&value)
    }

    async fn list_add(&self, caller: &Caller, arg: request::Item<'_>) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, arg.list_name)?, caller.link.acks);
        self.before_write(acks).await?;
        let value = Blob::new(arg.value.as_bytes());
        let (length, command) = self.cache().list_push(&key, value, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        serialize(&length)
    }

    async fn list_del(&self, caller: &Caller, arg: request::Item<'_>) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, arg.list_name)?, caller.link.acks);
        self.before_write(acks).await?;
        let removed = self.cache().list_remove(&key, arg.value.as_bytes(), time::wall());
        serialize(&self.replicate_some(acks, removed.map_err(refused)?).await?)
    }

    async fn list_range(&self, caller: &Caller, arg: request::ListRange<'_>) -> RpcResult<Answer> {
        let (key, start, stop) = (self.key(caller, arg.list_name)?, arg.start, arg.stop);
        let read = move |cache: &Cache, limit| cache.list_range(&key, start, stop, time::wall(), limit);
        self.read(caller, true, read).await
    }

    async fn set(&self, caller: &Caller, arg: request::Set<'_>) -> RpcResult<Vec<u8>> {
        let key = self.key(caller, arg.key)?;
        self.may_be_confirmed(caller.link.acks)?;
        let value = Blob::new(arg.value.as_bytes());
        let command = self.cache().set(&key, value, arg.expires, time::wall());
        self.replicate(caller.link.acks, command.map_err(refused)?).await?;
        Ok(Vec::new())
    }

    async fn set_add(&self, caller: &Caller, arg: request::Member<'_>) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, arg.set_name)?, caller.link.acks);
        self.before_write(acks).await?;
        let member = Blob::new(arg.value.as_bytes());
        let (new, command) = self.cache().set_add(&key, member, time::wall()).map_err(refused)?;
        self.replicate(acks, command).await?;
        serialize(&u32::from(new))
    }

    async fn set_del(&self, caller: &Caller, arg: request::Member<'_>) -> RpcResult<Vec<u8>> {
        let (key, acks) = (self.key(caller, arg.set_name)?, caller.link.acks);
        self.before_write(acks).await?;
        let member = Blob::new(arg.value.as_bytes());
        let (removed, command) = self.cache().set_remove(&key, member, time::wall()).map_err(refused)?;
        self.replicate_some(acks, command).await?;
        serialize(&u32::from(removed))
    }

    async fn set_query(&self, caller: &Caller, name: &str) -> RpcResult<Answer> {
        let key = self.key(caller, name)?;
        let read = move |cache: &Cache, limit| cache.set_members(&key, time::wall(), limit);
        self.read(caller, true, read).await
    }

    async fn set_union(&self, caller: &Caller, names: Vec<&str>) -> RpcResult<Answer> {
        let keys = self.keys(caller, &names)?;
        let few = keys.len() <= FEW_SETS;
        let read = move |cache: &Cache, limit| cache.set_union(&keys, time::wall(), limit);
        self.read(caller, few, read).await
    }

    async fn set_intersection(&self, caller: &Caller, names: Vec<&str>) -> RpcResult<Answer> {
        let keys = self.keys(caller, &names)?;
        // It is made from the smallest set, however little of that is left.
        let is_small = |key| self.cache().set_members(key, time::wall(), SMALL_ANSWER_BYTES).is_ok();
        let few = keys.len() <= FEW_SETS && keys.iter().any(is_small);
        let read = move |cache: &Cache, limit| cache.set_intersection(&keys, time::wall(), limit);
        self.read(caller, few, read).await
    }

    /// A read of elements, which `read` gives up beyond so many bytes. It is made here if it `may_be_small` and is.
    async fn read(
        &self,
        caller: &Caller,
        may_be_small: bool,
        read: impl Fn(&Cache, usize) -> Result<Vec<Bytes>, CacheError> + Send + 'static,
    ) -> RpcResult<Answer> {
        self.catch_up(caller.link.acks).await?;
        let limit = self.answer_limit(caller);
        if may_be_small {
            match read(self.cache(), SMALL_ANSWER_BYTES.min(limit)) {
                Err(CacheError::AnswerTooLarge { .. }) if limit > SMALL_ANSWER_BYTES => {}
                small => return Ok(listed(&small.map_err(|error| self.too_large(caller, error))?)?.into()),
            }
        }
        let cache = self.cache().clone();
        let (made, turn) = {
            let make = move || read(&cache, limit).map(|all| listed(&all));
            self.large_reads().make(&caller.actor, make).await?
        };
        let content = made.map_err(|error| self.too_large(caller, error))??;
        Ok(Answer {
            content,
            turn: Some(turn),
        })
    }

    /// Bytes of the largest answer that reaches this caller.
    fn answer_limit(&self, caller: &Caller) -> usize {
        let limit = self.config().max_answer_bytes;
        match caller.gets_large_answers {
            true => limit,
            false => limit.min(THRESHOLD),
        }
    }

    /// Says which limit an answer was too large for.
    fn too_large(&self, caller: &Caller, error: CacheError) -> RpcError {
        match error {
            CacheError::AnswerTooLarge { limit }
                if limit < self.config().max_answer_bytes && !caller.gets_large_answers =>
            {
                RpcError::Other(format!("the answer would have more than {limit} bytes: {NO_STORE}"))
            }
            error => refused(error),
        }
    }
}
