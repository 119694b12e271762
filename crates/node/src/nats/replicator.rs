//! The replication task and its handle.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_nats::{Client, StatusCode};
use bytes::Bytes;
use tokio::sync::{oneshot, watch, Mutex};
use tokio::task::JoinHandle;

use super::address::ServerAddress;
use super::connection::{Connection, ConnectionEvent};
use super::credentials::{Credentials, Tls};
use super::error::NatsError;
use super::inbox::{Drain, Inbox};
use super::queue::{Queue, Taken, Waiting};
use super::subjects::{replay_group, Subjects};
use crate::{time, words};
use kvcache_core::cache::{Cache, Delta, Millis, NodeId};
use kvcache_core::replica::{
    AckLevel, AckRequest, Answered, Channel, ClockFault, Handover, Input, Keyring, Lineage, Output, Refused, Replica,
    ReplicaConfig, Start, Status, SyncState, Target, Unconfirmed,
};

/// Deltas taken from the queue at once.
const BATCH: usize = 1_024;

/// While no other node is known, deltas wait up to this long for others to share a frame with.
const GATHER_MS: Millis = 50;

/// A message of so many bytes takes some tenths of a millisecond to be made, or to be taken in.
const LARGE: usize = 16 << 10;

/// How long the last deltas may take to leave at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long the server may take to say that it has the last message. A host kills the process 300 ms after it was told
/// to end.
const TAKEN_LIMIT: Duration = Duration::from_millis(200);

/// The status that others see is at most this old.
const STATUS_INTERVAL_MS: Millis = 250;

/// How much longer than its deadline an answer about confirmations is waited for.
const ANSWER_SLACK_MS: Millis = 250;

/// Where and how to replicate.
#[derive(Clone, Debug)]
pub struct ReplicatorConfig {
    /// Addresses of NATS servers; any of them will do.
    pub servers: Vec<ServerAddress>,
    /// Credentials for NATS.
    pub credentials: Credentials,
    /// Certificates for the connection.
    pub tls: Tls,
    /// The subjects.
    pub subjects: Subjects,
    /// Name of the host, for peers to show.
    pub host: String,
    /// Interval of heartbeats in milliseconds.
    pub heartbeat_interval_ms: Millis,
    /// After how many milliseconds without a finished bootstrap the node says that it is not synced.
    pub sync_limit_ms: Millis,
    /// So many peers have to have been known before the node calls itself synced or alone.
    pub min_peers: usize,
    /// What messages are authenticated with.
    pub keyring: Arc<Keyring>,
    /// Bytes of deltas that may wait to be sent; then writers wait.
    pub queue_bytes: usize,
    /// Bytes of peers' messages that may wait to be taken in; beyond it they are dropped and fetched later.
    pub inbox_bytes: usize,
    /// Bytes of recent frames kept for peers that missed some.
    pub ring_bytes: usize,
}

/// What became of a delta that was to be replicated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replicated {
    /// It is queued, and confirmed as far as was asked for.
    Done,
    /// It is queued, but not confirmed in time.
    Unconfirmed(Unconfirmed),
    /// Replication has stopped: as far as is known it does not leave this host. Here it is for whoever takes over.
    Stopped(Delta),
}

/// Replication that runs until it is stopped.
pub struct Replicator {
    queue: Queue,
    status: watch::Receiver<Status>,
    current: watch::Receiver<Millis>,
    handover: Arc<std::sync::Mutex<Handover>>,
    /// How long the bootstrap is waited for.
    sync_until: Millis,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

/// Replication whose connection is being made, and that has not begun.
pub struct Prepared {
    settings: ReplicatorConfig,
    connection: Connection,
    inbox: Inbox,
}

impl Prepared {
    /// Returns when the connection is being made; a server that is away is waited for.
    pub async fn new(cache: &Cache, settings: ReplicatorConfig) -> Result<Self, NatsError> {
        let inbox = Inbox::new(settings.inbox_bytes);
        let connection = Connection::open(
            &settings.servers,
            &settings.credentials,
            &settings.tls,
            &settings.subjects,
            cache.node(),
            &inbox,
        )
        .await?;
        Ok(Prepared {
            settings,
            connection,
            inbox,
        })
    }

