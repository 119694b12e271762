//! Messages that wait for the replication task, bounded by bytes.
//!
//! The client library bounds a subscription by the number of messages only, and a reader that stops draining makes the
//! server cut the connection. So every subscription is drained at once into this queue, and what does not fit is
//! dropped: the replica is told, and asks for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::time;
use kvcache_core::cache::Millis;

/// What a message costs beside its bytes.
const MESSAGE_BYTES: usize = 512;

struct Shared {
    bytes: AtomicUsize,
    capacity: usize,
    dropped: AtomicBool,
}

/// The end of the replication task.
pub(super) struct Inbox {
    messages: mpsc::UnboundedReceiver<(Message, Millis)>,
    sender: mpsc::UnboundedSender<(Message, Millis)>,
    shared: Arc<Shared>,
    /// When the message arrived that was taken last.
    taken: Millis,
}

/// Drains one subscription until it is dropped.
pub(super) struct Drain(JoinHandle<()>);

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn cost(message: &Message) -> usize {
    message.payload.len() + message.subject.len() + MESSAGE_BYTES
}

impl Inbox {
    /// An inbox of about `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            bytes: AtomicUsize::new(0),
            capacity,
            dropped: AtomicBool::new(false),
        });
        Inbox {
            messages,
            sender,
            shared,
            taken: 0,
        }
    }

    /// Puts what arrives at a subscription in here.
    pub fn drain(&self, mut subscription: Subscriber) -> Drain {
        let (sender, shared) = (self.sender.clone(), self.shared.clone());
        Drain(tokio::spawn(async move {
            while let Some(message) = subscription.next().await {
                shared.put(&sender, message);
            }
        }))
    }

    /// The next message, and when it arrived. What it took up is free again.
    pub async fn next(&mut self) -> Option<(Message, Millis)> {
        let (message, arrived) = self.messages.recv().await?;
        self.shared.bytes.fetch_sub(cost(&message), Ordering::Relaxed);
        self.taken = arrived;
        Some((message, arrived))
    }

    /// Until when all that arrived has been taken, if there is more.
    pub fn behind_since(&self) -> Option<Millis> {
        (!self.messages.is_empty()).then_some(self.taken)
    }

    /// Whether messages were dropped since the last call.
    pub fn has_dropped(&self) -> bool {
        self.shared.dropped.swap(false, Ordering::Relaxed)
    }
}

impl Shared {
    fn put(&self, sender: &mpsc::UnboundedSender<(Message, Millis)>, message: Message) {
        let cost = cost(&message);
        if self.bytes.fetch_add(cost, Ordering::Relaxed) + cost > self.capacity {
            self.bytes.fetch_sub(cost, Ordering::Relaxed);
            self.dropped.store(true, Ordering::Relaxed);
            return;
        }
        // The receiver is gone only when replication has stopped.
        let _ = sender.send((message, time::mono()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            subject: "subject".into(),
            reply: None,
            payload: vec![0; bytes].into(),
            headers: None,
            status: None,
            description: None,
            length: bytes,
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_told() {
        let mut inbox = Inbox::new(10_000);
        for _ in 0..10 {
            inbox.shared.put(&inbox.sender, message(3_000));
        }
        assert!(inbox.has_dropped());
        assert!(!inbox.has_dropped());
        let mut taken = 0;
        while inbox.shared.bytes.load(Ordering::Relaxed) > 0 {
            inbox.next().await.unwrap();
            taken += 1;
        }
        assert_eq!((taken, inbox.behind_since()), (2, None));
        inbox.shared.put(&inbox.sender, message(3_000));
        assert!(!inbox.has_dropped());
    }
}
