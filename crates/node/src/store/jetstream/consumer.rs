//! Reads all messages with some subjects, from the beginning of the stream to its end.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use serde_json::{json, Value};

use super::answer::{delivery, header, Delivery};
use super::bucket::Bucket;
use super::link::{Link, Published};
use crate::store::StoreError;

/// Messages that are asked for at a time, twice over, and their bytes beside the longest ones.
const PULL: usize = 1_024;
const PULL_BYTES: usize = 2 << 20;
/// How long a question for messages stands.
const PULL_SECONDS: u64 = 1;
/// A consumer goes by itself when it is left.
const INACTIVE_SECONDS: u64 = 30;

/// Two stand at a time, and end one after the other.
const MAX_IN_VAIN: usize = 4;

const NANOSECONDS: u64 = 1_000_000_000;

/// A server sends what it has sooner.
const MOMENT: Duration = Duration::from_millis(10);

/// A stream that is written to all the time has no end. What was not seen until it was reached so often has been
/// written as often, a moment before each time.
const MAX_ENDS: usize = 20;

/// A consumer of its own, and the messages that are on their way from it.
pub(super) struct Consumer<'a> {
    link: &'a Link,
    stream: &'a str,
    name: String,
    question: Value,
    inbox: String,
    messages: Subscriber,
    asked_for: usize,
    seen: u64,
    /// What is written behind all that is there, where the server that is read from may be behind the one that leads.
    mark: Option<String>,
    /// The sequence that is to be reached.
    end: u64,
    /// Messages since it was asked for, but for marks.
    since: usize,
    ends: usize,
    is_over: bool,
    /// Questions that have ended without a message, one after the other.
    in_vain: usize,
}

impl<'a> Consumer<'a> {
    /// Of messages with any of these subjects, of which `mark` is one that no record has.
    pub async fn of(link: &'a Link, bucket: &'a Bucket, subjects: &[String], mark: String) -> Result<Self, StoreError> {
        let stream = bucket.stream.as_str();
        let mut config = json!({
            "stream_name": stream,
            "config": {
                "deliver_policy": "all",
                "ack_policy": "none",
                "replay_policy": "instant",
                "mem_storage": true,
                "num_replicas": 1,
                "inactive_threshold": INACTIVE_SECONDS * NANOSECONDS,
            },
        });
        match subjects {
            [subject] => config["config"]["filter_subject"] = json!(subject),
            subjects => config["config"]["filter_subjects"] = json!(subjects),
        }
        let question = format!("CONSUMER.CREATE.{stream}");
        let info = link.api_or_fault(&question, &config).await?;
        let name = info["name"].as_str().ok_or_else(|| link.strange(&question))?;
        let (inbox, messages) = link.inbox().await?;
        let mut consumer = Consumer {
            link,
            stream,
            name: name.into(),
            question: json!({
                "batch": PULL,
                "max_bytes": PULL_BYTES + bucket.payload * 2,
                "expires": PULL_SECONDS * NANOSECONDS,
            }),
            inbox,
            messages,
            asked_for: 0,
            seen: 0,
            mark: bucket.is_replicated.then_some(mark),
            end: 0,
            since: 0,
            ends: 0,
            is_over: info["num_pending"] == 0 && !bucket.is_replicated,
            in_vain: 0,
        };
        if !consumer.is_over {
            consumer.end = consumer.last_sequence().await?;
        }
        Ok(consumer)
    }