    /// Begins to replicate. Nothing can fail any more.
    pub fn run(self, cache: Arc<Cache>, from: Start) -> Replicator {
        let Prepared {
            settings,
            connection,
            inbox,
        } = self;
        let node = cache.node();
        let sync_until = time::mono() + settings.sync_limit_ms;
        let group = replay_group(&settings.keyring);
        let config = ReplicaConfig {
            host: settings.host,
            release: env!("CARGO_PKG_VERSION").into(),
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            sync_limit_ms: settings.sync_limit_ms,
            min_peers: settings.min_peers,
            keyring: settings.keyring,
            ring_bytes: settings.ring_bytes,
            versions: ReplicaConfig::VERSIONS,
        };
        let replica = Replica::new(cache.clone(), config, from);
        let handover = Arc::new(std::sync::Mutex::new(replica.handover()));
        let queue = Queue::new(settings.queue_bytes);
        let (status_sender, status) = watch::channel(Status::default());
        let (current_sender, current) = watch::channel(0);
        let (stop, stopped) = oneshot::channel();
        let driver = Driver {
            node,
            replica,
            subjects: settings.subjects,
            group,
            client: connection.client.clone(),
            cache,
            answering: None,
            connected: false,
            up: connection.up.clone(),
            inbox,
            queue: queue.clone(),
            handover: handover.clone(),
            bootstraps: None,
            refused: Vec::new(),
            waiting: HashMap::new(),
            next_waiting: 0,
            last_local: 0,
            status: status_sender,
            status_due: 0,
            current: current_sender,
        };
        let task = tokio::spawn(driver.run(connection, stopped));
        Replicator {
            queue,
            status,
            current,
            handover,
            sync_until,
            stop: Mutex::new(Some((stop, task))),
        }
    }
}

impl Replicator {
    /// Starts replication of `cache`. Returns when the connection is being made; a server that is away is waited for.
    /// `from` says what it begins with, such as what an earlier replicator of the same cache hands over when it stops.
    /// It is awaited when nothing can fail any more.
    pub async fn start(
        cache: Arc<Cache>,
        settings: ReplicatorConfig,
        from: impl Future<Output = Start>,
    ) -> Result<Self, NatsError> {
        Ok(Prepared::new(&cache, settings).await?.run(cache, from.await))
    }

    /// Hands a delta of a local write over, if the queue has room. Gives it back if not, or when replication has
    /// stopped.
    pub fn replicate_now(&self, delta: Delta) -> Result<(), Delta> {
        self.queue.push_now(delta)
    }

    /// Hands a delta of a local write over. Waits while the bounded queue is full, then until `wanted` peers have
    /// confirmed it, but no longer than `timeout_ms` for that.
    pub async fn replicate(&self, delta: Delta, wanted: AckLevel, timeout_ms: Millis) -> Replicated {
        if wanted == AckLevel::Local {
            return match self.queue.push(delta, None).await {
                Ok(()) => Replicated::Done,
                Err(delta) => Replicated::Stopped(delta),
            };
        }
        let kept = delta.clone();
        let deadline = time::mono() + timeout_ms;
        let (answer, confirmed) = oneshot::channel();
        let waiting = Waiting {
            wanted,
            deadline,
            answer,
        };
        let confirmed = async {
            if let Err(delta) = self.queue.push(delta, Some(waiting)).await {
                return Replicated::Stopped(delta);
            }
            match confirmed.await {
                Ok(Ok(())) => Replicated::Done,
                Ok(Err(unconfirmed)) => Replicated::Unconfirmed(unconfirmed),
                Err(_) => Replicated::Stopped(kept),
            }
        };
        // The replica answers in time, unless it has not even been given the delta.
        let limit = time::instant(deadline + ANSWER_SLACK_MS);
        tokio::time::timeout_at(limit, confirmed).await.unwrap_or_else(|_| {
            let status = self.status.borrow();
            Replicated::Unconfirmed(Unconfirmed {
                confirmed: 0,
                missing: status.peers.iter().map(|peer| peer.host.clone()).collect(),
                disconnected: status.sync == SyncState::Disconnected,
            })
        })
    }

