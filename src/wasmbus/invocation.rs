//! Invocations: who signed one, for whom, and that it counts once.
//!
//! The checks are those of the host SDK (`wasmbus-rpc`), in another order: what costs least comes first, and the
//! arguments, which may have to be fetched, come last. Two things are added. An invocation that was taken once is
//! refused for as long as it is remembered: it carries no expiry, so a recording of it would stay good for ever. And
//! its claims are read with nkeys 0.4, not 0.3, which panics at odd signatures and does not take one valid key in
//! 65,536.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use data_encoding::{BASE64URL_NOPAD, HEXUPPER};
use hashbrown::{DefaultHashBuilder, HashSet};
use nkeys::KeyPair;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wasmbus_rpc::core::Invocation;

use kvcache_node::time;

/// Calls that change something are remembered for as long as no more than this many have come after them.
const WRITES_REMEMBERED: usize = 1 << 20;
/// The same of reads, which can be repeated without harm but not without cost.
const READS_REMEMBERED: usize = 1 << 16;
/// Claims of an invocation have some 600 bytes.
const MAX_CLAIMS_BYTES: usize = 8 << 10;

/// Why an invocation is refused. The caller is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No claims, or none that can be read.
    #[error("invocation refused: its claims cannot be read ({0})")]
    Claims(&'static str),
    /// Somebody else's.
    #[error("Issuer of this invocation is not in list of cluster issuers")]
    Issuer,
    /// Not signed by its issuer.
    #[error("Invocation claims signature invalid")]
    Signature,
    /// Too late.
    #[error("Invocation claims token expired")]
    Expired,
    /// Too early.
    #[error("Attempt to use invocation before claims token allows")]
    TooEarly,
    /// The arguments, the operation, the origin or the target were changed after signing.
    #[error("invocation refused: {0} not the one that was signed")]
    Changed(&'static str),
    /// For another provider.
    #[error("target key mismatch: this provider is {0}")]
    Target(String),
    /// No host has such an id.
    #[error("Invalid host ID on invocation")]
    Host,
    /// It was there before.
    #[error(
        "invocation refused: it was sent before, and a call counts once; a host signs each call anew, so this is a recording"
    )]
    Repeated,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "typ")]
    kind: String,
    #[serde(rename = "alg")]
    algorithm: String,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "exp")]
    expires: Option<u64>,
    #[serde(rename = "nbf")]
    not_before: Option<u64>,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "sub")]
    subject: String,
    wascap: Option<Signed>,
}

/// What the issuer vouches for.
#[derive(Deserialize)]
struct Signed {
    target_url: String,
    origin_url: String,
    hash: String,
}

/// An invocation whose claims are in order. Its arguments are still to be compared with them.
pub(super) struct Vouched {
    target_url: String,
    origin_url: String,
    hash: String,
    /// Stands for the signed text, which nobody else can change.
    mark: u64,
}

/// Knows whose invocations count, and which have counted.
pub(super) struct Verifier {
    provider_key: String,
    issuers: HashMap<String, KeyPair>,
    hasher: DefaultHashBuilder,
    writes: Seen,
    reads: Seen,
}

impl Verifier {
    /// For calls to this provider, signed by one of these issuers.
    pub fn new(provider_key: &str, issuers: &[String]) -> Self {
        let key_of = |issuer: &String| match KeyPair::from_public_key(issuer) {
            Ok(key) => Some((issuer.clone(), key)),
            Err(error) => {
                tracing::warn!(
                    ?issuer,
                    "cluster_issuers of the host data: not a public key ({error}); it signs nothing"
                );
                None
            }
        };
        Verifier {
            provider_key: provider_key.into(),
            issuers: issuers.iter().filter_map(key_of).collect(),
            hasher: DefaultHashBuilder::default(),
            writes: Seen::new(WRITES_REMEMBERED),
            reads: Seen::new(READS_REMEMBERED),
        }
    }

