//! The store in JetStream: the suite of all engines, and what only JetStream can do to a store.
#![cfg(feature = "store-jetstream")]
// Tests wait in real time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Result};
use async_nats::{Client, HeaderMap};
use async_trait::async_trait;
use kvcache_node::nats::{Credentials, Tls};
use kvcache_node::store::jetstream::JetStreamOpener;
use kvcache_node::store::{Batch, Opener, Record, Section, Store, StoreError, StoreUrl};
use serde_json::{json, Value};
use testkit::{batch, cache_name, eventually, load, run_store_suite, server_or_skip, NatsServer, StoreEngine};

const LIMIT: Duration = Duration::from_secs(60);

/// A value that is more than a message takes.
const LARGE: usize = 3 << 20;

// --- the suite

struct Engine {
    /// Of several, the first is killed, and all are stopped.
    servers: Vec<NatsServer>,
    url: &'static str,
    opener: JetStreamOpener,
}

#[async_trait]
impl StoreEngine for Engine {
    fn opener(&self) -> &dyn Opener {
        &self.opener
    }

    fn url(&self) -> String {
        self.url.into()
    }

    async fn kill(&mut self) -> Result<()> {
        self.servers[0].kill()
    }

    async fn restart(&mut self) -> Result<()> {
        self.servers[0].restart().await?;
        self.in_step().await
    }

    async fn freeze(&mut self) -> Result<bool> {
        self.servers.iter_mut().try_for_each(NatsServer::pause).map(|()| true)
    }

    async fn thaw(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(NatsServer::resume)
    }
}

impl Engine {
    /// Waits until a server that was away has what the others have written meanwhile: until then a reader of it may have
    /// to try again.
    async fn in_step(&self) -> Result<()> {
        if self.servers.len() == 1 {
            return Ok(());
        }
        let client = async_nats::connect(self.servers[0].url()).await?;
        eventually(LIMIT, || async {
            let answer = client.request("$JS.API.STREAM.INFO.KV_suite", "".into()).await?;
            let info: Value = serde_json::from_slice(&answer.payload)?;
            let replicas = info["cluster"]["replicas"].as_array();
            let is_current = |replica: &Value| replica["current"] == true;
            ensure!(
                replicas.is_some_and(|all| all.len() == 2 && all.iter().all(is_current)),
                "{info}"
            );
            Ok(())
        })
        .await
    }
}

fn opener_at(urls: &[String]) -> JetStreamOpener {
    let servers = urls.iter().map(|url| url.parse().unwrap()).collect();
    JetStreamOpener::new(servers, Credentials::None, Tls::default())
}

async fn suite(servers: Vec<NatsServer>, url: &'static str) {
    let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
    let opener = opener_at(&urls);
    if let Err(error) = run_store_suite(&mut Engine { servers, url, opener }).await {
        panic!("{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_does_what_a_store_has_to() {
    let server = server_or_skip!(NatsServer::builder().jetstream());
    suite(vec![server], "jetstream:suite").await;
}

/// What is read may come from a replica that is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_do_what_a_store_has_to() {
    let ports = [free_port(), free_port(), free_port()];
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut starting = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let cluster = format!(
            "server_name: s{n}\ncluster {{\n  name: c\n  listen: \"127.0.0.1:{port}\"\n  no_advertise: true\n  \
             routes: {routes:?}\n}}\n"
        );
        let server = NatsServer::builder().jetstream().config(cluster);
        starting.push(server.start_or_skip());
    }
    let started = futures::future::join_all(starting).await;
    let Some(servers) = started.into_iter().collect::<Option<Vec<NatsServer>>>() else {
        return;
    };
    let opener = opener_at(&[servers[0].url()]);
    let url = StoreUrl::parse("jetstream:suite?replicas=3").unwrap();
    let is_old = servers[0].version().unwrap().starts_with("2.9.");
    // Until they have chosen a leader there is no stream.
    let opened = eventually(LIMIT, || async {
        match opener.open(&url, &cache_name("a", "b")).await {
            Err(StoreError::Unusable(reason)) if is_old => Ok(Err(reason)),
            opened => Ok(Ok(opened?)),
        }
    });
    if let Err(reason) = opened.await.unwrap() {
        assert!(reason.contains("2.10.19"), "{reason}");
        return;
    }
    suite(servers, "jetstream:suite?replicas=3").await;
}

// --- one server

struct Bench {
    server: NatsServer,
    client: Client,
}

impl Bench {
    async fn start() -> Option<Self> {
        let server = NatsServer::builder().jetstream().start_or_skip().await?;
        let client = async_nats::connect(server.url()).await.unwrap();
        Some(Bench { server, client })
    }