    /// Waits until this node has everything its peers are known to have sent and counts as present with them. Returns
    /// false when that takes longer than `timeout_ms`.
    pub async fn current(&self, timeout_ms: Millis) -> bool {
        let now = time::mono();
        if *self.current.borrow() > now {
            return true;
        }
        let mut current = self.current.clone();
        let reached = current.wait_for(|until| *until > time::mono());
        tokio::time::timeout_at(time::instant(now + timeout_ms), reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// Whether the replication task is there.
    pub fn is_running(&self) -> bool {
        self.status.has_changed().is_ok()
    }

    /// How far back the state of this node goes.
    pub fn lineage(&self) -> Lineage {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner).lineage
    }

    /// How far this node is.
    pub fn sync(&self) -> SyncState {
        self.status.borrow().sync
    }

    /// Whether it is known that others will not confirm what is written here.
    pub fn is_refused(&self) -> bool {
        let status = self.status.borrow();
        status.sync.is_bad() || matches!(status.clock, Some(ClockFault::Ahead(_)))
    }

    /// The current status.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the bootstrap is done or its limit has passed. Returns the state then.
    pub async fn first_sync(&self) -> SyncState {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| !status.sync.is_under_way());
        // That replication has stopped, or that the limit has passed, is an answer as well.
        let _ = tokio::time::timeout_at(time::instant(self.sync_until), ended).await;
        let sync = status.borrow().sync;
        sync
    }

    /// Sends what is queued, says goodbye to the peers and ends. Returns what whoever takes over
    /// has to know; further calls do nothing.
    pub async fn stop(&self) -> Handover {
        if let Some((stop, mut task)) = self.stop.lock().await.take() {
            let _ = stop.send(());
            if tokio::time::timeout(STOP_LIMIT, &mut task).await.is_err() {
                tracing::warn!("replication did not end within {} s", STOP_LIMIT.as_secs());
                // Whoever takes over goes on with its numbers, so it must not use any more.
                task.abort();
                let _ = task.await;
            }
        }
        *self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Driver {
    node: NodeId,
    replica: Replica,
    subjects: Subjects,
    group: String,
    client: Client,
    cache: Arc<Cache>,
    /// An answer to a peer that is being made. It may take long, and nothing waits for it but the next one.
    answering: Option<JoinHandle<Answered>>,
    /// What the replica was told last.
    connected: bool,
    /// What the client says, perhaps earlier.
    up: watch::Receiver<bool>,
    inbox: Inbox,
    queue: Queue,
    /// What whoever takes over has to know.
    handover: Arc<std::sync::Mutex<Handover>>,
    /// Subscription of the replay group, while this node answers.
    bootstraps: Option<Drain>,
    /// Subscriptions to be made again.
    refused: Vec<Refused>,
    /// Writes that wait for confirmations.
    waiting: HashMap<u64, oneshot::Sender<Result<(), Unconfirmed>>>,
    next_waiting: u64,
    /// When frames were made last.
    last_local: Millis,
    status: watch::Sender<Status>,
    status_due: Millis,
    current: watch::Sender<Millis>,
}

/// Waits until something is queued and the time has come.
async fn gathered(queue: &Queue, until: Millis) {
    queue.filled().await;
    if time::mono() < until {
        tokio::time::sleep_until(time::instant(until)).await;
    }
}

/// What came of an answer; for ever, if none is being made. One that failed is as if it had been empty: whoever asked
/// will ask again.
async fn made(answering: &mut Option<JoinHandle<Answered>>) -> Answered {
    let Some(task) = answering else {
        return std::future::pending().await;
    };
    let answered = task.await;
    *answering = None;
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer to a peer could not be made");
        Answered::default()
    })
}

/// Lets other tasks go on after a message of so many bytes, if that is many. The task that a send wakes, such as that
/// of the connection, waits for this very worker of the runtime, though others have nothing to do.
async fn give_way(bytes: usize) {
    if bytes >= LARGE {
        tokio::task::yield_now().await;
    }
}

impl Driver {
    async fn run(mut self, mut connection: Connection, mut stopped: oneshot::Receiver<()>) {
        let queue = self.queue.clone();
        loop {
            for what in std::mem::take(&mut self.refused) {
                self.subscribe_again(&mut connection, what).await;
            }
            self.publish_status();
            self.note_handover();
            let wake = self.replica.poll_timeout().min(time::mono() + STATUS_INTERVAL_MS);
            let gather_until = self.gather_until();
            tokio::select! {
                Some(event) = connection.events.recv() => self.connection_event(event).await,
                Some((message, arrived)) = self.inbox.next() => self.message(message, arrived).await,
                answered = made(&mut self.answering) => self.input(Input::Answered(answered)).await,
                () = gathered(&queue, gather_until), if self.connected => { self.local(BATCH).await; }
                // While NATS is away, deltas wait for it: newer ones take the place of older ones. When that is not
                // enough they are given up; peers will see that frames are missing, and compare.
                () = queue.full(), if !self.connected => { self.local(usize::MAX).await; }
                () = tokio::time::sleep_until(time::instant(wake)) => self.tick().await,
                _ = &mut stopped => break,
            }
        }
        self.queue.close();
        while self.local(BATCH).await {}
        self.input(Input::Leaving).await;
        self.note_handover();
        self.flush().await;
        self.wait_until_taken().await;
    }

