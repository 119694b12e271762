//! Questions to JetStream over the connection of a store.

use std::future::Future;
use std::time::Duration;

use async_nats::{HeaderMap, Message, Request, RequestError, RequestErrorKind, StatusCode, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde_json::{json, Value};

use super::answer::{code, read, Kept, Refused};
use super::fault::fault;
use crate::nats::StoreConnection;
use crate::secret::cleaned;
use crate::store::StoreError;

/// The connection of one store. All may ask at the same time.
pub(super) struct Link {
    /// The bucket, for people.
    pub name: String,
    pub timeout: Duration,
    connection: StoreConnection,
}

/// What has become of a message that was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Published {
    Stored {
        sequence: u64,
    },
    /// Its subject has another sequence than was expected.
    WrongSequence,
}

impl Link {
    pub fn new(name: String, timeout: Duration, connection: StoreConnection) -> Self {
        Link {
            name,
            timeout,
            connection,
        }
    }

    /// Waits for the connection. Returns the longest message that the server takes.
    pub async fn ready(&self) -> Result<usize, StoreError> {
        let mut up = self.connection.told.up.clone();
        let waited = tokio::time::timeout(self.timeout, up.wait_for(|up| *up)).await;
        let is_up = waited.is_ok_and(|up| up.is_ok());
        match self.connection.client.try_server_info() {
            Some(info) if is_up => Ok(info.max_payload),
            _ => {
                let reason = self.connection.told.failed.borrow();
                let reason = if reason.is_empty() {
                    "no connection in time"
                } else {
                    &reason
                };
                Err(StoreError::Away(format!("{}: {reason}", self.name)))
            }
        }
    }

    /// Whether the server is of this version or a later one.
    pub fn is_at_least(&self, version: [u32; 3]) -> bool {
        let info = self.connection.client.server_info();
        let mut numbers = info.version.split(['.', '-']).map_while(|number| number.parse().ok());
        [(); 3].map(|()| numbers.next().unwrap_or(0)) >= version
    }

    /// Asks JetStream something, `STREAM.INFO.name` for instance.
    pub async fn api(&self, question: &str, body: &Value) -> Result<Result<Value, Refused>, StoreError> {
        let body = match body {
            Value::Null => Bytes::new(),
            body => body.to_string().into(),
        };
        let subject = format!("$JS.API.{question}");
        // Servers of a cluster drop questions while they choose who leads. All may be asked twice.
        let half = self.timeout / 2;
        let answer = match self.answer(subject.clone(), None, body.clone(), half).await? {
            Some(answer) => Some(answer),
            None => self.answer(subject, None, body, half).await?,
        };
        let answer = answer.ok_or_else(|| self.away("no answer in time"))?;
        read(&answer.payload).ok_or_else(|| self.strange(question))
    }

    /// Asks what has only one answer that is of use.
    pub async fn api_or_fault(&self, question: &str, body: &Value) -> Result<Value, StoreError> {
        let answer = self.api(question, body).await?;
        answer.map_err(|refused| fault(&self.name, &refused))
    }

    /// The newest message with a subject, of the server that is asked; `None` for none.
    pub async fn last(&self, stream: &str, subject: &str) -> Result<Option<Kept>, StoreError> {
        let question = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        let answer = self.ask(question, None, Bytes::new()).await?;
        match answer.status {
            None => match Kept::of(&answer) {
                None => Err(self.strange("a direct get")),
                kept => Ok(kept),
            },
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => {
                let text = answer.description.unwrap_or_default();
                Err(StoreError::Away(format!("{}: {status} {text}", self.name)))
            }
        }
    }

    /// The newest message with a subject, of the server that leads: what was acknowledged is there.
    pub async fn last_of_leader(&self, stream: &str, subject: &str) -> Result<Option<Kept>, StoreError> {
        let question = format!("STREAM.MSG.GET.{stream}");
        match self.api(&question, &json!({ "last_by_subj": subject })).await? {
            Ok(answer) => match Kept::read(&answer["message"]) {
                None => Err(self.strange(&question)),
                kept => Ok(kept),
            },
            Err(refused) if refused.code == code::NO_MESSAGE_FOUND => Ok(None),
            Err(refused) => Err(fault(&self.name, &refused)),
        }
    }

