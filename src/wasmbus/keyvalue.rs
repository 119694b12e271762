//! The operations of `wasmcloud:keyvalue`, as the contract's reference answers them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use kvcache_node::answers;
use kvcache_node::service::{Answer, CacheError, Error, Scope};
use kvcache_node::settings::LinkSettings;
use serde::{Deserialize, Serialize};
use wasmbus_rpc::common::{deserialize, serialize};
use wasmbus_rpc::error::{RpcError, RpcResult};
use wasmcloud_interface_keyvalue::GetResponse;

use super::chunks::{NO_STORE, THRESHOLD};
use super::handler::KvCacheProvider;

/// Arguments as the contract encodes them: a map with these names, or an array in this order. Unknown fields of a map
/// are ignored. The contract's own types take an empty text for a field that is missing or misspelt, and would write
/// the key "".
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

/// Answers to Increment are of type i32. The cache counts on in i64, and Get shows that.
const NUMBERS: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;

/// Why a call fails. The text is the caller's answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// For what it asks for.
    #[error(transparent)]
    OfCall(#[from] RpcError),
    /// For the state that this host or its lattice is in.
    #[error("{0}")]
    OfHost(String),
}

/// Who calls.
pub(super) struct Caller {
    pub actor: String,
    pub link: Arc<LinkSettings>,
    /// Whether there seems to be a way for answers beyond [`THRESHOLD`].
    pub gets_large_answers: bool,
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

/// The kinds of this contract for what the service says.
fn worded(error: Error) -> Failure {
    let text = answers::failure(&error, &NUMBERS);
    match error {
        Error::Namespace(_) | Error::Refused(CacheError::NoKeys | CacheError::TooLarge { .. }) => {
            RpcError::InvalidParameter(text).into()
        }
        Error::Refused(_) => RpcError::Other(text).into(),
        _ => Failure::OfHost(RpcError::Other(text).to_string()),
    }
}

/// Everything that came in over this contract is text; other front ends may have written bytes.
fn text(bytes: &[u8]) -> RpcResult<&str> {
    std::str::from_utf8(bytes).map_err(|_| RpcError::Other("the value is not UTF-8 text".into()))
}

fn item<'a>(what: &str, argument: &'a [u8]) -> RpcResult<(&'a [u8], &'a [u8])> {
    let request: request::Item = decode(what, argument)?;
    Ok((request.list_name.as_bytes(), request.value.as_bytes()))
}

fn member<'a>(what: &str, argument: &'a [u8]) -> RpcResult<(&'a [u8], &'a [u8])> {
    let request: request::Member = decode(what, argument)?;
    Ok((request.set_name.as_bytes(), request.value.as_bytes()))
}

fn names(argument: &[u8]) -> RpcResult<Vec<&[u8]>> {
    let names: Vec<&str> = decode("StringList", argument)?;
    Ok(names.into_iter().map(str::as_bytes).collect())
}

fn got(value: Option<Bytes>) -> RpcResult<Vec<u8>> {
    let exists = value.is_some();
    let value = text(value.as_deref().unwrap_or_default())?.into();
    serialize(&GetResponse { exists, value })
}

/// A list of texts.
fn listed(all: Vec<Bytes>) -> RpcResult<Vec<u8>> {
    let mut answer = Vec::with_capacity(5 + all.iter().map(|item| 5 + item.len()).sum::<usize>());
    rmp::encode::write_array_len(&mut answer, all.len() as u32).map_err(|error| RpcError::Ser(error.to_string()))?;
    for item in &all {
        rmp::encode::write_str(&mut answer, text(item)?).map_err(|error| RpcError::Ser(error.to_string()))?;
    }
    Ok(answer)
}

/// What is sent back, and the turn of a large read.
type Answered = Result<Answer<Vec<u8>>, Failure>;

/// A read that the service has made, encoded.
type Read = Result<Answer<RpcResult<Vec<u8>>>, Error>;

/// The answer of an operation, encoded.
fn answer<T: Serialize>(made: Result<T, Error>) -> Answered {
    Ok(Answer::small(serialize(&made.map_err(worded)?)?))
}

impl KvCacheProvider {
    /// Performs one call. The error is the caller's answer.
    pub(super) async fn call(&self, caller: &Caller, operation: &str, argument: &[u8]) -> Answered {
        let (service, scope) = (self.service(), &self.scope(caller));
        let name = |argument| decode::<&str>("String", argument).map(str::as_bytes);
        match method(operation)? {
            "Contains" => answer(service.contains(scope, name(argument)?).await),
            "Del" | "ListClear" | "SetClear" => answer(service.delete(scope, name(argument)?).await),
            "Get" => self.read(caller, service.get(scope, name(argument)?, got).await),
            "Increment" => {
                let request: request::Increment = decode("IncrementRequest", argument)?;
                let (key, amount) = (request.key.as_bytes(), request.value.into());
                answer(service.increment_within(scope, key, amount, NUMBERS).await)
            }
            "ListAdd" => {
                let (list, value) = item("ListAddRequest", argument)?;
                answer(service.list_push(scope, list, value).await)
            }
            "ListDel" => {
                let (list, value) = item("ListDelRequest", argument)?;
                answer(service.list_remove(scope, list, value).await)
            }
            "ListRange" => {
                let request: request::ListRange = decode("ListRangeRequest", argument)?;
                let list = request.list_name.as_bytes();
                let range = (request.start.into(), request.stop.into());
                self.read(caller, service.list_range(scope, list, range, listed).await)
            }
            "Set" => {
                let request: request::Set = decode("SetRequest", argument)?;
                let (key, value) = (request.key.as_bytes(), request.value.as_bytes());
                let set = service.set(scope, key, value, request.expires).await;
                set.map(|()| Answer::small(Vec::new())).map_err(worded)
            }
            "SetAdd" => {
                let (set, value) = member("SetAddRequest", argument)?;
                answer(service.set_add(scope, set, value).await.map(u32::from))
            }
            "SetDel" => {
                let (set, value) = member("SetDelRequest", argument)?;
                answer(service.set_remove(scope, set, value).await.map(u32::from))
            }
            "SetIntersection" => {
                let sets = names(argument)?;
                self.read(caller, service.set_intersection(scope, &sets, listed).await)
            }
            "SetQuery" => self.read(caller, service.set_members(scope, name(argument)?, listed).await),
            "SetUnion" => {
                let sets = names(argument)?;
                self.read(caller, service.set_union(scope, &sets, listed).await)
            }
            unknown => Err(RpcError::MethodNotHandled(format!("KeyValue::{unknown}")).into()),
        }
    }

    /// The answer of a read. Says which limit an answer was too large for.
    fn read(&self, caller: &Caller, read: Read) -> Answered {
        let Answer { content, turn } = read.map_err(|error| match error {
            Error::Refused(CacheError::AnswerTooLarge { limit })
                if limit < self.config().max_answer_bytes && !caller.gets_large_answers =>
            {
                RpcError::Other(format!("the answer would have more than {limit} bytes: {NO_STORE}")).into()
            }
            error => worded(error),
        })?;
        Ok(Answer {
            content: content?,
            turn,
        })
    }

    fn scope<'a>(&self, caller: &'a Caller) -> Scope<'a> {
        let most = self.config().max_answer_bytes;
        Scope {
            caller: &caller.actor,
            namespace: &caller.link.namespace,
            acks: caller.link.acks,
            caps: caller.link.caps,
            max_answer_bytes: match caller.gets_large_answers {
                true => most,
                false => most.min(THRESHOLD),
            },
        }
    }
}
