//! Settings: one validated type, from a JSON object of settings and from the values of links.
//!
//! `table` has all of them, each with its kind. `kind` reads texts, `raw` holds what was given, `precedence` says whose
//! word counts, and this file makes a configuration of it. A new setting is a row of the table and a field here.

mod error;
mod kind;
mod lattice;
mod markdown;
mod precedence;
mod raw;
mod table;

use std::time::Duration;

use kvcache_core::cache::Limits;

use crate::nats;
use crate::secret::Secret;
use crate::service::{AckPolicy, Caps, EdgeConfig, Policy};
use crate::store::StoreUrl;
use kind::no_subject;
use raw::Reader;
use table::*;

pub use crate::nats::{Credentials, ServerAddress, Subject, Subjects, Tls, UserSeed};
pub use kvcache_core::replica::{ClusterKeys, KeyringError};

pub use error::{Origin, SettingError, SettingsError};
pub use lattice::{Lattice, LatticeError, LatticeServer};
pub use markdown::markdown;
pub use raw::{did_you_mean, RawSettings};

/// Deletions are remembered for this many intervals of heartbeats at least: a peer that missed a few is not away for
/// long.
const TTL_HEARTBEATS: u32 = 10;

/// How long deletions are remembered where keys are evicted, and nothing else is set.
const EVICTIONS_REMEMBERED: Duration = Duration::from_secs(600);

/// Settings of the process, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Whether to replicate at all.
    pub replication: bool,
    /// What a host says of its lattice, where the settings say it.
    pub lattice: LatticeSettings,
    /// Servers for replication; `None`: the lattice's own.
    pub nats_url: Option<Vec<ServerAddress>>,
    /// Credentials for replication; `None`: the lattice's own with the lattice's own servers, else none.
    pub credentials: Option<Credentials>,
    /// Certificates for the connections.
    pub tls: Tls,
    /// How long the lattice is waited for at the start.
    pub lattice_patience: Duration,
    /// Whether the process ends when the host that started it is gone.
    pub exit_with_host: bool,
    /// Subject of deltas instead of the derived one.
    pub commands_subject: Option<Subject>,
    /// Subject of bootstrap requests instead of the derived one.
    pub replay_subject: Option<Subject>,
    /// Interval of heartbeats.
    pub heartbeat_interval: Duration,
    /// How long links wait for the bootstrap.
    pub sync_timeout: Duration,
    /// So many peers have to have been known before the provider calls itself synced or alone.
    pub sync_min_peers: usize,
    /// Bounds of the cache.
    pub limits: Limits,
    /// Whether messages of replication are authenticated.
    pub frame_auth: bool,
    /// Bytes of deltas that may wait to be sent.
    pub queue_bytes: usize,
    /// Bytes of peers' messages that may wait to be taken in.
    pub inbox_bytes: usize,
    /// Bytes of recent frames kept for peers that missed some.
    pub ring_bytes: usize,
    /// Bytes of the largest answer.
    pub max_answer_bytes: usize,
    /// How much the cache may take, and what happens then.
    pub edge: EdgeConfig,
    /// What the cache is written behind to, if anything.
    pub store: Option<StoreSettings>,
}

/// A store, as far as it can be validated without its engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSettings {
    /// Where it is.
    pub url: StoreUrl,
    /// How long changes are gathered before they are written.
    pub flush_interval: Duration,
    /// Whether nobody is answered while it cannot be read and no peer has its state.
    pub required: bool,
}

/// A lattice that no host tells of, validated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LatticeSettings {
    /// Name of the lattice.
    pub name: Option<String>,
    /// Link name of the cache.
    pub link_name: Option<String>,
    /// Seed of the cluster; `None`: messages are not authenticated.
    pub seed: Option<Secret>,
    /// Public keys of clusters that are trusted as well.
    pub issuers: Vec<String>,
}

/// Settings of one link, validated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkSettings {
    /// Keyspace of the link; empty for the shared one.
    pub namespace: String,
    /// What its calls wait for.
    pub acks: AckPolicy,
    /// How much it may put there.
    pub caps: Caps,
}

