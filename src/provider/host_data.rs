//! Host data: one base64 JSON line on stdin, read and checked before the SDK sees it.
//!
//! The SDK would do this as well, but prints the decoded text, seeds included, when it is no valid JSON, and panics on
//! a malformed seed.
//!
//! The SDK reads keys with nkeys 0.3, which compares the checksum with the first two bytes of a key instead of the last
//! two, and takes the key if they differ: one valid key in 65,536 it does not take.

use std::io::BufRead;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use wasmbus_rpc::core::HostData;
use wasmbus_rpc::wascap::prelude::KeyPair as SdkKeyPair;

/// More than any host sends: a line without end must not fill the memory.
const MAX_LINE_BYTES: u64 = 64 << 20;

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

/// Reads and checks host data.
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
    let host_data: HostData = serde_json::from_slice(&json).map_err(|error| HostDataError::Json {
        what: match error.classify() {
            serde_json::error::Category::Data => "a field is missing or has the wrong type",
            _ => "no valid JSON",
        },
        line: error.line(),
        column: error.column(),
    })?;
    check(&host_data)?;
    Ok(host_data)
}

fn check(host_data: &HostData) -> Result<(), HostDataError> {
    let field = |field, expected| Err(HostDataError::Field { field, expected });
    let is_seed = |seed: &str| nkeys::KeyPair::from_seed(seed.trim()).is_ok();
    if host_data.provider_key.is_empty() {
        return field("provider_key", "the public key of this provider, found nothing");
    }
    if host_data.link_name.is_empty() {
        return field("link_name", "the link name of this provider, found nothing");
    }
    let (jwt, seed) = (
        host_data.lattice_rpc_user_jwt.trim(),
        host_data.lattice_rpc_user_seed.trim(),
    );
    let has_user = !jwt.is_empty() || !seed.is_empty();
    if has_user && !is_seed(seed) {
        return field(
            "lattice_rpc_user_seed",
            "an nkey user seed ('SU...') beside lattice_rpc_user_jwt",
        );
    }
    if has_user && SdkKeyPair::from_seed(seed).is_err() {
        return field(
            "lattice_rpc_user_seed",
            "another seed: this one is valid, but the SDK cannot read it (1 seed in 65,536); make a new user key",
        );
    }
    if !host_data.is_test() && !is_seed(&host_data.invocation_seed) {
        return field("invocation_seed", "an nkey seed of the cluster ('SC...')");
    }
    if !host_data.lattice_rpc_url.is_empty() && crate::nats::check_address(&host_data.lattice_rpc_url).is_err() {
        return field(
            "lattice_rpc_url",
            "the address of a NATS server (host:port or nats://host:port)",
        );
    }
    Ok(())
}

/// Makes up for cluster keys the SDK cannot read (see the module), so that it does not end with "checksum mismatch".
///
/// A seed it cannot read is replaced: the SDK signs with it what a provider asks of actors, and this one asks nothing.
/// Who needs the seed of the cluster takes it from the host data before.
pub fn suit_sdk(host_data: &mut HostData) {
    if !host_data.is_test() && SdkKeyPair::from_seed(&host_data.invocation_seed).is_err() {
        match SdkKeyPair::new_cluster().seed() {
            Ok(seed) => host_data.invocation_seed = seed,
            Err(error) => tracing::warn!(%error, "no substitute for a cluster seed the SDK cannot read"),
        }
    }
    for issuer in &host_data.cluster_issuers {
        // What is no key at all is listed nowhere as an issuer of calls.
        if nkeys::KeyPair::from_public_key(issuer).is_ok() && SdkKeyPair::from_public_key(issuer).is_err() {
            tracing::warn!(
                issuer,
                "the SDK cannot verify what this cluster key signs (1 valid key in 65,536): the calls of its hosts will \
                 be refused; make a new cluster key"
            );
        }
    }
}
