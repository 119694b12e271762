//! How a provider ends: what it was given to write and a goodbye leave before whoever stops it kills it, and nobody
//! waits for it afterwards.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use kvcache_core::cache::{Cache, Key, Limits, NodeId};
use kvcache_core::wire::{Header, Heartbeat, HeartbeatState, Message};
use kvcache_node::service::Scope;
use kvcache_node::time;
use serde_json::json;
use testkit::{
    encode_host_data, eventually, Actor, KeyValue, KeyValueClient, Lattice, NatsServer, ProviderOptions,
    ProviderProcess, SyncState, DEFAULT_LINK_NAME,
};

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const LIMIT: Duration = Duration::from_secs(30);
/// When a host kills a provider that it has told to stop.
const HOST_KILLS_AFTER: Duration = Duration::from_millis(300);

// --- what leaves

/// What is heard of one node on the subjects that all nodes listen to, and the answer to its host, in the order in
/// which the server has got them.
struct Listener {
    client: Client,
    messages: Subscriber,
    answer: String,
}

/// What was heard from a request to the answer.
#[derive(Default)]
struct Heard {
    keys: BTreeSet<Bytes>,
    last_frame: Option<Instant>,
    goodbye: Option<Instant>,
    answer: Option<Instant>,
}

impl Listener {
    async fn to(server: &NatsServer, lattice: &Lattice) -> Self {
        let client = async_nats::connect(server.url()).await.unwrap();
        let root = format!("lattice.{}.kvcache.{DEFAULT_LINK_NAME}", lattice.prefix());
        // One subscription, as only that keeps an order. Not to what nodes tell each other.
        let messages = client.subscribe(format!("{root}.*")).await.unwrap();
        client.flush().await.unwrap();
        Listener {
            client,
            messages,
            answer: format!("{root}.answer"),
        }
    }

    /// As the host does.
    async fn tell_to_stop(&self, provider: &ProviderProcess) -> Instant {
        let subject = format!(
            "wasmbus.rpc.{}.{}.{}.shutdown",
            provider.lattice().prefix(),
            provider.provider_key(),
            provider.link_name()
        );
        let told = Instant::now();
        let request = json!({ "host_id": provider.lattice().host_id() }).to_string();
        self.client
            .publish_with_reply(subject, self.answer.clone(), request.into())
            .await
            .unwrap();
        self.client.flush().await.unwrap();
        told
    }

    /// Everything of `node` up to the end: its goodbye, or the answer to its host.
    async fn until(&mut self, node: NodeId, is_end: impl Fn(&Heard) -> bool) -> Heard {
        let mut heard = Heard::default();
        while !is_end(&heard) {
            let message = tokio::time::timeout(LIMIT, self.messages.next()).await;
            let message = message.expect("the end is heard").expect("the server is there");
            if message.subject.as_str() == self.answer {
                heard.answer = Some(Instant::now());
            } else if Header::of(&message.payload).is_some_and(|header| header.node == node) {
                heard.take(Message::decode(message.payload).unwrap());
            }
        }
        heard
    }
}

impl Heard {
    fn take(&mut self, message: Message) {
        match message {
            Message::Frame(frame) => {
                assert!(self.goodbye.is_none(), "a frame after the goodbye");
                self.last_frame = Some(Instant::now());
                self.keys.extend(
                    frame
                        .deltas
                        .iter()
                        .map(|delta| Bytes::copy_from_slice(delta.key.as_ref())),
                );
            }
            Message::Heartbeat(Heartbeat {
                state: HeartbeatState::Leaving,
                ..
            }) => self.goodbye = Some(Instant::now()),
            _ => {}
        }
    }

    fn has(&self, name: &str) -> bool {
        self.keys.contains(Key::shared(name.as_bytes()).as_bytes())
    }
}

#[tokio::test]
async fn ten_thousand_queued_writes_and_a_goodbye_leave_at_once() {
    const WRITES: usize = 10_000;
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    let node = cache.node();
    let service = lattice.node(cache, &server.url()).await.unwrap();
    let mut listener = Listener::to(&server, &lattice).await;
    // On the only thread of this test nothing is taken from the queue meanwhile.
    let scope = Scope::shared("a test");
    for number in 0..WRITES {
        let name = format!("key{number}");
        service.set(&scope, name.as_bytes(), &b"value"[..], 0).await.unwrap();
    }
    let told = Instant::now();
    let (stopped, heard) = tokio::join!(
        async {
            service.stop().await;
            told.elapsed()
        },
        listener.until(node, |heard| heard.goodbye.is_some())
    );
    let goodbye = heard.goodbye.unwrap() - told;
    eprintln!("{WRITES} queued writes: goodbye heard after {goodbye:?}, stopped after {stopped:?}");
    assert_eq!(heard.keys.len(), WRITES, "all were queued, and all have left");
    assert!(goodbye < HOST_KILLS_AFTER, "{goodbye:?}");
}