impl Settings {
    /// Validates the settings of the process. The error names all that cannot be used.
    pub fn new(raw: &RawSettings) -> Result<Self, SettingsError> {
        let mut read = Reader::new(raw);
        if raw.origin(&NAMESPACE) == Some(Origin::ConfigJson) {
            let expected = "it among the values of a link, not of the provider";
            read.refuse(raw.error(&NAMESPACE, expected));
        }
        refuse_where_a_host_says_it(&mut read);
        let nats_url = read.get(&NATS_URL);
        let edge = EdgeConfig {
            max_bytes: read.get(&MAX_MEMORY_BYTES),
            policy: read.get(&MAX_MEMORY_POLICY),
        };
        let config = Settings {
            replication: read.get(&REPLICATION),
            lattice: lattice(&mut read),
            credentials: credentials(&mut read, nats_url.as_deref().unwrap_or_default()),
            nats_url,
            tls: tls(&mut read),
            lattice_patience: read.get(&LATTICE_CONNECT_SECS),
            exit_with_host: read.get(&EXIT_WITH_HOST),
            commands_subject: read.get(&STATE_REPL_SUBJECT),
            replay_subject: read.get(&REPLAY_REQ_SUBJECT),
            heartbeat_interval: read.get(&REPLAY_HEARTBEAT_SECS),
            sync_timeout: read.get(&SYNC_TIMEOUT_SECS),
            sync_min_peers: read.get(&SYNC_MIN_PEERS),
            limits: Limits {
                max_value_bytes: read.get(&MAX_VALUE_BYTES),
                max_clock_skew_ms: millis(read.get(&MAX_CLOCK_SKEW_SECS)),
                tombstone_ttl_ms: millis(match edge.policy {
                    Policy::Refuse => read.get(&TOMBSTONE_TTL_SECS),
                    // What is evicted leaves a deletion behind, and those would fill the memory in a day.
                    _ if !raw.is_set(&TOMBSTONE_TTL_SECS) => {
                        EVICTIONS_REMEMBERED.max(TTL_HEARTBEATS * read.get(&REPLAY_HEARTBEAT_SECS))
                    }
                    _ => read.get(&TOMBSTONE_TTL_SECS),
                }),
            },
            frame_auth: read.get(&FRAME_AUTH),
            queue_bytes: read.get(&QUEUE_BYTES),
            inbox_bytes: read.get(&INBOX_BYTES),
            ring_bytes: read.get(&RING_BYTES),
            max_answer_bytes: read.get(&MAX_ANSWER_BYTES),
            edge,
            store: store(&mut read),
        };
        // The default of each goes together with any value of the other: nothing is named for what stands in its place.
        if config.limits.tombstone_ttl_ms < millis(TTL_HEARTBEATS * config.heartbeat_interval) {
            read.refuse(SettingError::Together(
                "settings TOMBSTONE_TTL_SECS and REPLAY_HEARTBEAT_SECS: expected deletions to be remembered for at least \
                 10 intervals of heartbeats",
            ));
        }
        if edge.policy != Policy::Refuse && edge.max_bytes.is_none() && !raw.is_set(&MAX_MEMORY_BYTES) {
            read.refuse(SettingError::Together(
                "setting MAX_MEMORY_BYTES: expected with MAX_MEMORY_POLICY=evict-ttl or evict-lfu, found nothing",
            ));
        }
        link(&mut read);
        // Checked here, so that a bad subject is reported with its setting and before anything has started.
        if let Err(error) = config.subjects(raw, "lattice", "link") {
            read.refuse(error);
        }
        read.done(config)
    }

    /// Reads the files that the settings name. Apart from the rest: settings are also compared with those that
    /// strangers name.
    pub fn check_files(&self, raw: &RawSettings) -> Result<(), SettingsError> {
        let mut read = Reader::new(raw);
        if let Some(Credentials::File(file)) = &self.credentials {
            let expected = "a credentials file with user JWT and seed, as nsc writes it";
            read.refuse_file(&NATS_CREDS, expected, nats::check_credentials_file(file));
        }
        if let Some(file) = &self.tls.authorities {
            let expected = "a file of certificates in PEM";
            read.refuse_file(&NATS_TLS_CA, expected, nats::check_authorities(file));
        }
        if let Some((certificate, key)) = &self.tls.certificate {
            let expected = "a file with a certificate in PEM, to which NATS_TLS_KEY is the key";
            read.refuse_file(&NATS_TLS_CERT, expected, nats::check_certificate(certificate, key));
        }
        read.done(())
    }