    async fn open(&self, url: &str) -> Result<Arc<dyn Store>, StoreError> {
        open_at(&self.server.url(), url).await
    }

    /// Asks JetStream something, as a tool of its operators does.
    async fn api(&self, question: &str, body: Value) -> Value {
        let question = format!("$JS.API.{question}");
        let answer = self.client.request(question, body.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    }

    /// Makes a bucket as tools do, but for what `change` says.
    async fn make_bucket(&self, name: &str, change: Value) {
        let mut config = json!({
            "name": format!("KV_{name}"),
            "subjects": [format!("$KV.{name}.>")],
            "retention": "limits",
            "storage": "file",
            "num_replicas": 1,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_direct": true,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
        });
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        let answer = self.api(&format!("STREAM.CREATE.KV_{name}"), config).await;
        assert!(answer.get("error").is_none(), "{answer}");
    }

    /// The subjects below this one that are held, in order.
    async fn subjects(&self, bucket: &str, below: &str) -> BTreeSet<String> {
        let body = json!({ "subjects_filter": format!("$KV.{bucket}.{below}.>") });
        let answer = self.api(&format!("STREAM.INFO.KV_{bucket}"), body).await;
        let subjects = answer["state"]["subjects"].as_object().cloned().unwrap_or_default();
        subjects.into_iter().map(|(subject, _)| subject).collect()
    }
}

async fn open_at(server: &str, url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let opener = opener_at(&[server.to_owned()]);
    let url = StoreUrl::parse(url).unwrap();
    opener.check(&url).unwrap();
    opener.open(&url, &cache_name("my.lattice", "default")).await
}

fn unusable(result: Result<Arc<dyn Store>, StoreError>, part: &str) {
    let error = result.map(drop).unwrap_err();
    assert!(
        matches!(&error, StoreError::Unusable(text) if text.contains(part)),
        "{error:?}: expected {part:?}"
    );
}

fn section(number: u16) -> Section {
    Section::numbered(number).unwrap()
}

fn all_sections() -> Vec<Section> {
    (0..=1_024).map(section).collect()
}

fn large(first: u8) -> Vec<u8> {
    (0..LARGE).map(|n| if n == 0 { first } else { (n * n) as u8 }).collect()
}

async fn write(store: &Arc<dyn Store>, at: Section, records: &[(&[u8], &[u8])]) -> u64 {
    store.write(&[batch(at, records)]).await.unwrap().conflicts
}

async fn held(store: &Arc<dyn Store>, at: Section) -> Vec<(Vec<u8>, Vec<u8>)> {
    let few = load(&**store, &[at]).await.unwrap();
    let all = load(&**store, &all_sections()).await.unwrap();
    assert_eq!(few.get(&at), all.get(&at));
    few.into_values().flatten().collect()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn buckets_that_would_lose_records_are_refused() {
    let Some(bench) = Bench::start().await else { return };
    for (n, (change, part)) in [
        (json!({ "max_age": 3_600_000_000_000u64 }), "max_age"),
        (json!({ "max_msgs_per_subject": 5 }), "history of 5"),
        (json!({ "discard": "old", "max_bytes": 1 << 20 }), "discard old"),
        (json!({ "allow_direct": false }), "allow_direct"),
        (json!({ "storage": "memory" }), "storage=memory"),
        (json!({ "deny_purge": true, "allow_rollup_hdrs": false }), "deny_purge"),
        (json!({ "subjects": ["other.>"] }), "no KV bucket"),
        (json!({ "max_msg_size": 100 }), "too short"),
    ]
    .into_iter()
    .enumerate()
    {
        // Subjects belong to one stream, so names differ.
        let name = format!("b{n}");
        let mut change = change;
        if let Some(subjects) = change.get_mut("subjects") {
            *subjects = json!([format!("other{n}.>")]);
        }
        bench.make_bucket(&name, change).await;
        unusable(bench.open(&format!("jetstream:{name}")).await, part);
    }
    bench.open("jetstream:b4?storage=memory").await.unwrap();
}

#[tokio::test]
async fn a_bucket_made_by_a_tool_is_used_and_keys_deleted_by_one_are_gone() {
    let Some(bench) = Bench::start().await else { return };
    bench.make_bucket("tool", json!({})).await;
    let store = bench.open("jetstream:tool").await.unwrap();
    let at = section(3);
    let value = large(5);
    write(&store, at, &[(b"small", b"5"), (b"large", &value), (b"changed", b"6")]).await;
    // Nothing may be deleted from it by sequence.
    let gone = batch(at, &[(b"small", b"5"), (b"large", &value), (b"changed", b"5")]);
    store.remove(&gone).await.unwrap();
    assert_eq!(held(&store, at).await, [(b"changed".to_vec(), b"6".to_vec())]);
    assert_eq!(bench.subjects("tool", "c").await.len(), 1);
    assert!(bench.subjects("tool", "p").await.is_empty());
    let key = bench.subjects("tool", "c").await.pop_first().unwrap();
    assert!(key.starts_with("$KV.tool.c.my=2Elattice/default.3."), "{key}");
    let mut headers = HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    let deleted = bench.client.publish_with_headers(key.clone(), headers, "".into());
    deleted.await.unwrap();
    bench.client.flush().await.unwrap();
    eventually(LIMIT, || async {
        ensure!(held(&store, at).await.is_empty());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(write(&store, at, &[(b"changed", b"2")]).await, 0);
    assert_eq!(held(&store, at).await, [(b"changed".to_vec(), b"2".to_vec())]);
    // What is none of ours is left alone, and does not matter.
    bench
        .client
        .publish("$KV.tool.c.my=2Elattice/default.3.zz", "theirs".into())
        .await
        .unwrap();
    bench.client.publish("$KV.tool.other", "theirs".into()).await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(held(&store, at).await.len(), 1);
}

#[tokio::test]
async fn parts_go_with_their_record_and_one_without_all_of_them_is_not_there() {
    let Some(bench) = Bench::start().await else { return };
    let store = bench.open("jetstream:parts").await.unwrap();
    let at = section(3);
    let parts = || bench.subjects("parts", "p");
    write(&store, at, &[(b"id", &large(5))]).await;
    let of_first = parts().await;
    assert_eq!(of_first.len(), LARGE.div_ceil(1 << 20) + 1);
    // One that loses leaves none, one that wins takes their place, an equal one changes nothing.
    assert_eq!(write(&store, at, &[(b"id", &large(4))]).await, 1);
    assert_eq!(write(&store, at, &[(b"id", &large(5))]).await, 0);
    assert_eq!(parts().await, of_first);
    assert_eq!(write(&store, at, &[(b"id", &large(6))]).await, 0);
    let of_second = parts().await;
    assert!(of_second.len() == of_first.len() && of_second.is_disjoint(&of_first));
    assert_eq!(held(&store, at).await, [(b"id".to_vec(), large(6))]);
    // Torn: whatever comes next counts, also what is smaller.
    let purge = json!({ "filter": of_second.first().unwrap() });
    bench.api("STREAM.PURGE.KV_parts", purge).await;
    assert!(held(&store, at).await.is_empty());
    assert_eq!(write(&store, at, &[(b"id", &large(1))]).await, 0);
    assert_eq!(held(&store, at).await, [(b"id".to_vec(), large(1))]);
    assert!(parts().await.is_disjoint(&of_second));
    // A part of the right length and of another content.
    let torn = parts().await.pop_first().unwrap();
    let other = vec![0; (1 << 20) - 512];
    bench.client.request(torn, other.into()).await.unwrap();
    assert!(held(&store, at).await.is_empty());
    assert_eq!(write(&store, at, &[(b"id", b"0")]).await, 0);
    assert_eq!(held(&store, at).await, [(b"id".to_vec(), b"0".to_vec())]);
    assert!(parts().await.is_empty());
    // A writer has ended between the parts and the record. They may be those of one that is still at it.
    let left = "$KV.parts.p.my=2Elattice/default.3.000102030405060708090a0b0c0d0e0f.0";
    bench.client.request(left, "part".into()).await.unwrap();
    assert_eq!(held(&store, at).await.len(), 1);
    assert_eq!(parts().await, BTreeSet::from([left.to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_read_while_others_write() {
    let Some(bench) = Bench::start().await else { return };
    let store = bench.open("jetstream:many").await.unwrap();
    let at = section(7);
    let mut written = Batch::new(at);
    for n in 0..5_000u32 {
        // Runs of large ones, so that answers end by their bytes.
        let length = if n % 1_000 < 100 { 200_000 } else { 30 };
        written.push(Record {
            id: &n.to_be_bytes(),
            value: &vec![1; length],
        });
    }
    store.write(std::slice::from_ref(&written)).await.unwrap();
    let writer = bench.open("jetstream:many").await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut round = 2u8;
        while stopped.try_recv().is_err() {
            let mut batch = Batch::new(at);
            for n in (0..5_000u32).step_by(37) {
                batch.push(Record {
                    id: &n.to_be_bytes(),
                    value: &[round; 30],
                });
            }
            writer.write(&[batch]).await.unwrap();
            round = round.saturating_add(1);
        }
    });
    for _ in 0..5 {
        for sections in [vec![at], all_sections()] {
            let found = load(&*store, &sections).await.unwrap();
            assert_eq!(found[&at].len(), written.len());
        }
    }
    stop.send(()).unwrap();
    writing.await.unwrap();
}

#[tokio::test]
async fn a_full_bucket_refuses_for_now_and_keeps_what_it_has() {
    let Some(bench) = Bench::start().await else { return };
    let store = bench.open("jetstream:full?max_bytes=1048576").await.unwrap();
    let at = section(1);
    let value = [7; 400_000];
    write(&store, at, &[(b"a", &value), (b"b", &value)]).await;
    let error = store.write(&[batch(at, &[(b"c", &value)])]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Away(text) if text.contains("JetStream bucket full: maximum bytes")),
        "{error:?}"
    );
    assert_eq!(held(&store, at).await.len(), 2);
    store.remove(&batch(at, &[(b"a", &value)])).await.unwrap();
    write(&store, at, &[(b"c", &value)]).await;
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let server = server_or_skip!();
    unusable(open_at(&server.url(), "jetstream:b").await, "needs JetStream");
    let port = server.port();
    drop(server);
    let gone = open_at(&format!("nats://127.0.0.1:{port}"), "jetstream:b?timeout_ms=500").await;
    let error = gone.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Away(_)), "{error:?}");
}

#[tokio::test]
async fn an_account_without_jetstream_or_with_limits_is_named() {
    let accounts = r#"
        accounts {
          none { users: [{user: none, password: pass-phrase}] }
          sized { jetstream { max_file: 10MB, max_mem: 0, max_bytes_required: true }, users: [{user: sized, password: pass-phrase}] }
        }"#;
    let server = server_or_skip!(NatsServer::builder().jetstream().config(accounts));
    let at = |user: &str| format!("nats://{user}:pass-phrase@127.0.0.1:{}", server.port());
    unusable(open_at(&at("none"), "jetstream:b").await, "needs JetStream");
    unusable(open_at(&at("sized"), "jetstream:b").await, "max_bytes in the URL");
    open_at(&at("sized"), "jetstream:b?max_bytes=1048576").await.unwrap();
    let refused = open_at(&at("nobody"), "jetstream:b?timeout_ms=1000").await;
    let error = refused.map(drop).unwrap_err();
    assert!(
        error.to_string().contains("refuses the credentials") && !error.to_string().contains("pass-phrase"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_user_needs_what_the_documentation_says_and_no_more() {
    let subjects = |create: &str| {
        format!(
            r#"["$KV.b.>", "$JS.API.STREAM.INFO.KV_b", {create} "$JS.API.STREAM.PURGE.KV_b", "$JS.API.STREAM.MSG.GET.KV_b",
            "$JS.API.STREAM.MSG.DELETE.KV_b", "$JS.API.DIRECT.GET.KV_b.>", "$JS.API.CONSUMER.CREATE.KV_b",
            "$JS.API.CONSUMER.INFO.KV_b.*", "$JS.API.CONSUMER.DELETE.KV_b.*", "$JS.API.CONSUMER.MSG.NEXT.KV_b.*"]"#
        )
    };
    let user = |name: &str, publish: &str| {
        format!("{{user: {name}, password: p, permissions: {{publish: {publish}, subscribe: \"_INBOX.>\"}}}}")
    };
    let users = [
        user("exact", &subjects("\"$JS.API.STREAM.CREATE.KV_b\",")),
        user("less", &subjects("")),
        user("reader", "[\"$JS.API.STREAM.INFO.KV_b\"]"),
    ];
    let config = format!("authorization {{ users: [{}] }}", users.join(", "));
    let server = server_or_skip!(NatsServer::builder().jetstream().config(config));
    let at = |user: &str| format!("nats://{user}:p@127.0.0.1:{}", server.port());
    let short = "jetstream:b?timeout_ms=1000";
    unusable(open_at(&at("less"), short).await, "STREAM.CREATE.KV_b");
    let store = open_at(&at("exact"), short).await.unwrap();
    let section = section(2);
    let value = large(5);
    write(&store, section, &[(b"id", b"value"), (b"large", &value)]).await;
    write(&store, section, &[(b"id", b"value2")]).await;
    assert_eq!(held(&store, section).await.len(), 2);
    let gone = batch(section, &[(b"id", b"value2"), (b"large", &value)]);
    store.remove(&gone).await.unwrap();
    assert!(held(&store, section).await.is_empty());
    open_at(&at("less"), short).await.unwrap();
    unusable(open_at(&at("reader"), short).await, "$KV.b.");
}

#[tokio::test]
async fn replicas_that_there_are_not_are_named() {
    let Some(bench) = Bench::start().await else { return };
    unusable(bench.open("jetstream:b?replicas=3").await, "replicas");
}
