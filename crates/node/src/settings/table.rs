//! The table of all settings. What is not in it cannot be read.

use std::path::PathBuf;

use super::kind::{
    addresses, file, issuers, lattice_name, secret, seed, store, subject, Acknowledgement, Cap, Kind, MemoryPolicy,
    Namespace, Number, Span, Switch, Text, Unit,
};
use crate::nats::{ServerAddress, Subject, UserSeed};
use crate::secret::Secret;
use crate::store::StoreUrl;

/// Where a setting may stand, and what it holds for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// In `config_json`, for the process: who is believed, and files of this host.
    Host,
    /// In the environment, for the process: what a host says of its lattice, where one does not.
    Lattice,
    /// In `config_json` or in a link of the host data, for the process.
    Process,
    /// In `config_json`, for all links; in a link, for that one alone.
    EachLink,
    /// In a link, for that one alone.
    OneLink,
}

/// A setting.
pub(super) struct Setting<K> {
    pub name: &'static str,
    pub scope: Scope,
    pub kind: K,
    pub meaning: &'static str,
}

/// A setting of whatever kind.
pub(super) trait AnySetting: Sync {
    fn name(&self) -> &'static str;
    fn scope(&self) -> Scope;
    fn values(&self) -> String;
    fn default(&self) -> String;
    fn meaning(&self) -> &'static str;
}

impl<K: Kind> AnySetting for Setting<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn values(&self) -> String {
        self.kind.values()
    }

    fn default(&self) -> String {
        self.kind.default()
    }

    fn meaning(&self) -> &'static str {
        self.meaning
    }
}

impl dyn AnySetting {
    /// Whether it is one of the process.
    pub fn is_of_process(&self) -> bool {
        matches!(self.scope(), Scope::Host | Scope::Lattice | Scope::Process)
    }
}

/// The setting of a name, in whatever case it is written.
pub(super) fn find(name: &str) -> Option<&'static dyn AnySetting> {
    let name = name.trim();
    let found = SETTINGS
        .iter()
        .find(|setting| setting.name().eq_ignore_ascii_case(name));
    found.copied()
}

/// One row per setting: name, type of its kind, scope, kind with default and range, meaning.
macro_rules! settings {
    ($($name:ident: $type:ty, $scope:ident, $kind:expr, $meaning:literal;)*) => {
        $(pub(super) static $name: Setting<$type> = Setting {
            name: stringify!($name),
            scope: Scope::$scope,
            kind: $kind,
            meaning: $meaning,
        };)*

        /// All settings, in the order of the documentation.
        pub(super) static SETTINGS: &[&dyn AnySetting] = &[$(&$name),*];
    };
}

