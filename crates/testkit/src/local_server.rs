//! What servers have in common that are told their ports and hold their data in one folder.

use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::OwnedProcess;
use crate::wait::eventually;

/// Between the choice of a free port and its use another process may take it.
const START_ATTEMPTS: usize = 5;
/// How long another process may hold a port of a server that starts again.
const PORTS_LIMIT: Duration = Duration::from_secs(20);
/// What servers write to their logs when a port was taken.
const PORT_TAKEN: [&str; 2] = ["address already in use", "in use by another process"];

/// A program that serves on `N` ports of 127.0.0.1.
pub trait Program<const N: usize> {
    /// How long it may take until it answers.
    const START_LIMIT: Duration;

    fn name(&self) -> &'static str;

    /// How it is started, with what it needs for it written into the folder. The same each time.
    fn command(&self, place: &Place<N>) -> Result<Command>;

    /// Whether it serves: this process and not another that has taken its port first.
    fn ready(&self, place: &Place<N>, pid: u32) -> impl Future<Output = Result<()>> + Send;
}

/// Where a server lives.
#[derive(Debug)]
pub struct Place<const N: usize> {
    home: TempDir,
    pub(crate) ports: [u16; N],
}

impl<const N: usize> Place<N> {
    fn new() -> Result<Self> {
        let home = tempfile::tempdir().context("a temporary folder")?;
        // All are held until the last one is chosen, so that none is chosen twice.
        let listeners: Vec<_> = (0..N)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<_, _>>()
            .context("looking for free ports")?;
        let mut ports = [0; N];
        for (port, listener) in ports.iter_mut().zip(&listeners) {
            *port = listener.local_addr()?.port();
        }
        Ok(Self { home, ports })
    }

    /// The folder, which goes when the server is dropped.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.home().join("log")
    }

    fn port_was_taken(&self) -> bool {
        let log = self.log().to_lowercase();
        PORT_TAKEN.iter().any(|words| log.contains(words))
    }

    async fn until_ports_are_free(&self) -> Result<()> {
        eventually(PORTS_LIMIT, || async {
            for port in self.ports {
                TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port}"))?;
            }
            Ok(())
        })
        .await
    }
}

/// A server of its own on free ports of 127.0.0.1, running or killed or paused. Dropping it kills its process and
/// removes its folder.
#[derive(Debug)]
pub struct LocalServer<P, const N: usize> {
    pub(crate) program: P,
    pub(crate) place: Place<N>,
    process: OwnedProcess,
}

impl<P: Program<N>, const N: usize> LocalServer<P, N> {
    /// Returns when it serves.
    pub(crate) async fn start_program(program: P) -> Result<Self> {
        let mut attempts = START_ATTEMPTS;
        loop {
            let place = Place::new()?;
            if let Some(process) = launch(&program, &place, &mut attempts).await? {
                return Ok(Self {
                    program,
                    place,
                    process,
                });
            }
        }
    }

    /// The process id, also of a process that was killed.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// What the server has written to its log since its last start.
    pub fn log(&self) -> String {
        self.place.log()
    }

    /// SIGKILL: connections break without a word. A server that was killed already is fine.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGSTOP: the server is there but answers nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Starts again on the same ports with the same folder; a server that still runs is killed first. Returns when it
    /// serves.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut attempts = START_ATTEMPTS;
        loop {
            self.place.until_ports_are_free().await?;
            if let Some(process) = launch(&self.program, &self.place, &mut attempts).await? {
                self.process = process;
                return Ok(());
            }
        }
    }
}

/// Nothing if one of the ports was taken and there are attempts left.
async fn launch<P: Program<N>, const N: usize>(
    program: &P,
    place: &Place<N>,
    attempts: &mut usize,
) -> Result<Option<OwnedProcess>> {
    let error = match spawn(program, place).await {
        Ok(process) => return Ok(Some(process)),
        Err(error) => error,
    };
    *attempts -= 1;
    if *attempts > 0 && place.port_was_taken() {
        return Ok(None);
    }
    Err(error.context(format!("{} did not start; its log:\n{}", program.name(), place.log())))
}

async fn spawn<P: Program<N>, const N: usize>(program: &P, place: &Place<N>) -> Result<OwnedProcess> {
    let name = program.name();
    let mut command = program.command(place)?;
    let log = File::create(place.log_path()).with_context(|| format!("creating the log of {name}"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let mut process = OwnedProcess::new(child, name);
    let pid = process.pid();
    tokio::select! {
        ended = process.wait(P::START_LIMIT) => bail!("the process ended with {}", ended?),
        ready = eventually(P::START_LIMIT, || program.ready(place, pid)) => ready?,
    }
    Ok(process)
}
