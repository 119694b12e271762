//! What a URL `cassandra://user:password@host,host:9042/keyspace?name=value` asks for.

use std::path::PathBuf;
use std::time::Duration;

use kvcache_node::secret::Secret;
use kvcache_node::store::{StoreUrl, UrlError};
use scylla::statement::Consistency;

const PORT: u16 = 9042;
/// What Cassandra takes as the name of a keyspace.
const MAX_KEYSPACE: usize = 48;
const PARAMETERS: [&str; 7] = [
    "replication_factor",
    "consistency",
    "datacenter",
    "tls",
    "ca",
    "tls_names",
    "timeout_ms",
];
/// Names of CQL. `ANY` is none for reading, and `SERIAL` none for this kind of writing.
const CONSISTENCIES: [(&str, Consistency); 8] = [
    ("LOCAL_QUORUM", Consistency::LocalQuorum),
    ("LOCAL_ONE", Consistency::LocalOne),
    ("QUORUM", Consistency::Quorum),
    ("EACH_QUORUM", Consistency::EachQuorum),
    ("ONE", Consistency::One),
    ("TWO", Consistency::Two),
    ("THREE", Consistency::Three),
    ("ALL", Consistency::All),
];

/// A URL, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// `host:port`.
    pub(crate) hosts: Vec<String>,
    pub(crate) login: Option<(String, Secret)>,
    pub(crate) keyspace: String,
    /// Makes the keyspace where it is missing.
    pub(crate) replication_factor: Option<u16>,
    pub(crate) consistency: Consistency,
    pub(crate) datacenter: Option<String>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) timeout: Duration,
}

/// How servers are trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TlsOptions {
    /// Certificates of authorities; without it those of the machine count.
    pub(crate) authorities: Option<PathBuf>,
    /// Whether a certificate has to name the address of its server.
    pub(crate) names: bool,
}

impl Options {
    /// Reads a URL.
    pub(crate) fn read(url: &StoreUrl) -> Result<Self, UrlError> {
        url.only_parameters(&PARAMETERS)?;
        let hosts = url.addresses(PORT);
        if hosts.is_empty() {
            return Err(UrlError("no host, as in cassandra://host/keyspace".into()));
        }
        let factor = url.parameter::<u16>("replication_factor", "the number of copies")?;
        if factor == Some(0) {
            return Err(UrlError("parameter replication_factor: expected at least 1".into()));
        }
        Ok(Options {
            hosts,
            login: login(url)?,
            keyspace: keyspace(&url.path)?,
            replication_factor: factor,
            consistency: consistency(url)?,
            datacenter: url
                .parameters
                .get("datacenter")
                .filter(|name| !name.is_empty())
                .cloned(),
            tls: tls(url)?,
            timeout: url.timeout()?,
        })
    }
}

fn login(url: &StoreUrl) -> Result<Option<(String, Secret)>, UrlError> {
    match (url.user.as_str(), &url.password) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err(UrlError("a password without a user, as in user:password@host".into())),
        (_, None) => Err(UrlError("a user without a password, as in user:password@host".into())),
        (user, Some(password)) => Ok(Some((user.into(), password.clone()))),
    }
}

fn keyspace(path: &str) -> Result<String, UrlError> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = (1..=MAX_KEYSPACE).contains(&path.len()) && path.chars().all(is_part);
    match is_name {
        true => Ok(path.into()),
        false => Err(UrlError(format!(
            "keyspace {path:?}: expected 1 to {MAX_KEYSPACE} letters, digits and underscores, as in \
             cassandra://host/keyspace"
        ))),
    }
}

fn consistency(url: &StoreUrl) -> Result<Consistency, UrlError> {
    let Some(text) = url.parameters.get("consistency") else {
        return Ok(Consistency::LocalQuorum);
    };
    let known = CONSISTENCIES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    known.map(|(_, consistency)| *consistency).ok_or_else(|| {
        let names: Vec<&str> = CONSISTENCIES.iter().map(|(name, _)| *name).collect();
        UrlError(format!(
            "parameter consistency={text:?}: expected any of {}",
            names.join(", ")
        ))
    })
}

fn tls(url: &StoreUrl) -> Result<Option<TlsOptions>, UrlError> {
    let authorities = url
        .parameters
        .get("ca")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let names = url.switch("tls_names")?;
    let wanted = url.switch("tls")?;
    match wanted.unwrap_or(authorities.is_some()) {
        true if cfg!(not(feature = "tls")) => Err(UrlError("parameter tls: TLS to Cassandra is not built in".into())),
        // Of the whole world's certificates one has to be the server's own.
        true if names == Some(false) && authorities.is_none() => Err(UrlError(
            "parameter tls_names=0: only with authorities of your own, as in ca=/path/to/ca.pem".into(),
        )),
        true => Ok(Some(TlsOptions {
            authorities,
            names: names.unwrap_or(true),
        })),
        false if authorities.is_some() || names.is_some() => {
            Err(UrlError("parameters ca and tls_names: expected with tls=1".into()))
        }
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        Options::read(&StoreUrl::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let options = read("cassandra://a,[::1]:9043/cache").unwrap();
        assert_eq!(options.hosts, ["a:9042", "[::1]:9043"]);
        assert_eq!(options.keyspace, "cache");
        assert_eq!(options.consistency, Consistency::LocalQuorum);
        assert_eq!(options.timeout, Duration::from_secs(5));
        assert_eq!(
            (
                options.login,
                options.replication_factor,
                options.datacenter,
                options.tls
            ),
            (None, None, None, None)
        );
    }

    #[test]
    fn what_is_said_counts() {
        let text =
            "cassandra://me:p%40ss@a/k?replication_factor=3&consistency=local_one&datacenter=west&timeout_ms=900";
        let options = read(text).unwrap();
        assert_eq!(options.login, Some(("me".into(), Secret("p@ss".into()))));
        assert_eq!(options.replication_factor, Some(3));
        assert_eq!(options.consistency, Consistency::LocalOne);
        assert_eq!(options.datacenter.as_deref(), Some("west"));
        assert_eq!(options.timeout, Duration::from_millis(900));
    }

    #[test]
    #[cfg(feature = "tls")]
    fn authorities_of_ones_own_ask_for_tls() {
        let tls = |text: &str| read(text).unwrap().tls;
        assert_eq!(tls("cassandra://a/k?tls=0"), None);
        let usual = TlsOptions {
            authorities: None,
            names: true,
        };
        assert_eq!(tls("cassandra://a/k?tls=1"), Some(usual));
        let own = TlsOptions {
            authorities: Some("/ca.pem".into()),
            names: false,
        };
        assert_eq!(tls("cassandra://a/k?ca=/ca.pem&tls_names=0"), Some(own));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("cassandra:k", "no host"),
            ("cassandra://a", "keyspace \"\": expected"),
            ("cassandra://a/k/x", "keyspace \"k/x\": expected"),
            ("cassandra://me@a/k", "a user without a password"),
            ("cassandra://:secret@a/k", "a password without a user"),
            ("cassandra://a/k?replication_factor=0", "at least 1"),
            ("cassandra://a/k?replication_factor=x", "number of copies"),
            ("cassandra://a/k?consistency=MOST", "LOCAL_QUORUM, LOCAL_ONE"),
            ("cassandra://a/k?timeout_ms=5", "from 100"),
            ("cassandra://a/k?tls=maybe", "parameter tls"),
            ("cassandra://a/k?tls=0&ca=/x", "expected with tls=1"),
            ("cassandra://a/k?keyspace=x", "unknown parameter \"keyspace\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