    /// The subjects of a lattice and link name under these settings.
    pub fn subjects(&self, raw: &RawSettings, lattice: &str, link: &str) -> Result<Subjects, SettingError> {
        let mut subjects = Subjects::of(lattice, link);
        if let Some(subject) = &self.commands_subject {
            subjects = subjects.with_commands(subject);
        }
        if let Err(error) = subjects.check() {
            return Err(match self.commands_subject {
                Some(_) => raw.error(&STATE_REPL_SUBJECT, no_subject(&error)),
                None => SettingError::Together(
                    "fields lattice_rpc_prefix and link_name of the host data: expected names of 900 bytes at most together \
                     (three for a character other than letters, digits, '-' and '_'); or set STATE_REPL_SUBJECT",
                ),
            });
        }
        if let Some(subject) = &self.replay_subject {
            subjects = subjects.with_replay(subject);
            let checked = subjects.check();
            checked.map_err(|error| raw.error(&REPLAY_REQ_SUBJECT, no_subject(&error)))?;
        }
        Ok(subjects)
    }

    /// Validates the settings of a link that somebody has put: as [`Settings::link`], but it may not ask for fewer
    /// confirmations than the provider does.
    pub fn put_link(base: &RawSettings, values: &RawSettings) -> Result<LinkSettings, SettingsError> {
        let link = Self::link(&base.overlaid_with(values))?;
        let LinkSettings { acks: least, caps, .. } = Self::link(base)?;
        if !link.caps.are_within(&caps) {
            return Err(SettingError::WiderCaps.into());
        }
        if link.acks.wanted < least.wanted || !link.acks.stored && least.stored {
            return Err(SettingError::WeakerAck.into());
        }
        Ok(link)
    }

