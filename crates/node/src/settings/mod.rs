//! Settings: one validated type, from a JSON object of settings and from the values of links.

mod lattice;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use kvcache_core::cache::{Limits, MAX_NAMESPACE_BYTES};
use kvcache_core::replica::Ack;
use serde_json::Value;

use crate::nats;
use crate::secret::{cleaned, Secret};
use crate::service::Acks;

pub use crate::nats::{Credentials, ServerAddress, Subject, Subjects, Tls, UserSeed};
pub use lattice::{Lattice, LatticeError};

/// Names of all settings.
mod name {
    pub const REPLICATION: &str = "REPLICATION";
    pub const NATS_URL: &str = "NATS_URL";
    pub const NATS_CREDS: &str = "NATS_CREDS";
    pub const NATS_TOKEN: &str = "NATS_TOKEN";
    pub const NATS_TLS_CA: &str = "NATS_TLS_CA";
    pub const NATS_TLS_CERT: &str = "NATS_TLS_CERT";
    pub const NATS_TLS_KEY: &str = "NATS_TLS_KEY";
    pub const LATTICE_CONNECT_SECS: &str = "LATTICE_CONNECT_SECS";
    pub const CLIENT_JWT: &str = "CLIENT_JWT";
    pub const CLIENT_SEED: &str = "CLIENT_SEED";
    pub const STATE_REPL_SUBJECT: &str = "STATE_REPL_SUBJECT";
    pub const REPLAY_REQ_SUBJECT: &str = "REPLAY_REQ_SUBJECT";
    pub const REPLAY_HEARTBEAT_SECS: &str = "REPLAY_HEARTBEAT_SECS";
    pub const SYNC_TIMEOUT_SECS: &str = "SYNC_TIMEOUT_SECS";
    pub const SYNC_MIN_PEERS: &str = "SYNC_MIN_PEERS";
    pub const TOMBSTONE_TTL_SECS: &str = "TOMBSTONE_TTL_SECS";
    pub const MAX_CLOCK_SKEW_SECS: &str = "MAX_CLOCK_SKEW_SECS";
    pub const MAX_VALUE_BYTES: &str = "MAX_VALUE_BYTES";
    pub const FRAME_AUTH: &str = "FRAME_AUTH";
    pub const QUEUE_BYTES: &str = "QUEUE_BYTES";
    pub const INBOX_BYTES: &str = "INBOX_BYTES";
    pub const RING_BYTES: &str = "RING_BYTES";
    pub const MAX_ANSWER_BYTES: &str = "MAX_ANSWER_BYTES";
    pub const ACK: &str = "ACK";
    pub const ACK_TIMEOUT_MS: &str = "ACK_TIMEOUT_MS";
    pub const NAMESPACE: &str = "NAMESPACE";

    /// Settings of a link.
    pub const LINK: [&str; 3] = [NAMESPACE, ACK, ACK_TIMEOUT_MS];

    /// Settings of the process.
    pub const PROCESS: [&str; 23] = [
        REPLICATION,
        NATS_URL,
        NATS_CREDS,
        NATS_TOKEN,
        NATS_TLS_CA,
        NATS_TLS_CERT,
        NATS_TLS_KEY,
        LATTICE_CONNECT_SECS,
        CLIENT_JWT,
        CLIENT_SEED,
        STATE_REPL_SUBJECT,
        REPLAY_REQ_SUBJECT,
        REPLAY_HEARTBEAT_SECS,
        SYNC_TIMEOUT_SECS,
        SYNC_MIN_PEERS,
        TOMBSTONE_TTL_SECS,
        MAX_CLOCK_SKEW_SECS,
        MAX_VALUE_BYTES,
        FRAME_AUTH,
        QUEUE_BYTES,
        INBOX_BYTES,
        RING_BYTES,
        MAX_ANSWER_BYTES,
    ];

    /// Settings that no link can change: who is believed, and files of this host.
    pub const NEVER_OF_LINK: [&str; 5] = [FRAME_AUTH, NATS_CREDS, NATS_TLS_CA, NATS_TLS_CERT, NATS_TLS_KEY];

    /// Settings that prove to a server who this is.
    pub const CREDENTIALS: [&str; 4] = [CLIENT_JWT, CLIENT_SEED, NATS_CREDS, NATS_TOKEN];
}

