//! What a URL says of the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kvcache_node::secret::Secret;
use kvcache_node::store::{StoreError, StoreUrl, UrlError};
use redis::{Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, TlsCertificates};

/// Schemes of the URLs: plain, and over TLS.
pub(crate) const SCHEMES: [&str; 2] = ["redis", "rediss"];

const PORT: u16 = 6379;

/// Where a server is, as whom to connect, and how long to wait.
pub(crate) struct Server {
    /// For people.
    pub name: String,
    pub user: String,
    pub password: Option<Secret>,
    pub database: u32,
    pub timeout: Duration,
    host: String,
    port: u16,
    tls: Option<TlsFiles>,
}

struct TlsFiles {
    authorities: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl Server {
    pub fn of(url: &StoreUrl) -> Result<Self, UrlError> {
        let [(host, port)] = url.hosts.as_slice() else {
            return Err(UrlError(format!(
                "expected one host, as in redis://host:{PORT}/0, not {}",
                url.hosts.len()
            )));
        };
        let over_tls = url.scheme == SCHEMES[1];
        url.only_parameters(match over_tls {
            true => &["timeout_ms", "ca", "cert", "key"],
            false => &["timeout_ms"],
        })?;
        if !url.user.is_empty() && url.password.is_none() {
            return Err(UrlError("a user without a password".into()));
        }
        let database = match url.path.as_str() {
            "" => 0,
            text => text.parse().map_err(|_| {
                UrlError(format!(
                    "path {text:?}: expected the number of a database, or nothing for 0"
                ))
            })?,
        };
        Ok(Server {
            name: format!("Redis at {}", url.addresses(PORT).concat()),
            user: url.user.clone(),
            password: url.password.clone(),
            database,
            timeout: url.timeout()?,
            host: host.clone(),
            port: port.unwrap_or(PORT),
            tls: over_tls.then(|| TlsFiles::of(url)).transpose()?,
        })
    }

    /// What connects to it. The library gets no login: it keeps the server's words about one to itself.
    pub fn client(&self) -> Result<Client, StoreError> {
        let (host, port) = (self.host.clone(), self.port);
        let unusable = |what: &str| StoreError::Unusable(format!("{}: {what}", self.name));
        let client = match &self.tls {
            None => Client::open(ConnectionAddr::Tcp(host, port)),
            Some(files) => {
                // Which implementation there is must not depend on what else is built in. An error says that one is
                // chosen.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let address = ConnectionAddr::TcpTls {
                    host,
                    port,
                    insecure: false,
                    tls_params: None,
                };
                let certificates = files.read().map_err(|what| unusable(&what))?;
                address
                    .into_connection_info()
                    .and_then(|info| Client::build_with_tls(info, certificates))
            }
        };
        client.map_err(|error| unusable(&error.to_string()))
    }
}

impl TlsFiles {
    fn of(url: &StoreUrl) -> Result<Self, UrlError> {
        let file = |name: &str| url.parameters.get(name).map(PathBuf::from);
        let certificate = match (file("cert"), file("key")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return Err(UrlError("parameters cert and key go together".into())),
        };
        Ok(TlsFiles {
            authorities: file("ca"),
            certificate,
        })
    }

    fn read(&self) -> Result<TlsCertificates, String> {
        let client_tls = match &self.certificate {
            None => None,
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key: read(key)?,
            }),
        };
        Ok(TlsCertificates {
            client_tls,
            root_cert: self.authorities.as_deref().map(read).transpose()?,
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("file '{}': it cannot be read: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, UrlError> {
        Server::of(&StoreUrl::parse(url)?)
    }

    #[test]
    fn urls_say_where_and_as_whom() {
        let server = server("redis://me:secret@[::1]:7000/3?timeout_ms=250").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.database), ("::1", 7000, 3));
        assert_eq!(server.timeout, Duration::from_millis(250));
        assert_eq!(server.name, "Redis at [::1]:7000");
        let plain = self::server("redis://host").unwrap();
        assert_eq!((plain.port, plain.database, plain.timeout.as_secs()), (6379, 0, 5));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("redis:", "one host"),
            ("redis:///3", "one host"),
            ("redis://a,b", "one host"),
            ("redis://host/x", "number of a database"),
            ("redis://host/-1", "number of a database"),
            ("redis://host?ca=/file", "unknown parameter \"ca\""),
            ("redis://host?timeout_ms=99", "from 100 to 60000"),
            ("redis://host?timeout_ms=soon", "expected milliseconds"),
            ("redis://me@host", "without a password"),
            ("rediss://host?cert=/file", "go together"),
            ("rediss://host?cluster=1", "unknown parameter"),
        ] {
            let error = server(url).err().unwrap().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
        let missing = server("rediss://:secret@host?ca=/nowhere/at/all").unwrap();
        let error = missing.client().err().unwrap().to_string();
        assert!(
            error.contains("/nowhere/at/all") && !error.contains("secret"),
            "{error}"
        );
    }
}
