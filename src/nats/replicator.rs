//! The replication task and its handle.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch, Mutex};
use tokio::task::JoinHandle;

use super::connection::{Connection, ConnectionEvent, Credentials, NatsError};
use super::queue::{Queue, Queued};
use super::subjects::{Subjects, REPLAY_GROUP};
use crate::cache::{Cache, Command, Millis, NodeId};
use crate::replica::{Config, Input, Numbers, Output, Replica, Status, SyncState, Target};
use crate::time;

/// Commands taken from the queue at once.
const BATCH: usize = 1_024;

/// How long the last commands may take to leave at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The status that others see is at most this old.
const STATUS_INTERVAL_MS: Millis = 250;

/// Where and how to replicate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Addresses of NATS servers; any of them will do.
    pub servers: Vec<String>,
    /// Credentials for NATS.
    pub credentials: Credentials,
    /// The subjects.
    pub subjects: Subjects,
    /// Name of the host, for peers to show.
    pub host: String,
    /// Interval of beats in milliseconds.
    pub beat_interval_ms: Millis,
    /// After how many milliseconds without a finished first replay the node says that it is not synced.
    pub sync_limit_ms: Millis,
}

/// Replication that runs until it is stopped.
pub struct Replicator {
    queue: Queue,
    status: watch::Receiver<Status>,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<Numbers>)>>,
}

impl Replicator {
    /// Starts replication of `cache`. Returns when the connection is being made; a server that is away is waited for.
    /// `numbers` are those with which an earlier replicator of the same cache stopped.
    pub async fn start(cache: Arc<Cache>, settings: Settings, numbers: Numbers) -> Result<Self, NatsError> {
        let node = cache.node();
        let connection = Connection::open(&settings.servers, &settings.credentials, &settings.subjects, node).await?;
        let config = Config {
            host: settings.host,
            release: env!("CARGO_PKG_VERSION").into(),
            beat_interval_ms: settings.beat_interval_ms,
            sync_limit_ms: settings.sync_limit_ms,
        };
        let (queue, commands) = Queue::new();
        let (status_sender, status) = watch::channel(Status::default());
        let (stop, stopped) = oneshot::channel();
        let driver = Driver {
            node,
            replica: Replica::new(cache, config, numbers),
            subjects: settings.subjects,
            client: connection.client.clone(),
            up: connection.up.clone(),
            replays: None,
            status: status_sender,
            status_due: 0,
        };
        let task = tokio::spawn(driver.run(connection, commands, stopped));
        Ok(Replicator {
            queue,
            status,
            stop: Mutex::new(Some((stop, task))),
        })
    }

    /// Hands a command of a local write over. Waits only while the bounded queue is full. Returns false when
    /// replication has stopped; then the command does not leave this host.
    pub async fn replicate(&self, command: Command) -> bool {
        self.queue.push(command).await
    }

    /// Whether the replication task is there.
    pub fn is_running(&self) -> bool {
        self.status.has_changed().is_ok()
    }

    /// The current status.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the first replay is done or its limit has passed. Returns the state then.
    pub async fn first_sync(&self) -> SyncState {
        let mut status = self.status.clone();
        // An error means that replication has stopped, which is an answer as well.
        let _ = status.wait_for(|status| status.sync != SyncState::Starting).await;
        let sync = status.borrow().sync;
        sync
    }

    /// Sends what is queued, says goodbye to the peers and ends. Returns the numbers used; further calls do nothing.
    pub async fn stop(&self) -> Numbers {
        let Some((stop, task)) = self.stop.lock().await.take() else {
            return Numbers::default();
        };
        let _ = stop.send(());
        match tokio::time::timeout(STOP_LIMIT, task).await {
            Ok(numbers) => numbers.unwrap_or_default(),
            Err(_) => {
                tracing::warn!("replication did not end within {} s", STOP_LIMIT.as_secs());
                Numbers::default()
            }
        }
    }
}

struct Driver {
    node: NodeId,
    replica: Replica,
    subjects: Subjects,
    client: Client,
    up: watch::Receiver<bool>,
    /// Subscription of the replay group, once this node may answer.
    replays: Option<Subscriber>,
    status: watch::Sender<Status>,
    status_due: Millis,
}