/// Smallest and largest buffer that can be set, in bytes.
const MIN_BUFFER_BYTES: usize = 64 << 10;
const MAX_BUFFER_BYTES: usize = 4 << 30;

/// Largest answer: by default that which any single value fits.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Deletions are remembered for this many intervals of beats at least: a peer that missed a few is not away for long.
const TTL_BEATS: u64 = 10;

/// Host and server of a machine start at about the same time.
const LATTICE_CONNECT_SECS: u64 = 60;

/// Shorter than the two seconds in which a host gives up a call.
const ACK_TIMEOUT_MS: u64 = 1_500;

/// A setting that cannot be used. Says which, where it stands, and what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// `config_json` is no JSON object.
    #[error("config_json of the host data: expected a JSON object of settings, {0}")]
    NotAnObject(String),
    /// A value has a JSON type that no setting has.
    #[error("setting {name} in config_json: expected a string, a number or a boolean, found {found}")]
    JsonType {
        /// The setting.
        name: String,
        /// What stands there.
        found: &'static str,
    },
    /// A value that does not mean anything for this setting. Secrets are not shown.
    #[error("setting {name} in {origin}: expected {expected}, found {found}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Where it stands.
        origin: Origin,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// A link says otherwise about the process than what is in force.
    #[error(
        "setting {0} in the link values: a link says nothing else about the provider than what is in force; set it in \
         config_json and start the provider again"
    )]
    OfProcess(String),
    /// A link that somebody has put asks for less than the provider does.
    #[error("setting ACK in the link values: expected no less than ACK in config_json asks for")]
    WeakerAck,
}

/// Where a setting comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// `config_json` of the host data.
    ConfigJson,
    /// The values of a link.
    Link,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::ConfigJson => "config_json",
            Origin::Link => "the link values",
        })
    }
}

/// Settings as they were given, by upper-case name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RawSettings(BTreeMap<String, (String, Origin)>);

