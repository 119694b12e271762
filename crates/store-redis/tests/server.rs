//! What only Redis can do to a store: logins, keys of others, limits, its cache of scripts, TLS.

use std::sync::Arc;
use std::time::Duration;

use kvcache_node::store::{Batch, Opener, Record, Section, Store, StoreError, StoreUrl, Written};
use kvcache_store_redis::RedisOpener;
use testkit::{batch, cache_name, eventually, load, skip_test, RedisKind, RedisServer};

const HEAD_KEY: &str = "nats-kvcache:1:lattice:link:1024";

async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let url = StoreUrl::parse(url).unwrap();
    RedisOpener.check(&url).unwrap();
    RedisOpener.open(&url, &cache_name("lattice", "link")).await
}

/// Why it cannot be opened. No text shows a password.
async fn refused(url: &str) -> StoreError {
    let error = open(url).await.map(drop).unwrap_err();
    assert!(!error.to_string().contains("pass-phrase"), "{error}");
    assert!(error.to_string().starts_with("Redis at 127.0.0.1:"), "{error}");
    error
}

fn unusable(error: &StoreError, part: &str) {
    assert!(
        matches!(error, StoreError::Unusable(text) if text.contains(part)),
        "{error:?}: expected {part:?}"
    );
}

fn away(error: &StoreError, part: &str) {
    assert!(
        matches!(error, StoreError::Away(text) if text.contains(part)),
        "{error:?}: expected {part:?}"
    );
}

fn section(number: u16) -> Section {
    Section::numbered(number).unwrap()
}

/// A server, where one is installed.
macro_rules! server {
    ($($option:expr),*) => {
        match RedisKind::Redis.find() {
            Ok(_) => RedisServer::start_persistent(RedisKind::Redis, &[$($option),*]).await.unwrap(),
            Err(error) => return skip_test(&error.to_string()),
        }
    };
}

#[tokio::test]
async fn logins_that_are_wrong_are_named() {
    let server = server!("--requirepass", "pass-phrase");
    let address = server.address();
    for (login, part) in [
        ("", "has to name a password"),
        (":pass-phrase2@", "WRONGPASS"),
        ("nobody:pass-phrase@", "are wrong"),
    ] {
        unusable(&refused(&format!("redis://{login}{address}")).await, part);
    }
    open(&format!("redis://:pass-phrase@{address}/3")).await.unwrap();
    let beyond = refused(&format!("redis://:pass-phrase@{address}/99")).await;
    unusable(&beyond, "no database of that number");
    let open_to_all = server!();
    let needless = refused(&format!("redis://:pass-phrase@{}", open_to_all.address())).await;
    unusable(&needless, "asks for no password");
}

#[tokio::test]
async fn a_user_needs_what_the_documentation_says_and_no_more() {
    let server = server!();
    let rules = "on >pass-phrase ~nats-kvcache:1:* +eval +evalsha +exists +hmget +hset +hdel +hscan +select +info";
    for (name, more) in [
        ("exact", "-@admin"),
        ("blind", "-info"),
        ("mute", "-eval"),
        ("reader", "-hset"),
        ("elsewhere", "resetkeys"),
    ] {
        let command = ["ACL", "SETUSER", name].into_iter().chain(rules.split(' '));
        let words: Vec<&str> = command.chain([more]).collect();
        server.command(&words).await.unwrap();
    }
    let url = |name: &str| format!("redis://{name}:pass-phrase@{}/1", server.address());
    let store = open(&url("exact")).await.unwrap();
    let records = batch(Section::HEAD, &[(b"id", b"value"), (b"other", b"value")]);
    store.write(std::slice::from_ref(&records)).await.unwrap();
    store.write(std::slice::from_ref(&records)).await.unwrap();
    let gone = batch(Section::HEAD, &[(b"id", b"value")]);
    store.remove(&gone).await.unwrap();
    assert_eq!(load(&*store, &[Section::HEAD]).await.unwrap()[&Section::HEAD].len(), 1);
    open(&url("blind")).await.unwrap();
    unusable(&refused(&url("mute")).await, "+eval");
    unusable(&refused(&url("elsewhere")).await, "~nats-kvcache:1:*");
    let reader = open(&url("reader")).await.unwrap();
    let more = [batch(Section::HEAD, &[(b"more", b"value")])];
    unusable(&reader.write(&more).await.unwrap_err(), "+hset");
}

#[tokio::test]
async fn what_others_keep_under_our_keys_is_left_alone() {
    let server = server!();
    server.command(&["SET", HEAD_KEY, "theirs"]).await.unwrap();
    unusable(&refused(&server.url()).await, "held by something else");
    server.command(&["DEL", HEAD_KEY]).await.unwrap();
    let store = open(&server.url()).await.unwrap();
    server.command(&["SET", HEAD_KEY, "theirs"]).await.unwrap();
    let records = batch(Section::HEAD, &[(b"id", b"value")]);
    let written = store.write(std::slice::from_ref(&records)).await;
    unusable(&written.unwrap_err(), "held by something else");
    unusable(&store.remove(&records).await.unwrap_err(), "held by something else");
    assert_eq!(server.command(&["GET", HEAD_KEY]).await.unwrap(), "theirs");
}

#[tokio::test]
async fn a_server_that_drops_keys_is_refused_and_a_full_one_is_away() {
    let server = server!("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru");
    let set = |name: &'static str, value: &'static str| {
        let server = &server;
        async move { server.command(&["CONFIG", "SET", name, value]).await.unwrap() }
    };
    unusable(&refused(&server.url()).await, "maxmemory-policy noeviction");
    set("maxmemory-policy", "noeviction").await;
    let store = open(&server.url()).await.unwrap();
    set("maxmemory", "1").await;
    let records = [batch(Section::HEAD, &[(b"id", b"value"), (b"other", b"value")])];
    away(&store.write(&records).await.unwrap_err(), "OOM");
    set("maxmemory", "100mb").await;
    store.write(&records).await.unwrap();
}

