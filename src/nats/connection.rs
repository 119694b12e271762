//! The connection to NATS: options, credentials, events and subscriptions.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use percent_encoding::percent_decode_str;
use tokio::sync::{mpsc, watch};

use super::inbox::{Drain, Inbox};
use super::subjects::Subjects;
use crate::cache::{Millis, NodeId};
use crate::time;

/// Messages of one subscription that wait to be moved to the inbox, which happens at once. Beyond it the client drops,
/// which shows as a gap.
const SUBSCRIPTION_CAPACITY: usize = 4 << 10;

/// Messages that wait to be written to the socket, of 256 KiB at most each.
const CLIENT_CAPACITY: usize = 64;

/// Between two warnings about a server that stays away.
const WARNING_INTERVAL_MS: Millis = 30_000;

const PING_INTERVAL: Duration = Duration::from_secs(10);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// What can go wrong before replication runs.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// Not an address.
    #[error("'{address}' is not the address of a NATS server: {reason}")]
    Address {
        /// The address without credentials.
        address: String,
        /// What the client library says.
        reason: String,
    },
    /// Not a seed.
    #[error("the user seed is not a valid nkey seed ({0})")]
    Seed(String),
    /// The client library refuses to subscribe or to connect.
    #[error("cannot use the NATS connection: {0}")]
    Client(String),
}

/// How this node proves to NATS who it is.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Not at all, or by user and password in the address.
    #[default]
    None,
    /// User JWT, and the seed that signs the server's nonce.
    Jwt {
        /// The JWT.
        jwt: String,
        /// The seed.
        seed: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "none",
            Credentials::Jwt { .. } => "user JWT",
        })
    }
}

/// What happened to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnectionEvent {
    Up,
    Down,
    MessagesLost,
}

/// A connection that is being made, and made again for as long as it is kept.
pub(super) struct Connection {
    pub client: Client,
    pub events: mpsc::UnboundedReceiver<ConnectionEvent>,
    pub up: watch::Receiver<bool>,
    /// Drain the subscriptions for as long as they are kept.
    _drains: Vec<Drain>,
}

impl Connection {
    /// Starts to connect and makes the subscriptions, whose messages go to `inbox`. Returns at once; [`ConnectionEvent::Up`] tells the rest.
    pub async fn open(
        servers: &[String],
        credentials: &Credentials,
        subjects: &Subjects,
        node: NodeId,
        inbox: &Inbox,
    ) -> Result<Self, NatsError> {
        let addresses = servers
            .iter()
            .map(|server| parse_address(server))
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, events) = mpsc::unbounded_channel();
        let (is_up, up) = watch::channel(false);
        let shared = Arc::new((is_up, AtomicU64::new(0)));
        let options = options(credentials, &addresses)?
            .name(format!("nats-kvcache {node}"))
            .event_callback(move |event| {
                let (sender, shared) = (sender.clone(), shared.clone());
                async move { note_event(&event, &sender, &shared.0, &shared.1) }
            });
        let addresses = addresses.into_iter().map(without_user).collect::<Result<Vec<_>, _>>()?;
        let client = options
            .connect(addresses)
            .await
            .map_err(|error| NatsError::Client(error.to_string()))?;
        let mut drains = Vec::new();
        for subject in [
            subjects.commands().to_owned(),
            subjects.beat(),
            subjects.node(node),
            format!("{}.*", subjects.node(node)),
        ] {
            let subscription = client.subscribe(subject).await;
            let subscription = subscription.map_err(|error| NatsError::Client(error.to_string()))?;
            drains.push(inbox.drain(subscription));
        }
        Ok(Connection {
            client,
            events,
            up,
            _drains: drains,
        })
    }
}