    /// The next message; `None` at the end. Then all that was there at the beginning was seen, or what has replaced it:
    /// what is replaced moves to the end of the stream, and the end is followed.
    pub async fn next(&mut self) -> Result<Option<Message>, StoreError> {
        let mut quiet = Duration::ZERO;
        while !self.is_over {
            // Two questions stand, so that the next messages are on their way already.
            while self.asked_for <= PULL {
                self.link
                    .pull(self.stream, &self.name, &self.inbox, &self.question)
                    .await?;
                self.asked_for += PULL;
            }
            let patience = self.mark.as_ref().map_or(MOMENT, |_| self.link.timeout);
            let Some(message) = self.link.next(&mut self.messages, patience).await? else {
                quiet += patience;
                if quiet >= self.link.timeout {
                    return Err(self.link.away("no answer in time"));
                }
                self.is_over = self.is_idle(true).await?;
                continue;
            };
            if message.status == Some(StatusCode::NO_RESPONDERS) && quiet < self.link.timeout {
                // Other servers of a cluster learn of a consumer a moment after it was made.
                tokio::time::sleep(MOMENT).await;
                quiet += MOMENT;
                self.asked_for = self.asked_for.saturating_sub(PULL);
                continue;
            }
            if let Some(status) = message.status {
                self.question_ended(status, &message).await?;
                continue;
            }
            let delivery = delivery(&message).ok_or_else(|| self.link.strange("a question for messages"))?;
            self.asked_for = self.asked_for.saturating_sub(1);
            (self.seen, self.in_vain) = (self.seen + 1, 0);
            if delivery.number != self.seen {
                return Err(self.link.away("messages were lost on their way"));
            }
            self.since += usize::from(self.mark.as_deref() != Some(message.subject.as_str()));
            self.follow_end(delivery).await?;
            return Ok(Some(message));
        }
        Ok(None)
    }

    /// Whether it is on a server that does not get what the one that leads has. Another consumer may be on another one.
    pub fn is_behind(&self) -> bool {
        self.in_vain >= MAX_IN_VAIN
    }

    pub async fn close(self) {
        let question = format!("CONSUMER.DELETE.{}.{}", self.stream, self.name);
        // If it stays it goes later by itself.
        let _ = self.link.api(&question, &Value::Null).await;
    }

    /// What the server counts as waiting is not exact while others write. So the stream is asked where it ends, and when
    /// that is reached, where it has got to.
    async fn follow_end(&mut self, delivery: Delivery) -> Result<(), StoreError> {
        if delivery.sequence < self.end {
            return Ok(());
        }
        self.ends += 1;
        // Nothing but the mark has come since the last time.
        self.is_over = self.since == 0 || self.ends == MAX_ENDS;
        if !self.is_over {
            (self.end, self.since) = (self.last_sequence().await?, 0);
            self.is_over = self.end <= delivery.sequence;
        }
        Ok(())
    }

    /// The last sequence of the stream, and where some may be behind it one that comes to this reader.
    async fn last_sequence(&mut self) -> Result<u64, StoreError> {
        if let Some(mark) = &self.mark {
            match self.link.publish(mark.clone(), None, Bytes::new()).await {
                Ok(Published::Stored { sequence }) => return Ok(sequence),
                // A bucket that is full can be read all the same, if a moment less surely.
                _ => self.mark = None,
            }
        }
        let question = format!("STREAM.INFO.{}", self.stream);
        let info = self.link.api_or_fault(&question, &Value::Null).await?;
        info["state"]["last_seq"]
            .as_u64()
            .ok_or_else(|| self.link.strange(&question))
    }

    /// A question has ended by its time or its bytes, and some of the messages that it asked for do not come.
    async fn question_ended(&mut self, status: StatusCode, message: &Message) -> Result<(), StoreError> {
        let left = header(message.headers.as_ref(), "Nats-Pending-Messages");
        let Some(left) = left.and_then(|left| left.parse::<usize>().ok()) else {
            let text = message.description.as_deref().unwrap_or_default();
            return Err(self.link.away(&format!("{status} {text}")));
        };
        self.asked_for = self.asked_for.saturating_sub(left);
        if status == StatusCode::TIMEOUT {
            self.in_vain += 1;
            // Nothing has come for so long that nothing does.
            self.is_over = self.mark.is_none() && self.is_idle(false).await?;
        }
        match self.is_behind() {
            true => Err(self.link.away("a server is behind the others")),
            false => Ok(()),
        }
    }

    /// Whether all that was sent has come and, as far as is counted, nothing waits.
    async fn is_idle(&self, counts: bool) -> Result<bool, StoreError> {
        let question = format!("CONSUMER.INFO.{}.{}", self.stream, self.name);
        let info = self.link.api_or_fault(&question, &Value::Null).await?;
        let has_come = info["delivered"]["consumer_seq"] == self.seen;
        Ok(has_come && (!counts || info["num_pending"] == 0))
    }
}
