//! The connection to NATS: options, credentials, events and subscriptions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Event, ServerAddr};
use tokio::sync::{mpsc, watch};

use super::address::{without_user, ServerAddress};
use super::credentials::{Credentials, Tls};
use super::error::NatsError;
use super::inbox::{Drain, Inbox};
use super::reconnect::{explain, Backoff, Reasons};
use super::refusal::Refusal;
use super::subjects::Subjects;
use crate::time;
use kvcache_core::cache::{Millis, NodeId};
use kvcache_core::replica::Channel;

/// Messages of one subscription that wait to be moved to the inbox, which happens at once. Beyond it the client drops,
/// which shows as a gap.
const SUBSCRIPTION_CAPACITY: usize = 4 << 10;

/// Messages that wait to be written to the socket, of 256 KiB at most each.
const CLIENT_CAPACITY: usize = 64;

const PING_INTERVAL: Duration = Duration::from_secs(10);

/// One attempt takes no longer: the client library gives each address of a name 5 s.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);

/// At most this many lines about errors of the server, and as many about a connection that comes and goes, per
/// interval.
const LINES_PER_INTERVAL: u32 = 5;
const LINES_INTERVAL_MS: Millis = 30_000;

/// What happened to the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ConnectionEvent {
    Up,
    Down,
    MessagesLost,
    Refused(Refusal),
}

/// A connection that is being made, and made again for as long as it is kept.
pub(super) struct Connection {
    pub client: Client,
    pub events: mpsc::UnboundedReceiver<ConnectionEvent>,
    pub up: watch::Receiver<bool>,
    /// Drain the subscriptions for as long as they are kept.
    drains: Vec<(Channel, String, Drain)>,
}

impl Connection {
    /// Starts to connect and makes the subscriptions, whose messages go to `inbox`. Returns at once;
    /// [`ConnectionEvent::Up`] tells the rest.
    pub async fn open(
        servers: &[ServerAddress],
        credentials: &Credentials,
        tls: &Tls,
        subjects: &Subjects,
        node: NodeId,
        inbox: &Inbox,
    ) -> Result<Self, NatsError> {
        let addresses: Vec<ServerAddr> = servers.iter().map(|server| server.parsed().clone()).collect();
        let (sender, events) = mpsc::unbounded_channel();
        let (watcher, told) = Watcher::new("replication", Some(sender));
        let options = tls
            .apply(credentials.options(&addresses)?, !tls.is_empty())?
            .name(format!("nats-kvcache {node}"))
            .no_echo()
            .client_capacity(CLIENT_CAPACITY);
        let client = watched(options, watcher, addresses).await?;
        let mut drains = Vec::new();
        for (channel, subject) in [
            (Channel::Deltas, subjects.commands().to_owned()),
            (Channel::Heartbeat, subjects.beat()),
            (Channel::Node, subjects.node(node)),
            (Channel::Node, format!("{}.*", subjects.node(node))),
        ] {
            let subscription = client.subscribe(subject.clone()).await;
            let subscription = subscription.map_err(|error| NatsError::Client(error.to_string()))?;
            drains.push((channel, subject, inbox.drain(subscription)));
        }
        Ok(Connection {
            client,
            events,
            up: told.up,
            drains,
        })
    }

    /// Makes subscriptions again that the server has refused. Those of one kind are refused together.
    pub async fn subscribe_again(&mut self, channel: Channel, inbox: &Inbox) {
        for (_, subject, drain) in self.drains.iter_mut().filter(|(kind, ..)| *kind == channel) {
            match self.client.subscribe(subject.clone()).await {
                Ok(subscription) => *drain = inbox.drain(subscription),
                Err(error) => tracing::warn!(%error, "cannot subscribe again"),
            }
        }
    }
}

