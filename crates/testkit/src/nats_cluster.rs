//! Several nats-servers with routes between each other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::nats_server::{find_binary, ClusterMember, NatsServer, ServerLimits};
use crate::wait::eventually;
use crate::workspace::skip_test;

const ROUTES_LIMIT: Duration = Duration::from_secs(30);

/// A full mesh of servers. Clients are told of no other server than the one they connect to.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts `count` servers and waits until each has its routes to all others.
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(count, ServerLimits::default()).await
    }

    pub async fn start_with(count: usize, limits: ServerLimits) -> Result<Self> {
        let name = format!("c{}", &wasmbus_rpc::rpc_client::make_uuid()[..8]);
        let member = |routes: Vec<u16>| ClusterMember {
            name: name.clone(),
            routes,
        };
        let mut servers: Vec<NatsServer> = Vec::with_capacity(count);
        let mut ports = Vec::with_capacity(count);
        for number in 0..count {
            let server = NatsServer::builder()
                .monitoring()
                .limits(limits)
                .cluster(member(ports.clone()))
                .start()
                .await
                .with_context(|| format!("server {number} of the cluster"))?;
            ports.push(server.cluster_port().context("a server of a cluster tells its port")?);
            servers.push(server);
        }
        // From the next start on each of them calls all others.
        for (number, server) in servers.iter_mut().enumerate() {
            let mut others = ports.clone();
            others.remove(number);
            server.set_cluster(member(others));
        }
        let cluster = Self { servers };
        cluster.wait_routes().await?;
        Ok(cluster)
    }

    /// Like [`Self::start`]; when no server is installed the test is skipped (a failure in CI).
    ///
    /// # Panics
    /// When installed servers do not start.
    pub async fn start_or_skip(count: usize) -> Option<Self> {
        if let Err(error) = find_binary() {
            skip_test(&error.to_string());
            return None;
        }
        Some(Self::start(count).await.expect("the cluster of nats-servers starts"))
    }

    pub fn len(&self) -> usize {
        self.servers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    pub fn server(&self, number: usize) -> &NatsServer {
        &self.servers[number]
    }

    /// To kill, restart, pause and resume it.
    pub fn server_mut(&mut self, number: usize) -> &mut NatsServer {
        &mut self.servers[number]
    }

    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// The servers, for who looks after them one by one.
    pub fn into_servers(self) -> Vec<NatsServer> {
        self.servers
    }

    /// Where clients connect to, one address for each server.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Waits until every server that runs has a route to every other one that runs.
    pub async fn wait_routes(&self) -> Result<()> {
        let running: Vec<_> = self.servers.iter().filter(|server| server.pid().is_some()).collect();
        for server in &running {
            eventually(ROUTES_LIMIT, || async {
                let answer = server.monitor("/routez").await?;
                let routes = answer["routes"]
                    .as_array()
                    .context("no routes in the answer of /routez")?;
                let remotes: BTreeSet<_> = routes.iter().filter_map(|route| route["remote_id"].as_str()).collect();
                ensure!(
                    remotes.len() + 1 >= running.len(),
                    "{} has routes to {} of {} servers",
                    server.url(),
                    remotes.len(),
                    running.len() - 1
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use wasmbus_rpc::async_nats;

    /// A message that goes in at one server comes out at another.
    async fn expect_passage(cluster: &NatsCluster, from: usize, to: usize) {
        let (from, to) = (cluster.server(from).url(), cluster.server(to).url());
        let listener = async_nats::connect(&to).await.unwrap();
        let speaker = async_nats::connect(&from).await.unwrap();
        let mut messages = listener.subscribe("passage".to_owned()).await.unwrap();
        listener.flush().await.unwrap();
        // The other server learns of the subscription a moment later: it is said until it is heard.
        let message = async {
            loop {
                tokio::select! {
                    message = messages.next() => return message,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {
                        speaker.publish("passage".to_owned(), "x".into()).await.unwrap();
                        speaker.flush().await.unwrap();
                    }
                }
            }
        };
        let message = tokio::time::timeout(ROUTES_LIMIT, message).await;
        assert!(message.expect("a message passes").is_some(), "from {from} to {to}");
    }

    #[tokio::test]
    async fn a_cluster_of_three_loses_one_and_gets_it_back() {
        let Some(mut cluster) = NatsCluster::start_or_skip(3).await else {
            return;
        };
        expect_passage(&cluster, 0, 2).await;
        cluster.server_mut(0).kill().unwrap();
        expect_passage(&cluster, 1, 2).await;
        cluster.server_mut(0).restart().await.unwrap();
        cluster.wait_routes().await.unwrap();
        expect_passage(&cluster, 2, 0).await;
        // Nobody is told of the others.
        let client = async_nats::connect(&cluster.urls()[1]).await.unwrap();
        assert!(
            client.server_info().connect_urls.is_empty(),
            "{:?}",
            client.server_info()
        );
    }
}