    /// Until when deltas that are queued may wait: nobody hears their frame, and each costs a call of the system.
    fn gather_until(&self) -> Millis {
        match self.replica.is_alone() {
            true => self.last_local + GATHER_MS,
            false => 0,
        }
    }

    fn note_handover(&self) {
        *self.handover.lock().unwrap_or_else(PoisonError::into_inner) = self.replica.handover();
    }

    /// Waits until everything is written to the socket, unless the server is away.
    async fn flush(&self) {
        let mut up = self.up.clone();
        if !*up.borrow() {
            return;
        }
        tokio::select! {
            flushed = self.client.flush() => if let Err(error) = flushed {
                tracing::warn!(%error, "the last deltas may not have left");
            },
            _ = up.wait_for(|up| !up) => {}
        }
    }

    /// Waits until the server has read everything, unless it is away. Whoever kills the process when it has ended would
    /// take from the socket what is still in it.
    async fn wait_until_taken(&mut self) {
        if !*self.up.borrow() {
            return;
        }
        // The server takes messages one after the other, and answers one for which nobody listens.
        let (nobody, reply) = self.subjects.nobody(self.node);
        let asked = self
            .client
            .publish_with_reply(nobody, reply.clone(), Bytes::new())
            .await;
        let answered = async {
            while let Some((message, _)) = self.inbox.next().await {
                if message.subject.as_str() == reply {
                    break;
                }
            }
        };
        // Somebody may listen to everything, or the server refuse it.
        if asked.is_err() || tokio::time::timeout(TAKEN_LIMIT, answered).await.is_err() {
            tracing::debug!("the server does not say whether it has the last message");
        }
    }

    async fn connection_event(&mut self, event: ConnectionEvent) {
        let input = match event {
            ConnectionEvent::Up => {
                self.connected = true;
                Input::Connected {
                    max_payload: self.client.max_payload(),
                }
            }
            ConnectionEvent::Down => {
                self.connected = false;
                Input::Disconnected
            }
            ConnectionEvent::MessagesLost => Input::MessagesLost,
            ConnectionEvent::Refused(refusal) => match refusal.for_replica(&self.subjects) {
                Some((what, subject)) => Input::Refused { what, subject },
                None => return,
            },
        };
        self.input(input).await;
    }

    async fn subscribe_again(&mut self, connection: &mut Connection, what: Refused) {
        match what {
            Refused::Subscribe(Channel::Bootstrap) if self.bootstraps.is_some() => self.answer_bootstraps().await,
            Refused::Subscribe(channel) => connection.subscribe_again(channel, &self.inbox).await,
            // Which ones it has refused the server does not say: all are made again with a new connection.
            Refused::Subscriptions => {
                // An error means that there is no connection to lose.
                let _ = self.client.force_reconnect().await;
            }
            Refused::Publish(_) | Refused::Connection => {}
        }
    }