/// A connection to a lattice, for its front end: tried for as long as `patience` says, once if it is zero. Later it is
/// made again for as long as it is kept.
pub async fn connect(
    server: &ServerAddress,
    credentials: &Credentials,
    tls: &Tls,
    insist_on_tls: bool,
    patience: Duration,
) -> Result<Client, NatsError> {
    let address = server.parsed().clone();
    let (watcher, mut told) = Watcher::new("lattice", None);
    let options = tls
        .apply(credentials.options(std::slice::from_ref(&address))?, insist_on_tls)?
        .name("nats-kvcache");
    let client = watched(options, watcher, vec![address]).await?;
    let once = patience.is_zero();
    let connected = async {
        tokio::select! {
            biased;
            up = told.up.wait_for(|up| *up) => up.is_ok(),
            _ = told.failed.wait_for(|reason| !reason.is_empty()), if once => false,
        }
    };
    let limit = if once { ATTEMPT_LIMIT } else { patience };
    if tokio::time::timeout(limit, connected).await.unwrap_or(false) {
        return Ok(client);
    }
    let reason = match told.failed.borrow().as_str() {
        "" => "it does not answer".to_owned(),
        reason => reason.to_owned(),
    };
    Err(NatsError::Unreachable {
        seconds: patience.as_secs(),
        reason,
    })
}

/// A connection for a store, and what is known of it.
#[cfg(feature = "store-jetstream")]
pub(crate) struct StoreConnection {
    pub client: Client,
    pub told: WatcherTold,
}

/// Starts to connect for a store. Returns at once. Later the connection is made again for as long as it is kept.
#[cfg(feature = "store-jetstream")]
pub(crate) async fn open_for_store(
    servers: &[ServerAddress],
    credentials: &Credentials,
    tls: &Tls,
) -> Result<StoreConnection, NatsError> {
    /// Messages that wait to be written to the socket: those of a store are small mostly, and their bytes are bounded
    /// above.
    const CAPACITY: usize = 1 << 10;
    let addresses: Vec<ServerAddr> = servers.iter().map(|server| server.parsed().clone()).collect();
    let (watcher, told) = Watcher::new("store", None);
    let options = tls
        .apply(credentials.options(&addresses)?, !tls.is_empty())?
        .name("nats-kvcache store")
        .client_capacity(CAPACITY);
    let client = watched(options, watcher, addresses).await?;
    Ok(StoreConnection { client, told })
}

/// Starts to connect, with what all connections have in common. Returns at once.
async fn watched(
    options: ConnectOptions,
    watcher: Arc<Watcher>,
    addresses: Vec<ServerAddr>,
) -> Result<Client, NatsError> {
    let addresses = addresses.into_iter().map(without_user).collect::<Result<Vec<_>, _>>()?;
    let backoff = Mutex::new(Backoff::default());
    let (on_event, on_attempt) = (watcher.clone(), watcher);
    options
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .event_callback(move |event| {
            let watcher = on_event.clone();
            async move { watcher.note(&event) }
        })
        // Only looks at what has failed: which server is next is left to the client library.
        .reconnect_to_server_callback(move |servers, _| {
            on_attempt.attempt(&servers);
            async { None }
        })
        .reconnect_delay_callback(move |attempt| {
            let mut backoff = backoff.lock().unwrap_or_else(PoisonError::into_inner);
            Duration::from_millis(backoff.delay(attempt, time::mono()))
        })
        .connect(addresses)
        .await
        .map_err(|error| NatsError::Client(explain(&error.to_string())))
}

/// What those who use a connection are told of it.
pub(crate) struct WatcherTold {
    pub up: watch::Receiver<bool>,
    /// Why the last attempts to connect have failed.
    pub failed: watch::Receiver<String>,
    /// What the server has refused last, in its words.
    #[cfg_attr(not(feature = "store-jetstream"), allow(dead_code))]
    pub refused: watch::Receiver<String>,
}

/// Watches a connection, for those who use it and for the log.
struct Watcher {
    /// What the connection is for.
    name: &'static str,
    sender: Option<mpsc::UnboundedSender<ConnectionEvent>>,
    up: watch::Sender<bool>,
    /// Why the last attempts have failed.
    failed: watch::Sender<String>,
    refused: watch::Sender<String>,
    told: Mutex<Told>,
}

/// What the log has been told.
#[derive(Default)]
struct Told {
    reasons: Reasons,
    changes: Lines,
    server_errors: Lines,
}

