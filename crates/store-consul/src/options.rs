//! What a URL `consul://host:8500/prefix?name=value` asks for.

use std::path::PathBuf;
use std::time::Duration;

use kvcache_node::secret::Secret;
use kvcache_node::store::{StoreUrl, UrlError};

const PORT: u16 = 8500;
const PARAMETERS: [&str; 6] = ["token", "token_file", "datacenter", "tls", "ca", "timeout_ms"];

/// A URL, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// `host:port`, of agents.
    pub(crate) hosts: Vec<String>,
    /// What all keys begin with; without slashes at its ends, empty for none.
    pub(crate) prefix: String,
    pub(crate) token: Option<Token>,
    pub(crate) datacenter: Option<String>,
    pub(crate) tls: bool,
    /// Certificates of authorities; without it those of the machine count.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) timeout: Duration,
}

/// Where the token comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    Given(Secret),
    InFile(PathBuf),
}

impl Options {
    /// Reads a URL.
    pub(crate) fn read(url: &StoreUrl) -> Result<Self, UrlError> {
        url.only_parameters(&PARAMETERS)?;
        let hosts = url.addresses(PORT);
        if hosts.is_empty() {
            return Err(UrlError("no host, as in consul://host/prefix".into()));
        }
        if !url.user.is_empty() || url.password.is_some() {
            return Err(UrlError(
                "a user: Consul knows tokens, as in ?token= or ?token_file=".into(),
            ));
        }
        let given = |name: &str| url.parameters.get(name).filter(|text| !text.is_empty());
        let authorities = given("ca").map(PathBuf::from);
        let tls = url.switch("tls")?.unwrap_or(authorities.is_some());
        if !tls && authorities.is_some() {
            return Err(UrlError("parameter ca: expected with tls=1".into()));
        }
        let token = match (given("token"), given("token_file")) {
            (Some(_), Some(_)) => return Err(UrlError("parameters token and token_file: expected one of them".into())),
            (Some(token), None) => Some(Token::Given(Secret(token.clone()))),
            (None, Some(path)) => Some(Token::InFile(path.into())),
            (None, None) => None,
        };
        Ok(Options {
            hosts,
            prefix: prefix(&url.path)?,
            token,
            datacenter: given("datacenter").cloned(),
            tls,
            authorities,
            timeout: url.timeout()?,
        })
    }
}

fn prefix(path: &str) -> Result<String, UrlError> {
    if path.contains(|c: char| c.is_control() || c == '"') {
        return Err(UrlError(format!(
            "prefix {path:?}: expected a path of printable characters"
        )));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        Options::read(&StoreUrl::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let options = read("consul://a,[::1]:8501").unwrap();
        assert_eq!(options.hosts, ["a:8500", "[::1]:8501"]);
        assert_eq!(
            (options.prefix.as_str(), options.tls, options.timeout),
            ("", false, Duration::from_secs(5))
        );
        assert_eq!(
            (options.token, options.datacenter, options.authorities),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_said_counts() {
        let options = read("consul://a//team/x/?token=secret&datacenter=west&ca=/ca.pem&timeout_ms=900").unwrap();
        assert_eq!(options.prefix, "team/x");
        assert_eq!(options.token, Some(Token::Given(Secret("secret".into()))));
        assert_eq!(options.datacenter.as_deref(), Some("west"));
        assert_eq!((options.tls, options.authorities), (true, Some("/ca.pem".into())));
        assert_eq!(options.timeout, Duration::from_millis(900));
        let options = read("consul://a/?token_file=/run/token").unwrap();
        assert_eq!(options.token, Some(Token::InFile("/run/token".into())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("consul:k", "no host"),
            ("consul://:secret@a/", "Consul knows tokens"),
            ("consul://a/?token=secret&token_file=/x", "expected one of them"),
            ("consul://a/?tls=maybe", "parameter tls"),
            ("consul://a/?tls=0&ca=/x", "expected with tls=1"),
            ("consul://a/?timeout_ms=1", "from 100"),
            ("consul://a/%22", "printable"),
            ("consul://a/?dc=x", "unknown parameter \"dc\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