/// Writes until it is told to end. Returns what was answered.
async fn write(kv: KeyValue<KeyValueClient>, writer: usize, over: Arc<AtomicBool>) -> Vec<String> {
    let mut answered = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let name = format!("writer{writer}-{}", answered.len());
        match tokio::time::timeout(Duration::from_secs(1), kv.set(&name, "value")).await {
            Ok(Ok(())) => answered.push(name),
            // It ends.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_provider_says_goodbye_in_time_and_answers_its_host_last() {
    const KEYS: usize = 20_000;
    let server = testkit::server_or_skip!(NatsServer::builder().jetstream());
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let mut provider = lattice
        .start_ready(ProviderOptions::new(BINARY).link(&actor), LIMIT)
        .await
        .unwrap();
    // Its state is that of a node which then leaves.
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    let filler = lattice.node(cache, &server.url()).await.unwrap();
    let scope = Scope::shared("a test");
    let value = Bytes::from(vec![b'x'; 1_000]);
    for number in 0..KEYS {
        let name = format!("key{number}");
        filler.set(&scope, name.as_bytes(), value.clone(), 0).await.unwrap();
    }
    filler.stop().await;
    let has_all = |status: &testkit::Status| status.keys == KEYS as u64 && status.peers == 0;
    let status = provider.wait_status(LIMIT, has_all).await.unwrap();
    let node = NodeId(u64::from_str_radix(&status.node, 16).unwrap());
    let kv = provider.keyvalue(&actor).await.unwrap();
    kv.set("large", &"x".repeat(16 << 20)).await.unwrap();

    // Calls, a large answer and a bootstrap are under way.
    let mut listener = Listener::to(&server, &lattice).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| tokio::spawn(write(kv.clone(), writer, over.clone())))
        .collect();
    let large = tokio::spawn(async move { kv.get("large").await });
    let joining = {
        let (lattice, url) = (lattice.clone(), server.url());
        let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
        tokio::spawn(async move { lattice.node(cache, &url).await })
    };
    let answers_it = |status: &testkit::Status| status.pairs["replays_served"] != "0";
    provider.wait_status(LIMIT, answers_it).await.unwrap();

    let told = listener.tell_to_stop(&provider).await;
    let heard = listener.until(node, |heard| heard.answer.is_some()).await;
    // A host kills on the answer.
    provider.kill().unwrap();
    let [goodbye, answer] = [heard.goodbye, heard.answer].map(|at| at.expect("a goodbye before the answer") - told);
    over.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for writer in writers {
        for name in writer.await.unwrap() {
            assert!(heard.has(&name), "{name} was answered and has not left");
            answered += 1;
        }
    }
    eprintln!(
        "a busy provider: {answered} writes answered, goodbye heard after {goodbye:?}, answer after {answer:?}; the large \
         answer had {}arrived",
        if large.is_finished() { "" } else { "not " }
    );
    assert!(answered > 0);
    assert!(goodbye <= answer && answer < HOST_KILLS_AFTER, "{goodbye:?} {answer:?}");
    large.abort();
    joining.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_all_have_to_confirm_does_not_wait_for_a_provider_that_was_stopped() {
    let server = testkit::server_or_skip!();
    let (lattice, actor) = (Lattice::new(server.url()), Actor::new());
    let strict = || {
        ProviderOptions::new(BINARY)
            .link(&actor)
            .config(json!({ "ACK": "all" }))
    };
    let mut staying = lattice.start_ready(strict(), LIMIT).await.unwrap();
    let kv = staying.keyvalue(&actor).await.unwrap();
    for way in ["shutdown", "SIGTERM"] {
        let mut leaving = lattice.start_ready(strict(), LIMIT).await.unwrap();
        let meets = |status: &testkit::Status| status.peers == 1 && status.sync == SyncState::Synced;
        staying.wait_status(LIMIT, meets).await.unwrap();
        leaving.wait_status(LIMIT, meets).await.unwrap();
        kv.set("key", "confirmed by both").await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let busy = tokio::spawn(write(leaving.keyvalue(&actor).await.unwrap(), 0, over.clone()));
        match way {
            "shutdown" => {
                let mut listener = Listener::to(&server, &lattice).await;
                listener.tell_to_stop(&leaving).await;
                listener.until(NodeId(0), |heard| heard.answer.is_some()).await;
                leaving.kill().unwrap();
            }
            _ => {
                leaving.terminate().unwrap();
                assert!(leaving.exit_status(LIMIT).await.unwrap().success());
            }
        }
        let ended = Instant::now();
        kv.set("key", "confirmed by nobody else").await.unwrap();
        let took = ended.elapsed();
        eprintln!("the next write after {way}: confirmed after {took:?}");
        assert!(took < Duration::from_secs(1), "{way}: {took:?}");
        over.store(true, Ordering::Relaxed);
        busy.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_does_not_hold_up_the_end() {
    for way in ["killed", "paused"] {
        let rpc = testkit::server_or_skip!();
        let mut replication = NatsServer::start().await.unwrap();
        let actor = Actor::new();
        let settings = json!({ "NATS_URL": replication.url() });
        let options = ProviderOptions::new(BINARY).link(&actor).config(settings);
        let mut provider = Lattice::new(rpc.url()).start_ready(options, LIMIT).await.unwrap();
        match way {
            "killed" => {
                replication.kill().unwrap();
                provider
                    .wait_status(LIMIT, |status| status.sync == SyncState::Disconnected)
                    .await
                    .unwrap();
            }
            _ => replication.pause().unwrap(),
        }
        // More than the buffers of the system take.
        let (kv, value) = (provider.keyvalue(&actor).await.unwrap(), "x".repeat(500_000));
        for number in 0..40 {
            kv.set(&format!("key{number}"), &value).await.unwrap();
        }
        let told = Instant::now();
        assert!(provider.shutdown().await.unwrap().success());
        let took = told.elapsed();
        eprintln!("the server of replication is {way}: ended after {took:?}");
        let most = if way == "killed" { 1 } else { 7 };
        assert!(took < Duration::from_secs(most), "{way}: {took:?}");
    }
}

// --- a host that is gone

/// A provider whose host is a process of its own. Dropping it kills both.
#[cfg(target_os = "linux")]
struct BelowAHost {
    host: tokio::process::Child,
    /// The very process, whoever has its number later.
    provider: std::os::fd::OwnedFd,
    pid: u32,
    provider_key: String,
    folder: tempfile::TempDir,
}

#[cfg(target_os = "linux")]
impl BelowAHost {
    /// The shell does what a host does: it starts the provider, and its standard input has an end.
    async fn start(lattice: &Lattice, options: ProviderOptions) -> Self {
        use std::process::Stdio;
        use tokio::io::AsyncBufReadExt;

        let folder = tempfile::tempdir().unwrap();
        let data = lattice.host_data(&options).unwrap();
        std::fs::write(folder.path().join("data"), encode_host_data(&data).unwrap()).unwrap();
        let mut host = tokio::process::Command::new("sh")
            .args(["-c", r#""$0" <data 2>log & echo $!; wait"#, BINARY])
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = tokio::io::BufReader::new(host.stdout.take().unwrap()).lines();
        let pid: u32 = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        let number = rustix::process::Pid::from_raw(pid as i32).unwrap();
        BelowAHost {
            host,
            provider: rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).unwrap(),
            pid,
            provider_key: data.provider_key,
            folder,
        }
    }

    async fn status(&self, lattice: &Lattice) -> anyhow::Result<testkit::Status> {
        lattice.status_of(&self.provider_key, DEFAULT_LINK_NAME).await
    }

    /// Whether there is no such process, or only its remains that nobody has looked at.
    fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

#[cfg(target_os = "linux")]
impl Drop for BelowAHost {
    fn drop(&mut self) {
        // It may have ended.
        let _ = rustix::process::pidfd_send_signal(&self.provider, rustix::process::Signal::KILL);
        if std::thread::panicking() {
            eprintln!("--- log of the provider below a host:\n{}---", self.log());
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_host_was_killed_says_goodbye_and_ends_unless_it_is_to_go_on() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let mut peer = lattice.start_ready(ProviderOptions::new(BINARY), LIMIT).await.unwrap();
    for (switch, ends) in [("on", true), ("off", false)] {
        // With so few heartbeats nobody would miss it for long: that it is gone can only come from its goodbye.
        let settings = json!({ "EXIT_WITH_HOST": switch, "REPLAY_HEARTBEAT_SECS": 20 });
        let mut provider = BelowAHost::start(&lattice, ProviderOptions::new(BINARY).config(settings)).await;
        peer.wait_status(LIMIT, |status| status.peers == 1).await.unwrap();
        let ready = eventually(LIMIT, || async {
            let status = provider.status(&lattice).await?;
            ensure!(status.sync == SyncState::Synced, "{status}");
            Ok(())
        });
        ready.await.unwrap();
        provider.host.kill().await.unwrap();
        let killed = Instant::now();
        if ends {
            peer.wait_status(LIMIT, |status| status.peers == 0).await.unwrap();
            let missed = killed.elapsed();
            let ended = eventually(LIMIT, || async {
                ensure!(provider.has_ended(), "it goes on");
                Ok(())
            });
            ended.await.unwrap();
            eprintln!("peer told after {missed:?}, ended after {:?}", killed.elapsed());
            assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
            let log = provider.log();
            assert!(
                log.contains("the host that started this process is gone (EXIT_WITH_HOST)"),
                "{log}"
            );
        } else {
            // Longer than it would take to notice.
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert!(!provider.has_ended());
            assert_eq!(provider.status(&lattice).await.unwrap().peers, 1);
            assert_eq!(peer.status().await.unwrap().peers, 1);
        }
    }
}