fn options(credentials: &Credentials, addresses: &[ServerAddr]) -> Result<ConnectOptions, NatsError> {
    let options = ConnectOptions::new()
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .reconnect_delay_callback(reconnect_delay);
    Ok(match credentials {
        Credentials::None => match addresses.iter().find(|address| address.has_user_pass()) {
            Some(address) => with_user_of(options, address),
            None => options,
        },
        Credentials::Jwt { jwt, seed } => {
            let key = nkeys::KeyPair::from_seed(seed).map_err(|error| NatsError::Seed(error.to_string()))?;
            let key = Arc::new(key);
            options.jwt(jwt.clone(), move |nonce| {
                let key = key.clone();
                async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
            })
        }
    })
}

/// How long to wait before an attempt, the first of which is number 1 and is made at once.
fn reconnect_delay(attempt: usize) -> Duration {
    match attempt.checked_sub(2) {
        None => Duration::ZERO,
        Some(failed) => Duration::from_millis(50 << failed.min(8)).min(MAX_RECONNECT_DELAY),
    }
}

/// The client library does not read the user of an address: `user:password@`, or `token@` alone.
fn with_user_of(options: ConnectOptions, address: &ServerAddr) -> ConnectOptions {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decode(address.username().unwrap_or_default());
    match address.password() {
        Some(password) => options.user_and_password(user, decode(password)),
        None => options.token(user),
    }
}

/// The client library writes addresses to its debug log as they are.
fn without_user(address: ServerAddr) -> Result<ServerAddr, NatsError> {
    let mut url = address.into_inner();
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |reason: &dyn fmt::Display| NatsError::Address {
        address: host.clone(),
        reason: reason.to_string(),
    };
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        return Err(failed(&"it has no place for a user"));
    }
    ServerAddr::from_url(url).map_err(|error| failed(&error))
}

fn parse_address(address: &str) -> Result<ServerAddr, NatsError> {
    ServerAddr::from_str(address).map_err(|error| NatsError::Address {
        address: without_credentials(address).into(),
        reason: error.to_string(),
    })
}

/// Whether a text is the address of a NATS server.
pub fn is_address(address: &str) -> bool {
    !address.is_empty() && parse_address(address).is_ok()
}

/// An address as it may be shown: what stands before `@` can be a password.
pub fn without_credentials(address: &str) -> &str {
    address.rsplit('@').next().unwrap_or(address)
}

fn note_event(
    event: &Event,
    sender: &mpsc::UnboundedSender<ConnectionEvent>,
    up: &watch::Sender<bool>,
    quiet_until: &AtomicU64,
) {
    let happened = match event {
        Event::Connected => ConnectionEvent::Up,
        Event::Disconnected => ConnectionEvent::Down,
        Event::SlowConsumer(_) => ConnectionEvent::MessagesLost,
        Event::ServerError(error) => {
            tracing::warn!(%error, "the NATS server reports an error to the replication connection");
            return;
        }
        Event::ClientError(error) => {
            // One line now and then for a server that stays away.
            let now = time::mono();
            if now >= quiet_until.load(Ordering::Relaxed) {
                quiet_until.store(now + WARNING_INTERVAL_MS, Ordering::Relaxed);
                tracing::warn!(%error, "the replication connection does not work; going on to try");
            }
            return;
        }
        // Closed is what this process asked for.
        Event::LameDuckMode | Event::Draining | Event::Closed => return,
    };
    match happened {
        ConnectionEvent::Up => tracing::info!("replication connection is up"),
        ConnectionEvent::Down => tracing::warn!("replication connection is down; serving on, reconciling later"),
        ConnectionEvent::MessagesLost => tracing::warn!("messages of peers were dropped; reconciling"),
    }
    if happened != ConnectionEvent::MessagesLost {
        up.send_replace(happened == ConnectionEvent::Up);
    }
    // The receiver is gone only when replication has stopped.
    let _ = sender.send(happened);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_made_at_once_and_later_ones_at_longer_and_longer_intervals() {
        let delays = [1, 2, 3, 4, 7, 8, 100, usize::MAX].map(|attempt| reconnect_delay(attempt).as_millis());
        assert_eq!(delays, [0, 50, 100, 200, 1_600, 2_000, 2_000, 2_000]);
    }
}
