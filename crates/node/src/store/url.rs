//! The one setting that names a store: a URL.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// What is wrong with the URL of a store. Shows no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(pub String);

/// A URL `scheme://user:password@host:port,host:port/path?name=value`, or `scheme:path` without an authority.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// In lower case.
    pub scheme: String,
    /// User, decoded; empty for none.
    pub user: String,
    /// Password, decoded.
    pub password: Option<Secret>,
    /// Hosts with their ports, where they are given. Addresses of IPv6 stand in brackets in the URL, and without here.
    pub hosts: Vec<(String, Option<u16>)>,
    /// What comes after the hosts, without the slash before it, decoded; the whole rest of `scheme:path`.
    pub path: String,
    /// Parameters, decoded. Each stands once.
    pub parameters: BTreeMap<String, String>,
}

impl StoreUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let wrong = |what: &str| UrlError(what.into());
        let text = text.trim();
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("no scheme, as in file:/path"))?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_scheme) {
            return Err(wrong("no scheme, as in file:/path"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            None => ("", rest),
            // Of no host: a path from the root, as in file:///path.
            Some(rest) if rest.starts_with('/') => ("", rest),
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        };
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(Secret(decoded(password, "password")?))),
            None => (login, None),
        };
        let hosts = hosts.split(',').filter(|host| !host.is_empty());
        Ok(StoreUrl {
            scheme: scheme.to_ascii_lowercase(),
            user: decoded(user, "user")?,
            password,
            hosts: hosts.map(host_and_port).collect::<Result<_, _>>()?,
            path: decoded(path, "path")?,
            parameters: parameters(query)?,
        })
    }

    /// The parameter of a name, read as a number or whatever is expected; the error names it.
    pub fn parameter<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, UrlError> {
        let Some(text) = self.parameters.get(name) else {
            return Ok(None);
        };
        let wrong = || UrlError(format!("parameter {name}={text:?}: expected {expected}"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// The parameter `timeout_ms`: how long an engine may take for an answer.
    pub fn timeout(&self) -> Result<Duration, UrlError> {
        const EXPECTED: &str = "milliseconds from 100 to 60000";
        let timeout = self.parameter::<u64>("timeout_ms", EXPECTED)?.unwrap_or(5_000);
        match (100..=60_000).contains(&timeout) {
            true => Ok(Duration::from_millis(timeout)),
            false => Err(UrlError(format!(
                "parameter timeout_ms=\"{timeout}\": expected {EXPECTED}"
            ))),
        }
    }

    /// A parameter that is on (`1`, or nothing after the name) or off (`0`), if it is there.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, UrlError> {
        match self.parameters.get(name).map(String::as_str) {
            None => Ok(None),
            Some("1" | "true" | "") => Ok(Some(true)),
            Some("0" | "false") => Ok(Some(false)),
            Some(text) => Err(UrlError(format!("parameter {name}={text:?}: expected 1 or 0"))),
        }
    }

    /// An error that names the first parameter which is none of these.
    pub fn only_parameters(&self, known: &[&str]) -> Result<(), UrlError> {
        match self.parameters.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(UrlError(match known {
                [] => format!("unknown parameter {name:?}: expected none"),
                _ => format!("unknown parameter {name:?}: expected any of {}", known.join(", ")),
            })),
        }
    }

    /// The hosts as `host:port`, with the port that is usual where none is given.
    pub fn addresses(&self, usual: u16) -> Vec<String> {
        let address = |(host, port): &(String, Option<u16>)| {
            let port = port.unwrap_or(usual);
            match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            }
        };
        self.hosts.iter().map(address).collect()
    }
}

/// Without the password, and without parameters, which may be secrets too.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        if !self.hosts.is_empty() {
            let host = |(host, port): &(String, Option<u16>)| match (host.contains(':'), port) {
                (true, Some(port)) => format!("[{host}]:{port}"),
                (true, None) => format!("[{host}]"),
                (false, Some(port)) => format!("{host}:{port}"),
                (false, None) => host.clone(),
            };
            let hosts: Vec<String> = self.hosts.iter().map(host).collect();
            write!(f, "//{}/", hosts.join(","))?;
        }
        f.write_str(&self.path)
    }
}

/// As people see it.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let text = decoded(text, "host")?;
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (
            host,
            port.strip_prefix(':').or(port.is_empty().then_some("")).unwrap_or("?"),
        ),
        None => text.split_once(':').unwrap_or((&text, "")),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            UrlError(format!(
                "host {text:?}: expected host:port, with a port from 1 to 65535"
            ))
        })?),
    };
    if host.is_empty() {
        return Err(UrlError(format!("host {text:?}: expected a name or an address")));
    }
    Ok((host.into(), port))
}

fn parameters(query: &str) -> Result<BTreeMap<String, String>, UrlError> {
    let mut parameters = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name, "name of a parameter")?;
        if parameters.insert(name.clone(), decoded(value, &name)?).is_some() {
            return Err(UrlError(format!("parameter {name} stands twice")));
        }
    }
    Ok(parameters)
}

fn decoded(text: &str, what: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| UrlError(format!("{what}: expected UTF-8, percent-encoded")))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> StoreUrl {
        StoreUrl::parse(text).unwrap()
    }

    fn error(text: &str) -> String {
        StoreUrl::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = parse("rediss://me:p%40ss:word@[::1]:7000,other/3?timeout_ms=5&x=%26");
        assert_eq!(
            (url.scheme.as_str(), url.user.as_str(), url.path.as_str()),
            ("rediss", "me", "3")
        );
        assert_eq!(url.password, Some(Secret("p@ss:word".into())));
        assert_eq!(url.hosts, [("::1".into(), Some(7000)), ("other".into(), None)]);
        assert_eq!(url.addresses(6379), ["[::1]:7000", "other:6379"]);
        assert_eq!(url.parameter("timeout_ms", "milliseconds"), Ok(Some(5)));
        assert_eq!(url.parameters["x"], "&");
        assert_eq!(url.to_string(), "rediss://[::1]:7000,other/3");
        let file = parse("file:/var/lib/a b");
        assert_eq!((file.path.as_str(), file.hosts.len()), ("/var/lib/a b", 0));
        assert_eq!(file.to_string(), "file:/var/lib/a b");
        assert_eq!(parse("file:///var/lib").path, "/var/lib");
        assert_eq!(parse("JetStream:bucket").scheme, "jetstream");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_shown() {
        for (text, expected) in [
            ("", "no scheme"),
            ("/var/lib", "no scheme"),
            ("redis://host:0", "expected host:port"),
            ("redis://:secret@host:port", "expected host:port"),
            ("redis://[::1]7", "expected host:port"),
            ("redis://a?x=1&x=2", "parameter x stands twice"),
            ("redis://%ff", "host: expected UTF-8"),
        ] {
            let error = error(text);
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        let url = parse("redis://u:secret@h/?token=secret&n=x");
        assert!(!format!("{url} {url:?}").contains("secret"));
        let number = url.parameter::<u16>("n", "a number").unwrap_err();
        assert_eq!(number.to_string(), "parameter n=\"x\": expected a number");
        let timeout = parse("redis://h?timeout_ms=5").timeout().unwrap_err();
        assert!(timeout.to_string().contains("from 100 to 60000"), "{timeout}");
        assert_eq!(parse("redis://h").timeout(), Ok(Duration::from_secs(5)));
        assert_eq!(parse("redis://h?tls").switch("tls"), Ok(Some(true)));
        let unknown = url.only_parameters(&["n"]).unwrap_err();
        assert_eq!(unknown.to_string(), "unknown parameter \"token\": expected any of n");
    }
}
