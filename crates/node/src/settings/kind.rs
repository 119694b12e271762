//! What a setting can be: how its text is read, and what the documentation says of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use kvcache_core::cache::MAX_NAMESPACE_BYTES;
use kvcache_core::replica::AckLevel;

use crate::nats::{ServerAddress, Subject, SubjectError, UserSeed};
use crate::secret::Secret;
use crate::service::Policy;
use crate::store::StoreUrl;

/// A kind of settings.
pub(super) trait Kind: Sync {
    /// What a setting of this kind means.
    type Value;

    /// What holds where nothing is set.
    fn unset(&self) -> Self::Value;

    /// What a text means, or what was expected in its place.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// For the documentation: the texts that can be read.
    fn values(&self) -> String;

    /// For the documentation: what holds where nothing is set.
    fn default(&self) -> String;

    /// Whether the text may be a secret, or have one in it.
    fn is_secret(&self) -> bool {
        false
    }
}

/// On or off.
pub(super) struct Switch {
    pub default: bool,
}

impl Kind for Switch {
    type Value = bool;

    fn unset(&self) -> bool {
        self.default
    }

    fn parse(&self, text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok(true),
            "off" | "false" | "no" | "0" => Ok(false),
            _ => Err("on or off".into()),
        }
    }

    fn values(&self) -> String {
        "`on`, `true`, `yes`, `1`, or `off`, `false`, `no`, `0`".into()
    }

    fn default(&self) -> String {
        if self.default { "`on`" } else { "`off`" }.into()
    }
}

/// A whole number of something.
pub(super) struct Number<T> {
    pub unit: &'static str,
    pub default: T,
    pub min: T,
    pub max: T,
}

impl<T: Copy + PartialOrd + FromStr + fmt::Display + Sync> Kind for Number<T> {
    type Value = T;

    fn unset(&self) -> T {
        self.default
    }

    fn parse(&self, text: &str) -> Result<T, String> {
        let Number { min, max, .. } = self;
        match text.parse::<T>() {
            Ok(number) if number >= *min && number <= *max => Ok(number),
            _ => Err(format!("a whole number from {min} to {max}")),
        }
    }

    fn values(&self) -> String {
        format!("{} to {} {}", self.min, self.max, self.unit)
    }

    fn default(&self) -> String {
        self.default.to_string()
    }
}

/// A bound of something, or none.
pub(super) struct Cap {
    pub unit: &'static str,
    pub min: u64,
}

impl Kind for Cap {
    type Value = Option<u64>;

    fn unset(&self) -> Option<u64> {
        None
    }

    fn parse(&self, text: &str) -> Result<Option<u64>, String> {
        let Cap { unit, min } = self;
        match text.parse::<u64>() {
            Ok(number) if number >= *min && number <= MAX_CAP => Ok(Some(number)),
            _ => Err(format!("a whole number of {unit} from {min} to {MAX_CAP}")),
        }
    }

    fn values(&self) -> String {
        format!("{} to {MAX_CAP} {}", self.min, self.unit)
    }

    fn default(&self) -> String {
        "none".into()
    }
}

/// The largest cap: more than any machine has.
const MAX_CAP: u64 = 1 << 50;

/// What a write does that does not fit.
pub(super) struct MemoryPolicy;

impl Kind for MemoryPolicy {
    type Value = Policy;

    fn unset(&self) -> Policy {
        Policy::Refuse
    }

    fn parse(&self, text: &str) -> Result<Policy, String> {
        match text.to_ascii_lowercase().as_str() {
            "refuse" => Ok(Policy::Refuse),
            "evict-ttl" => Ok(Policy::EvictTtl),
            "evict-lfu" => Ok(Policy::EvictLfu),
            _ => Err("refuse, evict-ttl or evict-lfu".into()),
        }
    }

    fn values(&self) -> String {
        "`refuse`, `evict-ttl`, `evict-lfu`".into()
    }

    fn default(&self) -> String {
        "`refuse`".into()
    }
}

/// A span of time, as a whole number of units.
pub(super) struct Span {
    pub unit: Unit,
    pub default: u64,
    pub min: u64,
    pub max: u64,
}

/// What a span of time is counted in.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

impl Span {
    fn of(&self, number: u64) -> Duration {
        match self.unit {
            Unit::Seconds => Duration::from_secs(number),
            Unit::Milliseconds => Duration::from_millis(number),
        }
    }

    const fn number(&self) -> Number<u64> {
        Number {
            unit: match self.unit {
                Unit::Seconds => "s",
                Unit::Milliseconds => "ms",
            },
            default: self.default,
            min: self.min,
            max: self.max,
        }
    }
}

impl Kind for Span {
    type Value = Duration;

    fn unset(&self) -> Duration {
        self.of(self.default)
    }

    fn parse(&self, text: &str) -> Result<Duration, String> {
        self.number().parse(text).map(|number| self.of(number))
    }

    fn values(&self) -> String {
        self.number().values()
    }

    fn default(&self) -> String {
        self.number().default()
    }
}

/// What a write waits for.
pub(super) struct Acknowledgement {
    pub max_peers: u32,
}

/// Who has to have a write before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Acks {
    pub peers: AckLevel,
    pub stored: bool,
}

impl Acknowledgement {
    fn peers(&self, text: &str) -> Option<AckLevel> {
        match text.parse::<u32>() {
            _ if text.eq_ignore_ascii_case("all") => Some(AckLevel::All),
            Ok(0) => Some(AckLevel::Local),
            Ok(peers) if peers <= self.max_peers => Some(AckLevel::Peers(peers)),
            _ => None,
        }
    }
}

impl Kind for Acknowledgement {
    type Value = Acks;

    fn unset(&self) -> Acks {
        Acks::default()
    }

