//! The process: host data in, provider out.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use kvcache_log as log;
use kvcache_node::settings::Lattice;
use tokio::signal::unix::{signal, SignalKind};
use wasmbus_rpc::core::HostData;

use super::handler::KvCacheProvider;
use super::host_data::{lattice_of, read_host_data};
use super::host_process::HostProcess;
use super::rpc::Rpc;

/// Runs the provider as a host starts it, until the host says shutdown, the process is told to end or the host is gone.
/// Says why it ended in the log.
pub fn run() -> ExitCode {
    let host = HostProcess::at_start();
    log::set_panic_hook();
    let ended = keep_memory_private().and_then(|()| run_provider(host));
    if let Err(error) = &ended {
        log::say(&format!("{error:#}"));
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
    let server = lattice.server.context("the host data name no server of the lattice")?;
    let shown = server.address.to_string();
    let config = provider.config();
    let patience = config.lattice_patience;
    // What is set for another server holds here as far as this one asks for it.
    let insist_on_tls = config.nats_url.is_none() && !config.tls.is_empty();
    let client = kvcache_node::service::connect(
        &server.address,
        &server.credentials,
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
    drop(host_data);
    rpc.serve()
        .await
        .with_context(|| format!("on the lattice at '{shown}'"))
}

async fn stop(provider: &KvCacheProvider, why: &str) -> anyhow::Result<()> {
    tracing::info!("{why}: sending what is queued, then ending");
    provider.shutdown().await;
    Ok(())
}

/// Logs as the SDK would set them up, but from the start, so that what happens before the SDK runs is seen as well.
fn init_tracing(host_data: &HostData) {
    let wanted = host_data.log_level.clone().or_else(|| std::env::var("RUST_LOG").ok());
    log::init(&wanted.unwrap_or_default(), host_data.structured_logging);
}
