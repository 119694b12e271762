//! A real Consul server of its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde_json::json;

use crate::http::{request, HttpAnswer};
use crate::local_server::{LocalServer, Place, Program};
use crate::workspace::find_program;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A Consul server that is a cluster of its own. What it has answered survives [`LocalServer::kill`] and
/// [`LocalServer::restart`].
pub type ConsulServer = LocalServer<Consul, 3>;

/// How Consul is started.
#[derive(Debug)]
pub struct Consul {
    binary: PathBuf,
    /// Who comes without this token may do nothing. Without one here everybody may do everything.
    token: Option<String>,
}

impl ConsulServer {
    /// Path of the program.
    pub fn find() -> Result<PathBuf> {
        find_program("consul", "consul")
    }

    /// One that lets everybody do everything. Returns when it has a leader.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// One that refuses all who do not send `token`, an UUID, in the header `X-Consul-Token`. Its bearer may do
    /// everything.
    pub async fn start_with_acl(token: &str) -> Result<Self> {
        Self::start_with(Some(token.to_owned())).await
    }

    /// The port of its HTTP interface.
    pub fn port(&self) -> u16 {
        self.place.ports[0]
    }

    /// `127.0.0.1:PORT`, of its HTTP interface.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// One HTTP request, for instance `PUT` to `/v1/kv/key`, with the token if the server wants one.
    pub async fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<HttpAnswer> {
        self.program.request(self.port(), method, path, body).await
    }

    async fn start_with(token: Option<String>) -> Result<Self> {
        let binary = Self::find()?;
        Self::start_program(Consul { binary, token }).await
    }
}

impl Consul {
    async fn request(&self, port: u16, method: &str, path: &str, body: &[u8]) -> Result<HttpAnswer> {
        let token = self.token.iter().map(|token| format!("X-Consul-Token: {token}"));
        let headers: Vec<_> = token.collect();
        tokio::time::timeout(ANSWER_LIMIT, request(port, method, path, &headers, body))
            .await
            .context("no answer in time")?
            .with_context(|| format!("{method} {path} to consul"))
    }
}

impl Program<3> for Consul {
    const START_LIMIT: Duration = Duration::from_secs(30);

    fn name(&self) -> &'static str {
        "consul"
    }

    fn command(&self, place: &Place<3>) -> Result<Command> {
        let [http, server, serf_lan] = place.ports;
        let off = -1;
        let mut config = json!({
            "server": true,
            "bootstrap_expect": 1,
            "data_dir": place.home().join("data"),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "ports": {
                "http": http, "server": server, "serf_lan": serf_lan,
                "serf_wan": off, "dns": off, "https": off, "grpc": off, "grpc_tls": off,
            },
            // There is nobody to wait for in an election.
            "performance": {"raft_multiplier": 1},
            "connect": {"enabled": false},
            "disable_update_check": true,
        });
        if let Some(token) = &self.token {
            config["acl"] = json!({
                "enabled": true,
                "default_policy": "deny",
                "tokens": {"initial_management": token},
            });
        }
        let file = place.home().join("consul.json");
        std::fs::write(&file, config.to_string()).context("writing consul.json")?;
        let mut command = Command::new(&self.binary);
        command.arg("agent").arg("-config-file").arg(file);
        Ok(command)
    }

    /// There is a leader before it has applied what its log holds, and before it knows the token.
    async fn ready(&self, place: &Place<3>, _pid: u32) -> Result<()> {
        let [http, server, _] = place.ports;
        let leader = self.request(http, "GET", "/v1/status/leader", b"").await?.json()?;
        ensure!(leader == format!("127.0.0.1:{server}"), "the leader is {leader}");
        let read = self.request(http, "GET", "/v1/kv/none?consistent", b"").await?;
        ensure!(
            [200, 404].contains(&read.status),
            "a read is answered with {}",
            read.status
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::skip_test;

    const TOKEN: &str = "6f1c5a6e-8c8e-4d53-9b0e-0d8a35d3a1f4";

    #[tokio::test]
    async fn what_consul_has_answered_survives_its_death() {
        if let Err(error) = ConsulServer::find() {
            return skip_test(&error.to_string());
        }
        let mut server = ConsulServer::start_with_acl(TOKEN).await.unwrap();
        let written = server.request("PUT", "/v1/kv/key", b"value").await.unwrap();
        assert_eq!(written.json().unwrap(), true);
        let (port, first) = (server.port(), server.pid());
        server.kill().unwrap();
        assert!(server.request("GET", "/v1/status/leader", b"").await.is_err());
        server.restart().await.unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), first);
        let read = server.request("GET", "/v1/kv/key?raw", b"").await.unwrap();
        assert_eq!((read.status, &read.body[..]), (200, &b"value"[..]));
        let stranger = request(port, "GET", "/v1/kv/key?raw", &[], b"").await.unwrap();
        assert_ne!(stranger.status, 200);
    }

    #[tokio::test]
    async fn a_consul_without_acl_is_open_to_all() {
        if let Err(error) = ConsulServer::find() {
            return skip_test(&error.to_string());
        }
        let mut server = ConsulServer::start().await.unwrap();
        let written = request(server.port(), "PUT", "/v1/kv/key", &[], b"value")
            .await
            .unwrap();
        assert_eq!(written.json().unwrap(), true);
        server.pause().unwrap();
        server.resume().unwrap();
        assert_eq!(server.request("GET", "/v1/kv/key", b"").await.unwrap().status, 200);
    }
}