impl fmt::Debug for RawSettings {
    /// Names only: values can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl RawSettings {
    /// Reads `config_json`. None, an empty text and `null` mean no settings.
    pub fn from_json(text: Option<&str>) -> Result<Self, ConfigError> {
        let text = text.map(str::trim).unwrap_or_default();
        if text.is_empty() {
            return Ok(Self::default());
        }
        // The text itself is not repeated in errors: it can hold a seed.
        let object = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(Value::Null) => return Ok(Self::default()),
            Ok(other) => return Err(ConfigError::NotAnObject(format!("found {}", json_type(&other)))),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return Err(ConfigError::NotAnObject(format!(
                    "found invalid JSON at line {line} column {column}"
                )));
            }
        };
        let mut settings = Self::default();
        for (name, value) in object {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(on) => if on { "on" } else { "off" }.into(),
                Value::Null => continue,
                other if is_known(&name) => {
                    return Err(ConfigError::JsonType {
                        name,
                        found: json_type(&other),
                    })
                }
                // Settings of other software; named below.
                other => other.to_string(),
            };
            settings.insert(&name, text, Origin::ConfigJson);
        }
        Ok(settings)
    }

    /// Reads the values of a link.
    pub fn from_link<'a>(values: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in values {
            settings.insert(name, value.clone(), Origin::Link);
        }
        settings
    }

    fn insert(&mut self, name: &str, value: String, origin: Origin) {
        // An empty value is what a template leaves of a setting that was not set.
        if !value.trim().is_empty() {
            self.0.insert(name.trim().to_ascii_uppercase(), (value, origin));
        }
    }

    /// These settings, with those of `other` instead where both have one.
    pub fn overlaid_with(&self, other: &RawSettings) -> Self {
        let mut merged = self.clone();
        merged.0.extend(other.0.clone());
        merged
    }

    /// These settings and those of the process that a link of the host data has, as in the classic provider.
    ///
    /// Such a link may set what `config_json` leaves open, not contradict it. It cannot switch off authentication, and
    /// no server it names is told the credentials of `config_json`: links of the host data were messages once, which
    /// nobody signs.
    pub fn completed_by(&self, link: &RawSettings) -> Result<Self, ConfigError> {
        let wanted = link.of_process();
        let contradicts = |raw: &RawSettings, name: &&String| {
            let alone = RawSettings(wanted.0.get_key_value(*name).map(own).into_iter().collect());
            Config::new(&raw.overlaid_with(&alone)).ok() != Config::new(raw).ok()
        };
        let may_not = |name: &&String| {
            let decided = self.0.contains_key(*name) || name::NEVER_OF_LINK.contains(&name.as_str());
            decided && contradicts(self, name)
        };
        if let Some(names) = listed(wanted.0.keys().filter(may_not)) {
            return Err(ConfigError::OfProcess(names));
        }
        let names = |raw: &RawSettings| name::CREDENTIALS.iter().any(|name| raw.0.contains_key(*name));
        if wanted.0.contains_key(name::NATS_URL) && names(self) && !self.0.contains_key(name::NATS_URL) {
            return Err(ConfigError::Together(
                "setting NATS_URL in the link values: the credentials of config_json go to no server that a link names; set \
                 both in config_json",
            ));
        }
        let completed = self.overlaid_with(&wanted);
        Config::new(&completed).map(|_| completed)
    }

    /// Whether a link says nothing about the process but what is in force.
    pub fn agree_with(&self, in_force: &RawSettings) -> Result<(), ConfigError> {
        let wanted = self.of_process();
        let config = Config::new(in_force)?;
        if wanted.is_empty() || Config::new(&in_force.overlaid_with(&wanted))? == config {
            return Ok(());
        }
        let differs = |name: &&String| {
            let alone = RawSettings(wanted.0.get_key_value(*name).map(own).into_iter().collect());
            Config::new(&in_force.overlaid_with(&alone)).ok().as_ref() != Some(&config)
        };
        let names = listed(wanted.0.keys().filter(differs)).or_else(|| listed(wanted.0.keys()));
        Err(ConfigError::OfProcess(names.unwrap_or_default()))
    }

    /// Only the settings of the process, without those of a single link.
    pub fn of_process(&self) -> Self {
        let process = |(name, _): &(&String, &(String, Origin))| name::PROCESS.contains(&name.as_str());
        RawSettings(
            self.0
                .iter()
                .filter(process)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names that no setting has. Values of other tools stand beside ours, so this is worth a warning, not an error.
    pub fn unknown(&self) -> Vec<&str> {
        // What wasmcloud's tools put into link values by themselves.
        let expected = ["CONFIG_B64", "CONFIG_JSON"];
        self.0
            .keys()
            .map(String::as_str)
            .filter(|name| !is_known(name) && !expected.contains(name))
            .collect()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.trim())
    }

    fn error(&self, name: &'static str, expected: impl Into<String>) -> ConfigError {
        let (found, origin) = match self.0.get(name) {
            Some((_, origin)) if is_secret(name) => ("something else (not shown)".into(), *origin),
            Some((value, origin)) => (format!("'{}'", shorten(value)), *origin),
            None => ("nothing".into(), Origin::ConfigJson),
        };
        ConfigError::Value {
            name,
            origin,
            expected: expected.into(),
            found,
        }
    }

    fn number<T>(&self, name: &'static str, default: T, min: T, max: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Copy + fmt::Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        match text.parse() {
            Ok(number) if number >= min && number <= max => Ok(number),
            _ => Err(self.error(name, format!("a whole number from {min} to {max}"))),
        }
    }

    fn switch(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("on" | "true" | "yes" | "1") => Ok(true),
            Some("off" | "false" | "no" | "0") => Ok(false),
            Some(_) => Err(self.error(name, "on or off")),
        }
    }
}

