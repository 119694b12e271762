//! Where and with what a run was measured.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};
use testkit::RedisKind;

/// The machine, the versions and the date of a run. What cannot be found out is called `unknown`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Kernel release.
    pub kernel: String,
    /// Name and version of the operating system.
    pub os: String,
    /// Version of the compiler.
    pub rustc: String,
    /// Version of the nats-server that is used.
    pub nats_server: String,
    /// Version of the redis-server that is used.
    pub redis_server: String,
    /// Version of the valkey-server that is used; absent in runs that were stored before it was measured beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valkey_server: Option<String>,
    /// Commit of the sources, with `+` if they were changed after it.
    pub commit: String,
    /// When the run ended, UTC.
    pub date: String,
}

impl Machine {
    /// Looks at this machine.
    pub fn here() -> Machine {
        Machine {
            cpu: field_of("/proc/cpuinfo", "model name", ":").unwrap_or_else(|| output_of("uname", &["-m"])),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            memory_gib: memory_gib(),
            kernel: output_of("uname", &["-sr"]),
            os: field_of("/etc/os-release", "PRETTY_NAME", "=").unwrap_or_else(|| std::env::consts::OS.into()),
            rustc: word_of(&output_of("rustc", &["--version"]), 1),
            nats_server: version_of(nats_server()),
            redis_server: version_of_kind(RedisKind::Redis),
            valkey_server: Some(version_of_kind(RedisKind::Valkey)),
            commit: commit(),
            date: output_of("date", &["-u", "+%Y-%m-%d %H:%M"]),
        }
    }

    /// All of it, part by part.
    pub fn rows(&self) -> [(&'static str, String); 5] {
        [
            (
                "machine",
                format!("{}, {} cores, {:.0} GiB", self.cpu, self.cores, self.memory_gib),
            ),
            ("system", format!("{}, {}", self.os, self.kernel)),
            ("servers", self.servers()),
            ("compiler", format!("Rust {}", self.rustc)),
            ("commit", format!("{}, {} UTC", self.commit, self.date)),
        ]
    }

    fn servers(&self) -> String {
        let valkey = self.valkey_server.as_ref();
        let valkey = valkey.map_or(String::new(), |version| format!(", valkey-server {version}"));
        format!(
            "nats-server {}, redis-server {}{valkey}",
            self.nats_server, self.redis_server
        )
    }

    /// All of it in one sentence.
    pub fn sentence(&self) -> String {
        let [machine, system, servers, compiler, commit] = self.rows().map(|(_, value)| value);
        format!("{machine}; {system}; {servers}, {compiler}; commit {commit}")
    }
}

const UNKNOWN: &str = "unknown";

/// What a command prints.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().into(),
        _ => UNKNOWN.into(),
    }
}

/// The value of the first line of a file that begins with `name`, without quotes.
fn field_of(file: &str, name: &str, separator: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(separator)?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn memory_gib() -> f64 {
    let kib = field_of("/proc/meminfo", "MemTotal", ":").map(|text| word_of(&text, 0));
    kib.and_then(|kib| kib.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / (1 << 20) as f64)
}

fn word_of(text: &str, number: usize) -> String {
    text.split_whitespace().nth(number).unwrap_or(UNKNOWN).into()
}

/// The server that tests and benchmarks use: the one named in the environment, that of `scripts/install-tools.sh`, or
/// that on PATH.
fn nats_server() -> PathBuf {
    let named = std::env::var_os("NATS_SERVER").filter(|path| !path.is_empty());
    let installed = PathBuf::from(".tools/nats-server/bin/nats-server");
    let installed = installed.is_file().then_some(installed);
    named
        .map(PathBuf::from)
        .or(installed)
        .unwrap_or_else(|| "nats-server".into())
}

fn version_of_kind(kind: RedisKind) -> String {
    kind.find().map_or(UNKNOWN.into(), version_of)
}

/// The first thing in `--version` that looks like one.
fn version_of(program: PathBuf) -> String {
    let text = output_of(&program.to_string_lossy(), &["--version"]);
    let numbers = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let version = numbers
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'));
    version.unwrap_or(UNKNOWN).into()
}

fn commit() -> String {
    let changed = output_of("git", &["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_empty() || changed == UNKNOWN {
        ""
    } else {
        "+"
    };
    output_of("git", &["rev-parse", "--short=10", "HEAD"]) + mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_date_and_cores() {
        let machine = Machine::here();
        assert!(machine.cores > 0);
        assert_eq!(machine.date.len(), "2026-11-25 10:00".len(), "date: {}", machine.date);
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        assert_eq!(version_of("/nowhere/redis-server".into()), UNKNOWN);
    }
}
