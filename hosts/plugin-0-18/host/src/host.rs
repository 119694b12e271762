//! The host itself.

use std::collections::HashMap;
use std::sync::mpsc;

use anyhow::{anyhow, bail, Context, Result};
use futures::channel::oneshot;
use serde_json::{json, Value};
use wasmcloud_host::{Actor, Host, HostBuilder};

use crate::{actor, answer, command, plugin, text};

#[derive(Default)]
pub struct Options {
    /// Reference of the cache; the classic one otherwise.
    cache: Option<String>,
    insecure: Option<String>,
    /// Server of the lattice's calls.
    rpc: Option<String>,
    namespace: Option<String>,
}

impl Options {
    pub fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Options::default();
        for pair in arguments.chunks(2) {
            match pair {
                ["--cache", value] => options.cache = Some(value.to_string()),
                ["--insecure", value] => options.insecure = Some(value.to_string()),
                ["--rpc", value] => options.rpc = Some(value.to_string()),
                ["--namespace", value] => options.namespace = Some(value.to_string()),
                other => bail!("unknown option {:?}", other),
            }
        }
        Ok(options)
    }

    async fn build(&self) -> Result<Host> {
        let mut builder = HostBuilder::new();
        if let Some(namespace) = &self.namespace {
            builder = builder.with_namespace(namespace);
        }
        if let Some(url) = &self.rpc {
            let connection = nats::asynk::connect(url).await.context("connecting to --rpc")?;
            builder = builder.with_rpc_client(connection);
        }
        if let Some(registry) = &self.insecure {
            builder = builder.oci_allow_insecure(vec![registry.clone()]);
        }
        if let Some(reference) = &self.cache {
            builder = builder.with_lattice_cache_provider(reference);
        }
        Ok(builder.build())
    }
}

/// Runs until standard input ends. The first line of output says that the host has started.
pub fn run(options: &Options) -> Result<()> {
    actix_rt::System::new().block_on(async {
        let host = options.build().await?;
        host.start().await.map_err(|error| anyhow!("{}", error))?;
        answer(Ok(json!({ "started": host.id() })))?;
        let commands = commands();
        loop {
            let (reply, next) = oneshot::channel();
            commands.send(reply).context("the reader of commands is gone")?;
            match next.await.context("the reader of commands is gone")?? {
                None => break,
                Some(command) => answer(perform(&host, &command).await)?,
            }
        }
        host.stop().await;
        Ok(())
    })
}

/// Reads a command whenever one is asked for, on a thread of its own: the host runs on this one.
fn commands() -> mpsc::Sender<oneshot::Sender<Result<Option<Value>>>> {
    let (asked, asks) = mpsc::channel::<oneshot::Sender<Result<Option<Value>>>>();
    std::thread::spawn(move || {
        for ask in asks {
            let _ = ask.send(command());
        }
    });
    asked
}

async fn perform(host: &Host, command: &Value) -> Result<Value> {
    match text(command, "do")? {
        "set_link" => set_link(host, command, 0).await,
        // So many links in a row, of actors M0, M1, ... or later ones.
        "set_links" => {
            let first = command["first"].as_u64().unwrap_or(0);
            for number in 0..command["count"].as_u64().context("a count")? {
                set_link(host, command, first + number).await?;
            }
            Ok(Value::Null)
        }
        "remove_link" => {
            let (actor, contract) = (text(command, "actor")?, text(command, "contract")?);
            ok(host.remove_link(actor, contract, None).await)
        }
        "links" => {
            let links = host.link_definitions().await.map_err(worded)?;
            Ok(serde_json::to_value(links)?)
        }
        "count_links" => Ok(host.link_definitions().await.map_err(worded)?.len().into()),
        "claims" => {
            let claims = host.actor_claims().await.map_err(worded)?;
            Ok(claims.into_iter().map(|claims| claims.subject).collect())
        }
        "oci" => Ok(json!(host.oci_references().await.map_err(worded)?)),
        "start_actor" => {
            let (id, module) = actor::new("a test")?;
            host.start_actor(Actor::from_slice(&module).map_err(worded)?)
                .await
                .map_err(worded)?;
            Ok(id.into())
        }
        "push_actor" => push_actor(text(command, "reference")?, text(command, "registry")?).await,
        "start_actor_from" => ok(host.start_actor_from_registry(text(command, "reference")?).await),
        "start_provider" => ok(host
            .start_capability_from_registry(text(command, "reference")?, None)
            .await),
        "stop_provider" => {
            let (provider, contract) = (text(command, "provider")?, text(command, "contract")?);
            let link = command["link"].as_str().map(str::to_owned);
            ok(host.stop_provider(provider, contract, link).await)
        }
        "call" => {
            let argument = plugin::to_bytes(&command["args"])?;
            let (actor, operation) = (text(command, "actor")?, text(command, "op")?);
            let answered = host.call_actor(actor, operation, &argument).await.map_err(worded)?;
            plugin::from_bytes(&answered)
        }
        "sleep" => {
            // The host does nothing at all meanwhile: it runs on this thread.
            let seconds = command["seconds"].as_u64().context("seconds")?;
            std::thread::sleep(std::time::Duration::from_secs(seconds));
            Ok(Value::Null)
        }
        other => bail!("unknown command {:?}", other),
    }
}

async fn set_link(host: &Host, command: &Value, number: u64) -> Result<Value> {
    let actor = match command["actor"].as_str() {
        Some(actor) => actor.to_owned(),
        None => format!("M{}", number),
    };
    let values: HashMap<String, String> = match &command["values"] {
        Value::Null => HashMap::new(),
        values => serde_json::from_value(values.clone())?,
    };
    let (contract, provider) = (text(command, "contract")?, text(command, "provider")?);
    ok(host.set_link(&actor, contract, None, provider.to_owned(), values).await)
}

/// Signs an actor and puts it into a registry. Answers with its id.
async fn push_actor(reference: &str, registry: &str) -> Result<Value> {
    use oci_distribution::client::{Client, ClientConfig, ClientProtocol, ImageData, ImageLayer};
    let (id, module) = actor::new("from a registry")?;
    let mut client = Client::new(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(vec![registry.to_owned()]),
    });
    let layer = ImageLayer {
        data: module,
        media_type: "application/vnd.module.wasm.content.layer.v1+wasm".to_owned(),
    };
    let image = ImageData {
        layers: vec![layer],
        digest: None,
    };
    let reference = reference.parse().map_err(|error| anyhow!("{:?}", error))?;
    let auth = oci_distribution::secrets::RegistryAuth::Anonymous;
    let media_type = "application/vnd.wasmcloud.actor.archive.config".to_owned();
    client
        .push(&reference, &image, b"{}", &media_type, &auth, None)
        .await
        .map_err(|error| anyhow!("{}", error))?;
    Ok(id.into())
}

fn ok(outcome: wasmcloud_host::Result<()>) -> Result<Value> {
    outcome.map(|()| Value::Null).map_err(worded)
}

fn worded(error: Box<dyn std::error::Error + Send + Sync>) -> anyhow::Error {
    anyhow!("{}", error)
}
