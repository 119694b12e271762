//! What operators get wrong, and what goes wrong around them: secrets in the wrong place, servers that refuse or drop
//! connections, certificates, a log that nobody reads.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvcache_core::cache::{Cache, Key, Limits};
use kvcache_node::time;
use serde_json::{json, Map, Value};
use tempfile::TempDir;
use testkit::{
    encode_host_data, eventually, run_to_end, Actor, Lattice, NatsOperator, NatsServer, ProviderOptions,
    ProviderProcess, SyncState,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use wasmbus_rpc::core::HostData;

const BINARY: &str = env!("CARGO_BIN_EXE_nats-kvcache");
const LIMIT: Duration = Duration::from_secs(30);

const SEED: &str = "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM";
const JWT: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJuYW1lIjoidGVsbC1ub2JvZHkifQ.c2lnbmF0dXJl";

// --- secrets and forged lines

/// Every place of the host data and of the settings where a text can stand.
fn misplaced(secret: &str) -> Vec<(String, HostData)> {
    let lattice = Lattice::new("nats://127.0.0.1:1");
    let data = || {
        let mut data = lattice.host_data(&ProviderOptions::new(BINARY)).unwrap();
        data.config_json = Some(json!({ "LATTICE_CONNECT_SECS": 0 }).to_string());
        data
    };
    let mut cases = Vec::new();
    let mut field = |name: &str, spoil: &dyn Fn(&mut HostData)| {
        for structured in [false, true] {
            let mut data = data();
            data.structured_logging = structured;
            data.log_level = Some("debug".into());
            spoil(&mut data);
            cases.push((name.to_owned(), data));
        }
    };
    field("cluster_issuers", &|data| data.cluster_issuers = vec![secret.into()]);
    field("log_level", &|data| data.log_level = Some(secret.into()));
    field("log_level with more", &|data| {
        data.log_level = Some(format!("info,{secret}=nonsense"))
    });
    field("link_name", &|data| data.link_name = secret.into());
    field("lattice_rpc_prefix", &|data| data.lattice_rpc_prefix = secret.into());
    field("provider_key", &|data| data.provider_key = secret.into());
    field("host_id", &|data| data.host_id = secret.into());
    field("instance_id", &|data| data.instance_id = secret.into());
    field("lattice_rpc_user_jwt", &|data| {
        data.lattice_rpc_user_jwt = secret.into()
    });
    field("lattice_rpc_user_seed", &|data| {
        data.lattice_rpc_user_seed = secret.into()
    });
    field("lattice_rpc_url", &|data| data.lattice_rpc_url = secret.into());
    field("user of lattice_rpc_url", &|data| {
        data.lattice_rpc_url = format!("nats://kv:{secret}@127.0.0.1:1");
    });
    field("config_json", &|data| data.config_json = Some(secret.into()));
    field("a name in config_json", &|data| {
        data.config_json = Some(json!({ secret: "on", "LATTICE_CONNECT_SECS": 0 }).to_string());
    });
    for name in [
        "REPLICATION",
        "NATS_URL",
        "NATS_CREDS",
        "NATS_TOKEN",
        "NATS_TLS_CA",
        "NATS_TLS_CERT",
        "CLIENT_JWT",
        "CLIENT_SEED",
        "STATE_REPL_SUBJECT",
        "REPLAY_REQ_SUBJECT",
        "REPLAY_HEARTBEAT_SECS",
        "MAX_VALUE_BYTES",
        "FRAME_AUTH",
        "ACK",
        "NAMESPACE",
    ] {
        for value in [secret.to_owned(), format!("some text of its own, then {secret}")] {
            let mut settings: Map<String, Value> = [(name.to_owned(), json!(value))].into_iter().collect();
            settings.insert("LATTICE_CONNECT_SECS".into(), json!(0));
            let text = Value::Object(settings).to_string();
            field(name, &|data| data.config_json = Some(text.clone()));
        }
    }
    let actor = Actor::new();
    let linked = |values: &[(&str, &str)]| {
        let options = ProviderOptions::new(BINARY).link_with(&actor, values);
        lattice.host_data(&options).unwrap().link_definitions
    };
    for values in [
        [("NAMESPACE", secret)],
        [("ACK", secret)],
        [("STATE_REPL_SUBJECT", secret)],
        [(secret, "on")],
    ] {
        let links = linked(&values);
        field("the values of a link", &|data| data.link_definitions = links.clone());
    }
    let mut links = linked(&[("ACK", "nonsense")]);
    links[0].actor_id = secret.into();
    field("the actor of a link", &|data| data.link_definitions = links.clone());
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_wrong_place_is_never_printed() {
    for secret in [SEED, JWT] {
        for (place, data) in misplaced(secret) {
            let input = encode_host_data(&data).unwrap();
            let (status, output) = run_to_end(Path::new(BINARY), input.as_bytes(), LIMIT).await.unwrap();
            assert!(!status.success(), "{place}: nothing listens there");
            for part in [secret, &secret[..20], &secret[secret.len() - 20..]] {
                let shown = output.to_uppercase().contains(&part.to_uppercase());
                assert!(!shown, "{place}: part of a secret in the output:\n{output}");
            }
            if data.structured_logging {
                events(&output);
            }
            assert!(!output.is_empty() && !output.contains("panicked"), "{place}:\n{output}");
        }
    }
}

/// The lines of a structured log, each of which has to be an event.
fn events(log: &str) -> Vec<Value> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(event[field].is_string(), "no {field}: {line}");
        }
        assert!(event["fields"].is_object(), "no fields: {line}");
        event
    };
    log.lines().map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_structured_log_is_an_event_and_failing_calls_are_named() {
    let server = testkit::server_or_skip!();
    let [actor, strict, stranger] = std::array::from_fn(|_| Actor::new());
    let options = ProviderOptions::new(BINARY)
        .link(&actor)
        .link_with(&strict, &[("ACK", "1"), ("ACK_TIMEOUT_MS", "50")])
        .link_with(&Actor::new(), &[("ACK", "nonsense")])
        .config(json!({ "NO_SUCH_SETTING": "\"\\" }))
        .log_level("debug")
        .adjust(|data| data.structured_logging = true);
    let mut provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    kv.set("key", "value").await.unwrap();
    kv.list_add("key", "item").await.unwrap_err();
    let no_operation = "KeyValue.\"No\\Such\n";
    kv.transport().call_raw(no_operation, b"").await.unwrap_err();
    kv.transport().send_garbage(b"\xc1").await.unwrap_err();
    let unconfirmed = provider.keyvalue(&strict).await.unwrap().set("key", "value").await;
    unconfirmed.unwrap_err();
    let refused = provider.keyvalue(&stranger).await.unwrap().get("key").await;
    refused.unwrap_err();
    provider.put_link(&Actor::new(), &[("ACK", "2\nforged")]).await.unwrap();
    provider.wait_for_log("link refused", LIMIT).await.unwrap();
    assert!(provider.shutdown().await.unwrap().success());
    provider.wait_for_log("shutdown", LIMIT).await.unwrap();

    let events = events(&provider.log().text());
    for (said, level, actor, operation) in [
        ("a call fails", "DEBUG", &actor, "KeyValue.ListAdd"),
        ("a call fails", "WARN", &strict, "KeyValue.Set"),
        ("a call is refused", "WARN", &stranger, "KeyValue.Get"),
    ] {
        let is_it = |event: &&Value| {
            let field = |name: &str| event["fields"][name].as_str().unwrap_or_default();
            field("message").starts_with(said)
                && field("actor").contains(actor.id())
                && field("operation").contains(operation)
        };
        let event = events.iter().find(is_it);
        let event = event.unwrap_or_else(|| panic!("no line '{said}' of {operation}:\n{}", provider.log().text()));
        assert_eq!(event["level"], level, "{event}");
    }
}