    /// Publishes a message into the stream, if its subject has the sequence that is expected.
    pub async fn publish(
        &self,
        subject: String,
        expected: Option<u64>,
        payload: Bytes,
    ) -> Result<Published, StoreError> {
        let headers = expected.map(|sequence| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", sequence.to_string());
            headers
        });
        let answer = self.ask(subject, headers, payload).await?;
        match read(&answer.payload) {
            Some(Ok(stored)) => Ok(Published::Stored {
                sequence: stored["seq"].as_u64().unwrap_or(0),
            }),
            Some(Err(refused)) if code::WRONG_LAST_SEQUENCE.contains(&refused.code) => Ok(Published::WrongSequence),
            Some(Err(refused)) => Err(fault(&self.name, &refused)),
            None => Err(self.strange("a message")),
        }
    }

    /// Asks for the next messages of a consumer, which come to `inbox`.
    pub async fn pull(&self, stream: &str, consumer: &str, inbox: &str, body: &Value) -> Result<(), StoreError> {
        let question = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let asked = self
            .connection
            .client
            .publish_with_reply(question, inbox.to_owned(), body.to_string().into());
        let asked = tokio::time::timeout(self.timeout, asked).await;
        match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.away(&error.to_string())),
            Err(_) => Err(self.away("no answer in time")),
        }
    }

    /// A subscription of its own, and its subject.
    pub async fn inbox(&self) -> Result<(String, Subscriber), StoreError> {
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let subscription = tokio::time::timeout(self.timeout, client.subscribe(inbox.clone())).await;
        match subscription {
            Ok(Ok(subscription)) => Ok((inbox, subscription)),
            Ok(Err(error)) => Err(self.away(&error.to_string())),
            Err(_) => Err(self.away("no answer in time")),
        }
    }

    /// The next message of a subscription; `None` if none comes.
    pub async fn next(&self, subscription: &mut Subscriber, patience: Duration) -> Result<Option<Message>, StoreError> {
        // Most are there already, and need no timer.
        let next = match subscription.next().now_or_never() {
            Some(message) => Ok(message),
            None => tokio::time::timeout(patience, subscription.next()).await,
        };
        match next {
            Ok(None) => Err(self.away("the connection has ended")),
            Ok(message) => Ok(message),
            Err(_) => Ok(None),
        }
    }

    /// What takes several questions takes no longer than two of them may.
    pub async fn in_time<T>(&self, questions: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answered = tokio::time::timeout(self.timeout * 2, questions).await;
        answered.unwrap_or_else(|_| Err(self.away("no answer in time")))
    }

    /// An answer that JetStream does not give.
    pub fn strange(&self, question: &str) -> StoreError {
        StoreError::Unusable(format!(
            "{}: an answer to {question} that JetStream does not give",
            self.name
        ))
    }

    pub fn away(&self, what: &str) -> StoreError {
        StoreError::Away(format!("{}: {what}", self.name))
    }

    async fn ask(&self, subject: String, headers: Option<HeaderMap>, payload: Bytes) -> Result<Message, StoreError> {
        let answer = self.answer(subject, headers, payload, self.timeout).await?;
        answer.ok_or_else(|| self.away("no answer in time"))
    }

    /// `None` if none comes.
    async fn answer(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Option<Message>, StoreError> {
        let mut refused = self.connection.told.refused.clone();
        refused.mark_unchanged();
        let request = Request {
            payload: Some(payload),
            headers,
            // The library does not count the time that a message waits to be sent.
            timeout: Some(None),
            inbox: None,
        };
        let answer = self.connection.client.send_request(subject, request);
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) => Err(self.unanswered(&error)),
            // A server does not answer what it refuses: it says so on its own.
            Err(_) if refused.has_changed().unwrap_or(false) => Err(StoreError::Unusable(format!(
                "{}: the NATS user may not use it: {}",
                self.name,
                cleaned(&refused.borrow())
            ))),
            Err(_) => Ok(None),
        }
    }

    fn unanswered(&self, error: &RequestError) -> StoreError {
        let has_jetstream = || self.connection.client.server_info().jetstream;
        match error.kind() {
            RequestErrorKind::NoResponders if !has_jetstream() => StoreError::Unusable(format!(
                "{}: the NATS server needs JetStream ('jetstream {{}}' in its configuration)",
                self.name
            )),
            RequestErrorKind::NoResponders => self.away("nobody answers: it is not ready, or the bucket is gone"),
            _ => self.away(&error.to_string()),
        }
    }
}