#[tokio::test]
async fn a_server_that_may_not_be_written_to_is_away() {
    let server = server!();
    let store = open(&server.url()).await.unwrap();
    let records = [batch(Section::HEAD, &[(b"id", b"value")])];
    store.write(&records).await.unwrap();
    // A replica of nobody.
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    let more = [batch(Section::HEAD, &[(b"more", b"value")])];
    away(&store.write(&more).await.unwrap_err(), "READONLY");
    server.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    store.write(&more).await.unwrap();
    let port = server.port();
    drop(server);
    away(&store.write(&records).await.unwrap_err(), "Redis at");
    away(&refused(&format!("redis://127.0.0.1:{port}")).await, "refused");
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_given_again() {
    let mut server = server!();
    let store = open(&server.url()).await.unwrap();
    let write = |n: u32| {
        let batches: Vec<Batch> = (0..40)
            .map(|number| {
                let mut batch = Batch::new(section(number));
                for id in 0..30u32 {
                    let (id, value) = (id.to_be_bytes(), n.to_be_bytes());
                    batch.push(Record { id: &id, value: &value });
                }
                batch
            })
            .collect();
        let store = store.clone();
        async move { store.write(&batches).await }
    };
    assert_eq!(write(1).await.unwrap(), Written::default());
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert_eq!(write(3).await.unwrap(), Written::default());
    server.restart().await.unwrap();
    eventually(Duration::from_secs(20), || async { Ok(write(4).await?) })
        .await
        .unwrap();
    assert_eq!(write(2).await.unwrap().conflicts, 40 * 30);
    server.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    let at = section(5);
    for (value, left) in [(3u32, 30), (4, 29)] {
        let gone = batch(at, &[(&7u32.to_be_bytes(), &value.to_be_bytes())]);
        store.remove(&gone).await.unwrap();
        assert_eq!(load(&*store, &[at]).await.unwrap()[&at].len(), left);
    }
}

#[tokio::test]
async fn values_are_compared_byte_by_byte_wherever_they_differ() {
    let server = server!();
    let store = open(&server.url()).await.unwrap();
    let write = |id: usize, value: &[u8]| {
        let batches = [batch(section(1), &[(&id.to_be_bytes(), value)])];
        let store = store.clone();
        async move { store.write(&batches).await.unwrap().conflicts }
    };
    for alike in [0, 1, 15, 16, 17, 63, 64, 80, 81, 1_000, 70_000, 400_000] {
        // Alike but for one byte, which is followed by others that say the opposite.
        let value = |different: u8| {
            let mut value = vec![0x41; alike];
            value.extend([different, 0xff - different, 0x41]);
            value
        };
        let different = [0x00, 0x0a, 0x40, 0x61, 0x7f, 0x80, 0xff];
        for pair in different.windows(2) {
            let (smaller, larger) = (value(pair[0]), value(pair[1]));
            assert_eq!(write(alike, &smaller).await, 0, "{alike}: {pair:?}");
            assert_eq!(write(alike, &larger).await, 0, "{alike}: {pair:?}");
            assert_eq!(write(alike, &smaller).await, 1, "{alike}: {pair:?}");
            assert_eq!(write(alike, &larger[..larger.len() - 1]).await, 1, "{alike}: a prefix");
        }
    }
}

#[tokio::test]
async fn a_section_too_large_for_one_answer_is_read_in_many() {
    let server = server!();
    let store = open(&server.url()).await.unwrap();
    let at = section(9);
    let mut written = Batch::new(at);
    for n in 0..20_000u32 {
        let value = vec![n as u8; if n % 1_000 == 0 { 100_000 } else { 20 }];
        written.push(Record {
            id: &n.to_be_bytes(),
            value: &value,
        });
    }
    store.write(std::slice::from_ref(&written)).await.unwrap();
    let mut found = load(&*store, &[at, Section::HEAD]).await.unwrap();
    let found = found.remove(&at).unwrap();
    assert_eq!(found.len(), written.len());
    assert!(written.iter().all(|record| found[record.id] == record.value));
    // None of the questions was answered with all there is.
    let scans = server.info("commandstats", "cmdstat_hscan").await.unwrap();
    let calls: usize = scans.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    assert!(calls > 20, "{scans}");
}

#[tokio::test]
async fn over_tls_the_server_is_known_by_its_certificate() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("cert.pem", &signed.cert.pem());
    let key = file("key.pem", &signed.signing_key.serialize_pem());
    let port = free_port().to_string();
    let server = server!(
        "--requirepass",
        "pass-phrase",
        "--tls-port",
        &port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "optional"
    );
    let url = |parameters: &str| format!("rediss://:pass-phrase@127.0.0.1:{port}/?{parameters}");
    let store = open(&url(&format!("ca={certificate}"))).await.unwrap();
    let records = [batch(Section::HEAD, &[(b"id", b"value")])];
    store.write(&records).await.unwrap();
    assert_eq!(load(&*store, &[Section::HEAD]).await.unwrap()[&Section::HEAD].len(), 1);
    // As a client that has a certificate too.
    let with_own = url(&format!("ca={certificate}&cert={certificate}&key={key}"));
    open(&with_own).await.unwrap();
    away(&refused(&url("")).await, "certificate");
    let not_over_tls = format!("rediss://:pass-phrase@{}/?timeout_ms=1000", server.address());
    away(&refused(&not_over_tls).await, "");
    let only_over_tls = format!("redis://:pass-phrase@127.0.0.1:{port}/?timeout_ms=1000");
    away(&refused(&only_over_tls).await, "");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
