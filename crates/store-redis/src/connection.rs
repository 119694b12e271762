//! The connection to the server, made again when it is lost.

use std::sync::atomic::{AtomicU64, Ordering};

use kvcache_node::store::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{cmd, AsyncConnectionConfig, Client, Cmd, RedisError, Value};
use tokio::sync::Mutex;

use crate::fault::{ends_connection, fault};
use crate::server::Server;

/// Questions that may be under way at a time. They share the connection, so each may wait for all before it.
pub(crate) const UNDER_WAY: usize = 16;

/// A server, and the connection to it while there is one.
pub(crate) struct Connection {
    server: Server,
    client: Client,
    live: Mutex<Option<Link>>,
    made: AtomicU64,
}

/// One connection. Those that have it may ask at the same time.
#[derive(Clone)]
pub(crate) struct Link {
    number: u64,
    connection: MultiplexedConnection,
}

impl Connection {
    pub fn to(server: Server) -> Result<Self, StoreError> {
        Ok(Connection {
            client: server.client()?,
            server,
            live: Mutex::default(),
            made: AtomicU64::new(0),
        })
    }

    /// The name of the server, for people.
    pub fn name(&self) -> &str {
        &self.server.name
    }

    /// The connection, for a call as a whole: what it begins on one it does not go on with on another.
    pub async fn link(&self) -> Result<Link, StoreError> {
        let made = async {
            let mut live = self.live.lock().await;
            if let Some(link) = &*live {
                return Ok(link.clone());
            }
            let link = self.connect().await.map_err(|error| fault(self.name(), &error))?;
            *live = Some(link.clone());
            Ok(link)
        };
        // Waiting for somebody else's attempt counts too.
        let in_time = tokio::time::timeout(self.server.timeout, made).await;
        in_time.unwrap_or_else(|_| Err(StoreError::Away(format!("{}: no connection in time", self.name()))))
    }

    /// Asks a question. The outer error is for the caller, the inner one is what a question may be answered with.
    pub async fn ask(&self, link: &Link, question: &Cmd) -> Result<Result<Value, NoScript>, StoreError> {
        let mut connection = link.connection.clone();
        match connection
            .send_packed_command(question)
            .await
            .and_then(Value::extract_error)
        {
            Ok(value) => Ok(Ok(value)),
            Err(error) if error.code() == Some("NOSCRIPT") => Ok(Err(NoScript)),
            Err(error) => {
                if ends_connection(&error) {
                    self.leave(link).await;
                }
                Err(fault(self.name(), &error))
            }
        }
    }

    /// Ends the connection.
    pub async fn close(&self) {
        *self.live.lock().await = None;
    }

    /// The next call makes a new one.
    async fn leave(&self, link: &Link) {
        let mut live = self.live.lock().await;
        if live.as_ref().is_some_and(|live| live.number == link.number) {
            *live = None;
        }
    }

    async fn connect(&self) -> Result<Link, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.server.timeout))
            .set_response_timeout(Some(self.server.timeout))
            .set_pipeline_buffer_size(UNDER_WAY);
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut greetings = Vec::new();
        if let Some(password) = &self.server.password {
            let mut auth = cmd("AUTH");
            if !self.server.user.is_empty() {
                auth.arg(&self.server.user);
            }
            auth.arg(&password.0);
            greetings.push(auth);
        }
        if self.server.database != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.server.database);
            greetings.push(select);
        }
        for greeting in greetings {
            connection.send_packed_command(&greeting).await?.extract_error()?;
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Link { number, connection })
    }
}

/// The server does not have the script that was called by its hash.
pub(crate) struct NoScript;
