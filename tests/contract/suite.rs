//! Runs cases against the provider that `wasmcloud-test-util` starts.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use testkit::{KeyValue, KillOnDrop, NatsServer, RpcResult};
use tokio::runtime::Runtime;
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

/// Runs the cases that the arguments of the process name, all of them if none does.
pub fn run(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of them wait most of the time.
    arguments.test_threads.get_or_insert(cases.len());
    let suite = Arc::new(Suite::new());
    let trials = cases.into_iter().map(|case| {
        let suite = suite.clone();
        Trial::test(case.name, move || suite.run(&case))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    Arc::into_inner(suite).expect("all cases have ended").stop();
    conclusion.exit_code()
}

/// The server and the provider of all cases.
struct Suite {
    runtime: Runtime,
    /// Started by the first case that runs. Nothing where no server is installed.
    started: OnceLock<Result<Option<Started>, String>>,
}

struct Started {
    kv: Kv,
    provider: Provider,
    guard: KillOnDrop,
    _server: NatsServer,
    _home: tempfile::TempDir,
}

impl Suite {
    fn new() -> Self {
        Self {
            runtime: Runtime::new().expect("a runtime"),
            started: OnceLock::new(),
        }
    }

    fn run(&self, case: &Case) -> Result<(), Failed> {
        match self.started() {
            Ok(Some(started)) => {
                let ended = self.runtime.block_on((case.run)(started.kv.clone()));
                ended.map_err(|error| format!("{error:#}").into())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn started(&self) -> &Result<Option<Started>, String> {
        self.started.get_or_init(|| {
            thread::scope(|scope| {
                // A skipped test is told by the name of its thread.
                let named = thread::Builder::new().name("contract".into());
                let starting = named.spawn_scoped(scope, || self.runtime.block_on(Started::new()));
                let started = starting.expect("a thread").join();
                started.map_err(|_| "the provider does not start, see above".into())
            })
        })
    }

    fn stop(self) {
        if let Some(Ok(Some(started))) = self.started.into_inner() {
            let stopped = self.runtime.block_on(started.provider.shutdown());
            stopped.expect("the provider accepts the shutdown request");
            drop(started.guard);
        }
    }
}

impl Started {
    /// Starts server and provider.
    async fn new() -> Option<Self> {
        // The SDK moves arguments above 900 KiB through a JetStream object store.
        let server = NatsServer::builder().jetstream().start_or_skip().await?;
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
        Some(Self {
            kv,
            provider,
            guard,
            _server: server,
            _home: home,
        })
    }
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