/// A change that makes host data unusable.
type Spoil<'a> = &'a dyn Fn(&mut HostData);

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_an_event_of_a_structured_log_at_any_level() {
    let lattice = Lattice::new("nats://127.0.0.1:1");
    let long = format!("\"{}", "\u{1}".repeat(200_000));
    let cases: [(&str, Spoil); 5] = [
        ("LATTICE_CONNECT_SECS", &|data| {
            data.config_json = Some(json!({ "LATTICE_CONNECT_SECS": 0 }).to_string())
        }),
        ("REPLICATION", &|data| {
            data.config_json = Some(json!({ "REPLICATION": "perhaps", "ACK": "\"\\" }).to_string())
        }),
        ("REPLICATION", &|data| {
            data.config_json = Some(json!({ "REPLICATION": long }).to_string())
        }),
        ("config_json", &|data| data.config_json = Some("no { JSON".into())),
        ("invocation_seed", &|data| data.invocation_seed = "no seed".into()),
    ];
    for level in ["off", "info"] {
        for (named, spoil) in &cases {
            let mut data = lattice.host_data(&ProviderOptions::new(BINARY)).unwrap();
            (data.structured_logging, data.log_level) = (true, Some(level.into()));
            spoil(&mut data);
            let input = encode_host_data(&data).unwrap();
            let (status, output) = run_to_end(Path::new(BINARY), input.as_bytes(), LIMIT).await.unwrap();
            assert!(!status.success(), "{named}: {output}");
            let events = events(&output);
            let says_why = |event: &Value| event["level"] == "ERROR" && event["fields"].to_string().contains(named);
            assert!(events.iter().any(says_why), "{named} at {level}:\n{output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_line_breaks_make_no_lines_of_their_own() {
    let server = testkit::server_or_skip!();
    let lattice = Lattice::new(server.url());
    let forging = "host\n2026-11-26T00:00:00Z ERROR forged line\r\u{1b}[2Kforged\u{2028}forged";
    let [one, mut other] = [
        lattice
            .start(ProviderOptions::new(BINARY).host_id(forging))
            .await
            .unwrap(),
        lattice.start(ProviderOptions::new(BINARY)).await.unwrap(),
    ];
    other.wait_status(LIMIT, |status| status.peers == 1).await.unwrap();
    other
        .put_link(&Actor::new(), &[("no\nsetting", "x"), ("ACK", "2\nforged")])
        .await
        .unwrap();
    other.wait_for_log("link refused", LIMIT).await.unwrap();
    for provider in [&one, &other] {
        let lines = provider.log().text();
        for line in lines.lines() {
            assert!(
                line.starts_with("20") && !line.starts_with("2026-11-26T00:00:00Z"),
                "{line:?} in\n{lines}"
            );
            assert!(
                !line.contains(char::is_control) && !line.contains('\u{2028}'),
                "{line:?}"
            );
        }
    }
    let health = other.health().await.unwrap().message.unwrap();
    assert!(!health.contains(char::is_control), "{health:?}");
}

// --- servers that drop and refuse

/// What a server does after the handshake.
#[derive(Clone, Copy)]
enum After {
    Drop,
    Complain,
}

/// A server of which only the handshake is right. Returns its address and how often it was connected to.
async fn unfit_server(after: After) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let (reader, mut writer) = stream.into_split();
                let info = json!({ "server_id": "unfit", "server_name": "unfit", "version": "2.10.0", "proto": 1,
                    "host": "127.0.0.1", "port": port, "headers": true, "max_payload": 1 << 20, "client_id": 1,
                    "go": "go1.22" });
                writer.write_all(format!("INFO {info}\r\n").as_bytes()).await?;
                let mut lines = BufReader::new(reader).lines();
                while lines.next_line().await?.is_some_and(|line| line != "PING") {}
                writer.write_all(b"PONG\r\n").await?;
                if let After::Complain = after {
                    for number in 0.. {
                        writer
                            .write_all(format!("-ERR 'complaint {number}'\r\n").as_bytes())
                            .await?;
                        tokio::time::sleep(Duration::from_micros(500)).await;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    (format!("nats://127.0.0.1:{port}"), connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_connections_is_tried_less_and_less_often() {
    let server = testkit::server_or_skip!();
    let (url, connections) = unfit_server(After::Drop).await;
    let mut provider = replicating_on(&server, json!({ "NATS_URL": url })).await;
    eventually(LIMIT, || async {
        anyhow::ensure!(connections.load(Ordering::SeqCst) >= 3, "not tried again");
        Ok(())
    })
    .await
    .unwrap();
    // 0, 50, 100, 200, 400, 800, 1600 ms, then every 2 s.
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (attempts, lines) = (
        connections.load(Ordering::SeqCst),
        provider.log().text().lines().count(),
    );
    eprintln!("{attempts} attempts, {lines} lines in {:?}", started.elapsed());
    assert!((5..=12).contains(&attempts), "{attempts} attempts");
    assert!(lines <= 40, "{lines} lines:\n{}", provider.log().text());
    provider.terminate().unwrap();
    assert!(provider.exit_status(LIMIT).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_complains_all_the_time_does_not_fill_the_log() {
    let server = testkit::server_or_skip!();
    let (url, _) = unfit_server(After::Complain).await;
    let provider = replicating_on(&server, json!({ "NATS_URL": url })).await;
    provider.wait_for_log("complaint 4", LIMIT).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lines = provider.log().matching("complaint").len();
    eprintln!("{lines} lines of complaints");
    assert!(lines <= 10, "{lines} lines:\n{}", provider.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_made_says_why() {
    let server = testkit::server_or_skip!();
    let access = NatsServer::builder()
        .config("authorization { user: kv, password: right }")
        .start()
        .await
        .unwrap();
    let full = NatsServer::builder()
        .config("max_connections: 1")
        .start()
        .await
        .unwrap();
    // The server may still count the connection that has shown that it is up.
    let _taken = eventually(LIMIT, || async {
        Ok(wasmbus_rpc::async_nats::connect(full.url()).await?)
    })
    .await
    .unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("nats://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let port = access.port();
    for (url, reason) in [
        ("nats://127.0.0.1:1".to_owned(), "nobody listens"),
        ("nats://no-such-host.invalid:4222".into(), "cannot be resolved"),
        (access.url(), "refuses the credentials"),
        (format!("nats://kv:wrong@127.0.0.1:{port}"), "refuses the credentials"),
        (full.url(), "is full"),
        (format!("tls://127.0.0.1:{port}"), ""),
        (silent, "does not answer"),
    ] {
        let provider = replicating_on(&server, json!({ "NATS_URL": url })).await;
        let line = provider
            .wait_for_log("the replication connection does not work", LIMIT)
            .await
            .unwrap();
        assert!(line.contains(reason) && !line.contains("wrong"), "{url}: {line}");
    }
}

async fn replicating_on(rpc: &NatsServer, settings: Value) -> ProviderProcess {
    replicating_with(&Lattice::new(rpc.url()), settings).await
}

async fn replicating_with(lattice: &Lattice, settings: Value) -> ProviderProcess {
    let options = ProviderOptions::new(BINARY).config(settings);
    lattice.start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lattice_that_is_away_at_the_start_is_waited_for() {
    let mut server = testkit::server_or_skip!();
    server.kill().unwrap();
    let lattice = Lattice::new(server.url());
    let actor = Actor::new();
    let mut provider = lattice.start(ProviderOptions::new(BINARY).link(&actor)).await.unwrap();
    let line = provider
        .wait_for_log("the lattice connection does not work, going on to try", LIMIT)
        .await
        .unwrap();
    assert!(line.contains("nobody listens"), "{line}");
    server.restart().await.unwrap();
    provider.wait_ready(LIMIT).await.unwrap();
    provider
        .keyvalue(&actor)
        .await
        .unwrap()
        .set("key", "value")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_expire_while_a_lattice_is_waited_for_are_swept() {
    let (mut away, server) = (testkit::server_or_skip!(), testkit::server_or_skip!());
    away.kill().unwrap();
    let lattice = Lattice::new(away.url());
    let cache = Arc::new(Cache::new(time::fresh_node_id(), Limits::default()));
    // A first node takes 2.5 s to know that it is one.
    let key = Key::shared(b"session");
    cache
        .set(&key, bytes::Bytes::from_static(b"value"), 8, time::wall())
        .unwrap();
    let peer = lattice.node(cache, &server.url()).await.unwrap();
    let provider = replicating_with(&lattice, json!({ "NATS_URL": server.url() })).await;
    for keys in [1, 0] {
        let told = eventually(LIMIT, || {
            let told = peer
                .status()
                .replication
                .unwrap()
                .peers
                .iter()
                .map(|peer| peer.keys)
                .collect::<Vec<_>>();
            async move {
                anyhow::ensure!(told == [keys], "{told:?}");
                Ok(())
            }
        });
        told.await.unwrap();
    }
    assert!(!provider
        .log()
        .matching("the lattice connection does not work")
        .is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_a_lattice_ends_in_time_or_when_it_is_told_to() {
    let lattice = Lattice::new("nats://127.0.0.1:1");
    for (seconds, said) in [(0, "the only attempt failed"), (2, "no connection within 2 s")] {
        let options = ProviderOptions::new(BINARY).config(json!({ "LATTICE_CONNECT_SECS": seconds }));
        let started = Instant::now();
        let mut provider = lattice.start(options).await.unwrap();
        assert!(!provider.exit_status(LIMIT).await.unwrap().success());
        let waited = started.elapsed();
        assert!(
            waited >= Duration::from_secs(seconds) && waited < Duration::from_secs(seconds + 10),
            "{waited:?}"
        );
        let line = provider.wait_for_log(said, LIMIT).await.unwrap();
        for part in [
            "lattice_rpc_url",
            "LATTICE_CONNECT_SECS",
            "127.0.0.1:1",
            "nobody listens",
        ] {
            assert!(line.contains(part), "'{part}' is not in: {line}");
        }
    }
    let mut provider = lattice.start(ProviderOptions::new(BINARY)).await.unwrap();
    provider
        .wait_for_log("the lattice connection does not work", LIMIT)
        .await
        .unwrap();
    let started = Instant::now();
    provider.terminate().unwrap();
    assert!(provider.exit_status(LIMIT).await.unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

// --- TLS and credentials

/// An authority, and what it has signed, in files.
struct Authority {
    folder: TempDir,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::DigitalSignature,
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key for a name or address.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.file(&format!("{name}.pem")), self.file(&format!("{name}-key.pem")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    async fn server(&self, name: &str, verify: bool) -> NatsServer {
        let ((certificate, key), ca) = (self.sign(name), self.file("ca.pem"));
        let text = format!(
            "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: {verify}, timeout: 5 }}"
        );
        NatsServer::builder().config(text).start().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_an_own_authority_and_certificates_of_clients() {
    let rpc = testkit::server_or_skip!();
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let [plain, strict, misnamed] = [
        authority.server("127.0.0.1", false).await,
        authority.server("127.0.0.1", true).await,
        authority.server("other.example", false).await,
    ];
    let (certificate, key) = authority.sign("client.example");
    let ca = authority.file("ca.pem");
    let trusting =
        |server: &NatsServer| json!({ "NATS_URL": format!("tls://127.0.0.1:{}", server.port()), "NATS_TLS_CA": ca });
    let proving = |server: &NatsServer| {
        let mut settings = trusting(server);
        settings["NATS_TLS_CERT"] = json!(certificate);
        settings["NATS_TLS_KEY"] = json!(key);
        settings
    };
    for settings in [
        trusting(&plain),
        json!({ "NATS_URL": plain.url(), "NATS_TLS_CA": ca }),
        proving(&strict),
    ] {
        expect_peers(&rpc, settings).await;
    }
    // Without NATS_URL both connections go to the server of the lattice, of which the kit itself knows no TLS.
    let lattice = Lattice::new(format!("tls://127.0.0.1:{}", plain.port()));
    let options = ProviderOptions::new(BINARY).config(json!({ "NATS_TLS_CA": ca }));
    let secured = lattice.start(options).await.unwrap();
    for line in ["lattice connection is up", "replication connection is up"] {
        secured.wait_for_log(line, LIMIT).await.unwrap();
    }
    let untrusting = json!({ "NATS_URL": plain.url() });
    let mut mistrusting = trusting(&plain);
    mistrusting["NATS_TLS_CA"] = json!(stranger.file("ca.pem"));
    // Whoever names an authority is not spoken to without TLS.
    let insisting = json!({ "NATS_URL": rpc.url(), "NATS_TLS_CA": ca });
    for (settings, reason) in [
        (untrusting, "NATS_TLS_CA"),
        (mistrusting, "NATS_TLS_CA"),
        (trusting(&misnamed), "for another name"),
        (trusting(&strict), "NATS_TLS_CERT"),
        (insisting, "127.0.0.1"),
    ] {
        let mut provider = replicating_on(&rpc, settings.clone()).await;
        let line = provider
            .wait_for_log("the replication connection does not work", LIMIT)
            .await
            .unwrap();
        assert!(line.contains(reason), "{settings}: {line}");
        let status = provider.wait_healthy(LIMIT).await.unwrap();
        assert_ne!(status.sync, SyncState::Synced, "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_and_a_token_are_used_and_not_shown() {
    let rpc = testkit::server_or_skip!();
    let operator = NatsOperator::new();
    let by_user = NatsServer::builder()
        .config(operator.server_config().unwrap())
        .start()
        .await
        .unwrap();
    let user = operator.user().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("user.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.jwt, user.seed
    );
    std::fs::write(&file, text).unwrap();
    let by_token = NatsServer::builder()
        .config("authorization { token: not_to_be_shown }")
        .start()
        .await
        .unwrap();
    for (settings, secrets) in [
        (
            json!({ "NATS_URL": by_user.url(), "NATS_CREDS": file }),
            [user.jwt.clone(), user.seed.clone()],
        ),
        (
            json!({ "NATS_URL": by_token.url(), "NATS_TOKEN": "not_to_be_shown" }),
            ["not_to_be_shown".to_owned(), "not_to_be_shown".to_owned()],
        ),
    ] {
        for provider in expect_peers(&rpc, settings).await {
            let log = provider.log().text();
            assert!(
                !secrets.iter().any(|secret| log.contains(secret.as_str())),
                "a secret in the log:\n{log}"
            );
        }
    }
}

/// Starts two providers with these settings and waits until each has the other.
async fn expect_peers(rpc: &NatsServer, settings: Value) -> [ProviderProcess; 2] {
    let lattice = Lattice::new(rpc.url());
    let options = || ProviderOptions::new(BINARY).config(settings.clone()).log_level("debug");
    let mut providers = [
        lattice.start(options()).await.unwrap(),
        lattice.start(options()).await.unwrap(),
    ];
    for provider in &mut providers {
        let seen = provider
            .wait_status(LIMIT, |status| status.peers == 1 && status.sync == SyncState::Synced)
            .await;
        seen.unwrap_or_else(|error| panic!("{settings}: {error:#}"));
    }
    providers
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_connection_that_cannot_work_are_refused_by_name() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.sign("client.example");
    let (_, other_key) = authority.sign("other.example");
    let ca = authority.file("ca.pem");
    let root = "lattice.l.kvcache.default";
    let long = "s".repeat(2_000);
    for (settings, parts) in [
        (
            json!({ "NATS_URL": "ws://127.0.0.1:80" }),
            &["NATS_URL", "WebSocket is not built in"][..],
        ),
        (
            json!({ "NATS_URL": "nats://127.0.0.1:4222, wss://b" }),
            &["NATS_URL", "WebSocket"],
        ),
        (json!({ "NATS_URL": "nats://127.0.0.1:0" }), &["NATS_URL", "port"]),
        (json!({ "NATS_URL": "nats://127.0.0.1:99999" }), &["NATS_URL", "port"]),
        (json!({ "NATS_URL": "nats://a b:4222" }), &["NATS_URL", "white space"]),
        (json!({ "NATS_URL": "mqtt://127.0.0.1" }), &["NATS_URL", "nats://"]),
        (json!({ "NATS_URL": "nats://127.0.0.1,," }), &["NATS_URL", "empty"]),
        (
            json!({ "NATS_TLS_CA": "/nowhere/ca.pem" }),
            &["NATS_TLS_CA", "/nowhere/ca.pem", "No such file"],
        ),
        (json!({ "NATS_TLS_CA": key }), &["NATS_TLS_CA", "no certificate"]),
        (json!({ "NATS_TLS_CERT": certificate }), &["NATS_TLS_KEY"]),
        (json!({ "NATS_TLS_KEY": key }), &["NATS_TLS_CERT"]),
        (
            json!({ "NATS_TLS_CERT": certificate, "NATS_TLS_KEY": other_key }),
            &["NATS_TLS_CERT", "together"],
        ),
        (
            json!({ "NATS_TLS_CERT": certificate, "NATS_TLS_KEY": "/nowhere" }),
            &["NATS_TLS_KEY", "No such file"],
        ),
        (
            json!({ "NATS_CREDS": "/nowhere/user.creds" }),
            &["NATS_CREDS", "/nowhere/user.creds", "No such file"],
        ),
        (json!({ "NATS_CREDS": ca }), &["NATS_CREDS", "no user JWT"]),
        (json!({ "NATS_CREDS": "/dev/stdin" }), &["NATS_CREDS", "no file"]),
        (
            json!({ "NATS_TOKEN": "t", "NATS_URL": "nats://me:pw@h" }),
            &["NATS_TOKEN", "NATS_URL", "one of them"],
        ),
        (
            json!({ "NATS_TOKEN": "t", "CLIENT_JWT": "x", "CLIENT_SEED": SEED }),
            &["NATS_TOKEN", "CLIENT_JWT"],
        ),
        (
            json!({ "NATS_TOKEN": "t", "NATS_CREDS": "c", "NATS_URL": "ws://h", "STATE_REPL_SUBJECT": "a b", "ACK": -1 }),
            &[
                "setting NATS_URL in",
                "NATS_CREDS, NATS_TOKEN",
                "setting STATE_REPL_SUBJECT in",
                "setting ACK in",
            ],
        ),
        (
            json!({ "STATE_REPL_SUBJECT": "a b" }),
            &["STATE_REPL_SUBJECT", "white space"],
        ),
        (
            json!({ "STATE_REPL_SUBJECT": long }),
            &["STATE_REPL_SUBJECT", "longer than"],
        ),
        (
            json!({ "REPLAY_REQ_SUBJECT": long }),
            &["REPLAY_REQ_SUBJECT", "longer than"],
        ),
        (
            json!({ "REPLAY_REQ_SUBJECT": format!("{root}.commands") }),
            &["REPLAY_REQ_SUBJECT", "commands"],
        ),
        (
            json!({ "REPLAY_REQ_SUBJECT": format!("{root}.beat") }),
            &["REPLAY_REQ_SUBJECT", "beats"],
        ),
        (
            json!({ "REPLAY_REQ_SUBJECT": format!("{root}.node.x") }),
            &["REPLAY_REQ_SUBJECT", "nodes"],
        ),
        (
            json!({ "STATE_REPL_SUBJECT": "s", "REPLAY_REQ_SUBJECT": "s.beat" }),
            &["REPLAY_REQ_SUBJECT", "beats"],
        ),
    ] {
        let lattice = Lattice::new("nats://127.0.0.1:1").with_prefix("l");
        let data = lattice
            .host_data(&ProviderOptions::new(BINARY).config(settings.clone()))
            .unwrap();
        let input = encode_host_data(&data).unwrap();
        let (status, output) = run_to_end(Path::new(BINARY), input.as_bytes(), LIMIT).await.unwrap();
        assert!(!status.success(), "{settings}: {output}");
        for part in parts {
            assert!(output.contains(part), "{settings}: '{part}' is not in\n{output}");
        }
    }
}

// --- the process

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_stop_the_process() {
    let server = testkit::server_or_skip!();
    let actor = Actor::new();
    let options = ProviderOptions::new(BINARY).link(&actor).unread();
    let mut provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let kv = provider.keyvalue(&actor).await.unwrap();
    let stranger = provider.keyvalue(&Actor::new()).await.unwrap();
    let started = Instant::now();
    for call in 0..400 {
        let refused = tokio::time::timeout(LIMIT, stranger.get("key"))
            .await
            .expect("an answer");
        assert!(
            refused.unwrap_err().to_string().contains("unlinked actor"),
            "call {call}"
        );
        tokio::time::timeout(LIMIT, kv.set("key", "value"))
            .await
            .expect("an answer")
            .unwrap();
        provider
            .put_link(&Actor::new(), &[("no setting", "x"), ("ACK", "nonsense")])
            .await
            .unwrap();
        provider.health().await.unwrap();
    }
    eprintln!("800 calls with a log that nobody reads in {:?}", started.elapsed());
    provider.read_log();
    provider.wait_for_log("link refused", LIMIT).await.unwrap();
    let status = provider.shutdown().await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_a_log_that_nobody_reads() {
    let server = testkit::server_or_skip!();
    let mut provider = Lattice::new(server.url())
        .start_ready(ProviderOptions::new(BINARY).unread(), LIMIT)
        .await
        .unwrap();
    for _ in 0..100 {
        provider
            .put_link(&Actor::new(), &[(&"n".repeat(3_000), "x")])
            .await
            .unwrap();
    }
    let started = Instant::now();
    let status = provider.shutdown().await.unwrap();
    assert!(
        status.success() && started.elapsed() < Duration::from_secs(9),
        "{status} {:?}",
        started.elapsed()
    );
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_leaves_no_core_dump() {
    let server = testkit::server_or_skip!();
    let options = ProviderOptions::new(BINARY);
    let provider = Lattice::new(server.url()).start_ready(options, LIMIT).await.unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", provider.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let [soft, hard] = [4, 5].map(|column| line.split_whitespace().nth(column).unwrap().to_owned());
    assert_eq!((soft.as_str(), hard.as_str()), ("0", "0"), "{line}");
}