fn own((name, value): (&String, &(String, Origin))) -> (String, (String, Origin)) {
    (name.clone(), value.clone())
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn is_known(name: &str) -> bool {
    let name = name.trim().to_ascii_uppercase();
    name::LINK.contains(&name.as_str()) || name::PROCESS.contains(&name.as_str())
}

/// An address can carry a password.
fn is_secret(name: &str) -> bool {
    [name::CLIENT_SEED, name::CLIENT_JWT, name::NATS_URL, name::NATS_TOKEN].contains(&name)
}

/// As it may be shown: a seed in the wrong place is not cut in two, but left out.
fn shorten(value: &str) -> String {
    const SHOWN: usize = 60;
    let value = cleaned(value);
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.into_owned(),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Settings of the process, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Whether to replicate at all.
    pub replication: bool,
    /// Servers for replication; `None`: the lattice's own.
    pub nats_url: Option<Vec<ServerAddress>>,
    /// Credentials for replication; `None`: the lattice's own with the lattice's own servers, else none.
    pub credentials: Option<Credentials>,
    /// Certificates for the connections.
    pub tls: Tls,
    /// How long the lattice is waited for at the start, in seconds.
    pub lattice_connect_secs: u64,
    /// Subject of commands instead of the derived one.
    pub commands_subject: Option<Subject>,
    /// Subject of replay requests instead of the derived one.
    pub replay_subject: Option<Subject>,
    /// Interval of beats in seconds.
    pub beat_secs: u64,
    /// How long links wait for the first replay, in seconds.
    pub sync_timeout_secs: u64,
    /// So many peers have to have been known before the provider calls itself synced or alone.
    pub sync_min_peers: usize,
    /// Bounds of the cache.
    pub limits: Limits,
    /// Whether messages of replication are authenticated.
    pub frame_auth: bool,
    /// Bytes of commands that may wait to be sent.
    pub queue_bytes: usize,
    /// Bytes of peers' messages that may wait to be taken in.
    pub inbox_bytes: usize,
    /// Bytes of recent frames kept for peers that missed some.
    pub ring_bytes: usize,
    /// Bytes of the largest answer.
    pub max_answer_bytes: usize,
}

/// Settings of one link, validated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkConfig {
    /// Keyspace of the link; empty for the shared one.
    pub namespace: String,
    /// What its calls wait for.
    pub acks: Acks,
}

impl Config {
    /// Validates the settings of the process.
    pub fn new(raw: &RawSettings) -> Result<Self, ConfigError> {
        if let Some((_, Origin::ConfigJson)) = raw.0.get(name::NAMESPACE) {
            return Err(raw.error(name::NAMESPACE, "it among the values of a link, not of the provider"));
        }
        let config = Config {
            replication: raw.switch(name::REPLICATION, true)?,
            nats_url: servers(raw)?,
            credentials: credentials(raw)?,
            tls: tls(raw)?,
            lattice_connect_secs: raw.number(name::LATTICE_CONNECT_SECS, LATTICE_CONNECT_SECS, 0, 86_400)?,
            commands_subject: subject(raw, name::STATE_REPL_SUBJECT)?,
            replay_subject: subject(raw, name::REPLAY_REQ_SUBJECT)?,
            beat_secs: raw.number(name::REPLAY_HEARTBEAT_SECS, 1, 1, 3_600)?,
            sync_timeout_secs: raw.number(name::SYNC_TIMEOUT_SECS, 10, 0, 3_600)?,
            sync_min_peers: raw.number(name::SYNC_MIN_PEERS, 0, 0, 1_000)?,
            limits: limits(raw)?,
            frame_auth: raw.switch(name::FRAME_AUTH, true)?,
            queue_bytes: raw.number(name::QUEUE_BYTES, 64 << 20, MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)?,
            inbox_bytes: raw.number(name::INBOX_BYTES, 64 << 20, MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)?,
            ring_bytes: raw.number(name::RING_BYTES, 16 << 20, MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)?,
            max_answer_bytes: raw.number(name::MAX_ANSWER_BYTES, MAX_ANSWER_BYTES, 1 << 10, 1 << 30)?,
        };
        if config.limits.tombstone_ttl_ms < TTL_BEATS * config.beat_secs * 1_000 {
            return Err(ConfigError::Together(
                "settings TOMBSTONE_TTL_SECS and REPLAY_HEARTBEAT_SECS: expected deletions to be remembered for at least \
                 10 intervals of beats",
            ));
        }
        Self::link(raw)?;
        // Checked here, so that a bad subject is reported with its setting and before anything has started.
        config.subjects(raw, "lattice", "link")?;
        Ok(config)
    }

    /// Reads the files that the settings name. Apart from the rest: settings are also compared with those that strangers
    /// name.
    pub fn check_files(&self, raw: &RawSettings) -> Result<(), ConfigError> {
        let refused =
            |name, expected: &'static str| move |reason: String| raw.error(name, format!("{expected}; {reason}"));
        if let Some(Credentials::File(file)) = &self.credentials {
            let expected = "a credentials file with user JWT and seed, as nsc writes it";
            nats::check_credentials_file(file).map_err(refused(name::NATS_CREDS, expected))?;
        }
        if let Some(file) = &self.tls.authorities {
            nats::check_authorities(file).map_err(refused(name::NATS_TLS_CA, "a file of certificates in PEM"))?;
        }
        if let Some((certificate, key)) = &self.tls.certificate {
            let expected = "a file with a certificate in PEM, to which NATS_TLS_KEY is the key";
            nats::check_certificate(certificate, key).map_err(refused(name::NATS_TLS_CERT, expected))?;
        }
        Ok(())
    }

