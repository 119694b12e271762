//! Transactions of Consul over HTTP.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::Bytes;
use kvcache_node::store::StoreError;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, Url};
use serde::{Deserialize, Serialize};

use crate::errors::Place;
use crate::options::Options;

/// Operations of one transaction: servers older than 1.13 take no more.
pub(crate) const OPERATIONS: usize = 64;
/// Bytes of one transaction as it is sent. The limit of servers is 512 KiB, and beyond it they cut the connection.
pub(crate) const BODY: usize = 480_000;
/// What an operation takes beside its key and its value.
const OPERATION: usize = 80;

/// The agents of a URL.
pub(crate) struct Consul {
    client: Client,
    /// `https://host:port/` of each.
    agents: Vec<Url>,
    /// The one that is asked first.
    current: AtomicUsize,
    datacenter: Option<String>,
    place: Place,
}

/// A part of a transaction.
#[derive(Clone, Copy)]
pub(crate) enum Operation<'a> {
    /// All keys that begin so. None is no error.
    GetTree(&'a str),
    /// A key, which has to be there.
    Get(&'a str),
    Set(&'a str, &'a [u8]),
    /// Only if the key was last changed at this index; 0: only if it is not there.
    Cas(&'a str, &'a [u8], u64),
    /// Whether it is there or not.
    Delete(&'a str),
    DeleteTree(&'a str),
}

/// What has become of a transaction. All of it is done, or nothing.
pub(crate) enum Outcome {
    Done(Vec<Found>),
    /// Somebody has changed a key in between, or a key is not there.
    Otherwise,
}

/// A key that was read.
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// When it was last changed.
    pub(crate) index: u64,
}

impl Consul {
    /// A client with the token that the URL names. Nothing is asked yet.
    pub(crate) fn new(options: &Options, token: Option<&str>, place: Place) -> Result<Self, StoreError> {
        let tried = "preparing a client";
        let tls = crate::tls::config(options).map_err(|reason| place.unusable(tried, &reason))?;
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value =
                HeaderValue::from_str(token).map_err(|_| place.unusable(tried, &"the token is no token"))?;
            value.set_sensitive(true);
            headers.insert("X-Consul-Token", value);
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .default_headers(headers)
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| place.unusable(tried, &why(&error)))?;
        let scheme = if options.tls { "https" } else { "http" };
        let agents = options
            .hosts
            .iter()
            .map(|host| Url::parse(&format!("{scheme}://{host}/")));
        Ok(Consul {
            client,
            agents: agents
                .collect::<Result<_, _>>()
                .map_err(|error| place.unusable(tried, &error))?,
            current: AtomicUsize::new(0),
            datacenter: options.datacenter.clone(),
            place,
        })
    }

    /// What and where, for names and errors.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Executes a transaction of no more than [`OPERATIONS`] that [`fit`].
    pub(crate) async fn execute(&self, tried: &str, operations: &[Operation<'_>]) -> Result<Outcome, StoreError> {
        let only_reads = operations
            .iter()
            .all(|operation| matches!(operation, Operation::Get(_) | Operation::GetTree(_)));
        let wire: Vec<_> = operations.iter().map(WireOperation::of).collect();
        let body = serde_json::to_vec(&wire).map_err(|error| self.place.unusable(tried, &error))?;
        // What was written before is read, whoever was the leader then.
        let consistency = if only_reads { "consistent" } else { "" };
        let (status, answer) = self
            .send(tried, Method::PUT, &["v1", "txn"], consistency, Some(body.into()))
            .await?;
        if status == 200 {
            let answer: Answer = serde_json::from_slice(&answer).map_err(|error| {
                self.place
                    .away(tried, &format!("an answer that cannot be read: {error}"))
            })?;
            let found = answer
                .results
                .unwrap_or_default()
                .into_iter()
                .map(|result| result.kv.found());
            let found = found.collect::<Result<_, _>>();
            return found
                .map(Outcome::Done)
                .map_err(|error| self.place.away(tried, &format!("a value that cannot be read: {error}")));
        }
        let otherwise = ["index is stale", "doesn't exist"];
        match serde_json::from_slice::<Answer>(&answer) {
            Ok(Answer {
                errors: Some(errors), ..
            }) if status == 409
                && errors
                    .iter()
                    .all(|error| otherwise.iter().any(|words| error.what.contains(words))) =>
            {
                Ok(Outcome::Otherwise)
            }
            _ => Err(self.place.refused(tried, status, &String::from_utf8_lossy(&answer))),
        }
    }

    /// Executes what only writes and cannot fail for what others do, in as many transactions as it takes.
    pub(crate) async fn execute_all(&self, tried: &str, operations: &[Operation<'_>]) -> Result<(), StoreError> {
        for some in fit(operations) {
            if let Outcome::Otherwise = self.execute(tried, some).await? {
                return Err(self.place.away(tried, &"an unconditional write was refused"));
            }
        }
        Ok(())
    }

    /// The keys that begin so.
    pub(crate) async fn keys(&self, tried: &str, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path: Vec<&str> = ["v1", "kv"].into_iter().chain(prefix.split('/')).collect();
        let (status, answer) = self.send(tried, Method::GET, &path, "keys&consistent", None).await?;
        match status {
            404 => Ok(Vec::new()),
            200 => serde_json::from_slice(&answer).map_err(|error| {
                self.place
                    .away(tried, &format!("an answer that cannot be read: {error}"))
            }),
            _ => Err(self.place.refused(tried, status, &String::from_utf8_lossy(&answer))),
        }
    }

    async fn send(
        &self,
        tried: &str,
        method: Method,
        path: &[&str],
        query: &str,
        body: Option<Bytes>,
    ) -> Result<(u16, Bytes), StoreError> {
        let mut failed = None;
        // Where one cannot be reached the next may be. Twice is as good as once: a second compare-and-set finds the first.
        for _ in 0..self.agents.len() {
            let current = self.current.load(Relaxed);
            let agent = &self.agents[current % self.agents.len()];
            match self.send_to(agent, method.clone(), path, query, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = Some(error),
            }
            self.current.store(current.wrapping_add(1), Relaxed);
        }
        let why = failed.as_ref().map_or_else(|| "there is no agent".into(), why);
        Err(self.place.away(tried, &why))
    }

    async fn send_to(
        &self,
        agent: &Url,
        method: Method,
        path: &[&str],
        query: &str,
        body: Option<Bytes>,
    ) -> Result<(u16, Bytes), reqwest::Error> {
        let mut url = agent.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        if let Some(name) = &self.datacenter {
            url.query_pairs_mut().append_pair("dc", name);
        }
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?))
    }
}

/// Cuts operations into transactions.
pub(crate) fn fit<'a, 'b>(mut operations: &'b [Operation<'a>]) -> impl Iterator<Item = &'b [Operation<'a>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = operations.iter().take(OPERATIONS).take_while(|operation| {
            bytes += operation.bytes();
            bytes <= BODY
        });
        // One that is too large for all is refused by the server.
        let number = fitting.count().max(1);
        let (some, rest) = operations.split_at_checked(number)?;
        operations = rest;
        Some(some)
    })
}