/// A bound on lines that a server can cause as often as it likes.
#[derive(Default)]
struct Lines {
    since: Millis,
    written: u32,
    suppressed: u64,
}

impl Lines {
    /// `Some(how many were left out since the last line)` if a line may be written now.
    fn pass(&mut self, now: Millis) -> Option<u64> {
        if now >= self.since + LINES_INTERVAL_MS {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= LINES_PER_INTERVAL {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Watcher {
    fn new(name: &'static str, sender: Option<mpsc::UnboundedSender<ConnectionEvent>>) -> (Arc<Self>, WatcherTold) {
        let (up, is_up) = watch::channel(false);
        let (failed, reason) = watch::channel(String::new());
        let (refused, refusal) = watch::channel(String::new());
        let watcher = Watcher {
            name,
            sender,
            up,
            failed,
            refused,
            told: Mutex::default(),
        };
        let told = WatcherTold {
            up: is_up,
            failed: reason,
            refused: refusal,
        };
        (Arc::new(watcher), told)
    }

    fn note(&self, event: &Event) {
        let name = self.name;
        let happened = match event {
            Event::Connected => ConnectionEvent::Up,
            Event::Disconnected => ConnectionEvent::Down,
            Event::SlowConsumer(_) => ConnectionEvent::MessagesLost,
            Event::ServerError(error) => {
                if let Some(refusal) = Refusal::of(&error.to_string()) {
                    self.refused.send_replace(error.to_string());
                    self.send(ConnectionEvent::Refused(refusal));
                }
                if let Some(suppressed) = self.told(|told| told.server_errors.pass(time::mono())) {
                    tracing::warn!(%error, suppressed, "the NATS server reports an error to the {name} connection");
                }
                return;
            }
            // Other reasons are remembered with the servers, see `attempt`.
            Event::ClientError(ClientError::Other(error)) if error.starts_with("DNS") => {
                self.failed(explain(error));
                return;
            }
            // Closed is what this process asked for.
            Event::ClientError(_) | Event::LameDuckMode | Event::Draining | Event::Closed => return,
        };
        if let Some(suppressed) = self.told(|told| told.changes.pass(time::mono())) {
            match happened {
                ConnectionEvent::Up => tracing::info!(suppressed, "{name} connection is up"),
                ConnectionEvent::Down => {
                    tracing::warn!(suppressed, "{name} connection is down; serving on, reconciling later")
                }
                ConnectionEvent::MessagesLost => {
                    tracing::warn!(
                        suppressed,
                        "messages of the {name} connection were dropped, as they came too fast"
                    )
                }
                ConnectionEvent::Refused(_) => {}
            }
        }
        if matches!(happened, ConnectionEvent::Up | ConnectionEvent::Down) {
            self.up.send_replace(happened == ConnectionEvent::Up);
        }
        self.send(happened);
    }

    fn send(&self, event: ConnectionEvent) {
        if let Some(sender) = &self.sender {
            // The receiver is gone only when replication has stopped.
            let _ = sender.send(event);
        }
    }

    /// Before an attempt to connect.
    fn attempt(&self, servers: &[async_nats::Server]) {
        if let Some(reason) = self.told(|told| told.reasons.of(servers)) {
            self.failed(reason);
        }
    }

    fn failed(&self, reason: String) {
        if self.told(|told| told.reasons.tell(&reason, time::mono())) {
            tracing::warn!("the {} connection does not work, going on to try: {reason}", self.name);
        }
        self.send(ConnectionEvent::Refused(Refusal::Connection(reason.clone())));
        self.failed.send_replace(reason);
    }

    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_others_counted() {
        let mut lines = Lines::default();
        let burst: Vec<_> = (0..100).map(|now| lines.pass(now)).collect();
        assert_eq!(burst.iter().flatten().count(), LINES_PER_INTERVAL as usize);
        assert_eq!(lines.pass(LINES_INTERVAL_MS), Some(100 - u64::from(LINES_PER_INTERVAL)));
        assert_eq!(lines.pass(LINES_INTERVAL_MS), Some(0));
    }
}
