//! Host data: one base64 JSON line on stdin, read and checked.
//!
//! The host SDK would do this as well, but prints the decoded text, seeds included, when it is no valid JSON, panics on
//! a malformed seed, and does not take one valid key in 65,536.

use std::io::BufRead;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use kvcache_node::secret::Secret;
use kvcache_node::settings::{ClusterKeys, Credentials, KeyringError, Lattice, LatticeServer};
use wasmbus_rpc::core::HostData;

/// More than any host sends: a line without end must not fill the memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Address of the lattice when the host data names none.
const DEFAULT_NATS_URL: &str = "nats://127.0.0.1:4222";

/// Host data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostDataError {
    /// Standard input cannot be read.
    #[error("host data: cannot read standard input: {0}")]
    Read(#[from] std::io::Error),
    /// Nothing there.
    #[error("host data: expected one line of base64 on standard input, found nothing; a wasmCloud host starts this program (see --help)")]
    Empty,
    /// No base64.
    #[error("host data: expected base64 on standard input: {0}")]
    Base64(base64::DecodeError),
    /// No host data. Says where, not what: the text holds seeds.
    #[error("host data: expected a JSON object of wasmCloud host data: {what} at line {line} column {column}")]
    Json {
        /// Kind of error.
        what: &'static str,
        /// Line in the decoded text.
        line: usize,
        /// Column in the decoded text.
        column: usize,
    },
    /// A field that cannot be used.
    #[error("host data: field {field}: expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// Reads host data. What it says is checked by [`lattice_of`].
pub fn read_host_data(input: impl BufRead) -> Result<HostData, HostDataError> {
    let mut line = String::new();
    input.take(MAX_LINE_BYTES).read_line(&mut line)?;
    let line = line.trim();
    if line.is_empty() {
        return Err(HostDataError::Empty);
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let json = GeneralPurpose::new(&STANDARD, lenient)
        .decode(line)
        .map_err(HostDataError::Base64)?;
    serde_json::from_slice(&json).map_err(|error| HostDataError::Json {
        what: match error.classify() {
            serde_json::error::Category::Data => "a field is missing or has the wrong type",
            _ => "no valid JSON",
        },
        line: error.line(),
        column: error.column(),
    })
}

/// Checks host data. Returns what connections and replication need of it.
pub fn lattice_of(host_data: &HostData) -> Result<Lattice, HostDataError> {
    let field = |field, expected| HostDataError::Field { field, expected };
    if host_data.provider_key.is_empty() {
        return Err(field("provider_key", "the public key of this provider, found nothing"));
    }
    if host_data.link_name.is_empty() {
        return Err(field("link_name", "the link name of this provider, found nothing"));
    }
    let (jwt, seed) = (
        host_data.lattice_rpc_user_jwt.trim(),
        host_data.lattice_rpc_user_seed.trim(),
    );
    let credentials = match (jwt, seed) {
        ("", "") => Credentials::None,
        (jwt, seed) => Credentials::Jwt {
            jwt: Secret(jwt.into()),
            seed: seed.parse().map_err(|_| {
                field(
                    "lattice_rpc_user_seed",
                    "an nkey user seed ('SU...') beside lattice_rpc_user_jwt",
                )
            })?,
        },
    };
    let cluster = match host_data.invocation_seed.trim() {
        "" => Ok(None),
        seed => ClusterKeys::new(seed, &host_data.cluster_issuers).map(Some),
    };
    if !host_data.is_test() && matches!(cluster, Ok(None) | Err(KeyringError::Seed(_))) {
        return Err(field("invocation_seed", "an nkey seed of the cluster ('SC...')"));
    }
    let server = match host_data.lattice_rpc_url.as_str() {
        "" => DEFAULT_NATS_URL,
        url => url,
    };
    let server = server.parse().map_err(|_| {
        field(
            "lattice_rpc_url",
            "the address of a NATS server (host:port or nats://host:port)",
        )
    })?;
    Ok(Lattice {
        name: host_data.lattice_rpc_prefix.clone(),
        link_name: host_data.link_name.clone(),
        host: host_data.host_id.clone(),
        server: Some(LatticeServer {
            address: server,
            credentials,
        }),
        cluster,
    })
}
