//! Addresses of NATS servers.

use std::fmt;
use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;

use super::error::NatsError;

/// The address of a NATS server. Shown without its user, whose name can be a token; compares as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    text: String,
    parsed: ServerAddr,
}

/// Why a text is not the address of a NATS server. Does not repeat it: it can hold a password.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl ServerAddress {
    /// Whether it says as whom to connect.
    pub fn has_user(&self) -> bool {
        self.text.contains('@')
    }

    pub(super) fn parsed(&self) -> &ServerAddr {
        &self.parsed
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parsed = read(text).map_err(AddressError)?;
        Ok(ServerAddress {
            text: text.into(),
            parsed,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.rsplit('@').next().unwrap_or_default())
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn read(address: &str) -> Result<ServerAddr, String> {
    if address.is_empty() {
        return Err("it is empty".into());
    }
    if address.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it contains white space or control characters".into());
    }
    match address.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()) {
        None => {}
        Some(scheme) if ["nats", "tls"].contains(&scheme.as_str()) => {}
        Some(scheme) if ["ws", "wss"].contains(&scheme.as_str()) => {
            return Err("WebSocket is not built in: use nats:// or tls://".into());
        }
        Some(_) => return Err("it begins neither with nats:// nor with tls://".into()),
    }
    let server = ServerAddr::from_str(address).map_err(|error| error.to_string())?;
    let url = server.clone().into_inner();
    // IPv6 in brackets is checked by the parser.
    let host = url.host_str().unwrap_or_default();
    if !host.starts_with('[') && !is_host_name(host) {
        return Err("it names no host".into());
    }
    if server.port() == 0 {
        return Err("its port is not from 1 to 65535".into());
    }
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return Err("it has more than host and port".into());
    }
    if url.username().is_empty() && url.password().is_some() {
        return Err("it has a password without a user".into());
    }
    Ok(server)
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // The name of the root may end it.
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// The client library does not read the user of an address: `user:password@`, or `token@` alone.
pub(super) fn with_user_of(options: ConnectOptions, address: &ServerAddr) -> ConnectOptions {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = decode(address.username().unwrap_or_default());
    match address.password() {
        Some(password) => options.user_and_password(user, decode(password)),
        None => options.token(user),
    }
}

/// The client library writes addresses to its debug log as they are.
pub(super) fn without_user(address: ServerAddr) -> Result<ServerAddr, NatsError> {
    let mut url = address.into_inner();
    let host = url.host_str().unwrap_or_default().to_owned();
    let failed = |reason: &dyn fmt::Display| NatsError::Address {
        address: host.clone(),
        reason: reason.to_string(),
    };
    if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
        return Err(failed(&"it has no place for a user"));
    }
    ServerAddr::from_url(url).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_servers_are_taken() {
        for good in [
            "localhost",
            "127.0.0.1:4222",
            "nats://nats.example.org",
            "NATS://10.0.0.1:1",
            "tls://a-b_c.example.:65535",
            "nats://[::1]:4222/",
            "nats://user:pass%20word@host:4222",
            "nats://token@host",
        ] {
            let address: ServerAddress = good.parse().unwrap();
            let shown = format!("{address} {address:?}");
            assert!(!shown.contains("user") && !shown.contains("token"), "{good}: {shown}");
        }
        for (bad, reason) in [
            ("", "empty"),
            ("nats://a b:4222", "white space"),
            ("nats://host\n:4222", "white space"),
            ("ws://host:80", "WebSocket"),
            ("wss://host", "WebSocket"),
            ("http://host:80", "neither"),
            ("redis://host", "neither"),
            ("://host", "neither"),
            ("nats://", "no host"),
            ("nats://:4222", "host"),
            ("nats://a..b", "no host"),
            ("nats://h%20st", "no host"),
            ("nats://host:0", "port"),
            ("nats://host:99999", "port"),
            ("nats://host:port", "port"),
            ("nats://host/path", "more than"),
            ("nats://host?tls=1", "more than"),
            ("nats://:secret@host", "password without"),
            ("nats://me:secret@[bad", ""),
        ] {
            let error = bad.parse::<ServerAddress>().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad:?}: {error}");
            assert!(!error.contains("secret"), "{bad:?}: {error}");
        }
    }
}