    async fn message(&mut self, message: async_nats::Message, arrived: Millis) {
        // The server answers a request for which nobody listens with a status on the reply subject. Nodes send nothing
        // there. What else comes is not of this protocol, such as a stream's confirmation that it has stored the
        // request.
        let request = self.subjects.request_of(self.node, &message.subject);
        let length = message.payload.len();
        let input = match (request, message.status) {
            (Some(request), Some(StatusCode::NO_RESPONDERS)) => Input::NoResponders { request },
            (Some(_), _) => return,
            (None, _) => Input::Message(message.payload),
        };
        self.replica.behind_since(Some(arrived));
        self.replica.handle(time::now(), input);
        self.perform().await;
        give_way(length).await;
        if self.inbox.has_dropped() {
            tracing::warn!("messages of peers came faster than they could be taken in, and were dropped; reconciling");
            self.input(Input::MessagesLost).await;
        }
    }

    /// Makes frames of what has queued up. Returns whether there was anything.
    async fn local(&mut self, most: usize) -> bool {
        let Taken { deltas, waiting } = self.queue.take(most);
        if deltas.is_empty() {
            return false;
        }
        self.last_local = time::mono();
        let mut acks = Vec::with_capacity(waiting.len());
        for Waiting {
            wanted,
            deadline,
            answer,
        } in waiting
        {
            self.next_waiting += 1;
            self.waiting.insert(self.next_waiting, answer);
            acks.push(AckRequest {
                id: self.next_waiting,
                wanted,
                deadline,
            });
        }
        self.input(Input::Local { deltas, acks }).await;
        true
    }

    async fn tick(&mut self) {
        self.replica.behind_since(self.inbox.behind_since());
        self.replica.tick(time::now());
        self.perform().await;
    }

    async fn input(&mut self, input: Input) {
        self.replica.behind_since(self.inbox.behind_since());
        self.replica.handle(time::now(), input);
        self.perform().await;
    }

    async fn perform(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Publish { to, payload } => self.publish(to, payload).await,
                Output::AnswerBootstraps => self.answer_bootstraps().await,
                Output::LeaveBootstraps => self.bootstraps = None,
                Output::Answer(job) => {
                    let cache = self.cache.clone();
                    self.answering = Some(tokio::task::spawn_blocking(move || job.run(&cache)));
                }
                Output::SubscribeAgain(what) => self.refused.push(what),
                Output::Tell(notice) => words::log(&notice),
                Output::Acked { id, result } => {
                    if let Some(answer) = self.waiting.remove(&id) {
                        // Whoever waited may have given up.
                        let _ = answer.send(result);
                    }
                }
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
        let length = payload.len();
        let send = async {
            match to {
                Target::Deltas => self.client.publish(self.subjects.commands().to_owned(), payload).await,
                Target::Heartbeat => self.client.publish(self.subjects.beat(), payload).await,
                Target::Node(node) => self.client.publish(self.subjects.node(node), payload).await,
                Target::Bootstrap { request } => {
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
        give_way(length).await;
    }

    async fn answer_bootstraps(&mut self) {
        let subject = self.subjects.replay().to_owned();
        match self.client.queue_subscribe(subject, self.group.clone()).await {
            Ok(subscription) => self.bootstraps = Some(self.inbox.drain(subscription)),
            Err(error) => tracing::error!(%error, "cannot answer bootstrap requests"),
        }
    }

    fn publish_status(&mut self) {
        let now = time::now();
        let until = self.replica.current_until();
        self.current
            .send_if_modified(|known| std::mem::replace(known, until) != until);
        let changed = self.replica.sync_state(now) != self.status.borrow().sync;
        if changed || now.mono >= self.status_due {
            self.status_due = now.mono + STATUS_INTERVAL_MS;
            let mut status = self.replica.status(now);
            status.counters.commands_merged = self.queue.merged();
            self.status.send_replace(status);
        }
    }
}
