//! The process: host data in, provider out.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use kvcache_node::settings::{Lattice, SettingsError};
use tokio::signal::unix::{signal, SignalKind};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::EnvFilter;
use wasmbus_rpc::core::HostData;

use super::handler::KvCacheProvider;
use super::host_data::{lattice_of, read_host_data};
use super::host_process::HostProcess;
use super::rpc::Rpc;
use super::{last_words, log};

/// Runs the provider as a host starts it, until the host says shutdown, the process is told to end or the host is gone.
/// Says why it ended in the log.
pub fn run() -> ExitCode {
    let host = HostProcess::at_start();
    log::set_panic_hook();
    let ended = keep_memory_private().and_then(|()| run_provider(host));
    match &ended {
        Ok(()) => {}
        Err(error) => match error.downcast_ref::<SettingsError>() {
            Some(refused) => refused.each().for_each(|error| last_words::say(&error.to_string())),
            None => last_words::say(&format!("{error:#}")),
        },
    }
    log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run_provider(host: HostProcess) -> anyhow::Result<()> {
    let host_data = read_host_data(std::io::stdin().lock())?;
    init_tracing(&host_data);
    let lattice = lattice_of(&host_data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(kvcache_allocator::give_back)
        .on_thread_unpark(kvcache_allocator::wakes)
        .build()?;
    // On a worker, where what it wakes runs next: on this thread each call would wait for two more threads to wake up.
    let serving = runtime.spawn(serve(host, host_data, lattice));
    // What a panic has to say was logged where it happened.
    let panicked = |_| Err(anyhow::anyhow!("stopped by a panic"));
    let result = runtime.block_on(serving).unwrap_or_else(panicked);
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// The memory holds seeds: it goes to no core dump, and to no debugger of another process of the same user.
fn keep_memory_private() -> anyhow::Result<()> {
    use rustix::process::{setrlimit, Resource, Rlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("cannot switch core dumps off")?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("cannot switch core dumps off")?;
    Ok(())
}

async fn serve(host: HostProcess, host_data: HostData, lattice: Lattice) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let provider = KvCacheProvider::start(&host_data, &lattice).await?;
    let ends_with_host = provider.config().exit_with_host;
    // Replication fills the cache while the lattice is still waited for.
    tokio::select! {
        ended = serve_lattice(provider.clone(), host_data, lattice) => ended,
        _ = terminate.recv() => stop(&provider, "SIGTERM").await,
        _ = tokio::signal::ctrl_c() => stop(&provider, "SIGINT").await,
        () = host.gone(), if ends_with_host => {
            stop(&provider, "the host that started this process is gone (EXIT_WITH_HOST)").await
        }
    }
}

/// Waits for the lattice, then answers its calls. A host and its server may start at the same time.
async fn serve_lattice(provider: KvCacheProvider, host_data: HostData, lattice: Lattice) -> anyhow::Result<()> {
    let shown = lattice.server.to_string();
    let config = provider.config();
    let patience = config.lattice_patience;
    // What is set for another server holds here as far as this one asks for it.
    let insist_on_tls = config.nats_url.is_none() && !config.tls.is_empty();
    let client = kvcache_node::service::connect(
        &lattice.server,
        &lattice.credentials,
        &config.tls,
        insist_on_tls,
        patience,
    )
    .await;
    let client = client.with_context(|| {
        format!("connection to the lattice at '{shown}' (lattice_rpc_url of the host data, LATTICE_CONNECT_SECS)")
    })?;
    let rpc = Rpc::new(provider, client, &host_data);
    // Not needed any more, and 10,000 links are megabytes.
    drop((host_data, lattice));
    rpc.serve()
        .await
        .with_context(|| format!("on the lattice at '{shown}'"))
}

async fn stop(provider: &KvCacheProvider, why: &str) -> anyhow::Result<()> {
    tracing::info!("{why}: sending what is queued, then ending");
    provider.shutdown().await;
    Ok(())
}

/// Logs as the SDK would set them up, but from the start, so that what happens before the SDK runs is seen as well, and
/// by way of [`log`].
fn init_tracing(host_data: &HostData) {
    let wanted = host_data
        .log_level
        .clone()
        .or_else(|| std::env::var("RUST_LOG").ok())
        .unwrap_or_default();
    let parsed = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(directives(&wanted));
    let (filter, misunderstood) = match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(directives("")), Some(error)),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log::Lines);
    if host_data.structured_logging {
        last_words::are_structured();
    }
    let result = if host_data.structured_logging {
        builder.json().finish().with(log::Bounded).try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(colours).finish().with(log::Bounded).try_init()
    };
    if let Err(error) = result {
        last_words::say(&format!("cannot set up logging: {error}"));
    }
    if let Some(error) = misunderstood {
        tracing::warn!("log level '{wanted}' is not understood ({error}); logging at level info");
    }
}

/// The directives for a wanted log level. What the client library says at these levels, this provider says once and in
/// its own words.
fn directives(wanted: &str) -> String {
    match wanted.to_ascii_lowercase().as_str() {
        "" => "info,async_nats=off".into(),
        level @ ("info" | "warn" | "error") => format!("{level},async_nats=off"),
        _ => wanted.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::directives;

    #[test]
    fn plain_levels_quieten_the_client_library_and_others_are_taken_as_they_are() {
        for (wanted, expected) in [
            ("", "info,async_nats=off"),
            ("INFO", "info,async_nats=off"),
            ("warn", "warn,async_nats=off"),
            ("debug", "debug"),
            ("info,async_nats=trace", "info,async_nats=trace"),
        ] {
            assert_eq!(directives(wanted), expected, "{wanted:?}");
        }
    }
}