    fn parse(&self, text: &str) -> Result<Acks, String> {
        let (first, rest) = text.split_once('+').unwrap_or((text, ""));
        let acks = match first.trim().eq_ignore_ascii_case("stored") {
            true if rest.is_empty() && !text.contains('+') => Some((AckLevel::Local, true)),
            true => self.peers(rest.trim()).map(|peers| (peers, true)),
            false => self.peers(text).map(|peers| (peers, false)),
        };
        let acks = acks.map(|(peers, stored)| Acks { peers, stored });
        acks.ok_or_else(|| {
            format!(
                "0, a number of peers up to {}, all, stored, or stored+ and one of these",
                self.max_peers
            )
        })
    }

    fn values(&self) -> String {
        format!("0 to {}, or `all`; `stored`, `stored+1`, `stored+all`", self.max_peers)
    }

    fn default(&self) -> String {
        "0".into()
    }
}

/// A keyspace; empty for the shared one.
pub(super) struct Namespace;

impl Kind for Namespace {
    type Value = String;

    fn unset(&self) -> String {
        String::new()
    }

    fn parse(&self, text: &str) -> Result<String, String> {
        match text.len() <= MAX_NAMESPACE_BYTES {
            true => Ok(text.into()),
            false => Err(format!("at most {MAX_NAMESPACE_BYTES} bytes")),
        }
    }

    fn values(&self) -> String {
        format!("at most {MAX_NAMESPACE_BYTES} bytes")
    }

    fn default(&self) -> String {
        "none".into()
    }
}

/// A text that is read in one way, and that need not be there.
pub(super) struct Text<V: 'static> {
    /// For the documentation: what holds where nothing is set.
    pub unset: &'static str,
    pub values: &'static str,
    pub is_secret: bool,
    pub parse: fn(&str) -> Result<V, String>,
}

impl<V> Kind for Text<V> {
    type Value = Option<V>;

    fn unset(&self) -> Option<V> {
        None
    }

    fn parse(&self, text: &str) -> Result<Option<V>, String> {
        (self.parse)(text).map(Some)
    }

    fn values(&self) -> String {
        self.values.into()
    }

    fn default(&self) -> String {
        self.unset.into()
    }

    fn is_secret(&self) -> bool {
        self.is_secret
    }
}

/// Servers, any of which will do. An address can carry a password.
pub(super) const fn addresses(unset: &'static str) -> Text<Vec<ServerAddress>> {
    const EXPECTED: &str = "one or more addresses of NATS servers, separated by commas (nats://host:port)";
    Text {
        unset,
        values: "addresses, separated by commas",
        is_secret: true,
        parse: |text| {
            let addresses = text.split(',').map(|address| address.trim().parse::<ServerAddress>());
            let addresses: Result<Vec<_>, _> = addresses.collect();
            addresses.map_err(|reason| format!("{EXPECTED}; {reason}"))
        },
    }
}

/// The seed of a user.
pub(super) const fn seed(unset: &'static str) -> Text<UserSeed> {
    Text {
        unset,
        values: "nkey user seed (`SU...`)",
        is_secret: true,
        parse: |text| {
            let seed = text.parse::<UserSeed>();
            seed.map_err(|error| format!("an nkey user seed, 'SU...' ({error})"))
        },
    }
}

/// A text that a server checks.
pub(super) const fn secret(unset: &'static str, values: &'static str) -> Text<Secret> {
    Text {
        unset,
        values,
        is_secret: true,
        parse: |text| Ok(Secret(text.into())),
    }
}

/// The name of a lattice or a link.
pub(super) const fn lattice_name() -> Text<String> {
    const MOST: usize = 128;
    Text {
        unset: "`default`",
        values: "a name of at most 128 bytes",
        is_secret: false,
        parse: |text| match text.len() <= MOST {
            true => Ok(text.into()),
            false => Err(format!("a name of at most {MOST} bytes")),
        },
    }
}

/// Public keys of clusters.
pub(super) const fn issuers() -> Text<Vec<String>> {
    Text {
        unset: "none",
        values: "public keys (`C...`), separated by commas",
        is_secret: false,
        parse: |text| {
            let issuers = text.split(',').map(|issuer| issuer.trim().to_owned());
            let issuers: Vec<String> = issuers.filter(|issuer| !issuer.is_empty()).collect();
            match issuers.iter().find(|issuer| !is_cluster(issuer)) {
                None => Ok(issuers),
                Some(_) => Err("public keys of clusters, 'C...', separated by commas".into()),
            }
        },
    }
}

fn is_cluster(key: &str) -> bool {
    key.starts_with('C') && nkeys::KeyPair::from_public_key(key).is_ok()
}

/// A subject of its own.
pub(super) const fn subject(unset: &'static str, values: &'static str) -> Text<Subject> {
    Text {
        unset,
        values,
        is_secret: false,
        parse: |text| text.parse::<Subject>().map_err(|error| no_subject(&error)),
    }
}

/// What is expected where a text is no subject, or one that cannot be used beside the others.
pub(super) fn no_subject(error: &SubjectError) -> String {
    format!("a NATS subject without wildcards, of its own; {error}")
}

/// The URL of a store, which can carry a password.
pub(super) const fn store() -> Text<StoreUrl> {
    Text {
        unset: "none",
        values: "URL",
        is_secret: true,
        parse: |text| {
            let url = StoreUrl::parse(text);
            url.map_err(|error| format!("the URL of a store ({error})"))
        },
    }
}

/// A file of this host.
pub(super) const fn file(unset: &'static str, values: &'static str) -> Text<PathBuf> {
    Text {
        unset,
        values,
        is_secret: false,
        parse: |text| Ok(text.into()),
    }
}