    /// Validates the settings of a link: its own over those of the provider.
    pub fn link(raw: &RawSettings) -> Result<LinkSettings, SettingsError> {
        let mut read = Reader::new(raw);
        let link = link(&mut read);
        read.done(link)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn link(read: &mut Reader<'_>) -> LinkSettings {
    let kind::Acks { peers, stored } = read.get(&ACK);
    if stored && !read.raw.is_set(&STORE) {
        read.refuse(SettingError::Together(
            "setting STORE: expected with ACK=stored, found nothing",
        ));
    }
    let items = read.get(&MAX_COLLECTION_ITEMS).unwrap_or(u64::MAX);
    LinkSettings {
        namespace: read.get(&NAMESPACE),
        caps: Caps {
            namespace_bytes: read.get(&NAMESPACE_MAX_BYTES).unwrap_or(u64::MAX),
            namespace_keys: read.get(&NAMESPACE_MAX_KEYS).unwrap_or(u64::MAX),
            collection_items: usize::try_from(items).unwrap_or(usize::MAX),
        },
        acks: AckPolicy {
            wanted: peers,
            stored,
            timeout_ms: millis(read.get(&ACK_TIMEOUT_MS)),
        },
    }
}

fn store(read: &mut Reader<'_>) -> Option<StoreSettings> {
    let (flush_interval, required) = (read.get(&STORE_FLUSH_MS), read.get(&STORE_REQUIRED));
    let url = read.get(&STORE);
    if url.is_none()
        && (read.raw.is_set(&STORE_FLUSH_MS) || read.raw.is_set(&STORE_REQUIRED))
        && !read.raw.is_set(&STORE)
    {
        read.refuse(SettingError::Together(
            "setting STORE: expected with STORE_FLUSH_MS and STORE_REQUIRED, found nothing",
        ));
    }
    url.map(|url| StoreSettings {
        url,
        flush_interval,
        required,
    })
}

/// Hosts of wasmbus name their lattice in the host data.
fn refuse_where_a_host_says_it(read: &mut Reader<'_>) {
    fn refuse<K: kind::Kind>(read: &mut Reader<'_>, setting: &Setting<K>) {
        if matches!(read.raw.origin(setting), Some(Origin::ConfigJson | Origin::Link)) {
            let expected =
                "it in the environment of a host of the 0.18 line only; other hosts say it in their host data";
            read.refuse(read.raw.error(setting, expected));
        }
    }
    refuse(read, &LATTICE);
    refuse(read, &LINK_NAME);
    refuse(read, &CLUSTER_SEED);
    refuse(read, &CLUSTER_ISSUERS);
}

fn lattice(read: &mut Reader<'_>) -> LatticeSettings {
    let seed = read.get(&CLUSTER_SEED);
    // Checked here, so that it is reported with its setting and before anything has started.
    if seed
        .as_ref()
        .is_some_and(|seed| ClusterKeys::new(&seed.0, &[]).is_err())
    {
        read.refuse(read.raw.error(&CLUSTER_SEED, "an nkey seed of a cluster, 'SC...'"));
    }
    if seed.is_none() && read.raw.is_set(&CLUSTER_ISSUERS) {
        read.refuse(SettingError::Together(
            "setting CLUSTER_SEED: expected with CLUSTER_ISSUERS, found nothing",
        ));
    }
    let asks_for_it = read.raw.origin(&FRAME_AUTH) == Some(Origin::Environment) && read.get(&FRAME_AUTH);
    if seed.is_none() && asks_for_it {
        read.refuse(SettingError::Together(
            "setting CLUSTER_SEED: expected with FRAME_AUTH=on, found nothing",
        ));
    }
    LatticeSettings {
        name: read.get(&LATTICE),
        link_name: read.get(&LINK_NAME),
        seed,
        issuers: read.get(&CLUSTER_ISSUERS).unwrap_or_default(),
    }
}

/// One way to prove who this is, or none.
fn credentials(read: &mut Reader<'_>, servers: &[ServerAddress]) -> Option<Credentials> {
    let raw = read.raw;
    let (has_jwt, has_seed) = (raw.is_set(&CLIENT_JWT), raw.is_set(&CLIENT_SEED));
    let ways = [
        has_jwt || has_seed,
        raw.is_set(&NATS_CREDS),
        raw.is_set(&NATS_TOKEN),
        servers.iter().any(ServerAddress::has_user),
    ];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        read.refuse(SettingError::Together(
            "settings CLIENT_JWT with CLIENT_SEED, NATS_CREDS, NATS_TOKEN and a user in NATS_URL: expected one of them at \
             most",
        ));
    }
    if has_jwt && !has_seed {
        read.refuse(SettingError::Together(
            "setting CLIENT_SEED: expected with CLIENT_JWT, found nothing",
        ));
    }
    if has_seed && !has_jwt {
        read.refuse(SettingError::Together(
            "setting CLIENT_JWT: expected with CLIENT_SEED, found nothing",
        ));
    }
    let user = read.get(&CLIENT_JWT).zip(read.get(&CLIENT_SEED));
    let user = user.map(|(jwt, seed)| Credentials::Jwt { jwt, seed });
    let file = read.get(&NATS_CREDS).map(Credentials::File);
    user.or(file).or(read.get(&NATS_TOKEN).map(Credentials::Token))
}

fn tls(read: &mut Reader<'_>) -> Tls {
    let (certificate, key) = (read.get(&NATS_TLS_CERT), read.get(&NATS_TLS_KEY));
    if certificate.is_some() && key.is_none() {
        read.refuse(SettingError::Together(
            "setting NATS_TLS_KEY: expected with NATS_TLS_CERT, found nothing",
        ));
    }
    if key.is_some() && certificate.is_none() {
        read.refuse(SettingError::Together(
            "setting NATS_TLS_CERT: expected with NATS_TLS_KEY, found nothing",
        ));
    }
    Tls {
        authorities: read.get(&NATS_TLS_CA),
        certificate: certificate.zip(key),
    }
}

#[cfg(test)]
mod tests {
    use kvcache_core::replica::AckLevel;

    use super::*;

    fn parse(json: &str) -> Result<Settings, SettingsError> {
        Settings::new(&RawSettings::from_json(Some(json))?)
    }

    fn seconds(config: &Settings) -> (u64, u64) {
        (config.heartbeat_interval.as_secs(), config.sync_timeout.as_secs())
    }