settings! {
    REPLICATION: Switch, Process, Switch { default: true },
        "`off`: a plain map on this host";
    NATS_URL: Text<Vec<ServerAddress>>, Process, addresses("the lattice's address"),
        "servers for replication; any one of them is used; `nats://user:password@host:port` is possible";
    CLIENT_JWT: Text<Secret>, Process, secret("see below", "user JWT"),
        "credentials for replication; needs `CLIENT_SEED`";
    CLIENT_SEED: Text<UserSeed>, Process, seed("see below"),
        "credentials for replication; needs `CLIENT_JWT`";
    NATS_CREDS: Text<PathBuf>, Host, file("none", "file"),
        "credentials for replication: user JWT and seed, as `nsc` writes them; read again for every attempt";
    NATS_TOKEN: Text<Secret>, Process, secret("none", "token"),
        "credentials for replication";
    NATS_TLS_CA: Text<PathBuf>, Host, file("the system's", "file (PEM)"),
        "authorities that are trusted, in place of those of the system";
    NATS_TLS_CERT: Text<PathBuf>, Host, file("none", "file (PEM)"),
        "certificate of the client; needs `NATS_TLS_KEY`";
    NATS_TLS_KEY: Text<PathBuf>, Host, file("none", "file (PEM)"),
        "key of that certificate; needs `NATS_TLS_CERT`";
    LATTICE_CONNECT_SECS: Span, Process, Span { unit: Unit::Seconds, default: 60, min: 0, max: 86_400 },
        "how long the server of the lattice is waited for at the start; 0: one attempt";
    EXIT_WITH_HOST: Switch, Host, Switch { default: true },
        "`off`: the process goes on when the process that started it, the host, is gone";
    LATTICE: Text<String>, Lattice, lattice_name(),
        "name of the lattice: caches of one lattice and link name are one";
    LINK_NAME: Text<String>, Lattice, lattice_name(),
        "link name of the cache, as that of a provider";
    CLUSTER_SEED: Text<Secret>, Lattice, secret("none", "nkey seed of a cluster (`SC...`)"),
        "authenticates messages of replication; alike on all hosts, of whatever generation; without it they are not \
         authenticated";
    CLUSTER_ISSUERS: Text<Vec<String>>, Lattice, issuers(),
        "clusters whose hosts are trusted beside those of `CLUSTER_SEED`";
    STATE_REPL_SUBJECT: Text<Subject>, Process,
        subject("`lattice.{lattice}.kvcache.{link}.commands`", "NATS subject without wildcards, at most 981 bytes"),
        "subject of deltas; all other subjects move below it; alike on all hosts";
    REPLAY_REQ_SUBJECT: Text<Subject>, Process,
        subject("`lattice.{lattice}.kvcache.{link}.replay`", "NATS subject without wildcards, none of the others"),
        "subject of bootstrap requests; alike on all hosts";
    REPLAY_HEARTBEAT_SECS: Span, Process, Span { unit: Unit::Seconds, default: 1, min: 1, max: 3_600 },
        "interval of heartbeats; also how fast differences are noticed; above 300, a quiet host counts as gone between two heartbeats";
    SYNC_TIMEOUT_SECS: Span, Process, Span { unit: Unit::Seconds, default: 10, min: 0, max: 3_600 },
        "how long putting a link waits for the bootstrap; then the provider serves what it has and goes on trying";
    SYNC_MIN_PEERS: Number<usize>, Process, Number { unit: "hosts", default: 0, min: 0, max: 1_000 },
        "so many other hosts have to have been known before this one calls itself `synced` or `alone`";
    // Shorter deletions would be forgotten while a peer that missed a few heartbeats is still there.
    TOMBSTONE_TTL_SECS: Span, Process, Span { unit: Unit::Seconds, default: 86_400, min: 10, max: 31_536_000 },
        "how long deletions are remembered, at least 10 x `REPLAY_HEARTBEAT_SECS`; alike on all hosts";
    MAX_CLOCK_SKEW_SECS: Span, Process, Span { unit: Unit::Seconds, default: 900, min: 1, max: 86_400 },
        "writes of a host whose clock is further ahead are refused by the others";
    MAX_VALUE_BYTES: Number<usize>, Process, Number { unit: "bytes", default: 32 << 20, min: 1, max: 64 << 20 },
        "longest key (with its namespace and one byte more), value, item or member";
    // By default what any single value fits.
    MAX_ANSWER_BYTES: Number<usize>, Process, Number { unit: "bytes", default: 64 << 20, min: 1 << 10, max: 1 << 30 },
        "largest answer to a call; a larger one is an error";
    MAX_MEMORY_BYTES: Cap, Process, Cap { unit: "bytes", min: 1 << 20 },
        "most memory that data takes, deletions and tables included; the smallest of all hosts holds for all: see \
         [memory](#memory)";
    MAX_MEMORY_POLICY: MemoryPolicy, Process, MemoryPolicy,
        "what a write does that does not fit: it is refused, or keys are deleted, the nearest deadline first or what is \
         read least; alike on all hosts";
    FRAME_AUTH: Switch, Host, Switch { default: true },
        "`off`: messages of replication are not authenticated; alike on all hosts";
    QUEUE_BYTES: Number<usize>, Process, buffer(64 << 20),
        "writes that wait to be sent; beyond it writers wait";
    INBOX_BYTES: Number<usize>, Process, buffer(64 << 20),
        "messages of peers that wait to be taken in; beyond it they are dropped and fetched again";
    RING_BYTES: Number<usize>, Process, buffer(16 << 20),
        "recent frames kept for peers that missed some";
    STORE: Text<StoreUrl>, Host, store(),
        "what the cache is written behind to, so that it outlives its last process: see [stores](#stores)";
    STORE_FLUSH_MS: Span, Host, Span { unit: Unit::Milliseconds, default: 100, min: 1, max: 60_000 },
        "how long changes are gathered before they are written to the store; a key that changes often is written once";
    STORE_REQUIRED: Switch, Host, Switch { default: true },
        "`off`: a host that cannot read its store, and knows no other host with data, answers all the same";
    ACK: Acknowledgement, EachLink, Acknowledgement { max_peers: 1_000 },
        "how many other hosts confirm a write before it is answered; with `stored`, the store has it as well";
    // By default shorter than the two seconds in which a host gives up a call.
    ACK_TIMEOUT_MS: Span, EachLink, Span { unit: Unit::Milliseconds, default: 1_500, min: 1, max: 600_000 },
        "how long that may take, and how long a read under `ACK=all` waits";
    NAMESPACE_MAX_BYTES: Cap, EachLink, Cap { unit: "bytes", min: 1 << 10 },
        "most memory of all keys of the namespace of the link, or of the shared keyspace; a write beyond it is refused";
    NAMESPACE_MAX_KEYS: Cap, EachLink, Cap { unit: "keys", min: 1 },
        "most keys there; a write of one more is refused";
    MAX_COLLECTION_ITEMS: Cap, EachLink, Cap { unit: "items", min: 1 },
        "most items of a list and members of a set; one more is refused";
    NAMESPACE: Namespace, OneLink, Namespace,
        "the link has a keyspace of its own, shared with links of the same namespace";
}

const fn buffer(default: usize) -> Number<usize> {
    Number {
        unit: "bytes",
        default,
        min: 64 << 10,
        max: 4 << 30,
    }
}