    /// The subjects of a lattice and link name under these settings.
    pub fn subjects(&self, raw: &RawSettings, lattice: &str, link: &str) -> Result<nats::Subjects, ConfigError> {
        let expected = |name, error| no_subject(raw, name, &error);
        let mut subjects = nats::Subjects::of(lattice, link);
        if let Some(subject) = &self.commands_subject {
            subjects = subjects.with_commands(subject);
        }
        if subjects.check().is_err() && self.commands_subject.is_none() {
            return Err(ConfigError::Together(
                "fields lattice_rpc_prefix and link_name of the host data: expected names of 900 bytes at most together \
                 (three for a character other than letters, digits, '-' and '_'); or set STATE_REPL_SUBJECT",
            ));
        }
        subjects
            .check()
            .map_err(|error| expected(name::STATE_REPL_SUBJECT, error))?;
        if let Some(subject) = &self.replay_subject {
            subjects = subjects.with_replay(subject);
            subjects
                .check()
                .map_err(|error| expected(name::REPLAY_REQ_SUBJECT, error))?;
        }
        Ok(subjects)
    }

    /// Validates the settings of a link that somebody has put: as [`Config::link`], but it may not ask for fewer
    /// confirmations than the provider does.
    pub fn put_link(base: &RawSettings, values: &RawSettings) -> Result<LinkConfig, ConfigError> {
        let link = Self::link(&base.overlaid_with(values))?;
        if link.acks.wanted < Self::link(base)?.acks.wanted {
            return Err(ConfigError::WeakerAck);
        }
        Ok(link)
    }

    /// Validates the settings of a link: its own over those of the provider.
    pub fn link(raw: &RawSettings) -> Result<LinkConfig, ConfigError> {
        let namespace = raw.text(name::NAMESPACE).unwrap_or_default();
        if namespace.len() > MAX_NAMESPACE_BYTES {
            return Err(raw.error(name::NAMESPACE, format!("at most {MAX_NAMESPACE_BYTES} bytes")));
        }
        let ack = raw.text(name::ACK).map(str::to_ascii_lowercase);
        Ok(LinkConfig {
            namespace: namespace.into(),
            acks: Acks {
                wanted: match ack.as_deref() {
                    Some("all") => Ack::All,
                    _ => match raw.number(name::ACK, 0, 0, 1_000) {
                        Ok(0) => Ack::Local,
                        Ok(peers) => Ack::Peers(peers),
                        Err(_) => return Err(raw.error(name::ACK, "0, a number of peers up to 1000, or all")),
                    },
                },
                timeout_ms: raw.number(name::ACK_TIMEOUT_MS, ACK_TIMEOUT_MS, 1, 600_000)?,
            },
        })
    }
}

fn no_subject(raw: &RawSettings, name: &'static str, error: &nats::SubjectError) -> ConfigError {
    raw.error(name, format!("a NATS subject without wildcards, of its own; {error}"))
}

fn subject(raw: &RawSettings, name: &'static str) -> Result<Option<Subject>, ConfigError> {
    let subject = raw.text(name).map(|text| text.parse());
    subject.transpose().map_err(|error| no_subject(raw, name, &error))
}

fn servers(raw: &RawSettings) -> Result<Option<Vec<ServerAddress>>, ConfigError> {
    let Some(text) = raw.text(name::NATS_URL) else {
        return Ok(None);
    };
    let servers: Result<Vec<ServerAddress>, _> = text.split(',').map(|server| server.trim().parse()).collect();
    servers.map(Some).map_err(|reason| {
        let expected = "one or more addresses of NATS servers, separated by commas (nats://host:port)";
        raw.error(name::NATS_URL, format!("{expected}; {reason}"))
    })
}