    #[test]
    fn the_settings_that_are_named_to_people_exist() {
        let words = concat!(include_str!("../words.rs"), include_str!("../answers.rs"));
        let named = words.split(|part: char| !part.is_ascii_uppercase() && part != '_');
        let named: Vec<&str> = named.filter(|name| name.trim_matches('_').contains('_')).collect();
        assert!(named.contains(&"FRAME_AUTH"), "{named:?}");
        for name in named {
            assert!(super::table::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        for json in ["", "null", "{}", r#"{"NATS_URL": "", "URL": "redis://elsewhere"}"#] {
            let config = parse(json).unwrap();
            assert!(config.replication);
            assert_eq!(seconds(&config), (1, 10));
            assert_eq!(config.nats_url, None);
            assert_eq!(config.limits, Limits::default());
        }
    }

    #[test]
    fn names_are_taken_in_any_case_and_values_in_any_json_type() {
        let config = parse(r#"{"replication": false, "Replay_Heartbeat_Secs": 5, "SYNC_TIMEOUT_SECS": "3"}"#).unwrap();
        assert!(!config.replication);
        assert_eq!(seconds(&config), (5, 3));
    }

    #[test]
    fn errors_name_the_setting_and_what_was_expected() {
        for (json, parts) in [
            (r#"[1]"#, &["config_json", "JSON object", "an array"][..]),
            (r#"{"REPLICATION": "#, &["config_json", "line 1"]),
            (r#"{"REPLICATION": "maybe"}"#, &["REPLICATION", "on or off", "maybe"]),
            (r#"{"REPLICATION": []}"#, &["REPLICATION", "an array"]),
            (
                r#"{"REPLAY_HEARTBEAT_SECS": "soon"}"#,
                &["REPLAY_HEARTBEAT_SECS", "1 to 3600", "soon"],
            ),
            (
                r#"{"REPLAY_HEARTBEAT_SECS": 1.5}"#,
                &["REPLAY_HEARTBEAT_SECS", "whole number"],
            ),
            (r#"{"MAX_VALUE_BYTES": 0}"#, &["MAX_VALUE_BYTES", "1 to"]),
            (r#"{"STATE_REPL_SUBJECT": "a.*"}"#, &["STATE_REPL_SUBJECT", "wildcard"]),
            (
                r#"{"STATE_REPL_SUBJECT": "a", "REPLAY_REQ_SUBJECT": "a"}"#,
                &["REPLAY_REQ_SUBJECT", "one of commands"],
            ),
            (r#"{"NATS_URL": "http://[bad"}"#, &["NATS_URL", "addresses"]),
            (r#"{"NAMESPACE": "n"}"#, &["NAMESPACE", "link"]),
            (r#"{"CLIENT_JWT": "x"}"#, &["CLIENT_SEED"]),
        ] {
            let error = parse(json).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{json}: '{error}' lacks '{part}'");
            }
        }
    }

    #[test]
    fn all_that_cannot_be_used_is_named_at_once_and_as_it_was_written() {
        let error = parse(
            r#"{"REPLICATION": "perhaps", "sync_timeout_secs": [], "STATE_REPL_SUBJECT": "a.*", "NATS_URL": "x y",
                "TOMBSTONE_TTL_SECS": 10, "REPLAY_HEARTBEAT_SECS": 2, "ACK": "some", "NAMESPACE": "n\n",
                "QUEUE_BYTES": 1, "NATS_TLS_KEY": "k", "CLIENT_JWT": "j", "NATS_TOKEN": "t", "RING_BYTES": 65536}"#,
        );
        let error = error.unwrap_err();
        let text = error.to_string();
        let lines: Vec<String> = error.each().map(SettingError::to_string).collect();
        assert_eq!((lines.len(), text.lines().count()), (11, 1), "{text}");
        for names in [
            &["REPLICATION"][..],
            &["setting sync_timeout_secs (SYNC_TIMEOUT_SECS)", "an array"],
            &["STATE_REPL_SUBJECT", "wildcard"],
            &["NATS_URL", "white space"],
            &["TOMBSTONE_TTL_SECS and REPLAY_HEARTBEAT_SECS"],
            &["setting ACK in config_json"],
            &["NAMESPACE"],
            &["QUEUE_BYTES", "65536 to"],
            &["NATS_TLS_CERT: expected with"],
            &["CLIENT_SEED: expected with"],
            &["NATS_TOKEN", "one of them"],
        ] {
            let names_all = |line: &String| names.iter().all(|name| line.contains(name));
            assert!(lines.iter().any(names_all), "{names:?}: {text}");
        }
    }

    fn environment(variables: &[(&str, &str)]) -> RawSettings {
        let owned: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        RawSettings::from_environment(owned.iter().map(|(name, value)| (name, value)))
    }

    #[test]
    fn a_lattice_is_named_in_the_environment_and_nowhere_else() {
        const SEED: &str = "SCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHCK4QQA";
        let variables = [
            ("LATTICE", "one"),
            ("kvcache_cluster_seed", SEED),
            ("__wasmcloud_name", "x"),
        ];
        let raw = environment(&variables);
        let lattice = Settings::new(&raw).unwrap().lattice;
        assert_eq!((lattice.name.as_deref(), lattice.link_name), (Some("one"), None));
        assert_eq!(lattice.seed, Some(Secret(SEED.into())));
        assert!(raw.unknown().is_empty(), "{raw:?}");
        assert!(!format!("{:?}", Settings::new(&raw)).contains(SEED));
        assert_eq!(
            Settings::new(&environment(&[])).unwrap().lattice,
            LatticeSettings::default()
        );
        for name in ["LATTICE", "LINK_NAME", "CLUSTER_SEED", "CLUSTER_ISSUERS"] {
            for raw in [base(&format!(r#"{{"{name}": "x"}}"#)), link(&[(name, "x")])] {
                let error = Settings::new(&raw).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("host data"), "{error}");
            }
        }
    }

    #[test]
    fn variables_are_shown_as_they_were_written() {
        for (name, value, parts) in [
            (
                "CLUSTER_SEED",
                "SUABC",
                &["setting KVCACHE_CLUSTER_SEED in the environment", "'SC...'"][..],
            ),
            (
                "kvcache_ack",
                "some",
                &["setting kvcache_ack (ACK) in the environment", "'some'"],
            ),
            (
                "CLUSTER_ISSUERS",
                "N1",
                &["KVCACHE_CLUSTER_ISSUERS", "'C...'", "CLUSTER_SEED: expected with"],
            ),
            ("FRAME_AUTH", "on", &["CLUSTER_SEED: expected with FRAME_AUTH=on"]),
            ("LATTICE", &"x".repeat(129), &["KVCACHE_LATTICE", "128 bytes"]),
        ] {
            let error = Settings::new(&environment(&[(name, value)])).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{name}={value}: '{error}' lacks '{part}'");
            }
        }
        assert_eq!(environment(&[("NATS_ULR", "x")]).unknown(), ["KVCACHE_NATS_ULR"]);
        assert_eq!(did_you_mean("KVCACHE_NATS_ULR"), Some("NATS_URL"));
    }

    /// What comes of settings, for the process and for a link.
    type Outcome = (Result<Settings, SettingsError>, Result<LinkSettings, SettingsError>);

    #[test]
    fn every_setting_of_the_table_is_read() {
        let outcome = |name: &str, text: &str| -> Outcome {
            let raw = link(&[(name, text)]);
            (Settings::new(&raw), Settings::link(&raw))
        };
        // Among these is one that each setting does not mean by itself.
        let texts = [
            "off",
            "3601",
            "131072",
            "nats://elsewhere",
            "some.subject",
            "/a/file",
            "all",
        ];
        for setting in SETTINGS {
            let name = setting.name();
            let nothing = outcome("SOMETHING_ELSE", "off");
            assert!(nothing.0.is_ok() && nothing.1.is_ok());
            assert!(
                texts.iter().any(|text| outcome(name, text) != nothing),
                "{name} has no effect"
            );
        }
    }

    #[test]
    fn every_name_stands_in_the_table_once() {
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] < two[1]), "{names:?}");
        for name in names {
            assert_eq!(table::find(&format!(" {} ", name.to_lowercase())).unwrap().name(), name);
        }
    }

    #[test]
    fn unknown_names_are_ignored_and_near_ones_are_taken_for_what_they_are_near() {
        for (name, meant) in [
            ("NATS_ULR", Some("NATS_URL")),
            ("nats-url", Some("NATS_URL")),
            ("REPLICATON", Some("REPLICATION")),
            ("SYNC_TIMEOUT_SEC", Some("SYNC_TIMEOUT_SECS")),
            ("TOMBSTONE_TTL_MS", Some("TOMBSTONE_TTL_SECS")),
            ("AKC", Some("ACK")),
            ("NAME_SPACE", Some("NAMESPACE")),
            ("URL", None),
            ("PASSWORD", None),
            ("", None),
            (
                "NATS_URL_of_some_other_tool_that_takes_names_longer_than_any_here",
                None,
            ),
        ] {
            assert_eq!(did_you_mean(name), meant, "{name}");
            let raw = link(&[(name, "anything")]);
            assert_eq!(raw.unknown(), [name], "as it was written");
            assert_eq!(Settings::new(&raw), Settings::new(&RawSettings::default()));
        }
        let other = r#"{"CONFIG_B64": "x", "config_json": "x", "Ack": 1, "list": [1]}"#;
        assert_eq!(base(other).unknown(), ["list"]);
        assert_eq!(Settings::new(&base(other)), parse(r#"{"ACK": 1}"#));
    }

    #[test]
    fn secrets_are_not_repeated() {
        for json in [
            r#"{"CLIENT_JWT": "tell-nobody", "CLIENT_SEED": "tell-nobody"}"#,
            r#"{"NATS_URL": "nats://me:tell-nobody@[bad"}"#,
            r#"{"CLIENT_SEED": "tell-nobody"#,
        ] {
            let error = parse(json).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("tell-nobody"), "{error}");
        }
        let config = parse(r#"{"NATS_URL": "nats://me:tell-nobody@host, nats://tell-nobody@other"}"#).unwrap();
        assert!(!format!("{config:?}").contains("tell-nobody"), "{config:?}");
    }

    fn link(values: &[(&str, &str)]) -> RawSettings {
        let owned: Vec<(String, String)> = values
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        RawSettings::from_link(owned.iter().map(|(name, value)| (name, value)))
    }

    fn base(json: &str) -> RawSettings {
        RawSettings::from_json(Some(json)).unwrap()
    }

    #[test]
    fn a_link_of_the_host_data_completes_and_does_not_contradict() {
        const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
        let own_credentials = format!(r#"{{"CLIENT_JWT": "x", "CLIENT_SEED": "{SEED}"}}"#);
        let elsewhere: (&str, &str) = ("NATS_URL", "nats://b");
        let completes = |json: &str, values: &[(&str, &str)]| base(json).completed_by(&link(values));
        for (json, values) in [
            ("{}", &[elsewhere, ("CLIENT_JWT", "x"), ("CLIENT_SEED", SEED)][..]),
            ("{}", &[("REPLICATION", "off"), ("NAMESPACE", "n")]),
            (r#"{"NATS_URL": "nats://b"}"#, &[elsewhere]),
            (r#"{"FRAME_AUTH": "off"}"#, &[("FRAME_AUTH", "no")]),
            ("{}", &[("FRAME_AUTH", "on")]),
        ] {
            assert!(completes(json, values).is_ok(), "{json} {values:?}");
        }
        let config = Settings::new(&completes("{}", &[elsewhere, ("REPLAY_HEARTBEAT_SECS", "7")]).unwrap()).unwrap();
        assert_eq!((seconds(&config).0, config.nats_url.unwrap().len()), (7, 1));
        for (json, values, named) in [
            (r#"{"NATS_URL": "nats://a"}"#, &[elsewhere][..], "NATS_URL"),
            (r#"{"FRAME_AUTH": "on"}"#, &[("FRAME_AUTH", "off")], "FRAME_AUTH"),
            ("{}", &[("FRAME_AUTH", "off")], "FRAME_AUTH"),
            ("{}", &[("NATS_CREDS", "/dev/null")], "NATS_CREDS"),
            (&own_credentials, &[elsewhere], "credentials of config_json"),
            ("{}", &[("REPLICATION", "perhaps")], "REPLICATION"),
        ] {
            let error = completes(json, values).unwrap_err().to_string();
            assert!(error.contains(named), "{json} {values:?}: {error}");
        }
    }

    #[test]
    fn evictions_are_not_remembered_for_a_day_and_need_a_cap() {
        let ttl = |json: &str| parse(json).unwrap().limits.tombstone_ttl_ms;
        assert_eq!(ttl(r#"{"MAX_MEMORY_BYTES": 1048576}"#), 86_400_000);
        assert_eq!(
            ttl(r#"{"MAX_MEMORY_BYTES": 1048576, "MAX_MEMORY_POLICY": "Evict-LFU"}"#),
            600_000
        );
        let both = r#"{"MAX_MEMORY_BYTES": 1048576, "MAX_MEMORY_POLICY": "evict-ttl", "TOMBSTONE_TTL_SECS": 30}"#;
        assert_eq!(ttl(both), 30_000);
        let slow = r#"{"MAX_MEMORY_BYTES": 1048576, "MAX_MEMORY_POLICY": "evict-ttl", "REPLAY_HEARTBEAT_SECS": 100}"#;
        assert_eq!(ttl(slow), 1_000_000);
        for (json, named) in [
            (r#"{"MAX_MEMORY_POLICY": "evict-lfu"}"#, "MAX_MEMORY_BYTES"),
            (r#"{"MAX_MEMORY_POLICY": "lru"}"#, "refuse, evict-ttl or evict-lfu"),
            (r#"{"MAX_MEMORY_BYTES": 1000}"#, "from 1048576 to"),
            (r#"{"NAMESPACE_MAX_KEYS": 0}"#, "from 1 to"),
        ] {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }

    #[test]
    fn a_link_that_is_put_allows_itself_no_more_than_the_provider_does() {
        let provider = base(r#"{"NAMESPACE_MAX_BYTES": 10000, "MAX_COLLECTION_ITEMS": 10}"#);
        let put = |values: &[(&str, &str)]| Settings::put_link(&provider, &link(values));
        assert_eq!(put(&[]).unwrap().caps.namespace_bytes, 10_000);
        let fewer = put(&[("NAMESPACE_MAX_BYTES", "5000"), ("NAMESPACE_MAX_KEYS", "7")]);
        let caps = fewer.unwrap().caps;
        assert_eq!(
            (caps.namespace_bytes, caps.namespace_keys, caps.collection_items),
            (5_000, 7, 10)
        );
        for wider in [("NAMESPACE_MAX_BYTES", "10001"), ("MAX_COLLECTION_ITEMS", "11")] {
            assert_eq!(put(&[wider]), Err(SettingError::WiderCaps.into()));
        }
    }

    #[test]
    fn a_link_that_is_put_says_nothing_else_than_what_is_in_force() {
        let in_force = base(r#"{"REPLAY_HEARTBEAT_SECS": 5, "ACK": 2}"#);
        for values in [
            &[][..],
            &[("NAMESPACE", "n"), ("ACK_TIMEOUT_MS", "7")],
            &[("FRAME_AUTH", "true"), ("replay_heartbeat_secs", " 5 ")],
            &[("MAX_VALUE_BYTES", "33554432")],
        ] {
            assert_eq!(link(values).agree_with(&in_force), Ok(()), "{values:?}");
        }
        for (values, named) in [
            (&[("FRAME_AUTH", "off")][..], "FRAME_AUTH"),
            (
                &[("REPLAY_HEARTBEAT_SECS", "6"), ("FRAME_AUTH", "on")],
                "REPLAY_HEARTBEAT_SECS in",
            ),
            (&[("CLIENT_JWT", "x")], "CLIENT_SEED"),
            (&[("NATS_URL", "nats://b")], "NATS_URL"),
        ] {
            let error = link(values).agree_with(&in_force).unwrap_err().to_string();
            assert!(error.contains(named), "{values:?}: {error}");
        }
        for (ack, fewer) in [("0", true), ("1", true), ("2", false), ("3", false), ("all", false)] {
            let put = Settings::put_link(&in_force, &link(&[("ACK", ack)]));
            assert_eq!(put == Err(SettingError::WeakerAck.into()), fewer, "ACK={ack}");
        }
        assert_eq!(
            Settings::put_link(&in_force, &link(&[])).unwrap().acks.wanted,
            AckLevel::Peers(2)
        );
    }
}