    /// Checks everything but the arguments. `linked` tells whether the actor is.
    pub fn vouched<E: From<Refusal>>(
        &self,
        invocation: &Invocation,
        linked: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<Vouched, E> {
        let (claims, signed, signature) = parse(&invocation.encoded_claims)?;
        let issuer = self.issuers.get(&claims.issuer).ok_or(Refusal::Issuer)?;
        if invocation.target.public_key != self.provider_key {
            return Err(Refusal::Target(self.provider_key.clone()).into());
        }
        linked(&invocation.origin.public_key)?;
        if !invocation.host_id.starts_with('N') && invocation.host_id.len() != 56 {
            return Err(Refusal::Host.into());
        }
        let now = time::wall() / 1_000;
        if claims.expires.is_some_and(|at| at < now) {
            return Err(Refusal::Expired.into());
        }
        if claims.not_before.is_some_and(|at| now < at) {
            return Err(Refusal::TooEarly.into());
        }
        let Some(vouched) = claims.wascap else {
            return Err(Refusal::Claims("no wascap metadata").into());
        };
        let target_url = format!("{}/{}", invocation.target.url(), invocation.operation);
        if vouched.target_url != target_url {
            return Err(Refusal::Changed("the target or the operation is").into());
        }
        let origin_url = invocation.origin.url();
        if vouched.origin_url != origin_url {
            return Err(Refusal::Changed("the origin is").into());
        }
        if issuer.verify(signed.as_bytes(), &signature).is_err() {
            return Err(Refusal::Signature.into());
        }
        Ok(Vouched {
            target_url,
            origin_url,
            hash: vouched.hash,
            mark: std::hash::BuildHasher::hash_one(&self.hasher, signed),
        })
    }

    /// Compares the arguments with what was signed, and lets each invocation pass once.
    pub fn admit(&self, vouched: &Vouched, operation: &str, argument: &[u8], is_read: bool) -> Result<(), Refusal> {
        let mut hasher = Sha256::new();
        for part in [&vouched.origin_url, &vouched.target_url, operation] {
            hasher.update(part.as_bytes());
        }
        hasher.update(argument);
        if HEXUPPER.encode(&hasher.finalize()) != vouched.hash {
            return Err(Refusal::Changed("the arguments are"));
        }
        let seen = if is_read { &self.reads } else { &self.writes };
        match seen.is_new(vouched.mark) {
            true => Ok(()),
            false => Err(Refusal::Repeated),
        }
    }
}

/// The claims of a token, the text that is signed, and the signature.
fn parse(token: &str) -> Result<(Claims, &str, Vec<u8>), Refusal> {
    if token.len() > MAX_CLAIMS_BYTES {
        return Err(Refusal::Claims("too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Claims("not a token"))?;
    let (header, claims) = signed.split_once('.').ok_or(Refusal::Claims("not a token"))?;
    let header: Header = segment(header)?;
    if header.algorithm != "Ed25519" || header.kind != "jwt" {
        return Err(Refusal::Claims("another kind of token or signature"));
    }
    let claims: Claims = segment(claims)?;
    if claims.subject.is_empty() {
        return Err(Refusal::Claims("no subject"));
    }
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes());
    Ok((claims, signed, signature.map_err(|_| Refusal::Signature)?))
}

fn segment<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    let json = BASE64URL_NOPAD.decode(text.as_bytes());
    let json = json.map_err(|_| Refusal::Claims("not base64"))?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Claims("a field is missing or has another type"))
}

/// Shards of [`Seen`], so that callers seldom meet.
const SHARDS: usize = 16;

/// Marks that were seen, the newest so many at least.
struct Seen {
    shards: [Mutex<Generations>; SHARDS],
    /// Of one generation in one shard.
    capacity: usize,
}

/// Marks in two generations: when the younger is full, the older one is forgotten. So nothing is kept about order.
#[derive(Default)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Seen {
    fn new(remembered: usize) -> Self {
        Seen {
            shards: Default::default(),
            capacity: remembered / SHARDS,
        }
    }

    /// Whether a mark was not there. From now on it is.
    fn is_new(&self, mark: u64) -> bool {
        let shard = &self.shards[(mark >> 32) as usize % SHARDS];
        let mut marks = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let Generations { young, old } = &mut *marks;
        if old.contains(&mark) || !young.insert(mark) {
            return false;
        }
        if young.len() >= self.capacity {
            std::mem::swap(young, old);
            // Keeps its memory, so that it does not have to grow again.
            young.clear();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn a_mark_is_new_once_and_remembered_for_as_many_as_was_promised() {
        const REMEMBERED: usize = 1 << 10;
        let seen = Seen::new(REMEMBERED);
        assert!(seen.is_new(mark(0)));
        assert!(!seen.is_new(mark(0)));
        // Shards fill a little unevenly.
        for number in 1..REMEMBERED as u64 * 3 / 4 {
            assert!(seen.is_new(mark(number)));
            assert!(!seen.is_new(mark(0)), "after {number} others");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        const REMEMBERED: usize = 1 << 8;
        let seen = Seen::new(REMEMBERED);
        for number in 0..100 * REMEMBERED as u64 {
            seen.is_new(mark(number));
        }
        let held = |shard: &Mutex<Generations>| {
            let marks = shard.lock().unwrap();
            marks.young.len() + marks.old.len()
        };
        let held: usize = seen.shards.iter().map(held).sum();
        assert!(held <= 2 * REMEMBERED, "{held} marks");
        assert!(seen.is_new(mark(0)), "long ago");
    }

    #[test]
    fn tokens_that_are_none_are_refused() {
        let long = "x".repeat(MAX_CLAIMS_BYTES + 1);
        for token in ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "e30.e30.e30", &long] {
            assert!(matches!(parse(token), Err(Refusal::Claims(_))), "{token:?}");
        }
    }

    #[test]
    fn any_token_is_read_or_refused() {
        use proptest::prelude::*;
        proptest!(|(token in "([A-Za-z0-9_=-]{0,20}|e30|eyJ0eXAiOiJqd3QiLCJhbGciOiJFZDI1NTE5In0|\\.|\\PC){0,8}")| {
            let _ = parse(&token);
        });
    }
}