impl Operation<'_> {
    /// What it takes of a transaction.
    fn bytes(&self) -> usize {
        let (key, value) = match self {
            Operation::Set(key, value) | Operation::Cas(key, value, _) => (key, value.len()),
            Operation::GetTree(key) | Operation::Get(key) | Operation::Delete(key) | Operation::DeleteTree(key) => {
                (key, 0)
            }
        };
        operation_bytes(key, value)
    }
}

/// What an operation takes of a transaction, whose value has so many bytes.
pub(crate) fn operation_bytes(key: &str, value: usize) -> usize {
    OPERATION + key.len() + value.div_ceil(3) * 4
}

/// An error of the client with its causes, without the URL: what was tried says enough.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[derive(Serialize)]
struct WireOperation<'a> {
    #[serde(rename = "KV")]
    kv: WireKv<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireKv<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

impl<'a> WireOperation<'a> {
    fn of(operation: &Operation<'a>) -> Self {
        let (verb, key, value, index) = match *operation {
            Operation::GetTree(key) => ("get-tree", key, None, None),
            Operation::Get(key) => ("get", key, None, None),
            Operation::Set(key, value) => ("set", key, Some(value), None),
            Operation::Cas(key, value, index) => ("cas", key, Some(value), Some(index)),
            Operation::Delete(key) => ("delete", key, None, None),
            Operation::DeleteTree(key) => ("delete-tree", key, None, None),
        };
        let value = value.map(|value| BASE64_STANDARD.encode(value));
        WireOperation {
            kv: WireKv {
                verb,
                key,
                value,
                index,
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    results: Option<Vec<WireResult>>,
    #[serde(default)]
    errors: Option<Vec<WireError>>,
}

#[derive(Deserialize)]
struct WireResult {
    #[serde(rename = "KV")]
    kv: WireFound,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireFound {
    key: String,
    #[serde(default)]
    value: Option<String>,
    modify_index: u64,
}

impl WireFound {
    fn found(self) -> Result<Found, base64::DecodeError> {
        let value = self.value.map(|value| BASE64_STANDARD.decode(value)).transpose()?;
        Ok(Found {
            key: self.key,
            value: value.unwrap_or_default(),
            index: self.modify_index,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireError {
    what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_keep_both_limits() {
        let small = vec![Operation::Set("key", b"value"); 150];
        let sizes: Vec<usize> = fit(&small).map(<[_]>::len).collect();
        assert_eq!(sizes, [64, 64, 22]);
        let value = vec![7; 100_000];
        let large = vec![Operation::Cas("key", &value, 1); 10];
        for some in fit(&large) {
            let wire: Vec<_> = some.iter().map(WireOperation::of).collect();
            let body = serde_json::to_vec(&wire).unwrap();
            assert!(
                body.len() <= BODY && some.len() == 3 || some.len() == 1,
                "{} bytes",
                body.len()
            );
        }
        let huge = vec![7; 1_000_000];
        let sizes: Vec<usize> = fit(&[Operation::Set("a", &huge), Operation::Set("b", b"")])
            .map(<[_]>::len)
            .collect();
        assert_eq!(sizes, [1, 1]);
        assert_eq!(fit(&[]).count(), 0);
    }

    #[test]
    fn what_an_operation_takes_is_not_underestimated() {
        let key = "k".repeat(300);
        for operation in [
            Operation::GetTree(&key),
            Operation::Set(&key, b"1234"),
            Operation::Cas(&key, b"1", u64::MAX),
            Operation::DeleteTree(&key),
        ] {
            let body = serde_json::to_vec(&WireOperation::of(&operation)).unwrap();
            assert!(body.len() < operation.bytes(), "{}", String::from_utf8_lossy(&body));
        }
    }
}