/// One way to prove who this is, or none.
fn credentials(raw: &RawSettings) -> Result<Option<Credentials>, ConfigError> {
    let user = match (raw.text(name::CLIENT_JWT), raw.text(name::CLIENT_SEED)) {
        (None, None) => None,
        (Some(jwt), Some(seed)) => match seed.parse::<UserSeed>() {
            Ok(seed) => Some(Credentials::Jwt {
                jwt: Secret(jwt.into()),
                seed,
            }),
            Err(error) => return Err(raw.error(name::CLIENT_SEED, format!("an nkey user seed, 'SU...' ({error})"))),
        },
        (Some(_), None) => {
            return Err(ConfigError::Together(
                "setting CLIENT_SEED: expected with CLIENT_JWT, found nothing",
            ))
        }
        (None, Some(_)) => {
            return Err(ConfigError::Together(
                "setting CLIENT_JWT: expected with CLIENT_SEED, found nothing",
            ))
        }
    };
    let file = raw.text(name::NATS_CREDS).map(|file| Credentials::File(file.into()));
    let token = raw
        .text(name::NATS_TOKEN)
        .map(|token| Credentials::Token(Secret(token.into())));
    let mut ways = [user, file, token].into_iter().flatten();
    let credentials = ways.next();
    let in_address = raw.text(name::NATS_URL).is_some_and(|servers| servers.contains('@'));
    if ways.next().is_some() || (credentials.is_some() && in_address) {
        return Err(ConfigError::Together(
            "settings CLIENT_JWT with CLIENT_SEED, NATS_CREDS, NATS_TOKEN and a user in NATS_URL: expected one of them at \
             most",
        ));
    }
    Ok(credentials)
}

fn tls(raw: &RawSettings) -> Result<Tls, ConfigError> {
    let path = |name| raw.text(name).map(PathBuf::from);
    let certificate = match (path(name::NATS_TLS_CERT), path(name::NATS_TLS_KEY)) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            return Err(ConfigError::Together(
                "setting NATS_TLS_KEY: expected with NATS_TLS_CERT, found nothing",
            ))
        }
        (None, Some(_)) => {
            return Err(ConfigError::Together(
                "setting NATS_TLS_CERT: expected with NATS_TLS_KEY, found nothing",
            ))
        }
    };
    Ok(Tls {
        authorities: path(name::NATS_TLS_CA),
        certificate,
    })
}

fn limits(raw: &RawSettings) -> Result<Limits, ConfigError> {
    let default = Limits::default();
    Ok(Limits {
        max_value_bytes: raw.number(name::MAX_VALUE_BYTES, default.max_value_bytes, 1, 64 << 20)?,
        max_clock_skew_ms: raw.number(name::MAX_CLOCK_SKEW_SECS, default.max_clock_skew_ms / 1_000, 1, 86_400)? * 1_000,
        tombstone_ttl_ms: raw.number(
            name::TOMBSTONE_TTL_SECS,
            default.tombstone_ttl_ms / 1_000,
            10,
            31_536_000,
        )? * 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config, ConfigError> {
        Config::new(&RawSettings::from_json(Some(json))?)
    }

    #[test]
    fn nothing_set_means_the_defaults() {
        for json in ["", "null", "{}", r#"{"NATS_URL": "", "URL": "redis://elsewhere"}"#] {
            let config = parse(json).unwrap();
            assert!(config.replication);
            assert_eq!((config.beat_secs, config.sync_timeout_secs), (1, 10));
            assert_eq!(config.nats_url, None);
        }
    }

    #[test]
    fn names_are_taken_in_any_case_and_values_in_any_json_type() {
        let config = parse(r#"{"replication": false, "Replay_Heartbeat_Secs": 5, "SYNC_TIMEOUT_SECS": "3"}"#).unwrap();
        assert!(!config.replication);
        assert_eq!((config.beat_secs, config.sync_timeout_secs), (5, 3));
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
    fn secrets_are_not_repeated() {
        for json in [
            r#"{"CLIENT_JWT": "tell-nobody", "CLIENT_SEED": "tell-nobody"}"#,
            r#"{"NATS_URL": "nats://me:tell-nobody@[bad"}"#,
            r#"{"CLIENT_SEED": "tell-nobody"#,
        ] {
            let error = parse(json).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("tell-nobody"), "{error}");
        }
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
        let config = Config::new(&completes("{}", &[elsewhere, ("REPLAY_HEARTBEAT_SECS", "7")]).unwrap()).unwrap();
        assert_eq!((config.beat_secs, config.nats_url.unwrap().len()), (7, 1));
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
            let put = Config::put_link(&in_force, &link(&[("ACK", ack)]));
            assert_eq!(put == Err(ConfigError::WeakerAck), fewer, "ACK={ack}");
        }
        assert_eq!(
            Config::put_link(&in_force, &link(&[])).unwrap().acks.wanted,
            Ack::Peers(2)
        );
    }
}