impl Driver {
    async fn run(
        mut self,
        mut connection: Connection,
        mut commands: mpsc::UnboundedReceiver<Queued>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Numbers {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.publish_status();
            let wake = self.replica.poll_timeout().min(time::mono() + STATUS_INTERVAL_MS);
            tokio::select! {
                Some(event) = connection.events.recv() => self.connection_event(event).await,
                Some(message) = connection.commands.next() => self.input(Input::Message(message.payload)).await,
                Some(message) = connection.beats.next() => self.input(Input::Message(message.payload)).await,
                Some(message) = connection.node.next() => self.input(Input::Message(message.payload)).await,
                Some(message) = connection.replies.next() => self.reply(message).await,
                Some(message) = next(&mut self.replays) => self.input(Input::Message(message.payload)).await,
                1.. = commands.recv_many(&mut batch, BATCH) => self.local(&mut batch).await,
                () = tokio::time::sleep_until(time::instant(wake)) => self.tick().await,
                _ = &mut stopped => break,
            }
        }
        commands.close();
        while commands.recv_many(&mut batch, BATCH).await > 0 {
            self.local(&mut batch).await;
        }
        self.input(Input::Leaving).await;
        self.flush().await;
        self.replica.numbers()
    }

    /// Waits until everything is written to the socket, unless the server is away.
    async fn flush(&self) {
        let mut up = self.up.clone();
        if !*up.borrow() {
            return;
        }
        tokio::select! {
            flushed = self.client.flush() => if let Err(error) = flushed {
                tracing::warn!(%error, "the last commands may not have left");
            },
            _ = up.wait_for(|up| !up) => {}
        }
    }

    async fn connection_event(&mut self, event: ConnectionEvent) {
        let input = match event {
            ConnectionEvent::Up => Input::Connected {
                max_payload: self.client.max_payload(),
            },
            ConnectionEvent::Down => Input::Disconnected,
            ConnectionEvent::MessagesLost => Input::MessagesLost,
        };
        self.input(input).await;
    }

    /// The server answers a request for which nobody listens with a status on the reply subject.
    async fn reply(&mut self, message: async_nats::Message) {
        let request = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        match (message.status, request) {
            (Some(StatusCode::NO_RESPONDERS), Some(request)) => self.input(Input::NoResponders { request }).await,
            _ => self.input(Input::Message(message.payload)).await,
        }
    }

    /// Makes one frame of what has queued up. The memory of the queue is given back when the frame is on its way.
    async fn local(&mut self, batch: &mut Vec<Queued>) {
        let commands = batch.iter().map(|queued| queued.command.clone()).collect();
        self.input(Input::Local(commands)).await;
        batch.clear();
    }

    async fn tick(&mut self) {
        self.replica.tick(time::now());
        self.perform().await;
    }

    async fn input(&mut self, input: Input) {
        self.replica.handle(time::now(), input);
        self.perform().await;
    }

    async fn perform(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Publish { to, payload } => self.publish(to, payload).await,
                Output::AnswerReplays => self.answer_replays().await,
            }
        }
    }

    /// Hands a message to the client. Waits while its buffer is full, but not for a server that is away: what is lost
    /// then is repaired after the reconnect.
    async fn publish(&mut self, to: Target, payload: Bytes) {
        let mut up = self.up.clone();
        if !*up.borrow() {
            return;
        }
        let send = async {
            match to {
                Target::Commands => self.client.publish(self.subjects.commands().to_owned(), payload).await,
                Target::Beat => self.client.publish(self.subjects.beat(), payload).await,
                Target::Node(node) => self.client.publish(self.subjects.node(node), payload).await,
                Target::Replay { request } => {
                    let reply = self.subjects.reply(self.node, request);
                    self.client
                        .publish_with_reply(self.subjects.replay().to_owned(), reply, payload)
                        .await
                }
            }
        };
        tokio::select! {
            sent = send => if let Err(error) = sent {
                tracing::warn!(%error, "a message was not sent");
            },
            _ = up.wait_for(|up| !up) => {}
        }
    }

    async fn answer_replays(&mut self) {
        let subject = self.subjects.replay().to_owned();
        match self.client.queue_subscribe(subject, REPLAY_GROUP.into()).await {
            Ok(subscription) => self.replays = Some(subscription),
            Err(error) => tracing::error!(%error, "cannot answer replay requests"),
        }
    }

    fn publish_status(&mut self) {
        let now = time::now();
        let changed = self.replica.sync_state(now) != self.status.borrow().sync;
        if changed || now.mono >= self.status_due {
            self.status_due = now.mono + STATUS_INTERVAL_MS;
            self.status.send_replace(self.replica.status(now));
        }
    }
}

async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}
