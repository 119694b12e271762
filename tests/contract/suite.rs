//! Runs cases against the provider that `wasmcloud-test-util` starts.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use testkit::{KeyValue, KillOnDrop, NatsServer, RpcResult};
use wasmbus_rpc::common::{Context, Message, SendOpts, Transport};
use wasmcloud_test_util::provider_test::{test_provider, Provider};

/// A call over the provider of the test kit, but more patient than its two seconds: the machine may be busy.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// What a case works with.
pub type Kv = KeyValue<PatientProvider>;

type CaseFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A named function of the suite.
pub struct Case {
    pub name: &'static str,
    pub run: fn(Kv) -> CaseFuture,
}

/// `cases![module::function, …]`: the functions with their names.
macro_rules! cases {
    ($($module:ident :: $function:ident),* $(,)?) => {
        vec![$($crate::suite::Case {
            name: concat!(stringify!($module), "::", stringify!($function)),
            run: |kv| Box::pin($module::$function(kv)),
        }),*]
    };
}
pub(crate) use cases;

/// The test kit's provider as a transport.
#[derive(Clone)]
pub struct PatientProvider(Provider);

impl PatientProvider {
    /// Any method with any bytes as its argument.
    pub async fn call_raw(&self, method: &str, argument: &[u8]) -> RpcResult<Vec<u8>> {
        let message = Message {
            method,
            arg: argument.into(),
        };
        let lattice = &self.0.host_data.lattice_rpc_prefix;
        self.0
            .rpc_client
            .send_timeout(self.0.origin(), self.0.target(), lattice, message, CALL_LIMIT)
            .await
    }

    pub fn provider(&self) -> &Provider {
        &self.0
    }
}

#[async_trait::async_trait]
impl Transport for PatientProvider {
    async fn send(&self, _context: &Context, message: Message<'_>, _options: Option<SendOpts>) -> RpcResult<Vec<u8>> {
        self.call_raw(message.method, &message.arg).await
    }

    fn set_timeout(&self, _limit: Duration) {}
}

/// Starts server and provider, runs all cases, stops both.
pub async fn run(test_name: &str, cases: Vec<Case>) {
    // The SDK moves arguments above 900 KiB through a JetStream object store.
    let Some(server) = NatsServer::builder().jetstream().start_or_skip(test_name).await else {
        return;
    };
    let home = tempfile::tempdir().expect("a folder for the configuration");
    let config = home.path().join("provider_test_config.toml");
    std::fs::write(&config, configuration(&server)).expect("writing the configuration");
    std::env::set_var("PROVIDER_TEST_CONFIG", &config);

    let provider = test_provider().await;
    let guard = KillOnDrop::new(provider.proc.id());
    let kv = KeyValue::via(PatientProvider(provider.clone()));
    testkit::eventually(Duration::from_secs(30), || async { Ok(kv.contains("ready?").await?) })
        .await
        .expect("the provider answers");

    let failures = run_cases(&kv, cases).await;
    provider
        .shutdown()
        .await
        .expect("the provider accepts the shutdown request");
    drop(guard);
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

async fn run_cases(kv: &Kv, cases: Vec<Case>) -> Vec<String> {
    let running: Vec<_> = cases
        .into_iter()
        .map(|case| (case.name, tokio::spawn((case.run)(kv.clone()))))
        .collect();
    let mut failures = Vec::new();
    for (name, task) in running {
        let failure = match task.await {
            Ok(Ok(())) => {
                println!("case {name} ... ok");
                continue;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic_text(panic),
        };
        println!("case {name} ... FAILED");
        failures.push(format!("  {name}: {failure}"));
    }
    failures
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else {
        return "cancelled".to_owned();
    };
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// The configuration of the repository with the binary just built and the server just started.
fn configuration(server: &NatsServer) -> String {
    let replaced = ["bin_path", "nats_url", "lattice_rpc_prefix"];
    let shipped = include_str!("../../provider_test_config.toml");
    let kept = shipped
        .lines()
        .filter(|line| !replaced.iter().any(|name| line.starts_with(name)));
    let binary = env!("CARGO_BIN_EXE_nats-kvcache");
    let mut lines = vec![
        format!("bin_path = {binary:?}"),
        format!("nats_url = {:?}", server.url()),
        format!("lattice_rpc_prefix = \"contract{}\"", server.port()),
    ];
    lines.extend(kept.map(str::to_owned));
    lines.join("\n")
}

/// Asserts that a call was refused and that the error contains `part`; returns the text.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: RpcResult<T>, part: &str, what: &str) -> String {
    let text = result
        .map(|value| panic!("{what}: expected an error with {part:?}, got {value:?}"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains(part),
        "{what}: expected an error with {part:?}, got {text:?}"
    );
    text
}

/// Asserts the WRONGTYPE error of an operation on a key of another type.
#[track_caller]
pub fn assert_wrong_type<T: std::fmt::Debug>(result: RpcResult<T>, what: &str) {
    assert_refused(result, "WRONGTYPE", what);
}

/// The types a key can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    List,
    Set,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Text, Self::List, Self::Set];

    /// Makes `key` a key of this type with one value, "7".
    pub async fn create(self, kv: &Kv, key: &str) -> Result<()> {
        match self {
            Self::Text => kv.set(key, "7").await?,
            Self::List => assert_eq!(kv.list_add(key, "7").await?, 1),
            Self::Set => assert_eq!(kv.set_add(key, "7").await?, 1),
        }
        Ok(())
    }

    /// Asserts that `key` is still as [`Self::create`] left it.
    pub async fn assert_untouched(self, kv: &Kv, key: &str, what: &str) -> Result<()> {
        match self {
            Self::Text => assert_eq!(kv.get(key).await?.as_deref(), Some("7"), "{what}"),
            Self::List => assert_eq!(kv.list(key).await?, ["7"], "{what}"),
            Self::Set => assert_eq!(kv.set_query(key).await?, ["7"], "{what}"),
        }
        Ok(())
    }
}
